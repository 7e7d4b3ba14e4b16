"""The command line: parses, imports what the command needs, and exits with its code."""

import sys

import click

# Flags that are settings: their place in the tree.
CUT_FLAGS = {
    "target": "cut.target",
    "min_clip": "cut.min_clip_s",
    "max_clip": "cut.max_clip_s",
    "clips": "render.clips",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="reelmap")
def main() -> None:
    """Highlight reels and a searchable archive from large video libraries."""


@main.command()
@click.argument("library")
@click.argument("output")
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
@click.option("--dry-run", is_flag=True, help="Say what would be done (videos, bytes, hours) and stop.")
def highlights(
    library: str,
    output: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    limit: int | None,
    config: str | None,
    assignments: tuple[str, ...],
    bundle: str | None,
    address: str | None,
    dry_run: bool,
    transitions: str | None,
    **cut: object,
) -> None:
    """Make a highlight reel of every video in LIBRARY and write reels, tables and a report to OUTPUT.

    LIBRARY and OUTPUT are folders or any fsspec URI (s3://bucket/prefix). Videos that OUTPUT holds already
    are left out. Exit code: 0 all done, 1 some failed, 2 could not start.
    """
    from jobs.highlights import Options
    from jobs.highlights import highlights as job

    flags: dict[str, object] = {CUT_FLAGS[name]: value for name, value in cut.items() if value is not None}
    if transitions:
        names = [name.strip() for name in transitions.split(",")]
        flags |= {"effects.kind": "none"} if names == ["cut"] else {"effects.transitions": names}
    flags |= {"library.include": list(include)} if include else {}
    flags |= {"library.exclude": list(exclude)} if exclude else {}
    flags |= {"library.limit": limit} if limit else {}
    flags |= {"bundle": bundle} if bundle else {}
    sys.exit(job(Options(library, output, config, tuple(flags.items()), assignments, address, dry_run)))


@main.command()
@click.argument("folder", type=click.Path(file_okay=False))
def demo(folder: str) -> None:
    """Render a small library into FOLDER/library and make its reels in FOLDER/output."""
    from pathlib import Path

    from jobs.demo import render_demo_library
    from jobs.highlights import SOME_FAILED, Options
    from jobs.highlights import highlights as job

    library, output = Path(folder, "library"), Path(folder, "output")
    render_demo_library(library)
    code = job(Options(str(library), str(output), flags=(("cut.target", "12s"),)))
    if code == SOME_FAILED:
        click.echo("(one file of the demo is broken on purpose: see the failures in the report)", err=True)
        code = 0
    sys.exit(code)


@main.command()
@click.argument("model", type=click.Choice(["features", "scorer", "colour", "effects", "codec"]))
@click.option("--data", required=True, metavar="DIR", help="Folder of training data.")
@click.option("--out", required=True, metavar="BUNDLE", help="Bundle (folder) that the model is written to.")
@click.option("--from", "start", metavar="BUNDLE", help="Bundle to start from.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Training settings: minutes=30."
)
def train(model: str, data: str, out: str, start: str | None, assignments: tuple[str, ...]) -> None:
    """Train MODEL and write it into a bundle with its measured quality."""
    import json

    from jobs.train.loop import run_training

    pairs = [assignment.partition("=") for assignment in assignments]
    try:
        card = run_training(model, data, out, start, {name: value for name, _, value in pairs})
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(card, indent=1))


@main.command()
@click.argument("output")
def report(output: str) -> None:
    """Write OUTPUT's report pages anew."""
    from pipeline.report import write_report
    from pipeline.storage import StorageError, absolute, shown

    try:
        click.echo(shown(write_report(absolute(output))))
    except StorageError as error:
        click.echo(f"reelmap: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
