"""Which row each worker is at: a row that kills its workers is known, and its neighbours go free.

A worker says `begin` before a row and `end` after it. A row that begins again without having ended has lost
a worker. After CROWD_DEATHS its video is set aside, so that it takes no more neighbours with it; when all
others are done it is tried alone, and one death more is its own fault.

A run with a deadline asks the same actor whether a video may begin at all (pipeline/gate.py).
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.gate import Gate

CROWD_DEATHS = 2
ALONE_DEATHS = 1
DEATHS = CROWD_DEATHS + ALONE_DEATHS
ANSWER_S = 60

Row = tuple[str, str, int]  # stage, video_id, shard
Verdict = Literal["go", "aside", "guilty", "late"]


class Suspects:
    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate
        self.begun: Counter[Row] = Counter()
        self.aside: set[str] = set()
        self.alone = False

    def begin(self, row: Row) -> Verdict:
        stage, video_id, _ = row
        if self.gate and not self.gate.lets(stage, video_id):
            return "late"
        if video_id in self.aside:
            return "aside"
        if self.begun[row] >= (ALONE_DEATHS if self.alone else CROWD_DEATHS):
            if self.alone:
                return "guilty"
            self.aside.add(video_id)
            return "aside"
        self.begun[row] += 1
        return "go"

    def end(self, row: Row) -> None:
        del self.begun[row]

    def set_aside(self) -> set[str]:
        return self.aside

    def finish(self, video_id: str) -> None:
        if self.gate:
            self.gate.finish(video_id)

    def late(self) -> set[str]:
        return set(self.gate.late) if self.gate else set()

    def reconsider(self) -> None:
        if self.gate:
            self.gate.reconsider()

    def try_alone(self) -> None:
        """From now on only suspects run; what they have lost so far is forgiven."""
        self.begun.clear()
        self.aside, self.alone = set(), True


class Witness:
    """The workers' and the driver's end of it. Where it cannot be asked, nobody is a suspect."""

    def __init__(self, suspects: Any):
        self.actor = suspects

    def begin(self, row: Row) -> Verdict:
        return self._ask(self.actor.begin.remote(row), "go")

    def end(self, row: Row) -> None:
        self.actor.end.remote(row)

    def suspects(self, among: Iterable[str]) -> set[str]:
        """Those of the videos that were set aside."""
        return self._ask(self.actor.set_aside.remote(), set()).intersection(among)

    def finish(self, video_id: str) -> None:
        self.actor.finish.remote(video_id)

    def late(self, among: Iterable[str]) -> set[str] | None:
        """Those of the videos that could not begin as they would not have been done in time.

        None where that cannot be known.
        """
        late = self._ask(self.actor.late.remote(), None)
        return None if late is None else late.intersection(among)

    def reconsider(self) -> None:
        """Between two attempts: what was late may ask again if the run is faster than was thought."""
        self.actor.reconsider.remote()

    def try_alone(self) -> None:
        self._ask(self.actor.try_alone.remote(), None)

    @staticmethod
    def _ask(answer: Any, otherwise: Any) -> Any:
        try:
            return ray.get(answer, timeout=ANSWER_S)
        except ray.exceptions.RayError:
            return otherwise


class DriverWitness:
    """Where the driver itself sends rows to workers, which then knows which of them died (processes.py)."""

    def __init__(self, gate: Gate | None = None):
        self.gate = gate

    def begin(self, row: Row) -> Verdict:
        stage, video_id, _ = row
        return "go" if self.gate is None or self.gate.lets(stage, video_id) else "late"

    def suspects(self, _among: Iterable[str]) -> set[str]:
        return set()

    def finish(self, video_id: str) -> None:
        if self.gate:
            self.gate.finish(video_id)

    def late(self, among: Iterable[str]) -> set[str]:
        return set(self.gate.late).intersection(among) if self.gate else set()

    def reconsider(self) -> None:
        if self.gate:
            self.gate.reconsider()


def open_witness(gate: Gate | None = None) -> Witness:
    """A new one beside the driver, where it outlives every other node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
    return Witness(ray.remote(Suspects).options(**options).remote(gate))
