"""How large each pool is, from what the cluster has and what each stage costs.

The only place that knows sizes and resources. For a library of which `x` videos are to be done each second,
stage i needs n_i = x t_i workers, t_i being the seconds that one of them has a video: then all stages keep
pace. `plan_for` takes the largest x that cores and GPUs, memory and the object store allow. It is pure: the
same cluster, speeds and library give the same plan.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import Field

from cluster.resources import Resources, machine
from cluster.speeds import SHIPPED, STAGES, THREADED, Speeds
from stages.settings import Settings

TASKS = ("probe", "decode", "publish")  # the others are actors
ON_GPU = ("look", "render")
# Of a logical CPU, on a Ray of our own: it declares several for each core, and the sizes bound the real load.
LIGHT, HEAVY = 0.1, 0.25
# Of the logical CPUs of any cluster, all pools together. Ray Data keeps the other half for the operators,
# and starts a task only where that leaves some: an operator that gets none waits for ever.
HELD = 0.5
SPREADING = 1.0  # what the task asks for that spreads the shards of a video: Ray's default
LEAST_CPU = 0.01
# Of a block whose worker died. A row that kills it is set aside after two deaths (pipeline/suspects.py); the
# neighbours in its block or queue must outlive several such rows. Without a bound, Ray Data would start an
# actor that cannot live again and again, for ever.
RETRIES = 20
IN_FLIGHT = 2  # the shard at work and the next one
MAX_THREADS = 4
# Pieces do not take equally long: with a quarter more workers than on average have work, the cores have it.
SLACK = 1.25
READERS = 16
MEMORY_SHARE = 0.8
# Of what a worker has for itself at its peak, in MiB: measured on 1080p, rounded up.
MEMORY_MIB = {
    "probe": 200,
    "decode": 250,
    "look": 900,
    "gather": 250,
    "score": 700,
    "render": 1000,
    "publish": 200,
}
# Of a process that does all stages, one after another, measured on 1080p, rounded up.
HERE_MIB = 1500
# Ray Data stops reading ahead when half of the object store is full.
STORE_SHARE = 0.5
SHARD_BYTES = 24 << 20  # a minute at 2 pictures of 256 x 256 per second
GPU_ACTOR_BYTES = 3 << 30
# What to do where there is too little, by the names in `uses`. GPUs are not needed.
MORE = {
    "CPUs": "add a node",
    "GiB of memory": "add a node, or one with more (ray start --memory)",
    "GiB of object store": "start Ray with more (ray start --object-store-memory), on a larger /dev/shm",
}
ACTORS_PER_UNKNOWN_GPU = 4


class PlanError(ValueError):
    """The sizes that were asked for do not fit; the message says which and what to change."""


class PoolSettings(Settings):
    """Sizes that go before those of the plan, which otherwise follow from the cluster."""

    probe: int | None = Field(None, ge=1)
    decode: int | None = Field(None, ge=1)
    look: int | None = Field(None, ge=1)
    score: int | None = Field(None, ge=1)
    render: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1, description="in each look and render actor")
    publish_rows: int | None = Field(None, ge=1, description="videos that share a part")
    gpu: float | None = Field(None, gt=0, le=1, description="GPU of each look and render actor")
    cpus: int | None = Field(
        None, ge=1, le=100_000, description="that a cluster which scales is asked for, and waited for"
    )
    speeds: str | None = Field(None, description="a file that `reelmap tune` wrote; none: your own, or ours")


@dataclass(frozen=True)
class Plan:
    """Sizes of the pools, and what each of their workers holds."""

    cores: int
    gpus: int
    probe: int
    decode: int
    look: int
    score: int
    render: int
    publish_rows: int
    threads: int  # of torch and of the encoder, in each look and render actor
    gpu_share: float  # GPU of each look and render actor
    cpus: Mapping[str, float]  # logical CPUs of a worker of each pool
    memory: Mapping[str, int]  # bytes that Ray sets aside for each; empty where it is not told
    processes: int = 0  # of this machine, each of which does all stages, without Ray; 0: the pools above

    @property
    def sizes(self) -> dict[str, int]:
        # Only one actor knows when the last shard of a video has come.
        return {name: 1 if name in ("gather", "publish") else getattr(self, name) for name in STAGES}

    def options(self, name: str) -> dict[str, Any]:
        """What Ray Data is told of a pool."""
        # A second to import, and these settings are read in every process of a run that is not on Ray.
        from ray.data import ActorPoolStrategy, TaskPoolStrategy

        size = self.sizes[name]
        holds = {"num_cpus": self.cpus[name]}
        if self.memory:
            holds["memory"] = self.memory[name]
        if name in ON_GPU and self.gpu_share:
            holds["num_gpus"] = self.gpu_share
        if name in TASKS:
            return holds | {"compute": TaskPoolStrategy(size), "max_retries": RETRIES}
        strategy = ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=IN_FLIGHT)
        return holds | {"compute": strategy, "max_task_retries": RETRIES}

    def alone(self) -> "Plan":
        """The same plan, one row at a time in each pool: for videos that may be what killed their workers."""
        return replace(self, probe=1, decode=1, look=1, score=1, render=1, publish_rows=1)

    def renders_only(self, resources: Resources, reels: int) -> "Plan":
        """The same plan where all there is to do is to render: as many at a time as there is room for."""
        cpus = HELD * resources.logical_cpus / self.cpus["render"]
        memory = MEMORY_SHARE * resources.memory_bytes / (MEMORY_MIB["render"] << 20)
        gpus = resources.gpus * int(1 / self.gpu_share) if self.gpu_share else math.inf
        size = int(min(reels, resources.cores / self.threads, cpus, memory, gpus))
        return replace(self, render=max(1, size))

    def demand(self) -> dict[str, float]:
        """Logical CPUs and whole GPUs that all pools hold together, with a CPU to hand out shards."""
        cpus = SPREADING + sum(self.cpus[name] * size for name, size in self.sizes.items())
        if not self.gpu_share:
            return {"CPU": cpus, "GPU": 0.0}
        # Shares are of one GPU: what is left over on two of them makes no third actor.
        return {"CPU": cpus, "GPU": math.ceil((self.look + self.render) / int(1 / self.gpu_share))}

    def memory_bytes(self) -> int:
        return memory_bytes(self.sizes)

    def facts(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Costs:
    """What a library costs on a cluster: seconds per video, by stage."""

    resources: Resources
    speeds: Speeds
    videos: int
    video_s: float
    threads: int

    def wall_s(self, stage: str) -> float:
        threads = self.threads if stage in THREADED else 1
        return self.speeds.pieces(stage, self.video_s) * self.speeds.cost(stage).wall_s(threads)

    def cpu_s(self, *stages: str) -> float:
        return sum(self.speeds.pieces(name, self.video_s) * self.speeds.cost(name).cpu_s for name in stages)

    @property
    def gpu_s(self) -> float:
        return sum(self.speeds.pieces(name, self.video_s) * self.speeds.cost(name).gpu_s for name in ON_GPU)

    @property
    def shards(self) -> int:
        return self.videos * self.speeds.shards(self.video_s)

    def most(self) -> float:
        """Videos per second that the cores and the GPUs could do."""
        by_cores = self.resources.cores / max(self.cpu_s(*STAGES), 1e-9)
        gpus = self.resources.gpus
        return min(by_cores, gpus / self.gpu_s) if gpus and self.gpu_s else by_cores


def make_plan(cores: int, gpus: int, videos: int) -> Plan:
    """A plan for one machine with a Ray of our own, by the speeds that are shipped."""
    return plan_for(machine(cores, gpus), SHIPPED["gpu" if gpus else "cpu"], videos)


def work_of(
    resources: Resources, speeds: Speeds, videos: int, pools: PoolSettings, footage_s: float | None
) -> Costs:
    largest = max((node.cores for node in resources.nodes), default=1.0)
    threads = pools.threads or threads_for(largest, 1)
    video_s = footage_s / videos if footage_s and videos else speeds.video_s
    return Costs(resources, speeds, max(1, videos), video_s, threads)


def plan_for(
    resources: Resources,
    speeds: Speeds,
    videos: int,
    pools: PoolSettings = PoolSettings(),
    footage_s: float | None = None,
) -> Plan:
    """Pools for a library of `videos` videos and `footage_s` seconds in all (None: of the usual length).

    Raises PlanError when sizes in `pools` do not fit into the cluster, or a cluster is too small for any. On
    a Ray of our own what little there is must do: `shortages` says what is missing.
    """
    work = work_of(resources, speeds, videos, pools, footage_s)
    share_gpus = bool(resources.gpus)
    if not fits(wanted(work, pools, 0.0, share_gpus), resources, pools):
        share_gpus = False  # a GPU without an actor is better than a plan that does not fit
    refuse(wanted(work, pools, 0.0, share_gpus), resources, pools)
    if short := [] if resources.local else shortages(resources, pools):
        raise PlanError("; ".join(short))
    sizes = largest(lambda rate: wanted(work, pools, rate, share_gpus), work.most(), resources, pools)
    return Plan(
        cores=max(1, int(resources.cores)),
        gpus=resources.gpus,
        **{name: sizes[name] for name in ("probe", "decode", "look", "score", "render")},
        publish_rows=pools.publish_rows or rows_per_part(videos),
        threads=work.threads,
        gpu_share=gpu_share(sizes, resources, pools),
        cpus=fractions(sizes, work),
        memory=set_aside(sizes, resources),
    )


def plan_here(resources: Resources, videos: int, pieces: int, pools: PoolSettings = PoolSettings()) -> Plan:
    """A plan without Ray for one machine: a process for each core that there are pieces and memory for.

    pieces   shards, or videos where these are not split
    """
    memory = MEMORY_SHARE * resources.memory_bytes / (HERE_MIB << 20)
    size = max(1, int(min(resources.cores, memory, pieces)))
    threads = pools.threads or threads_for(resources.cores, size)
    return Plan(
        cores=max(1, int(resources.cores)),
        gpus=0,
        **dict.fromkeys(("probe", "decode", "look", "score", "render"), size),
        publish_rows=pools.publish_rows or rows_per_part(videos),
        threads=threads,
        gpu_share=0.0,
        cpus=dict.fromkeys(STAGES, 0.0),
        memory={},
        processes=size,
    )


def threads_for(cores: float, workers: int) -> int:
    return max(1, min(MAX_THREADS, int(cores / max(1, workers))))


def rows_per_part(videos: int) -> int:
    """Few results are published one by one, to be there at once; of many, some share a part."""
    return max(1, min(64, videos // 64))


def wanted(work: Costs, pools: PoolSettings, rate: float, share_gpus: bool) -> dict[str, int]:
    """Sizes for `rate` videos per second; no pool is empty, and none larger than the work there is."""
    needed = {name: math.ceil(rate * work.wall_s(name) * SLACK - 1e-9) for name in STAGES}
    cores, gpus = work.resources.cores, work.resources.gpus if share_gpus else 0
    # Until the first video is whole there is nothing but decoding and looking for the cores to do.
    reading = work.cpu_s("decode") + (0.0 if gpus else work.cpu_s("look"))
    ahead = work.cpu_s(*STAGES) / reading if reading else 1.0
    decode = math.ceil(rate * work.wall_s("decode") * ahead - 1e-9)
    sizes = {
        "probe": max(needed["probe"], readers(work.resources), 1),
        "decode": max(2, min(max(needed["decode"], min(decode, int(cores))), work.shards)),
        "look": max(1, min(max(needed["look"], gpus), work.shards)),
        "gather": 1,
        "score": max(1, min(needed["score"], work.videos)),
        "render": max(1, min(max(needed["render"], gpus), work.videos)),
        "publish": 1,
    }
    return sizes | {name: size for name in sizes if (size := getattr(pools, name, None))}


def readers(resources: Resources) -> int:
    """Headers to read at once: their tasks mostly wait, but each of them is a process."""
    room = 0.1 * MEMORY_SHARE * resources.memory_bytes / (MEMORY_MIB["probe"] << 20)
    return int(min(resources.cores, READERS, room))


def largest(
    sizes: Callable[[float], dict[str, int]], most: float, resources: Resources, pools: PoolSettings
) -> dict[str, int]:
    """The sizes for the highest rate up to `most` that fit; those for none if not even they do."""
    if fits(sizes(most), resources, pools):
        return sizes(most)
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(sizes(middle), resources, pools) else (low, middle)
    return sizes(low)


def uses(resources: Resources, pools: PoolSettings) -> dict[str, tuple[float, dict[str, float]]]:
    """Of each resource: its name, how much there is, and how much of it one worker takes at least."""
    # What is left of a GPU beside a whole number of shares is of no use to another.
    on_each = int(1 / pools.gpu) if pools.gpu else actors_per_gpu(resources)
    return {
        "GPUs": (float(resources.gpus), dict.fromkeys(ON_GPU, 1 / on_each) if resources.gpus else {}),
        "CPUs": (HELD * resources.logical_cpus, least_cpus(resources)),
        "GiB of memory": (
            MEMORY_SHARE * resources.memory_bytes / 2**30,
            {name: MEMORY_MIB[name] / 2**10 for name in STAGES},
        ),
        "GiB of object store": (
            STORE_SHARE * resources.object_store_bytes / 2**30,
            {"decode": SHARD_BYTES / 2**30, "look": IN_FLIGHT * SHARD_BYTES / 2**30},
        ),
    }


def fits(sizes: Mapping[str, int], resources: Resources, pools: PoolSettings) -> bool:
    return all(
        sum(each.get(name, 0.0) * size for name, size in sizes.items()) <= have + 1e-9
        for have, each in uses(resources, pools).values()
    )


def shortages(resources: Resources, pools: PoolSettings) -> list[str]:
    """Of what there is too little for the smallest pools there can be, and what to do."""
    sizes = wanted(work_of(resources, SHIPPED["cpu"], 1, pools, None), pools, 0.0, share_gpus=False)
    found = []
    for unit, (have, each) in uses(resources, pools).items():
        wants = sum(each[name] * size for name, size in sizes.items() if name in each)
        if unit not in MORE or wants <= have + 1e-9:
            continue
        lacks = f"the smallest pools want {wants:.3g} {unit}, the"
        if resources.local:
            found.append(f"{lacks} machine has {have:.3g} for them: it may swap, or run out")
        else:
            found.append(f"{lacks} cluster has {have:.3g} for them: {MORE[unit]}")
    return found


def refuse(sizes: Mapping[str, int], resources: Resources, pools: PoolSettings) -> None:
    """Raises PlanError where an override is what does not fit, beside the smallest pools there can be."""
    if pools.gpu and not resources.gpus:
        raise PlanError("pools.gpu is for GPUs, the cluster has none: leave it out or add a node with a GPU")
    for unit, (have, each) in uses(resources, pools).items():
        takes = {name: each.get(name, 0.0) * size for name, size in sizes.items()}
        asked = [name for name in sizes if getattr(pools, name, None) and takes[name]]
        if sum(takes.values()) <= have + 1e-9:
            continue
        if unit == "GPUs" and pools.gpu and sum(each.values()) > have + 1e-9:
            share = math.floor(1e4 * have / len(ON_GPU)) / 1e4
            raise PlanError(
                f"pools.gpu = {pools.gpu:g} wants {sum(takes.values()):g} GPUs for look and render, the "
                f"cluster has {have:g}: set pools.gpu to {share:g} or add a node"
            )
        if asked:
            most = max(asked, key=lambda name: takes[name])
            left = have - sum(takes.values()) + takes[most]
            room = math.floor(left / each[most] + 1e-9)
            change = f"set pools.{most} to {room}" if room >= 1 else f"leave pools.{most} out"
            beside = f"{left:.3g} of {have:.3g} left by the other pools" if left < have else f"{have:.3g}"
            raise PlanError(
                f"pools.{most} wants {takes[most]:.3g} {unit}, the cluster has {beside}: "
                f"{change} or add a node"
            )


def actors_per_gpu(resources: Resources) -> int:
    """As many as a GPU's memory holds; two at least, one of each kind."""
    if resources.gpu_bytes is None:
        return ACTORS_PER_UNKNOWN_GPU
    return max(2, resources.gpu_bytes // GPU_ACTOR_BYTES)


def gpu_share(sizes: Mapping[str, int], resources: Resources, pools: PoolSettings) -> float:
    """The same for all actors, so that a whole number of them fills a GPU and none is spread over two."""
    if not resources.gpus:
        return 0.0
    if pools.gpu:
        return pools.gpu
    on_each = max(2, math.ceil(sum(sizes[name] for name in ON_GPU) / resources.gpus))
    return math.floor(1e4 / on_each) / 1e4  # Ray counts in ten-thousandths


def least_cpus(resources: Resources) -> dict[str, float]:
    if resources.local:
        return {name: LIGHT if name in TASKS else HEAVY for name in STAGES}
    return dict.fromkeys(STAGES, LEAST_CPU)


def fractions(sizes: Mapping[str, int], work: Costs) -> dict[str, float]:
    """Logical CPUs of a worker of each pool.

    A cluster's CPUs are cores: there a worker asks for as many as it keeps busy, less where all of them
    would hold more than HELD. A node is then full when its cores are.
    """
    resources = work.resources
    if resources.local:
        return least_cpus(resources)
    busy = {name: work.speeds.cost(name).cores(work.threads if name in THREADED else 1) for name in STAGES}
    total = sum(busy[name] * size for name, size in sizes.items())
    left = HELD * resources.logical_cpus - LEAST_CPU * sum(sizes.values())
    scale = max(0.0, min(1.0, left / total)) if total else 0.0
    return {name: math.floor(1e4 * (LEAST_CPU + busy[name] * scale)) / 1e4 for name in STAGES}


def set_aside(sizes: Mapping[str, int], resources: Resources) -> dict[str, int]:
    """Memory that Ray is told of, so that a small node of a cluster gets fewer workers than a large one.

    Not on one machine, where it would change nothing, nor where the pools would hold more than Ray Data can
    leave to each operator.
    """
    if resources.local or len(resources.nodes) < 2 or memory_bytes(sizes) > HELD * resources.memory_bytes:
        return {}
    return {name: MEMORY_MIB[name] << 20 for name in STAGES}


def memory_bytes(sizes: Mapping[str, int]) -> int:
    return sum(MEMORY_MIB[name] * size for name, size in sizes.items()) << 20
