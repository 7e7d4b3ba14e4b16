"""Bounds for native code, which no exception reaches: a clock that needs no GIL, and a limit of memory.

A decoder that hangs inside C ends with its process; one that asks for too much memory gets none, which its
caller sees as a MemoryError. Both hold for the whole process, so one `bounded` at a time.
"""

import faulthandler
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STDERR = 2
_BEAT_S = 1.0  # setting the clock starts a thread: not for every frame


class _Clock:
    timeout_s: float | None = None
    set_at = 0.0


@contextmanager
def bounded(stall_timeout_s: float | None = None, more_memory_bytes: int | None = None) -> Iterator[None]:
    """Ends the process when no `beat` comes for `stall_timeout_s`; lets its memory grow by so much only.

    Memory is what the process maps for itself to write to: code and shared memory are not counted.
    """
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    _Clock.timeout_s = stall_timeout_s
    try:
        if more_memory_bytes is not None and (mapped := _mapped_bytes()) is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (_within(mapped + more_memory_bytes, limits), limits[1]))
        if stall_timeout_s is not None:
            _set(stall_timeout_s)
        yield
    finally:
        _Clock.timeout_s = None
        if stall_timeout_s is not None:
            faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_DATA, limits)


@contextmanager
def unwatched() -> Iterator[None]:
    """For work inside `bounded` that reads nothing of a stranger and takes as long as it takes."""
    timeout_s, _Clock.timeout_s = _Clock.timeout_s, None
    faulthandler.cancel_dump_traceback_later()
    try:
        yield
    finally:
        _Clock.timeout_s = timeout_s
        if timeout_s is not None:
            _set(timeout_s)


def beat() -> None:
    """Says that work goes on; does nothing outside `bounded`."""
    if _Clock.timeout_s is not None and time.monotonic() - _Clock.set_at > _BEAT_S:
        _set(_Clock.timeout_s)


def _set(timeout_s: float) -> None:
    _Clock.set_at = time.monotonic()
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=_STDERR)


def _within(wanted: int, limits: tuple[int, int]) -> int:
    return min([wanted, *(limit for limit in limits if limit != resource.RLIM_INFINITY)])


def _mapped_bytes() -> int | None:
    """VmData of proc(5), which RLIMIT_DATA bounds; None where there is no /proc."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:")), None
    )
