"""A run with a deadline: what does not begin is left and blamed on nothing, what overruns is stopped.

The flow is made up: it asks the witness for each video, as the guard of a stage does.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from ray.exceptions import GetTimeoutError

from cluster.plan import Plan
from cluster.resources import machine
from jobs import highlights
from pipeline import gate as gate_module
from pipeline import overdue, run, storage, tables
from pipeline.config import Settings
from pipeline.gate import Gate
from pipeline.library import list_library
from pipeline.progress import Meter, Totals, make_console
from pipeline.run import Job, Outcome
from pipeline.steps import Pass
from pipeline.suspects import Suspects, Witness, open_witness
from stages.nn.weights import open_bundle


class Here:
    """Stands for the witness: the same object in this process, without an actor."""

    def __init__(self, gate: Gate | None):
        self.here = Suspects(gate)
        self.begin, self.finish, self.try_alone = self.here.begin, self.here.finish, self.here.try_alone

    def suspects(self, among: object) -> set[str]:
        return self.here.set_aside().intersection(among)

    def late(self, among: object) -> set[str] | None:
        return self.here.late().intersection(among)

    def reconsider(self) -> None:
        self.here.reconsider()


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
def job(tmp_path: Path, bundle: str) -> Job:
    (tmp_path / "library").mkdir()
    for name in "abcd":
        (tmp_path / "library" / f"{name}.mp4").write_text(name)
    settings = Settings(bundle=bundle)
    listed = list_library(str(tmp_path / "library"))
    return Job(
        str(tmp_path / "library"), str(tmp_path / "out"), settings, open_bundle(bundle), listed, listed
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names that each attempt was given."""
    attempts: list[list[str]] = []

    def build(one_pass: Pass) -> SimpleNamespace:
        todo, witness = one_pass.todo, one_pass.witness
        attempts.append([Path(uri).stem for uri in todo["uri"].to_pylist()])

        def results() -> Iterator[pa.Table]:
            for row in todo.to_pylist():
                if witness.begin(("decode", row["video_id"], 0)) != "go":
                    continue
                row["failure"] = {
                    "status": "dropped",
                    "stage": "decode",
                    "reason": "short",
                    "failed_at": datetime.now(UTC),
                }
                yield from one_pass.publish(pa.Table.from_pylist([row], todo.schema))

        return SimpleNamespace(iter_batches=lambda **_: results())

    monkeypatch.setattr("pipeline.flow.build", build)
    monkeypatch.setattr(run, "open_witness", Here)
    monkeypatch.setattr(run, "Display", Display)
    monkeypatch.setattr(run, "open_meter", lambda _: Meter())
    return attempts


def plan() -> Plan:
    return SimpleNamespace(facts=dict, alone=plan, processes=0)


def gate_of(job: Job, seconds: dict[str, float], room_s: float) -> Gate:
    names = {row["video_id"]: Path(row["uri"]).stem for row in job.listed.to_pylist()}
    return Gate({video_id: seconds[name] for video_id, name in names.items()}, time.time() + room_s, 1.0)


def record_of(job: Job, outcome: Outcome) -> dict:
    return json.loads(storage.read_bytes(f"{job.output}/runs/{outcome.run_id}.json"))


def test_what_would_not_be_done_is_left_without_a_row(job: Job, asked: list[list[str]]) -> None:
    gate = gate_of(job, {"a": 10.0, "b": 5000.0, "c": 10.0, "d": 5000.0}, 1000.0)
    outcome = run.run(job, "r", plan(), make_console(), gate)
    assert asked == [["a", "b", "c", "d"]]
    assert (outcome.state, outcome.counts.finished, outcome.counts.failed, outcome.lost) == (
        "stopped",
        2,
        0,
        {},
    )
    rows = tables.read(job.output, "videos", ["uri"]).to_pylist()
    assert sorted(Path(row["uri"]).stem for row in rows) == ["a", "c"]
    assert record_of(job, outcome)["state"] == "stopped"
    assert record_of(job, outcome)["finished_at"]


def test_a_run_that_is_faster_than_was_thought_begins_what_was_late(
    job: Job, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]

    def clock() -> float:
        now[0] += 0.1
        return now[0]

    monkeypatch.setattr(gate_module, "time", SimpleNamespace(time=clock))
    names = {row["video_id"]: Path(row["uri"]).stem for row in job.listed.to_pylist()}
    lengths = {"a": 1100.0, "b": 500.0, "c": 500.0, "d": 99000.0}
    gate = Gate({video_id: lengths[name] for video_id, name in names.items()}, now[0] + 1000.0)
    outcome = run.run(job, "r", plan(), make_console(), gate)
    assert asked == [["a", "b", "c", "d"], ["a"]]
    assert (outcome.state, outcome.counts.finished, outcome.lost) == ("stopped", 3, {})


