"""What is logged, by the driver and by the workers: plain lines, or with REELMAP_LOG=json one object a line.

An object has time, level, run, stage, video_id, shard, message, seconds and trace, less what is not known.
The place is set in one spot (pipeline/guard.py for the workers, pipeline/run.py for the driver) and holds for
all that is logged below it, also by the thread that talks to a store. Secrets are taken out here.
"""

import io
import json
import logging
import os
import sys
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from pipeline.redact import without_secrets

Format = Literal["text", "json"]

log = logging.getLogger("reelmap")


@dataclass(frozen=True)
class Place:
    run: str | None = None
    stage: str | None = None
    video_id: str | None = None
    shard: int | None = None


NOWHERE = Place()
_place: ContextVar[Place] = ContextVar("place", default=NOWHERE)


def at(place: Place) -> None:
    """From now on, what this thread logs is said to come from there."""
    _place.set(place)


def wanted() -> Format:
    """By the environment of the driver, which hands it to its workers."""
    return "json" if os.environ.get("REELMAP_LOG", "").lower() == "json" else "text"


class JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **asdict(_place.get()),
            "message": without_secrets(record.getMessage()),
            "seconds": getattr(record, "seconds", None),
            "trace": without_secrets(self.formatException(record.exc_info)) if record.exc_info else None,
        }
        return json.dumps({name: value for name, value in event.items() if value is not None})


class TextLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        place = _place.get()
        parts = (
            place.stage,
            f"video {place.video_id}" if place.video_id else None,
            f"shard {place.shard}" if place.shard is not None else None,
        )
        where = ", ".join(filter(None, parts))
        return (where and f"{where}: ") + without_secrets(super().format(record))


class _Handler(logging.StreamHandler):
    """To the standard error of the moment: a test or a worker may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def configure(form: Format) -> None:
    """For this process; the same again changes nothing. Plain lines are for people: warnings only."""
    formatter = JsonLine() if form == "json" else TextLine()
    ours = [handler for handler in log.handlers if isinstance(handler, _Handler)]
    if not ours:
        log.addHandler(_Handler())
    for handler in log.handlers:
        if isinstance(handler, _Handler) and type(handler.formatter) is not type(formatter):
            handler.setFormatter(formatter)
    log.setLevel(logging.INFO if form == "json" else logging.WARNING)


class Events(io.TextIOBase):
    """A stream for people's lines, each of which is logged as one event."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                log.info("%s", line)
        return len(text)

    def writable(self) -> bool:
        return True
