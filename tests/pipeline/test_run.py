"""What a run does about what goes wrong: lost videos, a flow that cannot start, a store that goes away.

Ray is left out but for the last test: a made-up flow publishes what the test says.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pyarrow as pa
import pytest
from ray.exceptions import RayError

from cluster.plan import make_plan
from cluster.resources import machine
from jobs import highlights as job
from jobs.highlights import COULD_NOT_START, DONE, INTERRUPTED, SOME_FAILED, Options, highlights
from pipeline import again, lease, run, storage, tables
from pipeline.config import Settings
from pipeline.lease import Busy
from pipeline.lease import lease as real_lease
from pipeline.library import list_library
from pipeline.lost import RUNS
from pipeline.progress import Totals
from pipeline.publish import Publish
from pipeline.steps import Pass
from stages.nn.weights import open_bundle
from stages.s3 import Store
from tests.pipeline.made_up import result as made_result
from tests.pipeline.made_up import tables as made_up

NAMES = ("a.mp4", "b.mp4", "c.mp4")


class Attempt:
    """What one attempt of the flow does: publishes `names`, hides some results, then raises."""

    def __init__(
        self,
        *names: str,
        unsaid: tuple[str, ...] = (),
        failing: tuple[str, ...] = (),
        then: BaseException | None = None,
    ) -> None:
        self.names, self.unsaid, self.failing, self.then = names, unsaid, failing, then

    def results(self, todo: pa.Table, publish: Publish) -> Iterator[pa.Table]:
        for row in todo.to_pylist():
            name = Path(row["uri"]).name
            if name not in (*self.names, *self.unsaid):
                continue
            row["failure"] = {
                "status": "failed" if name in self.failing else "dropped",
                "stage": "probe",
                "reason": "short",
                "failed_at": datetime.now(UTC),
            }
            for result in publish(pa.Table.from_pylist([row], todo.schema)):
                if name in self.names:
                    yield result
        if self.then:
            raise self.then


class Suspicious:
    """Stands for the witness: the videos of these names are suspects once they were planned."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.ids: set[str] = set()
        self.alone = False

    def suspects(self, among: Iterable[str]) -> set[str]:
        return set() if self.alone else self.ids.intersection(among)

    def try_alone(self) -> None:
        self.alone = True


class Flow:
    """Stands for the flow: one Attempt after the other; `planned` are the names that each was given."""

    def __init__(self) -> None:
        self.script: list[Attempt] = []
        self.planned: list[set[str]] = []
        self.witness = Suspicious()

    def build(self, one_pass: Pass) -> SimpleNamespace:
        todo = one_pass.todo
        self.planned.append({Path(uri).name for uri in todo["uri"].to_pylist()})
        names = self.witness.names
        named = dict(zip(todo["video_id"].to_pylist(), todo["uri"].to_pylist(), strict=True))
        self.witness.ids |= {video_id for video_id, uri in named.items() if Path(uri).name in names}
        attempt = self.script.pop(0) if self.script else Attempt()
        return SimpleNamespace(iter_batches=lambda **_: attempt.results(todo, one_pass.publish))


class Display:
    def __init__(self, *_: object) -> None:
        self.read = Totals

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def message(self, text: str, warn: bool = False) -> None:
        print(text)


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Flow:
    made = Flow()
    monkeypatch.setattr("pipeline.flow.build", made.build)
    monkeypatch.setattr(run, "open_witness", lambda _: made.witness)
    monkeypatch.setattr(run, "open_meter", lambda _: MagicMock())
    monkeypatch.setattr(run, "Display", Display)
    monkeypatch.setattr(job, "connection", lambda _: nullcontext())
    monkeypatch.setattr("jobs.plan.connected", lambda _: machine(2))
    monkeypatch.setattr(job, "preflight", lambda *_: [])
    monkeypatch.setattr(job, "check_models", lambda *_: None)
    return made


@pytest.fixture
def options(tmp_path: Path, bundle: str) -> Options:
    (tmp_path / "library").mkdir()
    for name in NAMES:
        (tmp_path / "library" / name).write_text(name)
    return Options(
        str(tmp_path / "library"), str(tmp_path / "out"), flags=(("bundle", bundle), ("run.engine", "ray"))
    )


def published(options: Options) -> dict[str, str]:
    rows = tables.read(options.output, "videos").to_pylist()
    return {Path(row["uri"]).name: row["status"] for row in rows}


def records(options: Options) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(Path(options.output, "runs").glob("*.json"))]


def actor_died() -> RayError:
    return RayError("The actor died:\n  Traceback ...\nValueError: the bundle is gone")


