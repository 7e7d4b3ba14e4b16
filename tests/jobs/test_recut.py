"""`reelmap recut`: exit codes, only what is missing, refusals in rows; every reader of an OUTPUT knows."""

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs import recut as job
from jobs.highlights import COULD_NOT_START, DONE, INTERRUPTED, SOME_FAILED
from jobs.recut import Options, recut
from jobs.status import status
from jobs.verify import verify
from pipeline import cuts, recutting, storage, tables
from pipeline.config import Settings
from pipeline.forget import forget
from pipeline.lease import lease
from pipeline.processes import Stopped
from pipeline.report import write_report
from pipeline.state import read_state
from stages.failure import Unavailable
from tests.media import make_video
from tests.pipeline.analysed import analyse

PLAIN = {"effects": {"kind": "none"}, "colour": {"kind": "none"}, "codec": {"kind": "none"}}
NAMES = ("a.mp4", "b.mp4")


def make_output(folder: Path, bundle: str) -> Path:
    """Two videos in folder/library, analysed into folder/out."""
    (folder / "library").mkdir()
    for name in NAMES:
        make_video(folder / "library" / name, seconds=6, shots=3)
    settings = Settings.model_validate(PLAIN | {"cut": {"target": "3s"}, "bundle": bundle})
    analyse(folder / "library", folder / "out", settings, render=True)
    return folder / "out"


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory, bundle: str) -> Path:
    return make_output(tmp_path_factory.mktemp("recut"), bundle)


