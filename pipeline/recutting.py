"""The run of a recut: on this machine in a few processes, on a cluster as a short flow; rows as they come."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import ray

from cluster.plan import Plan
from pipeline import cuts, flow, logs, schema
from pipeline.config import Settings
from pipeline.processes import through
from pipeline.progress import Reporter, open_meter
from pipeline.recut import make_recut
from pipeline.rows import from_table, to_table
from pipeline.run import ATTEMPTS, in_words
from pipeline.suspects import open_witness

CORES_EACH = 2  # of this machine: decoder, filters and encoder of one reel keep about so many at work

Row = dict[str, Any]


@dataclass
class Recutting:
    """What is to be made, and what became of it."""

    output: str
    settings: Settings
    todo: pa.Table  # rows.TO_CUT
    made: list[Row] = field(default_factory=list)  # rows of schema.CUTS, published
    put_off: dict[str, str] = field(default_factory=dict)  # uri -> why: for the next time

    def here(self) -> Iterator[Row]:
        """Does it on this machine; yields each row of `cuts` when it is published."""
        cores = os.cpu_count() or 1
        workers = max(1, min(len(self.todo), cores // CORES_EACH))
        args = (self.settings, self.output, max(1, cores // workers))
        rows = through(
            from_table(self.todo), "render", make_recut, args, workers, self.settings.limits.stall_timeout_s
        )
        with closing(rows):
            for row, made in rows:
                if isinstance(made, Exception):
                    self.put_off[row["uri"]] = str(made)
                else:
                    yield from self._publish([made])

    def on_cluster(self, plan: Plan, run_id: str) -> Iterator[Row]:
        """The same on the connected Ray; what a dying node takes along is planned again."""
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
                reporter.begin(flow.RECUT, len(todo))
                ds = flow.build_recut(todo, self.settings, self.output, plan, reporter, witness)
                try:
                    for batch in ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                        made = [row for row in from_table(batch) if left.pop(row["video_id"], None)]
                        yield from self._publish(made)
                except ray.exceptions.RayError as error:  # the whole topology fell
                    why = in_words(error)
                in_vain = in_vain + 1 if len(left) == before else 0

        yield from attempts(plan)
        if left and witness.suspects(left):
            witness.try_alone()
            yield from attempts(plan.alone())
        for row in left.values():
            self.put_off[row["uri"]] = why or "its worker died, or the storage could not be read or written"

    def _publish(self, rows: list[Row]) -> list[Row]:
        done = [as_cut(row) for row in rows]
        if done:
            cuts.write(self.output, done)
        self.made += done
        return done


def as_cut(row: Row) -> Row:
    """A row of rows.CUT as the table has it."""
    cut = {name: row[name] for name in ("name", "video_id", "settings_key", "made_from")}
    cut |= {"source_bytes": row["size_bytes"], "made_at": datetime.now(UTC), "status": schema.OK}
    if row["failure"]:
        told = {name: row["failure"][name] for name in ("stage", "reason")}
        return cut | told | {"status": schema.FAILED}
    return cut | row["reel"] | {name: row[name] for name in ("edits", "target_s", "read_bytes")}
