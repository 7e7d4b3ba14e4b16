"""Commands for a cluster: jobs through Ray's Jobs API, and what plans go by."""

import sys
from collections.abc import Callable

import click

from jobs.commands import options

address = click.option(
    "--address", metavar="URL", required=True, help="Of Ray's dashboard: http://127.0.0.1:8265, https://HOST."
)
allow_http = click.option(
    "--allow-http", is_flag=True, help="Without encryption to another machine: anyone between can read it."
)


def said(text: str) -> None:
    click.echo(text, err=True)


def written(text: str) -> None:
    click.echo(text, nl=False)


def api(command: Callable) -> Callable:
    """The options of every command that talks to the Jobs API."""
    return address(allow_http(command))


@click.command()
@click.argument("config", metavar="CONFIG.yaml")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@api
@click.option("--follow", is_flag=True, help="Show the log, and exit with what the job ends with.")
@click.option(
    *("--working-dir", "working_dir"),
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Send this working tree and run its code, instead of the reelmap that the cluster has.",
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Of --working-dir, like in .gitignore.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="A variable for the job, as it is here.")
@click.option("--pip", multiple=True, metavar="PACKAGE", help="Installed on the cluster for this job.")
def submit(
    config: str,
    arguments: tuple[str, ...],
    address: str,
    allow_http: bool,
    follow: bool,
    working_dir: str | None,
    exclude: tuple[str, ...],
    env: tuple[str, ...],
    pip: tuple[str, ...],
) -> None:
    """Run `reelmap archive CONFIG.yaml` as a job on a Ray cluster; what follows -- goes to it as it is.

    The nodes use the credentials that they have. RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH are for a
    cluster that wants a token. Exit code: 0 sent, 2 not; with --follow that of the job, 130 when you stop
    following, which does not stop the job.
    """
    from jobs.submit import Options
    from jobs.submit import submit as job

    sent = Options(config, address, follow, allow_http, working_dir, exclude, env, pip, arguments)
    sys.exit(job(sent, said, written))


@click.command()
@api
def jobs(address: str, allow_http: bool) -> None:
    """List the jobs that were submitted to a cluster, the newest last."""
    from jobs.submit import list_jobs

    sys.exit(list_jobs(address, allow_http, click.echo))


@click.command()
@click.argument("job_id", metavar="ID")
@api
@click.option("--follow", is_flag=True, help="To its end, and exit with what the job ends with.")
def logs(job_id: str, address: str, allow_http: bool, follow: bool) -> None:
    """Show the log of a submitted job."""
    from jobs.submit import Options
    from jobs.submit import logs as job

    sys.exit(job(job_id, Options("", address, follow, allow_http), said, written))


@click.command()
@click.argument("job_id", metavar="ID")
@api
def stop(job_id: str, address: str, allow_http: bool) -> None:
    """Stop a submitted job; what is finished stays. Exit code: 0 stopped, 1 it still runs, 2 not possible."""
    from jobs.submit import stop as job

    sys.exit(job(job_id, address, allow_http, click.echo))


@click.command()
@click.argument("library")
@click.option(
    "--videos", type=click.IntRange(1), default=3, show_default=True, help="How many to measure on."
)
@click.option("--out", metavar="FILE", help="Of YAML; in your configuration folder by default.")
@options.config
@options.assignments("decode.fps=4")
def tune(
    library: str, videos: int, out: str | None, config: str | None, assignments: tuple[str, ...]
) -> None:
    """Measure on a few videos of LIBRARY what each stage costs on this machine: later plans go by it.

    For a cluster, run it on one of its nodes and give the file to the runs: --set pools.speeds=FILE. What
    `reelmap highlights --plan` prints says where its speeds come from. Exit code: 0 written, 2 not.
    """
    from jobs.tune import Tuning
    from jobs.tune import tune as job

    sys.exit(job(Tuning(library, videos, out, config, assignments)))
