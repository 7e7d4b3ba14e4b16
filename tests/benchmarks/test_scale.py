"""The simulator against cases whose answer is known, and the shape of its predictions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale import CPU_NODE, GPU_NODE, predict
from benchmarks.scale_events import Clock, Flow, Outcome
from benchmarks.scale_real import LIBRARY, SLEEPS, raylets
from cluster.plan import Plan, PoolSettings, plan_for, work_of
from cluster.resources import Node, Resources
from cluster.speeds import SHIPPED, STAGES, Cost, Speeds

GIB = 2**30


def speeds(shard_s: float = 60.0, video_s: float = 60.0, driver_s: float = 0.0, **costs: float) -> Speeds:
    made = {name: Cost(cpu_s=costs.get(name, 0.0)) for name in STAGES}
    return Speeds(machine="made up", shard_s=shard_s, video_s=video_s, driver_s=driver_s, **made)


def cluster(cores: float, gpus: int = 0, nodes: int = 1) -> Resources:
    return Resources((Node(cores, 512 * GIB, 512 * GIB, gpus),) * nodes, cores * nodes)


def run(has: Resources, costs: Speeds, videos: int, contended: bool = True, **sizes: int) -> Outcome:
    pools = PoolSettings(publish_rows=1, threads=1, **sizes)
    plan = plan_for(has, costs, videos, pools)
    return Flow(plan, work_of(has, costs, videos, pools, None), videos, contended).run()


def test_one_core_does_one_thing_at_a_time_whatever_the_pools() -> None:
    found = run(cluster(1), speeds(decode=1.0, look=2.0, render=3.0), 10)
    assert found.wall_s == pytest.approx(60.0)
    assert found.core_use == pytest.approx(1.0)


def test_without_contention_the_slowest_pool_sets_the_pace() -> None:
    found = run(
        cluster(64), speeds(decode=1.0, look=2.0, render=6.0), 50, contended=False, decode=2, look=2, render=3
    )
    # Of decode 2 a second, of look 1, of render half a one.
    assert found.videos_per_s == pytest.approx(0.5, rel=0.05)


def test_shards_of_a_video_run_side_by_side_and_it_goes_on_with_the_last_one() -> None:
    costs = speeds(video_s=240.0, decode=5.0, render=1.0)
    assert run(cluster(64), costs, 1, decode=4).wall_s == pytest.approx(6.0)
    assert run(cluster(64), costs, 1, decode=2).wall_s == pytest.approx(11.0)
    assert run(cluster(64), costs, 1, decode=3).wall_s == pytest.approx(11.0)


def test_a_driver_that_takes_long_for_each_block_bounds_the_run() -> None:
    costs = speeds(video_s=240.0, decode=0.1, look=0.1, render=0.1, driver_s=0.05)
    found = run(cluster(512), costs, 300)
    blocks = 4 * 4 + 2  # the shards of probe, decode, look, gather; the video of score, render
    assert found.videos / found.wall_s == pytest.approx(1 / (0.05 * blocks), rel=0.15)
    assert found.driver_use > 0.85


def test_gather_is_one_actor_on_any_cluster() -> None:
    costs = speeds(decode=0.1, gather=0.5)
    found = run(cluster(1000), costs, 100)
    assert found.videos_per_s == pytest.approx(2.0, rel=0.02)
    assert found.gather_use > 0.95


def test_gpus_are_shared_like_cores() -> None:
    costs = SHIPPED["gpu"].model_copy(
        update={"look": Cost(cpu_s=0.1, gpu_s=2.0), "render": Cost(cpu_s=0.1, gpu_s=3.0), "video_s": 60.0}
    )
    found = run(cluster(64, gpus=1), costs, 40, look=2, render=2)
    assert found.videos_per_s == pytest.approx(1 / 5, rel=0.05)
    assert found.gpu_use > 0.9


def test_publishing_waits_for_a_whole_part_but_not_for_ever() -> None:
    has, costs = cluster(16), speeds(decode=1.0, publish=1.0)
    pools = PoolSettings(publish_rows=4)
    plan = plan_for(has, costs, 10, pools)
    found = Flow(plan, work_of(has, costs, 10, pools, None), 10).run()
    assert found.videos == 10
    assert found.wall_s < 10  # three parts, not ten


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=20), st.floats(0.5, 30.0))
def test_shared_work_takes_as_long_as_it_is_and_no_longer_than_in_turn(
    pieces: list[float], capacity: float
) -> None:
    clock, elapsed = Clock(capacity), 0.0
    for number, seconds in enumerate(pieces):
        clock.begin(seconds, 1.0, number, "look", number)
    for _ in pieces:
        step = clock.next_in()
        clock.advance(step)
        elapsed += step
        clock.finish()
    assert clock.used == pytest.approx(sum(pieces), rel=1e-6)
    assert elapsed >= max(max(pieces), sum(pieces) / capacity) - 1e-6
    assert elapsed <= sum(pieces) / min(1.0, capacity) + 1e-6


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(1, 12), st.floats(0.0, 0.02))
def test_every_video_comes_out_once_and_no_work_is_lost(videos: int, shards: int, driver_s: float) -> None:
    costs = speeds(video_s=60.0 * shards, decode=1.0, look=0.5, score=0.1, render=2.0, driver_s=driver_s)
    found = run(cluster(4), costs, videos)
    assert found.videos == videos
    assert found.core_use * 4 * found.wall_s == pytest.approx(videos * (1.5 * shards + 2.1), rel=1e-6)


def test_few_nodes_are_held_by_cores_and_many_by_what_there_is_only_one_of() -> None:
    def of(node: Node, count: int) -> tuple[Outcome, float, str]:
        kind = "gpu" if node.gpus else "cpu"
        return predict(Resources((node,) * count, node.cores * count), SHIPPED[kind], videos=400)

    assert of(CPU_NODE, 1)[2] == "cores"
    assert of(CPU_NODE, 1000)[2] in ("driver", "gather")
    found, expected, bottleneck = of(GPU_NODE, 2)
    assert bottleneck in ("GPUs", "cores")
    # The forecast of --plan leaves out the start and the end of a run.
    assert expected * 0.6 <= found.videos / found.wall_s <= expected * 1.02


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_plan_of_the_real_check_has_room_for_ray_to_hand_out_shards(count: int) -> None:
    has = raylets(count)
    plan: Plan = plan_for(has, SLEEPS, LIBRARY)
    assert plan.publish_rows == 1
    assert plan.demand()["CPU"] <= has.logical_cpus


@pytest.mark.slow
def test_prediction_and_a_real_run_agree() -> None:
    from benchmarks.scale import beside_real

    (row,) = beside_real([1], seconds=20.0)
    assert row["predicted"] == pytest.approx(row["measured"], rel=0.3)  # on a machine that may be busy
