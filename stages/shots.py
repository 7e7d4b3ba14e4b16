"""Shot boundaries with PySceneDetect's detectors, fed frame by frame, and the flashes among them.

A detector takes a camera flash for two cuts. What is the same picture again after FLASH_S, or after a single
frame of whatever length, has not been cut: flashes, strobe light and dropped pictures are left out. Where the
brightness jumped, the frames are noted as flashes, so that no clip begins or ends on one.

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
# Three frames at 24 a second, and not four at 30.
FLASH_S = 0.13
# One frame has no difference to the frame before; then as many as a flash of FLASH_S takes at up to 85
# frames/s, and one of 40 ms at up to 250.
OWN_FROM = 12
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

    def __init__(self, detector: str):
        self._detector = _DETECTORS[detector]()
        self._recent: deque[_Frame] = deque()
        self._waiting = 0  # frames at the end that are not decided yet
        self.cuts_s: list[float] = []
        self.flashes_s: list[float] = []

    @property
    def look_ahead(self) -> int:
        """How many frames after one have to be known to judge it, spaced as the latest ones are."""
        since_s = self._recent[-1].seconds - FLASH_S if self._recent else 0.0
        return max(WINDOW, sum(frame.seconds >= since_s for frame in self._recent)) + 1

    def add(self, picture: np.ndarray, frame: av.VideoFrame, seconds: float, judge: bool) -> None:
        """picture uint8 [h, w, 3] BGR; a cut on a frame that is not to be judged is left out."""
        coarse = cv2.resize(picture, COARSE, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        self._recent.append(_Frame(frame.pts, seconds, judge, coarse, float(coarse.mean())))
        self._waiting += 1
        timecode = FrameTimecode(Timecode(frame.pts, frame.time_base), fps=25.0)
        for cut in self._detector.process_frame(timecode, picture):
            for one in self._recent:
                one.cut |= one.pts == cut.pts
        while self._waiting > WINDOW + 1 and seconds - self._recent[-self._waiting].seconds > FLASH_S:
            self._decide()

    def flush(self) -> None:
        """The last frames are judged by what there is."""
        while self._waiting:
            self._decide()

    def _decide(self) -> None:
        frames, at = self._recent, len(self._recent) - self._waiting
        one = frames[at]
        # Of what is past, a flash that ends here and the frame before it.
        while at > 2 and one.seconds - frames[1].seconds > FLASH_S:
            frames.popleft()
            at -= 1
        self._waiting -= 1
        if not one.judge:
            return
        seconds = np.array([frame.seconds for frame in frames])
        if one.cut and not goes_on([frame.coarse for frame in frames], seconds, at):
            self.cuts_s.append(one.seconds)
        if is_flash(np.array([frame.luma for frame in frames]), seconds, at):
            self.flashes_s.append(one.seconds)


def goes_on(pictures: list[np.ndarray], seconds: np.ndarray, at: int) -> bool:
    """Whether the picture before a jump at `at` is back within FLASH_S, or was there so long before it.

    pictures   f32 [h, w, 3] each, in order
    seconds    [N] when each comes on show
    """
    if not at:
        return False
    jump = _apart(pictures[at - 1], pictures[at])
    later = [(at - 1, b) for b in range(at + 1, len(pictures)) if brief(seconds, at, b)]
    earlier = [(a - 1, at) for a in range(1, at) if brief(seconds, a, at)]
    return any(_apart(pictures[a], pictures[b]) < SAME_SHARE * jump for a, b in later + earlier)


def brief(seconds: np.ndarray, first: int, end: int) -> bool:
    """Whether frames `first` up to `end` are on show no longer than a flash; a single one always is."""
    return bool(end == first + 1 or seconds[end] - seconds[first] <= FLASH_S)


def is_flash(luma: np.ndarray, seconds: np.ndarray, at: int) -> bool:
    """Whether frame `at` belongs to a short run that is brighter, or darker, than the frames around it.

    luma      [N] mean brightness of consecutive frames, 0..1
    seconds   [N] when each comes on show
    """
    if np.ptp(luma) <= FLASH_LUMA:
        return False
    # From each first frame of the run up to `at`, and from there to before each end: what all of it exceeds.
    firsts, ends = np.arange(1, at + 1)[:, None], np.arange(at + 1, len(luma))
    short = (ends == firsts + 1) | (seconds[ends] - seconds[firsts] <= FLASH_S)
    for light in (luma, -luma):
        before = np.minimum.accumulate(light[at:0:-1])[::-1, None]
        after = np.minimum.accumulate(light[at:-1])
        around = np.maximum(light[firsts - 1], light[ends])
        if (short & (np.minimum(before, after) - around > FLASH_LUMA)).any():
            return True
    return False


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())
