"""Stretches of many videos on one axis of time, with what is known there of words and flashes.

An edit list is made on one axis (stages/cut.py): so clips of many videos stand on one, each as far from those
of others as its edges and its sound may move. Nothing is held of a video beyond its clips.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stages.nn.voice import STEP_S
from stages.pauses import Edges, edges_of

ROOM_S = 4.0  # on either side of a clip: more than a breath, a pause between sentences, or a sound that leads


@dataclass(frozen=True)
class Stretch:
    """Steps `first` to before `end` of a video, at step `at` of the axis."""

    first: int
    end: int
    at: int

    @property
    def shift_s(self) -> float:
        return (self.at - self.first) * STEP_S


class Axis:
    """Holds the spans (video_id, start_s, end_s) of all clips; those of a video that touch still do."""

    def __init__(self, spans: Iterable[tuple[str, float, float]]):
        self._stretches: dict[str, list[Stretch]] = {}
        self._steps = 0
        for video_id, start_s, end_s in sorted(spans):
            first, end = math.floor((start_s - ROOM_S) / STEP_S), math.ceil((end_s + ROOM_S) / STEP_S)
            of_video = self._stretches.setdefault(video_id, [])
            if of_video and first <= of_video[-1].end:
                last = of_video.pop()
                self._steps = last.at
                first, end = last.first, max(last.end, end)
            of_video.append(Stretch(first, end, self._steps))
            self._steps += end - first
        self._speech = np.zeros(self._steps, np.float32)
        self._flashes: list[np.ndarray] = []

    def shift_s(self, video_id: str, start_s: float) -> float:
        """What a time in the clip that begins there is to be moved by, to be one of the axis."""
        step = start_s / STEP_S
        return next(one.shift_s for one in self._stretches[video_id] if one.first <= step < one.end)

    def note(self, video_id: str, speech: np.ndarray, flashes_s: np.ndarray) -> None:
        """What is known of a video, see stages/pauses.py."""
        for one in self._stretches[video_id]:
            heard = speech[max(0, one.first) : one.end]
            at = one.at + max(0, -one.first)
            self._speech[at : at + len(heard)] = heard
            inside = (flashes_s >= one.first * STEP_S) & (flashes_s < one.end * STEP_S)
            self._flashes.append(flashes_s[inside] + one.shift_s)

    def edges(self, breath_s: float) -> Edges:
        return edges_of(self._speech, np.concatenate([np.empty(0), *self._flashes]), breath_s)
