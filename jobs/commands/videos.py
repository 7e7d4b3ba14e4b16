"""Commands that make one video, without a run."""

import sys

import click


@click.command()
@click.argument("output")
@click.argument("video")
@click.option("--out", required=True, metavar="DIR|FILE.mp4", help="A folder of PNGs, or one film.")
@click.option("--bundle", metavar="URI", help="Bundle that made them; the one in the package by default.")
@click.option("--square", is_flag=True, help="PNGs as they are stored, not in the video's shape.")
def proxies(output: str, video: str, out: str, bundle: str | None, square: bool) -> None:
    """Decode the stored proxies of VIDEO (an id, or a name) in OUTPUT, without the video itself.

    PNGs are named by their time in seconds; a film has the same times. Exit code: 0 done, 2 not.
    """
    from jobs.proxies import proxies as job

    sys.exit(job(output, video, out, bundle, square, click.echo))


@click.command()
@click.argument("video")
@click.argument("out")
@click.option(
    "--effect",
    "name",
    required=True,
    metavar="NAME",
    help="whip, spin, ripple, twist, zoom, blur or lens; spin+zoom is both at once.",
)
@click.option("--strength", type=click.FloatRange(0, 1), default=0.6, show_default=True, help="0: none.")
@click.option(
    "--every", type=float, metavar="SECONDS", help="One pulse in every so many seconds: 2 if not said."
)
@click.option("--at", metavar="TIMES", help="At these times instead: 1.5,0:42,1m3s.")
@click.option("--cuts", is_flag=True, help="Over the cuts of the video instead, as transitions.")
@click.option(
    "--duration", type=float, default=0.8, show_default=True, metavar="SECONDS", help="Of each pulse."
)
@click.option("--bundle", metavar="URI", help="Model bundle; the one in the package by default.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there already.")
def effect(
    video: str,
    out: str,
    name: str,
    strength: float,
    every: float | None,
    at: str | None,
    cuts: bool,
    duration: float,
    bundle: str | None,
    overwrite: bool,
) -> None:
    """Put an effect inside VIDEO and write it to OUT, an .mp4 of the same length with its sound in step.

    Times count from the first picture. Exit code: 0 written, 2 not.
    """
    from jobs.effect import Options
    from jobs.effect import effect as job

    options = Options(video, out, name, strength, duration, every, at, cuts, bundle, overwrite)
    sys.exit(job(options))


@click.command()
@click.argument("output")
@click.argument("video")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["otio", "edl", "fcpxml"]),
    help="By the suffix of FILE if not said.",
)
@click.option("--out", required=True, metavar="FILE", help="Where it is written.")
@click.option("--media", metavar="FOLDER", help="Where the sources lie for the editing program.")
def export(output: str, video: str, kind: str | None, out: str, media: str | None) -> None:
    """Write the reel of VIDEO (an id, or a name) in OUTPUT as a timeline for an editing program.

    otio is OpenTimelineIO, what lies beside every reel; edl is CMX 3600; fcpxml is for Final Cut Pro and
    DaVinci Resolve. Exit code: 0 written, 2 not.
    """
    from jobs.export import export as job

    sys.exit(job(output, video, kind, out, media, click.echo))
