"""Rows between operators: dicts with numpy arrays on the inside, Arrow tables with a fixed schema outside.

A numeric array travels as a TENSOR, and the byte strings of all samples as BLOBS, whose bytes are read in
place: a shard of pictures is copied once, into the object store, and never on the way out.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import CUT_EDIT, EDIT, SHARD_LOG, TIMESTAMP
from stages import blobs
from stages.blobs import Blobs, Part

TENSOR = pa.struct([("dtype", pa.string()), ("shape", pa.list_(pa.int64())), ("data", pa.large_binary())])
BLOBS = pa.list_(blobs.TYPE)

FAILURE = pa.struct(
    [
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("trace", pa.string()),
        ("failed_at", TIMESTAMP),
    ]
)
FACTS = pa.struct(
    [
        ("container", pa.string()),
        ("video_codec", pa.string()),
        ("pixel_format", pa.string()),
        ("coded_width", pa.int32()),
        ("coded_height", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("rotation", pa.int32()),
        ("sample_aspect_ratio", pa.string()),
        ("fps", pa.float64()),
        ("fps_exact", pa.string()),
        ("variable_rate", pa.bool_()),
        ("interlaced", pa.bool_()),
        ("color_primaries", pa.int32()),
        ("color_transfer", pa.int32()),
        ("color_space", pa.int32()),
        ("color_range", pa.int32()),
        ("duration_s", pa.float64()),
        ("duration_exact", pa.bool_()),
        ("start_s", pa.float64()),
        ("audio_codec", pa.string()),
        ("audio_rate", pa.int32()),
        ("audio_channels", pa.int32()),
        ("timecode", pa.string()),
    ]
)
CLIP = pa.struct(
    [
        ("clip", pa.int32()),
        ("shot", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("score", pa.float32()),
        ("importance", pa.float32()),
        ("novelty", pa.float32()),
        ("motion", pa.float32()),
        ("luma", pa.float32()),
        ("loudness_lufs", pa.float32()),
        ("rank", pa.int32()),
        ("chosen", pa.bool_()),
        ("why", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("thumbnail", pa.binary()),
        ("thumbnail_s", pa.float64()),
        ("saliency", pa.binary()),
    ]
)
REEL = pa.struct(
    [
        ("uri", pa.string()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("encoder", pa.string()),
        ("copied_s", pa.float64()),
        ("not_copied", pa.string()),
        ("loudness_lufs", pa.float32()),
        ("true_peak_dbtp", pa.float32()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("files", pa.list_(pa.string())),
    ]
)

LISTED = pa.schema(
    [
        ("video_id", pa.string()),
        ("settings_key", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("modified_at", TIMESTAMP),
        ("failure", FAILURE),
    ]
)


def _with(schema: pa.Schema, *fields: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([*schema, *(pa.field(name, type) for name, type in fields)])


def _without(schema: pa.Schema, *names: str) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in names])


SHARDS = _with(
    LISTED,
    ("probe", FACTS),
    ("shard", pa.int32()),
    ("shards", pa.int32()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
)
DECODED = _with(
    SHARDS,
    ("times_s", TENSOR),
    ("frames", TENSOR),
    ("motion", TENSOR),
    ("motion_std", TENSOR),
    ("luma", TENSOR),
    ("thumbnails", BLOBS),
    ("cuts_s", TENSOR),
    ("flashes_s", TENSOR),
    ("loudness", TENSOR),
    ("speech", TENSOR),
    ("end_of_video_s", pa.float64()),
    ("frames_decoded", pa.int32()),
    ("log", SHARD_LOG),
)
LOOKED = _with(_without(DECODED, "frames"), ("features", TENSOR), ("codes", BLOBS))
GATHERED = _with(
    _without(LOOKED, "shard", "start_s", "end_s", "end_of_video_s", "log"),
    ("duration_s", pa.float64()),
    ("shard_log", pa.list_(SHARD_LOG)),
)
# What is cut of a video is known now: of a long one, every sample's picture and vector are most of the row.
SCORED = _with(
    _without(GATHERED, "features", "thumbnails"),
    ("importance", TENSOR),
    ("novelty", TENSOR),
    ("clips", pa.list_(CLIP)),
    ("edits", pa.list_(EDIT)),
    ("target_s", pa.float64()),
)
RENDERED = _with(SCORED, ("reel", REEL))
TO_CUT = _with(LISTED, ("name", pa.string()), ("made_from", pa.string()))
CUT = _with(
    TO_CUT,
    ("edits", pa.list_(CUT_EDIT)),
    ("target_s", pa.float64()),
    ("reel", REEL),
    ("read_bytes", pa.int64()),
)
PUBLISHED = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("duration_s", pa.float64()),
        ("clips", pa.int32()),
        ("reel_s", pa.float64()),
    ]
)


def to_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly this schema: keys it doesn't have are left out, absent ones are null."""
    columns = []
    for field in schema:
        make = {TENSOR: _tensors, BLOBS: _blobs}.get(field.type, partial(pa.array, type=field.type))
        columns.append(make([row.get(field.name) for row in rows]))
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table. Tensors and blobs are views of its memory, and tensors must not be written to."""
    columns = {name: whole(table[name]) for name in table.column_names}
    for index in range(len(table)):
        yield {
            name: {TENSOR: _tensor, BLOBS: _blob}.get(column.type, _value)(column, index)
            for name, column in columns.items()
        }


def only(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """What of a row goes on to the next stage: what it would hold after its way through a table."""
    return {name: row.get(name) for name in schema.names}


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, in place where it is one already."""
    # combine_chunks copies even a single chunk.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _value(column: pa.Array, index: int) -> Any:
    return column[index].as_py()


