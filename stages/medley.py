"""One reel over many videos: spans of any size, rate, rotation and range, with or without sound, as one film.

in   takes, edits (each names its take by `video_id`), clips
out  reel, files: as of stages/render.py

The reel has the shape and the rate that most of its seconds have, and of that shape the largest size: what is
of another shape stands on a blurred copy of itself. Each clip's sound is brought near the level of the reel
before the whole is mastered: a quiet recording beside a loud one is no effect.

Memory grows neither with the reel nor with the number of videos: at any time one span is open, two where
clips overlap.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from stages.audio import RATE, fill, mix, pieces, read_samples, sample_at
from stages.canvas import fitted_size, on_canvas
from stages.caption import FADE_S, SHOWN_S, Caption, captioned, draw_caption
from stages.colour import write_cube
from stages.container import LIBAV_ERRORS, open_source, plain
from stages.cutter import read_span
from stages.encode import Chapter, Form, ReelWriter, choose_encoder, write_jpeg
from stages.failure import Failed
from stages.mastering import Level, MasterSettings, master, measure
from stages.picture import HDR, Look, colours_of, finish, shown_size
from stages.pulses import AccentSettings, accents, pulsed
from stages.render import Render, check, clock, dissolve, joined
from stages.timeline import Slot, lay_out, output_rate
from stages.tonemap import write_tone_map
from stages.watchdog import unwatched

GRADE_PX, GRADED = 256, 3  # pictures of a clip that the colour model looks at
MOST_GAIN_DB = 12.0  # to either side: what is quieter still is meant to be, or noise
QUIETEST_LUFS = -50.0


class TakesFailed(Failed):
    """Videos of the reel that cannot be read, and why; without them there may be a reel."""

    def __init__(self, reasons: dict[str, str]):
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


@dataclass
class Take:
    """A video of the reel."""

    video_id: str
    uri: str
    etag: str
    name: str  # for people
    probe: dict[str, Any]
    look: Look | None = None  # of its frames, before they are laid on the canvas
    cubes: dict[int, Path] = field(default_factory=dict)  # shot -> grade

    @property
    def source_fps(self) -> Fraction:
        return Fraction(self.probe["fps_exact"])


class Medley:
    """Renders a reel over many videos with what a Render holds; captions, if any, in `font`."""

    def __init__(self, render: Render, captions: bool = False, font: str | None = None):
        self.render, self.captions, self.font = render, captions, font

    def __call__(self, row: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Renders into `folder`, which must exist. Raises TakesFailed for videos, Failed for the reel."""
        try:
            return row | _Medley(self, row, folder).rendered()
        except LIBAV_ERRORS as error:
            raise Failed(f"cannot be rendered: {plain(error)}") from error


