"""Nothing begins that would not be done in time, and what has begun goes on."""

from types import SimpleNamespace

import pytest

from pipeline import gate as module
from pipeline.gate import Gate


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(at=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now.at))
    return now


def test_only_what_would_be_done_in_time_begins(clock: SimpleNamespace) -> None:
    gate = Gate({"a": 600.0, "b": 500.0, "c": 90.0}, deadline=1100.0, speed=10.0)
    assert gate.lets("decode", "a")  # 60 s
    assert not gate.lets("decode", "b")  # 50 s more
    assert gate.lets("decode", "c")  # 9 s more
    assert gate.late == {"b"}
    gate.finish("a")
    assert not gate.lets("decode", "b")  # a shard of it was refused already


def test_what_has_begun_goes_on_after_the_deadline(clock: SimpleNamespace) -> None:
    gate = Gate({"a": 10.0, "b": 10.0}, deadline=1100.0, speed=10.0)
    assert gate.lets("decode", "a")
    clock.at = 2000.0
    assert gate.lets("decode", "a")
    assert gate.lets("render", "b")  # stages after the first do not ask
    assert not gate.lets("decode", "b")
    gate.finish("a")
    assert gate.lets("decode", "a")  # a shard of it that was lost


def test_the_speed_of_this_run_takes_over(clock: SimpleNamespace) -> None:
    gate = Gate({f"{n}": 100.0 for n in range(1000)}, deadline=1e9, speed=10.0)
    for n in range(360):  # one video in ten seconds is 10 times real time, then half of that
        assert gate.lets("decode", f"{n}")
        clock.at += 20.0
        gate.finish(f"{n}")
    assert 5.0 < gate.speed(clock.at) < 5.5


def test_without_earlier_runs_it_is_careful(clock: SimpleNamespace) -> None:
    gate = Gate({"a": 90.0, "b": 90.0}, deadline=1100.0)
    assert gate.lets("decode", "a")
    assert not gate.lets("decode", "b")
