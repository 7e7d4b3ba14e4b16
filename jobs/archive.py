"""`reelmap archive CONFIG.yaml`: what is new or changed since the last time, until a deadline or a budget.

Made to be started every night: it lists the source once, compares that with OUTPUT, and is done in seconds
when there is nothing to do, without a Ray. What a killed or stopped run leaves, the next one takes.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.highlights import (
    DONE,
    GOES_ON,
    INTERRUPTED,
    SOME_FAILED,
    CannotStart,
    Say,
    check_models,
    exit_code,
    process,
    say_outcome,
    saying,
    starting,
)
from jobs.job_file import JobFile, load_job_file
from jobs.models import open_models
from jobs.schedule import LEFT
from pipeline import again, storage, tables
from pipeline.backlog import COLUMNS, Backlog, Row, compare
from pipeline.budget import deadline, fitting, ordered
from pipeline.forget import forget
from pipeline.gate import Gate
from pipeline.lease import lease
from pipeline.library import LibraryError, filter_of, look_through
from pipeline.lost import tried_again
from pipeline.progress import make_console
from pipeline.records import records, speed_of
from pipeline.report import without_page, write_report
from pipeline.run import Job, Outcome, RunBroken, in_words, new_run_id
from pipeline.schema import FAILED
from pipeline.state import ARCHIVE_NOTE
from pipeline.wording import clock, hours, several
from stages.nn.weights import Bundle

BUSY = 4  # beside LEFT and the exit codes of `reelmap highlights`
NOTED = 100  # of the sources that are gone
RUNS_LOOKED_AT = 20  # for the speed


@dataclass(frozen=True)
class Options:
    config: str
    flags: tuple[tuple[str, object], ...] = ()
    assignments: tuple[str, ...] = ()
    address: str | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Night:
    """One run on an archive: what it is to do, and until when."""

    file: JobFile
    bundle: Bundle
    listed: pa.Table
    deadline: datetime | None  # UTC
    skipped: tuple[str, ...] = ()  # folders and files of the source that could not be looked at

    @property
    def settings_key(self) -> str:
        return self.file.settings.key(self.bundle)

    def backlog(self) -> Backlog:
        """What stands between the listing and OUTPUT now. Raises StorageError."""
        output, settings_key = self.file.output, self.settings_key
        results = tables.current(output, COLUMNS)
        asked = again.asked(output)
        if pc.any(pc.equal(results["status"], FAILED)).as_py():
            asked |= tried_again(output, settings_key)
        library = self.file.settings.library
        passes = filter_of(library)

        def there(path: str) -> bool:
            return passes(path) and not any(f"{path}/".startswith(f"{step}/") for step in self.skipped)

        wanted = there if library.limit is None else None
        return compare(self.listed, results, settings_key, asked, self.file.source, wanted)

    def due(self, backlog: Backlog) -> list[Row]:
        rows = backlog.due + (backlog.outdated if self.file.archive.reprocess else [])
        return ordered(rows, self.file.archive.order)

    def unwanted(self, backlog: Backlog) -> set[str]:
        """Results that are to be removed. Raises CannotStart where that looks like a mistake."""
        archive = self.file.archive
        if archive.deleted == "keep" or not backlog.gone:
            return backlog.superseded
        share = len(backlog.gone) / backlog.known
        if not backlog.listed or share > archive.max_deleted_share:
            raise CannotStart(
                f"the sources of {len(backlog.gone)} of {several(backlog.known, 'result')} are gone: is "
                f"{storage.shown(self.file.source)} mounted? If it is, set archive.deleted to keep, or have "
                f"them removed by --set archive.max_deleted_share=1"
            )
        return backlog.superseded | backlog.gone.keys()

    def time_left_s(self) -> float | None:
        return (self.deadline - datetime.now(UTC)).total_seconds() if self.deadline else None

    def speed(self) -> float | None:
        """Seconds of footage per second, of earlier runs."""
        return speed_of(records(self.file.output, RUNS_LOOKED_AT), self.settings_key)


def archive(options: Options) -> int:
    """The exit code: 0 all done, 1 some failed or the run broke off, 2 could not start, 3 some are left for
    the next time (deadline or budget), 4 another run is on, 130 interrupted.
    """
    console = make_console()
    say = saying(console)

    def carry_out() -> int:
        with starting():
            night = prepare(options)
            backlog = night.backlog()
            speed = night.speed() if backlog.due or backlog.outdated else None
            for line in found(night, backlog, speed):
                say(line)
            todo, unwanted = night.due(backlog), night.unwanted(backlog)
        if options.dry_run:
            for row in todo[:20]:
                say(f"  {storage.shown(row['uri'])}  {row['size_bytes'] / 1e6:.1f} MB")
            say(f"would write to {storage.shown(night.file.output)}; nothing was done (--dry-run)")
            return DONE
        if not todo and not unwanted:
            note(night, backlog, 0)
            say("nothing to do")
            return DONE
        with starting():
            check_models(night.file.settings, night.bundle)
            storage.check_writable(night.file.output)
        return work(night, options.address, console, say)

    return exit_code(carry_out, say, BUSY)


def prepare(options: Options) -> Night:
    """Everything but what OUTPUT holds; one listing of the source."""
    file = load_job_file(options.config, options.assignments, dict(options.flags))
    if file.output == file.source:
        raise LibraryError("output is the source itself: give a folder of its own")
    bundle = open_models(file.settings.bundle)
    ends = deadline(file.archive, datetime.now(UTC))
    listed, skipped = look_through(file.source, file.settings.library, output=file.output)
    return Night(file, bundle, listed, ends, skipped)


def found(night: Night, backlog: Backlog, speed: float | None) -> list[str]:
    """What there is to do, in words."""
    lines = [
        f"{several(backlog.listed, 'video')}: {backlog.done} done already, {len(backlog.new)} new, "
        f"{len(backlog.changed)} changed, {len(backlog.retry)} to try again, "
        f"{len(backlog.outdated)} made with other settings or weights"
    ]
    if backlog.outdated:
        seconds = sum(row["seconds"] for row in backlog.outdated)
        takes = f", about {hours(seconds / speed)} at the speed of earlier runs" if speed else ""
        redone = "are" if night.file.archive.reprocess else "are kept; with --reprocess they are"
        lines.append(f"those {len(backlog.outdated)} ({hours(seconds)} of footage{takes}) {redone} made anew")
    if night.skipped:
        some = ", ".join(night.skipped[:3]) + ", ..." * (len(night.skipped) > 3)
        lines.append(
            f"{several(len(night.skipped), 'place')} of the source cannot be read: results from there stay "
            f"({some})"
        )
    if backlog.gone:
        what = "removed" if night.file.archive.deleted == "remove" else "kept (archive.deleted: keep)"
        lines.append(f"{several(len(backlog.gone), 'source')} gone: their results are {what}")
    if night.deadline:
        local = night.deadline.astimezone()
        lines.append(f"to be done by {local:%Y-%m-%d %H:%M %Z}, in {clock(night.time_left_s())}")
    return lines


def work(night: Night, address: str | None, console: Any, say: Say) -> int:
    """Holds OUTPUT, tidies, runs, tidies again, reports."""
    output, run_id = night.file.output, new_run_id()
    with ExitStack() as stack:
        with starting():
            held = stack.enter_context(lease(output, run_id))
            tables.sweep(output)
            # Another run may have published some of it before the lease was ours.
            backlog = night.backlog()
            forgotten = forget(output, night.unwanted(backlog))
            due = night.due(backlog)
        outcome, code = None, DONE
        if due:
            outcome, code = run_some(night, due, run_id, address, console, say)
        held.check()  # without the lease, what looks left over may be another run's work
        backlog = night.backlog()
        forgotten += forget(output, night.unwanted(backlog))
        tables.sweep(output)
        again.settle(output)
        held.check()
        if forgotten:
            say(f"removed what was superseded or gone: {several(forgotten, 'video')}")
        left = len(night.due(backlog))
        note(night, backlog, left)
        published = set(outcome.uris if outcome else ())
        page = write_report(output, published | without_page(output))
        say(f"report: {storage.shown(page)}")
    if left:
        say(f"{several(left, 'video')} left for the next time")
    return LEFT if left and code == DONE else code


def run_some(
    night: Night, due: list[Row], run_id: str, address: str | None, console: Any, say: Say
) -> tuple[Outcome | None, int]:
    """The run on as many of `due`, in their order, as the budget has room for, and its exit code."""
    speed, time_s = night.speed(), night.time_left_s()
    rows = fitting(due, night.file.archive, time_s, speed)
    gate = None
    if night.deadline:
        seconds = {row["video_id"]: row["seconds"] for row in rows}
        gate = Gate(seconds, night.deadline.timestamp(), speed)
        # Without earlier runs the plan tells what can be done, and there is none before Ray has started.
        if time_s <= 0 or (speed and not any(gate.fits(length_s) for length_s in seconds.values())):
            say(f"none of {several(len(due), 'video')} would be done in the {clock(time_s)} that are left")
            return None, LEFT
    todo = pa.Table.from_pylist([{name: row[name] for name in night.listed.column_names} for row in rows])
    job = Job(
        night.file.source,
        night.file.output,
        night.file.settings,
        night.bundle,
        night.listed,
        todo.cast(night.listed.schema),
    )
    outcome = process(job, run_id, address, console, gate, sum(row["seconds"] for row in rows))
    if isinstance(outcome.error, RunBroken) and not outcome.uris:
        raise CannotStart(in_words(outcome.error))
    say_outcome(outcome, say)
    if outcome.state == "interrupted":
        say(f"interrupted: {GOES_ON}")
        return outcome, INTERRUPTED
    if outcome.error:
        say(GOES_ON)
    return outcome, SOME_FAILED if outcome.error or outcome.counts.failed else DONE


def note(night: Night, backlog: Backlog, left: int) -> None:
    """Writes what the last look at the source found to OUTPUT, for `reelmap status`."""
    facts = {
        "looked_at": datetime.now(UTC).isoformat(),
        "source": storage.shown(night.file.source),
        "settings_key": night.settings_key,
        "listed": backlog.listed,
        "left": left,
        "outdated": len(backlog.outdated),
        "gone": len(backlog.gone),
        "gone_uris": [storage.shown(uri) for uri in sorted(backlog.gone.values())[:NOTED]],
    }
    uri = storage.join(night.file.output, ARCHIVE_NOTE)
    storage.write_bytes(uri, json.dumps(facts, indent=1).encode())
