"""The table of cuts: named, newest counts, a failure takes nothing away, a kill leaves nothing half done."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import cuts, storage, tables
from pipeline.cuts import Known
from tests.pipeline.kill import Kill
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up

START = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    where = str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3").uri + "/out"
    publish(where, "a", "b")
    return where


def publish(output: str, *names: str) -> None:
    """Results of a run, without their media."""
    made = made_up(*(result(name) for name in names))
    tables.write_part(output, part_of(made), made)


def cut(
    video_id: str | None,
    name: str = "social",
    key: str = "s1",
    at: int = 0,
    made_from: str = "k1",
    **more: object,
) -> dict:
    folder = cuts.folder_of(video_id, name)
    return {
        "video_id": video_id,
        "name": name,
        "settings_key": key,
        "made_from": made_from,
        "status": "ok",
        "uri": f"{folder}/reel.mp4",
        "files": [f"{folder}/poster.jpg"],
        "edits": [],
        "made_at": START + timedelta(minutes=at),
    } | more


def failed(video_id: str, at: int, **more: object) -> dict:
    nothing = {"status": "failed", "stage": "render", "reason": "gone", "uri": None, "files": None}
    return cut(video_id, at=at, **nothing | more)


def put(output: str, *rows: dict) -> None:
    for row in rows:
        for path in cuts.files_of(row):
            storage.write_bytes(storage.join(output, path), b"media")
    cuts.write(output, list(rows))


def counting(output: str) -> list[tuple]:
    rows = cuts.read(output, ["video_id", "name", "settings_key", "status"]).to_pylist()
    return [tuple(row.values()) for row in rows]


def media(output: str) -> set[str]:
    return {path for path, _ in storage.walk(f"{output}/media")}


def test_cuts_of_one_video_stand_side_by_side_by_name(output: str) -> None:
    put(output, cut("a", "film"), cut("a", "social"), cut(None, "best-of-may"))
    assert counting(output) == [
        ("a", "film", "s1", "ok"),
        ("a", "social", "s1", "ok"),
        (None, "best-of-may", "s1", "ok"),
    ]
    assert media(output) >= {"a/film/reel.mp4", "a/social/reel.mp4", "library/best-of-may/reel.mp4"}


def test_of_one_name_the_newest_good_one_counts(output: str) -> None:
    put(output, cut("a", key="s1"))
    put(output, cut("a", key="s2", at=1))
    assert counting(output) == [("a", "social", "s2", "ok")]


def test_an_attempt_that_failed_takes_nothing_away(output: str) -> None:
    put(output, cut("a"))
    # Of the same settings, from the same result: even its part stays.
    put(output, failed("a", at=1))
    assert counting(output) == [("a", "social", "s1", "failed"), ("a", "social", "s1", "ok")]
    Known(output).sweep()
    assert len(counting(output)) == 2
    assert "a/social/reel.mp4" in media(output)
    assert Known(output).done("social", "s1") == {"a": "k1"}


def test_a_failure_is_forgotten_when_the_next_attempt_is_good(output: str) -> None:
    put(output, failed("a", at=0))
    put(output, cut("a", at=1))
    assert counting(output) == [("a", "social", "s1", "ok")]


def test_done_are_those_of_that_name_and_these_settings(output: str) -> None:
    put(output, cut("a"), cut("b", key="s2"), cut("a", "film", key="s1"), failed("b", 1, name="film"))
    assert Known(output).done("social", "s1") == {"a": "k1"}
    assert Known(output).done("film", "s1") == {"a": "k1"}


def test_sweep_removes_what_was_replaced_and_nothing_else(output: str) -> None:
    put(output, cut("a", files=["media/a/social/poster.jpg", "media/a/social/clip-001.mp4"]), cut("b"))
    put(output, cut("a", key="s2", at=1))
    before = counting(output)
    assert Known(output).sweep() == 1
    assert counting(output) == before
    expected = {f"{video}/social/{name}" for video in "ab" for name in ("reel.mp4", "poster.jpg")}
    assert media(output) == expected
    assert Known(output).sweep() == 0


def test_sweep_removes_cuts_of_videos_that_are_gone(output: str) -> None:
    put(output, cut("a"), cut("gone"), cut(None, "best"))
    Known(output).sweep()
    assert [row[0] for row in counting(output)] == ["a", None]
    assert not any(path.startswith("gone/") for path in media(output))


def test_a_run_leaves_cuts_where_they_are(output: str) -> None:
    put(output, cut("a"))
    publish(output, "a", "b")
    tables.sweep(output)
    assert counting(output) == [("a", "social", "s1", "ok")]
    assert "a/social/reel.mp4" in media(output)


def test_drop_removes_a_cut_and_its_files(output: str) -> None:
    put(output, cut("a"), cut("a", "film"))
    cuts.drop(output, [("a", "film")])
    assert counting(output) == [("a", "social", "s1", "ok")]
    assert media(output) == {"a/social/reel.mp4", "a/social/poster.jpg"}


def test_files_that_a_row_names_elsewhere_are_not_touched(output: str) -> None:
    storage.write_bytes(f"{output}/media/b/reel.mp4", b"another's")
    put(output, cut("a", files=["media/b/reel.mp4", "media/a/social/../../b/reel.mp4", "videos/x.parquet"]))
    cuts.drop(output, [("a", "social")])
    assert "b/reel.mp4" in media(output)


def test_a_kill_at_any_moment_of_a_sweep_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    publish(output, "a", "b")
    put(output, cut("a", files=["media/a/social/clip-001.mp4"]), cut("b"))
    put(output, cut("a", key="s2", at=1))
    before = counting(output)
    kill = Kill(monkeypatch)
    for left in range(20):
        kill.left = left
        try:
            Known(output).sweep()
        except KeyboardInterrupt:
            kill.left = 1000
            assert counting(output) == before
            assert media(output) >= {"a/social/reel.mp4", "b/social/reel.mp4", "b/social/poster.jpg"}
            continue
        break
    assert left > 1
    kill.left = 1000
    assert counting(output) == before
    assert "a/social/clip-001.mp4" not in media(output)
    assert len(tables.list_parts(output, "cuts")) == 2


@pytest.mark.parametrize(
    "name",
    ["", "..", ".", "a/b", "-x", "a b", "x" * 65, "ü", "a\n", "reel.mp4", "poster.JPG", "clip-001.mp4"],
)
def test_what_is_no_safe_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        cuts.check_name(name)


@pytest.mark.parametrize("name", ["reel.mp4", "poster.JPG", "clip-001.mp4", "grade.cube", "reel.otio"])
def test_a_name_that_a_file_of_a_reel_may_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="as a file of a reel does"):
        cuts.check_name(name)
