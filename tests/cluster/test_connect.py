"""Connecting: what the caller started stays his; a run's own Ray is counted in real cores."""

import os
import signal
import socket

import psutil
import pytest
import ray

from cluster.connect import check_answers, connection, cores, gpus
from cluster.plan import make_plan
from cluster.preflight import check_cluster


def test_a_ray_that_is_running_already_is_used_and_left_running(ray_local: None) -> None:
    node = ray.get_runtime_context().get_node_id()
    before = signal.getsignal(signal.SIGTERM)
    with connection(None):
        assert ray.get_runtime_context().get_node_id() == node
        with connection(None):
            pass
    assert ray.is_initialized()
    assert ray.get_runtime_context().get_node_id() == node
    assert signal.getsignal(signal.SIGTERM) == before


def test_nobody_else_on_the_network_reaches_the_local_ray(ray_local: None) -> None:
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    ray.get(ray.remote(lambda: None).remote())
    me = psutil.Process()
    heard = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in [me, *me.children(recursive=True)]
        for connection in listening(process)
    }
    assert heard == {"127.0.0.1"}


def listening(process: psutil.Process) -> list:
    try:
        return [found for found in process.net_connections() if found.status == psutil.CONN_LISTEN]
    except psutil.Error:  # it has just ended
        return []


def test_an_error_in_a_run_does_not_stop_the_callers_ray(ray_local: None) -> None:
    def fail() -> None:
        with connection(None):
            raise RuntimeError("a run broke")

    with pytest.raises(RuntimeError, match="a run broke"):
        fail()
    assert ray.get(ray.put(7)) == 7


def test_the_local_ray_has_room_for_this_machines_plan(ray_local: None) -> None:
    check_cluster(make_plan(cores(None), gpus(), 100))


def test_cores_are_real_here_and_what_a_cluster_declares_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 96.0, "GPU": 4.0})
    assert cores(None) == 6
    assert cores("auto") == 96
    assert gpus() == 4


def test_a_cluster_of_gpus_only_and_an_unknown_core_count_are_at_least_one_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {})
    assert (cores(None), cores("auto"), gpus()) == (1, 1, 0)


def test_dead_address_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"no Ray cluster answers at 127.0.0.1:{port}"):
        check_answers(f"127.0.0.1:{port}")
