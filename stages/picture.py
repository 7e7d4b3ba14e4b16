"""Decoded frames as they are shown: upright, progressive, square pixels, graded, BT.709 yuv420p.

One FFmpeg filter graph per clip:

    buffer -> name the colours -> bwdif -> transpose -> [crop] -> scale -> [lut3d, lut3d] -> yuv420p, BT.709

Pixels go through a LUT as RGB of 16 bits. HDR (PQ, HLG) goes through a tone-mapping LUT
instead (stages/tonemap.py): a grade learned on SDR says nothing about it. Other SDR colours may go through
such a LUT before they are graded.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.filter
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

# ITU-T H.273 code points.
UNSPECIFIED = 2
BT709, BT470BG, SMPTE170M = 1, 5, 6
PQ, HLG = 16, 18
LIMITED, FULL = 1, 2
HDR = (PQ, HLG)
# BT.470 M and BG, BT.601 (two), film, BT.2020, P3 (two), EBU 3213.
OTHER_PRIMARIES = (4, 5, 6, 7, 8, 9, 11, 12, 22)
FINE = "bicubic+accurate_rnd+full_chroma_int"


@dataclass(frozen=True)
class Box:
    """A part of an upright picture, in shares of its sides."""

    left: float
    top: float
    width: float
    height: float

    def pixels(self, width: int, height: int) -> dict[str, int]:
        """Of a picture of this size, for FFmpeg's crop: on even places, where 4:2:0 has its chroma."""
        found = {}
        for place, size, start, share, side in (
            ("x", "w", self.left, self.width, width),
            ("y", "h", self.top, self.height, height),
        ):
            found[size] = min(side, max(2, round(share * side / 2) * 2))
            found[place] = min(round(start * side / 2) * 2, (side - found[size]) // 2 * 2)
        return found


@dataclass(frozen=True)
class Look:
    """What a clip's frames are turned into."""

    width: int
    height: int
    rotation: int = 0  # clockwise degrees
    deinterlace: bool = False
    cube: Path | None = None  # the clip's grade
    tone_map: Path | None = None  # to BT.709, for HDR in place of the grade
    squash: bool = False  # a small RGB picture to look at rather than one to encode
    box: Box | None = None  # the part of the upright picture that is shown; None: all of it


def shown_size(width: int, height: int, max_height: int | None) -> tuple[int, int]:
    """The size to encode: as displayed, no higher than max_height, sides even as 4:2:0 needs them."""
    scale = min(1.0, max_height / height) if max_height else 1.0
    return max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2)


def finish(frames: Iterable[tuple[av.VideoFrame, int]], look: Look) -> Iterator[av.VideoFrame]:
    """Each (frame, times) through the filters once, and out as often as it is shown."""
    graph, form = None, None
    repeats: deque[int] = deque()
    for number, (frame, times) in enumerate(frames):
        shape = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if shape != form:  # the first frame, or a stream that changes on the way
            if graph is not None:
                graph.push(None)
                yield from _ready(graph, repeats)
            graph, form = _graph(frame, look), shape
        frame.pts = number
        repeats.append(times)
        graph.push(frame)
        yield from _ready(graph, repeats)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph, repeats)


def _ready(graph: av.filter.Graph, repeats: deque[int]) -> Iterator[av.VideoFrame]:
    while repeats:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        for _ in range(repeats.popleft()):
            yield frame


def _graph(frame: av.VideoFrame, look: Look) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = {
        "width": frame.width,
        "height": frame.height,
        "pix_fmt": frame.format.name,
        "time_base": "1/25",
        "colorspace": int(frame.colorspace),
        "range": int(frame.color_range),
    }
    chain = [("buffer", source), *_steps(frame, look), ("buffersink", {})]
    # Options as a dict, not as a string: a path needs no quoting then.
    nodes = [graph.add(name, **{key: str(v) for key, v in options.items()}) for name, options in chain]
    graph.link_nodes(*nodes).configure()
    return graph


def _steps(frame: av.VideoFrame, look: Look) -> list[tuple[str, dict]]:
    colours = colours_of(frame)
    tags = {"color_primaries": colours.primaries, "color_trc": colours.transfer, "range": colours.range}
    if not frame.format.is_rgb:
        tags["colorspace"] = colours.matrix
    steps: list[tuple[str, dict]] = [("setparams", tags)]
    if look.deinterlace:
        steps.append(("bwdif", {"mode": "send_frame", "deint": "interlaced"}))
    steps += {
        90: [("transpose", {"dir": "clock"})],
        180: [("hflip", {}), ("vflip", {})],
        270: [("transpose", {"dir": "cclock"})],
    }.get(look.rotation % 360, [])
    if look.box is not None:
        tilted = look.rotation % 180 != 0
        sides = (frame.height, frame.width) if tilted else (frame.width, frame.height)
        steps.append(("crop", look.box.pixels(*sides)))
    flags = "area" if look.squash else FINE
    steps.append(("scale", {"w": look.width, "h": look.height, "flags": flags}))
    tone_map = None if colours.are_709 else look.tone_map
    cubes = [tone_map, None if colours.transfer in HDR else look.cube]
    if any(cubes):
        # lut3d is three times as fast on planes of 16 bits, or of floats, as on those of 8 to 14, and rounds
        # to less than a level; floats take twice as long to be made and read.
        steps.append(("format", {"pix_fmts": "gbrp16le"}))
        steps += [("lut3d", {"file": cube, "interp": "tetrahedral"}) for cube in cubes if cube is not None]
    if look.squash:
        return [*steps, ("format", {"pix_fmts": "rgb24"})]
    steps.append(("scale", {"out_color_matrix": "bt709", "out_range": "tv", "flags": FINE}))
    steps += [("format", {"pix_fmts": "yuv420p"}), ("setsar", {"sar": "1"})]
    if tone_map is not None:
        steps.append(("setparams", {"color_primaries": BT709, "color_trc": BT709}))
    return steps


@dataclass(frozen=True)
class Colours:
    range: int
    primaries: int
    transfer: int
    matrix: int

    @property
    def are_709(self) -> bool:
        """Whether RGB of these is shown as that of BT.709; SDR curves differ by less than screens do."""
        return self.primaries not in OTHER_PRIMARIES and self.transfer not in HDR


def colours_of(frame: av.VideoFrame) -> Colours:
    """A frame's colour tags; what it leaves open is what players assume for its size (BT.601 below 720)."""
    small = min(frame.width, frame.height) < 720
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED:
        matrix = (BT470BG if frame.height in (576, 288) else SMPTE170M) if small else BT709
    full = frame.format.name.startswith("yuvj") or frame.format.is_rgb
    return Colours(
        range=int(frame.color_range) or (FULL if full else LIMITED),
        primaries=_or_709(int(frame.color_primaries)),
        transfer=_or_709(int(frame.color_trc)),
        matrix=matrix,
    )


def _or_709(code: int) -> int:
    return code if code not in (0, UNSPECIFIED) else BT709


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """A finished frame as u8[H, W, 3]."""
    return frame.reformat(
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    ).to_ndarray()


def from_rgb(picture: np.ndarray) -> av.VideoFrame:
    """u8[H, W, 3] as a finished frame."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
