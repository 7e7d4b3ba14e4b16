"""Where known secrets turn up in what a run wrote: raw bytes, and the values inside compressed tables."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage


def found_in(output: str, secrets: Iterable[str]) -> list[str]:
    """`path: secret` for every file below `output` that holds one; raises if there is no file to look at."""
    wanted = {secret: secret.encode() for secret in secrets}
    looked, found = 0, []
    for path, _ in storage.walk(output):
        data = storage.read_bytes(f"{output}/{path}")
        looked += 1
        texts = [data, *(values(data) if path.endswith(".parquet") else ())]
        found += [
            f"{path}: {name}" for name, secret in wanted.items() if any(secret in text for text in texts)
        ]
    if not looked:
        raise AssertionError(f"nothing was written to {output}")
    return found


def values(parquet: bytes) -> Iterator[bytes]:
    """Every value of every column, those inside lists and structs too, and the schema with its metadata."""
    table = pq.read_table(pa.BufferReader(parquet))
    yield json.dumps([str(table.schema), str(table.schema.metadata)]).encode()
    for row in table.to_pylist():
        yield from leaves(row)


def leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name.encode()
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value if isinstance(value, bytes) else str(value).encode()
