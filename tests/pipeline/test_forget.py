"""Forgotten videos leave nothing behind, others are as they were, and a kill half-way is made good."""

from pathlib import Path

import pytest

from pipeline import forget as module
from pipeline import storage, tables
from pipeline.forget import forget
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up


@pytest.fixture
def output(tmp_path: Path) -> str:
    for rows in ([result("a"), result("b")], [result("c"), result("d", status="failed")]):
        made = made_up(*rows)
        tables.write_part(str(tmp_path), part_of(made), made)
    for video_id in "abc":
        for file in (
            f"media/{video_id}/reel.mp4",
            f"media/{video_id}/clips/1.mp4",
            f"report/{video_id}.html",
        ):
            storage.write_bytes(f"{tmp_path}/{file}", b"x")
    return str(tmp_path)


def ids(output: str, table: str) -> set[str]:
    return set(tables.read(output, table, ["video_id"])["video_id"].to_pylist())


def test_nothing_of_them_is_left_and_nothing_else_goes(output: str) -> None:
    clips = tables.read(output, "clips", video_ids={"b"})
    assert forget(output, {"a", "d"}) == 2
    assert ids(output, "videos") == {"b", "c"}
    assert ids(output, "reels") == ids(output, "clips") == {"b", "c"}
    assert ids(output, "failures") == set()
    assert tables.read(output, "clips", video_ids={"b"}).equals(clips)
    assert sorted(path.name for path in Path(output, "media").iterdir()) == ["b", "c"]
    assert sorted(path.name for path in Path(output, "report").iterdir()) == ["b.html", "c.html"]
    assert tables.sweep(output) == {"orphans": 0, "superseded": 0, "temporary": 0}


def test_older_rows_of_a_forgotten_video_do_not_come_back(output: str) -> None:
    made = made_up(result("a", "k2", minutes=5))
    tables.write_part(output, part_of(made), made)
    forget(output, {"a"})
    assert ids(output, "videos") == {"b", "c", "d"}


def test_the_rows_are_there_until_the_rest_is_gone(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.tables, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        forget(output, {"a"})
    assert "a" in ids(output, "videos")
    monkeypatch.undo()
    forget(output, {"a"})
    assert "a" not in ids(output, "videos")
