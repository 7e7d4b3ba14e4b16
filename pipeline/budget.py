"""How much of an archive one run takes: until when, how many hours or videos, and what comes first."""

from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from stages.settings import Settings


class ArchiveSettings(Settings):
    """The group `archive:` of a job file (jobs/job_file.py). None of it changes what a video's result is."""

    # A local time of day ("06:00", tomorrow's if today's is past) or an ISO time: nothing is begun that would
    # not be done by then.
    until: str | None = None
    zone: str | None = Field(None, description="IANA name of the zone of `until`; none: the machine's own")
    max_hours: float | None = Field(None, gt=0.0)  # of wall time
    max_videos: int | None = Field(None, ge=1)
    order: Literal["newest", "oldest", "smallest"] = "newest"
    # What becomes of the results of a source that is no longer there.
    deleted: Literal["keep", "remove"] = "keep"

    @field_validator("until", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, datetime):  # YAML knows ISO times
            return value.isoformat()
        if isinstance(value, int):  # and reads 22:00 as sixty times 22
            raise ValueError('write the time in quotes: "22:00"')
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
