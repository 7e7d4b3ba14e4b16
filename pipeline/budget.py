"""How much of an archive one run takes: until when, how many hours or videos, and what comes first."""

from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from stages.settings import Settings

# Of a long backlog not every header need be read in a night that has no time for it. Speeds vary, and short
# runs are slow for their start: so many times what should fit is planned, and so many videos in any case.
# Whether one begins is decided when it would (pipeline/gate.py).
MARGIN, LEAST = 4.0, 1000


class ArchiveSettings(Settings):
    """The group `archive:` of a job file (jobs/job_file.py). None of it changes what a video's result is."""

    # A local time of day ("06:00", tomorrow's if today's is past) or an ISO time: nothing is begun that would
    # not be done by then.
    until: str | None = None
    zone: str | None = Field(None, description="IANA name of the zone of `until`; none: the machine's own")
    max_hours: float | None = Field(None, gt=0.0)  # of wall time
    max_videos: int | None = Field(None, ge=1)
    order: Literal["newest", "oldest", "smallest"] = "newest"
    reprocess: bool = False  # also what was made with other settings or weights
    # What becomes of the results of a source that is no longer there.
    deleted: Literal["keep", "remove"] = "keep"
    # Of the results of this source. When more seem to be gone, it may be a disk that is not mounted.
    max_deleted_share: float = Field(0.5, ge=0.0, le=1.0)

    @field_validator("until", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, datetime):  # YAML knows ISO times
            return value.isoformat()
        if isinstance(value, int):  # and reads 22:00 as sixty times 22
            raise ValueError('write the time in quotes: "22:00"')
        return value

    @field_validator("until")
    @classmethod
    def _is_time(cls, value: str | None) -> str | None:
        if value is not None:
            _parse(value)
        return value

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(f"there is no time zone {value!r}: write it as Europe/Berlin") from error
        return value


def deadline(settings: ArchiveSettings, now: datetime) -> datetime | None:
    """When a run that begins at `now` has to be done, in UTC; None: no matter when.

    A time of day is one of the wall clock: the night may have 23 or 25 hours.
    Raises ValueError for an ISO time that is past.
    """
    ends = []
    if settings.max_hours is not None:
        ends.append(now.astimezone(UTC) + timedelta(hours=settings.max_hours))
    if settings.until is not None:
        until, zone = _parse(settings.until), ZoneInfo(settings.zone) if settings.zone else None
        if isinstance(until, datetime):
            ends.append(_in_utc(until, zone))
        else:
            today = now.astimezone(zone).date()
            days = (_in_utc(datetime.combine(today + timedelta(days=n), until), zone) for n in range(3))
            ends.append(next(end for end in days if end > now))
        if ends[-1] <= now:
            raise ValueError(f"archive.until: {settings.until} is past")
    return min(ends, default=None)


def _parse(until: str) -> time_of_day | datetime:
    for kind in (time_of_day, datetime):
        try:
            parsed = kind.fromisoformat(until)
        except ValueError:
            continue
        if kind is time_of_day and parsed.tzinfo:
            break
        return parsed
    raise ValueError(f"{until!r} is not a time: write 06:00 or 2026-11-24T06:00:00+01:00")


def _in_utc(at: datetime, zone: ZoneInfo | None) -> datetime:
    """Without a zone of its own it is meant in `zone`, or in that of this machine."""
    if at.tzinfo is None and zone:
        at = at.replace(tzinfo=zone)
    return at.astimezone(UTC)  # a naive time is one of this machine, summer or winter as of that day


def ordered(rows: list[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    """What comes first; equals by URI. Unknown times of modification come last."""
    rows = sorted(rows, key=lambda row: row["uri"])
    if order == "smallest":
        return sorted(rows, key=lambda row: row["size_bytes"])
    known = [row for row in rows if row["modified_at"] is not None]
    known.sort(key=lambda row: row["modified_at"], reverse=order == "newest")
    return known + [row for row in rows if row["modified_at"] is None]


def fitting(
    rows: list[dict[str, Any]], settings: ArchiveSettings, time_s: float | None, speed: float | None
) -> list[dict[str, Any]]:
    """Of rows in order, with `seconds` of footage each, those that one run should plan.

    time_s  until the deadline, None without one
    speed   seconds of footage per second, None if unknown
    """
    rows = rows[: settings.max_videos]
    if time_s is None or speed is None:
        return rows
    room_s, taken = MARGIN * speed * time_s, 0
    for row in rows:
        room_s -= row["seconds"]
        if room_s < 0 and taken >= LEAST:
            break
        taken += 1
    return rows[:taken]
