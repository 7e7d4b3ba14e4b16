"""Nodes that come with the work: asked for, waited for in words, and given back whatever happens."""

from types import SimpleNamespace

import pytest

from cluster import autoscale
from cluster.autoscale import LEAST_CPUS, room
from cluster.plan import PoolSettings
from cluster.resources import Node, Resources

NODE = Node(8.0, 20 << 30, 6 << 30)
NOTHING = Resources((), 0.0)


class Scaler:
    """An autoscaler that starts one node between two looks, of those that were asked for."""

    def __init__(self, most: int):
        self.most, self.nodes, self.now_s = most, 0, 0.0
        self.asked: list[int | None] = []

    def request(self, num_cpus: int | None = None) -> None:
        self.asked.append(num_cpus)

    def connected(self, _: str | None) -> Resources:
        return Resources((NODE,) * self.nodes, 8.0 * self.nodes)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.asked and 8 * self.nodes < (self.asked[-1] or 0):
            self.nodes = min(self.most, self.nodes + 1)


@pytest.fixture
def scaler(monkeypatch: pytest.MonkeyPatch) -> Scaler:
    made = Scaler(4)
    monkeypatch.setattr(autoscale, "request_resources", made.request)
    monkeypatch.setattr(autoscale, "connected", made.connected)
    clock = SimpleNamespace(sleep=lambda seconds: made.sleep(seconds), monotonic=lambda: made.now_s)
    monkeypatch.setattr(autoscale, "time", clock)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return made


def test_a_cluster_of_no_workers_has_them_when_the_plan_is_made_and_loses_them_after(scaler: Scaler) -> None:
    said: list[str] = []
    with room("head:6379", PoolSettings(cpus=24), said.append):
        assert (scaler.nodes, scaler.asked) == (3, [24])
    assert scaler.asked == [24, None]
    assert said[0] == "waiting for nodes: 0 of 24 CPUs are there (15 minutes at most)"
    assert said[-1].startswith("waiting for nodes: 16 of 24")


def test_without_a_number_a_cluster_of_no_workers_gets_the_least_that_a_plan_needs(scaler: Scaler) -> None:
    with room("head:6379", PoolSettings(), lambda _: None):
        assert (scaler.nodes, scaler.asked) == (1, [LEAST_CPUS])


def test_fewer_than_wanted_are_planned_with_after_a_time_and_none_is_said(scaler: Scaler) -> None:
    said: list[str] = []
    with room("head:6379", PoolSettings(cpus=64), said.append):
        assert scaler.now_s == pytest.approx(autoscale.COME_S, abs=2 * autoscale.POLL_S)
    assert said[-1] == "32 of 64 CPUs came within 15 minutes: the plan is for those"
    scaler.most = scaler.nodes = 0
    with room("head:6379", PoolSettings(cpus=64), said.append):
        assert "no nodes with room for a run came" in said[-1]


def test_an_interrupt_while_waiting_gives_the_nodes_back(
    scaler: Scaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scaler, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt), room("head:6379", PoolSettings(cpus=8), lambda _: None):
        pytest.fail("nothing had come")
    assert scaler.asked == [8, None]


@pytest.mark.parametrize(("address", "pools"), [(None, PoolSettings(cpus=64)), ("head:6379", PoolSettings())])
def test_nothing_is_asked_of_this_machine_nor_of_a_cluster_with_its_nodes(
    scaler: Scaler, address: str | None, pools: PoolSettings
) -> None:
    scaler.nodes = 2
    with room(address, pools, pytest.fail):
        assert scaler.asked == []


def test_a_head_that_is_gone_at_the_end_is_no_failure_of_the_run(
    scaler: Scaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request(num_cpus: int | None = None) -> None:
        scaler.request(num_cpus)
        if num_cpus is None:
            raise RuntimeError("Ray is not initialized yet")

    monkeypatch.setattr(autoscale, "request_resources", request)
    with room("head:6379", PoolSettings(cpus=8), lambda _: None):
        pass
    assert scaler.asked == [8, None]
