"""Shot boundaries with PySceneDetect's detectors, fed frame by frame.

A detector judges a frame against a window before and after it; the first OWN_FROM frames after a seek
have no window before them and are left to whoever reads what comes before.
"""

from collections import deque

import av
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, HashDetector, HistogramDetector
from scenedetect.common import FrameTimecode, Timecode

WINDOW = 2
# One frame has no difference to the frame before, WINDOW more are needed for the mean before the target.
OWN_FROM = WINDOW + 1

_DETECTORS = {
    "adaptive": lambda: AdaptiveDetector(min_scene_len=0, window_width=WINDOW),
    "content": lambda: ContentDetector(min_scene_len=0),
    "hash": lambda: HashDetector(min_scene_len=0),
    "histogram": lambda: HistogramDetector(min_scene_len=0),
}


class ShotFinder:
    """Collects `cuts_s`: the time of the first frame of each new shot."""

    look_ahead = WINDOW

    def __init__(self, detector: str):
        self._detector = _DETECTORS[detector]()
        self._recent: deque[tuple[int, float, bool]] = deque(maxlen=2 * WINDOW + 2)
        self.cuts_s: list[float] = []

    def add(self, picture: np.ndarray, frame: av.VideoFrame, seconds: float, judge: bool) -> None:
        """picture uint8 [h, w, 3] BGR; a cut on a frame that is not to be judged is left out."""
        self._recent.append((frame.pts, seconds, judge))
        timecode = FrameTimecode(Timecode(frame.pts, frame.time_base), fps=25.0)
        for cut in self._detector.process_frame(timecode, picture):
            for pts, at_s, judged in self._recent:
                if pts == cut.pts and judged:
                    self.cuts_s.append(at_s)
