"""A reel of another shape than its source's: where each clip is cropped, and how its frames are put there.

in   frames  finished (stages/picture.py), of the part of the picture that its View asks for
out  frames  of the reel's size

A clip that is cropped and held still is cropped by the filters alone. Where the window moves, they give the
strip that it moves over, at the reel's scale, and the window is cut out of it between the pixels, so that a
slow pan does not judder. What no crop does justice stands whole before a blurred copy of itself.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

from stages.attention import Attend, Attention, hull, joined
from stages.camera import frame_shot, positions
from stages.nn.detectors import STEP
from stages.picture import Box, Look, finish, shown_size
from stages.timeline import Slot

# An aspect so near the source's needs no thought: the middle is shown.
ALIKE = 0.98
LOOK_PX = 384  # long side of the pictures that are looked at
LOOKS_PER_S = 4
# Of a still part of the picture before its blurred copy: so much of the mass must be in it. Bars, and
# something cut off, are worse than bars alone.
ENOUGH = 0.98
NEARLY_ALL = 0.65  # a part of so much is shown as all: it would hardly be larger
# The blurred copy: how much smaller it is blurred, by how many of its pixels, and how it is dimmed.
COARSE, BLUR_PX, LIGHT, COLOUR = 16, 2.0, 0.45, 0.8
BLACK, GREY = 16, 128  # of luma and of chroma, limited range


@dataclass(frozen=True)
class View:
    """What of the picture is shown in so many frames; shares of the axis along which it is cropped."""

    frames: int
    first: float
    share: float
    begins: np.ndarray | None = None  # of the window within that part, at each frame; None: it is all shown
    bars: bool = False  # not all of the reel's frame is covered


@dataclass(frozen=True)
class Part:
    """Frames of a slot without a cut between them."""

    first: int  # in the slot
    count: int
    before: int  # frames of the same shot, in the parts that it goes on from


def reel_size(width: int, height: int, aspect: str, max_height: int | None) -> tuple[int, int]:
    """The size of a reel: its short side is the source's, so 1080p gives 1080 x 1920, 1080 x 1080 and so on.

    A crop is enlarged by the aspect at most, where landscape becomes portrait; and what is shown whole keeps
    all the detail that there is room for.
    """
    if aspect == "source":
        return shown_size(width, height, max_height)
    across, down = map(int, aspect.split(":"))
    unit = max(2, min(width, height) // 2 * 2) / min(across, down)
    return shown_size(unit * across, unit * down, max_height)


class Framing:
    """The framing of one video's reel."""

    def __init__(self, probe: dict[str, Any], size: tuple[int, int], fps: Fraction, attend: Attend | None):
        """attend: None shows every picture whole."""
        self.width, self.height = size
        self.fps, self.attend = fps, attend
        source, reel = probe["width"] / probe["height"], size[0] / size[1]
        self.across = source > reel
        self.window = min(source, reel) / max(source, reel)
        if self.window > 1 - 2 / min(size):  # only because sides are even
            self.window = 1.0
        self.step = max(1, round(fps / LOOKS_PER_S))
        scale = LOOK_PX / max(probe["width"], probe["height"])
        sides = (max(1, round(probe[side] * scale / STEP)) * STEP for side in ("width", "height"))
        self.look_size = tuple(sides)

    @property
    def looks(self) -> bool:
        return self.window < ALIKE and self.attend is not None

    def moments(self, part: Part) -> list[int]:
        """The frames of a slot at which a part of it is looked at: one a step, on the clock of its shot."""
        return list(range(part.first + -part.before % self.step, part.first + part.count, self.step))

    def moments_of(self, parts: Sequence[Part]) -> list[int]:
        return [moment for part in parts for moment in self.moments(part)] if self.looks else []

    def seen(self, parts: Sequence[Part], pictures: np.ndarray) -> list[Attention]:
        """What is seen in each part of a slot; the pictures are those of its moments."""
        if not self.looks:
            return []
        ends = np.cumsum([len(self.moments(part)) for part in parts])
        return [self.attend(shown, self.across) for shown in np.split(pictures, ends[:-1])]

    def views(self, parts: dict[int, list[Part]], seen: Sequence[Attention]) -> dict[int, list[View]]:
        """By clip, how each of its parts is shown; parts that go on are one movement of the camera."""
        every = [part for some in parts.values() for part in some]
        if self.looks:
            views = iter([view for take in takes(every, seen) for view in self._take(take)])
        else:
            views = iter([self._unseen(part.count) for part in every])
        return {clip: list(itertools.islice(views, len(some))) for clip, some in parts.items()}

    def _unseen(self, count: int) -> View:
        """The middle where the aspects are alike, else all of the picture."""
        if self.window < ALIKE:
            return View(count, 0.0, 1.0, bars=True)
        return View(count, (1 - self.window) / 2, self.window)

    def _take(self, take: Sequence[tuple[Part, Attention]]) -> list[View]:
        attention = joined([one for _, one in take])
        # As at the last moment it stays for the frames that follow it, until the next would have come.
        mass, faces, text = np.vstack([attention.mass, attention.mass[-1:]]), attention.faces, attention.text
        step_s = float(self.step / self.fps)
        path = frame_shot(mass, [*faces, faces[-1]], [*text, text[-1]], self.window, step_s)
        if path is None:
            whole = least(attention, self.window)
            return [View(part.count, *whole, bars=True) for part, _ in take]
        frames = [part.before + np.arange(part.count) for part, _ in take]
        return [cropped(positions(path, numbers / self.step), self.window) for numbers in frames]

    def finished(
        self, frames: Iterator[tuple[av.VideoFrame, int]], look: Look, views: Sequence[View]
    ) -> Iterator[av.VideoFrame]:
        """The frames of a clip, finished, of the reel's size; of any part of it if nothing was looked at."""
        parts = portions(frames, [view.frames for view in views]) if self.looks else [frames]
        for view, portion in zip(views, parts, strict=False):
            width, height = self.size(view)
            part = replace(look, width=width, height=height, box=self.box(view))
            yield from self.placed(finish(portion, part), view)

    def box(self, view: View) -> Box | None:
        """The part of the picture that is wanted; None for all of it."""
        if view.share == 1:
            return None
        if self.across:
            return Box(view.first, 0.0, view.share, 1.0)
        return Box(0.0, view.first, 1.0, view.share)

    def size(self, view: View) -> tuple[int, int]:
        """Of the finished frames that `placed` wants."""
        along, other = (self.width, self.height) if self.across else (self.height, self.width)
        if view.bars:
            other = max(2, round(other * self.window / view.share / 2) * 2)
        else:
            along = max(along, round(along * view.share / self.window / 2) * 2)
        return (along, other) if self.across else (other, along)

    def placed(self, frames: Iterable[av.VideoFrame], view: View) -> Iterator[av.VideoFrame]:
        if view.bars:
            return (barred(frame, self.width, self.height) for frame in frames)
        if view.begins is None:
            return iter(frames)
        side = 0 if self.across else 1
        length = self.size(view)[side]
        reach = length - (self.width, self.height)[side]
        shifts = np.clip((view.begins - view.first) / view.share * length, 0, reach)
        return (
            windowed(frame, shift, self.across, self.width, self.height)
            for frame, shift in zip(frames, shifts, strict=True)
        )


