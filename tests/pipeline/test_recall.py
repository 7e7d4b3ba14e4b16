"""An archive scored again from its proxies: the videos themselves are gone, and nearly the same comes out."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.highlights import COULD_NOT_START, DONE, SOME_FAILED, Options, highlights
from pipeline.archived import list_archive
from pipeline.config import load_settings
from pipeline.library import LibrarySettings
from pipeline.recall import Recall
from pipeline.tables import read
from stages.nn.weights import open_bundle
from tests.bundles import make_bundle
from tests.media import make_video


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, bundle: str, ray_local: None) -> Path:
    """The OUTPUT of a run over two videos that are then deleted."""
    folder = tmp_path_factory.mktemp("recall")
    (folder / "library").mkdir()
    make_video(folder / "library/a.mp4", seconds=8, shots=4)
    make_video(folder / "library/b.mkv", seconds=6, shots=3, audio=None, size=(320, 180))
    options = Options(str(folder / "library"), str(folder / "output"), flags=flags(bundle))
    assert highlights(options) == DONE
    shutil.rmtree(folder / "library")
    return folder / "output"


def flags(bundle: str, *more: tuple[str, object]) -> tuple[tuple[str, object], ...]:
    return (("cut.target", "3s"), ("bundle", bundle), *more)


def rows(output: Path, table: str) -> pd.DataFrame:
    return read(str(output), table).to_pandas()


def test_scores_and_clips_come_from_the_proxies_alone(archive: Path, bundle: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert highlights(Options(str(archive), str(out), flags=flags(bundle), from_proxies=True)) == DONE
    before, after = rows(archive, "videos"), rows(out, "videos")
    same = [
        "video_id",
        "uri",
        "size_bytes",
        "width",
        "height",
        "duration_s",
        "shots",
        "samples",
        "video_codec",
    ]
    pd.testing.assert_frame_equal(before[same], after[same])
    for name in ("times_s", "cuts_s", "motion", "motion_std", "luma", "loudness_lufs", "speech", "flashes_s"):
        for stored, again in zip(before[name], after[name], strict=True):
            assert np.array_equal(stored, again), name
    clips = rows(out, "clips")
    assert clips[["video_id", "clip", "start_s", "end_s"]].equals(
        rows(archive, "clips")[["video_id", "clip", "start_s", "end_s"]]
    )
    assert clips.groupby("video_id")["chosen"].sum().gt(0).all()
    assert clips["thumbnail"].str.len().gt(100).all()
    vectors = np.stack(clips["embedding"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    assert np.ptp(vectors, axis=0).max() > 1e-3  # untrained networks hardly tell pictures apart
    assert not len(rows(out, "reels"))
    assert (out / "report/index.html").exists()
    # A second time there is nothing left to do.
    assert highlights(Options(str(archive), str(out), flags=flags(bundle), from_proxies=True)) == DONE
    assert len(rows(out, "videos")) == 2


def test_tables_without_speech_are_read_as_if_nothing_were_known_of_it(
    archive: Path, bundle: str, tmp_path: Path
) -> None:
    older = tmp_path / "archive"
    shutil.copytree(archive, older)
    for part in (older / "videos").glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(["speech", "flashes_s"]), part)
    models = open_bundle(bundle)
    (first, *_) = list_archive(str(older), LibrarySettings(), models).to_pylist()
    recalled = Recall(str(older), load_settings(None, dict(flags(bundle)), ()), models)(first)
    assert len(recalled["speech"]) == len(recalled["flashes_s"]) == 0
    assert len(recalled["times_s"])


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (LibrarySettings(), ["a.mp4", "b.mkv"]),
        (LibrarySettings(include=("*.MKV",)), ["b.mkv"]),
        (LibrarySettings(exclude=("library/b*",)), ["a.mp4"]),
        (LibrarySettings(limit=1), ["a.mp4"]),
    ],
)
def test_an_archive_is_listed_like_a_library(
    archive: Path, bundle: str, settings: LibrarySettings, names: list[str]
) -> None:
    listed = list_archive(str(archive), settings, open_bundle(bundle))
    assert [Path(uri).name for uri in listed["uri"].to_pylist()] == names


def test_a_bundle_that_did_not_make_the_proxies_cannot_start(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_bundle(str(tmp_path / "other"), seed=1)
    options = Options(str(archive), str(tmp_path / "out"), flags=flags(other), from_proxies=True)
    assert highlights(options) == COULD_NOT_START
    assert "made by another codec" in capsys.readouterr().err


def test_an_empty_archive_cannot_start(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    options = Options(str(tmp_path / "empty"), str(tmp_path / "out"), flags=flags(bundle), from_proxies=True)
    assert highlights(options) == COULD_NOT_START
    assert "no results of reelmap" in capsys.readouterr().err


def test_a_video_whose_proxies_are_lost_fails_alone(archive: Path, bundle: str, tmp_path: Path) -> None:
    broken = tmp_path / "archive"
    shutil.copytree(archive, broken)
    part = next((broken / "proxies").glob("*.parquet"))
    table = pq.read_table(part)
    first = table["video_id"][0].as_py()
    codes = [
        code[:-4] if video_id == first else code
        for video_id, code in zip(table["video_id"].to_pylist(), table["code"].to_pylist(), strict=True)
    ]
    field = table.schema.field("code")
    pq.write_table(
        table.set_column(table.schema.get_field_index("code"), field, pa.array(codes, field.type)), part
    )
    out = tmp_path / "out"
    assert highlights(Options(str(broken), str(out), flags=flags(bundle), from_proxies=True)) == SOME_FAILED
    failures = rows(out, "failures")
    assert failures["video_id"].tolist() == [first]
    assert "checksum" in failures["reason"].iloc[0]
    assert (rows(out, "videos")["status"] == "ok").sum() == 1
