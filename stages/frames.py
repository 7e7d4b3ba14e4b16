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

    def on_show(self, seconds: float) -> int:
        """The number of the frame that is shown at `seconds`."""
        return max(0, math.floor((seconds + SAME_S - self.first_s) * self.fps))

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


def on_frames(
    edits: Sequence[dict[str, Any]], sources: Sequence[Frames], fps: Fraction
) -> list[dict[str, Any]]:
    """The edits with every bound on a frame of its source (one for each edit) and of a reel of `fps`.

    Each ends on the reel's clock where it was to end, to the nearest frame, so that lengths do not add up to
    another one. Nothing is shown that was not on show between an edit's two times.
    """
    found: list[dict[str, Any]] = []
    end, goes_on = 0, None  # in frames of the reel; the source that was shown last, and up to where
    for edit, frames in zip(edits, sources, strict=True):
        per = frames.fps / fps  # frames of the source to one of the reel
        step = max(1, round(per))
        start_s, end_s = edit["source_start_s"], edit["source_end_s"]
        overlap = round(Fraction(edit["transition_s"]) * fps)
        until = Fraction(edit["reel_start_s"] + end_s - start_s) * fps
        wanted = max(1, round((until - end + overlap) * per / step)) * step
        first, last = frames.at(start_s), frames.at(end_s)
        if goes_on and goes_on[0] is frames and abs(start_s - goes_on[1]) < SAME_S and not overlap:
            first = frames.at(found[-1]["source_end_s"])
        elif wanted > last - first:
            first = frames.on_show(start_s)
        # The reel's last frame begins within the edit, whatever the source goes on with meanwhile.
        length = min(wanted, max(1, math.ceil((last - first) / step)) * step)
        found.append(
            edit
            | {
                "source_start_s": frames.time_s(first),
                "source_end_s": frames.time_s(first + length),
                "reel_start_s": float((end - overlap) / fps),
                "transition_s": float(overlap / fps),
            }
        )
        end += round(length / per) - overlap
        goes_on = frames, end_s
    return found
