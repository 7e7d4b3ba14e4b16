"""The flow's operators on raylets of bounded CPUs, with stages that take their time and nothing else.

The topology, the pool sizes, the CPU fractions and the limits in flight are those of a run: the same
operators, told the same by cluster/plan.py, over Ray's own scheduler, object store and driver. The work of a
stage is a sleep of the length that the simulator is given: on one machine several raylets share the same few
cores, and real work would only measure these.

So it checks what the simulator says of pools, queues, gather, hand-over and the driver. It does not check how
cores are shared: for that, compare `reelmap highlights --plan` with the run that follows it.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from benchmarks.scale_events import COOL, WARM
from cluster.forecast import BLOCKS_PER_SHARD, BLOCKS_PER_VIDEO
from cluster.plan import Plan
from cluster.resources import Node, Resources
from cluster.speeds import THREADED, Cost, Speeds

CPUS = 2
STORE_BYTES = 512 << 20
MEMORY_BYTES = 16 << 30
LIBRARY = 63  # videos: few enough to be published one by one
SHARDS = 4
# A tenth or so of what real ones cost, in the same proportions.
SLEEPS = Speeds(
    machine="sleeps",
    shard_s=60,
    video_s=60 * SHARDS,
    probe=Cost(cpu_s=0.02),
    decode=Cost(cpu_s=0.8),
    look=Cost(cpu_s=1.2),
    gather=Cost(cpu_s=0.005),
    score=Cost(cpu_s=0.1),
    render=Cost(cpu_s=3.0),
    publish=Cost(cpu_s=0.1),
)


def raylets(count: int) -> Resources:
    return Resources((Node(float(CPUS), MEMORY_BYTES, STORE_BYTES),) * count, float(CPUS * count))


@contextmanager
def running(count: int) -> Iterator[None]:
    """A head that only schedules, and `count` raylets."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=CPUS, object_store_memory=STORE_BYTES, memory=MEMORY_BYTES)
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure(plan: Plan, videos: int, scale: float = 1.0) -> tuple[float, float]:
    """Videos per second in the steady part, and the wall time from the first to the last, on what is running.

    scale   of the sleeps; 0 leaves what Ray itself takes
    """
    from pipeline.flow import configure  # not above: workers import this file, and need no torch

    configure()
    seconds = {name: scale * SLEEPS.cost(name).wall_s(threads_of(plan, name)) for name in plan.sizes}
    listing = [pa.table({"video": [number], "shard": [0]}) for number in range(videos)]
    ds = ray.data.from_arrow(listing)
    ds = tasks(ds, plan, "probe", seconds, fan_out)
    ds = ds.repartition(target_num_rows_per_block=1)
    ds = tasks(ds, plan, "decode", seconds, same)
    for name in ("look", "gather", "score", "render"):
        ds = actors(ds, plan, name, seconds)
    ds = tasks(ds, plan, "publish", seconds, same)
    times = []
    for batch in ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        times += [time.monotonic()] * batch.num_rows
    if len(times) != videos:
        raise RuntimeError(f"{len(times)} of {videos} videos came through")
    first, last = (round(part * (videos - 1)) for part in (WARM, COOL))
    return (last - first) / (times[last] - times[first]), times[-1] - times[0]


def hand_over_s(plan: Plan, videos: int = 100) -> float:
    """Seconds that a block costs from one operator to the next, by a run whose stages do nothing."""
    measure(plan, 10, scale=0.0)  # its processes are there then, with all that they import
    rate, _ = measure(plan, videos, scale=0.0)
    return 1 / (rate * (BLOCKS_PER_SHARD * SHARDS + BLOCKS_PER_VIDEO))


def threads_of(plan: Plan, name: str) -> int:
    return plan.threads if name in THREADED else 1


def same(table: pa.Table) -> Iterator[pa.Table]:
    yield table


def fan_out(table: pa.Table) -> Iterator[pa.Table]:
    (video,) = table["video"].to_pylist()
    for shard in range(SHARDS):
        yield pa.table({"video": [video], "shard": [shard]})


def tasks(ds: Any, plan: Plan, name: str, seconds: dict[str, float], work: Callable) -> Any:
    length_s = seconds[name]

    def call(table: pa.Table) -> Iterator[pa.Table]:
        time.sleep(length_s)
        yield from work(table)

    call.__name__ = call.__qualname__ = name
    return ds.map_batches(call, batch_size=None, batch_format="pyarrow", **plan.options(name))


def actors(ds: Any, plan: Plan, name: str, seconds: dict[str, float]) -> Any:
    length_s, whole = seconds[name], name == "gather"

    class Pool:
        def __init__(self) -> None:
            self.seen: Counter[int] = Counter()

        def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
            time.sleep(length_s)
            (video,) = table["video"].to_pylist()
            self.seen[video] += 1
            if not whole or self.seen[video] == SHARDS:
                yield table

    Pool.__name__ = Pool.__qualname__ = name
    return ds.map_batches(Pool, batch_size=None, batch_format="pyarrow", **plan.options(name))
