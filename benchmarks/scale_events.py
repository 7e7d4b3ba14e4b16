"""The flow as discrete events: shards through pools with bounded queues, sharing cores and GPUs.

    videos -> probe -> [driver] -> decode -> [driver] -> look -> ... -> publish

- A worker of a pool has one piece at a time: it waits for storage (`wait_s`, real time), then computes.
- All cores are one pot, and so are all GPUs: where more threads are at work than there are cores, each goes
  on at cores / threads of its speed (processor sharing). A piece is on the GPU first, then on the cores.
- The driver is one server: every block that an operator has made costs it `driver_s` before the next
  operator may take it.
- Decoding stops while the shards that wait for `look` fill their part of the object store.
- `gather` is one actor, and lets a video go with its last shard; `publish` writes parts of several videos.

A clock of work runs beside that of time: all work in hand slows down by the same factor, so a heap of the
moments on that clock at which pieces are done is all there is to keep, at any number of workers.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field

from cluster.forecast import BLOCKS_PER_SHARD, BLOCKS_PER_VIDEO
from cluster.plan import IN_FLIGHT, ON_GPU, SHARD_BYTES, STORE_SHARE, Costs, Plan
from cluster.speeds import PER_SHARD, STAGES, THREADED, Cost

WARM, COOL = 0.25, 0.75  # the part of the completions that counts as steady


@dataclass
class Clock:
    """Work that shares `capacity`: goes on at full speed until more than that is in hand."""

    capacity: float
    now: float = 0.0  # on the clock of work
    load: float = 0.0
    used: float = 0.0  # capacity x time that was in use
    ends: list[tuple[float, int, float, str, int]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        return min(1.0, self.capacity / self.load) if self.load > 0 else 1.0

    def advance(self, seconds: float) -> None:
        self.now += seconds * self.speed
        self.used += seconds * min(self.load, self.capacity)

    def next_in(self) -> float:
        return (self.ends[0][0] - self.now) / self.speed if self.ends else float("inf")

    def begin(self, seconds: float, weight: float, number: int, stage: str, video: int) -> None:
        self.load += weight
        heapq.heappush(self.ends, (self.now + seconds, number, weight, stage, video))

    def finish(self) -> tuple[str, int]:
        end, _, weight, stage, video = heapq.heappop(self.ends)
        self.now = max(self.now, end)
        self.load = self.load - weight if self.ends else 0.0
        return stage, video


@dataclass(frozen=True)
class Outcome:
    videos: int
    wall_s: float
    videos_per_s: float  # in the steady part
    core_use: float  # over the whole run
    gpu_use: float
    driver_use: float
    gather_use: float


class Flow:
    """One run of `videos` videos, all of the mean length."""

    def __init__(self, plan: Plan, work: Costs, videos: int, contended: bool = True):
        """contended   False: cores are no limit, as in a run whose stages only wait"""
        self.plan, self.work, self.videos = plan, work, videos
        resources = work.resources
        self.cores = Clock(resources.cores if contended else float("inf"))
        self.gpus = Clock(resources.gpus or float("inf"))
        self.waits = Clock(float("inf"))
        self.time = 0.0
        self.shards = work.speeds.shards(work.video_s)
        # Of the cost of a shard of the usual length.
        self.per_shard = work.speeds.pieces("decode", work.video_s) / self.shards
        self.queues: dict[str, deque[int]] = {name: deque() for name in STAGES}
        self.queues["probe"].extend(range(videos))
        self.busy = dict.fromkeys(STAGES, 0)
        self.gathered = [0] * videos
        self.driver: deque[tuple[str, int]] = deque()
        self.driver_free_s = 0.0
        self.in_store = 0
        shards = STORE_SHARE * resources.object_store_bytes / SHARD_BYTES
        self.store = max(plan.decode, IN_FLIGHT * plan.look, int(shards))
        self.done_s: list[float] = []
        self.gather_s = 0.0
        self._number = 0

    def run(self) -> Outcome:
        clocks = (self.cores, self.gpus, self.waits)
        self._start()
        while len(self.done_s) < self.videos:
            steps = [clock.next_in() for clock in clocks]
            steps.append(self.driver_free_s - self.time if self.driver else float("inf"))
            step = max(0.0, min(steps))
            self.time += step
            for clock in clocks:
                clock.advance(step)
            which = steps.index(min(steps))
            if which == 3:
                self._hand_over(*self.driver.popleft())
                self.driver_free_s = self.time + self.work.speeds.driver_s
            elif clocks[which] is self.waits:
                self._on_gpu(*self.waits.finish())
            elif clocks[which] is self.gpus:
                name, number = self.gpus.finish()
                self._compute(name, number, self._cost(name).gpu_s)
            else:
                self._finished(*self.cores.finish())
            self._start()
        return self._outcome()

    def _start(self) -> None:
        """Gives pieces to the workers that have none."""
        for name, size in self.plan.sizes.items():
            queue = self.queues[name]
            while queue and self.busy[name] < size:
                if name == "decode" and self.in_store + self.busy["decode"] >= self.store:
                    break
                if name == "publish" and not self._part_is_full():
                    break
                self.busy[name] += 1
                rows = min(len(queue), self.plan.publish_rows) if name == "publish" else 1
                video = queue.popleft()
                for _ in range(rows - 1):
                    queue.popleft()
                cost = self._cost(name)
                self._number += 1
                # A part's videos go on as one number: how many they are.
                self.waits.begin(cost.wait_s, 1.0, self._number, name, rows if name == "publish" else video)

    def _part_is_full(self) -> bool:
        waiting = len(self.queues["publish"])
        left = self.videos - len(self.done_s)
        return waiting >= min(self.plan.publish_rows, left)

    def _on_gpu(self, name: str, number: int) -> None:
        cost, self._number = self._cost(name), self._number + 1
        if name in ON_GPU and cost.gpu_s and self.work.resources.gpus:
            self.gpus.begin(cost.gpu_s, 1.0, self._number, name, number)
        else:
            self._compute(name, number, 0.0)

    def _compute(self, name: str, number: int, on_gpu_s: float) -> None:
        """The rest of a piece; what is left of its own work when its GPU is done."""
        cost, self._number = self._cost(name), self._number + 1
        threads = self.plan.threads if name in THREADED else 1
        seconds = max(0.0, cost.wall_s(threads) - cost.wait_s - on_gpu_s)
        load = min(float(threads), cost.cpu_s / seconds) if seconds else 0.0
        self.cores.begin(seconds, load, self._number, name, number)

    def _cost(self, name: str) -> Cost:
        cost = self.work.speeds.cost(name)
        if name not in PER_SHARD or self.per_shard == 1.0:
            return cost
        share = self.per_shard
        return Cost(cpu_s=cost.cpu_s * share, wait_s=cost.wait_s * share, gpu_s=cost.gpu_s * share)

    def _finished(self, name: str, video: int) -> None:
        self.busy[name] -= 1
        if name == "publish":
            self.done_s.extend([self.time] * video)
            return
        if name == "gather":
            self.gather_s += self._cost(name).wall_s()
        if name == "look":
            self.in_store -= 1
        elif name == "decode":
            self.in_store += 1
        outputs = self.shards if name == "probe" else 1
        if not self.driver:
            self.driver_free_s = max(self.driver_free_s, self.time) + self.work.speeds.driver_s
        self.driver.extend([(name, video)] * outputs)

    def _hand_over(self, name: str, video: int) -> None:
        if name == "gather":
            self.gathered[video] += 1
            if self.gathered[video] < self.shards:
                return
        self.queues[STAGES[STAGES.index(name) + 1]].append(video)

    def _outcome(self) -> Outcome:
        first, last = (self.done_s[round(part * (self.videos - 1))] for part in (WARM, COOL))
        count = round(COOL * (self.videos - 1)) - round(WARM * (self.videos - 1))
        resources, driver_s = self.work.resources, self.work.speeds.driver_s
        blocks = BLOCKS_PER_SHARD * self.shards + BLOCKS_PER_VIDEO
        return Outcome(
            videos=self.videos,
            wall_s=self.time,
            videos_per_s=count / (last - first) if last > first else self.videos / self.time,
            core_use=self.cores.used / (resources.cores * self.time),
            gpu_use=self.gpus.used / (resources.gpus * self.time) if resources.gpus else 0.0,
            driver_use=min(1.0, driver_s * blocks * self.videos / self.time),
            gather_use=min(1.0, self.gather_s / self.time),
        )
