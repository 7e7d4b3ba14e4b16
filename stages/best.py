"""Which clips of many videos make one reel: the best of each, unlike one another, of no video too many.

Scores compare moments of one video better than videos: so a clip also counts by its standing among the clips
of its own. What is held does not grow with the number of videos: of each only its best clips are looked at
again, and of all videos only as many as fill the reel several times.
"""

import heapq
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from stages.pauses import Edges
from stages.settings import Settings
from stages.spans import DIVIDE_S, MOVED, UNEVEN

TIMES_OVER = 4  # what is held would fill the reel so many times, were all clips of the least length
SPARE = 2  # beyond those that a video may have: what looks like another video's drops out
LEAST_HELD = 200


class ReelSettings(Settings):
    """Of a reel over many videos."""

    per_video: int = Field(2, ge=1, description="clips of one video, at most")
    balance: float = Field(
        0.5, ge=0, le=1, description="share of a clip's standing in its own video; the rest is its score"
    )
    apart: float = Field(
        0.1, ge=0, le=2, description="least cosine distance between the embeddings of two clips; 0: off"
    )
    order: Literal["chronological", "best_first"] | None = Field(
        None, description="chronological: as the videos were made; none: as cut.order says"
    )
    captions: bool = Field(False, description="name of the video and time, at the start of each clip")
    font: str | None = Field(None, description="TrueType file for captions; none: a built-in one, Latin only")


@dataclass(frozen=True)
class Candidate:
    value: float
    video_id: str
    clip: dict[str, Any]
    embedding: np.ndarray

    def __lt__(self, other: "Candidate") -> bool:
        return self.rank < other.rank

    @property
    def rank(self) -> tuple[float, str, int]:
        """From the worst to the best; the same whatever order they come in."""
        return self.value, self.video_id, -self.clip["clip"]


class Pool:
    """The best clips of all videos so far, a bounded number of them."""

    def __init__(self, settings: ReelSettings, target_s: float, least_s: float):
        self.settings = settings
        self.size = max(LEAST_HELD, math.ceil(TIMES_OVER * target_s / least_s))
        self._held: list[Candidate] = []  # a heap, the worst first
        self.clips = 0

    def add(self, video_id: str, clips: list[dict[str, Any]], embeddings: np.ndarray) -> None:
        """All clips of a video (clip, start_s, end_s, score), and their embeddings [K, D].

        Of takes of one scene the best is held, so that they do not keep out what is unlike them.
        """
        self.clips += len(clips)
        score = np.array([clip["score"] for clip in clips], np.float64)
        seconds = np.array([clip["end_s"] - clip["start_s"] for clip in clips])
        values = balanced(score, seconds, self.settings.balance)
        order = [k for k in np.argsort(-values, kind="stable") if score[k] > 0]
        mine: list[Candidate] = []
        for k in order:
            candidate = Candidate(float(values[k]), video_id, clips[k], embeddings[k].copy())
            if self._like_any(candidate, mine):
                continue
            mine.append(candidate)
            if len(mine) == self.settings.per_video + SPARE:
                break
        for candidate in mine:
            if len(self._held) < self.size:
                heapq.heappush(self._held, candidate)
            else:
                heapq.heappushpop(self._held, candidate)

    def chosen(self) -> list[Candidate]:
        """From the best on: none like a better one, none of a video that has its share."""
        found: list[Candidate] = []
        of_video: dict[str, int] = {}
        for candidate in sorted(self._held, reverse=True):
            if of_video.get(candidate.video_id, 0) >= self.settings.per_video:
                continue
            if self._like_any(candidate, found):
                continue
            of_video[candidate.video_id] = of_video.get(candidate.video_id, 0) + 1
            found.append(candidate)
        return found

    def _like_any(self, candidate: Candidate, found: list[Candidate]) -> bool:
        apart = self.settings.apart
        return apart > 0 and any(distance(candidate.embedding, one.embedding) < apart for one in found)


def balanced(score: np.ndarray, seconds: np.ndarray, balance: float) -> np.ndarray:
    """Scores [K] of a video's clips, mixed with their standing in it."""
    return (1 - balance) * score + balance * standing(score, seconds)


def standing(score: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Of each clip the share of its video's seconds that score lower, equals by half; in [0, 1], mean 1/2."""
    order = np.argsort(score, kind="stable")
    values, first = np.unique(score[order], return_index=True)
    length = np.add.reduceat(seconds[order], first)
    below = np.cumsum(length) - length
    return ((below + length / 2) / length.sum())[np.searchsorted(values, score)]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine distance of two unit vectors; vectors of different networks are as far apart as can be."""
    return 1 - float(a @ b) if a.shape == b.shape else 2.0


def window(
    start_s: float,
    end_s: float,
    best_s: float | None,
    most_s: float,
    longest_s: float = 0.0,
    edges: Edges = Edges(),
) -> tuple[float, float]:
    """The part of a clip that is shown: at most most_s, around its best moment.

    Where that would be cut in speech or beside a flash it is the best part around that moment which is not,
    half as long or up to longest_s: a sentence.
    """
    if end_s - start_s <= most_s:
        return start_s, end_s
    best_s = (start_s + end_s) / 2 if best_s is None else best_s
    start = min(max(start_s, best_s - most_s / 2), end_s - most_s)
    begins, ends = np.array([start]), np.array([start + most_s])
    if edges.entering(begins)[0] + edges.leaving(ends)[0] == 0:
        return start, start + most_s
    reach_s = max(most_s, longest_s)
    low_s, high_s = max(start_s, best_s - reach_s), min(end_s, best_s + reach_s)
    times = np.linspace(low_s, high_s, 1 + math.ceil((high_s - low_s) / DIVIDE_S))
    begins, ends = times[times <= best_s][:, None], times[times >= best_s][None]
    length = np.maximum(ends - begins, 1e-6)
    cost = edges.entering(begins[:, 0])[:, None] + edges.leaving(ends[0])
    cost = cost + UNEVEN * np.log2(length / most_s) ** 2 + MOVED * ((begins + ends - most_s) / 2 - start) ** 2
    cost[(length < most_s / 2) | (length > reach_s)] = np.inf
    if not np.isfinite(cost.min()):
        return start, start + most_s
    first, last = np.unravel_index(cost.argmin(), cost.shape)
    return float(begins[first, 0]), float(ends[0, last])
