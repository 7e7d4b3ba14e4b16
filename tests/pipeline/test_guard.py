"""An item's failure is its row, with stage and reason; its neighbours never notice."""

import errno
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cluster.metrics import Work
from pipeline.guard import Batches, Bounds, Guard
from pipeline.rows import LISTED, from_table, to_table
from pipeline.storage import StorageError
from stages import tally
from stages.failure import Dropped, Failed


class Silent:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def attend(self, stage: str, row: dict | None = None) -> None:
        self.at = stage, row

    def add(self, work: Work) -> None:
        self.works.append(work)


def run(stage: object, rows: list[dict], sees_failures: bool = False) -> list[dict]:
    guard = Guard("stage", stage, LISTED, Silent(), sees_failures=sees_failures)
    return [row for table in guard(to_table(rows, LISTED)) for row in from_table(table)]


def rows(count: int) -> list[dict]:
    return [{"video_id": str(number), "uri": "x"} for number in range(count)]


@pytest.mark.parametrize(
    ("error", "status", "reason", "traced"),
    [
        (Failed("too large"), "failed", "too large", False),
        (Dropped("no video"), "dropped", "no video", False),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero", True),
    ],
)
def test_what_a_stage_raises_becomes_a_row(error: Exception, status: str, reason: str, traced: bool) -> None:
    def stage(row: dict) -> dict:
        if row["video_id"] == "1":
            raise error
        return row

    first, second, third = run(stage, rows(3))
    assert first["failure"] is third["failure"] is None
    assert (second["failure"]["status"], second["failure"]["reason"]) == (status, reason)
    assert second["failure"]["stage"] == "stage"
    assert bool(second["failure"]["trace"]) == traced


def test_failure_in_the_middle_of_a_generator_keeps_what_came_before() -> None:
    def stage(row: dict) -> Iterator[dict]:
        yield row | {"uri": "first"}
        raise Failed("the rest is damaged")

    good, bad = run(stage, rows(1))
    assert good["uri"] == "first"
    assert bad["failure"]["reason"] == "the rest is damaged"


def test_rows_that_failed_before_pass_by_unless_the_stage_wants_them() -> None:
    failed = rows(1)[0] | {"failure": {"status": "failed", "stage": "probe", "reason": "empty"}}
    seen = []

    def stage(row: dict) -> None:
        seen.append(row["video_id"])

    assert run(stage, [failed])[0]["failure"]["stage"] == "probe"
    assert not seen
    assert run(stage, [failed], sees_failures=True) == []
    assert seen == ["0"]


class Court:
    """A witness that always gives the same verdict."""

    def __init__(self, verdict: str):
        self.verdict, self.heard = verdict, []

    def begin(self, row: tuple) -> str:
        self.heard.append(("begin", row))
        return self.verdict

    def end(self, row: tuple) -> None:
        self.heard.append(("end", row))


def guarded(stage: object, witness: Court | None = None, bounds: Bounds = Bounds()) -> list[dict]:
    guard = Guard("decode", stage, LISTED, Silent(), witness, bounds)
    return [row for table in guard(to_table(rows(1), LISTED)) for row in from_table(table)]


def test_every_row_is_begun_and_ended_even_if_it_fails() -> None:
    for stage in (lambda row: row, lambda row: 1 / 0, lambda row: iter([row])):
        court = Court("go")
        assert len(guarded(stage, court)) == 1
        assert court.heard == [("begin", ("decode", "0", 0)), ("end", ("decode", "0", 0))]


def test_row_that_the_storage_does_not_give_has_not_killed_anybody() -> None:
    def stage(row: dict) -> dict:
        raise StorageError("cannot read s3://b/k: the store does not answer")

    court = Court("go")
    assert guarded(stage, court) == []  # what does not come out is planned again
    assert [what for what, _ in court.heard] == ["begin", "end"]


def test_suspect_is_not_touched_and_guilty_one_fails_in_words() -> None:
    def stage(row: dict) -> dict:
        raise AssertionError("it ran")

    assert guarded(stage, Court("aside")) == []
    (row,) = guarded(stage, Court("guilty"), Bounds(stall_timeout_s=60))
    assert row["failure"]["status"] == "failed"
    assert row["failure"]["stage"] == "decode"
    assert "its worker died or hung for limits.stall_timeout_s = 60, 3 times" in row["failure"]["reason"]


