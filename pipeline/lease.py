"""One run at a time on an OUTPUT: a small object that its holder renews, and that outlives no dead holder.

Whether a holder lives is judged by watching the object, not by its times: clocks may be off. Only a holder
whose process number means the same here as there (same boot, same PID namespace) is known to be dead at once.

Whose bytes are in the object holds it. A store without compare-and-swap can let two takers of a dead lease
write one after the other; so a taker reads again after a while, a holder before each renewal, and whoever
finds somebody else's bytes stops.
"""

import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import storage
from stages.filesystem import protocol_of

RENEW_S = 5.0
# A holder that did not renew for so long is dead: longer than one request may be tried (stages/s3.py). One
# that died on this machine is known to be dead at once.
DEAD_AFTER_S = 180.0


class Busy(Exception):
    """Another run holds the OUTPUT; the message says which."""


class Lost(Exception):
    """Another run has taken the OUTPUT over while this one worked; the message says which."""


@dataclass(frozen=True)
class Holder:
    run_id: str
    host: str
    pid: int | None
    since: str | None  # ISO time by its own clock
    renewals: int
    dead: bool  # it ran on this machine, and is gone


@dataclass
class Held:
    lost: str = ""  # who took the lease over, in words

    def check(self) -> None:
        """Raises Lost if the lease is not ours any more."""
        if self.lost:
            raise Lost(self.lost)


@contextmanager
def lease(
    output: str, run_id: str, renew_s: float = RENEW_S, dead_after_s: float = DEAD_AFTER_S
) -> Iterator[Held]:
    """Holds OUTPUT for one run. Raises Busy while a run that is alive holds it.

    If it is taken over, the main thread gets a KeyboardInterrupt, which leaves here as Lost; whoever catches
    it inside asks `Held.check`.
    """
    uri = storage.join(output, "runs", ".lease")
    since = datetime.now(UTC).isoformat()
    holder = {"holder": secrets.token_hex(8), "run_id": run_id, "renewals": 0, "since": since} | _here()
    _acquire(uri, _encode(holder), renew_s, dead_after_s)
    held = Held()
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(renew_s):
            # The store is away for a moment: the next beat tries again.
            with suppress(storage.StorageError):
                held.lost = _renew(uri, holder)
            if held.lost:
                if not stop.is_set():
                    interrupt()
                return

    thread = threading.Thread(target=renew, daemon=True, name="lease")
    with interruptible() as interrupt:
        thread.start()
        try:
            yield held
        except KeyboardInterrupt:
            held.check()
            raise
        finally:
            stop.set()
            thread.join(timeout=dead_after_s)
            # What cannot be removed now is found dead by the next run.
            with suppress(storage.StorageError):
                there = _look(uri)
                if there and _parse(there).get("holder") == holder["holder"]:
                    _remove(uri, there)


def check_free(output: str, dead_after_s: float = DEAD_AFTER_S) -> None:
    """Raises Busy while a run that is alive holds OUTPUT; takes nothing. Returns at once if there is none."""
    uri = storage.join(output, "runs", ".lease")
    there = _look(uri)
    if there and not _is_dead_here(_parse(there)):
        _watch(uri, there, dead_after_s)


def holder(output: str) -> Holder | None:
    """Who holds OUTPUT, as the object says: it is not watched, so the holder may have died elsewhere."""
    there = _look(storage.join(output, "runs", ".lease"))
    if there is None:
        return None
    known = _parse(there)
    return Holder(
        str(known.get("run_id", "")),
        str(known.get("host", "")),
        known.get("pid"),
        known.get("since"),
        known.get("renewals", 0),
        bool(known) and _is_dead_here(known),
    )


