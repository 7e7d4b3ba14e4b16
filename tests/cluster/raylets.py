"""A Ray cluster of several raylets for tests, with its Jobs API: on loopback, or each in its own network."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_S = 120
OBJECT_STORE_BYTES = 150 << 20
# Ray replaces 127.0.0.1 by the address of the machine, but no other address of its loopback.
HEAD_IP = "127.0.0.2"


@dataclass
class Cluster:
    address: str  # of the Jobs API
    gcs: str
    folder: Path
    env: dict[str, str]
    processes: dict[str, psutil.Process] = field(default_factory=dict)  # `ray start` of each raylet

    def kill(self, name: str) -> None:
        """The raylet and all its workers, at once, as when the power fails."""
        process = self.processes.pop(name)
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(folder: Path, extra: dict[str, str]) -> dict[str, str]:
    """Of the raylets and of what their jobs run: our Python first on the PATH, no token that is not given.

    A token that lies in the home folder, or a Ray that this process has started, would switch tokens on.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    return env | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TMPDIR": str(folder),
        **extra,
    }


@contextmanager
def serve(
    workers: int = 2, cpus: int = 4, head_cpus: int = 4, env: dict[str, str] | None = None
) -> Iterator[Cluster]:
    """A head and so many more raylets, each with an address of its own on loopback."""
    with head(HEAD_IP, head_cpus, env or {}) as cluster:
        for number in range(1, workers + 1):
            start_worker(cluster, f"worker{number}", f"127.0.0.{2 + number}", cpus)
        wait_for_nodes(cluster, workers + 1)
        yield cluster


@contextmanager
def head(ip: str, cpus: int, env: dict[str, str]) -> Iterator[Cluster]:
    """A head with its Jobs API; it and what joined it are killed at the end."""
    # Sockets of Ray lie in this folder, and their names may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp"))
    port, dashboard = free_port(), free_port()
    cluster = Cluster(f"http://{ip}:{dashboard}", f"{ip}:{port}", folder, environment(folder, env))
    options = [f"--port={port}", "--include-dashboard=true", f"--dashboard-host={ip}"]
    options += [f"--dashboard-port={dashboard}", f"--temp-dir={folder}/ray"]
    try:
        _start(cluster, "head", ip, cpus, ["--head", *options], ())
        _wait_for(lambda: _answers(cluster.gcs), cluster, "the head did not start")
        yield cluster
    finally:
        for name in reversed(list(cluster.processes)):
            cluster.kill(name)
        shutil.rmtree(folder, ignore_errors=True)


def start_worker(cluster: Cluster, name: str, ip: str, cpus: int, prefix: tuple[str, ...] = ()) -> None:
    _start(cluster, name, ip, cpus, [f"--address={cluster.gcs}"], prefix)


def _start(
    cluster: Cluster, name: str, ip: str, cpus: int, options: list[str], prefix: tuple[str, ...]
) -> None:
    command = [*prefix, sys.executable, "-m", "ray.scripts.scripts", "start", *options]
    command += [f"--node-ip-address={ip}", f"--num-cpus={cpus}", "--num-gpus=0", "--disable-usage-stats"]
    command += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--block"]
    with (cluster.folder / f"{name}.log").open("wb") as log:
        cluster.processes[name] = psutil.Popen(
            command, env=cluster.env, cwd=cluster.folder, stdout=log, stderr=log, start_new_session=True
        )


def wait_for_nodes(cluster: Cluster, nodes: int) -> None:
    """Until the Jobs API answers and so many raylets are alive."""
    _wait_for(lambda: _answers(cluster.address.removeprefix("http://")), cluster, "no Jobs API")
    script = (
        "import ray, sys\n"
        "from ray._raylet import GcsClient\n"
        "client = GcsClient(address=sys.argv[1])\n"
        "print(sum(node.state == 0 for node in client.get_all_node_info().values()))"
    )

    def alive() -> bool:
        command = [sys.executable, "-c", script, cluster.gcs]
        done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, check=False)
        return done.stdout.strip() == str(nodes)

    _wait_for(alive, cluster, f"not {nodes} nodes")


def _answers(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _wait_for(condition: Callable[[], bool], cluster: Cluster, otherwise: str) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            logs = "".join(log.read_text()[-2000:] for log in cluster.folder.glob("*.log"))
            raise RuntimeError(f"{otherwise} within {START_S} s: {logs}")
        time.sleep(0.3)
