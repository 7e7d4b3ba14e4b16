"""Kinds of source that reels are made of, and how exactly a reel shows and sounds what it should.

Every frame of the sources carries its number, every second a flash and a beep, and noise lies under the
beeps: so each frame of a reel says where it comes from, and each piece of its sound does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from stages.audio import RATE, sample_at
from stages.container import open_source
from stages.probe import describe
from stages.render import Render, RenderSettings
from stages.timeline import Slot, lay_out
from tests.media import (
    MediaFacts,
    hear_beeps,
    make_begun_later,
    make_video,
    read_counter,
    read_flash,
    read_samples,
)

X265 = "log-level=none:repeat-headers=1"
PQ = X265 + ":colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited"
HLG = X265 + ":colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc:range=limited"
SEARCH = 480  # samples to either side in which a piece of sound is looked for
EVERY = 13  # frames from the start of one clip to that of the next
EDGE_S = 0.03  # of a clip's sound, under the crossfade


@dataclass(frozen=True)
class Kind:
    """A file name, which says the container, and what `make_video` is told."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    begun_later: int = 0  # frames that an edit list hides
    even: bool = True  # whether frames follow at a constant rate
    clock: int = 1  # samples by which the container's clock may be off

    @property
    def silent(self) -> bool:
        return "audio" in self.options

    def make(self, folder: Path, cuts: int) -> MediaFacts:
        """A source that is long enough for so many cuts."""
        frames = self.begun_later + EVERY * cuts + 40
        rate = self.options.get("fps", 25)
        options = {"audio": "hissing", "seconds": frames / float(rate)} | self.options
        facts = make_video(folder / self.name, **options)
        if not self.begun_later:
            return facts
        return make_begun_later(folder / f"later-{self.name}", facts, self.begun_later)