def test_what_one_attempt_loses_the_next_one_plans_again(flow: Flow, options: Options) -> None:
    flow.script = [Attempt("a.mp4"), Attempt("c.mp4", then=actor_died()), Attempt("b.mp4")]
    assert highlights(options) == DONE
    assert flow.planned == [set(NAMES), {"b.mp4", "c.mp4"}, {"b.mp4"}]
    assert published(options) == dict.fromkeys(NAMES, "dropped")


def test_part_that_was_written_unsaid_counts_as_published(flow: Flow, options: Options) -> None:
    flow.script = [Attempt("a.mp4", unsaid=("b.mp4", "c.mp4"))]
    assert highlights(options) == DONE
    assert flow.planned == [set(NAMES)]
    assert records(options)[0]["counts"]["dropped"] == 3


def test_attempts_that_bring_something_do_not_count(flow: Flow, options: Options) -> None:
    flow.script = [Attempt(), Attempt(), Attempt("a.mp4"), Attempt(), Attempt(), Attempt("b.mp4", "c.mp4")]
    assert highlights(options) == DONE
    assert len(flow.planned) == 6


def test_suspects_come_last_and_alone(flow: Flow, options: Options) -> None:
    flow.witness.names = {"b.mp4"}
    flow.script = [Attempt("a.mp4"), Attempt("c.mp4"), Attempt(), Attempt("b.mp4")]
    assert highlights(options) == DONE
    assert flow.planned == [set(NAMES), {"c.mp4"}, {"b.mp4"}, {"b.mp4"}]
    assert flow.witness.alone
    assert published(options) == dict.fromkeys(NAMES, "dropped")


def test_lost_video_is_tried_by_the_next_runs_but_not_for_ever(
    flow: Flow, options: Options, capfd: pytest.CaptureFixture
) -> None:
    for number in range(RUNS):
        flow.script, flow.planned = [Attempt("a.mp4", "c.mp4")], []
        assert highlights(options) == SOME_FAILED
        assert "lost 1 of " in capfd.readouterr().err
        assert flow.planned[-1] == {"b.mp4"}
        # What brings something is followed by another attempt; the later runs bring nothing.
        assert len(flow.planned) == run.ATTEMPTS + (number == 0)
        assert published(options) == {"a.mp4": "dropped", "b.mp4": "failed", "c.mp4": "dropped"}
        assert len(records(options)) == number + 1
        assert list(records(options)[-1]["lost"].values()) == [f"{options.library}/b.mp4"]
    flow.planned = []
    assert highlights(options) == SOME_FAILED
    assert flow.planned == []
    (reason,) = (
        row["reason"]
        for row in tables.read(options.output, "failures").to_pylist()
        if row["stage"] == run.LOST
    )
    assert reason.startswith("given up, as lost in 3 runs")


def test_lost_video_that_comes_out_later_is_done(flow: Flow, options: Options) -> None:
    flow.script = [Attempt("a.mp4", "c.mp4")]
    assert highlights(options) == SOME_FAILED
    flow.script = [Attempt("b.mp4")]
    assert highlights(options) == DONE
    assert published(options) == dict.fromkeys(NAMES, "dropped")


def test_lost_video_keeps_the_good_result_of_an_earlier_run(flow: Flow, options: Options) -> None:
    listed = {Path(row["uri"]).name: row for row in list_library(options.library).to_pylist()}
    video_id = listed["b.mp4"]["video_id"]
    made = made_up(made_result(video_id, "older settings", uri=listed["b.mp4"]["uri"]))
    tables.write_part(options.output, tables.part_name([video_id], "older settings"), made)
    before = tables.read(options.output, "clips")
    for _ in range(2):  # it is due again, as its result is outdated
        flow.script, flow.planned = [Attempt("a.mp4", "c.mp4")], []
        assert highlights(options) == SOME_FAILED
        assert flow.planned[-1] == {"b.mp4"}
        assert published(options) == {"a.mp4": "dropped", "b.mp4": "ok", "c.mp4": "dropped"}
        assert list(records(options)[-1]["lost"]) == [video_id]
        assert records(options)[-1]["counts"]["failed"] == 1
        assert tables.read(options.output, "clips").equals(before)


def test_result_by_a_clock_that_is_ahead_does_not_outlive_its_successor(flow: Flow, options: Options) -> None:
    listed = {Path(row["uri"]).name: row for row in list_library(options.library).to_pylist()}
    row = listed["b.mp4"]
    made = made_up(made_result(row["video_id"], "older settings", 10**7, uri=row["uri"]))
    tables.write_part(options.output, tables.part_name([row["video_id"]], "older settings"), made)
    flow.script = [Attempt(*NAMES)]
    assert highlights(options) == DONE
    assert published(options) == dict.fromkeys(NAMES, "dropped")
    flow.planned = []
    assert highlights(options) == DONE
    assert flow.planned == []


