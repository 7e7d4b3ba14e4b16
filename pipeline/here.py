"""The same run without Ray, in processes of this machine: for what is done before Ray would be of use.

    listed ─► probe ─► decode, look ─► gather ─► score, render ─► publish
              └──── processes ────┘    driver    └─ processes ┘   driver

A process takes whatever is next, the header of a video, a shard, a whole video that is to be cut: none waits
while another stage has work. What is begun is ended first, so that reels are out early and little is held.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pyarrow as pa

from cluster.metrics import Work
from cluster.plan import Plan
from pipeline import logs
from pipeline.config import Settings
from pipeline.guard import Batches
from pipeline.processes import through
from pipeline.progress import Meter, Reporter
from pipeline.publish import Publish
from pipeline.rows import LISTED, from_table, to_table
from pipeline.steps import Step, steps_from_proxies, steps_of
from pipeline.suspects import DriverWitness
from stages.failure import Unavailable

# What a process does with a row before it hands it on.
HEADER, SHARD, VIDEO, PROXIES = ("probe",), ("decode", "look"), ("score", "render"), ("look", "score")

Row = dict[str, Any]


def results(
    todo: pa.Table,
    settings: Settings,
    plan: Plan,
    publish: Publish,
    reporter: Reporter,
    witness: DriverWitness,
    archive: str | None = None,
) -> Iterator[pa.Table]:
    """What was published, as rows.PUBLISHED, part by part. `todo` has the schema rows.LISTED.

    archive   the OUTPUT of another run, whose proxies are looked at in place of the videos

    Raises Stopped where a process cannot even begin.
    """
    yield from _Pass(settings, plan, publish, reporter, witness, archive).results(from_table(todo))


class _Pass:
    """One pass over a library."""

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        publish: Publish,
        reporter: Reporter,
        witness: DriverWitness,
        archive: str | None = None,
    ):
        self.plan, self.reporter, self.witness = plan, reporter, witness
        steps = (
            steps_from_proxies(settings, archive, plan.threads)
            if archive
            else steps_of(settings, publish.output, plan.threads)
        )
        self.begins_with = PROXIES if archive else HEADER
        self.gather = None if archive else steps.pop("gather").guarded(reporter)
        self.steps = steps
        self.last = list(steps.values())[-1].schema
        self.publish = Batches("publish", publish, reporter)
        self.waiting: deque[Row] = deque()
        self.finished: list[pa.Table] = []

    def results(self, listed: Iterator[Row]) -> Iterator[pa.Table]:
        self._top_up(listed)
        args = (self.steps, self.reporter.run_id, self.reporter.form)
        with closing(through(self.waiting, "run", Stages, args, self.plan.processes)) as answers:
            for asked, answer in answers:
                self._take(asked, answer)
                self._top_up(listed)
                if len(self.finished) >= self.plan.publish_rows:
                    yield from self._published()
        if self.finished:
            yield from self._published()

    def _top_up(self, listed: Iterator[Row]) -> None:
        """A video begins when a process will soon be free for it, not before."""
        while len(self.waiting) < self.plan.processes and (row := next(listed, None)):
            if self._may_begin(self.begins_with[0], row):
                self.waiting.append(asking(self.begins_with, to_table([row], LISTED)))

    def _may_begin(self, stage: str, row: Row) -> bool:
        verdict = self.witness.begin((stage, row["video_id"], row.get("shard") or 0))
        if verdict != "go":
            self.reporter.add(Work(stage, rows_in=1, put_off=verdict))
        return verdict == "go"

    def _take(self, asked: Row, answer: Row | Exception) -> None:
        """What came of some stages goes on to the next ones."""
        if isinstance(answer, Exception):
            return  # planned again by whoever wants all results
        stages = asked["stages"]
        if told := answer["failure"]:  # nothing that a stage raises comes here: the process died of it
            (row,) = from_table(asked["table"])
            rows = [row | {"failure": told | {"stage": stages[0]}}]
            self.reporter.add(Work(stages[0], rows_in=1, failed="failed"))
        else:
            rows = [row for table in answer["tables"] for row in from_table(table)]
            for work in answer["works"]:
                self.reporter.add(work)
        if stages == HEADER:
            self._begin([row for row in rows if not row["failure"]])
            self._gather([row for row in rows if row["failure"]])
        elif stages == SHARD:
            self._gather(rows)
        else:
            self._finish(rows)

    def _begin(self, shards: list[Row]) -> None:
        ready = [
            asking(SHARD, to_table([row], self.steps["probe"].schema))
            for row in shards
            if self._may_begin("decode", row)
        ]
        self.waiting.extendleft(reversed(ready))

    def _gather(self, rows: list[Row]) -> None:
        for row in rows:
            for table in self.gather(to_table([row], self.steps["look"].schema)):
                (whole,) = from_table(table)
                if whole["failure"]:
                    self._finish([whole])
                else:
                    self.waiting.appendleft(asking(VIDEO, table))

    def _finish(self, rows: list[Row]) -> None:
        self.finished += [to_table([row], self.last) for row in rows]

    def _published(self) -> Iterator[pa.Table]:
        batch, self.finished = pa.concat_tables(self.finished), []
        # What the storage does not take is planned again by whoever wants all results.
        with suppress(Unavailable, OSError):
            yield from self.publish(batch)


def asking(stages: tuple[str, ...], table: pa.Table) -> Row:
    return {"stages": stages, "table": table, "failure": None}


class Stages(Meter):
    """In a process: stages with their models loaded; a row of what is asked goes through some of them."""

    def __init__(self, steps: dict[str, Step], run_id: str | None, form: logs.Format):
        super().__init__()
        self.works: list[Work] = []
        reporter = Reporter(self, run_id, form)
        self.guards = {name: step.guarded(reporter) for name, step in steps.items()}

    def add(self, work: Work) -> None:
        self.works.append(work)  # the driver counts

    def __call__(self, asked: Row) -> Row:
        self.works, made = [], [asked["table"]]
        for name in asked["stages"]:
            made = [out for table in made for out in self.guards[name](table)]
        return {"tables": made, "works": self.works, "failure": None}
