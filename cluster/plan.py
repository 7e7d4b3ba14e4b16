"""How large each pool is, from what the cluster has: the only place that knows sizes and resources."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from ray.data import ActorPoolStrategy, TaskPoolStrategy

# Of a logical CPU. The sum over a whole plan stays far below what a cluster has, so that no operator starves;
# the pool sizes below are what bounds the load on the real cores.
LIGHT, HEAVY = 0.1, 0.25
# Of a block whose worker died. A row that kills it is set aside after two deaths (pipeline/suspects.py); the
# neighbours in its block or queue must outlive several such rows. Without a bound, Ray Data would start an
# actor that cannot live again and again, for ever.
RETRIES = 20
IN_FLIGHT = 2  # the shard at work and the next one


@dataclass(frozen=True)
class Plan:
    """Sizes of the pools. GPUs are shared by `look` and `render` where both fit on one."""

    cores: int
    gpus: int
    probe: int
    decode: int
    look: int
    score: int
    render: int
    publish_rows: int
    threads: int  # of torch and of the encoder, in each look and render actor

    def tasks(self, size: int) -> dict[str, Any]:
        return {"compute": TaskPoolStrategy(size), "num_cpus": LIGHT, "max_retries": RETRIES}

    def actors(self, size: int, num_gpus: float = 0.0) -> dict[str, Any]:
        strategy = ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=IN_FLIGHT)
        options = {"compute": strategy, "num_cpus": HEAVY, "max_task_retries": RETRIES}
        return options | ({"num_gpus": num_gpus} if num_gpus else {})

    def alone(self) -> "Plan":
        """The same plan, one row at a time in each pool: for videos that may be what killed their workers."""
        return replace(self, probe=1, decode=1, look=1, score=1, render=1, publish_rows=1)

    @property
    def gpu_share(self) -> float:
        """GPU of each look and render actor: half a GPU, so that both pools fit; none without GPUs."""
        return 0.5 if self.gpus else 0.0

    def demand(self) -> dict[str, float]:
        """Logical CPUs and GPUs that all pools hold together."""
        light = LIGHT * (self.probe + self.decode + 1)
        actors = self.look + 1 + self.score + self.render
        return {"CPU": light + HEAVY * actors, "GPU": self.gpu_share * (self.look + self.render)}

    def facts(self) -> dict[str, int]:
        return asdict(self)


def make_plan(cores: int, gpus: int, videos: int) -> Plan:
    """Pools for a cluster of `cores` real cores and `gpus` GPUs, and a library of `videos`.

    Decoding takes about half of the CPU time of a run, looking a quarter, rendering a quarter (measured on
    two cores without a GPU). With GPUs, looking and rendering move there, one actor of each per GPU.
    """
    quarter = max(1, cores // 4)
    return Plan(
        cores=cores,
        gpus=gpus,
        probe=max(1, min(cores, 16)),
        decode=max(2, cores - (0 if gpus else quarter)),
        look=gpus or quarter,
        score=1 + cores // 64,
        render=gpus or quarter,
        # Few videos are published one by one, to be there at once; of many, some share a part.
        publish_rows=max(1, min(64, videos // 64)),
        threads=max(1, min(4, cores)),
    )
