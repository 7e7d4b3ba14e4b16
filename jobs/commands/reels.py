"""Commands that make other reels of what an OUTPUT knows already."""

import sys
from datetime import datetime

import click

from jobs.commands.runs import effects


@click.command()
@click.argument("output")
@click.option("--preset", metavar="NAME|FILE", help="Settings for one use; all others change it.")
@click.option("--target", metavar="LENGTH", help="Length of a reel: 30s, 1m30s, or a share: 15%.")
@click.option(
    "--name", metavar="NAME", help="Under which they stand beside others; the preset's, or the target."
)
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
    preset: str | None,
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
        "preset": preset,
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


@click.command()
@click.argument("output")
@click.option("--from", "uris", multiple=True, metavar="GLOB", help="Of the videos' URIs, or how they begin.")
@click.option("--since", metavar="DATE", help="Only files that were changed on that day or later.")
@click.option("--until", metavar="DATE", help="Only files that were changed before that day.")
@click.option("--preset", metavar="NAME|FILE", help="Settings for one use; all others change it.")
@click.option("--target", metavar="LENGTH", help="Length of the reel: 3m, 90s, or a share of the footage.")
@click.option("--name", metavar="NAME", help="Under which it stands beside others; best-TARGET if not said.")
@click.option("--per-video", type=click.IntRange(1), metavar="N", help="Clips of one video, at most.")
@click.option(
    "--order", type=click.Choice(["chronological", "best_first"]), help="In which they come; cut.order's."
)
@click.option("--captions", is_flag=True, default=None, help="Name each clip's video, and where it is in it.")
@click.option("--min-clip", type=float, metavar="SECONDS", help="Shortest clip.")
@click.option("--max-clip", type=float, metavar="SECONDS", help="Longest clip.")
@click.option("--transitions", metavar="NAMES", help="whip,spin,... or cut for hard cuts only.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings in a YAML file.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting: reel.apart=0.2.")
@click.option("--bundle", metavar="URI", help="Model bundle; the one in the package by default.")
def reel(
    output: str,
    uris: tuple[str, ...],
    since: str | None,
    until: str | None,
    preset: str | None,
    target: str | None,
    name: str | None,
    per_video: int | None,
    order: str | None,
    captions: bool | None,
    min_clip: float | None,
    max_clip: float | None,
    transitions: str | None,
    config: str | None,
    assignments: tuple[str, ...],
    bundle: str | None,
) -> None:
    """Make one reel over many videos of OUTPUT, the best of a day or a season, from its tables.

    It goes to media/library/NAME/ and a row to cuts/. It has the frame rate of most of its seconds, and their
    shape unless render.aspect says another; what is of another shape is cropped if an aspect was asked for,
    or stands on a blurred copy of itself. Exit code: 0 made, 1 not, 2 could not start.
    """
    places: dict[str, object] = {
        "preset": preset,
        "cut.target": target,
        "cut.min_clip_s": min_clip,
        "cut.max_clip_s": max_clip,
        "reel.per_video": per_video,
        "reel.order": order,
        "reel.captions": captions,
        "bundle": bundle,
    }
    flags = {place: value for place, value in places.items() if value is not None}
    if transitions is not None:
        flags |= effects(transitions)
    days = [None if day is None else _day(day) for day in (since, until)]

    from jobs.reel import Options
    from jobs.reel import reel as job
    from pipeline.best import From

    videos = From(uris, *days)
    sys.exit(job(Options(output, name, config, tuple(flags.items()), assignments, videos=videos)))


def _day(text: str) -> datetime:
    """When a day (2026-11-01), or a time of it (2026-11-01T18:00), begins here."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not a date: write 2026-11-01") from error
