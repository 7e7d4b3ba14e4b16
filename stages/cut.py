"""From scores to an edit list: clips from shots, which of them make the reel, and where each one stands.

Which clips: 0/1 knapsack on score x seconds under a length budget (the summarisation literature's choice,
e.g. Gygli et al., ECCV 2014). Then lengths are trimmed or extended inside their shots to meet the target.
"""

import itertools
import math
import re
from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from stages.loudness import STEP_S
from stages.settings import Settings

# Darker clips are fades and blanks, whatever the network says of them.
BLACK_LUMA = 0.03
# Of a clip, the most that a transition at either end takes: less than half of it is under effects.
OVERLAP = 0.25
KNAPSACK_STEPS = 6000
TRIMS = 8
GOOD_IN_SUM = "good in the sum of its parts"
# Parts without a share of their own in the score; the learned importance knows them.
WORDS = {"motion": "much motion", "loudness_lufs": "loud"}


class CutSettings(Settings):
    target: str = Field("60s", description="length of the reel: 90, 60s, 1m30s, or a share of the video: 15%")
    min_clip_s: float = Field(1.2, gt=0.2)
    max_clip_s: float = Field(10.0, gt=0.5)
    max_share: float = Field(0.2, gt=0, le=1, description="of the reel that one clip may take")
    repeat: float = Field(
        0.75, ge=0, le=1, description="what each further piece of a shot that is in the reel still counts"
    )
    novelty_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="of novelty in a clip's score, beside what the learned importance makes of it",
    )

    @field_validator("target", mode="before")
    @classmethod
    def _is_length(cls, target: object) -> str:
        if isinstance(target, bool) or not isinstance(target, str | int | float):
            raise ValueError(f"{target!r} is not a length: write 60s, 1m30s or 15%")
        text = f"{target:g}s" if isinstance(target, int | float) else target
        target_seconds(text, 100.0)
        return text

    @model_validator(mode="after")
    def _in_order(self) -> "CutSettings":
        if self.min_clip_s > self.max_clip_s:
            raise ValueError(
                f"min_clip_s ({self.min_clip_s:g}) is more than max_clip_s ({self.max_clip_s:g})"
            )
        return self


def microseconds(seconds: float) -> float:
    """Without what is less than a container's clock tells: a video begins at 0 and not just before."""
    return round(seconds, 6) + 0.0


