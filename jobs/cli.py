"""The command line: parses, imports what the command needs, and exits with its code."""

import sys

import click

MODELS = ("features", "scorer", "colour", "effects", "codec")  # as in stages/nn/weights.py, without torch


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="reelmap")
def main() -> None:
    """Highlight reels and a searchable archive from large video libraries."""


@main.command()
@click.argument("library")
@click.argument("output", required=False)
@click.option(
    "--from-proxies",
    is_flag=True,
    help="LIBRARY is the OUTPUT of another run: score its videos again from their proxies.",
)
@click.option(
    "--target", metavar="LENGTH", help="Length of a reel: 60s, 1m30s, or a share of the video: 15%."
)
@click.option("--min-clip", type=float, metavar="SECONDS", help="Shortest clip.")
@click.option("--max-clip", type=float, metavar="SECONDS", help="Longest clip.")
@click.option(
    "--clips", is_flag=True, default=None, help="Also write every chosen clip as a file of its own."
)
@click.option("--transitions", metavar="NAMES", help="whip,spin,... or cut for hard cuts only.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; may be given again.")
@click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Not the files that match; may be given again."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N videos.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="Settings in a YAML file.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting: decode.fps=4.")
@click.option("--bundle", metavar="URI", help="Model bundle; the one in the package by default.")
@click.option("--address", metavar="ADDRESS", help="A Ray cluster to run on; a local Ray by default.")
@click.option("--retry-failed", is_flag=True, help="Also try again what failed or was dropped before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done (videos, bytes, hours) and stop.")
def highlights(
    library: str,
    output: str | None,
    from_proxies: bool,
    target: str | None,
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
    retry_failed: bool,
    dry_run: bool,
) -> None:
    """Make a highlight reel of every video in LIBRARY and write reels, tables and a report to OUTPUT.

    LIBRARY and OUTPUT are folders or any fsspec URI (s3://bucket/prefix). Videos that OUTPUT holds already
    are left out. Exit code: 0 all done, 1 some failed, 2 could not start.

    With --from-proxies no video is read and no reel is made: clips, scores and what would be chosen go to
    OUTPUT, or to LIBRARY/rescored without one.
    """
    if output is None:
        if not from_proxies:
            raise click.UsageError("Missing argument 'OUTPUT'.")
        output = f"{library.rstrip('/')}/rescored"
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

    from jobs.highlights import Options
    from jobs.highlights import highlights as job

    options = Options(
        library,
        output,
        config=config,
        flags=tuple(flags.items()),
        assignments=assignments,
        address=address,
        dry_run=dry_run,
        retry_failed=retry_failed,
        from_proxies=from_proxies,
    )
    sys.exit(job(options))


def effects(transitions: str) -> dict[str, object]:
    """The settings that --transitions stands for: they hold whatever a file says of the effects' kind."""
    names = [name.strip() for name in transitions.split(",")]
    if names == ["cut"]:
        return {"effects.kind": "none"}
    if "cut" in names:
        raise click.UsageError("--transitions: cut stands alone, it means hard cuts and no effects")
    if not all(names):
        raise click.UsageError("--transitions takes names with commas between them: whip,spin")
    return {"effects.kind": "gan", "effects.transitions": names}


@main.command()
@click.argument("folder", type=click.Path(file_okay=False))
def demo(folder: str) -> None:
    """Render a small library into FOLDER/library and make its reels in FOLDER/output.

    One of its files is broken on purpose. Exit code: 0 when all others have their reels.
    """
    from pathlib import Path

    from jobs.demo_run import run_demo

    sys.exit(run_demo(Path(folder), click.echo))


