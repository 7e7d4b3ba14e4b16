"""Rows through a stage in processes of their own: whatever one row does, the others come out."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

import pytest

from pipeline import processes
from pipeline.processes import DEATHS, Stopped, at, room_for, through
from pipeline.rows import LISTED
from stages.failure import Dropped, Unavailable


class Stage:
    """Does to a row what its uri says."""

    def __init__(self, broken: bool = False):
        if broken:
            raise ValueError("the bundle has no colour model")

    def __call__(self, row: dict) -> dict:
        match row["uri"]:
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(60)
            case "drop":
                raise Dropped("too short")
            case "raise":
                raise KeyError("surprise")
            case "away":
                raise Unavailable("the store is away")
            case "once":  # as where a neighbour has taken the memory
                if not Path(row["settings_key"]).exists():
                    Path(row["settings_key"]).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            case "scratch":
                return row | {"settings_key": tempfile.mkdtemp()}
            case "asleep":
                Path(row["settings_key"]).write_text(str(os.getpid()))
                time.sleep(2)
                Path(row["settings_key"]).with_name("written").touch()
        return row | {"etag": str(os.getpid())}


def rows(*uris: str) -> list[dict]:
    return [dict.fromkeys(LISTED.names) | {"video_id": str(n), "uri": uri} for n, uri in enumerate(uris)]


def run(*uris: str, workers: int = 2, broken: bool = False) -> dict[str, object]:
    made = through(rows(*uris), "render", Stage, (broken,), workers, stall_timeout_s=2.0)
    return {row["uri"]: result for row, result in made}


def test_every_row_comes_out_whatever_its_neighbours_do() -> None:
    made = run("a", "crash", "b", "drop", "raise", "hang", "away", "c")
    assert len(made) == 8
    assert all(made[name]["failure"] is None for name in "abc")
    assert str(os.getpid()) not in {made[name]["etag"] for name in "abc"}
    reasons = {name: made[name]["failure"]["reason"] for name in ("crash", "hang", "drop", "raise")}
    assert reasons["drop"] == "too short"
    assert "surprise" in reasons["raise"]
    assert f"its worker died or hung for limits.stall_timeout_s = 2, {DEATHS} times" in reasons["crash"]
    assert reasons["hang"] == reasons["crash"]
    assert [name for name in made if isinstance(made[name], dict) and made[name].get("killed")] == [
        "crash",
        "hang",
    ]
    assert isinstance(made["away"], Unavailable)


def test_a_stage_that_cannot_be_made_stops_the_run_in_words() -> None:
    with pytest.raises(Stopped, match="no colour model"):
        run("a", "b", broken=True)


def test_no_process_is_left_when_the_reader_stops() -> None:
    made = through(rows("a", "hang", "b"), "render", Stage, (), 1)
    _, first = next(made)
    made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(first["etag"]), 0)


def test_a_row_whose_worker_died_is_tried_again_alone_after_all_others(tmp_path: Path) -> None:
    todo = rows("once", "a", "b", "c")
    todo[0]["settings_key"] = str(tmp_path / "died")
    made = list(through(todo, "render", Stage, (), 2))
    assert [row["uri"] for row, _ in made][-1] == "once"
    assert all(result["failure"] is None for _, result in made)


def test_a_row_that_kills_takes_the_others_of_its_video_out_of_the_way() -> None:
    todo = [
        row | {"video_id": video}
        for row, video in zip(rows(*["crash"] * 6, *"abc"), "xxxxxxyyz", strict=True)
    ]
    made = list(through(todo, "render", Stage, (), 2, key=itemgetter("video_id")))
    assert [row["video_id"] for row, _ in made].count("x") == 1
    assert sorted(row["uri"] for row, result in made if not result["failure"]) == ["a", "b", "c"]


class Stillborn:
    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_processes_that_die_before_they_begin_stop_the_run_and_charge_no_row() -> None:
    with pytest.raises(Stopped, match="before they can begin"):
        list(through(rows("a", "b", "c", "d"), "render", Stillborn, (), 2))


class SlowToDie:
    def __call__(self, row: dict) -> dict:
        at("render")
        os.kill(os.getpid(), signal.SIGKILL)
        return row


def test_a_death_is_of_the_stage_that_the_row_was_in() -> None:
    ((_, result),) = through(rows("a"), "run", SlowToDie, (), 1)
    assert result["failure"]["stage"] == "render"


def test_scratch_of_what_is_killed_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = through(rows("scratch", "hang"), "render", Stage, (), 2)
    place = Path(next(made)[1]["settings_key"])
    assert place.is_relative_to(tmp_path)
    assert place.exists()
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_imported_from_the_folder_where_the_command_is_given(tmp_path: Path) -> None:
    for name in ("cluster", "stages", "json"):
        (tmp_path / f"{name}.py").write_text("import os; os.kill(os.getpid(), 9)")
    script = tmp_path / "scripts" / "driver.py"
    script.parent.mkdir()
    script.write_text(
        "from tests.pipeline.test_processes import run\n"
        "if __name__ == '__main__':\n    print(run('a')['a']['failure'])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "None", done.stderr


def test_a_worker_that_dies_with_nothing_to_do_costs_no_row_anything() -> None:
    """As one that the system chose to end, to have its memory."""
    made = through(rows("a", "b", "c"), "render", Stage, (), 1, deaths=1)
    results = []
    for _, result in made:
        results.append(result)
        os.kill(int(result["etag"]), signal.SIGKILL)
        # Until the pipe of the dead one is closed.
        wait_until(lambda pid=int(result["etag"]): not alive(pid))
    assert [result["failure"] for result in results] == [None, None, None]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_written_after_the_end_of_the_driver(tmp_path: Path, number: int) -> None:
    begun = tmp_path / "begun"
    script = (
        "from tests.pipeline.test_processes import Stage, rows; from pipeline.processes import through\n"
        f"row = rows('asleep')[0] | {{'settings_key': {str(begun)!r}}}\n"
        "list(through([row], 'render', Stage, (), 1))"
    )
    path = tmp_path / "driver.py"
    path.write_text(f"if __name__ == '__main__':\n    exec({script!r})")
    driver = subprocess.Popen([sys.executable, path], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    wait_until(lambda: begun.exists() and begun.read_text())
    driver.send_signal(number)
    driver.wait()
    wait_until(lambda: not alive(int(begun.read_text())), timeout_s=1)
    time.sleep(2.5)
    assert not (tmp_path / "written").exists()


def alive(pid: int) -> bool:
    """A zombie is not, once the last of its threads has given up its files."""
    process = Path(f"/proc/{pid}")
    try:
        gone = (
            "\nState:\tZ" in (process / "status").read_text() and len(list((process / "task").iterdir())) == 1
        )
    except OSError:
        return False
    return not gone


def wait_until(so: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_are_as_many_as_there_are_cores_and_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 64)
    monkeypatch.setattr(processes, "free_memory_bytes", lambda: 10 << 30)
    assert room_for(1000, 2, 1 << 30) == 8
    assert room_for(3, 2, 1 << 30) == 3
    assert room_for(1000, 2, 20 << 30) == 1
    monkeypatch.setattr(processes, "free_memory_bytes", lambda: None)
    assert room_for(1000, 2, 1 << 30) == 32


class OftenStillborn:
    """Of the processes that begin, every second one dies of it, as where memory is short for a moment."""

    def __init__(self, marks: str):
        begun = len(list(Path(marks).iterdir()))
        Path(marks, str(begun)).touch()
        if begun % 2:
            os._exit(1)

    def __call__(self, row: dict) -> dict:
        if row["uri"] == "once" and not Path(row["settings_key"]).exists():
            Path(row["settings_key"]).touch()
            os._exit(1)
        return row


def test_processes_that_could_not_begin_now_and_then_end_nothing(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    todo = [row | {"settings_key": str(tmp_path / row["video_id"])} for row in rows(*["once"] * 4)]
    made = list(through(todo, "render", OftenStillborn, (str(tmp_path / "marks"),), 1))
    assert len(list((tmp_path / "marks").iterdir())) > 2 * processes.STILLBORN
    assert sorted(row["video_id"] for row, _ in made) == list("0123")
    assert not any(result["failure"] for _, result in made)


def test_no_place_for_scratch_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    with pytest.raises(Stopped, match="no room for scratch files"):
        run("fine")
