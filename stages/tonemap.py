"""A LUT that shows HDR (PQ or HLG, BT.2020) as SDR (BT.709): FFmpeg's tone and gamut mapping, baked once.

swscale's colour management takes seconds to set up and 70 ms for a 1080p frame; the same mapping read off
a lattice of colours and applied by lut3d takes a few ms and is set up once per process.
"""

from functools import lru_cache
from pathlib import Path

import av
import av.filter
import numpy as np

SIDE = 65


def write_tone_map(primaries: int, transfer: int, path: Path) -> None:
    """Write the .cube file for RGB of these H.273 primaries and transfer."""
    lattice = tone_map(primaries, transfer)
    rows = "\n".join(f"{r:.5f} {g:.5f} {b:.5f}" for r, g, b in lattice.reshape(-1, 3))
    path.write_text(f"LUT_3D_SIZE {SIDE}\n{rows}\n")


@lru_cache(maxsize=4)
def tone_map(primaries: int, transfer: int) -> np.ndarray:
    """f32[L, L, L, 3], indexed [blue, green, red], values in 0..1."""
    axis = np.round(np.linspace(0, 65535, SIDE)).astype(np.uint16)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    colours = np.stack([red, green, blue], -1).reshape(SIDE, SIDE * SIDE, 3)
    graph = av.filter.Graph()
    chain = [
        ("buffer", f"video_size={SIDE * SIDE}x{SIDE}:pix_fmt=rgb48le:time_base=1/25:colorspace=0:range=2"),
        ("setparams", f"color_primaries={primaries}:color_trc={transfer}"),
        ("scale", "out_primaries=bt709:out_transfer=bt709:out_range=pc"),
        ("format", "rgb48le"),
        ("buffersink", ""),
    ]
    graph.link_nodes(*(graph.add(name, args) for name, args in chain)).configure()
    frame = av.VideoFrame.from_ndarray(colours, format="rgb48le")
    frame.pts = 0
    graph.push(frame)
    mapped = graph.pull().to_ndarray().astype(np.float32) / 65535
    return mapped.reshape(SIDE, SIDE, SIDE, 3)
