import errno
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema, storage, tables
from tests.pipeline.kill import Kill
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3").uri + "/out"


@pytest.fixture
def local(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def publish(output: str, *results: dict[str, list[dict]], width: int = 8) -> str:
    made = made_up(*results, width=width)
    part = part_of(made)
    tables.write_part(output, part, made)
    return part


def files(output: str) -> dict[str, list[str]]:
    return {name: storage.list_files(storage.join(output, name)) for name in schema.TABLES}


def test_what_is_written_is_read_back(output):
    made = made_up(result("b"), result("a"), result("c", status=schema.FAILED))
    tables.write_part(output, part_of(made), made)
    for name in schema.TABLES:
        found = tables.read(output, name)
        order = [("video_id", "ascending")]
        order += [(column, "ascending") for column in ("clip", "sample") if column in found.column_names]
        assert found.equals(made[name].sort_by(order))


def test_units_stay_in_the_files(tmp_path):
    publish(str(tmp_path), result("a"))
    assert tables.read(str(tmp_path), "clips").schema.field("start_s").metadata[b"unit"] == b"s"


def test_an_output_without_anything_reads_as_empty_tables(output):
    for name in schema.TABLES:
        empty = tables.read(output, name)
        assert empty.num_rows == 0
        assert "video_id" in empty.column_names
    assert tables.done(output, "k1") == set()
    assert tables.sweep(output) == {"orphans": 0, "superseded": 0, "temporary": 0}


def test_a_table_without_rows_has_no_file_and_reads_as_empty(local):
    part = publish(local, result("a"))
    assert files(local)["failures"] == []
    assert files(local)["videos"] == [f"{part}.parquet"]
    assert tables.read(local, "failures", columns=["reason"]).column_names == ["reason"]


def test_only_asked_columns_and_videos_come_back(local):
    publish(local, result("a"), result("b"))
    publish(local, result("c"))
    found = tables.read(local, "clips", columns=["clip", "score"], video_ids={"b", "c", "nobody"})
    assert found.column_names == ["clip", "score"]
    assert found.num_rows == 12
    assert found["clip"].to_pylist() == [*range(6), *range(6)]


def test_of_a_part_with_many_videos_little_more_is_fetched_than_one_of_them(local, monkeypatch):
    videos = [result(f"v{number:02d}", clips=100, width=256) for number in range(32)]
    for video in videos:
        for clip in video["clips"]:
            clip["thumbnail"] = random.Random(clip["start_s"]).randbytes(4000)
    random.Random(1).shuffle(videos)
    part = publish(local, *videos, width=256)
    whole = Path(local, "clips", f"{part}.parquet").stat().st_size
    asked = []

    @contextmanager
    def counting(uri):
        with Path(uri).open("rb") as file:
            read = file.read
            counted = SimpleNamespace(
                read=lambda size=-1: asked.append(len(data := read(size))) or data,
                **{name: getattr(file, name) for name in ("seek", "tell", "close")},
                closed=False,
            )
            yield pa.PythonFile(counted, mode="r")

    newest = tables.current(local)
    monkeypatch.setattr(storage, "open_input", counting)
    found = tables.read(local, "clips", None, {"v07"}, newest)
    assert found["clip"].to_pylist() == list(range(100))
    assert set(found["video_id"].to_pylist()) == {"v07"}
    assert 0 < sum(asked) < whole / 8


def test_of_a_file_that_has_changed_the_newest_version_counts(local):
    publish(local, result("old", uri="s3://library/a.mp4"), result("b"))
    publish(local, result("new", minutes=1, uri="s3://library/a.mp4", status=schema.FAILED))
    found = tables.latest_versions(tables.current(local, ("uri",)))
    assert found["video_id"].to_pylist() == ["b", "new"]


def test_done_needs_the_newest_result_to_be_of_these_settings(output):
    publish(output, result("a", "k1"), result("b", "k1"), result("c", "k1", status=schema.FAILED))
    assert tables.done(output, "k1") == {"a", "b", "c"}
    assert tables.done(output, "k1", (schema.OK,)) == {"a", "b"}
    publish(output, result("a", "k2", minutes=5))
    assert tables.done(output, "k1") == {"b", "c"}
    assert tables.done(output, "k2") == {"a"}


def test_every_video_has_one_row_however_often_it_was_done(local):
    publish(local, result("a", "k1"), result("b", "k1"))
    publish(local, result("a", "k2", minutes=5, clips=4), result("c", "k2", minutes=5))
    assert tables.read(local, "videos")["video_id"].to_pylist() == ["a", "b", "c"]
    clips = tables.read(local, "clips", video_ids={"a"})
    assert clips.num_rows == 4
    assert set(clips["settings_key"].to_pylist()) == {"k2"}


def test_results_of_one_time_are_told_apart_the_same_way_by_all(local):
    publish(local, result("a"), result("b"))
    publish(local, result("a"))
    assert tables.read(local, "videos").num_rows == 2
    assert tables.read(local, "clips").num_rows == 12


def test_a_part_without_its_twin_in_videos_is_not_read_and_is_swept(output):
    publish(output, result("a"))
    orphan = publish(output, result("b"))
    storage.delete(storage.join(output, "videos", f"{orphan}.parquet"))
    assert tables.done(output, "k1") == {"a"}
    assert set(tables.read(output, "clips")["video_id"].to_pylist()) == {"a"}
    assert tables.sweep(output)["orphans"] == 3
    assert all(f"{orphan}.parquet" not in names for names in files(output).values())


def test_sweep_changes_nothing_that_a_reader_sees(output):
    publish(output, result("a", "k1"), result("b", "k1"))
    publish(output, result("d", "k1"))
    publish(output, result("a", "k2", minutes=5), result("c", "k2", minutes=5))
    publish(output, result("d", "k2", minutes=6))
    before = {name: tables.read(output, name) for name in schema.TABLES}
    assert tables.sweep(output)["superseded"] == 2
    for name in schema.TABLES:
        assert tables.read(output, name).equals(before[name])
    raw = [
        video_id
        for file in files(output)["videos"]
        for video_id in pq.read_table(
            pa.BufferReader(storage.read_bytes(storage.join(output, "videos", file)))
        )["video_id"].to_pylist()
    ]
    assert sorted(raw) == ["a", "b", "c", "d"]
    assert tables.sweep(output) == {"orphans": 0, "superseded": 0, "temporary": 0}


def test_a_sweep_killed_after_any_step_reads_the_same(tmp_path, monkeypatch):
    start = str(tmp_path / "start")
    publish(start, result("a", "k1"), result("b", "k1"))
    publish(start, result("d", "k1"))
    publish(start, result("a", "k2", minutes=5), result("d", "k2", minutes=5))
    before = {name: tables.read(start, name) for name in schema.TABLES}
    kill = Kill(monkeypatch)
    for steps in range(12):
        output = str(tmp_path / f"{steps}")
        shutil.copytree(start, output)
        kill.left = steps
        with pytest.raises(KeyboardInterrupt):
            tables.sweep(output)
        for name in schema.TABLES:
            assert tables.read(output, name).equals(before[name])
        kill.left = 100
        tables.sweep(output)
        for name in schema.TABLES:
            assert tables.read(output, name).equals(before[name])
        assert len(files(output)["videos"]) == 2


def test_a_killed_publish_leaves_either_all_or_nothing_readable(tmp_path):
    output = str(tmp_path / "out")
    publish(output, result("a"))
    script = f"""
        from tests.pipeline.test_tables import publish, result
        print("go", flush=True)
        for number in range(10_000):
            publish({output!r}, result(f"v{{number:05d}}"), result(f"w{{number:05d}}"))
    """
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=root, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    while len(storage.list_files(storage.join(output, "videos"))) < 5:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    seen = tables.done(output, "k1")
    videos = tables.read(output, "videos")
    clips = tables.read(output, "clips", columns=["video_id"])
    assert set(clips["video_id"].to_pylist()) == set(videos["video_id"].to_pylist()) == seen
    assert clips.num_rows == 6 * len(seen)
    tables.sweep(output)
    assert tables.done(output, "k1") == seen
    assert len({tuple(names) for name, names in files(output).items() if name != "failures"}) == 1
    assert not list(Path(output).rglob(f"{storage.TEMPORARY}*"))


def test_writing_a_part_again_leaves_no_rows_of_the_first_time(local):
    made = made_up(result("a", status=schema.FAILED))
    part = part_of(made)
    tables.write_part(local, part, made)
    tables.write_part(local, part, made_up(result("a")))
    assert tables.read(local, "failures").num_rows == 0
    assert tables.read(local, "videos")["status"].to_pylist() == [schema.OK]


def test_part_names_depend_on_the_set_of_videos_and_the_settings():
    assert tables.part_name(["a", "b"], "k") == tables.part_name(["b", "a"], "k")
    assert tables.part_name(["a", "b"], "k") != tables.part_name(["a", "b"], "k2")
    assert tables.part_name(["ab"], "k") != tables.part_name(["a", "b"], "k")


def test_tables_that_do_not_belong_together_are_refused(tmp_path):
    made = made_up(result("a"))
    with pytest.raises(ValueError, match="never be read"):
        tables.write_part(str(tmp_path), "p", {"clips": made["clips"]})
    with pytest.raises(ValueError, match="no row in `videos`"):
        tables.write_part(str(tmp_path), "p", made | {"clips": made_up(result("b"))["clips"]})
    with pytest.raises(ValueError, match="each video once"):
        tables.write_part(str(tmp_path), "p", made_up(result("a"), result("a", "k2")))
    assert list(tmp_path.iterdir()) == []


def test_a_long_video_has_several_row_groups_and_small_ones_share_one(tmp_path):
    """A writer holds a group as a whole: of ten hours it would be a hundred megabytes."""
    embedding = pa.array([[1.0] * 256] * 40_000, pa.list_(pa.float32(), 256))
    for name, of in {"long": ["v"] * 40_000, "small": [f"v{row // 10}" for row in range(40_000)]}.items():
        uri = str(tmp_path / f"{name}.parquet")
        tables.write(uri, written := pa.table({"video_id": of, "embedding": embedding}).sort_by("video_id"))
        file = pq.ParquetFile(uri)
        assert file.num_row_groups == {"long": 3, "small": 40}[name]  # of 16 MiB, and of 1 MiB
        assert file.read().equals(written)


def test_a_full_scratch_disk_is_trouble_of_the_storage_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables.pq, "ParquetWriter", full)
    with pytest.raises(storage.StorageError, match=r"clips.parquet: no room in .*scratch"):
        tables.write(str(tmp_path / "clips.parquet"), made_up(result("a"))["clips"])
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (tmp_path / "clips.parquet").exists()


