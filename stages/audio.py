"""The reel's sound: the clips' spans cut to the sample, laid on the reel's clock, crossfaded.

samples   float32 [n, 2] at 48 kHz; what the source does not have is silence

At a hard cut the clips overlap by a short equal-power crossfade, centred on the cut and made of source
from beyond it; over a transition the crossfade is as long as the picture's. Where a clip goes on with
what the one before ended with, the fade is linear: equal power would swell by 3 dB. In a J or L cut the
sound is cut before or after the picture, each clip's in step with its own picture all the while.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stages.container import LIBAV_ERRORS, LimitSettings, Source, open_source
from stages.timeline import Slot

RATE = 48000
CHANNELS = 2
# Decoders need some packets before the first good sample (AAC 1024 samples, Opus 80 ms, MP3 more).
PREROLL_S = 0.25
# A packet clock that strays by less is a rounded one, right on the average; more is a gap or an overlap.
MAX_STRAY_S = 0.02
SAME_PLACE_S = 0.05


@dataclass(frozen=True)
class Fade:
    samples: int
    linear: bool = False

    def rise(self) -> np.ndarray:
        """Gains f32[samples] from 0 to 1; reversed, those of the clip that leaves."""
        ramp = (np.arange(self.samples) + 0.5) / max(self.samples, 1)
        return (ramp if self.linear else np.sin(np.pi / 2 * ramp)).astype(np.float32)


@dataclass(frozen=True)
class Piece:
    """What one slot contributes: `count` samples from start_s of the source, at sample `at` of the reel."""

    at: int
    count: int
    start_s: float
    fade_in: Fade
    fade_out: Fade


def pieces(slots: Sequence[Slot], fps: Fraction, crossfade_s: float) -> list[Piece]:
    """Where the sound of each slot goes, handles for the crossfades included."""
    joins = [_join(a, b, fps, crossfade_s) for a, b in itertools.pairwise(slots)]
    edge = (0, Fade(round(crossfade_s / 2 * RATE)))
    leads = leads_of(slots)
    found = []
    for number, (slot, (before, fade_in), (after, fade_out)) in enumerate(
        zip(slots, [edge, *joins], [*joins, edge], strict=True)
    ):
        before, after = before + leads[number], after - leads[number + 1]
        first, end = sample_at(slot.first, fps), sample_at(slot.end, fps)
        found.append(
            Piece(
                at=first - before,
                count=before + end - first + after,
                start_s=slot.start_s - before / RATE,
                fade_in=fade_in,
                fade_out=fade_out,
            )
        )
    return found


def leads_of(slots: Sequence[Slot]) -> list[int]:
    """Samples by which the sound of each slot, and last of what comes after them, leads its picture."""
    # What comes first has nothing to lead into, and nothing leads into what comes after the last.
    return [0, *(round(slot.sound_lead_s * RATE) for slot in slots[1:]), 0]


def sample_at(frame: int, fps: Fraction) -> int:
    """The sample that sounds when frame `frame` of the reel comes on show."""
    return round(frame / fps * RATE)


def _join(a: Slot, b: Slot, fps: Fraction, crossfade_s: float) -> tuple[int, Fade]:
    """Handle (samples that both clips reach over the cut) and fade between two slots."""
    if b.overlap:
        return 0, Fade(sample_at(b.first + b.overlap, fps) - sample_at(b.first, fps))
    shorter = sample_at(min(a.count, b.count), fps)
    handle = min(round(crossfade_s / 2 * RATE), shorter // 4)
    goes_on = abs(a.start_s + float(a.count / fps) - b.start_s) < SAME_PLACE_S
    return handle, Fade(2 * handle, linear=goes_on and a.video_id == b.video_id)


def assemble(
    uri: str,
    slots: Sequence[Slot],
    fps: Fraction,
    crossfade_s: float,
    scratch: Path,
    limits: LimitSettings = LimitSettings(),
    etag: str = "",
) -> np.ndarray:
    """The whole reel's sound as a memory map f32[n, 2] over `scratch`; never more than a clip in memory."""
    reel = fill(scratch, sample_at(slots[-1].end, fps))
    with open_source(uri, limits, etag) as source:
        source.only(source.audio)
        for piece in pieces(slots, fps, crossfade_s):
            mix(reel, piece, read_samples(source, piece.start_s, piece.count))
    return reel


def mix(reel: np.ndarray, piece: Piece, samples: np.ndarray) -> None:
    """Lays a piece's samples f32[count, 2], faded in place, on the reel f32[n, 2]."""
    rise, fall = piece.fade_in.rise(), piece.fade_out.rise()[::-1]
    samples[: len(rise)] *= rise[:, None]
    samples[len(samples) - len(fall) :] *= fall[:, None]
    reel[piece.at : piece.at + piece.count] += samples


def fill(path: Path, total: int) -> np.ndarray:
    """Silence, as a memory map f32[total, 2] over a file.

    Written, not left as a hole: on a full disk that is an OSError, where touching a hole of a map kills.
    """
    size = total * CHANNELS * np.dtype(np.float32).itemsize
    zeros = bytes(min(size, 1 << 20))
    with path.open("wb") as file:
        for at in range(0, size, len(zeros)):
            file.write(zeros[: size - at])
    return np.memmap(path, np.float32, "r+", shape=(total, CHANNELS))


def read_samples(source: Source, start_s: float, count: int) -> np.ndarray:
    """f32[count, 2] at 48 kHz from start_s of the source's audio stream."""
    samples = np.zeros((count, CHANNELS), np.float32)
    for time_s, run in _runs(source, start_s, start_s + count / RATE):
        first = round((time_s - start_s) * RATE)
        run = run[max(0, -first) : max(0, count - first)]
        at = max(0, first)
        samples[at : at + len(run)] = run
    return samples


def _runs(source: Source, start_s: float, end_s: float) -> Iterator[tuple[float, np.ndarray]]:
    """Unbroken stretches of sound as (time of the first sample, f32[n, 2])."""
    resampler, form, parts, strays = None, None, [], []
    begin_s = next_s = 0.0

    def finish() -> tuple[float, np.ndarray]:
        parts.extend(out.to_ndarray() for out in resampler.resample(None))
        run = np.concatenate(parts, axis=1).T if parts else np.zeros((0, CHANNELS), np.float32)
        return begin_s + float(np.mean(strays)), run

    for frame in _audio_frames(source, start_s - PREROLL_S):
        time_s = source.seconds(frame)
        length_s = frame.samples / frame.sample_rate
        if time_s >= end_s:
            break
        if time_s + length_s <= start_s - PREROLL_S:
            continue
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is not None and (shape != form or abs(time_s - next_s) > MAX_STRAY_S):
            yield finish()
            resampler = None
        if resampler is None:
            resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE)
            form, parts, strays, begin_s, next_s = shape, [], [], time_s, time_s
        strays.append(time_s - next_s)
        frame.pts = None  # the run counts its own samples: packet times are rounded
        parts.extend(out.to_ndarray() for out in resampler.resample(frame))
        next_s += length_s
    if resampler is not None:
        yield finish()


def _audio_frames(source: Source, from_s: float) -> Iterator[av.AudioFrame]:
    stream = source.audio
    try:
        source.container.seek(source.ticks(from_s, stream), stream=stream, backward=True)
    except LIBAV_ERRORS:
        source.container.seek(0)
    packets = source.packets(stream)
    while True:
        try:
            packet = next(packets, None)
        except LIBAV_ERRORS:
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except LIBAV_ERRORS:
            continue
        yield from (frame for frame in frames if frame.pts is not None)
