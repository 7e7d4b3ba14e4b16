"""The tables of an OUTPUT: Parquet parts, written so that a kill at any moment loses work but never data.

A part is one publish batch: the same file name in every table, `videos/` last. What has no twin in
`videos/` is an orphan and is not read. Of several results of one video the newest counts; older rows are
superseded and are not read either. A table without rows in a part has no file there.
"""

import bisect
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema, scratch, storage

Table = Literal["clips", "proxies", "reels", "failures", "videos", "cuts"]
T = TypeVar("T")
R = TypeVar("R")

KEY = ("video_id", "settings_key")
_SUFFIX = ".parquet"
_THREADS = 16  # parts are small, so reading them is waiting for the store
_STREAMED = 8  # parts that are held at a time where a table is too large to be held whole
# Row groups end with a video, so that a reader of one skips the others. A search wants one column of all
# groups, which on a store is a request each: where videos are small some share a group. A writer holds a
# whole group in memory, some times over: those of a very long video have several.
_GROUP_BYTES, _MOST_GROUP_BYTES = 1 << 20, 16 << 20
# Least and greatest of pictures and codes say nothing and cost space.
_BLOBS = ("thumbnail", "saliency", "code")
_FLOATS = ("embedding", "times_s", "importance", "motion", "motion_std", "luma", "loudness_lufs", "speech")


def part_name(video_ids: Iterable[str], settings_key: str) -> str:
    """The name of the part that holds the results of these videos; their order does not matter."""
    return hashlib.sha256(json.dumps([settings_key, sorted(video_ids)]).encode()).hexdigest()[:24]


def write_part(output: str, part: str, tables: dict[Table, pa.Table]) -> None:
    """Writes one part; when this returns, its videos are done. Written twice, the second one counts.

    Raises ValueError for tables that do not belong together.
    """
    videos = tables.get("videos")
    if videos is None or not videos.num_rows:
        raise ValueError("a part without rows in `videos` would never be read")
    known = set(videos["video_id"].to_pylist())
    if len(known) != videos.num_rows:
        raise ValueError("a part holds each video once")
    for name, table in tables.items():
        if not known.issuperset(table["video_id"].to_pylist()):
            raise ValueError(f"a row of `{name}` has no row in `videos`")
    # An older part of this name must not vouch for the files that are about to replace its own.
    storage.delete(_uri(output, "videos", part))
    for name in schema.TABLES:
        table = tables.get(name)
        if table is not None and table.num_rows:
            write(_uri(output, name, part), table)
        else:
            storage.delete(_uri(output, name, part))  # what a killed attempt may have left


class Damaged(storage.StorageError):
    """What is there is not a table; the message says which file."""


def read_part(output: str, table: Table, part: str, columns: list[str] | None = None) -> pa.Table:
    """One file of a table as it is, whether its rows count or not. Raises Damaged, or Missing.

    columns   fewer come back from a part of a version that did not have them
    """
    uri = _uri(output, table, part)
    data = storage.read_bytes(uri)  # trouble of the store shows here: what fails below is the file's own
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        return file.read(None if columns is None else [name for name in columns if name in names])
    except (pa.ArrowException, OSError) as error:
        raise Damaged(f"{storage.shown(uri)} is not a whole Parquet file") from error


def list_parts(output: str, table: Table) -> list[str]:
    files = storage.list_files(storage.join(output, table), _SUFFIX)
    return [file.removesuffix(_SUFFIX) for file in files]


def done(
    output: str,
    settings_key: str,
    statuses: tuple[str, ...] = (schema.OK, schema.DROPPED, schema.FAILED),
    newest: pa.Table | None = None,
) -> set[str]:
    """The videos whose newest result was made with these settings and ended in one of `statuses`."""
    newest = current(output) if newest is None else newest
    fits = pc.and_(
        pc.equal(newest["settings_key"], settings_key),
        pc.is_in(newest["status"], value_set=pa.array(statuses, pa.string())),
    )
    return set(newest.filter(fits)["video_id"].to_pylist())


