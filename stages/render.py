"""The edit list as a film: exact spans at full size, graded, joined, with sound, as H.264 and AAC.

in   uri, probe, clips, edits
out  edits   as they were rendered: on the frames of the source
     reel    {duration_s, width, height, fps, encoder, copied_s, not_copied|None, loudness_lufs|None,
             true_peak_dbtp|None}
     files   name -> path in the scratch folder: reel.mp4, reel.otio, poster.jpg, storyboard.jpg,
             thumbnails.vtt, thumbnails.jpg, grade.cube, clip-NNN.mp4

Memory does not grow with the reel: frames go from decoder to encoder one at a time, two where clips
overlap, and the sound lies in a scratch file.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import av
import numpy as np
from pydantic import Field

from stages.attention import Attend
from stages.audio import assemble
from stages.container import LIBAV_ERRORS, LimitSettings, plain
from stages.cube import write_cube
from stages.cutter import read_span
from stages.editorial import media_of, timeline, write_timeline
from stages.encode import SOFTWARE, Chapter, Form, ReelWriter, choose_encoder, write_jpeg
from stages.failure import Failed
from stages.frames import frames_of, on_frames
from stages.mastering import Level, MasterSettings, master
from stages.nn.detectors import Faces, Text
from stages.picture import BT709, HDR, Look, colours_of, from_rgb, to_rgb
from stages.pulses import AccentSettings, ShowsEffects, accents, pulsed
from stages.reframe import Framing, parts_of, reel_size
from stages.settings import Settings
from stages.splice import NO_RUN, Copied, Copier, SpliceWriter, segments, unlike
from stages.stills import Stills
from stages.survey import survey_slots
from stages.timeline import Slot, lay_out, output_rate
from stages.tonemap import write_tone_map
from stages.watchdog import unwatched

MAX_ENDS_APART_S = 0.05


class RenderSettings(Settings):
    encoder: str = Field("auto", description="auto, or an FFmpeg H.264 encoder by name")
    crf: int = Field(20, ge=0, le=51, description="lower is better and larger")
    preset: str = Field("veryfast", description="of libx264")
    max_height: int | None = Field(None, ge=16, description="of the reel: scale down to this many pixels")
    aspect: Literal["source", "16:9", "9:16", "1:1", "4:5"] = Field("source", description="width : height")
    fit: Literal["crop", "blur"] = Field(
        "crop", description="to another aspect: follow the subject, or show all of it over a blurred copy"
    )
    audio_bitrate: int = Field(192_000, ge=32_000, le=512_000)
    loudness_lufs: float = Field(-16.0, ge=-40, le=-5)
    true_peak_dbtp: float = Field(-1.0, ge=-20, le=0)
    crossfade_s: float = Field(0.02, ge=0, le=1, description="of the sound at a hard cut")
    clips: bool = Field(False, description="also write every chosen clip as a file of its own")
    copy_video: bool = Field(
        False, description="copy what is shown as it is in the source, and encode the rest: H.264, ungraded"
    )


class GradesShots(Protocol):
    def luts(self, shots: list[np.ndarray]) -> list[np.ndarray]:
        """u8[n, S, S, 3] per shot -> f32[L, L, L, 3] per shot."""


class MakesEffects(ShowsEffects, Protocol):
    accents: AccentSettings

    def transition(
        self,
        a: np.ndarray,
        b: np.ndarray,
        effect: str,
        phase: float,
        strength: float | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """What is between frames a and b u8[H, W, 3] at phase 0 (a) to 1 (b); one seed per transition."""


class Render:
    """Adds `reel` and `files` to a row with an edit list. Without grade or effects: plain, dissolves."""

    def __init__(
        self,
        settings: RenderSettings,
        grade: GradesShots | None,
        effects: MakesEffects | None,
        limits: LimitSettings = LimitSettings(),
    ):
        self.settings, self.grade, self.effects, self.limits = settings, grade, effects, limits
        follows = settings.aspect != "source" and settings.fit == "crop"
        self.attend = Attend(Faces(), Text()) if follows else None

    def __call__(self, row: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Renders into `folder`, which must exist. Raises Failed."""
        try:
            return row | _Reel(self, row, folder).render()
        except LIBAV_ERRORS as error:
            raise Failed(f"cannot be rendered: {plain(error)}") from error


