"""An item's failure is its row, with stage and reason; its neighbours never notice."""

from collections.abc import Iterator

import pytest

from pipeline.guard import Guard
from pipeline.rows import LISTED, from_table, to_table
from stages.failure import Dropped, Failed


class Silent:
    def add(self, *args: object, **measures: object) -> None:
        pass


def run(stage: object, rows: list[dict], sees_failures: bool = False) -> list[dict]:
    guard = Guard("stage", stage, LISTED, Silent(), sees_failures)
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
