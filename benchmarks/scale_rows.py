"""Planning a catalogue: what is listed, less what is done, as rows for the run; seconds and memory.

    python -m benchmarks.scale_rows ROWS

Nine of ten videos are done, in an OUTPUT of parts as runs leave them, on a local disk.
"""

import hashlib
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scale import peak_bytes
from pipeline import schema
from pipeline.config import Settings
from pipeline.library import SCHEMA
from pipeline.run import make_job
from stages.nn.weights import open_bundle

DONE_SHARE = 0.9
PART_ROWS = 64  # see publish_rows in cluster/plan.py


def main(rows: int) -> None:
    settings, bundle = Settings(), open_bundle(None)
    began = time.monotonic()
    listed = listing(rows)
    print(f"{rows} rows listed (made up here, in {time.monotonic() - began:.0f} s)")
    with tempfile.TemporaryDirectory(prefix="scale-rows-") as output:
        count = int(rows * DONE_SHARE)
        parts = fill(output, listed["video_id"][:count].to_pylist(), settings.key(bundle))
        print(f"{count} of them done, in {parts} parts")
        before = peak_bytes()
        began, cpu = time.monotonic(), time.process_time()
        job = make_job("/library", output, settings, bundle, listed)
        seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu
        assert len(job.todo) == rows - count
        print(
            f"list - done = {len(job.todo)} to do: {seconds:.1f} s ({cpu_s:.1f} s of CPU), "
            f"peak memory {peak_bytes() / 2**20:.0f} MiB ({before / 2**20:.0f} before)"
        )
        began = time.monotonic()
        waiting = job.todo.to_pylist()  # what the run keeps of each video until it is published
        print(
            f"rows that the run keeps of them: {time.monotonic() - began:.1f} s, "
            f"peak memory {peak_bytes() / 2**20:.0f} MiB ({len(waiting)} rows)"
        )


def listing(rows: int) -> pa.Table:
    uris = [f"s3://archive/{number % 1000:03d}/{number:09d}.mp4" for number in range(rows)]
    columns = {
        "uri": uris,
        "etag": [f"{number:032x}" for number in range(rows)],
        "size_bytes": [40_000_000 + number % 1000 for number in range(rows)],
        "modified_at": [datetime(2026, 1, 1, tzinfo=UTC)] * rows,
        "video_id": [hashlib.sha256(uri.encode()).hexdigest()[:24] for uri in uris],
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def fill(output: str, video_ids: list[str], settings_key: str) -> int:
    """Writes `videos/` as runs leave it; the other tables do not matter to what is done."""
    folder = Path(output, "videos")
    folder.mkdir()
    starts = range(0, len(video_ids), PART_ROWS)
    for number, start in enumerate(starts):
        ids = video_ids[start : start + PART_ROWS]
        known = {
            "video_id": pa.array(ids),
            "settings_key": pa.array([settings_key] * len(ids)),
            "uri": pa.array([f"s3://archive/{video_id}.mp4" for video_id in ids]),
            "status": pa.array([schema.OK] * len(ids)),
            "published_at": pa.array([datetime(2026, 1, 2, tzinfo=UTC)] * len(ids), schema.TIMESTAMP),
        }
        columns = [known.get(field.name, pa.nulls(len(ids), field.type)) for field in schema.VIDEOS]
        table = pa.table(columns, schema=schema.VIDEOS)
        pq.write_table(table, os.fspath(folder / f"{number:024x}.parquet"))
    return len(starts)


if __name__ == "__main__":
    main(int(sys.argv[1]))
