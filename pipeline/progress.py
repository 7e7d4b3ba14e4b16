"""What a run has done so far: one meter collects it from all stages, the driver shows it.

On Ray it is a small actor, which tells Prometheus as well (cluster/metrics.py): it alone knows what waits
between two stages.
"""

import contextlib
import logging
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.metrics import Metrics, Work
from pipeline import logs
from pipeline.schema import OK
from pipeline.wording import clock

PLAIN_EVERY_S = 15.0
LIVE_EVERY_S = 0.5


@dataclass
class StageCount:
    """What runs/ID.json says of a stage."""

    rows: int = 0  # that it worked on; one that was planned again counts again
    rows_out: int = 0  # without a failure
    wall_s: float = 0.0  # of its own work: without waiting for the next stage
    cpu_s: float = 0.0
    copy_s: float = 0.0  # between Arrow and the stage's arrays
    failures: int = 0
    put_off: int = 0
    read_bytes: int = 0  # from a store, or packets of local sources
    written_bytes: int = 0
    storage_retries: int = 0

    def add(self, work: Work) -> None:
        self.rows += 1
        self.rows_out += work.rows_out
        self.wall_s += work.wall_s
        self.cpu_s += work.cpu_s
        self.copy_s += work.copy_s
        self.failures += bool(work.failed)
        self.put_off += bool(work.put_off)
        self.read_bytes += work.counts.get("read_bytes", 0)
        self.written_bytes += work.counts.get("written_bytes", 0)
        self.storage_retries += work.counts.get("storage_retries", 0)


@dataclass
class Totals:
    """Sums over all stages and workers."""

    stages: dict[str, StageCount] = field(default_factory=lambda: defaultdict(StageCount))
    probed_s: float = 0.0  # length of the videos whose header was read
    probed: int = 0  # how many those are
    decoded_s: float = 0.0

    def add(self, work: Work) -> None:
        self.stages[work.stage].add(work)
        if work.stage == "probe":
            self.probed += 1
            self.probed_s += work.footage_s
        elif work.stage == "decode":
            self.decoded_s += work.footage_s


class Meter:
    """Sums up what the stages tell it: in the driver where they run beside it, else in an actor."""

    def __init__(self) -> None:
        self.totals = Totals()

    def begin(self, stages: Sequence[str], rows: int) -> None:
        """An attempt with so many videos."""
        for stage in stages:  # from here on the driver's threads may read while it counts
            self.totals.stages[stage]

    def plan(self, videos: int) -> None:
        """How many videos the run set out to do."""

    def add(self, work: Work) -> None:
        self.totals.add(work)

    def publish(self, status: str, stage: str, footage_s: float, reel_s: float, clips: int) -> None:
        """A video; `stage` is the one in which it failed."""

    def read(self) -> Totals:
        return self.totals


class Watched(Meter):
    """A meter that tells Prometheus as well."""

    def __init__(self, run_id: str):
        super().__init__()
        self.metrics = Metrics(run_id)
        self.waiting: Counter[str] = Counter()  # rows, by the stage that they wait for
        self.after: dict[str, str] = {}

    def begin(self, stages: Sequence[str], rows: int) -> None:
        """What was between the stages of the attempt before is gone."""
        super().begin(stages, rows)
        self.after = dict(pairwise(stages))
        self.waiting = Counter({stages[0]: rows})
        for stage in stages:
            self.metrics.wait(stage, self.waiting[stage])

    def plan(self, videos: int) -> None:
        self.metrics.plan(videos)

    def add(self, work: Work) -> None:
        super().add(work)
        self.metrics.add(work)
        self._moved(work.stage, -work.rows_in)
        if next_stage := self.after.get(work.stage):
            self._moved(next_stage, work.rows_out)

    def _moved(self, stage: str, rows: int) -> None:
        # Below nothing only where a row was done twice, as its worker died.
        self.waiting[stage] = max(0, self.waiting[stage] + rows)
        self.metrics.wait(stage, self.waiting[stage])

    def publish(self, status: str, stage: str, footage_s: float, reel_s: float, clips: int) -> None:
        self.metrics.publish(status, stage, footage_s, reel_s, clips)


class RemoteMeter:
    """A meter in an actor: nobody waits for it to hear what it is told."""

    def __init__(self, actor: Any):
        self.actor, self.totals = actor, Totals()

    def begin(self, stages: Sequence[str], rows: int) -> None:
        self.actor.begin.remote(stages, rows)

    def plan(self, videos: int) -> None:
        self.actor.plan.remote(videos)

    def add(self, work: Work) -> None:
        self.actor.add.remote(work)

    def publish(self, *told: Any) -> None:
        self.actor.publish.remote(*told)

    def read(self) -> Totals:
        """Its totals; the last ones known if it is gone."""
        with contextlib.suppress(ray.exceptions.RayError):
            self.totals = ray.get(self.actor.read.remote(), timeout=5)
        return self.totals


