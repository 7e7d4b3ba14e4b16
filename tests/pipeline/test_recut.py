"""Recut: the same cut as a run would make, from the tables and the spans that are shown; nothing else."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import cuts, recut, schema, storage, tables
from pipeline.config import Settings
from pipeline.library import LibrarySettings
from pipeline.making import make_cut
from pipeline.publish import MEDIA
from pipeline.recut import Recut, list_results, todo_of
from pipeline.recutting import as_cut
from pipeline.rows import FACTS, from_table
from stages.container import BLOCK_BYTES, open_source
from stages.cut import reel_seconds
from stages.failure import Failed
from stages.probe import describe
from tests.media import MediaFacts, Shot, make_video, read_counter, read_pictures
from tests.pipeline.analysed import analyse
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up

SECONDS = 24
PLAIN = {"effects": {"kind": "none"}, "colour": {"kind": "none"}, "codec": {"kind": "none"}}


def settings_of(bundle: str, target: str = "6s") -> Settings:
    return Settings.model_validate(PLAIN | {"cut": {"target": target}, "bundle": bundle})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, bundle: str) -> tuple[Path, MediaFacts]:
    """An OUTPUT that knows one video, and that video."""
    folder = tmp_path_factory.mktemp("recut")
    (folder / "library").mkdir()
    shots = [Shot(SECONDS / 8, look, 0.05 + 0.1 * (look % 3)) for look in range(8)]
    facts = make_video(folder / "library" / "film.mp4", shots=shots, fps=29.97)
    analyse(folder / "library", folder / "output", settings_of(bundle, "12s"))
    return folder / "output", facts


@pytest.fixture
def output(made: tuple[Path, MediaFacts]) -> Iterator[Path]:
    yield made[0]
    for path, _ in list(storage.walk(str(made[0] / "media"))):
        (made[0] / "media" / path).unlink()


def row_of(output: Path, name: str = "short") -> dict:
    videos = list_results(str(output), LibrarySettings())
    return next(from_table(todo_of(videos, name, "s1", {})))


def test_the_reel_shows_exactly_the_frames_of_its_edits(output: Path, made: tuple, bundle: str) -> None:
    _, facts = made
    done = Recut(settings_of(bundle), str(output))(row_of(output))
    reel = output / done["reel"]["uri"]
    assert done["reel"]["uri"] == f"{cuts.place_of(done)}/reel.mp4"
    assert done["reel"]["uri"].startswith(f"media/{done['video_id']}/short/")
    assert done["reel"]["duration_s"] == pytest.approx(6, abs=0.1)
    shown = [read_counter(picture) for picture in read_pictures(reel)]
    expected = [
        number
        for edit in done["edits"]
        for number, at in enumerate(facts.times_s)
        if edit["source_start_s"] - 1e-3 <= at < edit["source_end_s"] - 1e-3
    ]
    assert len(shown) == pytest.approx(len(expected), abs=len(done["edits"]))
    assert set(shown) <= {*expected, *(number + 1 for number in expected)}


def test_clips_are_cut_anew_for_the_new_length(output: Path, bundle: str) -> None:
    """Those of the run are as long as its reel allows; a shorter reel wants shorter ones, and more."""
    known = Recut(settings_of(bundle), str(output)).recall(row_of(output))
    stored = tables.read(str(output), "clips", ["start_s", "end_s", "score"])
    again = make_cut(settings_of(bundle, "12s"))(known)
    spans = [(clip["start_s"], clip["end_s"]) for clip in again["clips"]]
    assert spans == list(zip(stored["start_s"].to_pylist(), stored["end_s"].to_pylist(), strict=True))
    scores = [clip["score"] for clip in again["clips"]]
    assert scores == pytest.approx(stored["score"].to_pylist(), abs=1e-5)
    short = make_cut(settings_of(bundle, "6s"))(known)
    longest = max(edit["source_end_s"] - edit["source_start_s"] for edit in short["edits"])
    assert longest <= 2.4 + 1e-6
    assert reel_seconds(short["edits"]) == pytest.approx(6, abs=0.1)


def test_edits_name_their_source_and_the_clip_that_is_shown(output: Path, made: tuple, bundle: str) -> None:
    done = Recut(settings_of(bundle), str(output))(row_of(output))
    clips = {clip["clip"]: clip for clip in tables.read(str(output), "clips").to_pylist()}
    for edit in done["edits"]:
        middle = (edit["source_start_s"] + edit["source_end_s"]) / 2
        assert clips[edit["clip"]]["start_s"] <= middle <= clips[edit["clip"]]["end_s"]
        assert (edit["uri"], edit["video_id"]) == (made[1].uri, done["video_id"])


def test_nothing_is_decoded_but_the_chosen_spans(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the header was looked at, whose facts stand in the table")

    monkeypatch.setattr(recut, "describe", refuse)
    done = Recut(settings_of(bundle, "3s"), str(output))(row_of(output))
    whole = row_of(output)["size_bytes"]
    assert 0 < done["read_bytes"] < 0.5 * whole


def test_bytes_read_stand_beside_the_size_of_the_source(output: Path, bundle: str) -> None:
    done = as_cut(Recut(settings_of(bundle, "3s"), str(output))(row_of(output)))
    cuts.Known(str(output)).write([done])
    (row,) = cuts.read(str(output)).to_pylist()
    assert row["read_bytes"] == done["read_bytes"]
    assert row["source_bytes"] == row_of(output)["size_bytes"]
    cuts.drop(str(output), [cuts.key_of(row)])


def test_a_source_that_has_changed_is_refused(tmp_path: Path, bundle: str) -> None:
    library = tmp_path / "library"
    library.mkdir()
    make_video(library / "a.mp4", seconds=6, shots=3)
    analyse(library, tmp_path / "out", settings_of(bundle, "3s"))
    make_video(library / "a.mp4", seconds=6.2, shots=3)
    with pytest.raises(Failed, match="changed since it was analysed"):
        Recut(settings_of(bundle, "2s"), str(tmp_path / "out"))(row_of(tmp_path / "out"))
    (library / "a.mp4").unlink()
    with pytest.raises(Failed, match="does not exist"):
        Recut(settings_of(bundle, "2s"), str(tmp_path / "out"))(row_of(tmp_path / "out"))
    assert not list((tmp_path / "out").glob(f"{MEDIA}/**/*.mp4"))


def test_of_a_store_only_what_is_shown_is_fetched(s3, tmp_path: Path, bundle: str) -> None:
    """And a version that is not the analysed one is refused by its ETag."""
    film = tmp_path / "film.mp4"
    noise = np.random.default_rng(1).normal(0, 0.1, (48000 * 40, 2)).astype(np.float32)
    options = {"crf": "4", "preset": "ultrafast"}
    make_video(
        film,
        shots=[Shot(8, 0), Shot(8, 1), Shot(8, 2), Shot(8, 3), Shot(8, 4)],
        audio=noise,
        size=(640, 360),
        options=options,
        gop=25,
    )
    storage.put_file(film, f"{s3.uri}/library/film.mp4")
    output = f"{s3.uri}/out"
    analyse(f"{s3.uri}/library", output, settings_of(bundle, "12s"))
    row = row_of(output)
    done = Recut(settings_of(bundle, "3s"), output)(row)
    # Each span is opened several times, and what is read ahead of it is many times as long.
    blocks = 1 + 3 * len(done["edits"])
    assert 0 < done["read_bytes"] <= blocks * BLOCK_BYTES < row["size_bytes"]
    assert done["reel"]["uri"].startswith(f"media/{row['video_id']}/short/")
    assert storage.exists(f"{output}/{done['reel']['uri']}")
    storage.write_bytes(f"{s3.uri}/library/film.mp4", film.read_bytes() + b"more")
    with pytest.raises(Failed, match="changed"):
        Recut(settings_of(bundle, "3s"), output)(row)


def test_every_fact_that_a_render_is_given_stands_in_the_table(output: Path, made: tuple) -> None:
    assert set(FACTS.names) <= set(schema.VIDEOS.names)
    (video,) = tables.read(str(output), "videos").to_pylist()
    with open_source(made[1].uri) as source:
        facts = describe(source)
    known = {name: video[name] for name in FACTS.names if name != "duration_s"}
    assert known == {name: facts[name] for name in known}


def test_only_the_newest_version_of_a_file_is_cut(tmp_path: Path) -> None:
    for made in (made_up(result("old", uri="/a.mp4")), made_up(result("new", minutes=1, uri="/a.mp4"))):
        tables.write_part(str(tmp_path), part_of(made), made)
    assert [row["video_id"] for row in list_results(str(tmp_path), LibrarySettings())] == ["new"]


def test_videos_are_chosen_by_the_globs_that_choose_files_of_a_library(tmp_path: Path) -> None:
    uris = ("s3://cam/2024/may/a.MP4", "s3://cam/2024/b.mov", "s3://cam/2025/c.mov")
    made = made_up(*(result(uri[-5], uri=uri) for uri in uris))
    tables.write_part(str(tmp_path), part_of(made), made)

    def chosen(**globs: object) -> str:
        rows = list_results(str(tmp_path), LibrarySettings.model_validate(globs))
        return "".join(row["video_id"] for row in rows)

    assert chosen(include=["2024/**/*.m*"]) == chosen(include=["2024/**"]) == "ba"
    assert chosen(include=["*.mp4"]) == chosen(exclude=["*.mov"]) == "a"
    assert chosen(include=["s3://cam/2025/*"]) == "c"
    # As below a library: a star does not go over a slash.
    assert chosen(include=["2024/*"]) == "b"


def test_the_same_again_has_nothing_to_do_until_the_result_changes(output: Path) -> None:
    videos = list_results(str(output), LibrarySettings())
    (video,) = videos
    assert len(todo_of(videos, "x", "s1", {})) == 1
    assert len(todo_of(videos, "x", "s1", {video["video_id"]: video["settings_key"]})) == 0
    assert len(todo_of(videos, "x", "s1", {video["video_id"]: "analysed otherwise"})) == 1
