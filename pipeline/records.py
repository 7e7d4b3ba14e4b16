"""What each run has written of itself to OUTPUT/runs/; see `record` in pipeline/run.py."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import storage

_READERS = 16


def records(output: str) -> Iterator[dict[str, Any]]:
    """The records in the order of their runs; what is no record is left out."""
    folder = storage.join(output, "runs")

    def read(name: str) -> dict[str, Any]:
        try:
            record = json.loads(storage.read_bytes(storage.join(folder, name)))
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}

    with ThreadPoolExecutor(_READERS) as pool:
        yield from filter(None, pool.map(read, storage.list_files(folder, ".json")))
