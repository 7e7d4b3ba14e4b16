"""A Ray cluster of several raylets for tests, with its Jobs API: on loopback, or each in its own network."""

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_S = 120
ATTEMPTS = 3
OBJECT_STORE_BYTES = 200 << 20
# Ray replaces 127.0.0.1 by the address of the machine, but no other address of its loopback.
HEAD_IP = "127.0.0.2"


@dataclass
class Cluster:
    address: str  # of the Jobs API
    gcs: str
    folder: Path
    env: dict[str, str]
    sessions: dict[str, int] = field(default_factory=dict)  # of each raylet, with all that it starts

    def kill(self, name: str) -> None:
        """The raylet and all its workers, at once, as when the power fails."""
        family = of_session(self.sessions.pop(name))
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)


def of_session(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == session:
                found.append(process)
    return found


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
        yield cluster


@contextmanager
def head(ip: str, cpus: int, env: dict[str, str]) -> Iterator[Cluster]:
    """A head with its Jobs API; it and what joined it are killed at the end."""
    # Sockets of Ray lie in this folder, and their names may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp"))
    port, dashboard = free_port(), free_port()
    cluster = Cluster(f"http://{ip}:{dashboard}", f"{ip}:{port}", folder, environment(folder, env))
    options = [f"--port={port}", "--include-dashboard=true", f"--dashboard-host={ip}"]
    # Without a port of its own, the server for Ray Client takes the same one for every head.
    options += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
    options += [f"--temp-dir={folder}/ray"]
    try:
        _start(cluster, "head", ip, cpus, ["--head", *options], ())
        wait_for_api(cluster)
        yield cluster
    finally:
        for name in reversed(list(cluster.sessions)):
            cluster.kill(name)
        shutil.rmtree(folder, ignore_errors=True)


def start_worker(cluster: Cluster, name: str, ip: str, cpus: int, prefix: tuple[str, ...] = ()) -> None:
    _start(cluster, name, ip, cpus, [f"--address={cluster.gcs}"], prefix)


def _start(
    cluster: Cluster, name: str, ip: str, cpus: int, options: list[str], prefix: tuple[str, ...]
) -> None:
    command = [*prefix, sys.executable, "-m", "ray.scripts.scripts", "start", *options]
    command += [f"--node-ip-address={ip}", f"--num-cpus={cpus}", "--num-gpus=0", "--disable-usage-stats"]
    # The agent, which starts jobs, does without its port when another Ray of this machine has it.
    command += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--dashboard-agent-listen-port={free_port()}"]
    log = cluster.folder / f"{name}.log"
    # On a machine that does too much at once, a raylet gives up before the head has answered it.
    for _ in range(ATTEMPTS):
        with log.open("wb") as file:
            process = psutil.Popen(
                command, env=cluster.env, cwd=cluster.folder, stdout=file, stderr=file, start_new_session=True
            )
        cluster.sessions[name] = process.pid
        try:
            if process.wait(START_S) == 0:
                return
        except psutil.TimeoutExpired:
            pass
        cluster.kill(name)
    raise RuntimeError(f"{name} does not start: {log.read_text()[-2000:]}")


def wait_for_api(cluster: Cluster) -> None:
    """Until the Jobs API answers: it comes up after the head."""
    host, _, port = cluster.address.removeprefix("http://").rpartition(":")
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no Jobs API within {START_S} s") from None
            time.sleep(0.2)
