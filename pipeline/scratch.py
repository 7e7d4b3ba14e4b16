"""Rows in scratch files, from one process of a machine to another: mapped into memory, not copied."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.rows import from_table, to_table


def put(row: dict[str, Any], schema: pa.Schema) -> Path:
    """A new file with the row. Raises OSError, with its errno, where the disk is full."""
    handle, name = tempfile.mkstemp(prefix="row-", suffix=".arrow")
    os.close(handle)
    try:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(to_table([row], schema))
    except OSError:
        Path(name).unlink()
        raise
    return Path(name)


def table(file: Path) -> pa.Table:
    """What is in the file, which may be deleted meanwhile."""
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def take(file: Path) -> dict[str, Any]:
    (row,) = from_table(table(file))
    return row
