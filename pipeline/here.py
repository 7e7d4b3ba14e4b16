"""The same run without Ray, in processes of this machine: for what is done before Ray would be of use.

    listed ─► probe ─► decode, look ─► gather ─► score, render ─► publish
              └──── processes ────┘    driver    └─ processes ┘   driver

A process takes whatever is next, the header of a video, a shard, a whole video that is to be cut: none waits
while another stage has work. What is begun is ended first, so that reels are out early and little is held.
"""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from operator import itemgetter
from typing import Any

import pyarrow as pa
import torch

from cluster.metrics import Work
from cluster.plan import Plan, threads_for
from pipeline import logs
from pipeline.config import Settings
from pipeline.guard import Batches, Step
from pipeline.logs import log
from pipeline.processes import at, through
from pipeline.progress import Meter, Reporter
from pipeline.publish import Publish
from pipeline.redact import without_secrets
from pipeline.rows import LISTED, from_table, to_table
from pipeline.steps import steps_from_proxies, steps_of
from pipeline.suspects import DriverWitness

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
    if witness.gate is None:  # else their order is part of what was asked for
        # A long video that begins last would end alone.
        todo = todo.sort_by([("size_bytes", "descending"), ("uri", "ascending")])
    one_pass = _Pass(settings, plan, publish, reporter, witness, archive)
    yield from one_pass.results(from_table(todo), len(todo))


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
        self.settings = settings
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

    def results(self, listed: Iterator[Row], videos: int) -> Iterator[pa.Table]:
        # There may be fewer videos than shards, and then cores to spare for each.
        wide = threads_for(self.plan.cores, min(self.plan.processes, videos))
        self.video_threads = self.settings.pools.threads or wide
        self._top_up(listed)
        args = (self.steps, self.reporter.run_id, self.reporter.form)
        rows = through(
            self.waiting,
            "run",
            Stages,
            args,
            self.plan.processes,
            self.settings.limits.stall_timeout_s,
            key=itemgetter("video_id"),
            bounds_itself=True,
        )
        with closing(rows) as answers:
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
                self.waiting.append(self._asking(self.begins_with, row["video_id"], to_table([row], LISTED)))

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
        if told := answer["failure"]:  # what stages raise is in the tables: the process died of it
            (row,) = from_table(asked["table"])
            made = [to_table([row | {"failure": told}], asked["table"].schema)]
            self.reporter.add(Work(told["stage"], rows_in=1, failed="failed"))
        else:
            made = answer["tables"]
            for work in answer["works"]:
                self.reporter.add(work)
        if stages == HEADER:
            self._begin([table for table in made if not failed(table)])
            self._gather([table for table in made if failed(table)])
        elif stages == SHARD:
            self._gather(made)
        else:
            self._finish(made)

    def _begin(self, shards: list[pa.Table]) -> None:
        ready = [
            self._asking(SHARD, row["video_id"], table)
            for table in shards
            for row in from_table(table)
            if self._may_begin("decode", row)
        ]
        self.waiting.extendleft(reversed(ready))

    def _gather(self, tables: list[pa.Table]) -> None:
        for table in tables:
            for whole in self.gather(table):
                if failed(whole):
                    self._finish([whole])
                else:
                    self.waiting.appendleft(self._asking(VIDEO, whole["video_id"][0].as_py(), whole))

    def _finish(self, tables: list[pa.Table]) -> None:
        # A failure comes from any stage: what later ones would have added is null.
        self.finished += [
            to_table(list(from_table(table)), self.last) if failed(table) else table for table in tables
        ]

    def _published(self) -> Iterator[pa.Table]:
        batch, self.finished = pa.concat_tables(self.finished), []
        try:
            yield from self.publish(batch)
        except Exception as error:  # planned again by whoever wants all results, and lost only in the end
            log.warning("put off: %s", without_secrets(str(error)))

    def _asking(self, stages: tuple[str, ...], video_id: str, table: pa.Table) -> Row:
        threads = self.video_threads if stages == VIDEO else self.plan.threads
        asked = {"stages": stages, "video_id": video_id, "table": table, "failure": None}
        return asked | {"threads": threads}


def failed(table: pa.Table) -> bool:
    """Of a table of one row."""
    return table["failure"].null_count == 0


class Stages:
    """In a process: stages with their models loaded; a row of what is asked goes through some of them."""

    def __init__(self, steps: dict[str, Step], run_id: str | None, form: logs.Format):
        if form == "text" and not os.environ.get("REELMAP_WORKER_LOGS"):
            # The driver says what becomes of each video; beside its table, libraries are not to be heard.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self.works = Works()
        reporter = Reporter(self.works, run_id, form)
        self.guards = {name: step.guarded(reporter) for name, step in steps.items()}

    def __call__(self, asked: Row) -> Row:
        torch.set_num_threads(asked["threads"])
        self.works.done, made = [], [asked["table"]]
        for name in asked["stages"]:
            at(name)
            made = [out for table in made for out in self.guards[name](table)]
        return {"tables": made, "works": self.works.done, "failure": None}


class Works(Meter):
    """What the driver's meter is to hear."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Work] = []

    def add(self, work: Work) -> None:
        self.done.append(work)
