"""The best of many videos of an OUTPUT as one reel: which clips, from the tables; then its rendering.

Nothing is analysed: scores, embeddings and spans stand in `clips`. They are read part by part.
"""

import fnmatch
import hashlib
import json
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline import cuts, storage, tables
from pipeline.config import Settings
from pipeline.guard import Stage
from pipeline.making import make_cut, open_render
from pipeline.publish import upload
from pipeline.recut import check_version, facts_of
from pipeline.rows import FACTS
from stages import tally
from stages.audio import RATE, read_samples
from stages.axis import Axis
from stages.best import Candidate, Pool, window
from stages.container import LimitSettings, keeping_blocks, open_source
from stages.cutter import read_span
from stages.failure import Failed
from stages.medley import Medley, Take, TakesFailed
from stages.pauses import Edges
from stages.watchdog import unwatched

COLUMNS = ["clip", "shot", "start_s", "end_s", "score", "thumbnail_s", "embedding"]

# The pool has left out what looks alike, and its clips are put in order before they are cut.
IN_ORDER = {"order": "chronological", "apart": 0.0}

Row = dict[str, Any]


@dataclass(frozen=True)
class From:
    """Which videos of an OUTPUT: by URI, and by when their files were last changed."""

    uris: tuple[str, ...] = ()  # globs, in which * goes over slashes, or what URIs begin with; none: all
    since: datetime | None = None
    until: datetime | None = None

    def __call__(self, video: Row) -> bool:
        at = video["modified_at"]
        if self.since and (at is None or at < self.since):
            return False
        if self.until and (at is None or at >= self.until):
            return False
        return not self.uris or any(matches(video["uri"], pattern) for pattern in self.uris)


def matches(uri: str, pattern: str) -> bool:
    """Whether a URI is, lies below, or fits what the pattern says."""
    whole = storage.absolute(pattern) if "://" in pattern or pattern.startswith((".", "/", "~")) else pattern
    below = uri == whole or uri.startswith(f"{whole}/")
    # A part of a name is enough only if the pattern says so: *surf*.
    return below or fnmatch.fnmatchcase(uri, whole) or fnmatch.fnmatchcase(uri, f"{whole}/*")


@dataclass(frozen=True)
class Choice:
    """An edit list over many videos, with what has to be known to render it."""

    edits: list[Row]
    clips: list[Row]
    videos: list[Row]  # those that the edits name
    target_s: float
    most_s: float  # of one clip
    clips_looked_at: int

    @property
    def seconds(self) -> float:
        last = self.edits[-1]
        return last["reel_start_s"] + last["source_end_s"] - last["source_start_s"]


def choose(output: str, videos: Iterable[Row], settings: Settings, target_s: float) -> Choice:
    """The edit list of the best clips of these videos (rows of list_results). Raises Failed without any."""
    by_id = {video["video_id"]: video for video in videos}
    pool = Pool(settings.reel, target_s, settings.cut.min_clip_s)
    for piece in tables.stream(output, "clips", COLUMNS, set(by_id)):
        add(pool, piece)
    found = pool.chosen()
    if not found:
        raise Failed(f"none of {pool.clips} clips has a score: they are all dark, or there are none")
    cut = make_cut(settings.model_copy(update={"cut": settings.cut.model_copy(update=IN_ORDER)}))
    most_s = cut.most_s(target_s)
    axis = axis_of(output, found, settings)
    edges = axis.edges(settings.cut.breath_s)
    # As stages/cut.py does it: a sentence is kept whole if it leaves half of the reel to others.
    longest_s = min(settings.cut.max_clip_s, target_s / 2)
    order = settings.reel.order or settings.cut.order
    clips = [
        clip_of(number, one, axis.shift_s(one.video_id, one.clip["start_s"]), (most_s, longest_s), edges)
        for number, one in enumerate(in_order(found, by_id, order))
    ]
    number_shots(clips)
    whole_s = sum(clip["end_s"] - clip["start_s"] for clip in clips)
    on_axis = [clip | {name: clip[name] + clip["shift_s"] for name in ("start_s", "end_s")} for clip in clips]
    laid_out, _ = cut.edits(on_axis, min(target_s, whole_s), edges)
    edits = [in_source(edit, clips[edit["clip"]]) for edit in laid_out]
    shown = {edit["video_id"] for edit in edits}
    shown_videos = [by_id[video_id] for video_id in sorted(shown)]
    return Choice(edits, clips, shown_videos, target_s, most_s, pool.clips)


