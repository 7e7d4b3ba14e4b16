"""Clips that look like a picture, or like another clip: exact cosine search over the embeddings of an OUTPUT.

The embeddings are unit vectors, so a product of matrices is all there is to it. They are read and judged part
by part: what is held is a few parts and the best so far.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

from pipeline import schema, storage, tables
from pipeline.best import vectors
from pipeline.config import ConfigError, validated
from pipeline.records import record_of
from pipeline.videos import Videos
from stages.decode import DecodeSettings, coloured, squashed, thumbnail
from stages.features import ExtractFeatures, FeatureSettings
from stages.nn.weights import Bundle

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
COLUMNS = ["clip", "shot", "start_s", "end_s", "embedding"]
# What --where may ask for, and the column that it is.
FACTS = {
    "score": "score",
    "importance": "importance",
    "novelty": "novelty",
    "motion": "motion",
    "luma": "luma",
    "loudness": "loudness_lufs",
    "start": "start_s",
    "end": "end_s",
    "chosen": "chosen",
}
DURATION = "duration"
_TERM = re.compile(r"\s*([a-z_]+)\s*(<=|>=|==|=|<|>)\s*(-?\d+(?:\.\d+)?)\s*")
_COMPARE = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "=": pc.equal,
    "==": pc.equal,
}


class SearchError(ValueError):
    """There is nothing to look for, or nothing to look in; the message says so in words."""


@dataclass(frozen=True)
class Seen:
    """How a result's clips came to their embeddings: those of one Seen can be compared."""

    features: FeatureSettings
    colour: str
    size: int

    def in_words(self) -> str:
        return f"{self.features.kind} features (weights: {self.features.weights}, {self.colour})"


@dataclass(frozen=True)
class Query:
    vector: np.ndarray  # float32 [D], of unit length
    seen: Seen | None  # None: unknown, and what has the same width is compared
    itself: tuple[str, int, int] | None = None  # video_id, clip and shot, if it is one of the OUTPUT
    thumbnail: bytes | None = None  # JPEG


@dataclass(frozen=True)
class Hit:
    score: float  # cosine, 1 is the same
    video_id: str
    clip: int
    shot: int
    start_s: float
    end_s: float


@dataclass
class Found:
    hits: list[Hit] = field(default_factory=list)  # the most alike first
    clips: int = 0  # that were compared
    others: Counter[str] = field(default_factory=Counter)  # in words: how clips left out were described


@dataclass(frozen=True)
class Searched:
    """What is known of an OUTPUT, all of one moment: a run may be publishing there."""

    output: str
    newest: pa.Table  # as of tables.current with uri and run_id; of each file the newest version
    seen: dict[str, Seen]  # settings_key -> how its clips were described, where a record tells

    def uris(self) -> dict[str, str]:
        names = (self.newest[column].to_pylist() for column in ("video_id", "uri"))
        return dict(zip(*names, strict=True))


def look(output: str) -> Searched:
    """Raises SearchError without any result."""
    newest = tables.latest_versions(tables.current(output, ("uri", "run_id")))
    if not len(newest):
        raise SearchError(f"there are no results of reelmap in {storage.shown(output)}")
    return Searched(output, newest, seen_by_key(output, newest))


def search(
    known: Searched,
    query: Query,
    top: int,
    one_per_shot: bool = True,
    where: Callable[[pa.Table], pa.Array] | None = None,
    columns: tuple[str, ...] = (),
) -> Found:
    """The clips of an OUTPUT that are most like the query; not the query itself.

    one_per_shot   of each shot the best clip only; none of the query's own
    where          a mask of the rows to look at, which needs `columns`
    """
    found, best = Found(), _Best(top, one_per_shot)
    wanted = [*dict.fromkeys([*COLUMNS, *columns])]
    for piece in tables.stream(known.output, "clips", wanted, newest=known.newest):
        for part in by_settings(piece):
            described = known.seen.get(part["settings_key"][0].as_py())
            if why := unlike(query, described, width_of(part["embedding"])):
                found.others[why] += len(part)
                continue
            if where is not None:
                part = part.filter(where(part))
            if not len(part):
                continue
            scores = vectors(part["embedding"]) @ query.vector
            found.clips += len(part)
            best.add(part, scores, query.itself)
    found.hits = best.hits()
    return found