def test_flow_that_cannot_start_blames_no_video(
    flow: Flow, options: Options, capfd: pytest.CaptureFixture
) -> None:
    flow.script = [Attempt(then=actor_died()) for _ in range(run.ATTEMPTS)]
    assert highlights(options) == COULD_NOT_START
    assert "reelmap: ValueError: the bundle is gone\n" in capfd.readouterr().err
    assert published(options) == {}
    assert records(options)[0]["state"] == "failed"


def test_flow_that_falls_for_good_half_way_keeps_what_is_finished(
    flow: Flow, options: Options, capfd: pytest.CaptureFixture
) -> None:
    flow.script = [Attempt("a.mp4"), *(Attempt(then=actor_died()) for _ in range(run.ATTEMPTS))]
    assert highlights(options) == SOME_FAILED
    said = capfd.readouterr().err
    assert "the run broke off: ValueError: the bundle is gone" in said
    assert job.GOES_ON in said
    assert published(options) == {"a.mp4": "dropped"}


def test_error_of_the_storage_in_the_run_is_told_and_recorded(
    flow: Flow, options: Options, capfd: pytest.CaptureFixture
) -> None:
    error = storage.StorageError("cannot write s3://x: the store does not answer")
    flow.script = [Attempt("a.mp4", then=error)]
    assert highlights(options) == SOME_FAILED
    said = capfd.readouterr().err
    assert str(error) in said
    assert "Traceback" not in said
    (record,) = records(options)
    assert (record["state"], record["error"]) == ("failed", str(error))
    assert published(options) == {"a.mp4": "dropped"}


def test_failures_that_are_asked_again_are_planned_by_the_next_plain_run(
    flow: Flow, options: Options
) -> None:
    flow.script = [Attempt(*NAMES)]
    assert highlights(options) == DONE
    (video_id,) = (
        row["video_id"]
        for row in tables.read(options.output, "videos").to_pylist()
        if row["uri"].endswith("b.mp4")
    )
    again.ask(options.output, [video_id])
    before = published(options)
    flow.script, flow.planned = [Attempt("b.mp4")], []
    assert highlights(options) == DONE
    assert flow.planned == [{"b.mp4"}]
    assert published(options) == before
    assert not Path(options.output, again.FILE).exists()
    flow.planned = []
    assert highlights(options) == DONE
    assert flow.planned == []


def test_run_in_which_too_many_fail_stops_in_words_and_keeps_what_is_published(
    flow: Flow, options: Options, capfd: pytest.CaptureFixture
) -> None:
    for number in range(30):
        Path(options.library, f"d{number:02}.mp4").write_text(f"{number:02}")  # all of one size
    everything = sorted(path.name for path in Path(options.library).iterdir())
    flow.script = [Attempt(*everything, failing=tuple(everything[4:]))]
    limited = replace(options, assignments=("run.max_failed_share=0.5", "run.min_finished=6"))
    assert highlights(limited) == SOME_FAILED
    said = capfd.readouterr().err
    assert (
        "the run broke off: 5 of 9 videos failed (5 of them in probe), and run.max_failed_share is 0.5"
        in said
    )
    assert job.GOES_ON in said
    (record,) = records(options)
    assert record["state"] == "failed"
    assert record["error"].startswith("5 of 9 videos failed")
    assert len(flow.planned) == 1
    assert len(published(options)) == 9
    # What was dropped has not failed, however much of it there is, and without the setting nothing stops.
    flow.script = [Attempt(*everything)]
    assert highlights(options) == SOME_FAILED
    assert len(published(options)) == len(everything)


@pytest.mark.parametrize("where", ["prepare", "plan_job", "write_report"])
def test_interrupt_anywhere_ends_in_one_line(
    where: str,
    flow: Flow,
    options: Options,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, where, interrupted)
    flow.script = [Attempt(*NAMES)]
    assert highlights(options) == INTERRUPTED
    assert capfd.readouterr().err.count("interrupted: ") == 1
    assert not Path(options.output, "runs", ".lease").exists()


