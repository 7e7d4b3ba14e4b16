"""A whole video written anew, frame for frame, with pulses of an effect: same length, sound in step.

Frame k of what is written shows what the source shows k / fps after its first picture; the sound is the
source's from that moment on, at its own level. Sizes, colours and what is HDR come out as in a reel.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from stages.audio import RATE, assemble
from stages.container import LIBAV_ERRORS, LimitSettings, Source, open_source, plain
from stages.cutter import read_span
from stages.decode import DecodeSettings, decode
from stages.encode import Form, ReelWriter, choose_encoder
from stages.failure import Failed
from stages.mastering import encode_aac
from stages.picture import BT709, HDR, Look, colours_of, finish, shown_size
from stages.probe import describe, probe
from stages.pulses import Pulse, ShowsEffects, pulsed
from stages.render import RenderSettings, check
from stages.timeline import Slot, output_rate
from stages.tonemap import write_tone_map

# The sound is read in pieces of so many seconds: memory does not grow with the video.
SOUND_PIECE_S = 30
SEAM_S = 0.02


@dataclass(frozen=True)
class Film:
    """What has to be known of a video before it is written anew; times from the start of the presentation."""

    uri: str
    facts: dict[str, Any]  # as of stages/probe.py
    start_s: float  # of the first picture
    end_s: float  # of the last one

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def source_fps(self) -> Fraction:
        return Fraction(self.facts["fps_exact"])

    @property
    def fps(self) -> Fraction:
        return output_rate(self.source_fps)

    @property
    def frames(self) -> int:
        return max(1, round(self.duration_s * self.fps))


def look_at(uri: str, limits: LimitSettings = LimitSettings()) -> Film:
    """Raises Failed or Dropped for what cannot be read or holds no video."""
    with open_source(uri, limits) as source:
        facts = describe(source)
    with open_source(uri, limits) as source:
        start_s, end_s = picture_span(source, 1 / facts["fps"])
    if end_s <= start_s:  # a raw stream has no times of its own
        start_s, end_s = 0.0, facts["duration_s"] or 0.0
    if end_s <= start_s:
        raise Failed("how long it is stands nowhere in it: put it into an .mp4 or .mkv first")
    return Film(uri, facts, start_s, end_s)


def picture_span(source: Source, frame_s: float) -> tuple[float, float]:
    """When the first picture comes on show and the last one ends, by the packets: nothing is decoded."""
    first_s, end_s = float("inf"), float("-inf")
    try:
        for packet in source.packets(source.video):
            if packet.pts is None or packet.is_discard:
                continue
            time_s = source.seconds(packet)
            length_s = float(packet.duration * packet.time_base) if packet.duration else frame_s
            first_s, end_s = min(first_s, time_s), max(end_s, time_s + length_s)
    except LIBAV_ERRORS:
        pass  # a damaged tail: what lies before it counts
    return first_s, end_s


def cuts_of(film: Film, limits: LimitSettings = LimitSettings()) -> list[float]:
    """Times of the first frames of new shots, from the film's first picture on, as a run finds them."""
    settings = DecodeSettings(size=32, fps=1)
    shards = (
        decode(row, settings, limits) for row in probe({"uri": film.uri}, limits, settings.shard_seconds)
    )
    return sorted(float(cut) - film.start_s for shard in shards for cut in shard["cuts_s"])


def write_film(
    film: Film,
    path: Path,
    pulses: Sequence[Pulse],
    effects: ShowsEffects,
    strength: float,
    settings: RenderSettings = RenderSettings(),
    limits: LimitSettings = LimitSettings(),
    tell: Callable[[int], None] = lambda frames: None,
) -> None:
    """Writes an .mp4 at `path`, whose folder is scratch space; `tell` hears of every frame. Raises Failed."""
    try:
        sound = write_sound(film, path.with_suffix(".m4a"), settings, limits)
        _write_pictures(film, path, sound, pulses, effects, strength, settings, limits, tell)
        check(path, film.frames, film.fps, sound is not None)
    except LIBAV_ERRORS as error:
        raise Failed(f"cannot be written anew: {plain(error)}") from error


def _write_pictures(
    film: Film,
    path: Path,
    sound: Path | None,
    pulses: Sequence[Pulse],
    effects: ShowsEffects,
    strength: float,
    settings: RenderSettings,
    limits: LimitSettings,
    tell: Callable[[int], None],
) -> None:
    facts, span = film.facts, (film.start_s, film.end_s)
    width, height = shown_size(facts["width"], facts["height"], settings.max_height)
    encoder = choose_encoder(settings.encoder, width, height, film.fps)
    with closing(read_span(film.uri, span, film.frames, film.fps, film.source_fps, limits)) as frames:
        first = next(frames)
        look = Look(width, height, facts["rotation"] or 0, bool(facts["interlaced"]))
        colours = colours_of(first[0])
        primaries, transfer = colours.primaries, colours.transfer
        if transfer in HDR:
            look = replace(look, tone_map=path.with_suffix(".cube"))
            write_tone_map(primaries, transfer, look.tone_map)
            primaries = transfer = BT709
        form = Form(width, height, film.fps, encoder, settings.crf, settings.preset, primaries, transfer)
        shown = pulsed(finish(itertools.chain([first], frames), look), pulses, effects, strength)
        writer = ReelWriter(path, form, [], sound)
        try:
            for number, frame in enumerate(shown):
                writer.add(frame)
                tell(number + 1)
            writer.close()
        finally:
            writer.abandon()


def write_sound(film: Film, path: Path, settings: RenderSettings, limits: LimitSettings) -> Path | None:
    """The source's sound beneath its pictures as AAC, as loud as it was; None if it has none."""
    if not film.facts["audio_codec"]:
        return None
    scratch = path.with_suffix(".f32")
    try:
        samples = assemble(film.uri, pieces_of(film), film.fps, SEAM_S, scratch, limits)
        blocks = (samples[at : at + RATE] for at in range(0, len(samples), RATE))
        encode_aac(blocks, path, settings.audio_bitrate)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def pieces_of(film: Film) -> list[Slot]:
    """The whole film as slots that follow on one another."""
    step = max(1, round(SOUND_PIECE_S * film.fps))
    bounds = [*range(0, film.frames, step), film.frames]
    times = [film.start_s + float(bound / film.fps) for bound in bounds]
    return [
        Slot(n, times[n], times[n + 1], bounds[n], bounds[n + 1] - bounds[n], 0, "cut")
        for n in range(len(bounds) - 1)
    ]
