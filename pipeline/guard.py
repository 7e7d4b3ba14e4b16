"""Runs a stage on the rows of a block: what it raises becomes the row's `failure`, and the run goes on.

What cannot be raised, the death of the whole process, is left to pipeline/suspects.py.
"""

import errno
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.progress import Reporter
from pipeline.redact import without_secrets
from pipeline.rows import from_table, to_table
from pipeline.schema import DROPPED, FAILED
from pipeline.suspects import DEATHS, Witness
from stages.failure import Dropped, Failed, Unavailable
from stages.watchdog import bounded

Stage = Callable[[dict[str, Any]], dict[str, Any] | Iterator[dict[str, Any]] | None]
TRACE_LINES = 30

log = logging.getLogger("reelmap")


@dataclass(frozen=True)
class Bounds:
    """Of a stage that reads what strangers have written."""

    stall_timeout_s: float | None = None
    max_memory_bytes: int | None = None


class Guard:
    """Maps a table of rows to one-row tables of `schema`."""

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
        for row in from_table(table):
            if row["failure"] and not self.sees_failures:
                yield to_table([row], self.schema)
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            out: dict[str, Any] | None = None
            for out in self._witnessed(row):
                yield to_table([out], self.schema)
            seconds = (time.perf_counter() - wall, time.process_time() - cpu)
            self.reporter.add(self.name, out or row, *seconds)

    def _witnessed(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self.witness is None:
            yield from self._apply(row)
            return
        place = (self.name, row["video_id"], row.get("shard") or 0)
        verdict = self.witness.begin(place)
        if verdict == "guilty":
            yield row | {"failure": failure(self.name, Failed(self._kills()))}
        if verdict != "go":
            return
        try:
            yield from self._apply(row)
        finally:
            self.witness.end(place)

    def _kills(self) -> str:
        stall_s = self.bounds.stall_timeout_s
        hung = f" or hung for limits.stall_timeout_s = {stall_s:g}" if stall_s else ""
        return f"its worker died{hung}, {DEATHS} times, the last time while it was processed alone"

    def _apply(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            with self._bounded():
                result = self.stage(row)
            if result is None:
                return
            if isinstance(result, dict):
                yield result
                return
            # The bounds are not for the time that a row waits to be taken.
            while True:
                with self._bounded():
                    out = next(result, None)
                if out is None:
                    return
                yield out
        except Unavailable as error:
            self._put_off(row, str(error))
        except (OSError, Failed) as error:
            if is_disk_full(error):
                self._put_off(row, "the scratch disk is full")
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
            yield row | {"failure": failure(self.name, error)}

    def _put_off(self, row: dict[str, Any], why: str) -> None:
        """A row that does not come out is planned again by the driver; its neighbours go on."""
        log.warning("%s of %s is put off: %s", self.name, row["video_id"], without_secrets(why))

    def _bounded(self) -> Any:
        return bounded(self.bounds.stall_timeout_s, self.bounds.max_memory_bytes)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether it comes of a full disk of this machine, which is no fault of the item."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


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
