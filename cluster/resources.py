"""What the connected cluster has: nodes with their cores, GPUs and memory."""

from dataclasses import dataclass
from typing import Any

import ray

from cluster.connect import LOGICAL_CPUS_PER_CORE, MIN_LOGICAL_CPUS, cluster_address
from cluster.machine import cores

# Memory of a GPU by the name that Ray gives it, in GiB. Of one that is not here, none is said to be known.
GPU_GIB = {
    "V100": 16,
    "P100": 16,
    "T4": 16,
    "A10G": 24,
    "L4": 24,
    "L40S": 48,
    "A100": 40,
    "A100-80G": 80,
    "H100": 80,
    "GH200": 96,
    "H20": 96,
    "H200": 141,
    "B200": 180,
}
ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True)
class Node:
    cores: float
    memory_bytes: int
    object_store_bytes: int
    gpus: int = 0
    gpu_bytes: int | None = None  # of each GPU; None where it is not known


@dataclass(frozen=True)
class Resources:
    """Nodes that can do work; on a Ray of our own, one, which declares more CPUs than it has cores."""

    nodes: tuple[Node, ...]
    logical_cpus: float

    @property
    def local(self) -> bool:
        return self.logical_cpus > self.cores

    @property
    def cores(self) -> float:
        return sum(node.cores for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)

    @property
    def memory_bytes(self) -> int:
        return sum(node.memory_bytes for node in self.nodes)

    @property
    def object_store_bytes(self) -> int:
        return sum(node.object_store_bytes for node in self.nodes)

    @property
    def gpu_bytes(self) -> int | None:
        """Memory of the smallest GPU: an actor may come to lie on any."""
        sizes = [node.gpu_bytes for node in self.nodes if node.gpus]
        return None if not sizes or None in sizes else min(size for size in sizes if size)


def machine(cores: float, gpus: int = 0, memory_gib: float | None = None) -> Resources:
    """One machine with a Ray of our own; 4 GiB of memory per core unless said."""
    memory = int((memory_gib or max(8, 4 * cores)) * 2**30)
    node = Node(cores, memory, min(2 << 30, memory // 4), gpus)
    return Resources((node,), max(MIN_LOGICAL_CPUS, LOGICAL_CPUS_PER_CORE * cores))


def connected(address: str | None) -> Resources:
    """What the connected Ray has. A node without CPUs, such as a head that only schedules, does no work."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    logical = sum(node["Resources"].get("CPU", 0.0) for node in alive)
    if cluster_address(address) is None and len(alive) == 1:
        return Resources((_node(alive[0]["Resources"], float(cores())),), logical)
    working = [node["Resources"] for node in alive if node["Resources"].get("CPU")]
    return Resources(tuple(_node(has, has["CPU"]) for has in working), logical)


def _node(has: dict[str, Any], cores: float) -> Node:
    names = [key.removeprefix(ACCELERATOR) for key in has if key.startswith(ACCELERATOR)]
    known = [GPU_GIB[name] << 30 for name in names if name in GPU_GIB]
    return Node(
        cores=cores,
        memory_bytes=int(has.get("memory", 0)),
        object_store_bytes=int(has.get("object_store_memory", 0)),
        gpus=int(has.get("GPU", 0)),
        gpu_bytes=min(known) if known and len(known) == len(names) else None,
    )
