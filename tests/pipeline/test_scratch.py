"""Rows between processes: read where they lie, and nothing is left of what did not fit on the disk."""

import errno
import os
import pickle
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import scratch
from pipeline.rows import GATHERED, LOOKED, from_table, to_table
from stages.blobs import Blobs, Part


def looked(number: int = 0) -> dict:
    return {
        "video_id": "v",
        "shard": number,
        "times_s": np.arange(3) / 2,
        "features": np.full((3, 4), number, np.float16),
        "thumbnails": [b"%d-%d" % (number, k) for k in range(3)],
        "codes": [],
    }


def through(row: dict, schema: pa.Schema) -> dict:
    (row,) = from_table(to_table([row], schema))
    return row


def test_a_row_is_mapped_and_its_blobs_are_read_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = pa.total_allocated_bytes()
    file = scratch.put(looked(), LOOKED)
    opened = []
    monkeypatch.setattr(scratch, "table", lambda file, real=scratch.table: opened.append(file) or real(file))
    row = scratch.take(file)
    assert len(opened) == 1
    before_it = len(pickle.dumps(row["thumbnails"]))
    assert row["thumbnails"][0] == b"0-0"
    assert len(opened) == 2
    assert len(pickle.dumps(row["thumbnails"])) == before_it
    assert pa.total_allocated_bytes() - before < file.stat().st_size / 4
    assert list(row["thumbnails"]) == [b"0-0", b"0-1", b"0-2"]
    assert list(row["codes"]) == []
    file.unlink()
    assert row["features"].tolist() == [[0] * 4] * 3
    assert row["motion"] is None


def test_what_does_not_fit_on_the_disk_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = pa.OSFile
    monkeypatch.setattr(pa, "OSFile", lambda _, mode: file("/dev/full", mode))
    with pytest.raises(OSError, match="No space left") as raised:
        scratch.put(looked(), LOOKED)
    assert raised.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_of_joined_blobs_one_part_is_open_at_a_time() -> None:
    opened: list[int] = []

    def load(number: int) -> pa.Array:
        opened.append(number)
        return pa.array([b"%d-%d" % (number, k) for k in range(2)], pa.large_binary())

    blobs = Blobs.joined(Blobs([Part(2, partial(load, number))]) for number in range(3))
    assert not opened
    assert [blobs[k] for k in (0, 1, 4, -1, 2)] == [b"0-0", b"0-1", b"2-0", b"2-1", b"1-0"]
    assert opened == [0, 2, 1]
    assert len(blobs) == len(list(blobs)) == 6
    with pytest.raises(IndexError):
        blobs[6]


def test_blobs_of_shards_are_joined_in_place_and_copied_only_into_one_table() -> None:
    parts = [through(looked(number), LOOKED)["thumbnails"] for number in range(2)]
    before = pa.total_allocated_bytes()
    joined = Blobs.joined(parts)
    assert pa.total_allocated_bytes() == before
    assert [joined[k] for k in (0, 3, -1)] == [b"0-0", b"1-0", b"1-2"]
    table = to_table([{"thumbnails": joined}], GATHERED)
    assert table["thumbnails"].to_pylist() == [list(joined)]
    again = through({"thumbnails": joined}, GATHERED)["thumbnails"]
    address = again.whole().buffers()[2].address
    column = to_table([{"thumbnails": again}], GATHERED)["thumbnails"].chunk(0)
    assert column.values.buffers()[2].address == address


def test_what_a_killed_run_has_left_goes_with_the_next_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long_ago = time.time() - 3600
    hold = "with scratch.folder() as name: print(name, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", f"import time; from pipeline import scratch\n{hold}"]
    run = partial(
        subprocess.Popen, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    with run(command) as killed, run(command) as alive:
        left, used = (Path(process.stdout.readline().strip()) for process in (killed, alive))
        killed.kill()
        killed.wait()
        (left / "row-1.arrow").write_bytes(b"half")
        other = tmp_path / "reelmap-other"
        other.mkdir()
        for place in (left, used, other):
            os.utime(place, (long_ago, long_ago))
        with scratch.folder() as young:
            assert sorted(tmp_path.iterdir()) == sorted([used, other, Path(young)])
            with scratch.folder():
                assert Path(young).exists()
        assert sorted(tmp_path.iterdir()) == sorted([used, other])
        alive.kill()
