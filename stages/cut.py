"""From scores to an edit list: clips from shots, which of them make the reel, and where each one stands.

in   what score gives, and  speech     float32 [M]  see stages/speech.py
                            flashes_s  float64 [F]  see stages/shots.py
out  clips, edits, target_s

Lengths are trimmed inside their shots to meet the target; within it, cuts keep out of words and flashes.
"""

import itertools
import math
import re
from bisect import bisect_left
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from stages.joins import goes_on, lead_sound, led_in, ordered, touches
from stages.knapsack import choose, discounted, likenesses
from stages.loudness import STEP_S
from stages.pauses import NO_PAUSE, Edges, edges_of
from stages.reasons import BLACK_LUMA, explain
from stages.settings import Settings
from stages.spans import OVERLAP, cut_well, fitting, lit, segment, settle, trim

TRIMS = 8
# What a reel is too long by before it is trimmed, for each end of a clip in a word: room to move it into a
# pause. An end moves within its clip, so it takes from the reel what others have to give back.
SPARE_S = 0.6


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
    speech: Literal["off", "words"] = Field(
        "words", description="words: no cut inside a word, sentences whole where it can be"
    )
    breath_s: float = Field(0.12, ge=0, le=2, description="room that a cut leaves before and after speech")
    # 0.03: below it are the same pictures again, above 0.05 such as other waves of a surf film.
    apart: float = Field(
        0.03,
        ge=0,
        le=1,
        description="least cosine distance of clips of different shots: others are duplicates; 0 takes all",
    )
    order: Literal["chronological", "best_first"] = Field(
        "chronological", description="best_first: the best clip opens the reel, the others by falling score"
    )
    sound_lead_s: float = Field(
        0.0,
        ge=0,
        le=2,
        description="J and L cuts: how far sound may lead or trail at a plain cut between speakers; 0: off",
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
        edges = self._edges(row)
        least_s = settings.min_clip_s
        max_s = self.most_s(target_s)
        # A sentence is kept whole if it leaves half of the reel to others.
        longest_s = min(settings.max_clip_s, target_s / 2)
        spans = segment(row["cuts_s"], start_s, row["duration_s"], least_s, max_s, longest_s, edges)
        spans = [
            (shot, *lit(row["times_s"], row["luma"], start_s, end_s, least_s))
            for shot, start_s, end_s in spans
        ]
        clips = [self._clip(row, number, *span) for number, span in enumerate(spans)]
        edits, like = self.edits(clips, target_s, edges)
        explain(clips, {edit["clip"] for edit in edits}, like, target_s - reel_seconds(edits) > 0.02)
        return row | {"clips": clips, "edits": edits, "target_s": target_s}

    def most_s(self, target_s: float) -> float:
        """Length of the longest clips for a reel of that length."""
        settings = self.settings
        # Twice the minimum leaves room to trim a clip and still meet the target.
        return min(settings.max_clip_s, max(2 * settings.min_clip_s, settings.max_share * target_s))

    def _edges(self, row: dict[str, Any]) -> Edges:
        # Rows of an older version know nothing of speech and flashes.
        speech, flashes_s = row.get("speech"), row.get("flashes_s")
        if speech is None or self.settings.speech == "off":
            speech = np.empty(0, np.float32)
        flashes_s = np.empty(0) if flashes_s is None else flashes_s
        fps = row.get("probe", {}).get("fps")  # of scores alone, as benchmarks have them, nobody knows
        return edges_of(speech, flashes_s, self.settings.breath_s, 1 / fps if fps else 0.0)

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

    def edits(
        self, clips: list[dict], target_s: float, edges: Edges = Edges()
    ) -> tuple[list[dict], dict[int, int]]:
        """The edit list of the best clips, `target_s` long if that can be; which look like a better one.

        Rather than show in silence what looks like another shot of it the reel is shorter.
        """
        settings = self.settings
        scores, of_shot = (np.array([clip[name] for clip in clips]) for name in ("score", "shot"))
        like = np.full(len(clips), -1)
        if settings.apart:
            like = likenesses(
                np.array([clip["embedding"] for clip in clips]), scores, of_shot, settings.apart
            )
        score = discounted(scores, of_shot, settings.repeat)
        score = score * [
            cut_well(clip["start_s"], clip["end_s"], settings.min_clip_s, edges) for clip in clips
        ]
        starts, ends = (np.array([clip[name] for clip in clips]) for name in ("start_s", "end_s"))
        length = ends - starts
        talks = [edges.talk_in(clip["start_s"], clip["end_s"]) for clip in clips]
        broken = (edges.entering(starts) > NO_PAUSE).astype(int) + (edges.leaving(ends) > NO_PAUSE)
        spare = np.clip(length - settings.min_clip_s, 0.0, SPARE_S * broken)
        overlap_s = self._overlap_s(length.min())
        # A transition costs its overlap: n clips with n - 1 overlaps fit if n (length - overlap) does.
        value = np.where(like < 0, score, 0.0)
        chosen = set(choose(value, np.maximum(length - spare - overlap_s, 0.1), target_s - overlap_s))
        # What looks like a clip of the reel comes in when nothing else is left, and only if somebody says
        # something else in it; black pictures last.
        rest = [k for k in range(len(clips)) if k not in chosen and (like[k] < 0 or talks[k])]
        rest.sort(key=lambda k: (scores[k] <= 0, like[k] >= 0, -score[k]))
        if not chosen:
            chosen.add(rest.pop(0))

        def reel_with(more: int) -> tuple[list[dict], bool]:
            """The reel with so many of the rest, and whether it can be trimmed to its target."""
            shown = sorted([*chosen, *rest[:more]])
            reel = ordered([clips[k] for k in shown], edges, settings.order == "best_first")
            long_s = reel_seconds(self._layout(reel, edges)) - spare[shown].sum()
            return reel, long_s >= target_s - 0.02

        # The more clips the longer: as few as fill it, of which the last is one too many.
        reel, _ = reel_with(bisect_left(range(len(rest)), True, key=lambda more: reel_with(more)[1]))
        shots: dict[int, tuple[float, float]] = {}
        for clip in clips:
            low, _ = shots.get(clip["shot"], (clip["start_s"], 0.0))
            shots[clip["shot"]] = low, clip["end_s"]
        edits = self._layout(reel, edges, target_s, shots)
        return edits, {k: int(better) for k, better in enumerate(like) if better >= 0}

    def _overlap_s(self, shortest_s: float) -> float:
        return min(self.transition_s, OVERLAP * shortest_s) if self.transitions else 0.0

    def _layout(
        self,
        clips: list[dict],
        edges: Edges,
        trim_to_s: float | None = None,
        shots: dict[int, tuple[float, float]] | None = None,
    ) -> list[dict]:
        """The edit list of `clips` in reel order; if a length is given, trimmed to it and cut in pauses."""
        spans = bounds = np.array([[clip["start_s"], clip["end_s"]] for clip in clips])
        touching = np.array([False] + [touches(a, b) for a, b in itertools.pairwise(clips)])
        names = [
            "cut"
            if not k or touching[k] or not self.transitions
            else self.transitions[(k - 1) % len(self.transitions)]
            for k in range(len(clips))
        ]
        wanted = np.array([0.0 if name == "cut" else self.transition_s for name in names])
        overlaps, leads = fitting(wanted, spans), np.zeros(len(clips))
        if trim_to_s is not None:
            one_take = np.array([False] + [goes_on(a, b, edges) for a, b in itertools.pairwise(clips)])
            least_s = self.settings.min_clip_s
            # Where the clips hold less spare than the excess, the least length gives way, then the unbroken
            # take: the target never does.
            ways = [(one_take, least_s), (one_take, least_s / 2), (one_take & False, least_s / 4)]
            for closed, min_s in ways:
                for _ in range(TRIMS):  # shorter clips leave room for shorter overlaps only
                    excess_s = np.diff(spans).sum() - overlaps.sum() - trim_to_s
                    spans = trim(spans, closed, excess_s, min_s)
                    overlaps = fitting(wanted, spans)
            one_take &= np.append(False, np.isclose(spans[1:, 0], spans[:-1, 1]))
            # As long as the overlaps need it on both sides.
            least = np.maximum(least_s, np.maximum(overlaps, np.append(overlaps[1:], 0.0)) / OVERLAP)
            least = np.minimum(least, np.diff(spans)[:, 0])
            most_s, led = self.settings.sound_lead_s, None
            of_shots = np.array([(shots or {}).get(clip["shot"], (0.0, 0.0)) for clip in clips])
            hard = (overlaps == 0) & ~one_take & (np.arange(len(clips)) > 0)
            if most_s:
                # A first word may lie before the shot: it is heard over the end of the clip before.
                reach_s = np.where(hard, np.minimum(most_s, OVERLAP * least), 0.0)
                sounds = settle(spans, bounds - np.outer(reach_s, (1, 0)), one_take, overlaps, least, edges)
                led = led_in(sounds, bounds, of_shots, least_s)
            spans, leads = led or (settle(spans, bounds, one_take, overlaps, least, edges), leads)
            if most_s:
                spans, further = lead_sound(spans, of_shots, hard & (leads == 0), edges, most_s, least_s)
                leads += further
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
                "sound_lead_s": float(lead),
            }
            for clip, span, start, name, overlap, lead in zip(
                clips, spans, starts, names, overlaps, leads, strict=True
            )
        ]


def reel_seconds(edits: list[dict]) -> float:
    """Length of the reel that an edit list makes."""
    return sum(e["source_end_s"] - e["source_start_s"] - e["transition_s"] for e in edits)
