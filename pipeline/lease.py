"""One run at a time on an OUTPUT: a small object that its holder renews, and that outlives no dead holder.

Whether a holder lives is judged by watching the object, not by its times: clocks may be off. A holder on
this host whose process is gone is known to be dead at once.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import storage

RENEW_S = 5.0
# A holder that did not renew for so long is dead; a store may be slow, so several renewals long.
DEAD_AFTER_S = 20.0


class Busy(Exception):
    """Another run holds the OUTPUT; the message says which."""


@contextmanager
def lease(
    output: str, run_id: str, renew_s: float = RENEW_S, dead_after_s: float = DEAD_AFTER_S
) -> Iterator[None]:
    """Holds OUTPUT for one run. Raises Busy while a run that is alive holds it."""
    uri = storage.join(output, "runs", ".lease")
    holder = {
        "holder": secrets.token_hex(8),
        "run_id": run_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "renewals": 0,
    }
    _acquire(uri, holder, dead_after_s)
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(renew_s):
            holder["renewals"] += 1
            storage.write_bytes(uri, _encode(holder))

    thread = threading.Thread(target=renew, daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=dead_after_s)
        if (_read(uri) or {}).get("holder") == holder["holder"]:
            storage.delete(uri)


def _acquire(uri: str, holder: dict[str, Any], dead_after_s: float) -> None:
    if storage.create_exclusive(uri, _encode(holder)):
        return
    there = _read(uri)
    if there and not _is_dead_here(there):
        _watch(uri, there, dead_after_s)
    # Whoever held it is dead. Of several who find that out, one wins the race for the new object.
    storage.delete(uri)
    if not storage.create_exclusive(uri, _encode(holder)):
        raise Busy(_words(_read(uri)))


def _watch(uri: str, first: dict[str, Any], dead_after_s: float) -> None:
    """Returns when the holder showed no life for `dead_after_s`; raises Busy when it did."""
    deadline = time.monotonic() + dead_after_s
    while time.monotonic() < deadline:
        time.sleep(min(1.0, dead_after_s / 10))
        there = _read(uri)
        if there is None:
            return  # given up just now
        if there != first:
            raise Busy(_words(there))


def _is_dead_here(there: dict[str, Any]) -> bool:
    if there["host"] != socket.gethostname() or there["born"] is None:
        return False
    return _born(there["pid"]) != there["born"]


def _born(pid: int) -> str | None:
    """When a process of this host was started (field 22 of proc(5) stat): its number may be used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _words(there: dict[str, Any] | None) -> str:
    who = f"run {there['run_id']} on {there['host']} (process {there['pid']})" if there else "another run"
    return f"this OUTPUT is in use by {who}: wait for it, or give another OUTPUT"


def _encode(holder: dict[str, Any]) -> bytes:
    return json.dumps(holder).encode()


def _read(uri: str) -> dict[str, Any] | None:
    try:
        return json.loads(storage.read_bytes(uri))
    except (storage.Missing, ValueError):
        return None
