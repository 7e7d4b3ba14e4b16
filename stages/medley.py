"""One reel over many videos: spans of any size, rate, rotation and range, with or without sound, as one film.

in   takes, edits (each names its take by `video_id`), clips
out  edits, reel, files: as of stages/render.py

The reel has the shape and the rate that most of its seconds have, or the aspect that is asked for: then each
video is framed for it as it is for a reel of its own. What no crop is made of stands whole on a blurred copy
of itself. Whatever the colours of a video, those of the reel are BT.709. Each clip's sound is brought near
the level of the reel before the whole is mastered: a quiet recording beside a loud one is no effect.

Memory grows neither with the reel nor with the number of videos: at any time one span is open, two where
clips overlap.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np

from stages.audio import RATE, Piece, fill, mix, pieces, read_samples, sample_at
from stages.caption import FADE_S, SHOWN_S, Caption, captioned, draw_caption
from stages.container import LIBAV_ERRORS, open_source, plain
from stages.cube import write_cube
from stages.cutter import read_span
from stages.editorial import Media, media_of, timeline, write_timeline
from stages.encode import Chapter, Form, ReelWriter, choose_encoder, write_jpeg
from stages.failure import Failed
from stages.frames import Frames, on_frames
from stages.mastering import Level, MasterSettings, master, measure
from stages.picture import BT709, HDR, Look, colours_of
from stages.pulses import AccentSettings, accents, pulsed
from stages.reframe import Framing, View, parts_of, reel_size
from stages.render import Render, check, clock, dissolve, joined
from stages.survey import survey_slots
from stages.timeline import Slot, lay_out, output_rate
from stages.tonemap import write_tone_map
from stages.watchdog import unwatched

SAME_SHAPE = 0.02  # aspects that differ by less are one: nobody sees what is cut off, everybody a thin bar
# The reel is as large as so many of the seconds in its shape are, or larger.
DETAILED = 1 / 3
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
    duration_s: float | None = None
    shard_log: Sequence[dict[str, Any]] = ()
    cuts_s: Sequence[float] = ()

    @property
    def source_fps(self) -> Fraction:
        return Fraction(self.probe["fps_exact"])

    @property
    def aspect(self) -> float:
        return self.probe["width"] / self.probe["height"]

    @cached_property
    def media(self) -> Media:
        return media_of(vars(self))

    def frames(self, from_s: float, fps: Fraction) -> Frames:
        """Where its frames stand; without a grid of its own, that of a reel of `fps` from a time on."""
        return Frames(fps, from_s) if self.probe["variable_rate"] else self.media.frames


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
        self.size = reel_size(*size, self.settings.aspect, self.settings.max_height)
        takes = [self.takes[edit["video_id"]] for edit in row["edits"]]
        frames = [
            take.frames(edit["source_start_s"], self.fps)
            for take, edit in zip(takes, row["edits"], strict=True)
        ]
        self.edits = on_frames(row["edits"], frames, self.fps)
        self.slots = lay_out(self.edits, self.fps)
        self.framings = {
            take.video_id: Framing(take.probe, self.size, self.fps, render.attend) for take in takes
        }
        self.looks: dict[str, Look] = {}
        self.views: dict[int, list[View]] = {}
        self.cubes: dict[int, Path] = {}  # by shot
        self.after = [*(slot.overlap for slot in self.slots[1:]), 0]
        wanted = render.effects.accents if render.effects else AccentSettings()
        self.accents = accents(self.slots, self.clips, self.fps, wanted)
        self.best = max(self.slots, key=lambda slot: self.clips[slot.clip]["score"])
        self.captions: dict[int, Caption] = {}
        if medley.captions:
            for slot in self.slots:
                first, second = self.take(slot).name, clock(slot.start_s).removeprefix("0:")
                if caption := draw_caption(first, second, self.size, medley.font):
                    self.captions[slot.clip] = caption

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
        files = {"reel.mp4": reel, "poster.jpg": poster, "reel.otio": self._timeline()}
        files |= {cube.name: cube for cube in self.cubes.values()}
        return {"reel": facts, "files": files, "edits": self.edits}

    def _timeline(self) -> Path:
        path = self.folder / "reel.otio"
        media = [self.take(slot).media for slot in self.slots]
        cubes = {shot: cube.name for shot, cube in self.cubes.items()}
        write_timeline(timeline(media, self.slots, self.fps, self.size, self.clips, cubes), path)
        return path

    def _prepare(self) -> None:
        """How each video is to look; all of them are opened here, so that what cannot be read is known."""
        refused = {}
        for video_id, take in self.takes.items():
            slots = [slot for slot in self.slots if self.take(slot) is take]
            try:
                self._prepare_take(take, slots)
            except (Failed, *LIBAV_ERRORS) as error:
                refused[video_id] = reason_of(take, error)
        if refused:
            raise TakesFailed(refused)

    def _prepare_take(self, take: Take, slots: Sequence[Slot]) -> None:
        facts, framing = take.probe, self.framings[take.video_id]
        look = Look(*self.size, facts["rotation"] or 0, bool(facts["interlaced"]))
        with closing(self._span(slots[0])) as frames:
            colours = colours_of(next(frames)[0])
        hdr = colours.transfer in HDR
        if not colours.are_709:
            transfer = colours.transfer if hdr else BT709
            tone_map = self.folder / f"tonemap-{colours.primaries}-{transfer}.cube"
            if not tone_map.exists():
                write_tone_map(colours.primaries, transfer, tone_map)
            look = replace(look, tone_map=tone_map)
        graded = self.grade is not None and not hdr
        by_clip = parts_of(slots, self.clips, take.cuts_s if framing.looks else (), self.fps)
        parts = {slot: by_clip[slot.clip] for slot in slots}
        shots, views = survey_slots(parts, self.clips, self._span, look, framing, graded)
        self.looks[take.video_id] = look
        self.views |= views
        if graded:
            luts = self.grade.luts([np.concatenate(pictures) for pictures in shots.values()])
            for shot, lut in zip(shots, luts, strict=True):
                self.cubes[shot] = self.folder / f"grade-{shot}.cube"
                write_cube(lut, self.cubes[shot])

    def _span(self, slot: Slot) -> Iterator[tuple[av.VideoFrame, int]]:
        take = self.take(slot)
        span = (slot.start_s, slot.end_s)
        return read_span(take.uri, span, slot.count, self.fps, take.source_fps, self.limits, take.etag)

    def _finished(self, slot: Slot) -> Iterator[av.VideoFrame]:
        take = self.take(slot)
        look = replace(self.looks[take.video_id], cube=self.cubes.get(self.clips[slot.clip]["shot"]))
        framing = self.framings[take.video_id]
        frames = framing.finished(self._span(slot), look, self.views[slot.clip])
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
            raise TakesFailed({take.video_id: reason_of(take, error)}) from error

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
                samples = self._samples(take, piece)
                mix(reel, piece, samples * levelled(samples, settings.loudness_lufs))
            with unwatched():
                return path, master(reel, path, settings)
        finally:
            scratch.unlink(missing_ok=True)

    def _samples(self, take: Take, piece: Piece) -> np.ndarray:
        try:
            with open_source(take.uri, self.limits, take.etag) as source:
                if source.audio is None:
                    raise Failed("its sound cannot be decoded")
                source.only(source.audio)
                return read_samples(source, piece.start_s, piece.count)
        except (Failed, *LIBAV_ERRORS) as error:
            raise TakesFailed({take.video_id: reason_of(take, error)}) from error


def reason_of(take: Take, error: BaseException) -> str:
    """Why a video is not in the reel, with its name."""
    return f"{take.name}: {error if isinstance(error, Failed) else plain(error)}"


def form_of(edits: Sequence[dict[str, Any]], takes: dict[str, Take]) -> tuple[tuple[int, int], Fraction]:
    """Size (as displayed) and rate of the reel that these edits make."""
    seconds: Counter[str] = Counter()
    rates: Counter[Fraction] = Counter()
    for edit in edits:
        length_s = edit["source_end_s"] - edit["source_start_s"]
        seconds[edit["video_id"]] += length_s
        rates[output_rate(takes[edit["video_id"]].source_fps)] += length_s
    shown = [takes[video_id] for video_id in seconds]

    def like(take: Take) -> list[Take]:
        return [one for one in shown if abs(math.log(one.aspect / take.aspect)) < SAME_SHAPE]

    # Of two that are as common, the wider, and the faster.
    rate = max(rates, key=lambda one: (rates[one], one))
    most = max(shown, key=lambda take: (sum(seconds[one.video_id] for one in like(take)), take.aspect))
    shaped = sorted(like(most), key=lambda take: -take.probe["width"] * take.probe["height"])
    as_large_s = np.cumsum([seconds[take.video_id] for take in shaped])
    facts = shaped[int(np.argmax(as_large_s >= DETAILED * as_large_s[-1]))].probe
    return (facts["width"], facts["height"]), rate


def levelled(samples: np.ndarray, loudness_lufs: float) -> np.float32:
    """The gain that brings samples f32[n, 2] near a loudness; 1 for what is hardly heard."""
    blocks = (samples[at : at + RATE] for at in range(0, len(samples), RATE))
    found = measure(blocks).loudness_lufs
    if found < QUIETEST_LUFS:
        return np.float32(1)
    gain_db = float(np.clip(loudness_lufs - found, -MOST_GAIN_DB, MOST_GAIN_DB))
    return np.float32(10 ** (gain_db / 20))
