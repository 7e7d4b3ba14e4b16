"""A first look through a clip, before it is rendered: pictures for the grade, and for the framing.

in   frames   (frame, how many output frames show it), as of stages/cutter.py
out  Seen     small uint8 [n, S, S, 3] RGB, squashed; upright uint8 [m, H, W, 3] RGB

One read of the clip serves both, and it ends with the last frame that anyone wants.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from stages.picture import Look, finish

GRADE_PX = 256
GRADE_AT = (1 / 6, 1 / 2, 5 / 6)  # where in a clip the colour model looks


@dataclass(frozen=True)
class Seen:
    small: np.ndarray  # for the grade: through the filters of the reel, ungraded
    upright: np.ndarray  # for the framing: one for each number asked for


def survey(
    frames: Iterator[tuple[av.VideoFrame, int]],
    small: Sequence[int],
    upright: Sequence[int],
    look: Look,
    size: tuple[int, int],
) -> Seen:
    """What output frames number `small` and `upright` show; size (width, height) of the latter."""
    turned = (look.rotation or 0) % 360 // 90
    width, height = size[::-1] if turned % 2 else size
    reformatter = VideoReformatter()
    graded, framed = [], []
    for frame, numbers in pick(frames, sorted({*small, *upright})):
        if not numbers.isdisjoint(small):
            graded.append((frame, 1))
        if times := len(numbers.intersection(upright)):
            picture = reformatter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.AREA)
            framed += [np.ascontiguousarray(np.rot90(picture.to_ndarray(), -turned))] * times
    squashed = replace(look, width=GRADE_PX, height=GRADE_PX, squash=True)
    pictures = [frame.to_ndarray() for frame in finish(graded, squashed)]
    return Seen(
        np.stack(pictures) if pictures else np.empty((0, GRADE_PX, GRADE_PX, 3), np.uint8),
        np.stack(framed) if framed else np.empty((0, size[1], size[0], 3), np.uint8),
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
