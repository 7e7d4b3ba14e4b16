"""What a job's nodes try: each failure is one line that says what to change."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from jobs.preflight import (
    can_read,
    can_write,
    code_key,
    reel_bytes,
    same_bundle,
    same_code,
    scratch_bytes,
    token_in,
)
from pipeline.config import load_settings
from stages.nn.weights import open_bundle


def test_a_node_reads_and_writes_what_the_driver_does(tmp_path: Path, bundle: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    output = str(tmp_path / "out")
    with token_in(output) as token:
        assert can_read(str(tmp_path / "a.mp4")) is None
        assert can_write(output, token) is None
        assert same_bundle(bundle, open_bundle(bundle).key()) is None
        assert same_code(code_key()) is None
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_of_the_drivers_machine_is_not_the_nodes(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    with token_in(str(tmp_path / "out")) as token:
        assert "seen by its own machine only" in can_write(str(elsewhere), token)
    assert not elsewhere.exists()
    assert "seen by its own machine only" in can_read(str(tmp_path / "gone.mp4"))


def test_storage_that_a_node_cannot_use_is_said_in_words(s3: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with token_in(f"{s3.uri}/out") as token:
        assert can_write(f"{s3.uri}/out", token) is None
        assert "is not the folder" in can_write(f"{s3.uri}/other", token)
    assert "the bucket does not exist" in can_read("s3://no-such-bucket-of-ours/a.mp4")


def test_a_bundle_that_is_not_the_drivers_is_said(tmp_path: Path, bundle: str) -> None:
    key = open_bundle(bundle).key()
    assert "holds other weights" in same_bundle(None, key)
    assert "does not exist" in same_bundle(str(tmp_path / "none"), key)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in Path(bundle).iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "scorer.safetensors").write_bytes(b"half of it")
    assert "is not the file that bundle.json describes" in same_bundle(str(damaged), key)


def test_other_code_is_not_run_under_the_drivers_settings_key() -> None:
    assert "other code" in same_code("0" * 64)


@pytest.mark.parametrize(
    ("target", "video_bytes", "least", "most"),
    [
        ("10%", 10**10, 10**9, 10**9),  # a share of the video is a share of its bytes
        ("60s", 10**12, 300 * 10**6, 500 * 10**6),  # of a huge one, a minute is a minute
        ("60s", 10**6, 10**6, 30 * 10**6),  # of a small one, not more than the video and its sound
    ],
)
def test_room_for_a_reel_grows_with_the_reel_and_not_with_the_library(
    target: str, video_bytes: int, least: int, most: int
) -> None:
    settings = load_settings(None, {"cut.target": target}, ())
    assert least <= reel_bytes(settings, video_bytes) <= most


def test_one_huge_video_among_small_ones_is_one_huge_reel() -> None:
    settings = load_settings(None, {"cut.target": "15%"}, ())
    sizes = pa.table({"size_bytes": pa.array([10**9] * 50 + [200 * 10**9, None], pa.int64())})
    room = scratch_bytes(SimpleNamespace(settings=settings, todo=sizes), renders=8)
    assert room.least_bytes == pytest.approx(30e9, rel=0.02)
    assert room.most_bytes == pytest.approx(2 * (30e9 + 7 * 0.15e9), rel=0.02)
    nothing = SimpleNamespace(settings=settings, todo=sizes.slice(0, 0))
    assert scratch_bytes(nothing, renders=8).least_bytes < 10**9
