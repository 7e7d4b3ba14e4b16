"""Results that the next run makes anew though they are there: OUTPUT/again.json.

A result is named by its video, its settings and when it was published. The new one is another result, so
the wish is met as soon as that is there: no clock is compared with another, and a kill at any moment leaves
either the wish or its fulfilment. The old rows count until the new ones are written. Only the holder of the
OUTPUT's lease writes here.
"""

import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage, tables

FILE = "again.json"

Name = tuple[str, str, str]  # video_id, settings_key, published_at


def ask(output: str, video_ids: Iterable[str]) -> int:
    """The next run plans these videos again; returns how many of them have a result at all."""
    now = _names(tables.current(output), set(video_ids))
    _write(output, _read(output) | set(now))
    return len(now)


def asked(output: str) -> set[str]:
    """The videos whose newest result is to be made anew."""
    names = _read(output)
    if not names:
        return set()
    newest = tables.current(output)
    return {name[0] for name in _names(newest, {name[0] for name in names}) if name in names}


def settle(output: str) -> None:
    """Forgets the wishes that have been met."""
    names = _read(output)
    if names:
        newest = tables.current(output)
        _write(output, names.intersection(_names(newest, {name[0] for name in names})))


def _names(newest: pa.Table, video_ids: set[str]) -> list[Name]:
    wanted = newest.filter(pc.is_in(newest["video_id"], value_set=pa.array(sorted(video_ids), pa.string())))
    return [
        (row["video_id"], row["settings_key"], row["published_at"].isoformat()) for row in wanted.to_pylist()
    ]


def _read(output: str) -> set[Name]:
    uri = storage.join(output, FILE)
    try:
        return {(video_id, key, at) for video_id, key, at in json.loads(storage.read_bytes(uri))}
    except storage.Missing:
        return set()
    except (ValueError, TypeError) as error:
        message = f"{storage.shown(uri)} is not what reelmap wrote: delete it and ask again"
        raise storage.StorageError(message) from error


def _write(output: str, names: set[Name]) -> None:
    uri = storage.join(output, FILE)
    if names:
        storage.write_bytes(uri, json.dumps(sorted(names), indent=0).encode())
    else:
        storage.delete(uri)
