"""The whole job on one library, good and bad files together, on a local Ray."""

import dataclasses
import io
import itertools
import json
import math
import re
from pathlib import Path

import av
import duckdb
import numpy as np
import pandas as pd
import pytest
from av.error import FFmpegError
from PIL import Image

from jobs.highlights import COULD_NOT_START, DONE, SOME_FAILED, Options, highlights
from pipeline import tables
from pipeline.config import load_settings
from pipeline.steps import make_score
from stages.features import ExtractFeatures, FeatureSettings
from stages.nn.weights import open_bundle
from tests.media import Shot, make_audio_only, make_empty, make_text, make_truncated, make_video

GOOD = {
    "plain.mp4": {"seconds": 12, "shots": 4},
    "silent.mkv": {"seconds": 8, "shots": 3, "audio": None},
    "vfr.mp4": {"seconds": 8, "shots": 3, "vfr": True},
    "odd.mp4": {"seconds": 6, "size": (161, 91), "pixel_format": "yuv444p"},
    "ten_bit.mkv": {"seconds": 6, "pixel_format": "yuv420p10le", "codec": "libx265"},
    "turned.mp4": {"seconds": 6, "rotation": 90},
    "late <b>&name.ts": {"seconds": 6, "start_s": 1000.0},
}
DROPPED = {"sound.mp4", "one_frame.mp4"}
FAILED = {"empty.mp4", "text.mp4", "cut_off.mp4"}
TARGET_S = 4.0


def make_library(folder: Path) -> None:
    folder.mkdir()
    for name, kind in GOOD.items():
        make_video(folder / name, **kind)
    make_audio_only(folder / "sound.mp4")
    make_video(folder / "one_frame.mp4", seconds=0.04, audio=None)
    make_empty(folder / "empty.mp4")
    make_text(folder / "text.mp4")
    make_truncated(folder / "cut_off.mp4", folder / "plain.mp4")
    (folder / "notes.txt").write_text("not a video")


class Finished:
    def __init__(self, library: Path, output: Path, options: Options, code: int):
        self.library, self.output, self.options, self.code = library, output, options, code

    def read(self, table: str) -> pd.DataFrame:
        return pd.concat(pd.read_parquet(part) for part in sorted((self.output / table).glob("*.parquet")))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, bundle: str, ray_local: None) -> Finished:
    folder = tmp_path_factory.mktemp("flow")
    library, output = folder / "library", folder / "output"
    make_library(library)
    flags = (("cut.target", f"{TARGET_S}s"), ("bundle", bundle), ("render.clips", True))
    options = Options(str(library), str(output), flags=flags)
    return Finished(library, output, options, highlights(options))


def test_every_file_ends_as_ok_dropped_or_failed(done: Finished) -> None:
    assert done.code == SOME_FAILED
    videos = done.read("videos")
    status = {Path(uri).name: status for uri, status in zip(videos["uri"], videos["status"], strict=True)}
    assert status == (
        dict.fromkeys(GOOD, "ok") | dict.fromkeys(DROPPED, "dropped") | dict.fromkeys(FAILED, "failed")
    )


def test_failures_say_where_and_why_in_words(done: Finished) -> None:
    failures = done.read("failures")
    assert {Path(uri).name for uri in failures["uri"]} == DROPPED | FAILED
    reasons = {
        Path(uri).name: reason for uri, reason in zip(failures["uri"], failures["reason"], strict=True)
    }
    assert "empty" in reasons["empty.mp4"]
    assert "audio only" in reasons["sound.mp4"]
    assert "too short" in reasons["one_frame.mp4"]
    assert failures["trace"].isna().all()


def test_reels_decode_and_are_as_long_as_asked(done: Finished) -> None:
    reels = done.read("reels")
    assert len(reels) == len(GOOD)
    for reel in reels.itertuples():
        video_s, audio_s = decode_all(done.output / reel.uri)
        assert video_s == pytest.approx(reel.duration_s, abs=0.05)
        assert video_s == pytest.approx(TARGET_S, abs=0.5)
        if audio_s is not None:
            assert audio_s == pytest.approx(video_s, abs=0.05)


def decode_all(path: Path) -> tuple[float, float | None]:
    """Ends of video and audio; decoding must not meet an error."""
    ends = {"video": 0.0, "audio": None}
    with av.open(str(path)) as container:
        for packet in container.demux(*container.streams.video, *container.streams.audio):
            try:
                frames = packet.decode()
            except FFmpegError as error:
                raise AssertionError(f"{path}: {error}") from error
            for frame in frames:
                if isinstance(frame, av.AudioFrame):
                    ends["audio"] = frame.time + frame.samples / frame.sample_rate
                else:
                    ends["video"] = frame.time + float(frame.duration * frame.time_base)
    return ends["video"], ends["audio"]