def add(pool: Pool, piece: pa.Table) -> None:
    """Adds the clips of a part, video by video."""
    embeddings = vectors(piece["embedding"])
    rows = piece.drop_columns("embedding").to_pylist()
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row["video_id"], []).append(place)
    for video_id, mine in places.items():
        pool.add(video_id, [rows[place] for place in mine], embeddings[mine])


def vectors(column: pa.ChunkedArray) -> np.ndarray:
    """Embeddings as float32 [K, D]; a part holds those of one network."""
    array = column.combine_chunks()
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), -1) if len(array) else np.empty((0, 0), np.float32)


def axis_of(output: str, found: list[Candidate], settings: Settings) -> Axis:
    """The clips of many videos on one axis of time, with what the tables know there of words and flashes."""
    axis = Axis((one.video_id, one.clip["start_s"], one.clip["end_s"]) for one in found)
    for piece in tables.stream(output, "videos", ["speech", "flashes_s"], {one.video_id for one in found}):
        for row, video_id in enumerate(piece["video_id"].to_pylist()):
            speech = np.empty(0) if settings.cut.speech == "off" else numbers(piece, "speech", row)
            axis.note(video_id, speech, numbers(piece, "flashes_s", row))
    return axis


def numbers(piece: pa.Table, name: str, row: int) -> np.ndarray:
    """The list in a cell; empty where an older version had none."""
    values = piece[name][row].values if name in piece.column_names else None
    return np.empty(0) if values is None else values.to_numpy(zero_copy_only=False)


def in_order(found: list[Candidate], videos: dict[str, Row], order: str) -> list[Candidate]:
    """Candidates (from the best on) as they are to come."""
    if order == "best_first":
        return found

    def time(one: Candidate) -> tuple:
        video = videos[one.video_id]
        at = video["modified_at"]
        return at.timestamp() if at else 0.0, video["uri"], one.clip["start_s"]

    return sorted(found, key=time)


def clip_of(number: int, one: Candidate, shift_s: float, lengths_s: tuple[float, float], edges: Edges) -> Row:
    """A clip as stages/cut.py takes it, in the time of its source, which is shift_s before that of the edges.

    lengths_s   at most, usually and to end a sentence
    """
    clip, best_s = one.clip, one.clip["thumbnail_s"]
    moved = (
        None if time_s is None else time_s + shift_s for time_s in (clip["start_s"], clip["end_s"], best_s)
    )
    start_s, end_s = (time_s - shift_s for time_s in window(*moved, *lengths_s, edges))
    return {
        "clip": number,
        "stored": clip["clip"],
        "video_id": one.video_id,
        "shot": clip["shot"],
        "start_s": start_s,
        "end_s": end_s,
        "shift_s": shift_s,
        "score": one.value,
        "thumbnail_s": start_s if best_s is None else best_s,
        "embedding": one.embedding,
    }


def number_shots(clips: list[Row]) -> None:
    """Shots of different videos get different numbers."""
    numbers: dict[tuple[str, int], int] = {}
    for clip in clips:
        clip["shot"] = numbers.setdefault((clip["video_id"], clip["shot"]), len(numbers))


def in_source(edit: Row, clip: Row) -> Row:
    """An edit of the axis as one of the video that its clip is of."""
    times = {name: edit[name] - clip["shift_s"] for name in ("source_start_s", "source_end_s")}
    return edit | times | {"video_id": clip["video_id"]}


def made_from(videos: Iterable[Row]) -> str:
    """Hash of the results that a reel is chosen from: another one of them may be another reel."""
    names = sorted((video["video_id"], video["settings_key"]) for video in videos)
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


