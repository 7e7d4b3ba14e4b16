"""Where in the pictures of a shot the eye goes, along the axis that a crop moves on, and what it must keep.

in   frames     uint8 [T, H, W, 3] RGB, evenly spaced, sides as the detectors want them
out  Attention  mass float32 [T, N], wanted [T] intervals; places are shares of the axis, 0 to 1

The mass is that of three classical maps: how rare a place's colour is (Cheng et al., CVPR 2011) unless it is
the backdrop's (Zhu et al., CVPR 2014), how it stands out from what surrounds it (Itti et al., PAMI 1998), and
what moves otherwise than the picture as a whole. A map that is strong everywhere says nothing, and counts
little. Faces are added where there are any.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

BINS = 128  # along the axis
SMALL_PX = 96  # long side of the maps
SCALES_PX = ((1, 4), (2, 8), (4, 16))  # centre and surround, of the maps
COLOURS = 12  # steps of each channel, in which rarity is counted
ALIKE = 12.0  # colours so far apart, in Lab, are shades of one
CENTRAL = 0.7  # deviation from the middle, in half sides
NOISE = 8.0  # levels that differ without anything having moved
MEMORY = (0.25, 0.5, 0.25)  # of a moment: what is seen is seen a little before and after
MOTION = 1.5  # beside either map of the picture as it stands
FACES = 2.0  # beside all maps together, when they are large
# Height of a face, as a share of the picture's: below it is one of a crowd, and from which it is the subject.
SMALL_FACE, LARGE_FACE = 0.06, 0.16
HAIR = 0.35  # of a face's size, around its box
# A line of text is meant to be read from so much of the picture's height and width on.
READ_HEIGHT, READ_WIDTH = 0.03, 0.06
FACES_EVERY, TEXT_EVERY = 2, 4
SAME_PLACE = 0.4  # intersection over union
COMMON = 0.8  # of a profile's mean: everywhere, so it says nothing of where

Detector = Callable[[np.ndarray], np.ndarray]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Attention:
    mass: np.ndarray  # [T, N], each moment's adds up to 1, or to 0 where nothing is to be seen
    # What must not be cut, [T]: from the first to the last of the large faces, and of the lines of text.
    faces: list[Interval | None]
    text: list[Interval | None]


def joined(parts: Sequence[Attention]) -> Attention:
    """What is seen in a shot that was looked at in parts."""
    return Attention(
        np.concatenate([part.mass for part in parts]),
        [one for part in parts for one in part.faces],
        [one for part in parts for one in part.text],
    )


def hull(intervals: Sequence[Interval]) -> Interval | None:
    """From the first to the last of them."""
    return (min(low for low, _ in intervals), max(high for _, high in intervals)) if intervals else None


class Attend:
    """Holds the detectors; a call looks at the frames of one shot."""

    def __init__(self, faces: Detector, text: Detector):
        self.faces, self.text = faces, text

    def __call__(self, frames: np.ndarray, across: bool) -> Attention:
        """`across`: the crop moves along the width, else along the height."""
        if not len(frames):
            return Attention(np.empty((0, BINS), np.float32), [], [])
        return attend(frames, across, self.faces, self.text)


def attend(frames: np.ndarray, across: bool, faces: Detector, text: Detector) -> Attention:
    small = [shrunk(frame) for frame in frames]
    moving = motion_maps(small)
    mass = [profile(picture_map(a) + MOTION * b, across) for a, b in zip(small, moving, strict=True)]
    seen_faces = held([faces(frame) for frame in frames[::FACES_EVERY]], FACES_EVERY, len(frames))
    seen_text = held(lasting([text(frame) for frame in frames[::TEXT_EVERY]]), TEXT_EVERY, len(frames))
    mass = np.stack([a + FACES * face_profile(b, across) for a, b in zip(mass, seen_faces, strict=True)])
    memory = np.float32(MEMORY)[:, None]
    mass = cv2.filter2D(mass.astype(np.float32), -1, memory, borderType=cv2.BORDER_REPLICATE)
    mass = mass / np.maximum(mass.sum(1, keepdims=True), 1e-9)
    return Attention(
        mass,
        [reach(large(boxes), across, HAIR) for boxes in seen_faces],
        [reach(readable(boxes), across, 0.0) for boxes in seen_text],
    )


def shrunk(frame: np.ndarray) -> np.ndarray:
    """The frame in Lab, float32 [h, w, 3] with levels of 0..255."""
    scale = SMALL_PX / max(frame.shape[:2])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2Lab).astype(np.float32)


def picture_map(lab: np.ndarray) -> np.ndarray:
    """[h, w]: how much each place stands out in the picture by itself."""
    return (telling(rarity(lab)) + telling(contrast(lab))) * central(*lab.shape[:2])


def rarity(lab: np.ndarray) -> np.ndarray:
    """Mean distance [h, w] of each place's colour from all others of the picture, if it is no backdrop's.

    A colour is one of the backdrop by how much of the picture's border it has, beside its area.
    """
    coarse = (lab * (COLOURS / 256)).astype(int)
    codes = (coarse[..., 0] * COLOURS + coarse[..., 1]) * COLOURS + coarse[..., 2]
    _, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    place = place.reshape(lab.shape[:2])
    flat = lab.reshape(-1, 3)
    colours = np.stack([np.bincount(place.ravel(), flat[:, c]) for c in range(3)], 1) / counts[:, None]
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    # Not the lower edge: what stands in the foreground is cut off by it.
    border = np.concatenate([place[0], place[1:, 0], place[1:, -1]])
    near = np.exp(-0.5 * (apart / ALIKE) ** 2)
    along = near @ np.bincount(border, minlength=len(counts))
    backdrop = 1 - np.exp(-0.5 * (along / np.sqrt(near @ counts)) ** 2)
    rare = (apart @ (counts / counts.sum())) * (1 - backdrop)
    return cv2.GaussianBlur(rare[place].astype(np.float32), (0, 0), 1)


@lru_cache(maxsize=8)
def central(height: int, width: int) -> np.ndarray:
    """[h, w]: whoever points a camera has the subject nearer to the middle than to the edges."""
    across, down = (np.linspace(-1, 1, size) for size in (width, height))
    return np.exp(-0.5 * (across**2 + down[:, None] ** 2) / CENTRAL**2).astype(np.float32)


def contrast(lab: np.ndarray) -> np.ndarray:
    """Distance [h, w] of each place from its surround, over a few scales."""
    total = np.zeros(lab.shape[:2], np.float32)
    for centre, surround in SCALES_PX:
        difference = cv2.GaussianBlur(lab, (0, 0), centre) - cv2.GaussianBlur(lab, (0, 0), surround)
        total += np.linalg.norm(difference, axis=-1)
    return total


def motion_maps(small: list[np.ndarray]) -> list[np.ndarray]:
    """[h, w] for each picture: what has moved since the one before, beside the movement of the camera.

    The first is taken for moving as the second does.
    """
    luma = [np.ascontiguousarray(one[..., 0]) for one in small]
    height, width = luma[0].shape
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    maps = []
    for before, now in itertools.pairwise(luma):
        (x, y), _ = cv2.phaseCorrelate(before, now, window)
        shift = np.float32([[1, 0, x], [0, 1, y]])
        moved = cv2.warpAffine(before, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        # The better of both: a picture that does not move as a whole may correlate anywhere.
        moved = min((moved, before), key=lambda guess: float(cv2.absdiff(guess, now).sum()))
        difference = cv2.GaussianBlur(cv2.absdiff(moved, now), (0, 0), 1.5)
        maps.append(telling(np.maximum(difference - NOISE, 0)))
    return [maps[0], *maps] if maps else [np.zeros((height, width), np.float32)]


def telling(found: np.ndarray) -> np.ndarray:
    """A map [h, w] without what all of the picture has, the heavier the fewer places it is strong at."""
    above = np.maximum(found - found.mean(), 0)
    peak = float(above.max())
    if peak <= 1e-6:
        return np.zeros_like(found)
    share = above / peak
    return share * (1 - share.mean()) ** 2 * min(1.0, peak / NOISE)


def profile(found: np.ndarray, across: bool) -> np.ndarray:
    """What [N] a map has along the axis beyond what it has everywhere, 1 in all; 0 for a map of nothing."""
    line = found.mean(0 if across else 1, dtype=np.float32)
    line = cv2.resize(line[None], (BINS, 1), interpolation=cv2.INTER_LINEAR)[0]
    line = np.maximum(line - COMMON * line.mean(), 0)
    return line / max(float(line.sum()), 1e-9)


def face_profile(boxes: np.ndarray, across: bool) -> np.ndarray:
    """The mass [N] of faces: 1 in all where they are large, less for small ones."""
    places = (np.arange(BINS) + 0.5) / BINS
    total, most = np.zeros(BINS), 0.0
    for left, top, right, bottom, confidence in boxes:
        weight = confidence * np.clip((bottom - top) / LARGE_FACE, 0, 1) ** 2
        low, high = (left, right) if across else (top, bottom)
        total += weight * np.exp(-0.5 * ((places - (low + high) / 2) / (0.5 * (high - low) + 0.01)) ** 2)
        most = max(most, weight)
    return most * total / max(total.sum(), 1e-9)


def held(found: list[np.ndarray], every: int, count: int) -> list[np.ndarray]:
    """What was looked for in every so many frames, for all of them: as in the nearest that was looked at."""
    return [found[min((n + every // 2) // every, len(found) - 1)] for n in range(count)]


def lasting(found: list[np.ndarray]) -> list[np.ndarray]:
    """The boxes that are in the same place a moment before or after: titles and slides, no passing sign."""
    if len(found) < 2:
        return found
    # What the shot begins or ends with may have been, or go on, beyond it.
    beyond = ([found[0], *found], [*found[1:], found[-1]])
    return [
        now[alike(now, before) | alike(now, after)]
        for before, now, after in zip(beyond[0], found, beyond[1], strict=False)
    ]


def alike(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[n]: which boxes have one among the others that covers most of the same place."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:4], others[None, :, 2:4])
    both = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(one[:, 2:4] - one[:, :2], -1) for one in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - both
    return (both > SAME_PLACE * np.maximum(union, 1e-9)).any(1)


def large(boxes: np.ndarray) -> np.ndarray:
    """The faces that a picture is about: neither those of a crowd nor those far behind the largest."""
    heights = boxes[:, 3] - boxes[:, 1]
    return boxes[heights >= max(SMALL_FACE, 0.5 * heights.max(initial=0))]


def readable(boxes: np.ndarray) -> np.ndarray:
    """The lines that are meant to be read."""
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return boxes[(down >= READ_HEIGHT) & (across >= READ_WIDTH)]


def reach(boxes: np.ndarray, across: bool, around: float) -> Interval | None:
    """From the first to the last of the boxes, with a share of each one's size around it."""
    if not len(boxes):
        return None
    low, high = (boxes[:, 0], boxes[:, 2]) if across else (boxes[:, 1], boxes[:, 3])
    room = around * (high - low)
    return max(0.0, float((low - room).min())), min(1.0, float((high + room).max()))
