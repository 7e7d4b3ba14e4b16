"""What a run has done so far: one small actor collects it from all stages, the driver shows it."""

import contextlib
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import ray
from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.wording import clock

PLAIN_EVERY_S = 15.0
LIVE_EVERY_S = 0.5


@dataclass
class StageCount:
    rows: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass
class Totals:
    """Sums over all stages and workers."""

    stages: dict[str, StageCount] = field(default_factory=lambda: defaultdict(StageCount))
    probed_s: float = 0.0  # length of the videos whose header was read
    probed: int = 0  # how many those are
    decoded_s: float = 0.0


@ray.remote(num_cpus=0)
class Meter:
    def __init__(self) -> None:
        self.totals = Totals()

    def add(self, stage: str, seconds: float, wall_s: float, cpu_s: float) -> None:
        count = self.totals.stages[stage]
        count.rows += 1
        count.wall_s += wall_s
        count.cpu_s += cpu_s
        if stage == "probe":
            self.totals.probed += 1
            self.totals.probed_s += seconds
        elif stage == "decode":
            self.totals.decoded_s += seconds

    def read(self) -> Totals:
        return self.totals


class Reporter:
    """The workers' end of the meter: says what was done, waits for nothing."""

    def __init__(self, meter: Any):
        self.meter = meter

    def add(self, stage: str, row: dict[str, Any], wall_s: float, cpu_s: float) -> None:
        self.meter.add.remote(stage, _seconds(stage, row), wall_s, cpu_s)


def _seconds(stage: str, row: dict[str, Any]) -> float:
    """Footage that a row of the stage stands for: a video after probe, a shard after decode."""
    facts = row.get("probe")  # none in a row that was put off before its header was read
    if stage not in ("probe", "decode") or row["failure"] or not facts:
        return 0.0
    length_s = facts["duration_s"] or 0.0
    return length_s if stage == "probe" else max(0.0, min(row["end_s"], length_s) - row["start_s"])


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

    def __init__(self, counts: Counts, meter: Any, console: Console):
        self.counts, self.meter, self.console = counts, meter, console
        self.totals = Totals()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Display":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def message(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def read(self) -> Totals:
        """The meter's totals; the last ones known if it is gone."""
        with contextlib.suppress(ray.exceptions.RayError):
            self.totals = ray.get(self.meter.read.remote(), timeout=5)
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
    return Console(file=sys.stderr)