def _renew(uri: str, holder: dict[str, Any]) -> str:
    """Shows life; returns who holds the lease now, in words, if it is somebody else."""
    there = _look(uri)
    holder["renewals"] += 1
    if there is None:  # removed by hand, or by one who takes us for dead: the first to write has it
        storage.create_exclusive(uri, _encode(holder))
    elif _parse(there).get("holder") == holder["holder"]:
        storage.write_bytes(uri, _encode(holder))
    else:
        return (
            f"{_who(there)} has taken this OUTPUT over, as this run had shown no life for a while (it was "
            "suspended, or cut off from the store)"
        )
    return ""


def _acquire(uri: str, mine: bytes, renew_s: float, dead_after_s: float) -> None:
    if storage.create_exclusive(uri, mine):
        return
    there = _look(uri)
    if there and not _is_dead_here(_parse(there)):
        there = _watch(uri, there, dead_after_s)
    if there and not _remove(uri, there):
        raise Busy(_busy(_look(uri)))
    if not storage.create_exclusive(uri, mine):
        raise Busy(_busy(_look(uri)))
    # Another one who judged the same lease dead may have removed ours for it.
    time.sleep(renew_s / 2)
    now = _look(uri)
    if now != mine and (now is not None or not storage.create_exclusive(uri, mine)):
        raise Busy(_busy(now))


def _watch(uri: str, first: bytes, dead_after_s: float) -> bytes | None:
    """Returns when the holder showed no life for `dead_after_s` (None: it has just given up).

    Raises Busy when it is alive.
    """
    deadline = time.monotonic() + dead_after_s
    while time.monotonic() < deadline:
        time.sleep(min(1.0, dead_after_s / 10))
        there = _look(uri)
        if there is None:
            return None
        if there != first:
            raise Busy(_busy(there))
    return first


def _remove(uri: str, expected: bytes) -> bool:
    """Removes the lease if it still is what it was; False if it is not."""
    if _look(uri) != expected:
        return False
    if protocol_of(uri) != "file":
        storage.delete(uri)
        return True
    path = Path(uri)
    aside = path.with_name(f"{storage.TEMPORARY}{secrets.token_hex(8)}")
    try:
        path.rename(aside)  # of several, one gets the file
        if aside.read_bytes() == expected:
            return True
        with suppress(FileExistsError):
            path.hardlink_to(aside)
        return False
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage.StorageError(f"cannot remove {storage.shown(uri)}: {storage.reason(error)}") from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def interruptible() -> Iterator[Any]:
    """A function that raises KeyboardInterrupt in this thread from another one, if this is the main thread.

    By a signal, as it ends a wait in native code, too; not by SIGINT, which a shell's background job ignores.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        yield lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def _here() -> dict[str, Any]:
    """This process, and the world in which its number means something."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())} | _world()


def _world() -> dict[str, str | None]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"boot": boot, "pid_namespace": str(Path("/proc/self/ns/pid").readlink())}
    except OSError:
        return {"boot": None, "pid_namespace": None}


def _is_dead_here(there: dict[str, Any]) -> bool:
    world = {"host": socket.gethostname()} | _world()
    if there.get("born") is None or None in world.values():
        return False
    if any(there.get(name) != value for name, value in world.items()):
        return False
    return _born(there["pid"]) != there["born"]


def _born(pid: int) -> str | None:
    """When a process of this host was started (field 22 of proc(5) stat): its number may be used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _busy(there: bytes | None) -> str:
    return f"this OUTPUT is in use by {_who(there)}: wait for it, or give another OUTPUT"


def _who(there: bytes | None) -> str:
    known = _parse(there or b"")
    return "run {run_id} on {host} (process {pid})".format_map(known) if "run_id" in known else "another run"


def _encode(holder: dict[str, Any]) -> bytes:
    return json.dumps(holder).encode()


def _parse(there: bytes) -> dict[str, Any]:
    try:
        known = json.loads(there)
    except ValueError:
        return {}
    return known if isinstance(known, dict) and {"holder", "run_id", "host", "pid"} <= known.keys() else {}


def _look(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except storage.Missing:
        return None