def current(output: str, also: tuple[str, ...] = ()) -> pa.Table:
    """The newest result of each video, sorted by video_id.

    Columns: video_id, settings_key, status, published_at, those of `also` out of `videos`, part.
    """
    return newest_of(_results(output, also))


def newest_of(results: pa.Table) -> pa.Table:
    """Of rows as `current` has them, the newest of each video: those that count."""
    # The part's name decides between equals, so that every reader decides alike.
    order = [("video_id", "ascending"), ("published_at", "descending"), ("part", "ascending")]
    ordered = results.sort_by(order)
    ids = ordered["video_id"].to_pylist()
    first = [row for row, video_id in enumerate(ids) if not row or ids[row - 1] != video_id]
    return ordered.take(pa.array(first, pa.int64()))


def stamp(last: datetime | None) -> datetime:
    """The time; later than `last`, by whatever clock that was, or what is made now were not the newest."""
    now = datetime.now(UTC)
    return now if last is None else max(now, last + timedelta(microseconds=1))


def latest_versions(results: pa.Table) -> pa.Table:
    """Of rows as `current` has them, with `uri`: those of the newest result of each file.

    A file that has changed is a new video; what was made of its older versions is superseded.
    """
    ordered = results.sort_by([("published_at", "ascending"), ("video_id", "ascending")])
    last = {uri: place for place, uri in enumerate(ordered["uri"].to_pylist())}
    return ordered.take(pa.array(sorted(last.values()), pa.int64())).sort_by("video_id")


def read(
    output: str,
    table: Table,
    columns: list[str] | None = None,
    video_ids: set[str] | None = None,
    newest: pa.Table | None = None,
) -> pa.Table:
    """The rows of a table that count: those of the newest result of each video, ordered by video_id.

    columns    only these (others are not fetched)
    video_ids  only these videos (parts without them are not fetched)
    newest     what `current` said, for a reader of many tables or pieces who wants to ask only once

    A table without rows has the columns of `pipeline.schema`. Where parts hold embeddings of different
    width (the features were changed half-way) the column is a list of variable length.
    """
    newest = current(output) if newest is None else newest
    if video_ids is not None:
        newest = _only(newest, video_ids)
    wanted = _by_part(newest)
    present = set(storage.list_files(storage.join(output, table), _SUFFIX))
    parts = sorted(part for part in wanted if part + _SUFFIX in present)
    fetch = None if columns is None else [*columns, *(c for c in KEY if c not in columns)]

    def rows(part: str) -> pa.Table:
        found = _read(_uri(output, table, part), fetch, wanted[part])
        return _only(found, wanted[part])

    found = _concat(parallel(rows, parts), _empty(table, fetch))
    order = [("video_id", "ascending")]
    order += [(c, "ascending") for c in ("clip", "sample") if c in found.column_names]
    found = found.sort_by(order)
    for field in _empty(table, fetch).schema:
        if field.name not in found.column_names:  # parts of a version that did not have it yet
            found = found.append_column(field, pa.nulls(found.num_rows, field.type))
    return found if columns is None else found.select(columns)


def stream(
    output: str,
    table: Table,
    columns: list[str],
    video_ids: set[str] | None = None,
    newest: pa.Table | None = None,
) -> Iterator[pa.Table]:
    """The same rows as `read`, some parts at a time: memory does not grow with the table.

    In no order, and each piece with the columns that its part has.
    """
    newest = current(output) if newest is None else newest
    if video_ids is not None:
        newest = _only(newest, video_ids)
    wanted = _by_part(newest)
    present = set(storage.list_files(storage.join(output, table), _SUFFIX))
    parts = iter(sorted(part for part in wanted if part + _SUFFIX in present))

    def rows(part: str) -> pa.Table:
        return _only(_read(_uri(output, table, part), [*KEY, *columns], wanted[part]), wanted[part])

    while some := list(itertools.islice(parts, _STREAMED)):
        yield from parallel(rows, some)


