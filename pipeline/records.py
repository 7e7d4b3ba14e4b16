"""What each run has written of itself to OUTPUT/runs/; see `record` in pipeline/run.py.

A record is there from the first seconds of its run; its `state` is "running" until the run has ended.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import storage

RUNNING = "running"
_READERS = 16


def records(output: str, latest: int | None = None) -> Iterator[dict[str, Any]]:
    """The records in the order of their runs, or the `latest` of them; what is no record is left out."""
    folder = storage.join(output, "runs")
    names = storage.list_files(folder, ".json")
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda name: _read(folder, name), names[-latest:] if latest else names)
        yield from filter(None, found)


def record_of(output: str, run_id: str) -> dict[str, Any]:
    """The record of a run; empty where it is lost, or is none."""
    try:
        return _read(storage.join(output, "runs"), f"{run_id}.json")
    except storage.Missing:
        return {}


def _read(folder: str, name: str) -> dict[str, Any]:
    try:
        record = json.loads(storage.read_bytes(storage.join(folder, name)))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def speed_of(known: Iterable[dict[str, Any]], settings_key: str) -> float | None:
    """Seconds of footage per second over these runs: over those with the same settings, if there are any.

    Runs from proxies read no footage; of a run that is on, the first videos are still on their way.
    """
    runs = [
        record
        for record in known
        if (record.get("video_s") or 0) > 0
        and (record.get("wall_s") or 0) > 0
        and not record.get("from_proxies")
        and record.get("state") != RUNNING
    ]
    runs = [record for record in runs if record.get("settings_key") == settings_key] or runs
    wall_s = sum(record["wall_s"] for record in runs)
    return sum(record["video_s"] for record in runs) / wall_s if wall_s else None
