"""Runs a stage on the rows of a block: what it raises becomes the row's `failure`, and the run goes on."""

import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.progress import Reporter
from pipeline.rows import from_table, to_table
from pipeline.schema import DROPPED, FAILED
from stages.failure import Dropped, Failed, Unavailable

Stage = Callable[[dict[str, Any]], dict[str, Any] | Iterator[dict[str, Any]] | None]
TRACE_LINES = 30


class Guard:
    """Maps a table of rows to one-row tables of `schema`."""

    def __init__(
        self, name: str, stage: Stage, schema: pa.Schema, reporter: Reporter, sees_failures: bool = False
    ):
        self.name, self.stage, self.schema = name, stage, schema
        self.reporter, self.sees_failures = reporter, sees_failures

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for row in from_table(table):
            if row["failure"] and not self.sees_failures:
                yield to_table([row], self.schema)
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            out: dict[str, Any] | None = None
            for out in self._apply(row):
                yield to_table([out], self.schema)
            seconds = (time.perf_counter() - wall, time.process_time() - cpu)
            self.reporter.add(self.name, out or row, *seconds)

    def _apply(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            result = self.stage(row)
            if result is None:
                return
            if isinstance(result, dict):
                yield result
            else:
                yield from result
        except Unavailable:
            raise  # the row is lost to this attempt and planned again
        except Exception as error:  # any failure of one item is that item's row, never the run's end
            yield row | {"failure": failure(self.name, error)}


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