def by_settings(piece: pa.Table) -> Iterator[pa.Table]:
    """A part is of one run, and so of one settings_key; only one that was shrunk may hold several."""
    keys = piece["settings_key"].unique().to_pylist()
    for key in keys:
        yield piece if len(keys) == 1 else piece.filter(pc.equal(piece["settings_key"], key))


def width_of(column: pa.ChunkedArray) -> int:
    if pa.types.is_fixed_size_list(column.type):
        return column.type.list_size
    return len(column[0].as_py()) if len(column) else 0


def unlike(query: Query, described: Seen | None, width: int) -> str:
    """Why these clips cannot be compared with the query, "" if they can."""
    if width != len(query.vector):
        return f"vectors of {width} numbers, not {len(query.vector)}"
    if query.seen and described and described != query.seen:
        return described.in_words()
    return ""


class _Best:
    """The best rows so far, each shot once if that is wanted."""

    def __init__(self, top: int, one_per_shot: bool):
        self.top, self.one_per_shot = top, one_per_shot
        self._hits: list[Hit] = []

    def add(self, part: pa.Table, scores: np.ndarray, itself: tuple[str, int, int] | None) -> None:
        # With every shot once, later rows of a shot may be better: so many more are looked at as it takes.
        order = np.argsort(-scores, kind="stable")
        floor = self._hits[-1].score if len(self._hits) >= self.top else -np.inf
        new: list[Hit] = []
        shots: set[tuple[str, int]] = set()
        columns = {name: part[name] for name in ("video_id", "clip", "shot", "start_s", "end_s")}
        for place in order:
            if scores[place] <= floor or len(new) >= self.top:
                break
            row = {name: column[int(place)].as_py() for name, column in columns.items()}
            if itself and self._is_query(row, itself):
                continue
            if self.one_per_shot and (shot := (row["video_id"], row["shot"])) in shots:
                continue
            elif self.one_per_shot:
                shots.add(shot)
            new.append(Hit(score=float(scores[place]), **row))
        self._hits = sorted([*self._hits, *new], key=lambda hit: (-hit.score, hit.video_id, hit.clip))[
            : self.top
        ]

    def _is_query(self, row: dict[str, Any], itself: tuple[str, int, int]) -> bool:
        video_id, clip, shot = itself
        return row["video_id"] == video_id and (
            row["clip"] == clip or (self.one_per_shot and row["shot"] == shot)
        )

    def hits(self) -> list[Hit]:
        return self._hits


def seen_by_key(output: str, newest: pa.Table) -> dict[str, Seen]:
    """settings_key -> how its clips were described, by the record of one of its runs."""
    runs = newest.group_by(["settings_key", "run_id"]).aggregate([]).to_pylist()
    found: dict[str, Seen] = {}
    for run in runs:
        if run["settings_key"] in found:
            continue
        try:
            settings = record_of(output, run["run_id"])["settings"]
            decode = validated(DecodeSettings, settings["decode"])
            features = validated(FeatureSettings, settings["features"] | {"batch": 1})
        except (KeyError, TypeError, ConfigError):
            continue  # lost, or of another version
        found[run["settings_key"]] = Seen(features, decode.colour, decode.size)
    return found