def test_tables_join_and_have_their_shapes(done: Finished) -> None:
    clips, videos = done.read("clips"), done.read("videos")
    joined = clips.merge(videos, on=["video_id", "settings_key"])
    assert len(joined) == len(clips) == videos["clips"].sum()
    assert {len(embedding) for embedding in clips["embedding"]} == {len(clips["embedding"].iloc[0])}
    assert np.linalg.norm(np.stack(clips["embedding"]), axis=1) == pytest.approx(1, abs=1e-3)
    assert clips["score"].between(0, 1).all()
    assert clips.groupby("video_id")["chosen"].sum().gt(0).all()
    for thumbnail in clips["thumbnail"]:
        Image.open(io.BytesIO(thumbnail)).verify()
    assert (
        clips.groupby("video_id")["rank"]
        .apply(lambda ranks: sorted(ranks) == [*range(1, len(ranks) + 1)])
        .all()
    )
    shown = clips[clips["saliency"].notna()]
    assert len(shown)
    assert shown["chosen"].all()
    for clip in shown.itertuples():
        sizes = {Image.open(io.BytesIO(data)).size for data in (clip.saliency, clip.thumbnail)}
        assert len(sizes) == 1
    proxies = done.read("proxies")
    assert proxies.groupby("video_id").size().to_dict() == {
        row.video_id: row.samples for row in videos[videos["status"] == "ok"].itertuples()
    }


