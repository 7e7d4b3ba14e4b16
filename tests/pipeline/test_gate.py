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
    assert set(gate.late) == {"b"}
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
    for n in range(360):  # one video in twenty seconds is 5 times real time
        assert gate.lets("decode", f"{n}")
        clock.at += 20.0
        gate.finish(f"{n}")
    assert 5.0 < gate.speed() < 5.5


def test_without_earlier_runs_half_of_the_forecast_counts(clock: SimpleNamespace) -> None:
    gate = Gate({"a": 900.0, "b": 200.0}, deadline=1100.0)
    gate.expect(20.0)
    assert gate.lets("decode", "a")  # 90 s
    assert not gate.lets("decode", "b")  # 20 s more
    measured = Gate({}, deadline=1100.0, speed=3.0)
    measured.expect(20.0)
    assert measured.speed() == 3.0


def test_time_alone_makes_a_run_no_slower(clock: SimpleNamespace) -> None:
    gate = Gate({"a": 7200.0, "b": 7200.0, "c": 100.0}, deadline=30_000.0, speed=8.0)
    assert gate.lets("decode", "a")
    clock.at += 3600.0  # the stages fill
    assert gate.speed() == 8.0
    gate.finish("a")
    assert gate.speed() == 8.0
    assert gate.lets("decode", "b")
    clock.at += 3600.0
    assert gate.speed() == 8.0
    gate.finish("b")
    assert 2.0 < gate.speed() < 3.0


def test_what_was_late_asks_again_between_attempts_once_the_run_is_faster(clock: SimpleNamespace) -> None:
    gate = Gate({"a": 500.0, "b": 400.0, "c": 1500.0, "d": 90_000.0}, deadline=2000.0)
    assert gate.lets("decode", "a")
    assert gate.lets("decode", "b")
    assert not gate.lets("decode", "c")
    assert not gate.lets("decode", "d")
    gate.reconsider()
    assert set(gate.late) == {"c", "d"}
    gate.finish("a")
    clock.at += 1.0
    gate.finish("b")
    for video_id in "cd":
        assert not gate.lets("decode", video_id)  # as their other shards, in this attempt
    gate.reconsider()
    assert set(gate.late) == {"d"}
    assert gate.lets("decode", "c")


@pytest.mark.parametrize(
    ("length_s", "speed", "least"), [(7200.0, 67.0, 240), (3600.0, 8.0, 58), (600.0, 400.0, 18_000)]
)
def test_a_first_night_of_eight_hours_is_used(
    length_s: float, speed: float, least: int, clock: SimpleNamespace
) -> None:
    """Videos come out one after another at `speed`, four of them on their way; the plan foretold as much."""
    night_s, begun, done = 8 * 3600.0, [], 0
    videos = int(speed * night_s / length_s) + 100
    gate = Gate({f"{n}": length_s for n in range(videos)}, clock.at + night_s)
    gate.expect(speed)
    for n in range(videos):
        if gate.lets("decode", f"{n}"):
            begun.append(f"{n}")
        if len(begun) - done >= 4:
            clock.at += length_s / speed
            gate.finish(begun[done])
            done += 1
    for video_id in begun[done:]:
        clock.at += length_s / speed
        gate.finish(video_id)
    assert len(begun) >= least
    assert clock.at <= gate.deadline
