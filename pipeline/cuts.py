"""Reels that were made from the tables, side by side under names: OUTPUT/cuts/ and their media.

media/VIDEO_ID/NAME/KEY/    a cut of one video
media/library/NAME/KEY/     a reel over many videos

A cut is there when its row is: media are written first, the part of a cut is one file and has a hash for a
name. KEY is a hash of what a cut is made by and from, so that no row is ever beside the media of another one.
Of several cuts of a video under one name the newest good one counts, and a failure that is newer still stands
beside it: an attempt that failed takes nothing away.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import redact, schema, storage, tables
from pipeline.publish import MEDIA
from pipeline.rows import to_table

LIBRARY = "library"  # in place of a video_id, which is hex digits
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What lies in media/VIDEO_ID/ itself has such endings: a folder called so would take the place of a file.
_ENDINGS = (".mp4", ".otio", ".jpg", ".vtt", ".cube")

Key = tuple[str, str]  # video_id or LIBRARY, name


def check_name(name: str) -> str:
    """The name, which becomes part of a path. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a name: letters, digits, dots, - and _, 64 of them at most")
    if name.lower().endswith(_ENDINGS):
        raise ValueError(f"{name!r} cannot be a name: it ends as a file of a reel does")
    return name


def folder_of(video_id: str | None, name: str) -> str:
    """Where the media of the cuts of that name lie, below OUTPUT."""
    return f"{MEDIA}/{video_id or LIBRARY}/{name}"


def place_of(row: dict[str, Any]) -> str:
    """Where the media of this cut lie, below OUTPUT."""
    key = hashlib.sha256(f"{row['settings_key']} {row['made_from']}".encode()).hexdigest()[:8]
    return f"{folder_of(row['video_id'], row['name'])}/{key}"


def key_of(row: dict[str, Any]) -> Key:
    return row["video_id"] or LIBRARY, row["name"]


def write(output: str, rows: list[dict[str, Any]]) -> str:
    """Writes some cuts (keys of schema.CUTS) as one part; when this returns, they are there."""
    rows = [
        row | {"reason": redact.without_secrets(row["reason"]) if row.get("reason") else None} for row in rows
    ]
    # A failure never takes the place of the part that holds an earlier result.
    ids = [" ".join([*key_of(row), row["made_from"], row["status"]]) for row in rows]
    part = tables.part_name(ids, "+".join(sorted({row["settings_key"] for row in rows})))
    tables.write(_uri(output, part), to_table(rows, schema.CUTS))
    return part


def read(output: str, columns: list[str] | None = None) -> pa.Table:
    """The cuts that count, by video_id and name; a failure after the good result of that name.

    Raises tables.Damaged for a part that is no table.
    """
    found = _newest(_all(output, columns))
    return found.drop_columns("part") if columns is None else found.select(columns)