def sweep(output: str) -> dict[str, int]:
    """Removes orphans, superseded rows and temporary files; returns how many of each.

    Only for the holder of the OUTPUT's lease before its run starts: a part that is just being written
    looks like an orphan. Whenever it is killed, what is left reads the same as before.
    """
    results = _results(output)
    kept = newest_of(results)
    _keep(output, results, kept)
    superseded = results.num_rows - kept.num_rows
    living = {part + _SUFFIX for part in _by_part(_results(output))}
    orphans = [
        storage.join(output, name, file)
        for name in schema.TABLES
        for file in storage.list_files(storage.join(output, name), _SUFFIX)
        if file not in living
    ]
    parallel(storage.delete, orphans)
    temporary = storage.sweep_temporary(output)
    return {"orphans": len(orphans), "superseded": superseded, "temporary": temporary}


def remove(output: str, video_ids: set[str]) -> None:
    """Removes the rows of these videos from every table; for the holder of the OUTPUT's lease."""
    results = _results(output)
    unwanted = pc.is_in(results["video_id"], value_set=pa.array(sorted(video_ids), pa.string()))
    _keep(output, results, results.filter(pc.invert(unwanted)))


def _keep(output: str, results: pa.Table, wanted: pa.Table) -> None:
    """Of all results only these: a part without any goes, one with some is written anew.

    In this order: what a killed one has written anew already has the name that it gets again.
    """
    kept, parts = _by_part(wanted), _by_part(results)
    for part in sorted(set(parts) - set(kept)):
        _delete_part(output, part)
    for part in sorted(kept):
        if len(kept[part]) < len(parts[part]):
            _shrink(output, part, set(kept[part]))


def _shrink(output: str, part: str, keep: set[str]) -> None:
    """Writes the rows of `keep` as a part of their own, then deletes the old part.

    In between both hold the same rows; readers take one of them.
    """
    tables: dict[Table, pa.Table] = {}
    for name in schema.TABLES:
        if storage.exists(_uri(output, name, part)):
            tables[name] = _only(_read(_uri(output, name, part), None), keep)
    settings_keys = sorted(set(tables["videos"]["settings_key"].to_pylist()))
    write_part(output, part_name(keep, "+".join(settings_keys)), tables)
    _delete_part(output, part)


def _delete_part(output: str, part: str) -> None:
    for name in reversed(schema.TABLES):  # `videos/` first: a kill half-way leaves orphans
        storage.delete(_uri(output, name, part))


def _results(output: str, also: tuple[str, ...] = ()) -> pa.Table:
    """Every row of `videos/`, superseded or not, with the part that holds it."""
    columns = [*KEY, "status", "published_at", *also]

    def rows(file: str) -> pa.Table:
        found = _read(storage.join(output, "videos", file), columns)
        part = pa.array([file.removesuffix(_SUFFIX)] * found.num_rows, pa.string())
        return found.append_column("part", part)

    empty = _empty("videos", columns).append_column("part", pa.array([], pa.string()))
    return _concat(parallel(rows, storage.list_files(storage.join(output, "videos"), _SUFFIX)), empty)


def _only(table: pa.Table, video_ids: Iterable[str]) -> pa.Table:
    return table.filter(pc.is_in(table["video_id"], value_set=pa.array(list(video_ids), pa.string())))


def _by_part(results: pa.Table) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for part, video_id in zip(results["part"].to_pylist(), results["video_id"].to_pylist(), strict=True):
        parts.setdefault(part, []).append(video_id)
    return parts


