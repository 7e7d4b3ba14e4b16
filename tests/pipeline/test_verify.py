"""Verify: what is sound has no difference, each damage has its own, a repair leaves nothing to be said."""

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import again, reels, storage, tables, verify
from pipeline.lease import Busy, check_free, lease
from pipeline.verify import Checked, Difference, differences, repair
from tests.media import make_video
from tests.pipeline.kill import Kill
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up

SECONDS = 2.0
REAL_EXAMINE = reels.examine


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting workers costs a second each time; what they do is the same."""
    monkeypatch.setattr(
        verify, "examine_all", lambda made, decode: [(reel, reels.examine(reel, decode)) for reel in made]
    )


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "reel.mp4"
    make_video(path, seconds=SECONDS)
    return path


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3").uri + "/out"


@pytest.fixture
def local(tmp_path: Path, film: Path) -> Path:
    """Two videos in one part, a failed one in another; all is sound."""
    folder = tmp_path / "out"
    publish(str(folder), film, "a", "b")
    publish(str(folder), film, failed=("c",))
    return folder


def publish(output: str, film: Path, *names: str, failed: tuple[str, ...] = (), minutes: int = 0) -> str:
    """A part as a run writes it: media first."""
    made = [result(name, status="failed", minutes=minutes) for name in failed]
    for name in names:
        rows = result(name, minutes=minutes)
        (reel,) = rows["reels"]
        rows["videos"][0]["samples"] = len(rows["proxies"])
        sha256 = hashlib.sha256(film.read_bytes()).hexdigest()
        reel |= {"duration_s": SECONDS, "fps": 25.0, "size_bytes": film.stat().st_size, "sha256": sha256}
        storage.put_file(film, storage.join(output, reel["uri"]))
        for file in reel["files"]:
            storage.write_bytes(storage.join(output, file), b"poster")
        made.append(rows)
    written = made_up(*made)
    tables.write_part(output, part_of(written), written)
    return part_of(written)


def look(output: str | Path, quick: bool = True) -> list[Difference]:
    return list(differences(str(output), quick, Checked()))


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.parquet")
    return path


def test_what_a_run_wrote_has_no_difference(output: str, film: Path) -> None:
    publish(output, film, "a", "b")
    publish(output, film, failed=("c",))
    checked = Checked()
    assert list(differences(output, False, checked)) == []
    assert (checked.videos, checked.reels, checked.files) == (3, 2, 6)


def test_a_reel_that_is_not_what_its_row_says(output: str, film: Path) -> None:
    publish(output, film, "a", "b", "c")
    data = bytearray(film.read_bytes())
    middle = data.index(b"mdat") + 2000
    data[middle : middle + 4000] = b"\xff" * 4000
    storage.write_bytes(f"{output}/media/a/reel.mp4", bytes(data))
    storage.write_bytes(f"{output}/media/b/reel.mp4", film.read_bytes()[:-5000])
    storage.delete(f"{output}/media/c/reel.mp4")
    found = look(output, quick=False)
    texts = {video: [line.text for line in found if line.again == (video,)] for video in "abc"}
    assert texts["c"] == ["is missing"]
    assert texts["a"][0] == "has another checksum than its row"
    assert "does not decode from" in texts["a"][1]
    assert "bytes instead of" in texts["b"][0]
    assert [line.text for line in look(output) if line.again == ("a",)] == texts["a"][:1]


def test_a_reel_of_another_length_is_told_without_decoding(local: Path, film: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.mp4"
    make_video(longer, seconds=SECONDS + 0.16)
    shutil.copy(longer, local / "media/a/reel.mp4")
    assert [line.text for line in look(local)][-1] == "is 2.16 s long instead of 2.00"


def write_rows(local: Path, table: str, change: Callable[[list[dict]], list[dict]]) -> None:
    part = only_file(local / table).stem if table != "videos" else only_file(local / "clips").stem
    found = tables.read_part(str(local), table, part)
    rows = tables.pa.Table.from_pylist(change(found.to_pylist()), schema=found.schema)
    tables.pq.write_table(rows, local / table / f"{part}.parquet")


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        ("clips", lambda rows: rows[1:], "should have 6 rows in clips and has 5"),
        ("clips", lambda rows: [rows[0], *rows[:1], *rows[2:]], "stand twice in clips"),
        ("clips", lambda rows: [row | {"chosen": False} for row in rows], "chosen clips and has 0"),
        ("proxies", lambda rows: rows[:-1], "should have 4 rows in proxies and has 3"),
        ("reels", lambda rows: rows[:1], "should have 1 rows in reels and has 0"),
        ("reels", lambda rows: [row | {"fps": None} for row in rows], "does not say where its reel lies"),
        ("reels", lambda rows: [row | {"uri": "media/../../etc/passwd"} for row in rows], "passwd"),
        ("clips", lambda rows: [*rows, rows[0] | {"video_id": "zz"}], "rows of zz, which has no row"),
        ("failures", lambda rows: [row | {"status": "dropped"} for row in rows], "and dropped in failures"),
        ("failures", lambda rows: [], "has 0 rows in failures instead of 1"),
        ("videos", lambda rows: [*rows, rows[0]], "stands in it 2 times"),
    ],
)
def test_tables_that_do_not_fit_together(
    local: Path, table: str, change: Callable[[list[dict]], list[dict]], words: str
) -> None:
    write_rows(local, table, change)
    found = look(local)
    assert any(words in str(line) for line in found), [str(line) for line in found]
    assert all(line.again for line in found)


def test_leftovers_are_told_and_a_repair_removes_them(local: Path, film: Path) -> None:
    for path in ("clips/dead.parquet", "media/gone/reel.mp4", "media/a/clip-007.mp4"):
        (local / path).parent.mkdir(exist_ok=True)
        (local / path).write_bytes(b"left")
    (local / "media/b" / f"{storage.TEMPORARY}1").write_bytes(b"half")
    before = tables.read(str(local), "videos")
    found = look(local)
    assert sorted(path for line in found for path in line.remove) == [
        "clips/dead.parquet",
        "media/a/clip-007.mp4",
        f"media/b/{storage.TEMPORARY}1",
        "media/gone/reel.mp4",
    ]
    assert repair(str(local), found) == (0, 4)
    assert look(local) == []
    assert not (local / "media/gone").exists()
    assert tables.read(str(local), "videos").equals(before)


def test_media_of_an_older_result_is_a_leftover(output: str, film: Path) -> None:
    publish(output, film, "a", "b")
    publish(output, film, failed=("a",), minutes=5)
    assert [line.path for line in look(output)] == ["media/a"]
    repair(output, look(output))
    assert look(output) == []
    assert storage.exists(f"{output}/media/b/reel.mp4")


def test_repair_keeps_the_rows_until_the_new_result_is_there(local: Path, film: Path) -> None:
    (local / "media/a/poster.jpg").unlink()
    before = tables.read(str(local), "clips")
    assert repair(str(local), look(local)) == (1, 0)
    assert again.asked(str(local)) == {"a"}
    assert tables.read(str(local), "clips").equals(before)
    publish(str(local), film, "a", minutes=9)
    assert again.asked(str(local)) == set()
    tables.sweep(str(local))
    again.settle(str(local))
    assert not (local / again.FILE).exists()
    assert look(local, quick=False) == []


@pytest.mark.parametrize("table", ["videos", "clips", "reels"])
def test_a_file_that_is_no_table_is_removed_and_its_videos_are_made_anew(local: Path, table: str) -> None:
    part = only_file(local / "clips").stem
    (local / table / f"{part}.parquet").write_bytes(b"PAR1 rubbish PAR1")
    found = look(local)
    assert "cannot be read as Parquet" in str(found[0])
    repair(str(local), found)
    left = tables.done(str(local), "k1") - again.asked(str(local))
    assert left == {"c"}
    repair(str(local), look(local))
    assert all(line.again for line in look(local))


@pytest.mark.parametrize("table", ["videos", "clips"])
def test_a_repair_that_is_killed_after_any_step_goes_on(
    local: Path, film: Path, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = only_file(local / "clips").stem
    (local / table / f"{part}.parquet").write_bytes(b"rubbish")
    (local / "media/gone").mkdir()
    (local / "media/gone/reel.mp4").write_bytes(b"left")
    kill = Kill(monkeypatch)
    for steps in range(3):
        copy = str(tmp_path / f"{steps}")
        shutil.copytree(local, copy)
        kill.left = steps
        with pytest.raises(KeyboardInterrupt):
            repair(copy, look(copy))
        kill.left = 100
        for _ in range(2):  # once what is damaged is gone, what was its own can be told
            repair(copy, look(copy))
        assert tables.done(copy, "k1") - again.asked(copy) == {"c"}
        assert not Path(copy, "media/gone").exists()
        publish(copy, film, "a", "b", minutes=9)
        again.settle(copy)
        assert look(copy) == []


def test_videos_scored_from_proxies_have_no_reels(tmp_path: Path) -> None:
    output = str(tmp_path)
    rows = result("a")
    del rows["reels"], rows["proxies"]
    written = made_up(rows)
    tables.write_part(output, part_of(written), written)
    assert look(output) == []  # the run was killed before it wrote its record
    record = {"settings_key": "k1", "from_proxies": True}
    storage.write_bytes(f"{output}/runs/r.json", json.dumps(record).encode())
    assert look(output) == []
    record = {"settings_key": "k1", "from_proxies": False, "settings": {"codec": {"kind": "vqvae"}}}
    storage.write_bytes(f"{output}/runs/r.json", json.dumps(record).encode())
    assert len(look(output)) == 2


def hangs_on_b(reel: reels.Reel, decode: bool) -> list[str]:
    if reel.video_id == "b":
        signal.alarm(1)
        time.sleep(60)
    return REAL_EXAMINE(reel, decode)


def test_a_reel_that_costs_its_worker_is_a_difference_and_its_neighbours_are_sound(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reels, "examine", hangs_on_b)
    made = [reels.Reel(name, str(film), SECONDS, 25.0, film.stat().st_size, None) for name in "abc"]
    found = dict(reels.examine_all(made, True, workers=2))
    assert [found[reel] for reel in (made[0], made[2])] == [[], []]
    assert found[made[1]] == ["crashes the decoder, or holds it for ever"]


def test_a_lease_that_is_alive_is_seen_and_a_dead_one_is_not(tmp_path: Path) -> None:
    output = str(tmp_path)
    check_free(output)
    with lease(output, "r1", renew_s=0.05), pytest.raises(Busy, match="in use by run r1"):
        check_free(output, dead_after_s=2.0)
    check_free(output)
