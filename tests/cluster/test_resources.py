"""What a cluster has: real cores here, what the nodes declare elsewhere, and no node that does no work."""

import pytest
import ray

from cluster import resources
from cluster.machine import cores
from cluster.plan import PlanError, plan_for
from cluster.resources import GPU_GIB, Node, Resources, connected, machine
from cluster.speeds import SHIPPED

GIB = 2**30


def having(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float], dead: tuple[dict, ...] = ()) -> None:
    alive = [{"Alive": True, "Resources": has} for has in nodes]
    monkeypatch.setattr(ray, "nodes", lambda: alive + [{"Alive": False, "Resources": has} for has in dead])


def test_a_ray_of_our_own_is_counted_in_real_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(resources, "cores", lambda: 6)
    having(monkeypatch, {"CPU": 24.0, "memory": 8.0 * GIB, "object_store_memory": 2.0 * GIB})
    has = connected(None)
    assert (has.cores, has.logical_cpus, has.gpus, has.local) == (6, 24, 0, True)
    assert (has.memory_bytes, has.object_store_bytes) == (8 * GIB, 2 * GIB)


def test_a_cluster_is_its_living_nodes_that_can_do_work(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = {"CPU": 16.0, "GPU": 2.0, "memory": 50.0 * GIB, "object_store_memory": 20.0 * GIB}
    having(monkeypatch, {"memory": 4.0 * GIB}, worker, worker | {"GPU": 0.0}, dead=(worker,))
    has = connected("auto")
    assert (len(has.nodes), has.cores, has.gpus, has.logical_cpus) == (2, 32, 2, 32)
    assert not has.local


@pytest.mark.parametrize(
    ("names", "gib"), [(("T4",), 16), (("A100-80G",), 80), (("T4", "H100"), 16), (("NEW",), None), ((), None)]
)
def test_memory_of_a_gpu_is_that_of_its_name_or_not_known(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], gib: int | None
) -> None:
    having(monkeypatch, {"CPU": 8.0, "GPU": 1.0} | {f"accelerator_type:{name}": 1.0 for name in names})
    assert connected("auto").gpu_bytes == (None if gib is None else gib * GIB)


def test_the_smallest_gpu_of_a_cluster_counts_and_an_unknown_one_makes_all_unknown() -> None:
    def nodes(*gib: int | None) -> Resources:
        return Resources(
            tuple(Node(8.0, 0, 0, 1, None if size is None else size * GIB) for size in gib), 8.0 * len(gib)
        )

    assert nodes(80, 24).gpu_bytes == 24 * GIB
    assert nodes(80, None).gpu_bytes is None
    assert nodes().gpu_bytes is None
    assert min(GPU_GIB.values()) >= 8


def test_a_cluster_without_any_node_that_works_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    having(monkeypatch, {"memory": 4.0 * GIB})
    has = connected("auto")
    assert has.logical_cpus == 0
    with pytest.raises(PlanError, match="CPUs, the cluster has 0 for them: add a node"):
        plan_for(has, SHIPPED["cpu"], 10)


def test_the_connected_ray_is_read_as_it_is(ray_local: None) -> None:
    has = connected("local")
    assert (len(has.nodes), has.cores, has.local) == (1, cores(), True)
    assert has.logical_cpus == machine(has.cores).logical_cpus
    assert has.memory_bytes > GIB
    assert has.object_store_bytes > 100 << 20