def _blobs(values: list[Sequence[bytes] | None]) -> pa.ListArray:
    # Of one row in place: of no other are there many.
    if len(values) == 1 and isinstance(values[0], Blobs):
        array = values[0].whole()
        return pa.ListArray.from_arrays(pa.array([0, len(array)], pa.int32()), array)
    return pa.array([None if value is None else list(value) for value in values], BLOBS)


def _blob(column: pa.ListArray, index: int) -> Blobs | None:
    value = column[index]
    return Blobs([Part.of(value.values)]) if value.is_valid else None


def _tensors(values: list[np.ndarray | None]) -> pa.StructArray:
    arrays = [None if value is None else np.ascontiguousarray(value) for value in values]
    if len(arrays) == 1 and arrays[0] is not None:
        array = arrays[0]
        offsets = pa.py_buffer(np.array([0, array.nbytes], np.int64))
        data = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), 1, [None, offsets, pa.py_buffer(array.reshape(-1).view(np.uint8))]
        )
    else:
        data = pa.array([None if a is None else a.tobytes() for a in arrays], pa.large_binary())
    return pa.StructArray.from_arrays(
        [
            pa.array([None if a is None else a.dtype.str for a in arrays], pa.string()),
            pa.array([None if a is None else a.shape for a in arrays], pa.list_(pa.int64())),
            data,
        ],
        fields=list(TENSOR),
        mask=pa.array([a is None for a in arrays]),
    )


def _tensor(column: pa.StructArray, index: int) -> np.ndarray | None:
    if not column[index].is_valid:
        return None
    dtype, shape, data = (pc.struct_field(column, name) for name in ("dtype", "shape", "data"))
    # The bytes by their offsets: a scalar of Arrow would copy them.
    _, offsets, values = data.buffers()
    first, last = np.frombuffer(offsets, np.int64)[data.offset + index :][:2]
    flat = np.frombuffer(values, np.uint8)[first:last] if values is not None else np.empty(0, np.uint8)
    return flat.view(dtype[index].as_py()).reshape(shape[index].as_py())
