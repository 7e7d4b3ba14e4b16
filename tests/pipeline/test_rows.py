"""Rows survive the way through Arrow, and pictures are not copied on the way out."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.rows import DECODED, SCORED, from_table, to_table


def shard(frames: int = 3) -> dict:
    return {
        "video_id": "v",
        "uri": "a.mp4",
        "frames": np.random.default_rng(0).integers(0, 255, (frames, 8, 8, 3), dtype=np.uint8),
        "times_s": np.arange(frames) / 2,
        "motion": np.zeros(frames, np.float32),
        "motion_std": np.zeros(frames, np.float32),
        "cuts_s": np.empty(0),
        "thumbnails": [b"jpeg"] * frames,
        "end_s": np.inf,
    }


@pytest.mark.parametrize("count", [1, 3])
def test_arrays_keep_shape_type_and_values(count: int) -> None:
    rows = [shard(frames) for frames in range(count)]
    for before, after in zip(rows, from_table(to_table(rows, DECODED)), strict=True):
        for name in ("frames", "times_s", "motion", "cuts_s"):
            assert after[name].dtype == before[name].dtype
            assert np.array_equal(after[name], before[name])
        assert list(after["thumbnails"]) == before["thumbnails"]
        assert after["end_s"] == np.inf
        assert after["luma"] is None
        assert after["failure"] is None


def test_pictures_are_read_in_place() -> None:
    table = to_table([shard()], DECODED)
    frames = next(from_table(table))["frames"]
    data = table["frames"].chunk(0).field("data").buffers()[2]
    assert data.address <= frames.ctypes.data < data.address + data.size


def test_rows_that_failed_and_rows_that_did_not_share_a_schema() -> None:
    failed = {"video_id": "w", "failure": {"status": "failed", "stage": "probe", "reason": "empty"}}
    together = pa.concat_tables([to_table([shard()], DECODED), to_table([failed], DECODED)])
    good, bad = from_table(together)
    assert good["failure"] is None
    assert bad["failure"]["reason"] == "empty"
    assert bad["frames"] is None


def test_clips_and_edits_travel_whole() -> None:
    clip = {
        "clip": 1,
        "start_s": 0.5,
        "embedding": np.ones(4, np.float32),
        "thumbnail": b"x",
        "loudness_lufs": None,
        "saliency": b"y",
    }
    row = {"video_id": "v", "clips": [clip], "edits": [{"clip": 1, "transition": "cut"}]}
    after = next(from_table(to_table([row], SCORED)))
    assert after["clips"][0]["embedding"] == [1, 1, 1, 1]
    assert after["clips"][0]["loudness_lufs"] is None
    assert (after["clips"][0]["saliency"], after["clips"][0]["thumbnail_s"]) == (b"y", None)
    assert after["edits"][0]["transition"] == "cut"
