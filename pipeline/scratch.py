"""The scratch disk: a folder that outlives no run, and rows in files from one process to another.

The rows are mapped into memory, not copied.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.rows import from_table, to_table
from stages.blobs import Blobs, Part

_PREFIX = "reelmap-run-"
_YOUNG_S = 60  # one that is not locked may be about to be


@contextmanager
def folder() -> Iterator[str]:
    """A new folder, deleted in the end; where this process is killed, by the next one that asks for one."""
    _sweep(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, ExitStack() as held:
        with suppress(OSError):  # a disk that knows no locks: nobody will take it away then
            held.enter_context(_locked(Path(name)))
        yield name


@cache
def _sweep(home: str) -> None:
    """Once a process: every table of every part has such a folder."""
    for left in Path(home).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's, in use, or just gone
            if time.time() - left.stat().st_mtime > _YOUNG_S:
                with _locked(left):
                    shutil.rmtree(left)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Raises BlockingIOError where another process holds it. The lock is gone with the process."""
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def put(row: dict[str, Any], schema: pa.Schema) -> Path:
    """A new file with the row. Raises OSError, with its errno, where the disk is full."""
    handle, name = tempfile.mkstemp(prefix="row-", suffix=".arrow")
    os.close(handle)
    try:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(to_table([row], schema))
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def table(file: Path) -> pa.Table:
    """What is in the file, which may be deleted meanwhile."""
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def take(file: Path) -> dict[str, Any]:
    """The row in the file. Its blobs are read from there when they are asked for.

    What was looked at of a mapped file counts as memory of the process, and half of what lies around it: of
    all shards of a long video it would be most of their pictures.
    """
    (row,) = from_table(table(file))
    later = [name for name, blobs in row.items() if isinstance(blobs, Blobs)]
    return row | {name: Blobs([Part(len(row[name]), partial(_blobs, file, name))]) for name in later}


def _blobs(file: Path, name: str) -> pa.LargeBinaryArray:
    return table(file)[name].chunk(0)[0].values
