"""Tuning: costs per piece from the record of a run, on videos that stand for the library."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.resources import machine
from cluster.speeds import CPU, GPU, STAGES, read
from jobs import tune as job
from jobs.tune import NothingMeasured, Tuning, busy_elsewhere, some, speeds_of, tune

RECORD: dict[str, Any] = {
    "video_s": 360.0,
    "counts": {"ok": 2},
    "stages": {
        "probe": {"rows": 2, "cpu_s": 0.1, "wall_s": 0.5},
        "decode": {"rows": 6, "cpu_s": 12.0, "wall_s": 13.2},
        "look": {"rows": 6, "cpu_s": 30.0, "wall_s": 29.0},
        "gather": {"rows": 6, "cpu_s": 0.006, "wall_s": 0.012},
        "score": {"rows": 2, "cpu_s": 1.0, "wall_s": 1.0},
        "render": {"rows": 2, "cpu_s": 60.0, "wall_s": 62.0},
    },
}


def test_costs_are_per_shard_and_per_video() -> None:
    found = speeds_of(RECORD, machine(4), "mine")
    assert (found.shard_s, found.video_s, found.kind) == (60, 180, "cpu")
    assert found.decode.cpu_s == pytest.approx(2.0)
    assert found.decode.wait_s == pytest.approx(0.2)
    assert found.render.wall_s() == pytest.approx(31.0)
    assert found.look.wait_s == 0  # threads of libraries count for more than the wall
    assert found.publish == CPU.publish  # its record has none
    assert {found.cost(name).gpu_s for name in STAGES} == {0}


def test_on_a_gpu_looking_holds_it_for_as_long_as_it_takes() -> None:
    found = speeds_of(RECORD, machine(4, 1), "mine")
    assert found.kind == "gpu"
    assert found.look.gpu_s == pytest.approx(5.0)
    assert found.render.gpu_s / found.render.cpu_s == pytest.approx(GPU.render.gpu_s / GPU.render.cpu_s)


def test_waiting_for_other_programs_is_not_taken_for_storage_in_silence() -> None:
    assert not busy_elsewhere(speeds_of(RECORD, machine(4), "mine"))
    slow = {name: stage | {"wall_s": 3 * stage["wall_s"]} for name, stage in RECORD["stages"].items()}
    assert busy_elsewhere(speeds_of(RECORD | {"stages": slow}, machine(4), "mine"))


@pytest.mark.parametrize(
    "record", [RECORD | {"counts": {"ok": 0}}, RECORD | {"stages": {}}, RECORD | {"video_s": 0.0}]
)
def test_a_run_from_which_nothing_came_measures_nothing(record: dict[str, Any]) -> None:
    with pytest.raises(NothingMeasured, match="none of the videos came through"):
        speeds_of(record, machine(4), "mine")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_videos_of_all_sizes_stand_for_the_library(count: int) -> None:
    sizes = [5, 1, 9, 3, 7, 2, 8]
    chosen = some(pa.table({"size_bytes": sizes}), count)["size_bytes"].to_pylist()
    assert len(chosen) == len(set(chosen)) == min(count, len(sizes))
    assert sum(chosen) / len(chosen) == pytest.approx(5, abs=1)


def test_it_is_written_where_plans_look_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    outputs = []
    monkeypatch.setattr(job, "default_file", lambda: tmp_path / "config/speeds.yaml")
    monkeypatch.setattr(
        job, "measure", lambda _options, output, *_: outputs.append(Path(output)) or (RECORD, machine(4))
    )
    assert tune(Tuning("library")) == 0
    assert read(str(tmp_path / "config/speeds.yaml")).decode.cpu_s == pytest.approx(2.0)
    assert not outputs[0].exists()
    assert "later plans use it" in capfd.readouterr().err
    asked = tmp_path / "asked.yaml"
    assert tune(Tuning("library", out=str(asked))) == 0
    assert f"--set pools.speeds={asked}" in capfd.readouterr().err.replace("\n", "")


def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(job, "default_file", lambda: tmp_path / "file" / "reelmap" / "speeds.yaml")
    monkeypatch.setattr(job, "measure", lambda *_: pytest.fail("it was measured"))
    assert tune(Tuning("library")) == 2
    assert "give --out FILE" in capfd.readouterr().err


def test_a_machine_with_other_work_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    slow = {name: stage | {"wall_s": 3 * stage["wall_s"]} for name, stage in RECORD["stages"].items()}
    for record, said in ((RECORD, False), (RECORD | {"stages": slow}, True)):
        monkeypatch.setattr(job, "measure", lambda *_, record=record: (record, machine(4)))
        assert tune(Tuning("library", out=str(tmp_path / "speeds.yaml"))) == 0
        assert ("other programs" in capfd.readouterr().err) == said


def test_a_library_that_is_not_there_writes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "speeds.yaml"
    monkeypatch.setattr("jobs.highlights.check_models", lambda *_: None)
    assert tune(Tuning(str(tmp_path / "absent"), out=str(file))) == 2
    said = capfd.readouterr().err
    assert said.startswith("reelmap: ")
    assert "Traceback" not in said
    assert not file.exists()
