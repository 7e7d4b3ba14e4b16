"""The reel's loudness: measured, brought to the target, kept under the true-peak ceiling, coded as AAC.

ITU-R BS.1770 / EBU R 128 by FFmpeg's ebur128 filter; the limiter works at 192 kHz, so that what it holds
down are true peaks. What counts is what comes out of the AAC decoder: that is measured, and gain and
ceiling are corrected until it is right or the limiter makes it impossible.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.filter
import numpy as np

from stages.audio import CHANNELS, RATE
from stages.loudness import FLOOR_LUFS
from stages.settings import Settings

FLOOR_DBTP = -99.0
# Quieter than this is noise, not a quiet programme.
SILENT_LUFS = -60.0
CLOSE_LU = 0.25
ROUNDS = 6
BLOCK = RATE


class MasterSettings(Settings):
    loudness_lufs: float = -16.0
    true_peak_dbtp: float = -1.0
    bitrate: int = 192_000


@dataclass(frozen=True)
class Level:
    loudness_lufs: float  # integrated
    true_peak_dbtp: float


def master(samples: np.ndarray, path: Path, settings: MasterSettings) -> Level:
    """Write samples f32[n, 2] (48 kHz) to an .m4a at the wanted loudness; what its decoder puts out."""
    raw = measure(_blocks(samples))
    gain_db = 0.0
    if raw.loudness_lufs > SILENT_LUFS:
        gain_db = settings.loudness_lufs - raw.loudness_lufs
    ceiling_db = settings.true_peak_dbtp - 0.3
    level = Level(FLOOR_LUFS, FLOOR_DBTP)
    for _ in range(ROUNDS):
        before = level
        limit = raw.true_peak_dbtp + gain_db > ceiling_db
        encode_aac(_processed(samples, gain_db, ceiling_db if limit else None), path, settings.bitrate)
        level = measure(_decoded(path))
        over_db = level.true_peak_dbtp - settings.true_peak_dbtp
        short_lu = settings.loudness_lufs - level.loudness_lufs
        silent = level.loudness_lufs <= SILENT_LUFS
        if over_db < 0 and (silent or abs(short_lu) <= CLOSE_LU):
            break
        if over_db >= 0:
            ceiling_db -= over_db + 0.2
        elif (
            limit and level.loudness_lufs - before.loudness_lufs < 0.1 and before.true_peak_dbtp > FLOOR_DBTP
        ):
            break  # more gain only feeds the limiter
        if not silent:
            gain_db += short_lu
    return level


def measure(blocks: Iterator[np.ndarray]) -> Level:
    """Integrated loudness and true peak of blocks f32[n, 2] at 48 kHz."""
    found: dict[str, str] = {}
    # The filter reports per whole 100 ms: silence after the end makes it report the last ones, too.
    padded = chain(blocks, [np.zeros((RATE // 10, CHANNELS), np.float32)])
    for frame in _filtered(padded, [("ebur128", "metadata=1:peak=true:framelog=quiet")]):
        found = frame.metadata or found
    loudness = float(found.get("lavfi.r128.I", "nan"))
    peak = float(found.get("lavfi.r128.true_peak", "0"))
    return Level(
        loudness_lufs=max(FLOOR_LUFS, loudness) if math.isfinite(loudness) else FLOOR_LUFS,
        true_peak_dbtp=max(FLOOR_DBTP, 20 * math.log10(peak)) if peak > 0 else FLOOR_DBTP,
    )


def encode_aac(blocks: Iterator[np.ndarray], path: Path, bitrate: int) -> None:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=RATE)
        stream.layout, stream.bit_rate = "stereo", bitrate
        for frame in _frames(blocks):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _processed(samples: np.ndarray, gain_db: float, ceiling_db: float | None) -> Iterator[np.ndarray]:
    gain = np.float32(10 ** (gain_db / 20))
    louder = (block * gain for block in _blocks(samples))
    if ceiling_db is None:
        yield from louder
        return
    limit = 10 ** (ceiling_db / 20)
    steps = [
        ("aresample", "192000"),
        ("alimiter", f"limit={limit:.5f}:level=0:latency=1:attack=5:release=50"),
        ("aresample", str(RATE)),
        ("aformat", "sample_fmts=fltp"),
    ]
    left = len(samples)
    for frame in _filtered(louder, steps):
        block = frame.to_ndarray().T[:left]
        left -= len(block)
        yield block


def _blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    for at in range(0, len(samples), BLOCK):
        yield samples[at : at + BLOCK]


def _decoded(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            yield frame.to_ndarray().T


def _frames(blocks: Iterator[np.ndarray]) -> Iterator[av.AudioFrame]:
    at = 0
    for block in blocks:
        if not len(block):
            continue
        planes = np.ascontiguousarray(block.T, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), at
        at += planes.shape[1]
        yield frame


def _filtered(blocks: Iterator[np.ndarray], steps: list[tuple[str, str]]) -> Iterator[av.AudioFrame]:
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=RATE, format="fltp", layout="stereo", channels=CHANNELS, time_base=Fraction(1, RATE)
    )
    nodes = [graph.add(name, options) for name, options in steps]
    graph.link_nodes(source, *nodes, graph.add("abuffersink")).configure()
    for frame in chain(_frames(blocks), [None]):
        graph.push(frame)
        while True:
            try:
                yield graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break
