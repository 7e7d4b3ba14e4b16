"""A run in processes of this machine: what comes out is what the same stages make on Ray."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.plan import Plan, plan_here
from cluster.resources import machine
from jobs import highlights as job
from jobs.highlights import COULD_NOT_START, DONE, SOME_FAILED, Options, highlights
from pipeline import tables
from pipeline.config import Settings, load_settings
from pipeline.gate import Gate
from pipeline.guard import Stage, Step
from pipeline.library import list_library
from pipeline.progress import make_console
from pipeline.publish import Publish
from pipeline.run import Job, run
from pipeline.steps import steps_of
from stages.container import LimitSettings
from stages.decode import DecodeSettings, decode
from stages.failure import Failed, Unavailable
from stages.nn.weights import open_bundle
from tests.media import make_text, make_video
from tests.pipeline.analysed import analyse
from tests.poison import make_poisoned

FLAGS = {"cut.target": "2s", "saliency.enabled": False, "decode.shard_seconds": 2.0}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    for name, seconds in (("a.mp4", 5), ("b.mp4", 3), ("c.mp4", 4)):
        make_video(folder / name, seconds=seconds, shots=2, size=(320, 180))
    return folder


def made(library: Path, output: Path, bundle: str, **flags: object) -> int:
    given = FLAGS | {"bundle": bundle, "run.engine": "processes"} | flags
    return highlights(Options(str(library), str(output), flags=tuple(given.items())))


def names(output: Path, table: str = "videos") -> dict[str, dict]:
    return {Path(row["uri"]).stem: row for row in tables.read(str(output), table).to_pylist()}


def test_results_are_those_of_the_stages_one_after_another(
    library: Path, tmp_path: Path, bundle: str
) -> None:
    assert made(library, tmp_path / "out", bundle) == DONE
    analyse(library, tmp_path / "plain", load_settings(None, FLAGS | {"bundle": bundle}, ()), render=True)
    for table, columns in {
        "videos": ["video_id", "status", "duration_s", "importance", "cuts_s", "motion", "speech"],
        "clips": ["video_id", "clip", "start_s", "end_s", "score", "chosen"],
        "reels": ["video_id", "duration_s", "target_s", "edits"],
    }.items():
        ours, theirs = (
            tables.read(str(tmp_path / place), table, columns).sort_by(
                [("video_id", "ascending"), *([("clip", "ascending")] if table == "clips" else [])]
            )
            for place in ("out", "plain")
        )
        assert len(ours)
        assert ours.to_pylist() == theirs.to_pylist()


def test_the_record_says_what_every_stage_did(library: Path, tmp_path: Path, bundle: str) -> None:
    made(library, tmp_path / "out", bundle)
    (file,) = (tmp_path / "out" / "runs").glob("*.json")
    record = json.loads(file.read_text())
    assert record["plan"]["processes"] >= 1
    rows = {name: stage["rows"] for name, stage in record["stages"].items()}
    shards = sum(len(row["shard_log"]) for row in names(tmp_path / "out").values())
    assert shards > 3
    per_stage = {"probe": 3, "decode": shards, "look": shards, "gather": shards, "score": 3, "render": 3}
    assert rows == per_stage | {"publish": 3}
    assert all(record["stages"][name]["cpu_s"] > 0 for name in ("decode", "look", "render"))


def failing_decode(settings: DecodeSettings, limits: LimitSettings) -> Stage:
    def run(row: dict) -> dict:
        if "broken" in row["uri"] and row["shard"] == 1:
            raise Failed("broken")
        return decode(row, settings, limits)

    return run


def failing_steps(settings: Settings, output: str, threads: int) -> dict[str, Step]:
    steps = steps_of(settings, output, threads)
    return steps | {"decode": replace(steps["decode"], make=failing_decode)}


def test_scratch_files_go_with_the_videos_that_they_are_of(
    library: Path, tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, left = tmp_path / "scratch", []
    folder.mkdir()

    class Counting(Publish):
        def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
            yield from super().__call__(batch)
            left.append([file.name for file in folder.rglob("row-*")])

    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("pipeline.run.Publish", Counting)
    monkeypatch.setattr("pipeline.steps.steps_of", failing_steps)
    (library / "a.mp4").rename(library / "a-broken.mp4")
    assert made(library, tmp_path / "out", bundle) == SOME_FAILED
    assert names(tmp_path / "out", "failures")["a-broken"]["reason"] == "broken"
    assert len(left) == 3
    assert not left[-1]
    assert not list(folder.iterdir())


def test_what_cannot_be_read_is_a_row_and_the_others_are_done(
    library: Path, tmp_path: Path, bundle: str
) -> None:
    make_text(library / "text.mp4")
    assert made(library, tmp_path / "out", bundle) == SOME_FAILED
    assert {name: row["status"] for name, row in names(tmp_path / "out").items()} == {
        **dict.fromkeys("abc", "ok"),
        "text": "failed",
    }
    assert names(tmp_path / "out", "failures")["text"]["stage"] == "probe"


def poisoned_steps(settings: Settings, output: str, threads: int) -> dict[str, Step]:
    steps = steps_of(settings, output, threads)
    return steps | {"decode": replace(steps["decode"], make=make_poisoned)}


def test_a_video_that_kills_its_process_is_tried_again_and_takes_no_other_along(
    library: Path, tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library / "b.mp4").rename(library / "b-crash-1.mp4")
    monkeypatch.setattr("pipeline.steps.steps_of", poisoned_steps)
    assert made(library, tmp_path / "out", bundle) == SOME_FAILED
    status = {name[0]: row["status"] for name, row in names(tmp_path / "out").items()}
    assert status == {"a": "ok", "b": "failed", "c": "ok"}
    failure = names(tmp_path / "out", "failures")["b-crash-1"]
    assert failure["stage"] == "decode"
    assert "its worker died or hung for limits.stall_timeout_s = 600" in failure["reason"]
    assert "2 times" in failure["reason"]


def once_away(marks: str) -> object:
    def stage(row: dict) -> dict:
        mark = Path(marks, row["video_id"])
        if not mark.exists():
            mark.touch()
            raise Unavailable("the store is away")
        return row

    return stage


def away(marks: str) -> object:
    def stage(row: dict) -> dict:
        raise Unavailable("the store is away")

    return stage


@pytest.mark.parametrize("stage", [once_away, pytest.param(away, marks=pytest.mark.slow)])
def test_what_the_storage_put_off_is_planned_again_and_lost_only_if_it_stays_away(
    stage: object, library: Path, tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def steps(settings: Settings, output: str, threads: int) -> dict[str, Step]:
        known = steps_of(settings, output, threads)
        return known | {"render": replace(known["render"], make=stage, args=(str(marks),))}

    monkeypatch.setattr("pipeline.steps.steps_of", steps)
    code = made(library, tmp_path / "out", bundle)
    failures = names(tmp_path / "out", "failures")
    if stage is once_away:
        assert code == DONE
        assert not failures
    else:
        assert code == SOME_FAILED
        assert {row["stage"] for row in failures.values()} == {"run"}


def test_a_part_that_the_storage_does_not_take_is_planned_again(
    library: Path, tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, refused = Publish.__call__, []

    def away_at_first(self: Publish, batch: pa.Table) -> object:
        if len(refused) < 2:
            refused.append(batch)
            raise Unavailable("the store is away")
        return publish(self, batch)

    monkeypatch.setattr(Publish, "__call__", away_at_first)
    assert made(library, tmp_path / "out", bundle) == DONE
    assert names(tmp_path / "out").keys() == set("abc")


def broken(*_: object) -> object:
    raise ValueError("the bundle has no colour model")


def test_a_stage_that_cannot_be_made_stops_the_run_in_words(
    library: Path, tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def steps(settings: Settings, output: str, threads: int) -> dict[str, Step]:
        known = steps_of(settings, output, threads)
        return known | {"render": replace(known["render"], make=broken)}

    monkeypatch.setattr("pipeline.steps.steps_of", steps)
    assert made(library, tmp_path / "out", bundle) == COULD_NOT_START
    assert "the bundle has no colour model" in capsys.readouterr().err


def test_what_would_be_late_does_not_begin(library: Path, tmp_path: Path, bundle: str) -> None:
    settings, models = load_settings(None, FLAGS | {"bundle": bundle}, ()), open_bundle(bundle)
    listed = list_library(str(library))
    seconds = {row["video_id"]: 1e6 if "c.mp4" in row["uri"] else 1.0 for row in listed.to_pylist()}
    wanted = Job(str(library), str(tmp_path / "out"), settings, models, listed, listed)
    plan = plan_here(machine(2), 3, 3)
    outcome = run(wanted, "r", plan, make_console(), Gate(seconds, time.time() + 1000, 1.0))
    assert outcome.state == "stopped"
    assert names(tmp_path / "out").keys() == {"a", "b"}


def test_from_proxies_too(library: Path, tmp_path: Path, bundle: str) -> None:
    made(library, tmp_path / "out", bundle)
    flags = tuple((FLAGS | {"bundle": bundle, "run.engine": "processes"}).items())
    rescored = str(tmp_path / "again")
    code = highlights(Options(str(tmp_path / "out"), rescored, flags=flags, from_proxies=True))
    assert code == DONE
    before, after = names(tmp_path / "out"), names(Path(rescored))
    assert after.keys() == before.keys()
    assert all(len(after[name]["importance"]) == len(before[name]["importance"]) for name in after)


def planned(library: Path, footage_s: float, **flags: object) -> Plan | None:
    settings = load_settings(None, flags, ())
    listed = list_library(str(library))
    wanted = Job(str(library), "out", settings, open_bundle(None), listed, listed)
    found = job.plan_without_ray(wanted, flags.get("address"), footage_s)
    return found.plan if found else None


def test_one_machine_is_for_processes_and_more_than_that_for_ray(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.plan.ray.is_initialized", lambda: False)
    assert planned(library, 60.0).processes >= 1
    assert planned(library, 1e6).processes >= 1
    assert planned(library, 60.0, **{"run.engine": "ray"}) is None
    with monkeypatch.context() as with_gpu:
        with_gpu.setattr("jobs.plan.has_gpu", lambda: True)
        assert planned(library, 60.0) is None
        with pytest.raises(ValueError, match="no use for the GPU"):
            planned(library, 60.0, **{"run.engine": "processes"})
    # Whoever sizes pools wants a Ray.
    assert planned(library, 60.0, **{"pools.decode": 2}) is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert planned(library, 60.0) is None
    with pytest.raises(ValueError, match="leave out the address"):
        planned(library, 60.0, **{"run.engine": "processes"})


def test_there_are_no_more_processes_than_pieces_cores_and_memory() -> None:
    def size(cores: int, gib: float, pieces: int) -> Plan:
        return plan_here(machine(cores, memory_gib=gib), 1, pieces)

    assert size(8, 64, 10).processes == 8
    assert size(8, 64, 2).processes == 2
    assert size(8, 64, 2).threads == 4
    assert size(8, 4, 10).processes == 2
    assert size(1, 0.5, 10).processes == 1
