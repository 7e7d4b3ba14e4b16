"""When a run has to be done, by the clock on the wall, and what it plans until then."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.budget import LEAST, ArchiveSettings, deadline, fitting, ordered

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("now", "until", "ends"),
    [
        ("2026-06-01T01:00+02:00", "06:00", "2026-06-01T06:00+02:00"),
        ("2026-06-01T06:00+02:00", "06:00", "2026-06-02T06:00+02:00"),  # today's is past
        ("2026-06-01T23:00+02:00", "06:00", "2026-06-02T06:00+02:00"),
        # The night has 23 hours, then 25: six o'clock is six o'clock.
        ("2026-03-28T23:00+01:00", "06:00", "2026-03-29T06:00+02:00"),
        ("2026-10-24T23:00+02:00", "06:00", "2026-10-25T06:00+01:00"),
        # A time that the clock skips is the one an hour on; of one that it shows twice the first counts.
        ("2026-03-29T01:00+01:00", "02:30", "2026-03-29T03:30+02:00"),
        ("2026-10-25T01:00+02:00", "02:30", "2026-10-25T02:30+02:00"),
        ("2026-10-25T02:45+02:00", "02:30", "2026-10-26T02:30+01:00"),
        # In Berlin it is tomorrow already.
        ("2026-06-01T22:30+00:00", "06:00", "2026-06-02T06:00+02:00"),
        ("2026-06-01T01:00+02:00", "2026-06-03T06:00", "2026-06-03T06:00+02:00"),
        ("2026-06-01T01:00+02:00", "2026-06-03T06:00Z", "2026-06-03T06:00+00:00"),
    ],
)
def test_a_time_of_day_is_the_next_one_on_the_wall(now: str, until: str, ends: str) -> None:
    assert deadline(ArchiveSettings(until=until, zone=BERLIN), at(now)) == at(ends)


def test_the_zone_of_the_machine_is_used_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", BERLIN)
    time.tzset()
    try:
        settings = ArchiveSettings(until="06:00")
        assert deadline(settings, at("2026-03-28T23:00+01:00")) == at("2026-03-29T06:00+02:00")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_earlier_of_deadline_and_budget_counts() -> None:
    now = at("2026-06-01T01:00+00:00")
    assert deadline(ArchiveSettings(), now) is None
    assert deadline(ArchiveSettings(max_hours=1.5), now) == now + timedelta(minutes=90)
    both = ArchiveSettings(max_hours=9, until="06:00", zone="UTC")
    assert deadline(both, now) == at("2026-06-01T06:00+00:00")


@pytest.mark.parametrize("until", ["6 o'clock", "25:00", "06:00+02:00", ""])
def test_no_time_is_refused(until: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        ArchiveSettings(until=until)


def test_an_iso_time_that_is_past_is_refused() -> None:
    with pytest.raises(ValueError, match="is past"):
        deadline(ArchiveSettings(until="2026-06-01T00:00Z"), at("2026-06-01T01:00+00:00"))


def row(uri: str, day: int | None, size_bytes: int = 1, seconds: float = 60.0) -> dict:
    modified = None if day is None else datetime(2026, 1, day, tzinfo=UTC)
    return {"uri": uri, "modified_at": modified, "size_bytes": size_bytes, "seconds": seconds}


@pytest.mark.parametrize(("order", "first"), [("newest", "cbda"), ("oldest", "bdca"), ("smallest", "abcd")])
def test_what_comes_first(order: str, first: str) -> None:
    rows = [row("d", 2, 4), row("c", 3, 3), row("b", 2, 2), row("a", None, 1)]
    assert "".join(one["uri"] for one in ordered(rows, order)) == first


def test_no_more_is_planned_than_could_be_done_several_times_over() -> None:
    rows = [row(f"{n:04}", 1) for n in range(3000)]
    assert fitting(rows, ArchiveSettings(), None, 2.0) == rows
    assert fitting(rows, ArchiveSettings(), 600.0, None) == rows
    assert fitting(rows, ArchiveSettings(), 600.0, 50.0) == rows[:2000]
    assert fitting(rows, ArchiveSettings(), 1.0, 1.0) == rows[:LEAST]
    assert fitting(rows, ArchiveSettings(max_videos=7), 600.0, 50.0) == rows[:7]
