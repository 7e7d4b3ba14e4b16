"""`reelmap label OUTPUT --liked FILE.csv --disliked FILE.csv`: what people like in the videos of an OUTPUT.

    video,start,end
    holiday.mp4,12.5,20
    2024/holiday.mp4,1:02:03,1:02:10
    s3://library/race.mp4,1m30s,1m42s

Further columns are ignored. A video is named by its whole URI, or by as much of the end of it as only one
video has. All lines are checked before anything is written, and all that is wrong with them is said at once.
"""

import csv
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline import labels, storage
from pipeline.videos import VideoError, Videos
from pipeline.wording import clock, tenths

COLUMNS = ("video", "start", "end")
# Reports and players show whole seconds: a span up to the end may be written as a little more than that.
ROUNDING_S = 1.0


class LabelError(Exception):
    """Nothing was written; the message says what is wrong, line by line."""


@dataclass(frozen=True)
class Line:
    """One line of a CSV file as it was written."""

    place: str  # file and number, for messages
    video: str
    start: str
    end: str
    liked: bool


def label(output: str, liked: tuple[str, ...], disliked: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Writes what the files say; without files, lists what is labelled. Raises LabelError or StorageError."""
    output = storage.absolute(output)
    try:
        videos = Videos(output)
    except VideoError as error:
        raise LabelError(str(error)) from error
    if not liked and not disliked:
        show(labels.read(output), say)
        return
    lines = [line for files, like in ((liked, True), (disliked, False)) for line in read_files(files, like)]
    spans, wrong = [], []
    for line in lines:
        try:
            spans.append(span_of(line, videos))
        except ValueError as error:
            wrong.append(f"{line.place}: {error}")
    wrong += contradictions(spans)
    if wrong:
        what = "one line is" if len(wrong) == 1 else f"{len(wrong)} lines are"
        raise LabelError("\n".join([f"{what} wrong, nothing was labelled:", *wrong]))
    labels.write(
        output, [{k: v for k, v in span.items() if k != "place"} for span in spans], datetime.now(UTC)
    )
    now = labels.read(output)
    say(f"labelled {counted(len(spans), 'span')}; in all now {summary(now)}")


def read_files(files: tuple[str, ...], liked: bool) -> Iterator[Line]:
    for file in files:
        try:
            text = storage.read_bytes(storage.absolute(file)).decode("utf-8-sig")
            yield from read_lines(text, storage.shown(file), liked)
        except (UnicodeDecodeError, csv.Error) as error:
            raise LabelError(f"{storage.shown(file)} is not a CSV file in UTF-8: {error}") from error


def read_lines(text: str, file: str, liked: bool) -> list[Line]:
    reader = csv.reader(text.splitlines())
    header = [name.strip().lower() for name in next(reader, [])]
    if missing := [name for name in COLUMNS if name not in header]:
        raise LabelError(
            f"{file}: the first line must name the columns {','.join(COLUMNS)}; missing: {', '.join(missing)}"
        )
    place = [header.index(name) for name in COLUMNS]
    lines = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        video, start, end = (cells[i].strip() if i < len(cells) else "" for i in place)
        lines.append(Line(f"{file} line {reader.line_num}", video, start, end, liked))
    if not lines:
        raise LabelError(f"{file} names no spans")
    return lines


def span_of(line: Line, videos: Videos) -> dict[str, Any]:
    """A row of the labels table, and the line's `place`. Raises ValueError in words."""
    video = videos.find(line.video)
    start_s, end_s, length_s = seconds(line.start), seconds(line.end), video["duration_s"]
    if end_s <= start_s:
        raise ValueError(f"the span ends ({line.end}) before it has begun ({line.start})")
    if start_s >= length_s or end_s > length_s + ROUNDING_S:
        raise ValueError(f"{line.start} to {line.end} is beyond the end of {line.video} ({tenths(length_s)})")
    return {
        "video_id": video["video_id"],
        "uri": video["uri"],
        "start_s": start_s,
        "end_s": min(end_s, length_s),
        "liked": line.liked,
        "place": line.place,
    }


def seconds(text: str) -> float:
    """Of "12.5", "1:30", "1:02:03.5", "1m30s" or "2h". Raises ValueError in words."""
    number = r"(\d+(?:\.\d+)?)"
    if parts := re.fullmatch(rf"(?:(?:(\d+):)?(\d+):)?{number}", text) or (
        text and re.fullmatch(rf"(?:(\d+)h)?(?:(\d+)m)?(?:{number}s)?", text)
    ):
        hours, minutes, rest = (float(part or 0) for part in parts.groups())
        if ":" not in text or rest < 60:
            return 3600 * hours + 60 * minutes + rest
    raise ValueError(f"{text or '(nothing)'} is no time: write 90.5, 1:30.5 or 1m30.5s")


def contradictions(spans: list[dict[str, Any]]) -> list[str]:
    """Lines that like what others of the same command dislike."""
    ordered = sorted(spans, key=lambda span: (span["video_id"], span["start_s"]))
    found = []
    for _, group in itertools.groupby(ordered, key=lambda span: span["video_id"]):
        last: dict[bool, dict[str, Any]] = {}  # of each kind the span that reaches furthest
        for span in group:
            other = last.get(not span["liked"])
            if other and other["end_s"] > span["start_s"]:
                found.append(f"{span['place']}: overlaps {other['place']}, which says the opposite")
            mine = last.get(span["liked"])
            if not mine or mine["end_s"] < span["end_s"]:
                last[span["liked"]] = span
    return found


def show(rows: list[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Every span, by video."""
    for uri, group in itertools.groupby(rows, key=lambda row: row["uri"]):
        say(storage.shown(uri))
        for row in group:
            word = "liked" if row["liked"] else "disliked"
            say(f"  {word:8}  {tenths(row['start_s'])} to {tenths(row['end_s'])}")
    say(summary(rows) if rows else "nothing is labelled: see reelmap label --help")


def summary(rows: list[dict[str, Any]]) -> str:
    words = []
    for liked, word in ((True, "liked"), (False, "disliked")):
        lengths = [row["end_s"] - row["start_s"] for row in rows if row["liked"] == liked]
        words.append(f"{counted(len(lengths), 'span')} {word} ({clock(sum(lengths))})")
    return f"{' and '.join(words)} in {counted(len({row['video_id'] for row in rows}), 'video')}"


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