class _Medley:
    def __init__(self, medley: Medley, row: dict[str, Any], folder: Path):
        render = medley.render
        self.settings, self.limits, self.grade = render.settings, render.limits, render.grade
        self.effects, self.folder = render.effects, folder
        self.blend = render.effects.transition if render.effects else dissolve
        self.takes: dict[str, Take] = {take.video_id: take for take in row["takes"]}
        self.clips = {clip["clip"]: clip for clip in row["clips"]}
        size, self.fps = form_of(row["edits"], self.takes)
        self.size = shown_size(*size, self.settings.max_height)
        self.slots = lay_out(row["edits"], self.fps)
        self.after = [*(slot.overlap for slot in self.slots[1:]), 0]
        wanted = render.effects.accents if render.effects else AccentSettings()
        self.accents = accents(self.slots, self.clips, self.fps, wanted)
        self.best = max(self.slots, key=lambda slot: self.clips[slot.clip]["score"])
        self.captions: dict[int, Caption] = {}
        if medley.captions:
            for slot in self.slots:
                first, second = self.take(slot).name, clock(slot.start_s).removeprefix("0:")
                self.captions[slot.clip] = draw_caption(first, second, self.size, medley.font)

    def take(self, slot: Slot) -> Take:
        return self.takes[self.clips[slot.clip]["video_id"]]

    def rendered(self) -> dict[str, Any]:
        self._prepare()
        reel, poster = self.folder / "reel.mp4", self.folder / "poster.jpg"
        sound, level = self._sound()
        form = Form(
            *self.size,
            fps=self.fps,
            encoder=choose_encoder(self.settings.encoder, *self.size, self.fps),
            crf=self.settings.crf,
            preset=self.settings.preset,
        )
        writer = ReelWriter(reel, form, self._chapters(), sound)
        firsts, still = {slot.first for slot in self.slots}, self.best.first + self.best.count // 2
        try:
            for number, frame in enumerate(joined(self.slots, self._finished, self.blend)):
                if number == still:
                    write_jpeg(frame, poster)
                writer.add(frame, key=number in firsts)
            writer.close()
        finally:
            writer.abandon()
        check(reel, self.slots[-1].end, self.fps, sound is not None)
        if sound:
            sound.unlink()
        facts = {
            "duration_s": float(self.slots[-1].end / self.fps),
            "width": self.size[0],
            "height": self.size[1],
            "fps": float(self.fps),
            "encoder": form.encoder,
            "loudness_lufs": level.loudness_lufs if level else None,
            "true_peak_dbtp": level.true_peak_dbtp if level else None,
        }
        return {"reel": facts, "files": {"reel.mp4": reel, "poster.jpg": poster}}

    def _prepare(self) -> None:
        """How each video is to look; all of them are opened here, so that what cannot be read is known."""
        refused = {}
        for video_id, take in self.takes.items():
            slots = [slot for slot in self.slots if self.take(slot) is take]
            try:
                self._prepare_take(take, slots)
            except (Failed, *LIBAV_ERRORS) as error:
                reason = str(error) if isinstance(error, Failed) else plain(error)
                refused[video_id] = f"{take.name}: {reason}"
        if refused:
            raise TakesFailed(refused)

    def _prepare_take(self, take: Take, slots: Sequence[Slot]) -> None:
        facts = take.probe
        width, height = fitted_size(facts["width"], facts["height"], self.size)
        take.look = Look(width, height, facts["rotation"] or 0, bool(facts["interlaced"]))
        with closing(self._span(slots[0])) as frames:
            colours = colours_of(next(frames)[0])
        if colours.transfer in HDR:
            tone_map = self.folder / f"tonemap-{take.video_id}.cube"
            write_tone_map(colours.primaries, colours.transfer, tone_map)
            take.look = replace(take.look, tone_map=tone_map)
        elif self.grade is not None:
            shots: dict[int, list[np.ndarray]] = {}
            for slot in slots:
                shots.setdefault(self.clips[slot.clip]["shot"], []).append(self._pictures(take, slot))
            luts = self.grade.luts([np.concatenate(pictures) for pictures in shots.values()])
            for shot, lut in zip(shots, luts, strict=True):
                take.cubes[shot] = self.folder / f"grade-{take.video_id}-{shot}.cube"
                write_cube(lut, take.cubes[shot])

    def _pictures(self, take: Take, slot: Slot) -> np.ndarray:
        """A few frames of a clip u8[n, S, S, 3], ungraded."""
        look = replace(take.look, width=GRADE_PX, height=GRADE_PX, squash=True)
        length_s = slot.end_s - slot.start_s
        # At 1/6, 1/2 and 5/6 of it: three frames over as many thirds, from the middle of the first on.
        span = slot.start_s + length_s / (2 * GRADED), slot.end_s
        rate = GRADED / Fraction(length_s)
        frames = read_span(take.uri, span, GRADED, rate, take.source_fps, self.limits, take.etag)
        with closing(frames):
            return np.stack([frame.to_ndarray() for frame in finish(frames, look)])

    def _span(self, slot: Slot) -> Iterator[tuple[av.VideoFrame, int]]:
        take = self.take(slot)
        span = (slot.start_s, slot.end_s)
        return read_span(take.uri, span, slot.count, self.fps, take.source_fps, self.limits, take.etag)

    def _finished(self, slot: Slot) -> Iterator[av.VideoFrame]:
        take = self.take(slot)
        cube = take.cubes.get(self.clips[slot.clip]["shot"])
        frames = on_canvas(finish(self._span(slot), replace(take.look, cube=cube)), self.size)
        if accent := self.accents.get(slot.clip):
            frames = pulsed(frames, [accent], self.effects)
        if caption := self.captions.get(slot.clip):
            # Clear of the transitions, in which it would be torn about.
            last = slot.count - self.after[self.slots.index(slot)]
            end = min(last, slot.overlap + round(SHOWN_S * self.fps))
            frames = captioned(frames, caption, slot.overlap, end, round(FADE_S * self.fps))
        try:
            yield from frames
        except Failed as error:
            raise TakesFailed({take.video_id: f"{take.name}: {error}"}) from error

    def _chapters(self) -> list[Chapter]:
        ends = [slot.first for slot in self.slots[1:]] + [self.slots[-1].end]
        return [
            Chapter(
                float(slot.first / self.fps),
                float(end / self.fps),
                f"{self.take(slot).name} from {clock(slot.start_s)}",
            )
            for slot, end in zip(self.slots, ends, strict=True)
        ]

    def _sound(self) -> tuple[Path | None, Level | None]:
        if not any(self.take(slot).probe["audio_codec"] for slot in self.slots):
            return None, None
        scratch, path = self.folder / "sound.f32", self.folder / "sound.m4a"
        settings = MasterSettings(
            loudness_lufs=self.settings.loudness_lufs,
            true_peak_dbtp=self.settings.true_peak_dbtp,
            bitrate=self.settings.audio_bitrate,
        )
        try:
            reel = fill(scratch, sample_at(self.slots[-1].end, self.fps))
            for slot, piece in zip(
                self.slots, pieces(self.slots, self.fps, self.settings.crossfade_s), strict=True
            ):
                take = self.take(slot)
                if not take.probe["audio_codec"]:
                    continue
                with open_source(take.uri, self.limits, take.etag) as source:
                    samples = read_samples(source, piece.start_s, piece.count)
                mix(reel, piece, samples * levelled(samples, settings.loudness_lufs))
            with unwatched():
                return path, master(reel, path, settings)
        finally:
            scratch.unlink(missing_ok=True)


