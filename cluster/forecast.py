"""What a plan is expected to do: how busy each pool is, what holds the others up, and how fast it goes."""

import math
from dataclasses import dataclass

from rich.table import Table

from cluster.plan import MEMORY_MIB, ON_GPU, Costs, Plan, PoolSettings, work_of
from cluster.resources import Resources
from cluster.speeds import PER_SHARD, STAGES, THREADED, Speeds

CORES, GPUS, DRIVER = "cores", "GPUs", "driver"
# What the driver hands over: the shards of probe, decode and look, which gather takes; the video of score and
# render.
BLOCKS_PER_SHARD, BLOCKS_PER_VIDEO = 4, 2


@dataclass(frozen=True)
class Expected:
    """Of a pool."""

    name: str
    size: int
    cpus: float
    gpus: float
    memory_bytes: int
    piece_s: float  # that one worker has a shard or a video
    load: float  # share of the time that the pool has work


@dataclass(frozen=True)
class Forecast:
    """In the steady state: while all stages have work."""

    pools: tuple[Expected, ...]
    videos_per_s: float
    bottleneck: str
    limits: dict[str, float]  # videos per second that each pool, the cores, the GPUs and the driver could do
    hours_per_hour: float
    gpu_use: float


def forecast(
    plan: Plan,
    resources: Resources,
    speeds: Speeds,
    videos: int,
    pools: PoolSettings = PoolSettings(),
    footage_s: float | None = None,
) -> Forecast:
    work = work_of(resources, speeds, videos, pools, footage_s)
    limits = limits_of(plan, work)
    bottleneck = min(limits, key=lambda name: limits[name])
    rate = limits[bottleneck]
    expected = tuple(
        Expected(
            name=name,
            size=size,
            cpus=plan.cpus[name],
            gpus=plan.gpu_share if name in ON_GPU else 0.0,
            memory_bytes=MEMORY_MIB[name] << 20,
            piece_s=speeds.cost(name).wall_s(plan.threads if name in THREADED else 1),
            load=rate / limits[name] if limits[name] else 0.0,
        )
        for name, size in plan.sizes.items()
    )
    return Forecast(
        pools=expected,
        videos_per_s=rate,
        bottleneck=bottleneck,
        limits=limits,
        hours_per_hour=rate * work.video_s,
        gpu_use=rate * work.gpu_s / resources.gpus if resources.gpus else 0.0,
    )


def limits_of(plan: Plan, work: Costs) -> dict[str, float]:
    """Videos per second that each of them could do, were it the only one."""
    rows = plan.publish_rows
    seconds = {name: work.wall_s(name) / size for name, size in plan.sizes.items()}
    # A part costs the same, however many videos share it.
    seconds["publish"] /= rows
    # A process does all stages: there is never another core for the next one.
    cores = min(plan.processes or math.inf, work.resources.cores)
    seconds[CORES] = work.cpu_s(*STAGES) / cores
    if work.resources.gpus:
        seconds[GPUS] = work.gpu_s / work.resources.gpus
    blocks = BLOCKS_PER_SHARD * work.speeds.shards(work.video_s) + BLOCKS_PER_VIDEO
    seconds[DRIVER] = blocks * work.speeds.driver_s
    return {name: 1 / each if each > 0 else float("inf") for name, each in seconds.items()}


def table(found: Forecast) -> Table:
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("pool", "size", "CPU", "GPU", "memory", "each takes", "load"):
        shown.add_column(name, justify="left" if name == "pool" else "right")
    for pool in found.pools:
        unit = "shard" if pool.name in PER_SHARD else "video"
        shown.add_row(
            pool.name,
            str(pool.size),
            f"{pool.cpus:g}",
            f"{pool.gpus:g}" if pool.gpus else "",
            f"{pool.memory_bytes / 2**20:.0f} MiB",
            f"{pool.piece_s:.3g} s per {unit}",
            f"{pool.load:.0%}",
        )
    return shown


def in_words(found: Forecast) -> list[str]:
    """The lines below the table."""
    second = sorted(found.limits.values())[1] / found.videos_per_s - 1
    held = "bounded by" if found.bottleneck in (CORES, GPUS, DRIVER) else "held up by the pool"
    lines = [
        f"{held} {found.bottleneck} (the next limit is {second:.0%} above it)",
        f"expected {found.hours_per_hour:.3g} video-hours per hour, once all stages have work",
    ]
    if found.gpu_use:
        lines.append(f"GPUs busy {found.gpu_use:.0%} of the time")
    return lines