def write(uri: str, table: pa.Table) -> None:
    """A part of a table as Parquet, compressed as suits its columns, in the order of its videos.

    Raises StorageError, also where the scratch disk is full.
    """
    if pc.count_distinct(table["video_id"], "all").as_py() > 1:  # sorting copies
        table = table.sort_by("video_id")
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    floats = [f"{name}.list.element" for name in _FLOATS if name in table.column_names]
    nested = [field.name for field in table.schema if field.type.num_fields]
    # By way of a file: the clips of ten hours are a hundred megabytes.
    try:
        with scratch.folder() as folder:
            local = Path(folder, f"part{_SUFFIX}")
            writer = pq.ParquetWriter(
                local,
                table.schema,
                compression="zstd",
                use_dictionary=texts,
                use_byte_stream_split=floats,
                write_statistics=[name for name in table.column_names if name not in (*_BLOBS, *nested)],
            )
            with writer:
                for group in _groups_of(table):
                    writer.write_table(group, row_group_size=max(1, len(group)))
            storage.put_file(local, uri)
    except OSError as error:
        why = f"no room in {tempfile.gettempdir()} to prepare it ({storage.reason(error)})"
        raise storage.StorageError(f"cannot write {storage.shown(uri)}: {why}") from error


def _groups_of(table: pa.Table) -> Iterator[pa.Table]:
    """Rows of whole videos, so many as make _GROUP_BYTES, or a part of one that has _MOST_GROUP_BYTES.

    Where all rows are as long: what one row is, is not asked.
    """
    ids = table["video_id"].to_pylist()
    row_bytes = max(1, table.nbytes / max(1, len(ids)))
    least, most = _GROUP_BYTES / row_bytes, _MOST_GROUP_BYTES / row_bytes  # rows
    start = 0
    for end in range(1, len(ids)):
        if end - start >= (least if ids[end] != ids[end - 1] else most):
            yield table.slice(start, end - start)
            start = end
    yield table.slice(start)


def _read(uri: str, columns: list[str] | None, video_ids: list[str] | None = None) -> pa.Table:
    """The rows of a part; of some videos, those of all groups in which they may be."""
    with storage.open_input(uri) as file:
        try:
            part = pq.ParquetFile(file, pre_buffer=True)
            if video_ids is None:
                return part.read(columns)
            return part.read_row_groups(_groups_with(part, video_ids), columns)
        except pa.ArrowInvalid as error:
            message = f"{storage.shown(uri)} is not a Parquet file: `reelmap verify --repair` removes it"
            raise Damaged(message) from error


def _groups_with(part: pq.ParquetFile, video_ids: list[str]) -> list[int]:
    """The row groups that may hold a row of these videos, by what the file says of itself."""
    column, wanted = part.schema.names.index("video_id"), sorted(video_ids)
    groups = []
    for group in range(part.num_row_groups):
        said = part.metadata.row_group(group).column(column).statistics
        first = bisect.bisect_left(wanted, said.min) if said and said.has_min_max else None
        if first is None or (wanted[first:] and wanted[first] <= said.max):
            groups.append(group)
    return groups


def _concat(tables: list[pa.Table], empty: pa.Table) -> pa.Table:
    tables = [table for table in tables if table.num_rows]
    if not tables:
        return empty
    if len({table.schema for table in tables}) > 1:
        tables = [table.cast(pa.schema([_any_width(field) for field in table.schema])) for table in tables]
    return pa.concat_tables(tables, promote_options="default")


def _any_width(field: pa.Field) -> pa.Field:
    if pa.types.is_fixed_size_list(field.type):
        return field.with_type(pa.list_(field.type.value_field))
    return field


def _empty(table: Table, columns: list[str] | None) -> pa.Table:
    schemas = {
        "clips": schema.clips_schema(0),
        "proxies": schema.PROXIES,
        "reels": schema.REELS,
        "failures": schema.FAILURES,
        "videos": schema.VIDEOS,
        "cuts": schema.CUTS,
    }
    empty = schemas[table].empty_table()
    return empty if columns is None else empty.select(columns)


def parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Results in order; for what waits for the store."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def _uri(output: str, table: Table, part: str) -> str:
    return storage.join(output, table, part + _SUFFIX)
