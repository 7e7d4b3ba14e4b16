"""Machines of a network in miniature: network namespaces that see each other through a bridge, Linux only.

What runs in one has an address, ports and a loopback of its own, like another machine; files are shared.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

NETWORK = "10.213.77"


@dataclass(frozen=True)
class Machine:
    name: str
    ip: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Goes before a command that shall run there."""
        return ("ip", "netns", "exec", self.name)


def why_not() -> str:
    """Why this machine has no namespaces for us, "" when it has."""
    if not shutil.which("ip"):
        return "there is no `ip` command (package iproute2)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    try:
        with machines(1):
            return ""
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(error.cmd)}` failed: {error.stderr.strip()}"


@contextmanager
def machines(count: int) -> Iterator[tuple[str, list[Machine]]]:
    """Our own address on their bridge, and so many machines. Raises CalledProcessError if it may not be."""
    bridge = f"rm{os.getpid() % 10**6}"
    made: list[tuple[str, ...]] = []  # what undoes each step
    try:
        _ip("link", "add", bridge, "type", "bridge")
        made.append(("link", "del", bridge))
        _ip("address", "add", f"{NETWORK}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        found = []
        for number in range(count):
            machine = Machine(f"{bridge}n{number}", f"{NETWORK}.{number + 2}")
            here, there = f"{bridge}h{number}", f"{bridge}t{number}"
            _ip("netns", "add", machine.name)
            made.append(("netns", "del", machine.name))
            _ip("link", "add", here, "type", "veth", "peer", "name", there)
            made.append(("link", "del", here))
            _ip("link", "set", here, "master", bridge, "up")
            _ip("link", "set", there, "netns", machine.name)
            inside = ("-netns", machine.name)
            _ip(*inside, "address", "add", f"{machine.ip}/24", "dev", there)
            _ip(*inside, "link", "set", there, "up")
            _ip(*inside, "link", "set", "lo", "up")
            found.append(machine)
        yield f"{NETWORK}.1", found
    finally:
        for step in reversed(made):
            with suppress(subprocess.CalledProcessError):
                _ip(*step)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
