"""Commands that make reels of a library."""

import sys
from typing import Any

import click

from jobs.commands import options


@click.command()
@click.argument("library")
@click.argument("output", required=False)
@click.option(
    "--from-proxies",
    is_flag=True,
    help="LIBRARY is the OUTPUT of another run: score its videos again from their proxies.",
)
@options.reels("decode.fps=4", "this machine")
@click.option("--retry-failed", is_flag=True, help="Also try again what failed or was dropped before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done (videos, bytes, hours) and stop.")
@click.option("--plan", is_flag=True, help="Print the sizes of the pools and what bounds them, and stop.")
@click.option("--profile", is_flag=True, help="Print in the end where the seconds went, stage by stage.")
def highlights(
    library: str,
    output: str | None,
    from_proxies: bool,
    config: str | None,
    assignments: tuple[str, ...],
    address: str | None,
    retry_failed: bool,
    dry_run: bool,
    plan: bool,
    profile: bool,
    **given: Any,
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
    flags = options.flags_of(**given)
    if not (dry_run or plan):
        options.get_ready(address)

    from jobs.highlights import Options
    from jobs.highlights import highlights as job

    wanted = Options(
        library,
        output,
        config=config,
        flags=flags,
        assignments=assignments,
        address=address,
        dry_run=dry_run,
        retry_failed=retry_failed,
        from_proxies=from_proxies,
        plan=plan,
        profile=profile,
    )
    sys.exit(job(wanted))


@click.command()
@click.argument("config")
@options.preset
@click.option("--until", metavar="TIME", help="Be done by 06:00, or by an ISO time.")
@click.option("--max-hours", type=float, metavar="HOURS", help="Be done after so many hours.")
@click.option("--max-videos", type=click.IntRange(1), metavar="N", help="Take so many videos at most.")
@click.option("--order", type=click.Choice(["newest", "oldest", "smallest"]), help="What comes first.")
@click.option(
    "--reprocess", is_flag=True, help="Also make anew what was made with other settings or weights."
)
@options.assignments("decode.fps=4")
@options.address("this machine")
@click.option("--dry-run", is_flag=True, help="Say what would be done and stop.")
@click.option("--install-cron", is_flag=True, help="Print what has a scheduler run it every night, and stop.")
@click.option("--at", default="01:00", metavar="TIME", help="With --install-cron: when it starts.")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["crontab", "systemd", "kubernetes"]),
    default="crontab",
    help="With --install-cron: for which scheduler.",
)
@click.option("--image", metavar="IMAGE", help="With --as kubernetes: the image that holds reelmap.")
def archive(
    config: str,
    preset: str | None,
    until: str | None,
    max_hours: float | None,
    max_videos: int | None,
    order: str | None,
    reprocess: bool,
    assignments: tuple[str, ...],
    address: str | None,
    dry_run: bool,
    install_cron: bool,
    at: str,
    kind: str,
    image: str | None,
) -> None:
    """Process what is new or changed in the source that CONFIG names; made to be started every night.

    CONFIG is a YAML file (any fsspec URI) with `source`, `output`, `archive: {until: "06:00"}` and settings.
    Exit code: 0 all done, 1 some failed, 2 could not start, 3 some are left for the next time (deadline or
    budget), 4 another run is on.
    """
    places = {
        "preset": preset,
        "archive.until": until,
        "archive.max_hours": max_hours,
        "archive.max_videos": max_videos,
        "archive.order": order,
        "archive.reprocess": reprocess or None,
    }
    flags = tuple((place, value) for place, value in places.items() if value is not None)
    if install_cron:
        from jobs.schedule import ScheduleError, check, rooted, schedule

        assignments = rooted(assignments)
        given = {"until": until, "max-hours": max_hours, "max-videos": max_videos, "order": order}
        given |= {"address": address}
        arguments = [f"--{name}={value}" for name, value in given.items() if value is not None]
        arguments += [f"--{named}" for named in rooted((f"preset={preset}",)) if preset]
        arguments += ["--reprocess"] * reprocess
        arguments += [f"--set={assignment}" for assignment in assignments]
        try:
            check(config, assignments, dict(flags))
            click.echo(schedule(config, tuple(arguments), at, kind, image), nl=False)
        except ScheduleError as error:
            raise click.UsageError(str(error)) from error
        return

    from jobs.archive import Options
    from jobs.archive import archive as job

    sys.exit(job(Options(config, flags, assignments, address, dry_run)))


@click.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or print the YAML of NAME: `reelmap presets social > mine.yaml` is one to change."""
    from pipeline.presets import content, names, summary

    if name is None:
        for preset in names():
            click.echo(f"{preset:10} {summary(preset)}")
        return
    if name not in names():
        raise click.UsageError(f"there is no preset {name!r}: there are {', '.join(names())}")
    click.echo(content(name).decode(), nl=False)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
def demo(folder: str) -> None:
    """Render a small library into FOLDER/library and make its reels in FOLDER/output.

    One of its files is broken on purpose. Exit code: 0 when all others have their reels.
    """
    from pathlib import Path

    options.get_ready()

    from jobs.demo_run import run_demo

    sys.exit(run_demo(Path(folder), click.echo))
