"""What a run says of itself while it is on: its record in runs/, written anew every EVERY_S seconds.

The record of the end wins: it is written once more after a beat that was still being written then. A record
that says "running" while nobody holds the lease for its run is that of a run that died.
"""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pipeline import storage

EVERY_S = 20.0
# How long the end waits for a beat: while the store is away one takes minutes.
PATIENCE_S = 5.0


class Heartbeat:
    """Writes what `facts` returns to `uri` at once, then regularly; the store may be away meanwhile."""

    def __init__(self, uri: str, facts: Callable[[], dict[str, Any]], every_s: float = EVERY_S):
        self.uri, self.facts, self.every_s = uri, facts, every_s
        self._stop = threading.Event()
        self._end: bytes | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def end(self, record: dict[str, Any]) -> None:
        """Writes the record of the end. Raises StorageError."""
        self._end = json.dumps(record, indent=1).encode()
        storage.write_bytes(self.uri, self._end)

    def _run(self) -> None:
        while True:
            with suppress(storage.StorageError):
                storage.write_bytes(self.uri, json.dumps(self.facts(), indent=1).encode())
            if self._stop.wait(self.every_s):
                break
        if self._end is not None:  # it was written while the last beat was
            with suppress(storage.StorageError):
                storage.write_bytes(self.uri, self._end)