@main.command()
@click.argument("model", type=click.Choice(MODELS))
@click.option("--data", metavar="DIR", help="Folder of training data; with --labels it may be left out.")
@click.option("--splits", metavar="FILE.json", help="With --data FILE.h5: the field's splits (scorer only).")
@click.option("--labels", metavar="OUTPUT", help="Learn what `reelmap label` noted there (scorer only).")
@click.option("--out", required=True, metavar="BUNDLE", help="Bundle (folder) that the model is written to.")
@click.option("--from", "start", metavar="BUNDLE", help="Bundle to start from.")
@click.option("--folder", metavar="DIR", help="For checkpoints and caches; the user's cache by default.")
@click.option("--address", metavar="ADDRESS", help="A Ray cluster to train on; a local Ray by default.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Training settings: steps=500, minutes=30, workers=2, seed=1.",
)
def train(
    model: str,
    data: str | None,
    splits: str | None,
    labels: str | None,
    out: str,
    start: str | None,
    folder: str | None,
    address: str | None,
    assignments: tuple[str, ...],
) -> None:
    """Train MODEL and write it into a bundle with its measured quality.

    A training that was stopped goes on from its last checkpoint when the same command is given again.
    """
    import yaml

    overrides = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--set {assignment}: write it as KEY=VALUE, such as steps=500")
        try:
            overrides[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.UsageError(f"--set {assignment}: the value is not YAML") from error
    for option, value in (("--labels", labels), ("--splits", splits)):
        if value and model != "scorer":
            raise click.UsageError(f"{option} teaches a scorer, not {model}")
    if not data and not labels:
        raise click.UsageError("give --data, a folder of training data")

    import json

    from jobs.train.loop import TrainingError, run_training
    from pipeline.storage import StorageError, absolute
    from stages.nn.weights import DEFAULT_BUNDLE, BundleError

    if splits:
        # A worker's working directory is another.
        overrides["splits"] = absolute(splits)
    if labels:
        # Without a folder of its own the training's data are what is labelled.
        overrides["labels"] = absolute(labels)
        data, start = data or labels, start or DEFAULT_BUNDLE
    try:
        card = run_training(model, data, out, start, overrides, folder, address)
    except (TrainingError, BundleError, ConnectionError, StorageError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("interrupted: the same command goes on from the last checkpoint", err=True)
        sys.exit(130)
    # Hashes of a thousand files would push what was learnt out of sight; they are in the bundle.
    trained = {name: value for name, value in card.get("trained", {}).items() if name != "files"}
    click.echo(json.dumps(card | ({"trained": trained} if trained else {}), indent=1))


@main.command()
@click.argument("output")
@click.option("--liked", multiple=True, metavar="FILE.csv", help="Spans to see more of; may be given again.")
@click.option("--disliked", multiple=True, metavar="FILE.csv", help="Spans to see less of.")
def label(output: str, liked: tuple[str, ...], disliked: tuple[str, ...]) -> None:
    """Note what you like and dislike in the videos of OUTPUT, for `reelmap train scorer --labels OUTPUT`.

    The files have the columns video, start and end: holiday.mp4,1:30,1:42.5. A later label overrides an
    earlier one where their spans overlap. Without files, what is labelled is listed. Exit code: 0 done, 2
    nothing was labelled.
    """
    from jobs.label import LabelError
    from jobs.label import label as job
    from pipeline.storage import StorageError

    try:
        job(output, liked, disliked, click.echo)
    except (LabelError, StorageError) as error:
        click.echo(f"reelmap: {error}", err=True)
        sys.exit(2)


@main.command()
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


@main.command()
@click.argument("video")
@click.argument("out")
@click.option(
    "--effect",
    "name",
    required=True,
    metavar="NAME",
    help="whip, spin, ripple, twist, zoom or blur; spin+zoom is both at once.",
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


@main.command()
@click.argument("output")
def report(output: str) -> None:
    """Write OUTPUT's report pages anew."""
    from pipeline import tables
    from pipeline.report import write_report
    from pipeline.storage import StorageError, absolute, shown

    output = absolute(output)
    try:
        if not len(tables.current(output)):
            raise StorageError(f"there are no results of reelmap in {shown(output)}")
        click.echo(shown(write_report(output)))
    except StorageError as error:
        click.echo(f"reelmap: {error}", err=True)
        sys.exit(2)


@main.command()
@click.argument("output")
@click.option("--quick", is_flag=True, help="Compare sizes, checksums and lengths, but decode nothing.")
@click.option(
    "--repair",
    is_flag=True,
    help="Remove what is of no use, and have the next run make anew what is broken.",
)
@click.option("--json", "report", metavar="FILE", help="Write what was found there, too.")
def verify(output: str, quick: bool, repair: bool, report: str | None) -> None:
    """Check every row of OUTPUT's tables against its media, and look for files that no row names.

    Exit code: 0 no difference, 1 differences (repaired or not), 2 could not look.
    """
    from jobs.verify import verify as job

    sys.exit(job(output, quick, repair, report, click.echo))


@main.command()
@click.argument("output")
@click.option("--retry", is_flag=True, help="The next run takes them again, with whatever settings it has.")
@click.option("--json", "report", metavar="FILE", help="Write the list there, too.")
def failures(output: str, retry: bool, report: str | None) -> None:
    """List the videos of OUTPUT that failed or were dropped, with stage and reason.

    Exit code: 0 listed, 2 could not look.
    """
    from jobs.failures import failures as job

    sys.exit(job(output, retry, report, click.echo))


if __name__ == "__main__":
    main()