@pytest.mark.parametrize("enabled", [True, False])
def test_overlays_can_be_switched_off(bundle: str, enabled: bool) -> None:
    rng, count = np.random.default_rng(0), 40
    pictures = rng.integers(0, 255, (5, 108, 192, 3), np.uint8) // np.arange(1, 6)[:, None, None, None]
    features = ExtractFeatures(FeatureSettings(), open_bundle(bundle))({"frames": pictures.astype(np.uint8)})
    thumbnails = [io.BytesIO() for _ in pictures]
    for picture, file in zip(pictures.astype(np.uint8), thumbnails, strict=True):
        Image.fromarray(picture).save(file, "JPEG")
    row = {
        "times_s": np.arange(count) / 2,
        "features": features["features"].repeat(8, axis=0),
        "motion": rng.random(count).astype(np.float32) / 10,
        "motion_std": rng.random(count).astype(np.float32) / 50,
        "luma": np.full(count, 0.5, np.float32),
        "loudness": np.empty(0, np.float32),
        "cuts_s": np.array([4.0, 8.0, 12.0, 16.0]),
        "thumbnails": [thumbnails[k // 8].getvalue() for k in range(count)],
        "duration_s": count / 2,
        "shard_log": [{"start_s": 0.0}],
    }
    settings = load_settings(None, {"bundle": bundle, "cut.target": "6s", "saliency.enabled": enabled}, ())
    clips = make_score(settings)(row)["clips"]
    assert any(clip["chosen"] for clip in clips)
    assert any(clip.get("saliency") for clip in clips) == enabled


def test_duckdb_reads_every_table(done: Finished) -> None:
    for table in ("videos", "clips", "proxies", "reels", "failures"):
        rows = duckdb.sql(f"select count(*) from '{done.output}/{table}/*.parquet'").fetchall()[0][0]
        assert rows == len(done.read(table))


def test_query_of_the_readme_runs(done: Finished) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    query = re.search(r"```sql\n(.*?)```", readme, re.DOTALL)[1].replace("'out/", f"'{done.output}/")
    rows = duckdb.sql(query).df()
    assert list(rows.columns) == ["uri", "start_s", "end_s", "score", "loudness_lufs"]
    assert 0 < len(rows) <= 20


def test_times_in_the_tables_are_those_of_the_source(done: Finished) -> None:
    videos = done.read("videos").set_index(done.read("videos")["uri"].map(lambda uri: Path(uri).name))
    late = videos.loc["late <b>&name.ts"]
    assert late["start_s"] == pytest.approx(1000, abs=1)
    assert late["times_s"][0] < 0.5
    assert late["duration_s"] == pytest.approx(6, abs=0.2)
    turned = videos.loc["turned.mp4"]
    assert turned["width"] < turned["height"]
    assert videos.loc["vfr.mp4", "variable_rate"]


def test_single_clips_are_written_when_asked(done: Finished) -> None:
    for reel in done.read("reels").itertuples():
        clips = [file for file in reel.files if "/clip-" in file]
        assert len(clips) == len(reel.edits)
        assert all((done.output / file).stat().st_size > 0 for file in reel.files)


def test_record_of_the_run(done: Finished) -> None:
    (file,) = (done.output / "runs").glob("*.json")
    record = json.loads(file.read_text())
    assert record["state"] == "finished"
    assert record["counts"]["ok"] == len(GOOD)
    assert record["counts"]["listed"] == len(GOOD) + len(DROPPED) + len(FAILED)
    assert record["stages"]["decode"]["cpu_s"] > 0
    assert {"ray", "torch", "av"} <= set(record["versions"])


def test_second_run_does_nothing_twice(done: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.output.rglob("*") if "report" not in path.parts}
    assert highlights(done.options) == SOME_FAILED  # the broken files are still broken
    after = {path: path.stat().st_mtime_ns for path in done.output.rglob("*") if "report" not in path.parts}
    assert {path: time for path, time in after.items() if path.is_file()} == {
        path: time for path, time in before.items() if path.is_file()
    }


def test_failed_videos_are_planned_again_when_asked(done: Finished, capfd: pytest.CaptureFixture) -> None:
    assert highlights(dataclasses.replace(done.options, retry_failed=True, dry_run=True)) == DONE
    assert f"{len(DROPPED) + len(FAILED)} to do" in capfd.readouterr().err


def test_new_video_is_the_only_one_processed(done: Finished) -> None:
    make_video(done.library / "new.mp4", seconds=5)
    try:
        before = {path.name for path in (done.output / "videos").iterdir()}
        assert highlights(done.options) == SOME_FAILED
        added = {path.name for path in (done.output / "videos").iterdir()} - before
        assert len(added) == 1
        assert len(tables.read(str(done.output), "videos")) == len(GOOD) + len(DROPPED) + len(FAILED) + 1
    finally:
        (done.library / "new.mp4").unlink()


def test_report_is_there_and_names_are_harmless(done: Finished) -> None:
    page = (done.output / "report" / "index.html").read_text()
    assert "plain.mp4" in page
    assert "late <b>" not in page
    assert "late &lt;b&gt;" in page


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory, bundle: str, ray_local: None) -> pd.DataFrame:
    """Two short videos and one of 15 minutes, one keyframe a second."""
    folder = tmp_path_factory.mktemp("long")
    library = folder / "library"
    library.mkdir()
    shots = [Shot(6.0, look) for look in range(10)]
    minute = make_video(folder / "minute.mp4", shots=shots, fps=25, size=(320, 180), gop=25).path
    repeat(minute, library / "z_long.mp4", 15)
    for name in ("a.mp4", "b.mp4"):
        make_video(library / name, seconds=4)
    output = folder / "output"
    flags = (("cut.target", "4s"), ("bundle", bundle), ("codec.kind", "none"), ("colour.kind", "none"))
    assert highlights(Options(str(library), str(output), flags=flags)) == DONE
    return pd.concat(pd.read_parquet(part) for part in (output / "videos").glob("*.parquet"))


def repeat(source: Path, target: Path, times: int) -> None:
    """The packets of `source`, `times` times end to end."""
    with av.open(str(target), "w") as out:
        with av.open(str(source)) as first:
            streams = {stream.index: out.add_stream_from_template(stream) for stream in first.streams}
            packets = [packet for packet in first.demux() if packet.dts is not None]
            first_s = min(packet.dts * packet.time_base for packet in packets)
            last_s = max((packet.pts + packet.duration) * packet.time_base for packet in packets)
            length_s = math.ceil((last_s - first_s) * 25) / 25  # sound begins a little before the pictures
        for turn in range(times):
            with av.open(str(source)) as again:
                for packet in again.demux():
                    if packet.dts is None:
                        continue
                    shift = round(turn * length_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)


def test_first_reel_is_published_before_the_last_video_is_decoded(long_run: pd.DataFrame) -> None:
    decoded_at = [shard["decode_finished_at"] for log in long_run["shard_log"] for shard in log]
    assert long_run["published_at"].min() < pd.Timestamp(max(decoded_at))


def test_one_long_video_is_decoded_by_two_tasks_at_once(long_run: pd.DataFrame) -> None:
    log = max(long_run["shard_log"], key=len)
    assert len(log) == 15
    spans = sorted(
        (shard["decode_started_at"], shard["decode_finished_at"], shard["worker"]) for shard in log
    )
    overlapping = [
        (first, second)
        for first, second in itertools.pairwise(spans)
        if second[0] < first[1] and second[2] != first[2]
    ]
    assert overlapping
    assert sum(shard["frames"] for shard in log) == 15 * 60 * 25


@pytest.mark.parametrize(
    ("library", "words"),
    [("nowhere", "cannot list"), ("empty", "no videos"), ("s3://reelmap-no-such-bucket/x", "cannot list")],
)
def test_what_cannot_start_says_why(
    library: str, words: str, tmp_path: Path, bundle: str, capfd: pytest.CaptureFixture, s3: object
) -> None:
    (tmp_path / "empty").mkdir()
    uri = library if "://" in library else str(tmp_path / library)
    assert highlights(Options(uri, str(tmp_path / "out"), flags=(("bundle", bundle),))) == COULD_NOT_START
    assert words in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dry_run_counts_and_writes_nothing(tmp_path: Path, bundle: str, capfd: pytest.CaptureFixture) -> None:
    library = tmp_path / "library"
    library.mkdir()
    make_video(library / "a.mp4", seconds=36)
    make_text(library / "b.mp4")
    options = Options(str(library), str(tmp_path / "out"), flags=(("bundle", bundle),), dry_run=True)
    assert highlights(options) == DONE
    said = capfd.readouterr().err
    assert "2 videos" in said
    assert "0.01 hours" in said
    assert not (tmp_path / "out").exists()