def parts_of(
    slots: Sequence[Slot], clips: dict[int, dict[str, Any]], cuts_s: Sequence[float], fps: Fraction
) -> dict[int, list[Part]]:
    """By clip, the slots divided where a shot ends within one."""
    found: dict[int, list[Part]] = {}
    last: Part | None = None
    for before, slot in zip([None, *slots], slots, strict=False):
        inside = [float(cut_s) for cut_s in cuts_s if slot.start_s < cut_s < slot.end_s]
        # The first frame of the clip is shown at or just after its start.
        numbers = sorted({math.floor((cut_s - slot.start_s) * fps + 0.01) for cut_s in inside})
        bounds = [0, *(number for number in numbers if 0 < number < slot.count), slot.count]
        goes_on = (
            before is not None
            and not slot.overlap
            and abs(before.end_s - slot.start_s) < 0.5 / fps
            and clips[before.clip]["shot"] == clips[slot.clip]["shot"]
        )
        shown = last.before + last.count if goes_on else 0
        found[slot.clip] = [
            Part(low, high - low, 0 if low else shown) for low, high in itertools.pairwise(bounds)
        ]
        last = found[slot.clip][-1]
    return found


def takes(parts: Sequence[Part], seen: Sequence[Attention]) -> list[list[tuple[Part, Attention]]]:
    """Parts that go on from one another, together."""
    found: list[list[tuple[Part, Attention]]] = []
    for part, one in zip(parts, seen, strict=True):
        if part.before:
            found[-1].append((part, one))
        else:
            found.append([(part, one)])
    return found