def open_meter(run_id: str) -> RemoteMeter:
    """A new one beside the driver, where it outlives every other node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
    return RemoteMeter(ray.remote(Watched).options(**options).remote(run_id))


class Reporter:
    """The workers' and the driver's end of the meter: says what was done, waits for nothing."""

    def __init__(self, meter: Meter | RemoteMeter, run_id: str | None = None, form: logs.Format = "text"):
        self.meter, self.run_id, self.form = meter, run_id, form
        self.begin, self.plan, self.add = meter.begin, meter.plan, meter.add

    def attend(self, stage: str, row: dict[str, Any] | None = None) -> None:
        """From now on, what this process logs comes from there."""
        logs.configure(self.form)
        video_id, shard = (row["video_id"], row.get("shard")) if row else (None, None)
        logs.at(logs.Place(self.run_id, stage, video_id, shard))

    def publish(self, result: dict[str, Any]) -> None:
        """A video that was published, as rows.PUBLISHED says it; what is logged next is of it."""
        fine = result["status"] == OK
        stage = "publish" if fine else result["stage"]
        logs.at(logs.Place(self.run_id, stage, result["video_id"]))
        told = (
            (result["duration_s"] or 0.0, result["reel_s"] or 0.0, result["clips"]) if fine else (0.0, 0.0, 0)
        )
        self.meter.publish(result["status"], stage, *told)


def measure(work: Work, row: dict[str, Any]) -> None:
    """Adds to `work` the footage and the frames that a row which came out of the stage stands for."""
    facts = row.get("probe")  # none in a row that was put off before its header was read
    if row["failure"] or not facts:
        return
    length_s = facts["duration_s"] or 0.0
    if work.stage == "probe":  # of a video, each of whose shards says the same
        work.footage_s = length_s
    elif work.stage == "decode":
        work.footage_s += max(0.0, min(row["end_s"], length_s) - row["start_s"])
        work.frames_decoded += row["frames_decoded"]
        work.frames_sampled += len(row["times_s"])


@dataclass
class Counts:
    """What the driver has seen published."""

    total: int
    size_bytes: int
    decodes: bool = True  # a run from proxies decodes no footage
    ok: int = 0
    dropped: int = 0
    failed: int = 0
    clips: int = 0
    video_s: float = 0.0
    reel_s: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> int:
        return self.ok + self.dropped + self.failed

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def hours_per_hour(self) -> float:
        return self.video_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


class Display:
    """Shows the counts while they change: a live table on a terminal, a line now and then elsewhere."""

    def __init__(self, counts: Counts, meter: Meter | RemoteMeter, console: Console):
        self.counts, self.meter, self.console = counts, meter, console
        self.totals = Totals()
        self._stop = threading.Event()
        # A thread of its own has no place in the log but that of who starts it.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)

    def __enter__(self) -> "Display":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def message(self, text: str, warn: bool = False) -> None:
        """A line for people; where logs are wanted, an event."""
        if logs.wanted() == "json":
            logs.log.log(logging.WARNING if warn else logging.INFO, "%s", text)
        else:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def read(self) -> Totals:
        self.totals = self.meter.read()
        return self.totals

    def _run(self) -> None:
        if not self.console.is_terminal:
            while not self._stop.wait(PLAIN_EVERY_S):
                self.read()
                self.message(self.line())
            return
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:
            while not self._stop.wait(LIVE_EVERY_S):
                self.read()
                live.update(self.table())

    def line(self) -> str:
        counts, totals = self.counts, self.totals
        parts = (
            f"{counts.finished}/{counts.total} videos",
            f"{clock(totals.decoded_s)} decoded" if counts.decodes else "",
            f"{counts.clips} clips",
            f"{counts.failed + counts.dropped} failed or dropped",
            self._speed(),
            f"{self._left()} left",
        )
        return ", ".join(filter(None, parts))

    def table(self) -> Table:
        counts, totals = self.counts, self.totals
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_row("videos", f"{counts.finished} of {counts.total}", f"{counts.ok} ok")
        if counts.decodes:
            table.add_row(
                "footage", f"{clock(totals.decoded_s)} decoded", f"{clock(counts.video_s)} published"
            )
        table.add_row("clips", str(counts.clips), f"{clock(counts.reel_s)} of reels")
        if counts.failed or counts.dropped:
            table.add_row("failed", f"[red]{counts.failed}[/]", f"{counts.dropped} dropped")
        table.add_row("speed", self._speed(), f"{self._left()} left")
        return table

    def _speed(self) -> str:
        seconds = self.totals.decoded_s if self.counts.decodes else self.counts.video_s
        return f"{seconds / max(self.counts.elapsed_s, 1e-9):.1f} x real time"

    def _left(self) -> str:
        done = share_done(self.counts, self.totals)
        return clock(self.counts.elapsed_s * (1 - done) / done) if done else "unknown time"


def share_done(counts: Counts, totals: Totals) -> float:
    """Share of the work that is done, 0 to 1: decoding footage is half of it, publishing it the other.

    The library's footage is taken from the headers read so far. What failed or was dropped is never
    published: it counts as videos of average length.
    """
    if counts.finished >= counts.total:
        return 1.0
    if not counts.decodes:
        return counts.finished / counts.total
    if not totals.probed_s:
        return 0.0
    total_s = totals.probed_s / totals.probed * counts.total
    published = min(1.0, counts.video_s / total_s + (counts.failed + counts.dropped) / counts.total)
    decoded = max(published, min(1.0, totals.decoded_s / total_s))
    # Lengths are estimates: until the last video is out, something is left.
    return min(0.999, (decoded + published) / 2)


def make_console() -> Console:
    """Where a command speaks to people: standard error, as lines or as events of the log."""
    logs.configure(logs.wanted())
    if logs.wanted() == "json":
        return Console(file=logs.Events(), width=10_000)  # no line is broken
    return Console(file=sys.stderr)
