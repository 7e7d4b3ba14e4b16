"""Commands that look after an OUTPUT."""

import sys

import click


@click.command()
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


@click.command()
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


@click.command()
@click.argument("output")
@click.option("--retry", is_flag=True, help="The next run takes them again, with whatever settings it has.")
@click.option("--json", "report", metavar="FILE", help="Write the list there, too.")
def failures(output: str, retry: bool, report: str | None) -> None:
    """List the videos of OUTPUT that failed or were dropped, with stage and reason.

    Exit code: 0 listed, 2 could not look.
    """
    from jobs.failures import failures as job

    sys.exit(job(output, retry, report, click.echo))


@click.command()
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="One object with everything that is known.")
@click.option("--watch", is_flag=True, help="Say it again every ten seconds, until no run is on.")
def status(output: str, as_json: bool, watch: bool) -> None:
    """Say what of OUTPUT is done, running, failed and left, how fast, and how long still.

    Reads the storage alone: works from any machine, while a run is on. Exit code: 0 said, 2 could not look.
    """
    from jobs.status import status as job

    sys.exit(job(output, as_json, watch, click.echo))


@click.command()
@click.argument("output")
@click.argument("query")
@click.option("--top", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many clips.")
@click.option("--where", metavar="CONDITIONS", help='Only such clips: "duration>3 and loudness>-20".')
@click.option("--all-of-a-shot", is_flag=True, help="Every piece of a shot, not only the best one of each.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@click.option("--page", metavar="FILE.html", help="Write a page with pictures there, too.")
@click.option("--bundle", metavar="URI", help="Bundle that made OUTPUT; the one in the package by default.")
def search(
    output: str,
    query: str,
    top: int,
    where: str | None,
    all_of_a_shot: bool,
    as_json: bool,
    page: str | None,
    bundle: str | None,
) -> None:
    """Find the clips of OUTPUT that look like QUERY: a picture file, or a clip as VIDEO:12 or VIDEO@1:23.

    What is compared is what pictures show, as the features network sees it; words are not understood. Exit
    code: 0 looked, 2 could not.
    """
    from functools import partial

    from jobs.search import Options, find

    options = Options(output, query, top, all_of_a_shot, where, as_json, page, bundle)
    sys.exit(find(options, click.echo, partial(click.echo, err=True)))
