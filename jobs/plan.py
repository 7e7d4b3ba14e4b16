"""The plan of a job on the connected cluster, and `--plan`, which prints it and stops."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow.compute as pc
import ray
from rich.console import Console

from cluster.connect import cluster_address, connection
from cluster.forecast import forecast, in_words, table
from cluster.machine import cores, free_memory_bytes, may_have_gpu
from cluster.plan import HERE_MIB, Plan, PlanError, plan_for, plan_here, shortages
from cluster.resources import Resources, connected, machine
from cluster.speeds import Speeds, find
from jobs.headers import lengths
from pipeline import tables
from pipeline.run import Job

HEADERS = 8  # that are read, to know how long the videos are

Say = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    plan: Plan
    resources: Resources
    speeds: Speeds
    source: str  # of the speeds
    videos: int
    footage_s: float | None
    remarks: list[str]  # worth saying, though they stop nothing


def plan_without_ray(job: Job, address: str | None, footage_s: float | None = None) -> Planned | None:
    """The plan in processes of this machine, where run.engine says so or there is nothing for Ray; else None.

    On one machine without a GPU they take a third of the time for a video of seconds, three quarters for half
    an hour of footage, and half the memory. Raises PlanError where they are asked for and cannot be.
    """
    engine, pools = job.settings.run.engine, job.settings.pools
    free = ("threads", "publish_rows", "speeds")
    sized = [name for name, size in pools if size is not None and name not in free]
    stays = cluster_address(address) is None
    if engine == "processes":
        if not stays:
            raise PlanError(
                "run.engine is processes, which are of one machine: leave out the address of a Ray "
                "(--address, RAY_ADDRESS)"
            )
        if sized:
            raise PlanError(f"run.engine is processes, and pools.{sized[0]} is of a Ray: leave one out")
        if has_gpu():
            raise PlanError("run.engine is processes, which have no use for the GPU here: set it to ray")
    elif engine == "ray" or not stays or ray.is_initialized() or sized or has_gpu():
        return None
    footage_s = footage_s or (archived_s(job) if job.from_proxies else footage_of(job, HEADERS))
    speeds, source = find(pools.speeds, 0, local=True)
    speeds = speeds.for_shards(job.settings.decode.shard_s)
    memory_bytes, videos = free_memory_bytes(), len(job.todo)
    resources = machine(cores(), memory_gib=None if memory_bytes is None else memory_bytes / 2**30)
    shards = 0 if job.from_proxies else math.ceil((footage_s or 0.0) / speeds.shard_s)
    plan = plan_here(resources, videos, max(videos, shards), pools)
    return Planned(plan, resources, speeds, source, videos, footage_s, [])


def has_gpu() -> bool:
    """Whether torch finds one here: not asked where there is no device, as it takes two seconds to import."""
    if not may_have_gpu():
        return False
    from stages.nn.device import pick_device

    return pick_device().type != "cpu"


def plan_job(job: Job, address: str | None, footage_s: float | None = None) -> Planned:
    """The plan; `footage_s` where it is known without opening videos. Raises PlanError or SpeedsError."""
    resources, pools = connected(address), job.settings.pools
    speeds, source = find(pools.speeds, resources.gpus, local=cluster_address(address) is None)
    speeds = speeds.for_shards(job.settings.decode.shard_s)
    videos, footage_s = len(job.todo), footage_s or footage_of(job, HEADERS)
    plan = plan_for(resources, speeds, videos, pools, footage_s)
    remarks = shortages(resources, pools)  # of a Ray of our own: a cluster that has any has no plan
    return Planned(plan, resources, speeds, source, videos, footage_s, remarks)


def expected_speed(planned: Planned, job: Job) -> float:
    """Seconds of footage per second, once all stages have work."""
    pools = job.settings.pools
    found = forecast(
        planned.plan, planned.resources, planned.speeds, planned.videos, pools, planned.footage_s
    )
    return found.hours_per_hour


def show_plan(job: Job, address: str | None, console: Console, say: Say) -> None:
    """Raises PlanError or SpeedsError."""
    if planned := plan_without_ray(job, address):
        show_processes(planned, say)
    else:
        with connection(address):
            show_pools(plan_job(job, address), job, address, console, say)
    say("nothing was done (--plan)")


def show_processes(planned: Planned, say: Say) -> None:
    plan, has = planned.plan, planned.resources
    say(f"this machine: {has.cores:g} cores, {has.memory_bytes / 2**30:.0f} GiB of free memory")
    say(footage_in_words(planned))
    say(
        f"{plan.processes} processes, each of which does all stages, and no Ray (run.engine): some "
        f"{plan.processes * HERE_MIB / 2**10:.1f} GiB of memory"
    )
    say(f"{plan.threads} threads of the networks in each, {plan.publish_rows} videos to a part")


def show_pools(planned: Planned, job: Job, address: str | None, console: Console, say: Say) -> None:
    has, plan = planned.resources, planned.plan
    where = f"{len(has.nodes)} nodes" if cluster_address(address) else "this machine"
    gpus = f", {has.gpus} GPUs" if has.gpus else ", no GPU"
    say(
        f"{where}: {has.cores:g} cores{gpus}, {has.memory_bytes / 2**30:.0f} GiB of memory, "
        f"{has.object_store_bytes / 2**30:.0f} GiB of object store"
    )
    say(footage_in_words(planned))
    say(f"speeds: {planned.source}")
    found = forecast(plan, has, planned.speeds, planned.videos, job.settings.pools, planned.footage_s)
    console.print(table(found))
    say(f"{plan.threads} threads in each look and render actor, {plan.publish_rows} videos to a part")
    demand = {name: amount for name, amount in plan.demand().items() if amount}
    held = ", ".join(f"{amount:.3g} {name}" for name, amount in demand.items())
    say(f"all pools hold {held} and at most {plan.memory_bytes() / 2**30:.1f} GiB of memory")
    for line in (*planned.remarks, *in_words(found)):
        say(line)


def footage_in_words(planned: Planned) -> str:
    length = "of unknown length" if planned.footage_s is None else f"{planned.footage_s / 3600:.2f} hours"
    return f"{planned.videos} videos, {length}"


def archived_s(job: Job) -> float:
    """Seconds of footage of the videos whose proxies are to be looked at."""
    ids = set(job.todo["video_id"].to_pylist())
    return pc.sum(tables.read(job.library, "videos", ["duration_s"], ids)["duration_s"]).as_py() or 0.0


def footage_of(job: Job, headers: int) -> float | None:
    """Seconds of footage to do, by some of the headers and the bytes per second of these videos."""
    if job.from_proxies or not len(job.todo):
        return None
    step = max(1, len(job.todo) // headers)
    some = job.todo.select(["uri", "size_bytes"])[::step][:headers].to_pylist()
    found = lengths([row["uri"] for row in some], job.settings.limits)
    known = [(row["size_bytes"], length_s) for row, length_s in zip(some, found, strict=True) if length_s]
    size_bytes = sum(size for size, _ in known)
    if not size_bytes:
        return None
    return sum(length_s for _, length_s in known) * (pc.sum(job.todo["size_bytes"]).as_py() / size_bytes)
