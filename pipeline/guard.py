"""Runs a stage on the rows of a block: what it raises becomes the row's `failure`, and the run goes on.

What cannot be raised, the death of the whole process, is left to pipeline/suspects.py.
"""

import errno
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from cluster.metrics import Work
from pipeline.logs import log
from pipeline.progress import Reporter, measure
from pipeline.redact import without_secrets
from pipeline.rows import from_table, only, to_table
from pipeline.schema import DROPPED, FAILED
from pipeline.suspects import DEATHS, Witness
from stages import tally
from stages.failure import Dropped, Failed, Unavailable
from stages.watchdog import bounded

Stage = Callable[[dict[str, Any]], dict[str, Any] | Iterator[dict[str, Any]] | None]
TRACE_LINES = 30


@dataclass(frozen=True)
class Bounds:
    """Of a stage that reads what strangers have written."""

    stall_timeout_s: float | None = None
    max_memory_bytes: int | None = None


class Guard:
    """Maps a table of rows to one-row tables of `schema`, or a row to rows that hold what these would."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        schema: pa.Schema,
        reporter: Reporter,
        witness: Witness | None = None,
        bounds: Bounds = Bounds(),
        sees_failures: bool = False,
    ):
        self.name, self.stage, self.schema = name, stage, schema
        self.reporter, self.witness, self.bounds = reporter, witness, bounds
        self.sees_failures = sees_failures

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        began = time.perf_counter()
        for row in from_table(table):
            work = self._work(row, time.perf_counter() - began)
            for out in self._rows(row, work):
                began = time.perf_counter()
                made = to_table([out], self.schema)
                work.copy_s += time.perf_counter() - began
                yield made
            began = time.perf_counter()

    def rows(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """For the next stage of the same process: nothing is copied between them."""
        yield from (only(out, self.schema) for out in self._rows(row, self._work(row)))

    def _work(self, row: dict[str, Any], copy_s: float = 0.0) -> Work:
        return Work(self.name, rows_in=0 if row["failure"] else 1, copy_s=copy_s)

    def _rows(self, row: dict[str, Any], work: Work) -> Iterator[dict[str, Any]]:
        if row["failure"] and not self.sees_failures:
            yield row
            return
        self.reporter.attend(self.name, row)
        for out in self._witnessed(row, work):
            work.rows_out += not out["failure"]
            if out["failure"] and not row["failure"]:
                work.failed = _told(out["failure"], work)
            measure(work, out)
            yield out
        if retries := work.counts.get("storage_retries"):
            log.info("the storage had to be asked %d times again", retries)
        work.levels = tally.levels()
        self.reporter.add(work)

    def _witnessed(self, row: dict[str, Any], work: Work) -> Iterator[dict[str, Any]]:
        if self.witness is None:
            yield from self._apply(row, work)
            return
        place = (self.name, row["video_id"], row.get("shard") or 0)
        verdict = self.witness.begin(place)
        if verdict == "guilty":
            yield row | {"failure": failure(self.name, Failed(self._kills()))}
        if verdict != "go":
            work.put_off = "" if verdict == "guilty" else verdict
            return
        try:
            yield from self._apply(row, work)
        finally:
            self.witness.end(place)

    def _kills(self) -> str:
        stall_s = self.bounds.stall_timeout_s
        hung = f" or hung for limits.stall_timeout_s = {stall_s:g}" if stall_s else ""
        return f"its worker died{hung}, {DEATHS} times, the last time while it was processed alone"

    def _apply(self, row: dict[str, Any], work: Work) -> Iterator[dict[str, Any]]:
        try:
            with self._working(work):
                result = self.stage(row)
            if result is None:
                return
            if isinstance(result, dict):
                yield result
                return
            # The bounds are not for the time that a row waits to be taken.
            while True:
                with self._working(work):
                    out = next(result, None)
                if out is None:
                    return
                yield out
        except Unavailable as error:
            _put_off(work, "storage", str(error))
        except (OSError, Failed) as error:
            if is_disk_full(error):
                _put_off(work, "disk", "the scratch disk is full")
                return
            yield row | {"failure": failure(self.name, error)}
        except MemoryError as error:
            if self.bounds.max_memory_bytes is None:
                yield row | {"failure": failure(self.name, error)}
                return
            megabytes = self.bounds.max_memory_bytes / 2**20
            too_much = Failed(f"it needs more than limits.max_memory_bytes = {megabytes:.0f} MiB to be read")
            yield row | {"failure": failure(self.name, too_much)}
        except Exception as error:  # any failure of one item is that item's row, never the run's end
            if is_gpu_full(error):
                _put_off(work, "gpu", "the GPU's memory is full")
                return
            yield row | {"failure": failure(self.name, error)}

    @contextmanager
    def _working(self, work: Work) -> Iterator[None]:
        with measured(work), bounded(self.bounds.stall_timeout_s, self.bounds.max_memory_bytes):
            yield


@dataclass(frozen=True)
class Step:
    """A stage, which `make(*args)` makes where it is to run, and the tables that come out of it."""

    name: str
    make: Callable[..., Stage]
    args: tuple
    schema: pa.Schema
    bounds: Bounds = Bounds()
    sees_failures: bool = False

    def guarded(self, reporter: Reporter, witness: Witness | None = None) -> Guard:
        return Guard(
            self.name, self.make(*self.args), self.schema, reporter, witness, self.bounds, self.sees_failures
        )


class Batches:
    """Runs the last stage on whole batches, to be measured; what it raises is planned again by the driver."""

    def __init__(self, name: str, stage: Callable[[pa.Table], Iterator[pa.Table]], reporter: Reporter):
        self.name, self.stage, self.reporter = name, stage, reporter

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        self.reporter.attend(self.name)
        work = Work(self.name, rows_in=batch["failure"].null_count)
        try:
            with measured(work):
                tables = list(self.stage(batch))
            work.rows_out = work.rows_in
        except Unavailable as error:
            _put_off(work, "storage", str(error))
            raise
        finally:
            self.reporter.add(work)  # before the driver hears of the last video and reads the totals
        yield from tables


@contextmanager
def measured(work: Work) -> Iterator[None]:
    """Adds to `work` the time, and what is counted, from here to its end."""
    wall, cpu, before = time.perf_counter(), time.process_time(), tally.counts()
    try:
        yield
    finally:
        work.wall_s += time.perf_counter() - wall
        work.cpu_s += time.process_time() - cpu
        for name, value in tally.counts().items():
            work.counts[name] = work.counts.get(name, 0) + value - before[name]


def _put_off(work: Work, kind: str, why: str) -> None:
    """A row that does not come out is planned again by the driver; its neighbours go on."""
    work.put_off = kind
    log.warning("put off: %s", without_secrets(why))


def _told(failure: dict[str, Any], work: Work) -> str:
    """Logs a failure; what kind it is."""
    log.warning("%s: %s", failure["status"], failure["reason"], extra={"seconds": round(work.wall_s, 3)})
    if failure["status"] == DROPPED:
        return "dropped"
    return "unexpected" if failure["trace"] else "failed"


def is_disk_full(error: BaseException | None) -> bool:
    """Whether it comes of a full disk of this machine, which is no fault of the item."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_gpu_full(error: Exception) -> bool:
    """Whether a GPU had no memory left, which its other users have taken."""
    torch = sys.modules.get("torch")  # decoders do without: they have no GPU to fill
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def failure(stage: str, error: BaseException) -> dict[str, Any]:
    """The failure of an item in words: what a stage raises on purpose needs no trace."""
    expected = isinstance(error, (Failed, Dropped))
    lines = traceback.format_exception(error)[-TRACE_LINES:]
    return {
        "status": DROPPED if isinstance(error, Dropped) else FAILED,
        "stage": stage,
        "reason": str(error) if expected else f"{type(error).__name__}: {error}",
        "trace": None if expected else "".join(lines),
        "failed_at": datetime.now(UTC),
    }
