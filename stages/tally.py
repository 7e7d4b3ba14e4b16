"""Counted in passing, in this process: bytes and retries of the storage, and the sizes that a stage chose.

A stage knows nothing of whoever watches the run: it counts here, and what runs it reads the difference. Never
called for each packet or frame: a sum is handed over when the work that it stands for ends.
"""

import threading
from typing import Literal

Count = Literal["read_bytes", "written_bytes", "storage_retries"]
Level = Literal["open_videos", "batch_frames"]

# Requests of a store are answered in a thread of their own.
_lock = threading.Lock()
_counts: dict[Count, int] = {"read_bytes": 0, "written_bytes": 0, "storage_retries": 0}
_levels: dict[Level, float] = {}


def count(name: Count, value: int = 1) -> None:
    with _lock:
        _counts[name] += value


def level(name: Level, value: float) -> None:
    """What is so now, until it is said again."""
    _levels[name] = value


def counts() -> dict[Count, int]:
    """All that was counted since the process began."""
    with _lock:
        return dict(_counts)


def levels() -> dict[Level, float]:
    return dict(_levels)
