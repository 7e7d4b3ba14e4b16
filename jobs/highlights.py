"""`reelmap highlights LIBRARY OUTPUT`: settings -> checks -> connect -> run -> report -> exit code."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import pyarrow.compute as pc
from ray.exceptions import RayError
from rich.console import Console

from cluster.autoscale import room
from cluster.connect import connection, terminate_as_interrupt
from cluster.preflight import ClusterUnfit
from jobs.models import check_models, open_models
from jobs.plan import expected_speed, footage_of, plan_job, plan_without_ray, show_plan
from jobs.preflight import preflight
from pipeline import again, redact, storage, tables
from pipeline.archived import list_archive
from pipeline.config import load_settings
from pipeline.gate import Gate
from pipeline.lease import Busy, Lost, holder, lease
from pipeline.library import LibraryError, list_library
from pipeline.lost import RUNS
from pipeline.profile import profile_table
from pipeline.progress import make_console
from pipeline.report import without_page, write_report
from pipeline.run import Job, Outcome, RunBroken, in_words, make_job, new_run_id, run
from pipeline.warm import cool
from pipeline.wording import clock

DONE, SOME_FAILED, COULD_NOT_START, INTERRUPTED = 0, 1, 2, 130
# Headers that a dry run reads; of a larger library it reads some and goes by their bytes per second.
HEADERS = 64
GOES_ON = "what is finished stays; the same command goes on with what is left"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    library: str
    output: str
    config: str | None = None
    flags: tuple[tuple[str, object], ...] = ()
    assignments: tuple[str, ...] = ()
    address: str | None = None
    dry_run: bool = False
    retry_failed: bool = False
    from_proxies: bool = False  # `library` is the OUTPUT of another run
    plan: bool = False  # say what the pools would be, and stop
    profile: bool = False  # say in the end where the seconds went


class CannotStart(Exception):
    """Something is missing or wrong, and no work was done; the message says what to do."""


def highlights(options: Options) -> int:
    """The exit code: 0 all done, 1 some failed or the run broke off, 2 could not start, 130 interrupted."""
    console = make_console()
    say = saying(console)

    def carry_out() -> int:
        with starting():
            job = prepare(options)
            if not len(job.listed):
                raise LibraryError(
                    f"no videos in {storage.shown(job.library)} (or none that pass the filters)"
                )
        listed, todo = len(job.listed), len(job.todo)
        size_gb = (pc.sum(job.todo["size_bytes"]).as_py() or 0) / 1e9
        what = "from their proxies" if job.from_proxies else f"({size_gb:.2f} GB)"
        say(f"{listed} videos, {listed - todo} done already, {todo} to do {what}")
        if job.superseded:
            old = job.superseded
            say(f"{old} of these have reels of other settings or models, which the new ones replace")
        if options.dry_run:
            dry_run(job, say)
            return DONE
        if options.plan:
            with starting(RayError, RuntimeError):
                show_plan(job, options.address, console, say)
            return DONE
        # A run that was killed after its last video has left its lease, and what it would have swept.
        left = None if todo else holder(job.output)
        if todo or (left and left.dead):
            return work(job, options, console, say)
        return finish(job, None, say)

    return exit_code(carry_out, say)


def saying(console: Console) -> Say:
    """Text as it is, for names and reasons: nothing in it is markup."""
    return partial(console.print, highlight=False, markup=False, soft_wrap=True)


def exit_code(carry_out: Callable[[], int], say: Say, busy: int = COULD_NOT_START) -> int:
    """What `carry_out` returns; or what stands for the error or the Ctrl-C that ended it, which is said.

    busy   stands for an OUTPUT in use by another run
    """
    try:
        with terminate_as_interrupt():
            return carry_out()
    except CannotStart as error:
        say(f"reelmap: {error}")
        return busy if isinstance(error.__cause__, Busy) else COULD_NOT_START
    except (storage.StorageError, Lost, RunBroken, ConnectionError, RayError) as error:
        say(f"reelmap: {in_words(error)}")
        say(GOES_ON)
        return SOME_FAILED
    except KeyboardInterrupt:
        say(f"interrupted: {GOES_ON}")
        return INTERRUPTED


@contextmanager
def starting(*also: type[Exception]) -> Iterator[None]:
    """What is raised in here happened before any work: its words are all that its reader needs."""
    expected = (ValueError, LibraryError, storage.StorageError, Busy, ConnectionError, *also)
    try:
        yield
    except ClusterUnfit as error:  # a list, one line for each thing to change
        raise CannotStart(redact.without_secrets(str(error))) from error
    except expected as error:
        raise CannotStart(in_words(error)) from error


def work(job: Job, options: Options, console: Console, say: Say) -> int:
    """Holds OUTPUT, runs, reports."""
    run_id = new_run_id()
    with ExitStack() as stack:
        with starting():
            held = stack.enter_context(lease(job.output, run_id))
            tables.sweep(job.output)
            # Another run may have published some of it before the lease was ours.
            job = make_job(
                job.library,
                job.output,
                job.settings,
                job.bundle,
                job.listed,
                job.retry_failed,
                job.from_proxies,
            )
        outcome = process(job, run_id, options.address, console) if len(job.todo) else None
        if outcome and options.profile:
            console.print(profile_table(outcome.record))
        held.check()  # without the lease, what looks left over may be another run's work
        tables.sweep(job.output)  # what the new results replaced
        again.settle(job.output)
        held.check()
        return finish(job, outcome, say)


def process(
    job: Job,
    run_id: str,
    address: str | None,
    console: Console,
    gate: Gate | None = None,
    footage_s: float | None = None,
) -> Outcome:
    """The run, in processes or on a Ray that is there for it only; it is gone before the report is written.

    footage_s   of all that is to do, where it is known without opening videos
    """
    say = saying(console)
    began = time.monotonic()
    with ExitStack() as stack:
        with starting(RayError, RuntimeError):  # Ray of another version is a RuntimeError
            planned = plan_without_ray(job, address, footage_s)
            if planned is None:
                cool()
                stack.enter_context(connection(address))
                stack.enter_context(room(address, job.settings.pools, say))
                planned = plan_job(job, address, footage_s)
            plan = planned.plan
            if gate:
                gate.expect(expected_speed(planned, job))
            for remark in (*planned.remarks, *preflight(job, plan, address)):
                say(remark)
        return run(job, run_id, plan, console, gate, start_s=time.monotonic() - began)


def prepare(options: Options) -> Job:
    """Everything that can be checked without a cluster, before any work is done."""
    settings = load_settings(options.config, dict(options.flags), options.assignments)
    bundle = open_models(settings.bundle)
    library, output = storage.absolute(options.library), storage.absolute(options.output)
    if output == library:
        raise LibraryError("OUTPUT is the library itself: give a folder of its own")
    storage.check_folder(output)
    if options.from_proxies:
        listed = list_archive(library, settings.library, bundle)
    else:
        listed = list_library(library, settings.library, output=output)
    job = make_job(library, output, settings, bundle, listed, options.retry_failed, options.from_proxies)
    if len(job.todo):
        if not (options.dry_run or options.plan):
            storage.check_writable(output)
        check_models(settings, bundle)  # last: it takes the longest
    return job


def dry_run(job: Job, say: Say) -> None:
    """Says what a run would do: videos, bytes, hours."""
    rows = job.todo.to_pylist()
    for row in rows[:20]:
        say(f"  {storage.shown(row['uri'])}  {row['size_bytes'] / 1e6:.1f} MB")
    if len(rows) > 20:
        say(f"  ... and {len(rows) - 20} more")
    if footage_s := footage_of(job, HEADERS):
        about = "about " if len(rows) > HEADERS else ""
        say(f"{about}{footage_s / 3600:.2f} hours of footage")
    say(f"would write to {storage.shown(job.output)}; nothing was done (--dry-run)")


def finish(job: Job, outcome: Outcome | None, say: Say) -> int:
    """Report, summary, exit code."""
    if outcome and isinstance(outcome.error, RunBroken) and not outcome.uris:
        raise CannotStart(in_words(outcome.error))
    if outcome:  # before the report, which needs the same storage
        say_outcome(outcome, say)
    page = write_report(job.output, set(outcome.uris if outcome else ()) | without_page(job.output))
    if not outcome:
        say("nothing to do: every video was processed with these settings before")
    if not job.from_proxies and (outcome is None or outcome.counts.ok):
        say(f"reels:  {storage.shown(storage.join(job.output, 'media'))}")
    say(f"report: {storage.shown(page)}")
    if outcome and outcome.error:
        say(GOES_ON)
        return SOME_FAILED
    if outcome and outcome.state == "interrupted":
        say(f"interrupted: {GOES_ON}")
        return INTERRUPTED
    failed = set(job.listed["video_id"].to_pylist()) & tables.done(job.output, job.settings_key, ("failed",))
    return SOME_FAILED if failed or (outcome and outcome.lost) else DONE


def say_outcome(outcome: Outcome, say: Say) -> None:
    if outcome.error:
        say(f"reelmap: the run broke off: {in_words(outcome.error)}")
    counts = outcome.counts
    say(
        f"{counts.ok} ok, {counts.dropped} dropped, {counts.failed} failed of {counts.total} videos in "
        f"{clock(counts.elapsed_s)}: {counts.video_s / 3600:.2f} hours of footage, {counts.clips} clips, "
        f"{clock(counts.reel_s)} of reels; {counts.hours_per_hour:.1f} video-hours per hour"
    )
    if outcome.lost:
        say(
            f"lost {len(outcome.lost)} of {counts.total} videos (workers died, or the storage could not be "
            f"read or written): the same command tries them again, in {RUNS} runs at most"
        )
