"""The run of a recut: on this machine in a few processes, on a cluster as a short flow; rows as they come."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray

from cluster.machine import cores
from cluster.plan import MEMORY_MIB, Plan, rows_per_part
from pipeline import logs, redact, schema
from pipeline.config import Settings
from pipeline.cuts import Known
from pipeline.processes import room_for, through
from pipeline.progress import Reporter, open_meter
from pipeline.recut import make_recut
from pipeline.rows import from_table, to_table
from pipeline.run import ATTEMPTS, in_words
from pipeline.steps import RECUT
from pipeline.suspects import open_witness

CORES_EACH = 2  # of this machine: decoder, filters and encoder of one reel keep about so many at work

Row = dict[str, Any]


@dataclass
class Recutting:
    """What is to be made, and what became of it."""

    known: Known
    settings: Settings
    todo: pa.Table  # rows.TO_CUT
    check: Callable[[], None]  # raises if OUTPUT is not ours any more
    made: list[Row] = field(default_factory=list)  # rows of schema.CUTS, published
    put_off: dict[str, str] = field(default_factory=dict)  # uri -> why: for the next time

    def counts(self) -> dict[str, int]:
        good = [row for row in self.made if row["status"] == schema.OK]
        return {
            "planned": len(self.todo),
            "ok": len(good),
            "failed": len(self.made) - len(good),
            "put_off": len(self.put_off),
            "read_bytes": sum(row["read_bytes"] for row in good),
            "source_bytes": sum(row["source_bytes"] for row in good),
        }

    def here(self) -> Iterator[Row]:
        """Does it on this machine; yields each row of `cuts` when it is published."""
        workers = room_for(len(self.todo), CORES_EACH, MEMORY_MIB["render"] << 20)
        args = (self.settings, self.known.output, max(1, cores() // workers))
        stall_timeout_s = self.settings.limits.stall_timeout_s
        rows = through(from_table(self.todo), "render", make_recut, args, workers, stall_timeout_s)

        def finished() -> Iterator[Row]:
            for row, made in rows:
                if isinstance(made, Exception):
                    self.put_off[row["uri"]] = in_words(made)
                else:
                    yield made

        with closing(rows):
            yield from self._published(finished())

    def on_cluster(self, plan: Plan, run_id: str) -> Iterator[Row]:
        """The same on the connected Ray; what a dying node takes along is planned again."""
        from pipeline import flow  # Ray Data: a second, and most recuts have no use for it

        reporter = Reporter(open_meter(run_id), run_id, logs.wanted())
        reporter.plan(len(self.todo))
        witness, why = open_witness(), ""
        left = {row["video_id"]: row for row in from_table(self.todo)}

        def attempts(plan: Plan) -> Iterator[Row]:
            nonlocal why
            in_vain = 0
            while in_vain < ATTEMPTS and (now := left.keys() - witness.suspects(left)):
                before = len(left)
                todo = to_table([left[video_id] for video_id in sorted(now)], self.todo.schema)
                reporter.begin(RECUT, len(todo))
                ds = flow.build_recut(todo, self.settings, self.known.output, plan, reporter, witness)
                try:
                    for batch in ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                        yield from (row for row in from_table(batch) if left.pop(row["video_id"], None))
                except ray.exceptions.RayError as error:  # the whole topology fell
                    why = in_words(error)
                in_vain = in_vain + 1 if len(left) == before else 0

        def finished() -> Iterator[Row]:
            yield from attempts(plan)
            if left and witness.suspects(left):
                witness.try_alone()
                yield from attempts(plan.alone())

        yield from self._published(finished())
        for row in left.values():
            self.put_off[row["uri"]] = why or "its worker died, or the storage could not be read or written"

    def _published(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Writes them part by part; what is made by then also where an error or a Ctrl-C ends it."""
        waiting: list[Row] = []
        enough = rows_per_part(len(self.todo))
        try:
            for row in rows:
                waiting.append(row)
                if len(waiting) >= enough:
                    yield from self._publish(waiting)
            yield from self._publish(waiting)
        finally:
            self._publish(waiting)

    def _publish(self, waiting: list[Row]) -> list[Row]:
        if not waiting:
            return []
        self.check()
        done = self.known.write([as_cut(row) for row in waiting])
        waiting.clear()
        self.made += done
        return done


def as_cut(row: Row) -> Row:
    """A row of rows.CUT as the table has it, but for the time, which it gets when it is written."""
    cut = {name: row[name] for name in ("name", "video_id", "settings_key", "made_from")}
    cut |= {"source_bytes": row["size_bytes"], "status": schema.OK}
    if row["failure"]:
        told = {name: redact.without_secrets(row["failure"][name]) for name in ("stage", "reason")}
        return cut | told | {"status": schema.FAILED}
    return cut | row["reel"] | {name: row[name] for name in ("edits", "target_s", "read_bytes")}
