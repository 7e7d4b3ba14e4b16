"""The same run without Ray, in processes of this machine: for what is done before Ray would be of use.

    listed ─► probe ─► decode, look ─► gather, score, render ─► publish
              └──────────────── processes ──────────────┘       driver

A process takes whatever is next, the header of a video, a shard, a whole video that is to be cut: none waits
while another stage has work. What is begun is ended first, so that reels are out early and little is held.
Between the processes rows lie in scratch files that are mapped into memory: the driver hands over names.
"""

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.metrics import Work
from cluster.plan import threads_for
from pipeline import logs, scratch
from pipeline.guard import Batches, Step
from pipeline.logs import log
from pipeline.processes import Stopped, at, taken, through
from pipeline.progress import Meter, Reporter
from pipeline.redact import without_secrets
from pipeline.rows import LISTED, from_table, only, to_table
from pipeline.steps import Pass
from pipeline.storage import shown
from stages.blobs import Blobs
from stages.failure import Unavailable
from stages.gather import Waiting

# What a process does with a row before it hands it on.
HEADER, SHARD = ("probe",), ("decode", "look")
VIDEO, PROXIES = ("gather", "score", "render"), ("look", "score")

PUBLISH_AFTER_S = 300.0  # at most, where videos take long: what is killed redoes no more than this

Row = dict[str, Any]
Made = Row | Path  # a row, or the scratch file that holds it


def results(one_pass: Pass) -> Iterator[pa.Table]:
    """What was published, as rows.PUBLISHED, part by part.

    Raises Stopped where a process cannot even begin.
    """
    todo = one_pass.todo
    if one_pass.witness.gate is None:  # else their order is part of what was asked for
        # A long video that begins last would end alone.
        todo = todo.sort_by([("size_bytes", "descending"), ("uri", "ascending")])
    yield from _Driver(one_pass).results(from_table(todo), len(todo))


