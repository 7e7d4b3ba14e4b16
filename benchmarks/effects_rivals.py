"""The same effects at full size by OpenCV and by FFmpeg's filters, for what they cost.

OpenCV   the simulated camera's path, sampled at TAPS moments with cv2.remap and averaged in linear light; the
         maps are made beforehand and cost nothing here. Defocus is one filter2D with the disc.
FFmpeg   the filter that comes nearest; none but whip and blur smears anything:

         whip dblur · spin rotate · zoom scale and crop · blur gblur · ripple, twist geq · lens lenscorrection
"""

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import av.filter
import cv2
import numpy as np
import torch

from jobs.train.effects import defocus, moved
from stages.effects import blurred
from stages.nn.gan import SHUTTER, Cue, coordinates

TAPS = 16  # of the slow way; ours has up to 100 along a path
RADIAL = "hypot(X-W/2,Y-H/2)"
FILTERS = {
    "whip": [("dblur", {"angle": "10", "radius": "120"})],
    "spin": [("rotate", {"a": "0.6", "bilinear": "1"})],
    "zoom": [
        ("crop", {"w": "iw/1.5", "h": "ih/1.5"}),
        ("scale", {"w": "iw*1.5", "h": "ih*1.5", "flags": "bicubic"}),
    ],
    "blur": [("gblur", {"sigma": "40", "steps": "2"})],
    "lens": [("lenscorrection", {"k1": "0.4", "k2": "0.1", "i": "bilinear"})],
}
for name, shift in (
    ("ripple", f"20*sin({RADIAL}/40)/max({RADIAL},1)"),
    ("twist", f"0.8*exp(-{RADIAL}/300)"),
):
    across = f"X+(X-W/2)*{shift}" if name == "ripple" else f"X-(Y-H/2)*{shift}"
    down = f"Y+(Y-H/2)*{shift}" if name == "ripple" else f"Y+(X-W/2)*{shift}"
    FILTERS[name] = [("geq", {plane: f"{plane}({across},{down})" for plane in ("r", "g", "b")})]

Picture = np.ndarray


@torch.inference_mode()
def opencv(size: tuple[int, int], cue: Cue) -> Callable[[Picture], Picture]:
    """The effect of one cue on frames u8[H, W, 3] of this (height, width)."""
    height, width = size
    place, unit = coordinates(cue.aspect, height, width), height / 2
    radius_px = float(defocus(cue)) * unit
    maps = []
    for t in np.linspace(-1, 1, TAPS):
        x, y = (moved(place, cue, cue.phase * (1 + SHUTTER * float(t)))[0] * unit).numpy()
        maps.append((x + width / 2 - 0.5, y + height / 2 - 0.5))

    def apply(frame: Picture) -> Picture:
        light = np.square(frame, dtype=np.float32)
        if radius_px > 0.5:
            light = blurred(light, radius_px)
        total = np.zeros_like(light)
        for x, y in maps:
            total += cv2.remap(light, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.sqrt(total / TAPS).round().astype(np.uint8)

    return apply


def ffmpeg(effect: str, frame: Picture, count: int) -> Iterator[Picture]:
    """`count` times the frame u8[H, W, 3] through the filter that comes nearest to the effect."""
    graph = av.filter.Graph()
    graph.threads = 1
    height, width = frame.shape[:2]
    source = {"width": width, "height": height, "pix_fmt": "gbrp", "time_base": "1/25"}
    chain = [("buffer", source), *FILTERS[effect], ("buffersink", {})]
    nodes = [graph.add(name, **{key: str(v) for key, v in options.items()}) for name, options in chain]
    graph.link_nodes(*nodes).configure()
    planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="gbrp")
    for number in range(count):
        planes.pts, planes.time_base = number, Fraction(1, 25)
        graph.push(planes)
        yield graph.pull().to_ndarray()