class Known:
    """All cuts of an OUTPUT, read once; for long only in the hands of who holds the lease, and alone writes.

    Raises tables.Damaged for a part that is no table.
    """

    def __init__(self, output: str):
        self.output = output
        self.rows = _all(output, [*_KEY, "made_from", "uri", "files"])

    @property
    def newest_at(self) -> datetime | None:
        return pc.max(self.rows["made_at"]).as_py()

    def done(self, name: str, settings_key: str) -> dict[str, str]:
        """video_id (or LIBRARY) -> made_from of the good cuts of that name and these settings."""
        named = self.rows.filter(pc.equal(self.rows["name"], name))
        return {
            key_of(row)[0]: row["made_from"]
            for row in _newest(named).to_pylist()
            if (row["settings_key"], row["status"]) == (settings_key, schema.OK)
        }

    def whole(self, owners: set[str]) -> list[dict[str, Any]]:
        """Every column of the cuts of these videos, and of LIBRARY, that count."""
        owner = pc.fill_null(self.rows["video_id"], LIBRARY)
        mine = self.rows.filter(pc.is_in(owner, value_set=pa.array(sorted(owners), pa.string())))
        places = [(row["part"], *key_of(row)) for row in _newest(mine).to_pylist()]

        def rows(part: str) -> dict[tuple[str, ...], dict[str, Any]]:
            found = tables.read_part(self.output, "cuts", part).to_pylist()
            return {(part, *key_of(row)): row for row in found}

        parts = tables.parallel(rows, sorted({part for part, *_ in places}))
        known = {place: row for part in parts for place, row in part.items()}
        return [known[place] for place in places]

    def since(self, at: datetime | None) -> set[str]:
        """Whose cuts were made after that: of which videos, and whether of LIBRARY."""
        new = self.rows if at is None else self.rows.filter(pc.greater(self.rows["made_at"], at))
        return set(pc.fill_null(new["video_id"], LIBRARY).unique().to_pylist())

    def write(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Writes some cuts as one part, as the newest of all; returns them with the time that they got."""
        at = tables.stamp(self.newest_at)
        rows = [row | {"made_at": at} for row in rows]
        part = write(self.output, rows)
        new = to_table([row | {"part": part} for row in rows], self.rows.schema)
        self.rows = pa.concat_tables([self.rows.filter(pc.not_equal(self.rows["part"], part)), new])
        return rows

    def sweep(self) -> int:
        """Removes what newer cuts have replaced, and cuts of videos that are gone, with their files.

        Whenever it is killed, what is left reads the same.
        """
        if not len(self.rows):
            return 0
        known = set(tables.current(self.output)["video_id"].to_pylist())
        return self.keep(lambda row: row["video_id"] is None or row["video_id"] in known)

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> int:
        """Of all rows only those that count and are wanted. Files go first: their row finds them again."""
        counting = [row for row in _newest(self.rows).to_pylist() if wanted(row)]
        kept = {(row["part"], *key_of(row)) for row in counting}
        gone = [row for row in self.rows.to_pylist() if (row["part"], *key_of(row)) not in kept]
        if not gone:
            return 0
        named = {path for row in counting for path in files_of(row)}
        files = sorted({path for row in gone for path in files_of(row)} - named)
        tables.parallel(lambda path: storage.delete(storage.join(self.output, path)), files)
        for path in sorted({"/".join(path.split("/")[:3]) for path in files}):
            storage.remove_empty_folders(storage.join(self.output, path))
        renamed = {}
        for part in sorted({row["part"] for row in gone}):
            whole = tables.read_part(self.output, "cuts", part).to_pylist()
            left = [row for row in whole if (part, *key_of(row)) in kept]
            # The rows that stay stand in both for a moment, and count once.
            renamed[part] = write(self.output, left) if left else None
            if renamed[part] != part:
                storage.delete(_uri(self.output, part))
        counting = [row | {"part": renamed.get(row["part"], row["part"])} for row in counting]
        self.rows = to_table(counting, self.rows.schema)
        return len(gone)


def drop(output: str, keys: Iterable[Key]) -> int:
    """Removes these cuts and their files; for the holder of the lease."""
    unwanted = set(keys)
    return Known(output).keep(lambda row: key_of(row) not in unwanted) if unwanted else 0


def remove(output: str, video_ids: set[str]) -> None:
    """Removes all cuts of these videos; for the holder of the lease."""
    Known(output).keep(lambda row: row["video_id"] not in video_ids)


def damaged(output: str) -> list[str]:
    """Paths below OUTPUT of parts that are no tables: nothing can be read until they are gone."""

    def broken(part: str) -> bool:
        try:
            return not set(_KEY) <= set(tables.read_part(output, "cuts", part).column_names)
        except tables.Damaged:
            return True

    parts = tables.list_parts(output, "cuts")
    found = zip(parts, tables.parallel(broken, parts), strict=True)
    return [f"cuts/{part}.parquet" for part, is_broken in found if is_broken]


def files_of(row: dict[str, Any]) -> set[str]:
    """What a row names below its own folder: a table is data, and only what we would write is touched."""
    folder = folder_of(row["video_id"], row["name"])
    named = {row["uri"], *(row["files"] or ())} - {None}
    return {path for path in named if path.startswith(f"{folder}/") and ".." not in path}


_KEY = ["video_id", "name", "settings_key", "status", "made_at"]


def _all(output: str, columns: list[str] | None) -> pa.Table:
    """Every row, with the part that holds it."""
    fetch = None if columns is None else list(dict.fromkeys([*_KEY, *columns]))

    def rows(part: str) -> pa.Table:
        found = tables.read_part(output, "cuts", part, fetch)
        return found.append_column("part", pa.array([part] * len(found), pa.string()))

    empty = schema.CUTS.empty_table().append_column("part", pa.array([], pa.string()))
    found = tables.parallel(rows, tables.list_parts(output, "cuts"))
    whole = pa.concat_tables(
        [empty if fetch is None else empty.select([*fetch, "part"]), *found], promote_options="default"
    )
    return whole


def _newest(rows: pa.Table) -> pa.Table:
    """Of each video and name the newest good row, and the newest failure if it is newer than that."""
    order = [
        ("video_id", "ascending"),
        ("name", "ascending"),
        ("made_at", "descending"),
        ("part", "ascending"),
    ]
    ordered = rows.sort_by(order)
    keep, seen = [], None
    for place, row in enumerate(ordered.select(["video_id", "name", "status"]).to_pylist()):
        if key_of(row) != seen:
            seen, failed, good = key_of(row), False, False
        if row["status"] == schema.OK and not good:
            good = True
            keep.append(place)
        elif row["status"] != schema.OK and not good and not failed:
            failed = True
            keep.append(place)
    return ordered.take(pa.array(keep, pa.int64()))


def _uri(output: str, part: str) -> str:
    return storage.join(output, "cuts", f"{part}.parquet")
