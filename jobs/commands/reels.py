"""Commands that make other reels of what an OUTPUT knows already."""

import sys

import click

from jobs.commands.runs import effects


@click.command()
@click.argument("output")
@click.option("--target", metavar="LENGTH", help="Length of a reel: 30s, 1m30s, or a share: 15%.")
@click.option("--name", metavar="NAME", help="Under which they stand beside others; the target if not said.")
@click.option("--min-clip", type=float, metavar="SECONDS", help="Shortest clip.")
@click.option("--max-clip", type=float, metavar="SECONDS", help="Longest clip.")
@click.option("--clips", is_flag=True, default=None, help="Also write every clip as a file of its own.")
@click.option("--transitions", metavar="NAMES", help="whip,spin,... or cut for hard cuts only.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only videos that match; may be given again.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not the videos that match.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N videos.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings in a YAML file.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting: render.crf=18.")
@click.option("--bundle", metavar="URI", help="Model bundle; the one in the package by default.")
@click.option("--address", metavar="ADDRESS", help="A Ray cluster to run on; this machine by default.")
def recut(
    output: str,
    target: str | None,
    name: str | None,
    min_clip: float | None,
    max_clip: float | None,
    clips: bool | None,
    transitions: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    limit: int | None,
    config: str | None,
    assignments: tuple[str, ...],
    bundle: str | None,
    address: str | None,
) -> None:
    """Make other reels of the videos in OUTPUT from its tables: nothing is analysed again.

    Of the sources only the spans that are shown are read. Reels go to media/VIDEO_ID/NAME/ and a row each to
    cuts/; reels of other names stay. Exit code: 0 all done, 1 some failed, 2 could not start.
    """
    places: dict[str, object] = {
        "cut.target": target,
        "cut.min_clip_s": min_clip,
        "cut.max_clip_s": max_clip,
        "render.clips": clips,
        "library.include": list(include) or None,
        "library.exclude": list(exclude) or None,
        "library.limit": limit,
        "bundle": bundle,
    }
    flags = {place: value for place, value in places.items() if value is not None}
    if transitions is not None:
        flags |= effects(transitions)

    from jobs.recut import Options
    from jobs.recut import recut as job

    sys.exit(job(Options(output, name, config, tuple(flags.items()), assignments, address)))