@dataclass(frozen=True)
class _Poster:
    clip: int
    path: Path


class _Watched:
    """The frames of a file as they go by, of which some are kept as pictures."""

    def __init__(self, slots: Sequence[Slot], poster: _Poster | None, stills: Stills | None):
        self.poster, self.stills = poster, stills
        self.still = next((s.first + s.count // 2 for s in slots if poster and s.clip == poster.clip), None)

    def wants(self, first: int, end: int) -> bool:
        """Whether one of these frames is kept."""
        wanted = {self.still} | (self.stills.wanted if self.stills else set())
        return not wanted.isdisjoint(range(first, end))

    def see(self, number: int, frame: av.VideoFrame) -> None:
        if self.poster and number == self.still:
            write_jpeg(frame, self.poster.path)
        if self.stills:
            self.stills.see(number, frame)


class _Reel:
    """One video's rendering: what is fixed for all of its clips."""

    def __init__(self, render: Render, row: dict[str, Any], folder: Path):
        self.settings, self.limits, self.row, self.folder = render.settings, render.limits, row, folder
        self.grade, self.effects = render.grade, render.effects
        self.blend = render.effects.transition if render.effects else dissolve
        probe = row["probe"]
        self.source_fps = Fraction(probe["fps_exact"])
        self.fps = output_rate(self.source_fps)
        self.edits, self.slots = row["edits"], lay_out(row["edits"], self.fps)
        if not probe["variable_rate"]:  # else there is no grid, and the cutter goes by the frames' own times
            self.edits = on_frames(row["edits"], [frames_of(row)] * len(row["edits"]), self.fps)
            self.slots = lay_out(self.edits, self.fps)
        self.clips = {clip["clip"]: clip for clip in row["clips"]}
        wanted = render.effects.accents if render.effects else AccentSettings()
        self.accents = accents(self.slots, self.clips, self.fps, wanted)
        self.best = max(self.slots, key=lambda slot: self.clips[slot.clip]["score"])
        width, height = reel_size(
            probe["width"], probe["height"], self.settings.aspect, self.settings.max_height
        )
        self.framing = Framing(probe, (width, height), self.fps, render.attend)
        cuts_s = row.get("cuts_s", ()) if self.framing.looks else ()
        self.parts = parts_of(self.slots, self.clips, cuts_s, self.fps)
        self.look = Look(width, height, probe["rotation"] or 0, bool(probe["interlaced"]))
        wanted = self.settings.encoder
        if self.settings.copy_video and wanted == "auto":
            wanted = SOFTWARE  # the one whose pictures can stand beside copied ones
        self.encoder = choose_encoder(wanted, width, height, self.fps)
        self.primaries = self.transfer = BT709
        self.copied, self.not_copied = 0, None

    def render(self) -> dict[str, Any]:
        files = self._prepare()
        self.form = Form(
            width=self.look.width,
            height=self.look.height,
            fps=self.fps,
            encoder=self.encoder,
            crf=self.settings.crf,
            preset=self.settings.preset,
            primaries=self.primaries,
            transfer=self.transfer,
        )
        self.copier = self._copier()
        reel, poster = self.folder / "reel.mp4", self.folder / "poster.jpg"
        stills = Stills(self.slots, self.fps)
        level = self._write(reel, self.slots, _Poster(self.best.clip, poster), stills)
        files |= {"reel.mp4": reel, "poster.jpg": poster, "reel.otio": self._timeline()}
        files |= stills.write(self.folder)
        if self.settings.clips:
            for slot in self.slots:
                name = f"clip-{slot.clip:03d}.mp4"
                self._write(self.folder / name, [replace(slot, first=0, overlap=0, effect="cut")], None)
                files[name] = self.folder / name
        facts = {
            "duration_s": float(self.slots[-1].end / self.fps),
            "width": self.look.width,
            "height": self.look.height,
            "fps": float(self.fps),
            "encoder": self.encoder,
            "copied_s": float(self.copied / self.fps),
            "not_copied": self.not_copied,
            "loudness_lufs": level.loudness_lufs if level else None,
            "true_peak_dbtp": level.true_peak_dbtp if level else None,
        }
        return {"reel": facts, "files": files, "edits": self.edits}

    def _timeline(self) -> Path:
        path = self.folder / "reel.otio"
        cubes = {shot: cube.name for shot, cube in self.cubes.items()}
        media = [media_of(self.row)] * len(self.slots)
        size = self.look.width, self.look.height
        write_timeline(timeline(media, self.slots, self.fps, size, self.clips, cubes), path)
        return path

    def _span(self, slot: Slot) -> Iterator[tuple[av.VideoFrame, int]]:
        span = (slot.start_s, slot.end_s)
        etag = self.row.get("etag") or ""
        return read_span(self.row["uri"], span, slot.count, self.fps, self.source_fps, self.limits, etag)

    def _prepare(self) -> dict[str, Path]:
        """The reel's colour tags and framing; the tone map if the source is HDR, else a cube per shot."""
        with closing(self._span(self.slots[0])) as frames:
            self.colours = colours = colours_of(next(frames)[0])
        self.cubes: dict[int, Path] = {}
        if colours.transfer in HDR:
            tone_map = self.folder / "tonemap.cube"
            write_tone_map(colours.primaries, colours.transfer, tone_map)
            self.look = replace(self.look, tone_map=tone_map)
        else:
            self.primaries, self.transfer = colours.primaries, colours.transfer
        graded = self.grade is not None and colours.transfer not in HDR
        parts = {slot: self.parts[slot.clip] for slot in self.slots}
        shots, self.views = survey_slots(parts, self.clips, self._span, self.look, self.framing, graded)
        return self._grade(shots) if graded else {}

    def _grade(self, shots: dict[int, list[np.ndarray]]) -> dict[str, Path]:
        luts = self.grade.luts([np.concatenate(pictures) for pictures in shots.values()])
        best = self.clips[self.best.clip]["shot"]
        files = {}
        for shot, lut in zip(shots, luts, strict=True):
            name = f"grade-{shot}.cube" if len(shots) > 1 else "grade.cube"
            self.cubes[shot] = files[name] = self.folder / name
            write_cube(lut, files[name])
        if len(shots) > 1:
            files["grade.cube"] = self.folder / "grade.cube"
            files["grade.cube"].write_bytes(self.cubes[best].read_bytes())
        return files

    def _finished(self, slot: Slot) -> Iterator[av.VideoFrame]:
        look = replace(self.look, cube=self.cubes.get(self.clips[slot.clip]["shot"]))
        frames = self.framing.finished(self._span(slot), look, self.views[slot.clip])
        accent = self.accents.get(slot.clip)
        return pulsed(frames, [accent], self.effects) if accent else frames

    def _write(
        self, path: Path, slots: Sequence[Slot], poster: _Poster | None, stills: Stills | None = None
    ) -> Level | None:
        """One file from slots that begin at 0; the level of its sound."""
        sound, level = self._sound(slots)
        marks, copier = chapters(slots, self.fps), self.copier
        writer = (
            SpliceWriter(path, self.form, marks, sound, copier)
            if copier
            else ReelWriter(path, self.form, marks, sound)
        )
        firsts = {slot.first for slot in slots}
        watched = _Watched(slots, poster, stills)
        try:
            for piece in segments(slots, copier, self.accents) if copier else [slots]:
                if isinstance(piece, Copied):
                    writer.copy(piece)
                    if watched.wants(writer.frames - len(piece.pictures), writer.frames):
                        for number, frame in writer.decode(piece):
                            watched.see(number, frame)
                    continue
                for frame in joined(piece, self._finished, self.blend):
                    watched.see(writer.frames, frame)
                    writer.add(frame, key=writer.frames in firsts)
            writer.close()
        finally:
            writer.abandon()
        if stills:
            self.copied = writer.copied
            if copier and not self.copied:
                self.not_copied = NO_RUN
        check(path, slots[-1].end, self.fps, sound is not None)
        if sound:
            sound.unlink()
        return level

    def _copier(self) -> Copier | None:
        """Of what may be copied; None, and `not_copied` says why, where nothing may."""
        if not self.settings.copy_video:
            return None
        facts, graded = self.row["probe"], bool(self.cubes)
        self.not_copied = unlike(facts, self.colours, self.look, self.form, graded) or None
        if self.not_copied:
            return None
        copier = Copier(self.row["uri"], self.fps, self.limits, self.row.get("etag") or "")
        self.not_copied = copier.refused or None
        return None if self.not_copied else copier

    def _sound(self, slots: Sequence[Slot]) -> tuple[Path | None, Level | None]:
        if not self.row["probe"]["audio_codec"]:
            return None, None
        scratch, path = self.folder / "sound.f32", self.folder / "sound.m4a"
        settings = MasterSettings(
            loudness_lufs=self.settings.loudness_lufs,
            true_peak_dbtp=self.settings.true_peak_dbtp,
            bitrate=self.settings.audio_bitrate,
        )
        try:
            samples = assemble(
                self.row["uri"],
                slots,
                self.fps,
                self.settings.crossfade_s,
                scratch,
                self.limits,
                self.row.get("etag") or "",
            )
            with unwatched():
                return path, master(samples, path, settings)
        finally:
            scratch.unlink(missing_ok=True)


def joined(
    slots: Sequence[Slot],
    open_slot: Callable[[Slot], Iterator[av.VideoFrame]],
    blend: Callable[..., np.ndarray],
) -> Iterator[av.VideoFrame]:
    """All frames of the reel. Where slots overlap, both are read in step and blended as RGB."""
    leaving: Iterator[av.VideoFrame] = iter(())
    left = 0
    for slot in slots:
        entering = open_slot(slot)
        # What the slot before has before this one begins.
        yield from itertools.islice(leaving, left - slot.overlap)
        for number in range(slot.overlap):
            phase = (number + 1) / (slot.overlap + 1)
            a, b = to_rgb(next(leaving)), to_rgb(next(entering))
            yield from_rgb(blend(a, b, slot.effect, phase, seed=slot.clip))
        leaving, left = entering, slot.count - slot.overlap
    yield from leaving


def dissolve(a: np.ndarray, b: np.ndarray, effect: str, phase: float, seed: int = 0) -> np.ndarray:
    """The plain transition, whatever effect was asked for: a mix of both frames u8[H, W, 3]."""
    return (a * np.float32(1 - phase) + b * np.float32(phase) + 0.5).astype(np.uint8)


def chapters(slots: Sequence[Slot], fps: Fraction) -> list[Chapter]:
    """One per edit, named by where in the source it comes from."""
    ends = [slot.first for slot in slots[1:]] + [slots[-1].end]
    return [
        Chapter(float(slot.first / fps), float(end / fps), f"Clip {slot.clip} from {clock(slot.start_s)}")
        for slot, end in zip(slots, ends, strict=True)
    ]


def clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def check(path: Path, frames: int, fps: Fraction, sound: bool) -> None:
    """Raises Failed unless the file holds what the edit list says."""
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        length_s = float(video.duration * video.time_base)
        audios = file.streams.audio
        audio_s = float(audios[0].duration * audios[0].time_base) if audios else None
        if video.frames != frames or abs(length_s - frames / fps) > 0.5 / fps:
            raise Failed(
                f"{path.name} has {video.frames} frames in {length_s:.3f} s; it should have {frames}"
            )
        if sound != bool(audios):
            raise Failed(f"{path.name} should have {'a' if sound else 'no'} sound track")
        if audio_s is not None and abs(audio_s - length_s) > MAX_ENDS_APART_S:
            raise Failed(f"{path.name}: picture ends at {length_s:.3f} s, sound at {audio_s:.3f} s")