SILENT: dict[str, Any] = {"audio": None}
KINDS = {
    "H.264 29.97": Kind("ntsc.mp4", {"fps": 29.97}),
    "variable rate": Kind("screen.mkv", {"vfr": True}, even=False),
    "23.976": Kind("film.mp4", {"fps": 23.976, "shots": 3}),
    "59.94": Kind("sport.mp4", {"fps": 59.94, "gop": 250}),
    "29.97 in milliseconds": Kind("milliseconds.mkv", {"fps": 29.97}),
    "120 frames/s": Kind("slow.mp4", {"fps": 120, **SILENT}),
    "B-frames, long GOP": Kind("lean.mp4", {"gop": 250, "options": {"x264-params": "bframes=8:b-pyramid=2"}}),
    "open GOP": Kind("open.ts", {"gop": 12, "options": {"x264-params": "open-gop=1:bframes=3"}}),
    "begins at 100 s": Kind("late.ts", {"start_s": 100.0}),
    "edit list": Kind("trimmed.mp4", {"gop": 25}, begun_later=9),
    "sound late": Kind("waits.mp4", {"audio_rate": 44100, "audio_channels": 1, "audio_start_s": 0.3}),
    "sound early": Kind("early.mkv", {"start_s": 1.0, "audio_start_s": -0.3}),
    "44.1 kHz mono": Kind("phone.mov", {"audio_rate": 44100, "audio_channels": 1}),
    "5.1": Kind("surround.mkv", {"audio_channels": 6}),
    "turned by 90": Kind("turned.mp4", {"rotation": 90, **SILENT}),
    "turned by 180": Kind("upside.mp4", {"rotation": 180, **SILENT}),
    "turned by 270": Kind("back.mov", {"rotation": 270, **SILENT}),
    "pixels of 4:3": Kind("wide.mp4", {"sample_aspect_ratio": (4, 3), **SILENT}),
    "interlaced H.264": Kind("fields.mkv", {"size": (160, 96), "options": {"x264-params": "interlaced=1"}}),
    "MPEG-2 in TS": Kind("dvb.ts", {"codec": "mpeg2video"}),
    "MPEG-2 program stream": Kind("dvd.vob", {"size": (160, 96)}),
    "10 bit H.265": Kind("deep.mp4", {"codec": "libx265", "pixel_format": "yuv420p10le"}),
    "10 bit H.264": Kind("deep.mkv", {"pixel_format": "yuv420p10le", **SILENT}),
    "4:4:4, odd size": Kind("odd.mkv", {"size": (161, 91), "pixel_format": "yuv444p", **SILENT}),
    "4:2:2 10 bit ProRes": Kind("edit.mov", {"codec": "prores_ks", "pixel_format": "yuv422p10le"}),
    "Motion JPEG, full range": Kind("camera.mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    "full range H.264": Kind("full.mp4", {"pixel_format": "yuvj420p"}),
    "RGB": Kind("rgb.mkv", {"size": (161, 91), "pixel_format": "bgr0", "codec": "ffv1", **SILENT}),
    "HDR, PQ": Kind(
        "pq.mp4",
        {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": PQ}, **SILENT},
    ),
    "HDR, HLG": Kind(
        "hlg.mkv",
        {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": HLG}, **SILENT},
    ),
    "VP9 and Opus": Kind("web.webm", clock=24),
    "AV1": Kind("new.mp4", {"codec": "libsvtav1", "size": (192, 108), **SILENT}),
    "MPEG-4 and MP3 in AVI": Kind("old.avi", {"b_frames": 0}),
}


@dataclass(frozen=True)
class Exactness:
    """Of one reel; what was not there to measure is None."""

    frames: int
    cuts: int
    frame_error: int  # the most that a frame is away from the right one
    sync_s: float | None  # the most that a beep is off from its flash, beyond what it is in the source
    sound_samples: int | None  # the most that a clip's sound is off, at 48 kHz


def spans_of(facts: MediaFacts, cuts: int) -> list[tuple[int, int]]:
    """As many spans of frame numbers of 5 to 9 frames, which begin anywhere in a GOP."""
    lengths = np.random.default_rng(cuts).integers(5, 10, cuts)
    count = len(facts.times_s)
    firsts = 2 + EVERY * np.arange(cuts)
    return [
        (int(first), int(min(count, first + length))) for first, length in zip(firsts, lengths, strict=True)
    ]


def edits_of(facts: MediaFacts, spans: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """An edit list of hard cuts; spans count from the first frame on show."""
    edits, at_s = [], 0.0
    times = np.append(facts.times_s, facts.duration_s)
    for clip, (first, end) in enumerate(spans):
        start_s, end_s = float(times[first]), float(times[end])
        edits.append(
            {
                "clip": clip,
                "source_start_s": start_s,
                "source_end_s": end_s,
                "reel_start_s": at_s,
                "transition": "cut",
                "transition_s": 0.0,
            }
        )
        at_s += end_s - start_s
    return edits


def row_of(facts: MediaFacts, edits: list[dict[str, Any]]) -> dict[str, Any]:
    with open_source(facts.uri) as source:
        probe = describe(source)
    clips = [{"clip": edit["clip"], "shot": edit["clip"], "score": 1.0} for edit in edits]
    log = [{"start_s": float(facts.times_s[0])}]
    return {"uri": facts.uri, "probe": probe, "shard_log": log, "edits": edits, "clips": clips}


def examine(kind: Kind, folder: Path, cuts: int) -> Exactness:
    """Makes a source and a reel of it with so many cuts, and measures."""
    facts = kind.make(folder, cuts)
    edits = edits_of(facts, spans_of(facts, cuts))
    (folder / "out").mkdir(exist_ok=True)
    row = Render(RenderSettings(crf=14), None, None)(row_of(facts, edits), folder / "out")
    return measure(facts, row, row["files"]["reel.mp4"])


def measure(facts: MediaFacts, row: dict[str, Any], reel: Path) -> Exactness:
    with av.open(str(reel)) as file:
        fps = file.streams.video[0].average_rate
        shown, flashes = [], []
        for number, frame in enumerate(file.decode(video=0)):
            assert frame.pts * frame.time_base == number / fps, "a frame is not on the reel's grid"
            picture = frame.to_ndarray(format="rgb24")
            shown.append(read_counter(picture) - facts.first)
            flashes += [number] if read_flash(picture) else []
    slots = lay_out(row["edits"], fps)
    source_fps = Fraction(row["probe"]["fps_exact"])
    wanted = np.concatenate([expected(facts, slot, fps, source_fps) for slot in slots], axis=1)
    assert len(shown) == wanted.shape[1], f"{len(shown)} frames instead of {wanted.shape[1]}"
    sync_s = sound = None
    if facts.audio:
        heard, source = read_samples(reel), read_samples(facts.path)
        beeps, source_beeps = hear_beeps(heard, RATE), hear_beeps(source, RATE)
        # One beside a cut is heard in no part, or in too small a one; a frame that is held flashes on.
        edge = float(EDGE_S * fps)
        whole = [f for f in flashes if any(s.first + edge < f < s.end - 2 * edge for s in slots)]
        whole = [f for f in whole if shown[f - 1] != shown[f]]
        late = [
            nearest(beeps, float(f / fps)) - nearest(source_beeps, float(facts.times_s[shown[f]]))
            for f in whole
        ]
        sync_s = max(map(abs, late), default=None)
        sound = sound_error(heard, source, slots, fps)
    error = int(np.abs(np.array(shown) - wanted).min(axis=0).max())
    return Exactness(len(shown), len(slots), error, None if sync_s is None else float(sync_s), sound)


def nearest(times_s: np.ndarray, time_s: float) -> float:
    """How much later than `time_s` the nearest of the times is."""
    return float(times_s[np.abs(times_s - time_s).argmin()] - time_s)


def expected(facts: MediaFacts, slot: Slot, fps: Fraction, source_fps: Fraction) -> np.ndarray:
    """Numbers [2, count] of the frames that a clip may show: the last that has come, to the nearest half.

    The two differ where a frame comes exactly in the middle between two of the reel's.
    """
    times = facts.times_s
    first = int(np.searchsorted(times, slot.start_s - 1e-3))
    end = int(np.searchsorted(times, slot.end_s - 1e-3))
    at_s = times[first] + np.arange(slot.count) / float(fps) + 0.5 / float(source_fps)
    last = [np.searchsorted(times, at_s + close) - 1 for close in (-1e-6, 1e-6)]
    return np.clip(last, first, max(first, end - 1))


def sound_error(reel: np.ndarray, source: np.ndarray, slots: Sequence[Slot], fps: Fraction) -> int | None:
    """The most samples that a clip's sound f32[n, 2] stands off from that of the source."""
    worst = None
    edge = round(EDGE_S * RATE)
    for slot in slots:
        first, end = sample_at(slot.first, fps) + edge, sample_at(slot.end, fps) - edge
        piece = reel[first:end].mean(axis=1)
        at = round(slot.start_s * RATE) + edge - SEARCH
        around = source[max(0, at) : at + len(piece) + 2 * SEARCH].mean(axis=1)
        if at < 0 or len(piece) < 4 * SEARCH or len(around) < len(piece) + 2 * SEARCH:
            continue
        if np.sqrt(np.mean(around**2)) < 1e-3:
            continue  # before the sound begins
        match = np.correlate(around, piece, "valid")
        power = np.cumsum(np.append(0.0, around.astype(np.float64) ** 2))
        match /= np.sqrt(power[len(piece) :] - power[: -len(piece)])
        worst = max(worst or 0, abs(int(np.argmax(match)) - SEARCH))
    return worst


HEADER = (
    "| kind | cuts | frames | frame error | flash to beep, ms | sound off, samples |\n" + "|---" * 6 + "|"
)


def line(name: str, found: Exactness) -> str:
    """A result as a row of Markdown under HEADER."""
    sync = "" if found.sync_s is None else f"{1000 * found.sync_s:.2f}"
    sound = "" if found.sound_samples is None else str(found.sound_samples)
    return f"| {name} | {found.cuts} | {found.frames} | {found.frame_error} | {sync} | {sound} |"