def test_what_another_run_did_before_the_lease_was_ours_is_not_done_again(
    flow: Flow, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [True]

    @contextmanager
    def after_another_run(*args: object) -> Iterator[object]:
        if first.pop() if first else False:
            flow.script = [Attempt(*NAMES)]
            assert highlights(options) == DONE
        with real_lease(*args) as held:
            yield held

    monkeypatch.setattr(job, "lease", after_another_run)
    assert highlights(options) == DONE
    assert flow.planned == [set(NAMES)]
    assert len(records(options)) == 1


def test_busy_output_could_not_start(
    flow: Flow, options: Options, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def busy(*_: object) -> None:
        raise Busy("this OUTPUT is in use by run r")

    monkeypatch.setattr(job, "lease", busy)
    assert highlights(options) == COULD_NOT_START
    assert "in use by run r" in capfd.readouterr().err


def test_lease_that_is_lost_ends_the_run_with_words(
    flow: Flow, options: Options, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def wait_for_interrupt(*_: object) -> Iterator[dict]:
        other = {"holder": "x", "run_id": "other", "host": "elsewhere", "pid": 7}
        storage.write_bytes(f"{options.output}/clips/half.parquet", b"its twin comes soon")
        for _ in range(200):  # again, as our own renewal may have begun a moment before
            storage.write_bytes(f"{options.output}/runs/.lease", json.dumps(other).encode())
            threading.Event().wait(0.1)
        yield from ()

    monkeypatch.setattr(job, "lease", lambda *args: real_lease(*args, renew_s=0.1))
    monkeypatch.setattr(run, "attempts", wait_for_interrupt)
    assert highlights(options) == SOME_FAILED
    said = capfd.readouterr().err
    assert "run other on elsewhere (process 7) has taken this OUTPUT over" in said
    assert "interrupted" not in said
    # What the other run has half written is not swept away.
    assert Path(options.output, "clips", "half.parquet").exists()


def test_run_with_nothing_to_do_writes_the_pages_that_are_missing(flow: Flow, options: Options) -> None:
    flow.script = [Attempt(*NAMES)]
    assert highlights(options) == DONE
    pages = sorted(path.name for path in Path(options.output, "report").iterdir())
    assert len(pages) == len(NAMES) + 1
    Path(options.output, "report", pages[0]).unlink()
    assert highlights(options) == DONE
    assert sorted(path.name for path in Path(options.output, "report").iterdir()) == pages


@pytest.mark.parametrize(
    ("missing", "words"),
    [("bucket", "the bucket does not exist"), ("credentials", "no credentials found: set AWS_PROFILE")],
)
def test_store_that_cannot_be_used_could_not_start(
    missing: str,
    words: str,
    options: Options,
    s3: object,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    output = f"{s3.uri}/out"
    if missing == "bucket":
        output = "s3://reelmap-no-such-bucket/out"
    else:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        Store.clear_instance_cache()
    monkeypatch.setattr(job, "check_models", lambda *_: None)
    assert highlights(Options(options.library, output, flags=options.flags)) == COULD_NOT_START
    said = capfd.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_what_a_killed_run_left_goes_though_nothing_is_to_do(flow: Flow, options: Options) -> None:
    flow.script = [Attempt(*NAMES)]
    assert highlights(options) == DONE
    # It was killed after its last video, before it could tidy up.
    gone = {"holder": "x", "run_id": "killed"} | lease._here() | {"born": "of another process"}
    held, orphan = Path(options.output, "runs", ".lease"), Path(options.output, "clips", "orphan.parquet")
    for file in (held, orphan):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(gone))
    assert highlights(options) == DONE
    assert len(flow.planned) == 1
    assert not held.exists()
    assert not orphan.exists()


def test_a_run_that_is_on_is_not_in_the_way_where_nothing_is_to_do(flow: Flow, options: Options) -> None:
    flow.script = [Attempt(*NAMES)]
    assert highlights(options) == DONE
    with real_lease(options.output, "another"):
        assert highlights(options) == DONE


def test_output_that_is_a_file_is_said_to_be_one(
    flow: Flow, options: Options, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "out").write_text("")
    assert highlights(options) == COULD_NOT_START
    assert "out is a file: give a folder" in capfd.readouterr().err


def test_record_holds_no_secret_of_a_uri(options: Options, bundle: str) -> None:
    settings = Settings(bundle="https://user:secret@host/bundle?sig=secret")
    listed = list_library(options.library)
    made = run.make_job(options.library, options.output, settings, open_bundle(bundle), listed)
    made = run.Job("ftp://user:secret@host/in", made.output, settings, made.bundle, made.listed, made.todo)
    outcome = run.Outcome("r", run.Counts(total=0, size_bytes=0))
    record = run.record(made, outcome, make_plan(2, 0, 1), datetime.now(UTC), Totals())
    assert "secret" not in json.dumps(record)
    assert record["library"] == "ftp://host/in"


@pytest.mark.slow
def test_pool_that_cannot_start_on_ray_blames_no_video(
    ray_local: None,
    options: Options,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    tmp_path: Path,
    bundle: str,
) -> None:
    gone = tmp_path / "bundle"
    gone.symlink_to(bundle)
    monkeypatch.setattr(job, "preflight", lambda *_: gone.unlink() or [])
    monkeypatch.setattr(run, "ATTEMPTS", 1)
    assert (
        highlights(
            Options(options.library, options.output, flags=(("bundle", str(gone)), ("run.engine", "ray")))
        )
        == COULD_NOT_START
    )
    said = capfd.readouterr().err
    assert "bundle" in said
    assert "Traceback" not in said
    assert published(options) == {}