@pytest.fixture
def output(analysed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(analysed, tmp_path / "out")


@pytest.fixture
def changed(tmp_path: Path, bundle: str) -> Path:
    """An OUTPUT of whose two videos one has changed since."""
    output = make_output(tmp_path, bundle)
    make_video(tmp_path / "library" / "a.mp4", seconds=6.2, shots=3)
    return output


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes of their own: starting them costs seconds each time."""

    def through(rows: object, _name: str, make: Callable, args: tuple, *_: object) -> object:
        stage = make(*args)
        for row in rows:
            try:
                yield row, stage(row)
            except Exception as error:
                yield row, row | {"failure": recutting_failure(error)}

    monkeypatch.setattr(recutting, "through", through)


def recutting_failure(error: Exception) -> dict:
    from pipeline.guard import failure

    return failure("render", error)


def options(
    output: Path, bundle: str, name: str | None = None, target: str = "2s", **more: object
) -> Options:
    flags = {"cut.target": target, "bundle": bundle, "effects.kind": "none", "colour.kind": "none"}
    return Options(str(output), name, flags=tuple((flags | more).items()))


def rows(output: Path) -> dict[tuple[str, str], dict]:
    found = cuts.read(str(output)).to_pylist()
    uris = {row["video_id"]: Path(row["uri"]).name for row in tables.read(str(output), "videos").to_pylist()}
    return {(uris[row["video_id"]], row["name"]): row for row in found}


def test_in_processes_of_its_own_every_video_gets_its_cut(
    output: Path, bundle: str, capsys: pytest.CaptureFixture
) -> None:
    assert recut(options(output, bundle)) == DONE
    made = rows(output)
    assert made.keys() == {(name, "2s") for name in NAMES}
    for row in made.values():
        assert row["status"] == "ok"
        assert row["duration_s"] == pytest.approx(2, abs=0.1)
        assert (output / row["uri"]).stat().st_size == row["size_bytes"]
        assert 0 < row["read_bytes"] < row["source_bytes"]
    said = capsys.readouterr().err
    assert "cut '2s' of 2 videos, 0 done already, 2 to do" in said
    assert "a.mp4: 2.0 s in" in said
    assert "read" in said.splitlines()[-2]


@pytest.mark.usefixtures("here")
def test_the_same_command_again_does_only_what_is_missing(output: Path, bundle: str) -> None:
    assert recut(options(output, bundle, **{"library.include": ["a.mp4"]})) == DONE
    first = rows(output)["a.mp4", "2s"]
    assert recut(options(output, bundle)) == DONE
    assert rows(output)["a.mp4", "2s"] == first
    assert rows(output).keys() == {("a.mp4", "2s"), ("b.mp4", "2s")}


@pytest.mark.usefixtures("here")
def test_cuts_stand_side_by_side_and_beside_the_reel_of_the_run(output: Path, bundle: str) -> None:
    reel = next(output.glob("media/*/reel.mp4")).read_bytes()
    recut(options(output, bundle, "film"))
    film = {path: path.read_bytes() for path in output.glob("media/*/film/*/reel.mp4")}
    recut(options(output, bundle, "social", "1.5s"))
    assert len(film) == 2
    assert {path: path.read_bytes() for path in film} == film
    assert len(list(output.glob("media/*/social/*/reel.mp4"))) == 2
    assert next(output.glob("media/*/reel.mp4")).read_bytes() == reel


@pytest.mark.usefixtures("here")
def test_a_name_that_is_used_again_is_made_anew(output: Path, bundle: str) -> None:
    recut(options(output, bundle, "x", **{"render.clips": True}))
    assert list(output.glob("media/*/x/*/clip-*.mp4"))
    assert recut(options(output, bundle, "x", "1.5s")) == DONE
    # On frames of 1/25 s.
    assert [row["duration_s"] for row in rows(output).values()] == pytest.approx([1.5, 1.5], abs=0.021)
    assert not list(output.glob("media/*/x/*/clip-*.mp4"))
    assert len(list(output.glob("media/*/x/*/reel.mp4"))) == 2


@pytest.mark.usefixtures("here")
def test_a_source_that_has_changed_is_refused_with_its_reason(changed: Path, bundle: str) -> None:
    assert recut(options(changed, bundle)) == SOME_FAILED
    made = rows(changed)
    assert made["b.mp4", "2s"]["status"] == "ok"
    assert made["a.mp4", "2s"]["status"] == "failed"
    assert "changed since it was analysed" in made["a.mp4", "2s"]["reason"]


@pytest.mark.usefixtures("here")
def test_report_status_and_verify_know_the_cuts(
    output: Path, bundle: str, capsys: pytest.CaptureFixture
) -> None:
    recut(options(output, bundle, "social"))
    row = rows(output)["a.mp4", "social"]
    page = (output / f"report/{row['video_id']}.html").read_text()
    assert f'src="../{row["uri"]}"' in page
    said: list[str] = []
    assert status(str(output), False, False, said.append) == DONE
    assert "cut social: 2 reels" in said
    said.clear()
    assert verify(str(output), False, False, None, said.append) == 0, said
    assert "4 reels" in said[-1]


@pytest.mark.usefixtures("here")
def test_verify_tells_a_broken_cut_and_a_repair_has_it_made_anew(output: Path, bundle: str) -> None:
    recut(options(output, bundle, "social"))
    made = rows(output)
    (output / made["a.mp4", "social"]["uri"]).unlink()
    broken = output / made["b.mp4", "social"]["uri"]
    broken.write_bytes(broken.read_bytes()[:-5000])
    stray = broken.with_name("grade-7.cube")
    stray.write_text("left by a killed run")
    said: list[str] = []
    assert verify(str(output), False, False, None, said.append) == 1
    assert any("reel.mp4 (social of a.mp4): is missing" in line for line in said)
    assert any("(social of b.mp4): has" in line for line in said)
    assert any("grade-7.cube" in line and "no row names it" in line for line in said)
    assert verify(str(output), False, True, None, said.append) == 1
    assert rows(output) == {}
    assert verify(str(output), False, False, None, said.append) == 0
    assert recut(options(output, bundle, "social")) == DONE
    assert rows(output).keys() == made.keys()


@pytest.mark.usefixtures("here")
def test_a_damaged_part_is_found_and_its_cuts_are_made_anew(output: Path, bundle: str) -> None:
    recut(options(output, bundle, "social"))
    next(output.glob("cuts/*.parquet")).write_bytes(b"not a table")
    said: list[str] = []
    assert recut(options(output, bundle, "social")) == COULD_NOT_START
    assert verify(str(output), True, True, None, said.append) == 1
    assert any("cannot be read as Parquet" in line for line in said)
    assert recut(options(output, bundle, "social")) == DONE
    assert verify(str(output), True, False, None, said.append) == 0, said


@pytest.mark.usefixtures("here")
def test_forgotten_videos_take_their_cuts_along(output: Path, bundle: str) -> None:
    recut(options(output, bundle, "social"))
    video_id = rows(output)["a.mp4", "social"]["video_id"]
    forget(str(output), {video_id})
    assert [row["video_id"] for row in cuts.read(str(output)).to_pylist()] != [video_id]
    assert len(cuts.read(str(output))) == 1
    assert not (output / "media" / video_id).exists()
    write_report(str(output))


def test_an_output_in_use_is_left_alone(output: Path, bundle: str) -> None:
    with lease(str(output), "another run"):
        assert recut(options(output, bundle)) == COULD_NOT_START
    assert not (output / "cuts").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "../x"}, "cannot be a name"),
        ({"library.include": ["nothing*"]}, "passes the filters"),
        ({"cut.max_clip": 1}, "no such setting"),
        ({"bundle": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_cannot_be_meant_is_said_before_any_work(
    output: Path, bundle: str, capsys: pytest.CaptureFixture, given: dict, words: str
) -> None:
    assert recut(options(output, **({"bundle": bundle} | given))) == COULD_NOT_START
    assert words in capsys.readouterr().err
    assert recut(options(output / "empty", bundle)) == COULD_NOT_START


@pytest.mark.usefixtures("here")
def test_an_old_cut_stands_beside_its_own_media_until_the_row_of_the_new_one_is_there(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recut(options(output, bundle, "x"))
    before = rows(output)
    with monkeypatch.context() as patch:
        patch.setattr(cuts, "write", interrupt)
        assert recut(options(output, bundle, "x", "1.5s")) == INTERRUPTED
    assert rows(output) == before
    for row in before.values():
        digest = hashlib.sha256((output / row["uri"]).read_bytes()).hexdigest()
        assert digest == row["sha256"]
    assert recut(options(output, bundle, "x", "1.5s")) == DONE
    assert [row["duration_s"] for row in rows(output).values()] == pytest.approx([1.5, 1.5], abs=0.021)
    # Nothing is left of the old ones, folders neither.
    assert len(list(output.glob("media/*/x/*"))) == 2
    said: list[str] = []
    assert verify(str(output), False, False, None, said.append) == 0, said


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("here")
def test_by_a_clock_that_is_behind_the_new_cut_counts_too(output: Path, bundle: str) -> None:
    recut(options(output, bundle, "x"))
    whole = cuts.read(str(output)).to_pylist()
    ahead = [row | {"made_at": row["made_at"] + timedelta(days=400)} for row in whole]
    cuts.write(str(output), ahead)
    assert recut(options(output, bundle, "x", "1.5s")) == DONE
    assert [row["duration_s"] for row in rows(output).values()] == pytest.approx([1.5, 1.5], abs=0.021)
    assert len(list(output.glob("media/*/x/*/reel.mp4"))) == 2


@pytest.mark.usefixtures("here")
def test_pages_tell_of_the_cuts_that_were_made_before_a_stop(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(str(output))

    def stop_after_one(row: dict, wanted: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "line", stop_after_one)
        assert recut(options(output, bundle, "x")) == INTERRUPTED
    ((made),) = rows(output).values()
    assert made["uri"] in (output / f"report/{made['video_id']}.html").read_text()


@pytest.mark.usefixtures("here")
def test_pages_that_a_killed_recut_did_not_write_are_written_by_the_same_command(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(str(output))
    with monkeypatch.context() as patch:
        patch.setattr(job, "write_report", interrupt)
        assert recut(options(output, bundle, "x")) == INTERRUPTED
    made = rows(output)
    pages = {row["uri"]: output / f"report/{row['video_id']}.html" for row in made.values()}
    assert not any(uri in page.read_text() for uri, page in pages.items())
    assert recut(options(output, bundle, "x")) == DONE
    assert all(uri in page.read_text() for uri, page in pages.items())
    assert rows(output) == made


@pytest.mark.parametrize("fails", [False, True])
def test_many_cuts_share_a_part_which_is_written_however_it_ends(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def through(rows: Iterable[dict], _name: str, make: Callable, args: tuple, *_: object) -> object:
        stage = make(*args)
        yield from ((row, stage(row)) for row in rows)
        if fails:
            raise storage.StorageError("the store is away")

    monkeypatch.setattr(recutting, "through", through)
    monkeypatch.setattr(recutting, "rows_per_part", lambda _: 64)
    assert recut(options(output, bundle)) == (SOME_FAILED if fails else DONE)
    assert len(rows(output)) == 2
    assert len(list(output.glob("cuts/*.parquet"))) == 1


@pytest.mark.usefixtures("here")
def test_unfinished_files_of_a_killed_recut_are_removed(output: Path, bundle: str) -> None:
    left = output / "media" / f"{storage.TEMPORARY}0123"
    left.write_text("half a reel")
    recut(options(output, bundle))
    assert not left.exists()


@pytest.mark.parametrize(("results", "code"), [(0, COULD_NOT_START), (1, SOME_FAILED)])
def test_a_worker_that_cannot_begin_is_no_failed_start_once_there_are_results(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch, results: int, code: int
) -> None:
    def through(rows: Iterable[dict], name: str, make: Callable, args: tuple, *_: object) -> object:
        yield from ((row, make(*args)(row)) for row in itertools.islice(rows, results))
        raise Stopped("the bundle is away")

    monkeypatch.setattr(recutting, "through", through)
    assert recut(options(output, bundle)) == code
    assert len(rows(output)) == results


def test_reasons_are_printed_without_secrets(
    output: Path, bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def through(rows: Iterable[dict], *_: object) -> object:
        why = "cannot read https://u:hunter2-hunter2@host/a"
        first, second = rows
        yield first, first | {"failure": {"stage": "render", "reason": why}}
        yield second, Unavailable(why)

    monkeypatch.setattr(recutting, "through", through)
    assert recut(options(output, bundle)) == SOME_FAILED
    said = capsys.readouterr().err
    assert said.count("cannot read https://host/a") == 2
    assert "hunter2" not in said


@pytest.mark.usefixtures("here")
def test_a_recut_leaves_a_record_that_is_no_analysis(output: Path, bundle: str) -> None:
    recut(options(output, bundle, "x"))
    (path,) = (output / "runs" / "cuts").iterdir()
    record = json.loads(path.read_text())
    assert (record["command"], record["name"], record["state"]) == ("recut", "x", "finished")
    assert (record["counts"]["planned"], record["counts"]["ok"]) == (2, 2)
    assert record["wall_s"] > 0
    assert read_state(str(output), datetime.now(UTC)).runs == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_loses_work_and_no_cut(output: Path, bundle: str, number: int) -> None:
    """Ended after its first cut; the same command makes the rest."""
    script = (
        "import sys; from tests.jobs.test_recut import options; from jobs.recut import recut; "
        "from pathlib import Path; "
        f"sys.exit(recut(options(Path({str(output)!r}), {bundle!r}, 'x')))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(output.glob("cuts/*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.wait()
    # Told to end it gives OUTPUT back.
    assert process.returncode == (INTERRUPTED if number == signal.SIGTERM else -number)
    assert (output / "runs" / ".lease").exists() is (number == signal.SIGKILL)
    before = rows(output)
    assert before
    assert recut(options(output, bundle, "x")) == DONE
    after = rows(output)
    assert len(after) == 2
    assert {key: after[key] for key in before} == before
    said: list[str] = []
    assert verify(str(output), False, False, None, said.append) == 0, said


def test_on_a_cluster_the_same_cuts_come_out(changed: Path, bundle: str, ray_local: None) -> None:
    chosen = options(changed, bundle, "far")
    assert recut(job.Options(**(vars(chosen) | {"address": "auto"}))) == SOME_FAILED
    made = rows(changed)
    assert "changed" in made["a.mp4", "far"]["reason"]
    assert made["b.mp4", "far"]["duration_s"] == pytest.approx(2, abs=0.1)
    assert storage.exists(f"{changed}/{made['b.mp4', 'far']['uri']}")