def form_of(edits: Sequence[dict[str, Any]], takes: dict[str, Take]) -> tuple[tuple[int, int], Fraction]:
    """Size (as displayed) and rate of the reel that these edits make."""
    shapes: Counter[float] = Counter()
    rates: Counter[Fraction] = Counter()
    for edit in edits:
        take, seconds = takes[edit["video_id"]], edit["source_end_s"] - edit["source_start_s"]
        shapes[shape(take)] += seconds
        rates[output_rate(take.source_fps)] += seconds
    # Of two that are as common, the wider, and the faster.
    common = max(shapes, key=lambda one: (shapes[one], one))
    rate = max(rates, key=lambda one: (rates[one], one))
    sizes = [(t.probe["width"], t.probe["height"]) for t in takes.values() if shape(t) == common]
    return max(sizes, key=lambda size: size[0] * size[1]), rate


def shape(take: Take) -> float:
    """Width by height, so that sizes of one shape that differ by a pixel are of one."""
    return round(take.probe["width"] / take.probe["height"], 1)


def levelled(samples: np.ndarray, loudness_lufs: float) -> np.float32:
    """The gain that brings samples f32[n, 2] near a loudness; 1 for what is hardly heard."""
    blocks = (samples[at : at + RATE] for at in range(0, len(samples), RATE))
    found = measure(blocks).loudness_lufs
    if found < QUIETEST_LUFS:
        return np.float32(1)
    gain_db = float(np.clip(loudness_lufs - found, -MOST_GAIN_DB, MOST_GAIN_DB))
    return np.float32(10 ** (gain_db / 20))