class _Driver:
    """What is done and what is next, of one pass."""

    def __init__(self, one_pass: Pass):
        self.settings, self.plan = one_pass.settings, one_pass.plan
        self.reporter, self.witness = one_pass.reporter, one_pass.witness
        self.steps = one_pass.steps()
        self.begins_with = PROXIES if one_pass.archive else HEADER
        self.last = list(self.steps.values())[-1].schema
        self.publish = Batches("publish", one_pass.publish, self.reporter)
        self.waiting: deque[Row] = deque()
        self.shards = Waiting()
        self.finished: list[pa.Table] = []
        self.published_at = time.monotonic()

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
            try:
                for asked, answer in answers:
                    self._take(asked, answer)
                    self._top_up(listed)
                    late = time.monotonic() - self.published_at > PUBLISH_AFTER_S
                    if len(self.finished) >= self.plan.publish_rows or late:
                        yield from self._published()
            except Stopped:  # what is finished counts
                yield from self._published()
                raise
        yield from self._published()

    def _top_up(self, listed: Iterator[Row]) -> None:
        """A video begins when a process will soon be free for it, not before."""
        while len(self.waiting) < self.plan.processes and (row := next(listed, None)):
            if self._may_begin(self.begins_with[0], row):
                self.waiting.append(self._asking(self.begins_with, row, [row]))

    def _may_begin(self, stage: str, row: Row) -> bool:
        verdict = self.witness.begin((stage, row["video_id"], row.get("shard") or 0))
        if verdict != "go":
            self.reporter.add(Work(stage, rows_in=1, put_off=verdict))
        return verdict == "go"

    def _take(self, asked: Row, answer: Row | Exception) -> None:
        """What came of some stages goes on to the next ones."""
        stages, video, video_id = asked["stages"], asked["video"], asked["video_id"]
        if isinstance(answer, Exception):
            kind = "storage" if isinstance(answer, Unavailable) else "disk"
            answer = {"made": [], "works": [Work(stages[0], rows_in=1, put_off=kind)], "failure": None}
        if told := answer["failure"]:  # what stages raise is in the rows: the process died of it
            made = [video | {"failure": told}]
            self.reporter.add(Work(told["stage"], rows_in=1, failed="failed"))
        else:
            made = answer["made"]
            for work in answer["works"]:
                self.reporter.add(work)
                if work.put_off:  # planned again by whoever wants all results
                    log.warning("put off in %s (%s): %s", work.stage, work.put_off, shown(video["uri"]))
        if not made:
            self._forget(video_id, [*asked["made"], *(row["file"] for row in self.shards.drop(video_id))])
        elif stages == HEADER:
            self._begin(made)
        elif stages == SHARD:
            self._gather(asked, made)
        else:
            self._finish(made)
            discard(asked["made"])

    def _begin(self, shards: list[Row]) -> None:
        self._finish([row for row in shards if row["failure"]])
        ready = [
            self._asking(SHARD, row, [row])
            for row in shards
            if not row["failure"] and self._may_begin("decode", row)
        ]
        self.waiting.extendleft(reversed(ready))

    def _gather(self, asked: Row, made: list[Made]) -> None:
        (shard,), video_id = asked["made"], asked["video_id"]
        for one in made:
            failed = None if isinstance(one, Path) else one["failure"]
            whole = self.shards.add(shard | {"failure": failed, "file": one})
            if whole is None:
                if video_id not in self.shards:  # another shard of it has failed
                    discard([one])
                continue
            files = [row["file"] for row in whole]
            if failed:
                self._finish([one])
                self._forget(video_id, files)
            else:
                self.waiting.appendleft(self._asking(VIDEO, asked["video"], files))

    def _forget(self, video_id: str, files: list[Made]) -> None:
        """Nothing more is wanted of a video: what waits of it is not begun, and its files go."""
        discard(files)
        taken(self.waiting, lambda row: row["video_id"] == video_id)

    def _finish(self, made: list[Made]) -> None:
        # A failure comes from any stage: what later ones would have added is null, and of no use are the
        # pictures and codes that earlier ones have.
        self.finished += [
            scratch.table(one) if isinstance(one, Path) else to_table([without_blobs(one)], self.last)
            for one in made
        ]
        discard(made)

    def _published(self) -> Iterator[pa.Table]:
        self.published_at = time.monotonic()
        if not self.finished:
            return
        batch, self.finished = pa.concat_tables(self.finished), []
        try:
            yield from self.publish(batch)
        except Exception as error:  # planned again by whoever wants all results, and lost only in the end
            log.warning("put off: %s", without_secrets(str(error)))

    def _asking(self, stages: tuple[str, ...], row: Row, made: list[Made]) -> Row:
        threads = self.video_threads if stages == VIDEO else self.plan.threads
        # What is known of the video, whatever becomes of the files.
        video = only(row, LISTED) | {"probe": row.get("probe")}
        asked = {"stages": stages, "video_id": row["video_id"], "video": video, "made": made, "failure": None}
        return asked | {"threads": threads}


class Stages:
    """In a process: stages with their models loaded; what is asked goes through some of them."""

    def __init__(self, steps: dict[str, Step], run_id: str | None, form: logs.Format):
        if form == "text" and not os.environ.get("REELMAP_WORKER_LOGS"):
            # The driver says what becomes of each video; beside its table, libraries are not to be heard.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        from torch import set_num_threads  # which the driver does without

        self.set_threads, self.works = set_num_threads, Works()
        reporter = Reporter(self.works, run_id, form)
        self.guards = {name: step.guarded(reporter) for name, step in steps.items()}

    def __call__(self, asked: Row) -> Row:
        self.set_threads(asked["threads"])
        self.works.done = []
        rows = map(opened, asked["made"])  # in the first stage, whose trouble it is
        for name in asked["stages"]:
            at(name)
            rows = [out for row in rows for out in self.guards[name].rows(row)]
        if asked["stages"] != HEADER:  # of which there are few facts to tell
            schema = self.guards[name].schema
            rows = [row if row["failure"] else scratch.put(row, schema) for row in rows]
        return {"made": rows, "works": self.works.done, "failure": None}


def opened(made: Made) -> Row:
    """Raises Unavailable for a file that cannot be read: the video is not to blame."""
    try:
        return scratch.take(made) if isinstance(made, Path) else made
    except OSError as error:
        raise Unavailable(f"a scratch file cannot be read: {error}") from error


def without_blobs(row: Row) -> Row:
    return {name: value for name, value in row.items() if not isinstance(value, Blobs)}


def discard(made: list[Made]) -> None:
    """Deletes the files among these; what is mapped of them stays."""
    for one in made:
        if isinstance(one, Path):
            one.unlink(missing_ok=True)


class Works(Meter):
    """What the driver's meter is to hear."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Work] = []

    def add(self, work: Work) -> None:
        self.done.append(work)