def test_row_that_wants_too_much_memory_fails_in_words_and_the_next_one_has_it() -> None:
    def stage(row: dict) -> dict:
        np.ones(256 << 20, np.uint8)
        return row

    (row,) = guarded(stage, bounds=Bounds(max_memory_bytes=64 << 20))
    assert row["failure"]["reason"] == "it needs more than limits.max_memory_bytes = 64 MiB to be read"
    assert row["failure"]["trace"] is None
    assert guarded(stage)[0]["failure"] is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_full_scratch_disk_is_no_fault_of_the_row(wrapped: bool) -> None:
    def stage(row: dict) -> dict:
        full = OSError(errno.ENOSPC, "No space left on device")
        if wrapped:
            raise Failed("cannot be rendered") from full
        raise full

    assert guarded(stage) == []


def test_full_gpu_is_no_fault_of_the_row() -> None:
    def stage(row: dict) -> dict:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert guarded(stage) == []


def test_other_errors_of_files_are_the_rows() -> None:
    def stage(row: dict) -> dict:
        raise OSError(errno.EIO, "Input/output error")

    assert "Input/output" in guarded(stage)[0]["failure"]["reason"]


def watched(stage: object, rows: list[dict], sees_failures: bool = False) -> list[Work]:
    reporter = Silent()
    list(Guard("stage", stage, LISTED, reporter, sees_failures=sees_failures)(to_table(rows, LISTED)))
    return reporter.works


def test_work_says_what_came_out_and_what_became_of_the_rest() -> None:
    def stage(row: dict) -> Iterator[dict]:
        if row["video_id"] == "1":
            raise Dropped("no video")
        if row["video_id"] == "2":
            raise ZeroDivisionError
        if row["video_id"] == "3":
            raise StorageError("away")
        yield row
        yield row
        if row["video_id"] == "4":
            raise Failed("the rest is damaged")

    works = watched(stage, rows(5))
    assert [(w.rows_in, w.rows_out, w.failed, w.put_off) for w in works] == [
        (1, 2, "", ""),
        (1, 0, "dropped", ""),
        (1, 0, "unexpected", ""),
        (1, 0, "", "storage"),
        (1, 2, "failed", ""),
    ]


def test_a_row_that_failed_before_is_no_work_and_no_new_failure() -> None:
    failed = rows(1)[0] | {"failure": {"status": "failed", "stage": "probe", "reason": "empty"}}
    assert watched(lambda row: row, [failed]) == []
    (work,) = watched(lambda row: row, [failed], sees_failures=True)
    assert (work.rows_in, work.rows_out, work.failed) == (0, 0, "")


def test_time_and_bytes_are_those_of_the_stage_not_of_whoever_takes_its_rows() -> None:
    def stage(row: dict) -> Iterator[dict]:
        for _ in range(2):
            time.sleep(0.05)
            tally.count("read_bytes", 10)
            yield row

    reporter = Silent()
    for _ in Guard("stage", stage, LISTED, reporter)(to_table(rows(1), LISTED)):
        tally.count("read_bytes", 1000)
        time.sleep(0.3)
    (work,) = reporter.works
    assert 0.1 <= work.wall_s < 0.5
    assert work.counts["read_bytes"] == 20


def test_a_batch_is_work_too_and_what_it_raises_is_put_off() -> None:
    failed = {"failure": {"status": "failed", "stage": "probe", "reason": "empty"}}
    three = [row | (failed if row["video_id"] == "0" else {}) for row in rows(3)]

    def refused(table: object) -> Iterator[object]:
        raise StorageError("away")
        yield table

    reporter = Silent()
    batch = to_table(three, LISTED)
    assert list(Batches("publish", lambda table: iter([table]), reporter)(batch)) == [batch]
    with pytest.raises(StorageError):
        list(Batches("publish", refused, reporter)(batch))
    assert [(w.rows_in, w.rows_out, w.put_off) for w in reporter.works] == [(2, 2, ""), (2, 0, "storage")]


def test_what_is_put_off_and_what_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def stage(row: dict) -> dict:
        tally.count("storage_retries", 2)
        raise Failed("too large") if row["video_id"] == "0" else StorageError("the store is away")

    with caplog.at_level("INFO", "reelmap"):
        run(stage, rows(2))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "failed: too large"),
        ("INFO", "the storage had to be asked 2 times again"),
        ("WARNING", "put off: the store is away"),
        ("INFO", "the storage had to be asked 2 times again"),
    ]
    assert caplog.records[0].seconds >= 0
