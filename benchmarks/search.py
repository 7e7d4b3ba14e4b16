"""Search over many clips: seconds and peak memory of one query, on made-up embeddings.

python -m benchmarks.search --clips 1000000 --folder /tmp/million
"""

import argparse
import resource
import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import torch

from pipeline import schema, storage, tables
from pipeline.search import Query, look, search

WIDTH = 256
PER_VIDEO, VIDEOS_EACH = 100, 64  # clips of a video, videos of a part: as a large run publishes them


def write(output: str, clips: int) -> None:
    rng = np.random.default_rng(0)
    for part in range(-(-clips // (PER_VIDEO * VIDEOS_EACH))):
        ids = [f"{part:06d}{number:03d}" for number in range(VIDEOS_EACH)]
        count = PER_VIDEO * VIDEOS_EACH
        vectors = rng.standard_normal((count, WIDTH)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        number = np.tile(np.arange(PER_VIDEO, dtype=np.int32), VIDEOS_EACH)
        known = {
            "video_id": pa.array(np.repeat(ids, PER_VIDEO)),
            "settings_key": pa.array(["k1"] * count),
            "clip": pa.array(number),
            "shot": pa.array(number // 3),
            "start_s": pa.array(4.0 * number),
            "end_s": pa.array(4.0 * number + 4),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH),
        }
        tables.write_part(
            output,
            tables.part_name(ids, "k1"),
            {
                "clips": filled(known, schema.clips_schema(WIDTH), count),
                "videos": filled(
                    {
                        "video_id": pa.array(ids),
                        "settings_key": pa.array(["k1"] * VIDEOS_EACH),
                        "uri": pa.array([f"s3://library/{name}.mp4" for name in ids]),
                        "status": pa.array([schema.OK] * VIDEOS_EACH),
                        "published_at": pa.array([datetime.now(UTC)] * VIDEOS_EACH, schema.TIMESTAMP),
                    },
                    schema.VIDEOS,
                    VIDEOS_EACH,
                ),
            },
        )


def filled(known: dict[str, pa.Array], fields: pa.Schema, count: int) -> pa.Table:
    return pa.table([known.get(field.name, pa.nulls(count, field.type)) for field in fields], schema=fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--folder", required=True, help="made if it holds nothing, and left there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not storage.list_files(storage.join(options.folder, "videos")):
        write(options.folder, options.clips)
    before = resource.getrusage(resource.RUSAGE_SELF)
    vector = np.random.default_rng(1).standard_normal(WIDTH).astype(np.float32)
    started = time.perf_counter()
    found = search(look(options.folder), Query(vector / np.linalg.norm(vector), None), 20)
    wall_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    grown = (after.ru_maxrss - before.ru_maxrss) / 1024
    print(
        f"{found.clips:,} clips of {WIDTH} numbers: {wall_s:.2f} s, {cpu_s:.2f} CPU s; memory "
        f"{before.ru_maxrss / 1024:.0f} MiB before, at most {grown:.0f} MiB more"
    )


if __name__ == "__main__":
    main()
