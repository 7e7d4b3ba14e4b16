"""Shot boundaries with PySceneDetect's detectors, fed frame by frame, and the flashes among them.

A detector takes a camera flash for two cuts. What is the same picture again after 1 to 3 frames has not
been cut: flashes, strobe light and dropped pictures are left out. Where the brightness jumped, the frames are
noted as flashes, so that no clip begins or ends on one.

A detector judges a frame against a window before and after it; the first OWN_FROM frames after a seek
have no window before them and are left to whoever reads what comes before.
"""

from collections import deque
from dataclasses import dataclass

import av
import cv2
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, HashDetector, HistogramDetector
from scenedetect.common import FrameTimecode, Timecode

WINDOW = 2
FLASH_FRAMES = 3
# One frame has no difference to the frame before; then as many as are looked back on.
OWN_FROM = max(WINDOW, FLASH_FRAMES) + 1
# The picture is back if it differs from the one before by less than this share of the jump.
SAME_SHARE = 0.5
# Of the mean brightness: what lamps, sparks and hands before the lens do is less.
FLASH_LUMA = 0.08
COARSE = (40, 24)

_DETECTORS = {
    "adaptive": lambda: AdaptiveDetector(min_scene_len=0, window_width=WINDOW),
    "content": lambda: ContentDetector(min_scene_len=0),
    "hash": lambda: HashDetector(min_scene_len=0),
    "histogram": lambda: HistogramDetector(min_scene_len=0),
}


@dataclass
class _Frame:
    pts: int
    seconds: float
    judge: bool
    coarse: np.ndarray  # f32 [h, w, 3], 0..1
    luma: float
    cut: bool = False


class ShotFinder:
    """Collects `cuts_s`: the time of the first frame of each new shot, and `flashes_s`: of each lit frame."""

    look_ahead = max(WINDOW, FLASH_FRAMES)

    def __init__(self, detector: str):
        self._detector = _DETECTORS[detector]()
        self._recent: deque[_Frame] = deque(maxlen=2 * self.look_ahead + 2)
        self._waiting = 0  # frames at the end that are not decided yet
        self.cuts_s: list[float] = []
        self.flashes_s: list[float] = []

    def add(self, picture: np.ndarray, frame: av.VideoFrame, seconds: float, judge: bool) -> None:
        """picture uint8 [h, w, 3] BGR; a cut on a frame that is not to be judged is left out."""
        coarse = cv2.resize(picture, COARSE, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        self._recent.append(_Frame(frame.pts, seconds, judge, coarse, float(coarse.mean())))
        self._waiting += 1
        timecode = FrameTimecode(Timecode(frame.pts, frame.time_base), fps=25.0)
        for cut in self._detector.process_frame(timecode, picture):
            for one in self._recent:
                one.cut |= one.pts == cut.pts
        if self._waiting > self.look_ahead:
            self._decide()

    def flush(self) -> None:
        """The last frames are judged by what there is."""
        while self._waiting:
            self._decide()

    def _decide(self) -> None:
        frames, at = list(self._recent), len(self._recent) - self._waiting
        self._waiting -= 1
        one = frames[at]
        if not one.judge:
            return
        if one.cut and not goes_on([frame.coarse for frame in frames], at):
            self.cuts_s.append(one.seconds)
        if is_flash(np.array([frame.luma for frame in frames]), at):
            self.flashes_s.append(one.seconds)


def goes_on(pictures: list[np.ndarray], at: int) -> bool:
    """Whether the picture before a jump at `at` is back within FLASH_FRAMES, or was there so long before it.

    pictures   f32 [h, w, 3] each, in order
    """
    jump = _apart(pictures[at - 1], pictures[at]) if at else 0.0
    pairs = [(at - 1, at + length) for length in range(1, FLASH_FRAMES + 1)]
    pairs += [(at - 1 - length, at) for length in range(1, FLASH_FRAMES + 1)]
    inside = [(a, b) for a, b in pairs if a >= 0 and b < len(pictures)]
    return any(_apart(pictures[a], pictures[b]) < SAME_SHARE * jump for a, b in inside)


def is_flash(luma: np.ndarray, at: int) -> bool:
    """Whether frame `at` belongs to 1 to 3 frames that are brighter, or darker, than those around them.

    luma   [N] mean brightness of consecutive frames, 0..1
    """
    if np.ptp(luma) <= FLASH_LUMA:
        return False
    for length in range(1, FLASH_FRAMES + 1):
        for first in range(at - length + 1, at + 1):
            if first < 1 or first + length >= len(luma):
                continue
            around = luma[[first - 1, first + length]]
            inside = luma[first : first + length]
            if inside.min() - around.max() > FLASH_LUMA or around.min() - inside.max() > FLASH_LUMA:
                return True
    return False


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())
