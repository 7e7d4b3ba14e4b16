"""Finished frames of any shape on one canvas: fitted into it, over a blurred and darker copy of themselves.

    split -> small, filling the canvas, blurred, dark -> full size \\
          -> ---------------------------------------- overlay, in the middle
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import av
import av.filter
from av.filter.context import FilterContext

BLUR_SHRINK = 8  # the backdrop is made so many times smaller: it is blurred anyway
BLUR_SIGMA = 6
BACKDROP = 0.55  # of the brightness of the picture
SAME_SHAPE = (
    0.02  # aspects that differ by less fill the canvas: nobody sees the stretch, everybody a thin bar
)


def fitted_size(width: int, height: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """The largest size of that shape inside the canvas; sides even."""
    if abs(width * canvas[1] / (height * canvas[0]) - 1) < SAME_SHAPE:
        return canvas
    scale = min(canvas[0] / width, canvas[1] / height)
    inside = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
    return max(2, min(inside[0], canvas[0])), max(2, min(inside[1], canvas[1]))


def on_canvas(frames: Iterable[av.VideoFrame], canvas: tuple[int, int]) -> Iterator[av.VideoFrame]:
    """Finished frames (yuv420p, all of one size), each on the canvas; those that fill it as they are."""
    graph = None
    for number, frame in enumerate(frames):
        if graph is None:
            if (frame.width, frame.height) == canvas:
                yield frame
                continue
            graph = _graph(frame, canvas)
        frame.pts = number
        graph.push(frame)
        yield from _ready(graph)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph)


def _ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _graph(frame: av.VideoFrame, canvas: tuple[int, int]) -> av.filter.Graph:
    width, height = canvas
    small = [max(2, side // BLUR_SHRINK // 2 * 2) for side in canvas]
    graph = av.filter.Graph()

    def node(name: str, **options: object) -> FilterContext:
        return graph.add(name, **{key: str(value) for key, value in options.items()})

    source = node(
        "buffer",
        width=frame.width,
        height=frame.height,
        pix_fmt=frame.format.name,
        time_base="1/25",
        colorspace=int(frame.colorspace),
        range=int(frame.color_range),
    )
    split = node("split", outputs=2)
    backdrop = [
        node("scale", w=small[0], h=small[1], force_original_aspect_ratio="increase", flags="area"),
        node("crop", w=small[0], h=small[1]),
        node("gblur", sigma=BLUR_SIGMA),
        node(
            "lutyuv",
            y=f"16+(val-16)*{BACKDROP}",
            u=f"128+(val-128)*{BACKDROP}",
            v=f"128+(val-128)*{BACKDROP}",
        ),
        node("scale", w=width, h=height, flags="bilinear"),
        node("format", pix_fmts="yuv420p"),
    ]
    # Even places: chroma has half the resolution.
    place = {"x": (width - frame.width) // 4 * 2, "y": (height - frame.height) // 4 * 2}
    overlay = node("overlay", format="yuv420", **place)
    rest = [node("format", pix_fmts="yuv420p"), node("setsar", sar="1"), node("buffersink")]
    source.link_to(split)
    for before, after in [*pairwise([split, *backdrop, overlay]), *pairwise([overlay, *rest])]:
        before.link_to(after)
    split.link_to(overlay, 1, 1)
    graph.configure()
    return graph