def test_embeddings_of_different_width_are_read_together(local):
    publish(local, result("a"))
    publish(local, result("b", width=16), width=16)
    found = tables.read(local, "clips")
    assert {len(vector) for vector in found["embedding"].to_pylist()} == {8, 16}
    assert tables.read(local, "clips", video_ids={"b"}).schema.field("embedding").type.list_size == 16


def test_a_damaged_file_is_named(tmp_path):
    part = publish(str(tmp_path), result("a"))
    (tmp_path / "videos" / f"{part}.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(storage.StorageError, match=rf"{part}\.parquet is not a Parquet file"):
        tables.read(str(tmp_path), "videos")


def test_duckdb_and_pandas_read_the_tables_without_us(tmp_path):
    publish(str(tmp_path), result("a"), result("b"))
    publish(str(tmp_path), result("c", status=schema.DROPPED))
    (tmp_path / "clips" / f"{storage.TEMPORARY}x").write_bytes(b"half")
    rows = duckdb.sql(f"select video_id, count(*) from '{tmp_path}/clips/*.parquet' group by 1 order by 1")
    assert rows.fetchall() == [("a", 6), ("b", 6)]
    best = duckdb.sql(
        f"select embedding[1], times_s[2] from '{tmp_path}/clips/*.parquet' "
        f"join '{tmp_path}/videos/*.parquet' using (video_id) order by score desc limit 1"
    )
    assert best.fetchall()[0][1] == 0.5
    edits = duckdb.sql(f"select unnest(edits) from '{tmp_path}/reels/*.parquet'").fetchall()
    assert edits[0][0]["transition"] == "cut"
    for name in schema.TABLES:
        assert duckdb.sql(f"select * from '{tmp_path}/{name}/*.parquet'").to_arrow_table().num_rows
    frame = pd.read_parquet(tmp_path / "videos")
    assert sorted(frame["video_id"]) == ["a", "b", "c"]
    assert len(frame.set_index("video_id").loc["a"]["importance"]) == 300
