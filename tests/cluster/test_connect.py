"""Connecting: what the caller started stays his; a run's own Ray is counted in real cores."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import ray

from cluster.connect import _on_loopback, check_answers, cluster_address, connection, gpus
from cluster.plan import plan_for
from cluster.preflight import check_cluster
from cluster.reaper import MARK
from cluster.resources import connected
from cluster.speeds import SHIPPED


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


def test_what_a_killed_driver_started_ends_soon_after_it() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = [sys.executable, "-c", f"import subprocess; subprocess.run({sleep})"]
    driver = f"""
import os, subprocess
from cluster.reaper import reaping
with reaping() as marked:
    child = subprocess.Popen({child}, env={{**os.environ, **marked}})
    bystander = subprocess.Popen({sleep}, stdout=subprocess.DEVNULL)
    print(child.pid, bystander.pid, flush=True)
    child.wait()
"""
    run = subprocess.Popen([sys.executable, "-c", driver], stdout=subprocess.PIPE, text=True)
    child, bystander = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
    while not (grandchildren := child.children()):
        time.sleep(0.05)
    run.kill()
    run.communicate(timeout=30)
    assert not psutil.wait_procs([child, *grandchildren], timeout=30)[1]
    assert bystander.is_running()
    bystander.kill()


def test_every_process_of_the_local_ray_is_marked_whatever_its_title(ray_local: None) -> None:
    ray.get(ray.remote(lambda: None).remote())
    rays = [child for child in psutil.Process().children(recursive=True) if "ray" in child.name().lower()]
    titled = [child for child in rays if child.name().startswith("ray::")]
    assert len(titled) >= 3  # two agents and a worker
    marks = {child.environ().get(MARK) for child in rays}
    assert len(marks) == 1
    assert None not in marks


def test_the_local_ray_has_room_for_this_machines_plan(ray_local: None) -> None:
    check_cluster(plan_for(connected(None), SHIPPED["cpu"], 100))


def test_gpus_are_those_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 96.0, "GPU": 4.0})
    assert gpus() == 4
    monkeypatch.setattr(ray, "cluster_resources", lambda: {})
    assert gpus() == 0


def test_dead_address_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"no Ray cluster answers at 127.0.0.1:{port}"):
        check_answers(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["10.0.0.7:6379", "auto"])
def test_a_submitted_job_uses_the_cluster_that_it_runs_on(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    started: list[dict] = []
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("cluster.connect.check_answers", lambda _: None)
    monkeypatch.setattr(ray, "init", lambda **options: started.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 96.0}}])
    with connection(None):
        assert connected(None).cores == 96  # of the cluster, and not of the machine that the driver runs on
    # Ray refuses sizes where it connects to a cluster that has its own.
    assert [(call["address"], "num_cpus" in call) for call in started] == [(address, False)]


def test_an_address_that_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    assert cluster_address("10.0.0.8:6379") == "10.0.0.8:6379"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address(None) is None
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster_address(None) is None


def test_the_address_of_a_jobs_api_is_told_from_one_to_connect_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(ConnectionError, match=r"reelmap submit.*head:6379.*RAY_ADDRESS"):
        cluster_address(None)


@pytest.mark.parametrize("before", [None, "1"])
def test_what_the_user_has_set_in_the_environment_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv(name, before)
    with _on_loopback():
        assert os.environ[name] == "0"
    assert os.environ.get(name) == before