def cropped(begins: np.ndarray, window: float) -> View:
    """A window that begins at these places, one a frame."""
    low, high = float(begins.min()), float(begins.max())
    if high - low < 1e-4:
        return View(len(begins), low, window)
    return View(len(begins), low, high - low + window, begins)


def least(attention: Attention, window: float) -> tuple[float, float]:
    """Begin and share of the smallest part of the picture that shows nearly all there is to see, for good.

    All of it where there is something to read.
    """
    if any(one is not None for one in attention.text):
        return 0.0, 1.0
    seen = attention.mass.mean(0)
    edges = np.linspace(0, 1, len(seen) + 1)
    sums = np.concatenate([[0.0], np.cumsum(seen)])
    ends = np.searchsorted(sums, sums + ENOUGH * sums[-1])
    begins = np.flatnonzero(ends < len(edges))
    best = min(begins, key=lambda n: edges[ends[n]] - edges[n])
    faces = [one for one in attention.faces if one is not None]
    low, high = hull([*faces, (float(edges[best]), float(edges[ends[best]]))])
    share = max(high - low, window)
    if share > NEARLY_ALL:
        return 0.0, 1.0
    return float(np.clip((low + high - share) / 2, 0, 1 - share)), share


def portions(
    frames: Iterator[tuple[av.VideoFrame, int]], counts: Sequence[int]
) -> Iterator[Iterator[tuple[av.VideoFrame, int]]]:
    """The frames of a clip as those of its parts, one after another, each to be read to its end."""
    rest: list[tuple[av.VideoFrame, int]] = []

    def portion(count: int) -> Iterator[tuple[av.VideoFrame, int]]:
        while count > 0:
            frame, times = rest.pop() if rest else next(frames)
            if times > count:
                rest.append((frame, times - count))
            yield frame, min(times, count)
            count -= times

    for count in counts:
        yield portion(count)


def windowed(frame: av.VideoFrame, shift: float, across: bool, width: int, height: int) -> av.VideoFrame:
    """The window of a yuv420p frame that begins `shift` pixels into it."""
    planes = []
    for plane, part in zip(split(frame), (1, 2, 2), strict=True):
        x, y = (shift / part, 0) if across else (0, shift / part)
        to_source = np.float32([[1, 0, x], [0, 1, y]])
        size = (width // part, height // part)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        planes.append(cv2.warpAffine(plane, to_source, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))
    return whole(planes)


def barred(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """A yuv420p frame before a blurred and dimmed copy that fills width x height."""
    planes = []
    for plane, part, black, light in zip(
        split(frame), (1, 2, 2), (BLACK, GREY, GREY), (LIGHT, COLOUR, COLOUR), strict=True
    ):
        w, h = width // part, height // part
        rows, columns = plane.shape
        # The copy is enlarged until it covers all: its middle is seen.
        seen_w, seen_h = min(columns, max(1, round(rows * w / h))), min(rows, max(1, round(columns * h / w)))
        x, y = (columns - seen_w) // 2, (rows - seen_h) // 2
        coarse = (max(1, w * part // COARSE), max(1, h * part // COARSE))
        copy = cv2.resize(plane[y : y + seen_h, x : x + seen_w], coarse, interpolation=cv2.INTER_AREA)
        copy = black + light * (cv2.GaussianBlur(copy.astype(np.float32), (0, 0), BLUR_PX) - black)
        made = cv2.resize(copy, (w, h), interpolation=cv2.INTER_LINEAR).round().astype(np.uint8)
        x, y = (width - columns * part) // 4 * 2 // part, (height - rows * part) // 4 * 2 // part
        made[y : y + rows, x : x + columns] = plane
        planes.append(made)
    return whole(planes)


def split(frame: av.VideoFrame) -> list[np.ndarray]:
    """The planes of a yuv420p frame, [H, W] and twice [H / 2, W / 2]."""
    width, height = frame.width, frame.height
    flat = frame.to_ndarray().ravel()
    luma, *chroma = np.split(flat, [width * height, width * height * 5 // 4])
    return [luma.reshape(height, width), *(one.reshape(height // 2, width // 2) for one in chroma)]


def whole(planes: Sequence[np.ndarray]) -> av.VideoFrame:
    """Planes as a yuv420p frame."""
    height, width = planes[0].shape
    flat = np.concatenate([plane.ravel() for plane in planes])
    return av.VideoFrame.from_ndarray(flat.reshape(height * 3 // 2, width), format="yuv420p")