def target_seconds(text: str, duration_s: float) -> float:
    """Seconds that a target means for a video of `duration_s`: "90", "60s", "1m30s", "2h", "15%"."""
    if share := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip()):
        if float(share[1]) > 100:
            raise ValueError(f"{text!r} is not a length: more than the whole video")
        seconds = float(share[1]) / 100 * duration_s
    elif parts := re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip()):
        hours, minutes, rest = (float(part or 0) for part in parts.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    else:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is not a length: write 60s, 1m30s or 15%")
    return seconds


def segment(cuts_s: np.ndarray, start_s: float, end_s: float, min_s: float, max_s: float) -> list[tuple]:
    """Clips as (shot, start_s, end_s): shots, split evenly where longer than max_s.

    A shot shorter than min_s joins the one after it (the last: the one before).
    """
    inside = cuts_s[(cuts_s > start_s) & (cuts_s < end_s)]
    bounds = [start_s]
    for cut in inside:
        if cut - bounds[-1] >= min_s:
            bounds.append(float(cut))
    if len(bounds) > 1 and end_s - bounds[-1] < min_s:
        bounds.pop()
    bounds.append(end_s)
    clips = []
    for shot, (low, high) in enumerate(itertools.pairwise(bounds)):
        pieces = min(np.ceil((high - low) / max_s - 1e-9), np.floor((high - low) / min_s))
        pieces = max(1, int(pieces))
        edges = np.linspace(low, high, pieces + 1)
        clips += [(shot, float(a), float(b)) for a, b in itertools.pairwise(edges)]
    return clips


def lit(times: np.ndarray, luma: np.ndarray, start_s: float, end_s: float, least_s: float) -> tuple:
    """The span without black samples at its ends, as fades leave them; whole if that were under least_s.

    A cut stands somewhere inside a fade, so without this a reel flashes black between its clips.
    """
    first, last = np.searchsorted(times, [start_s - 1e-6, end_s - 1e-6])
    shown = first + np.flatnonzero(luma[first:last] >= BLACK_LUMA)
    if not len(shown):
        return start_s, end_s
    start = start_s if shown[0] == first else float(times[shown[0]])
    end = end_s if shown[-1] == last - 1 else float(times[shown[-1] + 1])
    return (start, end) if end - start >= least_s else (start_s, end_s)


def choose(score: np.ndarray, seconds: np.ndarray, budget_s: float) -> np.ndarray:
    """Indices of the chosen clips, in time order: 0/1 knapsack on score x seconds.

    score     [K]  in [0, 1]
    seconds   [K]  clip lengths, > 0
    """
    step_s = max(0.05, budget_s / KNAPSACK_STEPS)
    weight = np.maximum(1, np.ceil(seconds / step_s - 1e-9)).astype(int)
    room = max(0, int(budget_s / step_s + 1e-9))
    value = score * seconds
    best = np.zeros(room + 1)
    taken = np.zeros((len(score), room + 1), bool)
    for k in range(len(score)):
        if weight[k] > room:
            continue
        with_k = best[: room + 1 - weight[k]] + value[k]
        taken[k, weight[k] :] = with_k > best[weight[k] :]
        best[weight[k] :] = np.maximum(best[weight[k] :], with_k)
    chosen, left = [], room
    for k in reversed(range(len(score))):
        if taken[k, left]:
            chosen.append(k)
            left -= weight[k]
    return np.array(chosen[::-1], int)


def discounted(score: np.ndarray, shot: np.ndarray, repeat: float) -> np.ndarray:
    """Scores with diminishing returns: the n-th best piece of a shot counts `repeat` to the n-th of its own.

    score  [K]  in [0, 1]
    shot   [K]  number of the shot that a piece belongs to
    """
    order = np.lexsort((-score, shot))
    first = np.searchsorted(shot[order], shot[order])
    result = np.empty(len(score))
    result[order] = score[order] * repeat ** (np.arange(len(score)) - first)
    return result


class Cut:
    """Adds `clips` and `edits` to a scored video."""

    def __init__(self, settings: CutSettings, transitions: tuple[str, ...], transition_s: float):
        self.settings = settings
        self.transitions, self.transition_s = transitions, transition_s

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        settings = self.settings
        start_s = row["shard_log"][0]["start_s"]
        start_s = 0.0 if start_s is None or np.isnan(start_s) else microseconds(start_s)
        target_s = max(target_seconds(settings.target, row["duration_s"]), settings.min_clip_s)
        target_s = min(target_s, row["duration_s"] - start_s)
        max_s = self.most_s(target_s)
        spans = segment(row["cuts_s"], start_s, row["duration_s"], settings.min_clip_s, max_s)
        spans = [
            (shot, *lit(row["times_s"], row["luma"], start_s, end_s, settings.min_clip_s))
            for shot, start_s, end_s in spans
        ]
        clips = [self._clip(row, number, *span) for number, span in enumerate(spans)]
        edits = self.edits(clips, target_s)
        explain(clips, {edit["clip"] for edit in edits})
        return row | {"clips": clips, "edits": edits, "target_s": target_s}

    def most_s(self, target_s: float) -> float:
        """Length of the longest clips for a reel of that length."""
        settings = self.settings
        # Twice the minimum leaves room to trim a clip and still meet the target.
        return min(settings.max_clip_s, max(2 * settings.min_clip_s, settings.max_share * target_s))

    def _clip(self, row: dict[str, Any], number: int, shot: int, start_s: float, end_s: float) -> dict:
        times = row["times_s"]
        first, last = np.searchsorted(times, [start_s - 1e-6, end_s - 1e-6])
        if first == last:  # shorter than the sampling step: the sample on show at its start
            first = max(0, min(first, len(times)) - 1)
            last = first + 1
        part = slice(first, last)
        mean = {k: float(np.mean(row[k][part])) for k in ("importance", "novelty", "motion", "luma")}
        share = self.settings.novelty_share
        score = (1 - share) * mean["importance"] + share * mean["novelty"]
        embedding = row["features"][part].astype(np.float32).mean(0)
        first_half, last_half = int(start_s / STEP_S), int(end_s / STEP_S)
        loudness = row["loudness"][first_half : max(first_half + 1, last_half)]
        middle = first + int(np.argmax(row["importance"][part]))
        return mean | {
            "clip": number,
            "shot": shot,
            "start_s": start_s,
            "end_s": end_s,
            "score": score if mean["luma"] >= BLACK_LUMA else 0.0,
            "loudness_lufs": float(loudness.mean()) if len(loudness) else None,
            "embedding": embedding / max(float(np.linalg.norm(embedding)), 1e-12),
            "thumbnail": row["thumbnails"][middle],
            "thumbnail_s": microseconds(float(times[middle])),
        }

    def edits(self, clips: list[dict], target_s: float) -> list[dict]:
        """The edit list of the best clips, in the order they are in; `target_s` long if they can be."""
        score = discounted(
            np.array([clip["score"] for clip in clips]),
            np.array([clip["shot"] for clip in clips]),
            self.settings.repeat,
        )
        length = np.array([clip["end_s"] - clip["start_s"] for clip in clips])
        overlap_s = self._overlap_s(length.min())
        # A transition costs its overlap: n clips with n - 1 overlaps fit if n (length - overlap) does.
        chosen = set(choose(score, np.maximum(length - overlap_s, 0.1), target_s - overlap_s))
        rest = sorted(set(range(len(clips))) - chosen, key=lambda k: -score[k])
        if not chosen:
            chosen.add(rest.pop(0))
        while True:
            edits = self._layout([clips[k] for k in sorted(chosen)])
            short_s = target_s - reel_seconds(edits)
            if short_s <= 0.02 or not rest:
                break
            chosen.add(rest.pop(0))  # one clip too many; trimming brings the reel back to its target
        return self._layout([clips[k] for k in sorted(chosen)], trim_to_s=target_s)

    def _overlap_s(self, shortest_s: float) -> float:
        return min(self.transition_s, OVERLAP * shortest_s) if self.transitions else 0.0

    def _layout(self, clips: list[dict], trim_to_s: float | None = None) -> list[dict]:
        """The edit list of `clips` in time order; trimmed to a length if one is given."""
        spans = np.array([[clip["start_s"], clip["end_s"]] for clip in clips])
        touching = np.append(False, np.isclose(spans[1:, 0], spans[:-1, 1]))
        names = [
            "cut"
            if not k or touching[k] or not self.transitions
            else self.transitions[(k - 1) % len(self.transitions)]
            for k in range(len(clips))
        ]
        wanted = np.array([0.0 if name == "cut" else self.transition_s for name in names])
        overlaps = fitting(wanted, spans)
        if trim_to_s is not None:
            shots = np.array([clip["shot"] for clip in clips])
            one_take = touching & np.append(False, shots[1:] == shots[:-1])
            least_s = self.settings.min_clip_s
            # Where the clips hold less spare than the excess, the least length gives way, then the unbroken
            # take: the target never does.
            ways = [(one_take, least_s), (one_take, least_s / 2), (one_take & False, least_s / 4)]
            for closed, min_s in ways:
                for _ in range(TRIMS):  # shorter clips leave room for shorter overlaps only
                    excess_s = np.diff(spans).sum() - overlaps.sum() - trim_to_s
                    spans = trim(spans, closed, excess_s, min_s)
                    overlaps = fitting(wanted, spans)
        lengths = spans[:, 1] - spans[:, 0]
        starts = np.cumsum(np.append(0.0, lengths[:-1])) - np.cumsum(overlaps)
        return [
            {
                "clip": clip["clip"],
                "source_start_s": float(span[0]),
                "source_end_s": float(span[1]),
                "reel_start_s": float(start),
                "transition": name,
                "transition_s": float(overlap),
            }
            for clip, span, start, name, overlap in zip(clips, spans, starts, names, overlaps, strict=True)
        ]


def fitting(wanted_s: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Overlaps [K] with the clip before, so short that every clip [K, 2] stands clean for a good part."""
    lengths = spans[:, 1] - spans[:, 0]
    return np.append(0.0, np.minimum(wanted_s[1:], OVERLAP * np.minimum(lengths[1:], lengths[:-1])))


def reel_seconds(edits: list[dict]) -> float:
    """Length of the reel that an edit list makes."""
    return sum(e["source_end_s"] - e["source_start_s"] - e["transition_s"] for e in edits)


def trim(spans: np.ndarray, joined: np.ndarray, excess_s: float, min_s: float) -> np.ndarray:
    """Shorten clips by `excess_s` in all, each in proportion to what it has over min_s.

    spans   [K, 2]  start and end, seconds
    joined  [K]     whether a clip goes on where the one before it ends: that seam must stay closed
    """
    spans = spans.copy()
    if excess_s <= 0:
        return spans
    slack = np.maximum(spans[:, 1] - spans[:, 0] - min_s, 0)
    followed = np.append(joined[1:], False)
    slack[joined & followed] = 0  # inside a run, neither end may move
    share = min(1.0, excess_s / slack.sum()) if slack.sum() > 0 else 0.0
    cut = slack * share
    at_start = np.where(joined, 0.0, np.where(followed, 1.0, 0.5))
    spans[:, 0] += cut * at_start
    spans[:, 1] -= cut * (1 - at_start)
    return spans


def explain(clips: list[dict], chosen: set[int]) -> None:
    """Sets `chosen`, `rank` (1 is the best) and `why` on every clip."""
    order = np.argsort([-clip["score"] for clip in clips], kind="stable")
    for place, k in enumerate(order):
        clips[k] |= {"rank": place + 1, "chosen": clips[k]["clip"] in chosen}
    parts = {
        part: np.array([np.nan if clip[part] is None else clip[part] for clip in clips])
        for part in ("importance", "novelty", *WORDS)
    }
    best = {clips[k]["shot"]: clips[k]["rank"] for k in order[::-1] if clips[k]["chosen"]}
    last = max(best.values(), default=0)
    for k, clip in enumerate(clips):
        if clip["luma"] < BLACK_LUMA:
            clip["why"] = "black picture"
            continue
        reasons = strengths(parts, k) or ([GOOD_IN_SUM] if clip["chosen"] else [])
        clip["why"] = f"ranked {clip['rank']} of {len(clips)}" + (
            f": {', '.join(reasons)}" if reasons else ""
        )
        if clip["chosen"]:
            continue
        if clip["rank"] > last:
            clip["why"] += "; better ones fill the reel"
        elif best.get(clip["shot"], clip["rank"]) < clip["rank"]:
            clip["why"] += "; a better piece of its shot is in the reel"
        else:
            clip["why"] += "; others fit the length better"


def strengths(parts: dict[str, np.ndarray], k: int) -> list[str]:
    """In which parts [K] clip k is among the highest quarter of its video, in words."""
    found = []
    for part, values in parts.items():
        known = values[np.isfinite(values)]
        if not len(known) or not values[k] > np.quantile(known, 0.75):
            continue
        if part == "importance":
            # Without a trained scorer the importance is the novelty, and nothing was learned.
            if not np.array_equal(values, parts["novelty"]):
                top = np.ceil(100 * np.mean(known >= values[k]))
                found.append(f"learned importance {values[k]:.2f} (top {top:.0f} %)")
        else:
            found.append(WORDS.get(part, f"novel {values[k]:.2f}"))
    return found
