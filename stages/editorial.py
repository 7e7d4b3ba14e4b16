"""The edit list for an editing program: an OpenTimelineIO timeline that points at the sources.

One video and one audio track. A clip's ranges count frames of its source, at the source's own rate, from
its first picture on (from the camera's timecode where it wrote one). Clips do not overlap here as they do
in an edit list: a transition lies over the cut between two of them and reaches into what each has beyond it.
In a J or L cut the sound is cut where the reel's is, to the sample: between two frames.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import opentimelineio as otio
from opentimelineio.opentime import RationalTime, TimeRange

from stages.audio import RATE, leads_of
from stages.filesystem import open_filesystem, protocol_of, without_login
from stages.frames import Frames, frames_of
from stages.timeline import Slot

NAMESPACE = "reelmap"  # of what only reelmap knows, in the metadata


@dataclass(frozen=True)
class Media:
    """A source as an editing program has to know it."""

    uri: str
    frames: Frames
    duration_s: float  # end of the last frame
    size: tuple[int, int]  # as displayed
    audio: bool
    timecode: str | None = None

    @property
    def name(self) -> str:
        """The file's name; what would break a line of an edit list is left out."""
        last = without_login(self.uri).rstrip("/").rsplit("/", 1)[-1]
        return "".join(c for c in last if c.isprintable())

    @property
    def url(self) -> str:
        """Where it lies, without a login."""
        if protocol_of(self.uri) != "file":
            return "".join(c if c.isprintable() else quote(c) for c in without_login(self.uri))
        return Path(open_filesystem(self.uri)[1]).as_uri()

    @property
    def start(self) -> int:
        """The number of the first picture: 0, or what the timecode counts to."""
        if self.timecode is None:
            return 0
        try:
            return round(otio.opentime.from_timecode(self.timecode, float(self.frames.fps)).value)
        except ValueError:  # not one, or of a rate that has none
            return 0


def media_of(row: dict[str, Any]) -> Media:
    """The source of a row that is rendered."""
    facts = row["probe"]
    return Media(
        uri=row["uri"],
        frames=frames_of(row),
        duration_s=row.get("duration_s") or facts["duration_s"] or 0.0,
        size=(facts["width"], facts["height"]),
        audio=bool(facts["audio_codec"]),
        timecode=facts.get("timecode"),
    )


def timeline(
    media: Sequence[Media],
    slots: Sequence[Slot],
    fps: Fraction,
    size: tuple[int, int],
    clips: Mapping[int, Mapping[str, Any]],
    cubes: Mapping[int, str],
) -> otio.schema.Timeline:
    """The reel as a timeline of `fps` and of width and height `size`.

    media   the source of each slot
    clips   the rows of the clips by their number; `stored` is their number in the tables, if it is another
    cubes   name of the grade's file by the number of the shot
    """
    sources = len(set(media))
    name = f"reel of {media[0].name}" if sources == 1 else f"reel of {sources} videos"
    made = otio.schema.Timeline(name=name, global_start_time=_time(0, fps))
    made.metadata[NAMESPACE] = {"rate": str(fps), "size": list(size)}
    picture = _track("Picture", otio.schema.TrackKind.Video, media, slots, fps, clips, cubes)
    made.tracks.append(picture)
    if any(source.audio for source in media):
        made.tracks.append(_track("Sound", otio.schema.TrackKind.Audio, media, slots, fps, clips, {}))
    return made


def write_timeline(made: otio.schema.Timeline, path: Path) -> None:
    path.write_text(otio.adapters.write_to_string(made, "otio_json"), encoding="utf-8")


def _track(
    name: str,
    kind: str,
    media: Sequence[Media],
    slots: Sequence[Slot],
    fps: Fraction,
    clips: Mapping[int, Mapping[str, Any]],
    cubes: Mapping[int, str],
) -> otio.schema.Track:
    track = otio.schema.Track(name=name, kind=kind)
    ends = _ends(media, slots, fps)
    pictures = kind == otio.schema.TrackKind.Video
    # Frames of the reel by which what the track shows of a slot comes before its picture.
    leads = [0 if pictures else Fraction(lead, RATE) * fps for lead in leads_of(slots)]
    for number, (source, slot) in enumerate(zip(media, slots, strict=True)):
        overlap = slots[number + 1].overlap if number + 1 < len(slots) else 0
        if slot.overlap:
            track.append(_transition(slot, fps))
        # Of what it shares with its neighbours each clip keeps its side of the cut.
        head = slot.overlap // 2 - leads[number]
        tail = overlap - overlap // 2 + leads[number + 1]
        start = source.start + source.frames.at(slot.start_s) + head / fps * source.frames.fps
        length = (slot.count - head - tail) / fps * source.frames.fps
        clip = otio.schema.Clip(
            name=source.name,
            media_reference=_reference(source, ends[source]),
            source_range=_range(start, length, source.frames.fps),
        )
        known = clips.get(slot.clip, {})
        facts = {"clip": known.get("stored", slot.clip), "score": known.get("score"), "why": known.get("why")}
        if cube := cubes.get(known.get("shot")):
            facts["grade"] = cube
        clip.metadata[NAMESPACE] = facts
        if pictures and known.get("why"):
            at = source.start + source.frames.at(known.get("thumbnail_s") or slot.start_s)
            at = min(max(at, math.ceil(start)), math.ceil(start + length) - 1)
            note = f"score {known['score']:.2f}"
            marked = _range(Fraction(at), Fraction(1), source.frames.fps)
            clip.markers.append(
                otio.schema.Marker(known["why"], marked, otio.schema.MarkerColor.GREEN, comment=note)
            )
        heard = source.audio or kind == otio.schema.TrackKind.Video
        track.append(clip if heard else otio.schema.Gap(source_range=clip.source_range))
    return track


def _ends(media: Sequence[Media], slots: Sequence[Slot], fps: Fraction) -> dict[Media, int]:
    """How many frames each source has: what its clips show, or sound on for, whatever its header says."""
    ends: dict[Media, int] = {}
    for source, slot, lead in zip(media, slots, leads_of(slots)[1:], strict=True):
        length_s = slot.count / fps + max(Fraction(0), Fraction(-lead, RATE))
        end = math.ceil(source.frames.at(slot.start_s) + length_s * source.frames.fps)
        said = round((source.duration_s - source.frames.first_s) * source.frames.fps)
        ends[source] = max(ends.get(source, said), end)
    return ends


def _reference(source: Media, frames: int) -> otio.schema.ExternalReference:
    available = _range(Fraction(source.start), Fraction(frames), source.frames.fps)
    reference = otio.schema.ExternalReference(source.url, available)
    reference.name = source.name
    # What a float cannot hold, and what other formats want to be told.
    facts = {"rate": str(source.frames.fps), "size": list(source.size), "audio": source.audio}
    reference.metadata[NAMESPACE] = facts
    return reference


def _transition(slot: Slot, fps: Fraction) -> otio.schema.Transition:
    return otio.schema.Transition(
        name=slot.effect,
        transition_type=otio.schema.TransitionTypes.SMPTE_Dissolve,
        in_offset=_time(slot.overlap // 2, fps),
        out_offset=_time(slot.overlap - slot.overlap // 2, fps),
    )


def _range(start: Fraction, length: Fraction, fps: Fraction) -> TimeRange:
    return TimeRange(_time(start, fps), _time(length, fps))


def _time(frames: Fraction | int, fps: Fraction) -> RationalTime:
    return RationalTime(float(frames), float(fps))