def test_where_nobody_knows_what_is_late_nothing_is_called_lost(
    job: Job, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Here, "late", lambda *_: None)
    gate = gate_of(job, {"a": 10.0, "b": 5000.0, "c": 10.0, "d": 5000.0}, 1000.0)
    outcome = run.run(job, "r", plan(), make_console(), gate)
    assert (outcome.state, outcome.counts.failed, outcome.lost) == ("stopped", 0, {})
    rows = tables.read(job.output, "videos", ["uri"]).to_pylist()
    assert sorted(Path(row["uri"]).stem for row in rows) == ["a", "c"]


def test_a_witness_that_does_not_answer_does_not_say_that_nothing_is_late() -> None:
    class Silent:
        def __init__(self) -> None:
            self.late = SimpleNamespace(remote=lambda: "never")

    def silent(*_: object, **__: object) -> None:
        raise GetTimeoutError("60 s")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipeline.suspects.ray.get", silent)
        assert Witness(Silent()).late({"a"}) is None


def test_a_run_that_is_done_in_time_has_finished(job: Job, asked: list[list[str]]) -> None:
    outcome = run.run(job, "r", plan(), make_console(), gate_of(job, dict.fromkeys("abcd", 10.0), 1000.0))
    assert (outcome.state, outcome.counts.finished) == ("finished", 4)


def test_what_is_under_way_long_after_the_deadline_is_left(
    job: Job, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(*_: object) -> Iterator[dict]:
        threading.Event().wait(60)
        yield {}

    monkeypatch.setattr(run, "attempts", endless)
    monkeypatch.setattr(overdue, "GRACE_S", 0.2)
    began = time.monotonic()
    outcome = run.run(job, "r", plan(), make_console(), gate_of(job, dict.fromkeys("abcd", 10.0), 0.2))
    assert time.monotonic() - began < 30
    assert (outcome.state, outcome.error) == ("stopped", None)


def test_a_run_that_has_just_ended_is_not_interrupted(
    job: Job, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Display):
        def __init__(self, *_: object) -> None:
            self.read = self.slowly

        @staticmethod
        def slowly() -> Totals:
            if threading.current_thread() is threading.main_thread():
                time.sleep(2.0)
            return Totals()

    def nothing(*_: object) -> Iterator[dict]:
        yield from ()

    monkeypatch.setattr(run, "Display", Slow)
    monkeypatch.setattr(run, "attempts", nothing)
    monkeypatch.setattr(overdue, "GRACE_S", 1.0)
    outcome = run.run(job, "r", plan(), make_console(), gate_of(job, dict.fromkeys("abcd", 10.0), 0.0))
    assert (outcome.state, record_of(job, outcome)["state"]) == ("stopped", "stopped")


def test_an_interruption_that_is_on_its_way_comes_before_the_end(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = overdue.interruptible

    @contextmanager
    def slowly() -> Iterator[Callable[[], None]]:
        with real() as interrupt:

            def late() -> None:
                time.sleep(0.3)
                interrupt()

            yield late

    monkeypatch.setattr(overdue, "interruptible", slowly)
    monkeypatch.setattr(overdue, "GRACE_S", 0.0)
    over = threading.Event()
    with (
        pytest.raises(KeyboardInterrupt),
        overdue.overdue(gate_of(job, dict.fromkeys("abcd", 1.0), 0.0), over),
    ):
        assert over.wait(20)


def test_a_night_without_earlier_runs_is_told_what_the_plan_can_do(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(highlights, "connection", lambda _: nullcontext())
    monkeypatch.setattr("jobs.plan.connected", lambda _: machine(16))
    monkeypatch.setattr(highlights, "preflight", lambda *_: [])
    monkeypatch.setattr(highlights, "run", lambda *_, **__: None)
    gate = Gate(dict.fromkeys(job.listed["video_id"].to_pylist(), 60.0), time.time() + 1000)
    highlights.process(job, "r", None, make_console(), gate)
    assert gate.speed() > 2 * gate_module.UNKNOWN_SPEED


def test_the_actor_of_the_witness_keeps_the_gate(ray_local: None) -> None:
    witness: Witness = open_witness(Gate({"a": 10.0, "b": 1e6}, time.time() + 1000, 1.0))
    assert witness.begin(("probe", "b", 0)) == "go"
    assert witness.begin(("decode", "a", 0)) == "go"
    assert witness.begin(("decode", "b", 0)) == "late"
    assert witness.late({"a", "b", "c"}) == {"b"}
    witness.finish("a")
    assert witness.suspects({"a", "b"}) == set()
