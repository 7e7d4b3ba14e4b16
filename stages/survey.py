"""A first look through a clip, before it is rendered: pictures for the grade, and for the framing.

in   frames   (frame, how many output frames show it), as of stages/cutter.py
out  Seen     small uint8 [n, S, S, 3] RGB, squashed; upright uint8 [m, H, W, 3] RGB

One read of the clip serves both, and it ends with the last frame that anyone wants.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np

from stages.picture import Look, finish
from stages.reframe import Framing, Part, View
from stages.timeline import Slot

Frames = Iterator[tuple[av.VideoFrame, int]]

GRADE_PX = 256
GRADE_AT = (1 / 6, 1 / 2, 5 / 6)  # where in a clip the colour model looks


@dataclass(frozen=True)
class Seen:
    small: np.ndarray  # for the grade: through the filters of the reel, ungraded
    upright: np.ndarray  # for the framing: one for each number asked for, HDR as it is going to be shown


def survey_slots(
    parts: Mapping[Slot, Sequence[Part]],
    clips: Mapping[int, Mapping[str, Any]],
    open_slot: Callable[[Slot], Frames],
    look: Look,
    framing: Framing,
    graded: bool,
) -> tuple[dict[int, list[np.ndarray]], dict[int, list[View]]]:
    """Of one video, read once: pictures u8[n, S, S, 3] for the grade by shot, if it is; the views by clip."""
    shots: dict[int, list[np.ndarray]] = {}
    seen = []
    for slot, some in parts.items() if graded or framing.looks else ():
        small = [int(share * slot.count) for share in GRADE_AT] if graded else []
        with closing(open_slot(slot)) as frames:
            found = survey(frames, small, framing.moments_of(some), look, framing.look_size)
        shots.setdefault(clips[slot.clip]["shot"], []).append(found.small)
        seen += framing.seen(some, found.upright)
    return shots, framing.views({slot.clip: some for slot, some in parts.items()}, seen)


def survey(
    frames: Frames,
    small: Sequence[int],
    upright: Sequence[int],
    look: Look,
    size: tuple[int, int],
) -> Seen:
    """What output frames number `small` and `upright` show; size (width, height) of the latter."""
    graded = []

    def framed() -> Frames:
        for frame, numbers in pick(frames, sorted({*small, *upright})):
            if not numbers.isdisjoint(small):
                graded.append((frame, 1))
            if times := len(numbers.intersection(upright)):
                yield frame, times

    # Frames apart from one another tell a deinterlacer nothing.
    to_frame = replace(look, width=size[0], height=size[1], squash=True, deinterlace=False)
    shown = [frame.to_ndarray() for frame in finish(framed(), to_frame)]
    squashed = replace(look, width=GRADE_PX, height=GRADE_PX, squash=True)
    pictures = [frame.to_ndarray() for frame in finish(graded, squashed)]
    return Seen(
        np.stack(pictures) if pictures else np.empty((0, GRADE_PX, GRADE_PX, 3), np.uint8),
        np.stack(shown) if shown else np.empty((0, size[1], size[0], 3), np.uint8),
    )


def pick(
    frames: Iterator[tuple[av.VideoFrame, int]], numbers: Sequence[int]
) -> Iterator[tuple[av.VideoFrame, set[int]]]:
    """The frames that are shown at these places of a span, each once, with those places."""
    wanted, shown = sorted(set(numbers)), 0
    for frame, times in frames:
        shown += times
        here = {number for number in wanted if number < shown}
        if here:
            yield frame, here
            wanted = wanted[len(here) :]
        if not wanted:
            return
