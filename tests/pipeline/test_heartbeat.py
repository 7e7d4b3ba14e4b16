"""A running run's record is there at once, is written again, and never after the run has ended."""

import json
import threading
from pathlib import Path

import pytest

from pipeline import heartbeat, storage
from pipeline.heartbeat import Heartbeat


def test_the_record_is_written_at_once_and_again(tmp_path: Path) -> None:
    beats = threading.Semaphore(0)
    count = [0]

    def facts() -> dict:
        count[0] += 1
        beats.release()
        return {"beat": count[0]}

    with Heartbeat(f"{tmp_path}/runs/r.json", facts, every_s=0.01):
        for _ in range(3):
            assert beats.acquire(timeout=20)
    written = json.loads((tmp_path / "runs" / "r.json").read_text())
    assert written["beat"] == count[0]
    assert written["beat"] >= 3


def test_a_slow_last_beat_does_not_come_after_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, done = threading.Event(), []

    def slow(uri: str, data: bytes) -> None:
        begun.set()
        threading.Event().wait(0.2)
        done.append(uri)

    monkeypatch.setattr(heartbeat.storage, "write_bytes", slow)
    with Heartbeat(f"{tmp_path}/r.json", dict):
        assert begun.wait(20)
    assert len(done) == 1


def test_the_end_waits_for_no_store_that_hangs_and_its_record_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answers, real = threading.Event(), threading.Event(), storage.write_bytes

    def hangs(uri: str, data: bytes) -> None:
        if json.loads(data)["state"] == "running":
            begun.set()
            assert answers.wait(60)
        real(uri, data)

    monkeypatch.setattr(heartbeat.storage, "write_bytes", hangs)
    monkeypatch.setattr(heartbeat, "PATIENCE_S", 0.1)
    with Heartbeat(f"{tmp_path}/r.json", lambda: {"state": "running"}) as beat:
        assert begun.wait(20)
    beat.end({"state": "interrupted"})
    answers.set()
    beat._thread.join(20)
    assert json.loads((tmp_path / "r.json").read_text()) == {"state": "interrupted"}


def test_a_store_that_is_away_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Semaphore(0)

    def away(*_: object) -> None:
        tried.release()
        raise storage.StorageError("the store does not answer")

    monkeypatch.setattr(heartbeat.storage, "write_bytes", away)
    with Heartbeat(f"{tmp_path}/r.json", dict, every_s=0.01):
        assert tried.acquire(timeout=20)
        assert tried.acquire(timeout=20)
