"""Where the seconds went: what a stage did, what it waited for, and how busy that kept the cores."""

import io

import pytest
from rich.console import Console

from pipeline.profile import profile_table, seconds_of
from pipeline.progress import StageCount


def test_workers_wait_when_they_neither_work_nor_copy() -> None:
    decode = StageCount(rows=8, wall_s=30.0, cpu_s=28.0, copy_s=1.0)
    told = seconds_of(decode, workers=2, wall_s=20.0)
    assert told["waiting_s"] == pytest.approx(9.0)
    assert told["workers"] == 2
    assert told["cpu_s"] == 28.0


def test_a_stage_that_was_measured_a_little_long_waited_for_nothing() -> None:
    assert seconds_of(StageCount(wall_s=10.1), workers=1, wall_s=10.0)["waiting_s"] == 0.0


def test_the_table_has_a_row_per_stage_and_says_how_busy_the_cores_were() -> None:
    stages = {
        "decode": seconds_of(StageCount(rows=8, wall_s=30.0, cpu_s=28.0, copy_s=1.0), 2, 20.0),
        "look": seconds_of(StageCount(rows=8, wall_s=6.0, cpu_s=8.0), 1, 20.0),
    }
    record = {"plan": {"cores": 2}, "wall_s": 20.0, "start_s": 9.0, "stages": stages}
    file = io.StringIO()
    Console(file=file, width=120).print(profile_table(record))
    lines = file.getvalue().splitlines()
    assert [line.split() for line in lines if line.startswith(("decode", "look"))] == [
        ["decode", "2", "8", "28.0", "30.0", "1.0", "9.0"],
        ["look", "1", "8", "8.0", "6.0", "0.0", "14.0"],
    ]
    assert "90% of 2 cores" in file.getvalue()
