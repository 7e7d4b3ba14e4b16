"""Plans for any cluster: they fit, no pool is empty, stages keep pace, and more nodes never make less."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.plan import (
    HELD,
    MEMORY_MIB,
    MEMORY_SHARE,
    ON_GPU,
    SHARD_BYTES,
    SLACK,
    SPREADING,
    TASKS,
    PlanError,
    PoolSettings,
    make_plan,
    plan_for,
    shortages,
    work_of,
)
from cluster.resources import Node, Resources, machine
from cluster.speeds import SHIPPED, STAGES, Cost, Speeds

POOLS = ("probe", "decode", "look", "score", "render")
GIB = 2**30

seconds = st.floats(0.001, 100.0)
costs = st.builds(Cost, cpu_s=seconds, wait_s=st.floats(0.0, 5.0))
gpu_costs = st.builds(Cost, cpu_s=seconds, wait_s=st.floats(0.0, 5.0), gpu_s=st.floats(0.01, 20.0))
speeds = st.builds(
    Speeds,
    machine=st.just("any"),
    shard_s=st.just(60.0),
    video_s=st.floats(1.0, 4 * 3600.0),
    probe=costs,
    decode=costs,
    look=gpu_costs,
    gather=costs,
    score=costs,
    render=gpu_costs,
    publish=costs,
)
nodes = st.builds(
    Node,
    cores=st.integers(2, 128).map(float),
    memory_bytes=st.integers(6, 512).map(lambda gib: gib * GIB),
    object_store_bytes=st.integers(1, 128).map(lambda gib: gib * GIB),
    gpus=st.sampled_from([0, 0, 1, 2, 8]),
    gpu_bytes=st.sampled_from([None, 16 * GIB, 80 * GIB]),
)
videos = st.integers(1, 10**7)


def cluster(node: Node, count: int) -> Resources:
    return Resources((node,) * count, node.cores * count)


def laptop(cores: float, gpus: int = 0) -> Resources:
    return machine(cores, gpus)


@settings(deadline=None, max_examples=150)
@given(nodes, st.integers(1, 1000), speeds, videos)
def test_every_plan_fits_and_no_pool_is_empty(node: Node, count: int, speeds: Speeds, videos: int) -> None:
    has = cluster(node, count)
    plan = plan_for(has, speeds, videos)
    assert all(isinstance(size, int) and size >= 1 for size in plan.sizes.values()), plan
    assert plan.threads >= 1
    assert 1 <= plan.publish_rows <= 64
    demand = plan.demand()
    # The other half is for Ray Data to give each operator something, and to spread shards.
    assert demand["CPU"] - SPREADING <= HELD * has.logical_cpus + 1e-6
    assert demand["CPU"] <= has.logical_cpus + 1e-6
    assert demand["GPU"] <= has.gpus
    assert plan.memory_bytes() <= MEMORY_SHARE * has.memory_bytes
    assert (plan.decode + plan.look) * SHARD_BYTES <= has.object_store_bytes


@settings(deadline=None, max_examples=100)
@given(nodes, st.integers(1, 300), speeds, videos)
def test_the_workers_find_room_on_single_nodes(node: Node, count: int, speeds: Speeds, videos: int) -> None:
    """Large ones first, in turn to every node: none is left over, though no worker can be divided."""
    plan = plan_for(cluster(node, count), speeds, videos)
    cpus = sorted((plan.cpus[name] for name, size in plan.sizes.items() for _ in range(size)), reverse=True)
    assert cpus[0] <= node.cores
    each = -(-len(cpus) // count)  # dealt out in turn, the first node gets the largest of every deal
    assert sum(cpus[::count][:each]) <= node.cores + 1e-6
    if plan.gpu_share:
        on_each = int(1 / plan.gpu_share)
        assert plan.look + plan.render <= on_each * node.gpus * count


@settings(deadline=None, max_examples=100)
@given(nodes, st.integers(1, 200), st.integers(1, 200), speeds, videos)
def test_more_nodes_never_make_a_pool_smaller(
    node: Node, count: int, more: int, speeds: Speeds, videos: int
) -> None:
    few, many = (plan_for(cluster(node, n), speeds, videos) for n in (count, count + more))
    for name in POOLS:
        assert getattr(many, name) >= getattr(few, name), name


@settings(deadline=None, max_examples=30)
@given(nodes, st.integers(1, 100), speeds, videos)
def test_the_same_question_has_the_same_answer(node: Node, count: int, speeds: Speeds, videos: int) -> None:
    one, other = (plan_for(cluster(node, count), speeds, videos) for _ in range(2))
    assert one == other


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 200), speeds)
def test_stages_keep_pace(count: int, speeds: Speeds) -> None:
    """Where nothing but the cores bounds them, n_i / t_i is equal but for a worker more or less."""
    node = Node(16.0, 10**15, 10**15)
    speeds = speeds.model_copy(
        update={name: Cost(cpu_s=speeds.cost(name).cpu_s, wait_s=speeds.cost(name).wait_s) for name in ON_GPU}
    )
    has = cluster(node, count)
    plan = plan_for(has, speeds, 10**7)
    work = work_of(has, speeds, 10**7, PoolSettings(), None)
    for name in ("look", "score", "render"):
        exact = work.most() * work.wall_s(name) * SLACK
        assert exact - 1e-6 <= plan.sizes[name] <= exact + 1, name
    # Decoding runs ahead of the first whole video; it has never fewer than it needs.
    assert plan.decode >= work.most() * work.wall_s("decode") * SLACK - 1e-6


def test_two_cores_without_a_gpu_get_what_was_measured_to_be_fastest_there() -> None:
    plan = make_plan(2, 0, 5)
    assert (plan.decode, plan.look, plan.render, plan.score) == (2, 1, 1, 1)
    assert (plan.threads, plan.publish_rows) == (2, 1)
    assert plan.demand()["CPU"] <= 8 * HELD + SPREADING


def test_a_local_ray_has_the_cpus_that_the_plan_asks_for() -> None:
    for cores, gpus in itertools.product((1, 2, 3, 4, 7, 8, 16, 64, 128), (0, 1, 2, 8)):
        plan, has = make_plan(cores, gpus, 1000), machine(cores, gpus)
        assert plan.demand()["CPU"] <= HELD * has.logical_cpus + SPREADING, (cores, gpus)


def test_a_node_is_full_when_its_cores_are() -> None:
    """On a cluster of unequal nodes a small one must not get as many decoders as a large one."""
    plan = plan_for(cluster(Node(16.0, 64 * GIB, 16 * GIB), 4), SHIPPED["cpu"], 10**4)
    assert plan.cpus["decode"] > 0.2
    assert plan.cpus["look"] > 2 * plan.cpus["decode"]
    assert max(plan.cpus[name] for name in TASKS) <= 1


def test_ray_is_told_of_memory_only_where_that_leaves_half_to_every_operator() -> None:
    roomy, tight = (cluster(Node(16.0, gib * GIB, 16 * GIB), 4) for gib in (48, 8))
    plan = plan_for(roomy, SHIPPED["cpu"], 10**4)
    assert {plan.options(name)["memory"] for name in STAGES} == {MEMORY_MIB[name] << 20 for name in STAGES}
    assert plan.memory_bytes() <= HELD * roomy.memory_bytes
    for has in (tight, machine(16, memory_gib=256)):
        plan = plan_for(has, SHIPPED["cpu"], 10**4)
        assert plan.memory_bytes() > HELD * has.memory_bytes or has.local
        assert all("memory" not in plan.options(name) for name in STAGES)


def test_looking_and_rendering_share_every_gpu_and_nobody_else_has_one() -> None:
    for gpus in (1, 2, 3, 8):
        plan = make_plan(32, gpus, 10**4)
        assert plan.look >= gpus
        assert plan.render >= gpus
        for name in STAGES:
            assert ("num_gpus" in plan.options(name)) == (name in ON_GPU), name
        # An actor is never spread over two GPUs, and the shares fill one.
        on_each = int(1 / plan.gpu_share)
        assert 1 - 1e-3 * on_each <= on_each * plan.gpu_share <= 1
    assert all("num_gpus" not in make_plan(8, 0, 100).options(name) for name in STAGES)


def test_no_more_actors_than_there_is_work() -> None:
    plan = plan_for(machine(64), SHIPPED["cpu"], 3, footage_s=3 * 30.0)
    assert plan.look <= 3
    assert plan.render <= 3
    long_films = plan_for(machine(64), SHIPPED["cpu"], 3, footage_s=3 * 7200.0)
    assert long_films.look > plan.look
    assert long_films.render <= 3


def test_memory_bounds_the_pools_before_the_cores_do() -> None:
    small = plan_for(machine(64, memory_gib=16), SHIPPED["cpu"], 1000)
    large = plan_for(machine(64, memory_gib=256), SHIPPED["cpu"], 1000)
    assert small.memory_bytes() <= MEMORY_SHARE * 16 * GIB
    assert small.look < large.look
    assert all(size >= 1 for size in small.sizes.values())


def test_few_videos_are_published_one_by_one_and_many_in_bounded_parts() -> None:
    rows = [make_plan(16, 0, videos).publish_rows for videos in (1, 2, 63, 64, 128, 5000, 10**6)]
    assert rows[0] == rows[1] == 1
    assert rows == sorted(rows)
    assert 8 <= rows[-1] <= 64


def test_what_the_operator_sets_is_what_he_gets() -> None:
    asked = PoolSettings(probe=3, decode=5, look=2, score=2, render=4, threads=1, publish_rows=7)
    plan = plan_for(machine(16), SHIPPED["cpu"], 1000, asked)
    assert (plan.probe, plan.decode, plan.look, plan.score, plan.render) == (3, 5, 2, 2, 4)
    assert (plan.threads, plan.publish_rows) == (1, 7)
    on_gpu = plan_for(machine(16, 2), SHIPPED["gpu"], 1000, PoolSettings(look=2, render=2, gpu=0.25))
    assert on_gpu.gpu_share == 0.25


@pytest.mark.parametrize(
    ("has", "asked", "words"),
    [
        (
            laptop(8, 1),
            {"look": 2, "gpu": 0.5},
            "pools.look wants 1 GPUs, the cluster has 0.5 of 1 left .*: set pools.look to 1 or add a node",
        ),
        (
            laptop(8, 1),
            {"look": 9},
            "pools.look wants 2.25 GPUs, .* has 0.75 of 1 left .*: set pools.look to 3",
        ),
        (
            laptop(8, 1),
            {"gpu": 1.0},
            "pools.gpu = 1 wants 2 GPUs .* has 1: set pools.gpu to 0.5 or add a node",
        ),
        (laptop(8, 1), {"gpu": 0.6}, "pools.gpu = 0.6 wants 2 GPUs .*set pools.gpu to 0.5 or add a node"),
        (laptop(8), {"gpu": 0.5}, "pools.gpu is for GPUs, the cluster has none"),
        (laptop(2), {"decode": 1000}, "pools.decode wants 100 CPUs, .* set pools.decode to 2[0-9] or add a"),
        (
            laptop(8),
            {"render": 60},
            "pools.render wants 15 CPUs, the cluster has 14.* of 16 left by the other pools: set",
        ),
        (
            cluster(Node(8.0, 16 * GIB, 4 * GIB), 1),
            {"render": 60},
            "pools.render wants 58.6 GiB of memory, .* set pools.render to [0-9]+ or add a node",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_words(has: Resources, asked: dict, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        plan_for(has, SHIPPED["gpu" if has.gpus else "cpu"], 1000, PoolSettings(**asked))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Node(8.0, 2 * GIB, 4 * GIB), "want 3.66 GiB of memory, the cluster has 1.6 for them: add a node"),
        (Node(8.0, 64 * GIB, GIB // 16), "GiB of object store, the cluster has 0.03.*--object-store-memory"),
        (Node(0.1, 64 * GIB, 4 * GIB), "want .* CPUs, the cluster has 0.05 for them: add a node"),
    ],
)
def test_a_cluster_too_small_for_the_smallest_pools_is_refused_in_words(node: Node, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        plan_for(cluster(node, 1), SHIPPED["cpu"], 1000)
    with pytest.raises(PlanError, match="the cluster has 0 for them"):
        plan_for(Resources((), 0.0), SHIPPED["cpu"], 1000)


def test_a_machine_of_our_own_runs_with_what_it_has_and_is_told_what_is_short() -> None:
    has = machine(2, memory_gib=3)
    assert set(plan_for(has, SHIPPED["cpu"], 1000).sizes.values()) <= {1, 2}
    (short,) = shortages(has, PoolSettings())
    assert "GiB of memory, the machine has 2.4" in short
    assert shortages(machine(2, memory_gib=8), PoolSettings()) == []


def test_what_the_words_advise_is_taken() -> None:
    has = cluster(Node(8.0, 16 * GIB, 4 * GIB), 1)
    with pytest.raises(PlanError) as raised:
        plan_for(has, SHIPPED["cpu"], 1000, PoolSettings(render=60))
    advised = int(str(raised.value).split("pools.render to ")[1].split()[0])
    assert plan_for(has, SHIPPED["cpu"], 1000, PoolSettings(render=advised)).render == advised
    with pytest.raises(PlanError):
        plan_for(has, SHIPPED["cpu"], 1000, PoolSettings(render=advised + 1))


def test_alone_means_one_row_at_a_time() -> None:
    plan = make_plan(64, 2, 1000)
    assert set(plan.alone().sizes.values()) == {1}
    assert plan.alone().publish_rows == 1
    assert replace(plan.alone(), **{name: getattr(plan, name) for name in (*POOLS, "publish_rows")}) == plan


def test_the_record_of_a_plan_is_numbers_by_name() -> None:
    facts = make_plan(8, 1, 10).facts()
    assert (facts["cores"], facts["gpus"]) == (8, 1)
    assert set(POOLS) <= set(facts)
    assert set(facts["cpus"]) == set(STAGES) == set(MEMORY_MIB)


def test_where_all_there_is_to_do_is_to_render_renders_have_the_machine() -> None:
    few, many = machine(2), machine(64, memory_gib=256)
    alone = make_plan(2, 0, 5).renders_only(few, 5)
    assert (alone.render, alone.threads) == (1, 2)
    plan = plan_for(many, SHIPPED["cpu"], 1000).renders_only(many, 1000)
    assert plan.render == 16
    assert plan_for(many, SHIPPED["cpu"], 1000).renders_only(many, 3).render == 3
    little = machine(64, memory_gib=8)
    bounded = plan_for(little, SHIPPED["cpu"], 1000).renders_only(little, 1000)
    assert 1 <= bounded.render <= 6
