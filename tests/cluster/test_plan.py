"""Plans of any size: no pool is empty, all of them fit, and a larger cluster never gets smaller pools."""

import itertools

import pytest

from cluster.connect import LOGICAL_CPUS_PER_CORE, MIN_LOGICAL_CPUS
from cluster.plan import Plan, make_plan

CORES = (*range(1, 34), 48, 63, 64, 65, 96, 127, 128, 255, 256, 500, 999, 1000)
GPUS = (0, 1, 2, 3, 4, 8, 16, 63, 64)
VIDEOS = (1, 2, 63, 64, 65, 128, 5000, 10**6)
POOLS = ("probe", "decode", "look", "score", "render", "threads", "publish_rows")


def plans(cores: tuple[int, ...] = CORES, gpus: tuple[int, ...] = GPUS) -> list[Plan]:
    return [make_plan(*sizes) for sizes in itertools.product(cores, gpus, VIDEOS)]


def test_no_pool_is_empty() -> None:
    for plan in plans():
        sizes = {name: getattr(plan, name) for name in POOLS}
        assert all(isinstance(size, int) and size >= 1 for size in sizes.values()), plan


def test_a_local_ray_has_the_cpus_that_the_plan_asks_for() -> None:
    for plan in plans():
        # More GPUs than cores is no machine that is sold; the check before a run names what is missing.
        if plan.gpus <= plan.cores:
            logical = max(MIN_LOGICAL_CPUS, LOGICAL_CPUS_PER_CORE * plan.cores)
            assert plan.demand()["CPU"] <= logical, plan


def test_a_cluster_of_two_cpus_or_more_has_the_cpus_that_the_plan_asks_for() -> None:
    for plan in plans():
        if plan.cores >= 2 and plan.gpus <= plan.cores:
            assert plan.demand()["CPU"] <= plan.cores + 1e-9, plan


def test_every_operator_can_run_a_task_beside_all_that_the_plan_holds() -> None:
    """Ray Data starts a task only where CPUs are left over: on a local Ray half of them are."""
    for plan in plans(gpus=(0,)):
        logical = max(MIN_LOGICAL_CPUS, LOGICAL_CPUS_PER_CORE * plan.cores)
        assert plan.demand()["CPU"] <= logical / 2, plan


def test_looking_and_rendering_share_the_gpus_that_are_there() -> None:
    for plan in plans():
        assert plan.gpu_share * (plan.look + plan.render) <= plan.gpus, plan
        assert plan.demand()["GPU"] <= plan.gpus, plan
        # A GPU is not left idle, and an actor is never spread over two.
        assert plan.gpu_share <= 1
        assert plan.look >= plan.gpus
        assert ("num_gpus" in plan.actors(plan.look, plan.gpu_share)) == bool(plan.gpus)


def test_few_videos_are_published_one_by_one_and_many_in_bounded_parts() -> None:
    rows = [make_plan(16, 0, videos).publish_rows for videos in VIDEOS]
    assert rows[0] == rows[1] == 1
    assert rows == sorted(rows)
    assert 8 <= rows[-1] <= 64


@pytest.mark.parametrize("gpus", GPUS)
def test_more_cores_never_make_a_pool_smaller(gpus: int) -> None:
    for fewer, more in itertools.pairwise(make_plan(cores, gpus, 1000) for cores in CORES):
        for name in POOLS:
            assert getattr(more, name) >= getattr(fewer, name), (name, fewer, more)
    assert make_plan(1000, gpus, 1000).decode > make_plan(2, gpus, 1000).decode


def test_decoding_looking_and_rendering_do_not_ask_for_twice_the_cores() -> None:
    for plan in plans(gpus=(0,)):
        assert plan.decode + plan.look + plan.render <= max(4, 2 * plan.cores), plan


def test_the_facts_of_a_plan_are_numbers_for_the_record() -> None:
    facts = make_plan(8, 1, 10).facts()
    assert (facts["cores"], facts["gpus"]) == (8, 1)
    assert set(POOLS) <= set(facts)
    assert all(isinstance(value, int) for value in facts.values())
