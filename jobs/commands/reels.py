"""Commands that make other reels of what an OUTPUT knows already."""

import sys
from datetime import datetime
from typing import Any

import click

from jobs.commands import options


@click.command()
@click.argument("output")
@click.option(
    "--name", metavar="NAME", help="Under which they stand beside others; the preset's, or the target."
)
@options.reels("render.crf=18", "this machine")
def recut(
    output: str,
    name: str | None,
    config: str | None,
    assignments: tuple[str, ...],
    address: str | None,
    **given: Any,
) -> None:
    """Make other reels of the videos in OUTPUT from its tables: nothing is analysed again.

    Of the sources only the spans that are shown are read. Reels go to media/VIDEO_ID/NAME/ and a row each to
    cuts/; reels of other names stay. Exit code: 0 all done, 1 some failed, 2 could not start.
    """
    flags = options.flags_of(**given)
    options.get_ready(address)

    from jobs.recut import Options
    from jobs.recut import recut as job

    sys.exit(job(Options(output, name, config, flags, assignments, address)))


@click.command()
@click.argument("output")
@click.option("--from", "uris", multiple=True, metavar="GLOB", help="Of the videos' URIs, or how they begin.")
@options.exclude
@click.option("--since", metavar="DATE", help="Only files that were changed on that day or later.")
@click.option("--until", metavar="DATE", help="Only files that were changed before that day.")
@options.preset
@options.target("the reel")
@click.option("--name", metavar="NAME", help="Under which it stands beside others; best-TARGET if not said.")
@click.option("--per-video", type=click.IntRange(1), metavar="N", help="Clips of one video, at most.")
@click.option(
    "--order", type=click.Choice(["chronological", "best_first"]), help="In which they come; cut.order's."
)
@click.option("--captions", is_flag=True, default=None, help="Name each clip's video, and where it is in it.")
@options.cutting
@options.config
@options.assignments("reel.apart=0.2")
@options.bundle
def reel(
    output: str,
    uris: tuple[str, ...],
    since: str | None,
    until: str | None,
    name: str | None,
    config: str | None,
    assignments: tuple[str, ...],
    **given: Any,
) -> None:
    """Make one reel over many videos of OUTPUT, the best of a day or a season, from its tables.

    It goes to media/library/NAME/ and a row to cuts/. It has the frame rate of most of its seconds, and their
    shape unless render.aspect says another; what is of another shape is cropped if an aspect was asked for,
    or stands on a blurred copy of itself. Exit code: 0 made, 1 not, 2 could not start.
    """
    flags = options.flags_of(**given)
    days = [None if day is None else _day(day) for day in (since, until)]
    options.get_ready()

    from jobs.reel import Options
    from jobs.reel import reel as job
    from pipeline.best import From

    sys.exit(job(Options(output, name, config, flags, assignments, videos=From(uris, *days))))


def _day(text: str) -> datetime:
    """When a day (2026-11-01), or a time of it (2026-11-01T18:00), begins here."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not a date: write 2026-11-01") from error
