"""The edit list on the reel's frame grid: which frames each clip holds, and how many it shares.

Output frame n is on show at exactly n / fps. Every bound is rounded on its own from the edit list's
times, never summed up from rounded lengths, so a long reel does not drift.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from stages.failure import Failed

MAX_FPS = 60
# Below this a slide show's frames are longer than an ear forgives between picture and sound.
MIN_FPS = 10


@dataclass(frozen=True)
class Slot:
    """One edit: `count` frames of the reel from `first` on, read from [start_s, end_s) of the source."""

    clip: int
    start_s: float
    end_s: float
    first: int
    count: int
    overlap: int  # frames shared with the slot before
    effect: str  # what joins it to the slot before; "cut" if nothing does
    sound_lead_s: float = 0.0  # of its sound before its picture; below 0, the sound of the slot before trails
    video_id: str | None = None  # of its source, in a reel over many videos

    @property
    def end(self) -> int:
        return self.first + self.count


def output_rate(source_fps: Fraction) -> Fraction:
    """The source's rate, divided or multiplied by a whole number to lie within 10..60 frames/s."""
    if source_fps > MAX_FPS:
        return source_fps / math.ceil(source_fps / MAX_FPS)
    if source_fps < MIN_FPS:
        return source_fps * math.ceil(MIN_FPS / source_fps)
    return source_fps


def lay_out(edits: Sequence[dict[str, Any]], fps: Fraction) -> list[Slot]:
    """Edits (in reel order, seconds) -> slots (frames). Raises Failed when they do not fit together."""
    if not edits:
        raise Failed("the edit list is empty: no clip was chosen")
    firsts = [round(Fraction(edit["reel_start_s"]) * fps) for edit in edits]
    overlaps = [round(Fraction(edit["transition_s"]) * fps) for edit in edits]
    last = edits[-1]
    length_s = last["reel_start_s"] + last["source_end_s"] - last["source_start_s"]
    ends = [first + overlap for first, overlap in zip(firsts[1:], overlaps[1:], strict=True)]
    ends.append(round(Fraction(length_s) * fps))
    slots = [
        Slot(
            clip=edit["clip"],
            start_s=edit["source_start_s"],
            end_s=edit["source_end_s"],
            first=first,
            count=end - first,
            overlap=overlap,
            effect=edit["transition"],
            # Edit lists of an older version have none.
            sound_lead_s=edit.get("sound_lead_s") or 0.0,
            video_id=edit.get("video_id"),
        )
        for edit, first, end, overlap in zip(edits, firsts, ends, overlaps, strict=True)
    ]
    for number, slot in enumerate(slots):
        _check(slot, slots[number + 1].overlap if number + 1 < len(slots) else 0, fps)
    for before, slot in itertools.pairwise(slots):
        if abs(slot.sound_lead_s) * fps > min(before.count, slot.count) / 2:
            raise Failed(f"the sound of clip {slot.clip} is {slot.sound_lead_s:g} s off its picture: too far")
    if slots[0].first or slots[0].overlap:
        raise Failed("the edit list does not begin at 0")
    return slots


def _check(slot: Slot, next_overlap: int, fps: Fraction) -> None:
    what = f"edit of clip {slot.clip} ({slot.start_s:.3f} to {slot.end_s:.3f} s)"
    if slot.count < 1:
        raise Failed(f"{what} is shorter than one frame")
    if abs(slot.count - (slot.end_s - slot.start_s) * fps) > 2:
        raise Failed(f"{what} has {slot.count} frames in the reel: the edit list's times contradict")
    if slot.overlap + next_overlap > slot.count:
        raise Failed(f"{what} is shorter than its two transitions")