class Compile:
    """Renders a choice and uploads it; videos that cannot be read are said in `refused`, by video_id."""

    def __init__(self, settings: Settings, output: str):
        self.output, self.limits, self.reel = output, settings.limits, settings.reel
        self.medley = Medley(open_render(settings), self.reel.captions, self.reel.font)
        self.newest = tables.current(output)

    def __call__(self, row: Row) -> Row:
        choice: Choice = row["choice"]
        before = tally.counts()["read_bytes"]
        try:
            takes = takes_of(self.output, choice.videos, self.limits, self.newest)
            known = {"takes": takes, "edits": choice.edits, "clips": choice.clips}
            with keeping_blocks(), tempfile.TemporaryDirectory(prefix="reelmap-") as folder:
                made = self.medley(known, Path(folder))
                read_bytes = tally.counts()["read_bytes"] - before
                with unwatched():  # the storage has time-outs of its own
                    reel = upload(self.output, made, cuts.place_of(row))
        except TakesFailed as error:
            return row | {"refused": error.reasons}
        of = {clip["clip"]: clip for clip in choice.clips}
        uris = {video["video_id"]: video["uri"] for video in choice.videos}
        edits = [
            edit | {"clip": of[edit["clip"]]["stored"], "uri": uris[edit["video_id"]]}
            for edit in made["edits"]
        ]
        return row | {
            "reel": reel,
            "edits": edits,
            "target_s": choice.target_s,
            "read_bytes": read_bytes,
            "refused": {},
        }


class Trial:
    """Reads what a reel shows of one video, as its render does: to know which one kills its decoder."""

    def __init__(self, settings: Settings, output: str):
        self.output, self.limits, self.newest = output, settings.limits, tables.current(output)

    def __call__(self, row: Row) -> Row:
        video = row["video"]
        take = take_of(video, facts_in(self.output, [video], self.newest), self.limits)
        fps = take.source_fps
        for edit in row["edits"]:
            span = edit["source_start_s"], edit["source_end_s"]
            length_s = span[1] - span[0]
            count = max(1, round(length_s * fps))
            with closing(read_span(take.uri, span, count, fps, fps, self.limits, take.etag)) as frames:
                for _ in frames:
                    pass
            if take.probe["audio_codec"]:
                with open_source(take.uri, self.limits, take.etag) as source:
                    source.only(source.audio)
                    read_samples(source, span[0], round(length_s * RATE))
        return row


def trials_of(choice: Choice) -> list[Row]:
    """A row for a Trial of each video."""
    rows = {
        video["video_id"]: {"video_id": video["video_id"], "video": video, "edits": [], "failure": None}
        for video in choice.videos
    }
    for edit in choice.edits:
        rows[edit["video_id"]]["edits"].append(edit)
    return list(rows.values())


def takes_of(output: str, videos: list[Row], limits: LimitSettings, newest: pa.Table) -> list[Take]:
    """Raises TakesFailed with all that is not what was analysed."""
    facts = facts_in(output, videos, newest)
    takes, refused = [], {}
    for video in videos:
        try:
            takes.append(take_of(video, facts, limits))
        except Failed as error:
            refused[video["video_id"]] = f"{short_name(video['uri'])}: {error}"
    if refused:
        raise TakesFailed(refused)
    return takes


def take_of(video: Row, facts: dict[str, Row], limits: LimitSettings) -> Take:
    """Raises Failed for what is not what was analysed."""
    check_version(video)
    known = facts[video["video_id"]]
    probe = facts_of(video | {"facts": {name: known[name] for name in FACTS.names}}, limits)
    return Take(
        video["video_id"],
        video["uri"],
        video["etag"] or "",
        short_name(video["uri"]),
        probe,
        known["duration_s"],
        known["shard_log"] or (),
        known["cuts_s"] or (),
    )


def facts_in(output: str, videos: list[Row], newest: pa.Table) -> dict[str, Row]:
    """What the tables know of these sources, by video_id."""
    only = {video["video_id"] for video in videos}
    columns = list(dict.fromkeys(["video_id", "duration_s", "shard_log", "cuts_s", *FACTS.names]))
    known = tables.read(output, "videos", columns, only, newest).to_pylist()
    return {video.pop("video_id"): video for video in known}


def short_name(uri: str) -> str:
    """A file's name without its ending, for captions and messages."""
    name = storage.shown(uri).rstrip("/").rsplit("/", 1)[-1]
    return name.rpartition(".")[0] or name


def make_trial(settings: Settings, output: str) -> Stage:
    return Trial(settings, output)


def make_compile(settings: Settings, output: str, threads: int) -> Stage:
    torch.set_num_threads(threads)
    return Compile(settings, output)
