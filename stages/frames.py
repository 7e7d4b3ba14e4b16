"""Edit times on the frames of the source, so that picture, sound and every list that is written agree.

An edit list is made of times. What it means are the frames on show from one time to the other: those that
begin in [start, end). Between two frames the picture would wait for the next one while the sound goes on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from stages.cutter import SAME_S


@dataclass(frozen=True)
class Frames:
    """Where the frames of a source stand: `fps` a second from `first_s` of the presentation on."""

    fps: Fraction
    first_s: float

    def at(self, seconds: float) -> int:
        """The number of the first frame that is not before `seconds`, as the cutter counts."""
        return max(0, math.ceil((seconds - SAME_S - self.first_s) * self.fps))

    def time_s(self, number: int) -> float:
        return self.first_s + float(number / self.fps)


def frames_of(row: dict[str, Any]) -> Frames:
    """Of the source of a row that is rendered."""
    log = row.get("shard_log")
    first_s = log[0]["start_s"] if log else 0.0
    # A video without pictures in its first shard has no time there.
    return Frames(
        Fraction(row["probe"]["fps_exact"]), 0.0 if first_s is None or first_s != first_s else first_s
    )


def on_frames(edits: Sequence[dict[str, Any]], frames: Frames, fps: Fraction) -> list[dict[str, Any]]:
    """The edits with every bound on a frame of the source and of a reel of `fps`, none longer than it was."""
    step = max(1, round(frames.fps / fps))  # frames of the source in one of the reel
    found, end = [], 0  # in frames of the reel
    for edit in edits:
        first = frames.at(edit["source_start_s"])
        length = max(1, (frames.at(edit["source_end_s"]) - first) // step) * step
        overlap = round(Fraction(edit["transition_s"]) * fps)
        found.append(
            edit
            | {
                "source_start_s": frames.time_s(first),
                "source_end_s": frames.time_s(first + length),
                "reel_start_s": float((end - overlap) / fps),
                "transition_s": float(overlap / fps),
            }
        )
        end += round(length * fps / frames.fps) - overlap
    return found