def clip_query(known: Searched, text: str) -> Query:
    """A clip as a query: VIDEO:12 is its 12th, VIDEO@1:23 the one that shows that moment.

    Raises SearchError, or VideoError for a name that no video has.
    """
    parts = re.fullmatch(r"(?P<video>.+?)(?::(?P<clip>\d+)|@(?P<at>(?:\d+:){0,2}\d+(?:\.\d+)?))", text)
    if not parts:
        raise SearchError(
            f"{storage.shown(text)} is neither a picture ({', '.join(PICTURES)}) nor a clip: write VIDEO:12 "
            "for its number, or VIDEO@1:23 for a moment of it"
        )
    video = Videos(known.output, known.newest).find(parts["video"])
    columns = [*tables.KEY, *COLUMNS, "thumbnail"]
    rows = tables.read(known.output, "clips", columns, {video["video_id"]}, known.newest).to_pylist()
    if parts["clip"]:
        chosen = [row for row in rows if row["clip"] == int(parts["clip"])]
        what = f"clip {parts['clip']}: they are numbered 0 to {len(rows) - 1}"
    else:
        at_s = seconds_of(parts["at"])
        chosen = [row for row in rows if row["start_s"] <= at_s < row["end_s"]]
        what = f"clip at {parts['at']}"
    if not chosen:
        raise SearchError(f"{storage.shown(parts['video'])} has no {what}")
    (row,) = chosen[:1]
    seen = known.seen.get(row["settings_key"])
    itself = row["video_id"], row["clip"], row["shot"]
    return Query(np.array(row["embedding"], np.float32), seen, itself, row["thumbnail"])


def seconds_of(text: str) -> float:
    """1:23, 1:02:03 or 83.5."""
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def picture_query(known: Searched, uri: str, bundle: Bundle) -> Query:
    """A picture as a query: through the network that has seen the newest clips, squashed as frames are.

    Raises SearchError; BundleError where the bundle has no such network.
    """
    good = known.newest.filter(pc.equal(known.newest["status"], schema.OK))
    if not len(good):
        raise SearchError(f"no video of {storage.shown(known.output)} has clips")
    last = good.sort_by([("published_at", "descending")])["settings_key"][0].as_py()
    default = DecodeSettings()
    usual = Seen(FeatureSettings(), default.colour, default.size)
    seen = known.seen.get(last, usual)
    extract = ExtractFeatures(seen.features, bundle)
    frame = read_picture(uri)
    picture = squashed(frame, seen.size)
    features = extract({"frames": coloured(picture, seen.colour)[None]})["features"]
    vector = features[0].astype(np.float32)
    vector /= max(float(np.linalg.norm(vector)), 1e-12)
    return Query(vector, seen, thumbnail=thumbnail(picture, frame.width / frame.height))


def read_picture(uri: str) -> av.VideoFrame:
    try:
        with Image.open(io.BytesIO(storage.read_bytes(storage.absolute(uri)))) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError) as error:
        raise SearchError(f"{storage.shown(uri)} is not a picture that can be read") from error
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def parse_where(text: str) -> tuple[Callable[[pa.Table], pa.Array], tuple[str, ...]]:
    """ "duration>3 and loudness>-20" as a mask of rows, and the columns that it needs. Raises SearchError."""
    terms = []
    for part in re.split(r"\band\b", text):
        found = _TERM.fullmatch(part)
        if not found or found[1] not in (*FACTS, DURATION):
            raise SearchError(
                f"{part.strip()!r} is no condition: write duration>3 and loudness>-20, of "
                f"{', '.join((DURATION, *FACTS))}"
            )
        terms.append((found[1], _COMPARE[found[2]], float(found[3])))

    def mask(rows: pa.Table) -> pa.Array:
        kept = pa.array(np.ones(len(rows), bool))
        for name, compare, value in terms:
            if name == DURATION:
                values = pc.subtract(rows["end_s"], rows["start_s"])
            else:
                values = pc.cast(rows[FACTS[name]], pa.float64())
            kept = pc.and_(kept, pc.fill_null(compare(values, value), False))
        return kept

    return mask, tuple(FACTS[name] for name, _, _ in terms if name != DURATION)
