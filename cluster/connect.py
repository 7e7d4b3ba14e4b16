"""Ray for one run: a cluster that is there, or one on this machine that ends with the run."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._private import ray_constants

from cluster.machine import cores
from cluster.reaper import reaping

# Each operator asks for a fraction of a CPU and Ray Data reserves some for every operator: with few logical
# CPUs an operator can be left with none and the run waits for ever. cluster/plan.py bounds the real load.
LOGICAL_CPUS_PER_CORE = 4
MIN_LOGICAL_CPUS = 8
OBJECT_STORE_BYTES = 2 << 30
ANSWER_S = 10


@contextlib.contextmanager
def connection(address: str | None) -> Iterator[None]:
    """Connected to `address` ("auto", "HEAD:6379"), or to a local Ray that is stopped at the end.

    A submitted job, and whoever sets RAY_ADDRESS, is connected to the cluster that is named there.
    """
    if ray.is_initialized():  # a caller that manages Ray itself: a test session, a notebook
        yield
        return
    address = cluster_address(address)
    # Ray says of every actor pool, on standard error, that its arguments lie in the object store.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": bool(os.environ.get("REELMAP_WORKER_LOGS"))}
    with contextlib.ExitStack() as held:
        if address:
            check_answers(address)
        else:
            marked = held.enter_context(reaping())
        held.callback(ray.shutdown)
        with _without_stderr():  # where Ray answers that it has read the log level
            if address:
                ray.init(address=address, **quiet)
            else:
                _start(marked, quiet)
        with terminate_as_interrupt():
            yield


def _start(marked: dict[str, str], quiet: dict[str, Any]) -> None:
    with _on_loopback(), environment(marked):
        # Not the cluster that may have been started on this machine for something else, which is what Ray
        # would choose without a word.
        ray.init(
            address="local",
            num_cpus=max(MIN_LOGICAL_CPUS, LOGICAL_CPUS_PER_CORE * cores()),
            object_store_memory=min(OBJECT_STORE_BYTES, _shared_memory_bytes() // 2),
            include_dashboard=False,
            dashboard_host="127.0.0.1",
            **quiet,
        )


def cluster_address(address: str | None) -> str | None:
    """`address`, or what RAY_ADDRESS says, as it does in a submitted job; None for a Ray of our own.

    Raises ConnectionError for the address of a Jobs API, which takes jobs but lets nobody connect.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address.startswith(("http://", "https://")):
        host = urlsplit(address).hostname or "HEAD"
        raise ConnectionError(
            f"the address of a Jobs API is for `reelmap submit`: connect to {host}:6379 or auto, and see "
            "whether RAY_ADDRESS is set"
        )
    return None if address in (None, "", "local") else address


def gpus() -> int:
    """GPUs of the connected cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def check_answers(address: str) -> None:
    """Raises ConnectionError at once where Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", which Ray looks up itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that starts here answers on 127.0.0.1 only.

    Ray replaces a loopback address by that of the machine (`resolve_ip_for_localhost`), except where it is
    told that clusters are not supported, as they are not on a Mac.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):  # for the processes it starts
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def environment(changes: dict[str, str | None]) -> Iterator[None]:
    """Environment variables changed (None: taken out) for a while; then they are as they were set before."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(changes: dict[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """What native code writes to standard error goes nowhere; Python's exceptions are raised as ever."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM (a scheduler, a container being stopped) ends a run as cleanly as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shared_memory_bytes() -> int:
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return OBJECT_STORE_BYTES
    return max(256 << 20, stat.f_bavail * stat.f_frsize)
