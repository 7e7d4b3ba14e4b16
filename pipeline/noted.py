"""What each recut and each reel has written of itself to OUTPUT/runs/cuts/ID.json.

A record that says "running" while nobody holds the lease is that of one that was killed.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from pipeline import storage
from pipeline.records import RUNNING

FOLDER = "runs/cuts"  # no reader of runs/*.json takes one for an analysis


@contextmanager
def noted(
    output: str, run_id: str, facts: dict[str, Any], counts: Callable[[], dict[str, Any]]
) -> Iterator[None]:
    """Writes the record at the start and at the end, however that comes; `counts` tells how far it came."""
    started_at, began = datetime.now(UTC).isoformat(), time.monotonic()

    def write(state: str) -> None:
        ended_at = None if state == RUNNING else datetime.now(UTC).isoformat()
        record = {"run_id": run_id, "state": state, "started_at": started_at, "finished_at": ended_at}
        record |= {"wall_s": round(time.monotonic() - began, 3), **facts, "counts": counts()}
        with suppress(storage.StorageError):  # what was made does not depend on it
            storage.write_bytes(storage.join(output, FOLDER, f"{run_id}.json"), json.dumps(record).encode())

    write(RUNNING)
    state = "failed"
    try:
        yield
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        write(state)
