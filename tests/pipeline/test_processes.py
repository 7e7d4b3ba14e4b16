"""Rows through a stage in processes of their own: whatever one row does, the others come out."""

import os
import signal
import time

import pytest

from pipeline.processes import DEATHS, Stopped, through
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
