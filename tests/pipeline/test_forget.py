"""Forgotten videos leave nothing behind, others are as they were, and a kill half-way is made good."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import schema, storage, tables
from pipeline.forget import forget
from tests.pipeline.kill import Kill
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


def test_killed_after_any_step_the_next_one_ends_it_and_harms_no_other(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: tables.read(output, name, video_ids={"b", "c"}) for name in schema.TABLES}
    kill, killed = Kill(monkeypatch), 0
    for steps in range(0, 30, 2):
        copy = str(tmp_path.with_name(f"{tmp_path.name}-{steps}"))
        shutil.copytree(output, copy)
        kill.left = steps
        with suppress(KeyboardInterrupt):
            forget(copy, {"a", "d"})
            killed -= 1
        killed += 1
        for name in schema.TABLES:
            assert tables.read(copy, name, video_ids={"b", "c"}).equals(kept[name])
        kill.left = 1000
        forget(copy, ids(copy, "videos") & {"a", "d"})
        assert ids(copy, "videos") == {"b", "c"}
        assert sorted(path.name for path in Path(copy, "media").iterdir()) == ["b", "c"]
        for name in schema.TABLES:
            assert tables.read(copy, name).equals(kept[name])
    assert killed > 5
