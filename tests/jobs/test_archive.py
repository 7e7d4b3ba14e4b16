"""`reelmap archive`: only what is new or changed, tidy, in order, within its budget, and cheap when idle.

The run itself is made up: it publishes what it is given.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs import archive as module
from jobs.cli import main
from jobs.highlights import COULD_NOT_START, DONE, SOME_FAILED
from pipeline import again, storage, tables
from pipeline.gate import Gate
from pipeline.lease import Busy
from pipeline.progress import Counts
from pipeline.run import Job, Outcome
from pipeline.state import ARCHIVE_NOTE
from stages.s3 import Store
from tests.conftest import Bucket
from tests.pipeline.made_up import result
from tests.pipeline.made_up import tables as made_up


class Process:
    """Stands for the run: publishes the videos of a job, one part each; `failing` are names."""

    def __init__(self) -> None:
        self.planned: list[list[str]] = []
        self.failing: set[str] = set()
        self.gates: list[Gate | None] = []
        self.footage_s: list[float] = []
        self.minutes = 0

    def __call__(
        self,
        job: Job,
        run_id: str,
        _address: object,
        _console: object,
        gate: Gate | None,
        footage_s: float,
    ) -> Outcome:
        outcome = Outcome(run_id, Counts(len(job.todo), 0), state="finished")
        self.gates.append(gate)
        self.footage_s.append(footage_s)
        self.planned.append([])
        self.minutes += 1
        for row in job.todo.to_pylist():
            name = row["uri"].rsplit("/", 1)[-1]
            self.planned[-1].append(name)
            status = "failed" if name in self.failing else "ok"
            made = made_up(
                result(row["video_id"], job.settings_key, self.minutes, status, storage.shown(row["uri"]))
            )
            tables.write_part(job.output, tables.part_name([row["video_id"]], job.settings_key), made)
            if status == "ok":
                outcome.counts.ok += 1
                storage.write_bytes(f"{job.output}/media/{row['video_id']}/reel.mp4", b"reel")
            else:
                outcome.counts.failed += 1
            outcome.uris[row["video_id"]] = row["uri"]
        return outcome


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    made = Process()
    monkeypatch.setattr(module, "process", made)
    monkeypatch.setattr(module, "check_models", lambda *_: None)
    return made


class Night:
    """A library of three files and a job file."""

    def __init__(self, folder: Path, bundle: str):
        self.library, self.output = folder / "library", folder / "out"
        self.library.mkdir()
        for day, name in enumerate(("a.mp4", "b.mp4", "c.mp4"), 1):
            self.write(name, day)
        self.config = folder / "night.yaml"
        self.config.write_text(f"source: library\noutput: out\nbundle: {bundle}\n")

    def write(self, name: str, day: int, text: str = "") -> None:
        (self.library / name).write_text(name + text)
        os.utime(self.library / name, (day * 86400, day * 86400))

    def run(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["archive", str(self.config), *arguments])
        return done.exit_code, done.output

    def statuses(self) -> dict[str, str]:
        rows = tables.read(str(self.output), "videos").to_pylist()
        return {row["uri"].rsplit("/", 1)[-1]: row["status"] for row in rows}

    def media(self) -> int:
        return len(list((self.output / "media").iterdir()))

    def pages(self) -> int:
        return len(list((self.output / "report").glob("*.html"))) - 1

    def note(self) -> dict[str, Any]:
        return json.loads((self.output / ARCHIVE_NOTE).read_text())


@pytest.fixture
def night(tmp_path: Path, bundle: str) -> Night:
    return Night(tmp_path, bundle)


def test_the_second_night_does_only_what_is_new_or_changed(process: Process, night: Night) -> None:
    assert night.run()[0] == DONE
    assert process.planned == [["c.mp4", "b.mp4", "a.mp4"]]  # the newest first
    assert process.footage_s[0] > 0  # nothing is opened to know it
    code, said = night.run()
    assert (code, "nothing to do" in said, len(process.planned)) == (DONE, True, 1)
    night.write("d.mp4", 4)
    night.write("a.mp4", 5, "changed")
    code, said = night.run()
    assert code == DONE
    assert "4 videos: 2 done already, 1 new, 1 changed, 0 to try again" in said
    assert process.planned[1:] == [["a.mp4", "d.mp4"]]


def test_an_older_version_goes_once_the_new_one_is_there(process: Process, night: Night) -> None:
    night.run()
    night.write("a.mp4", 5, "changed")
    process.failing = {"a.mp4"}
    assert night.run()[0] == SOME_FAILED
    assert (len(tables.current(str(night.output))), night.media()) == (4, 3)  # the old reel is still of use
    process.failing = set()
    night.write("a.mp4", 6, "once more")
    code, said = night.run()
    assert code == DONE
    assert "removed what was superseded or gone: 2 videos" in said
    assert (len(tables.current(str(night.output))), night.media(), night.pages()) == (3, 3, 3)
    assert night.statuses() == dict.fromkeys(("a.mp4", "b.mp4", "c.mp4"), "ok")


def test_other_settings_are_said_and_done_when_asked(process: Process, night: Night) -> None:
    process.failing = {"b.mp4"}
    assert night.run()[0] == SOME_FAILED
    process.failing = set()
    code, said = night.run("--set", "decode.fps=4")
    assert code == DONE
    assert "2 made with other settings" in said
    assert "with --reprocess they are made anew" in said
    assert process.planned[1] == ["b.mp4"]  # other settings may help what failed
    assert night.note()["outdated"] == 2
    assert night.run("--set", "decode.fps=4", "--reprocess")[0] == DONE
    assert process.planned[2] == ["c.mp4", "a.mp4"]
    assert "nothing to do" in night.run("--set", "decode.fps=4", "--reprocess")[1]


def test_failures_wait_until_they_are_asked_for(process: Process, night: Night) -> None:
    process.failing = {"b.mp4"}
    night.run()
    assert night.run()[0] == DONE
    assert len(process.planned) == 1
    video_ids = tables.read(str(night.output), "failures")["video_id"].to_pylist()
    again.ask(str(night.output), video_ids)
    process.failing = set()
    assert night.run()[0] == DONE
    assert process.planned[1:] == [["b.mp4"]]


def test_results_of_sources_that_are_gone_are_kept_unless_told(process: Process, night: Night) -> None:
    night.run()
    (night.library / "a.mp4").unlink()
    code, said = night.run()
    assert (code, "1 source gone: their results are kept" in said) == (DONE, True)
    assert (night.note()["gone"], night.note()["gone_uris"]) == (1, [f"{night.library}/a.mp4"])
    assert night.media() == 3
    assert night.run("--set", "archive.deleted=remove")[0] == DONE
    assert (night.media(), night.pages(), sorted(night.statuses())) == (2, 2, ["b.mp4", "c.mp4"])
    assert len(process.planned) == 1


def test_what_is_left_out_now_is_not_gone(process: Process, night: Night) -> None:
    night.run()
    for filtered in ("library.exclude=[a.mp4]", "library.limit=1"):
        assert night.run("--set", filtered, "--set", "archive.deleted=remove")[0] == DONE
        assert night.note()["gone"] == 0
    assert night.media() == 3


def test_a_disk_that_is_not_mounted_removes_nothing(process: Process, night: Night) -> None:
    night.run()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (night.library / name).unlink()
    code, said = night.run("--set", "archive.deleted=remove", "--set", "archive.max_deleted_share=1")
    assert (code, "mounted?" in said) == (COULD_NOT_START, True)
    night.write("c.mp4", 3)
    assert night.run("--set", "archive.deleted=remove")[0] == COULD_NOT_START
    assert night.media() == 3


def test_what_cannot_be_read_tonight_is_not_gone(
    process: Process, night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    (night.library / "deep").mkdir()
    night.write("deep/d.mp4", 4)
    away = night.library.parent / "elsewhere.mp4"
    away.write_text("elsewhere")
    (night.library / "link.mp4").symlink_to(away)
    night.run()
    assert night.media() == 5
    away.unlink()
    real = os.scandir

    def stale(folder: Path) -> Iterator[os.DirEntry]:
        if Path(folder).name == "deep":
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(folder)

    monkeypatch.setattr("pipeline.library.os.scandir", stale)
    (night.library / "a.mp4").unlink()
    code, said = night.run("--set", "archive.deleted=remove")
    assert (code, night.media(), night.note()["gone"]) == (DONE, 4, 0)
    assert "2 places of the source cannot be read: results from there stay (link.mp4, deep)" in said


def test_new_files_do_not_outweigh_results_that_are_gone(process: Process, night: Night) -> None:
    night.run()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (night.library / name).unlink()
        night.write(f"other-{name}", 9)
    code, said = night.run("--set", "archive.deleted=remove")
    assert (code, "of 3 of 3 results are gone" in said) == (COULD_NOT_START, True)
    assert night.media() == 3


def test_a_budget_leaves_the_rest_for_the_next_time(process: Process, night: Night) -> None:
    code, said = night.run("--max-videos", "2", "--order", "oldest")
    assert (code, "1 video left for the next time" in said) == (module.LEFT, True)
    assert process.planned == [["a.mp4", "b.mp4"]]
    assert night.note()["left"] == 1
    assert night.run("--max-videos", "2")[0] == DONE
    assert process.planned[1:] == [["c.mp4"]]


def test_the_run_is_given_the_deadline(process: Process, night: Night) -> None:
    assert night.run("--max-hours", "2")[0] == DONE
    (gate,) = process.gates
    assert gate is not None
    assert len(gate.seconds) == 3


def test_no_run_is_started_for_what_cannot_be_done_in_time(process: Process, night: Night) -> None:
    code, said = night.run("--max-hours", "1e-7")
    assert (code, process.planned) == (module.LEFT, [])
    assert "none of 3 videos would be done" in said
    assert "3 videos left for the next time" in said
    code, said = night.run("--until", "2020-01-01T06:00Z")
    assert (code, "is past" in said) == (COULD_NOT_START, True)


def test_without_earlier_runs_a_night_begins_whatever_the_videos_are_long(
    process: Process, night: Night
) -> None:
    with (night.library / "a.mp4").open("ab") as file:
        file.truncate(10_000_000_000)  # ten thousand seconds, by its size
    assert night.run("--max-hours", "0.1", "--set", "library.include=[a.mp4]")[0] == DONE
    assert process.planned == [["a.mp4"]]


def test_a_second_run_ends_with_a_code_of_its_own(
    process: Process, night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def busy(*_: object) -> Iterator[None]:
        raise Busy("this OUTPUT is in use by run r")
        yield

    monkeypatch.setattr(module, "lease", busy)
    code, said = night.run()
    assert (code, process.planned) == (module.BUSY, [])
    assert "in use by run r" in said


def test_a_dry_run_writes_nothing(process: Process, night: Night) -> None:
    code, said = night.run("--dry-run")
    assert (code, process.planned) == (DONE, [])
    assert "c.mp4" in said
    assert not night.output.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: nowhere\noutput: out\n", "cannot list"),
        ("source: library\noutput: library\n", "the source itself"),
        ("source: library\n", "output is missing"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(process: Process, night: Night, text: str, words: str) -> None:
    night.config.write_text(text)
    code, said = night.run()
    assert (code, words in said) == (COULD_NOT_START, True)


def test_an_idle_night_costs_one_listing_of_the_source(
    process: Process, s3: Bucket, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4"):
        s3.client().put_object(Bucket=s3.name, Key=f"library/{name}", Body=name.encode())
    config = tmp_path / "night.yaml"
    config.write_text(f"source: {s3.uri}/library\noutput: {s3.uri}/out\nbundle: {bundle}\n")
    assert CliRunner().invoke(main, ["archive", str(config)]).exit_code == DONE
    calls: list[tuple[str, str]] = []
    once = Store._once

    async def counted(self: Store, method: str, *defaults: dict, **kwargs: Any) -> Any:
        merged = {name: value for each in (*defaults, kwargs) for name, value in each.items()}
        calls.append((method, str(merged.get("Prefix") or merged.get("Key"))))
        return await once(self, method, *defaults, **kwargs)

    monkeypatch.setattr(Store, "_once", counted)
    done = CliRunner().invoke(main, ["archive", str(config)])
    assert (done.exit_code, "nothing to do" in done.output) == (DONE, True)
    assert [key for method, key in calls if key.startswith("library")] == ["library/"]
    assert [key for method, key in calls if method.startswith("put")] == [f"out/{ARCHIVE_NOTE}"]
    assert len(calls) < 20
