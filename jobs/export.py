"""`reelmap export OUTPUT VIDEO --out FILE`: the reel's timeline in the form that an editing program reads.

Every reel has its reel.otio beside it. The other forms are made from that when somebody asks: they hold
less, and an EDL can only be had at the rates that have a timecode.
"""

from collections.abc import Callable
from pathlib import Path

import opentimelineio as otio

from pipeline import edl, fcpxml, storage, tables
from pipeline.publish import MEDIA
from pipeline.videos import VideoError, Videos

DONE, COULD_NOT = 0, 2
FORMS: dict[str, Callable[[otio.schema.Timeline], str]] = {
    "otio": lambda timeline: otio.adapters.write_to_string(timeline, "otio_json"),
    "edl": edl.write,
    "fcpxml": fcpxml.write,
}


class ExportError(ValueError):
    """There is nothing to export, or not in this form; the message says so in words."""


def export(
    output: str, video: str, kind: str | None, out: str, media: str | None, say: Callable[[str], None]
) -> int:
    """Exit code: 0 written, 2 not."""
    output, out = storage.absolute(output), storage.absolute(out)
    kind = kind or out.rsplit(".", 1)[-1].lower()
    try:
        if kind not in FORMS:
            raise ExportError(f"give --format: the suffix of {storage.shown(out)} does not say which")
        timeline = read_timeline(output, Videos(output).find(video)["video_id"])
        if media:
            relink(timeline, storage.absolute(media))
        storage.write_bytes(out, FORMS[kind](timeline).encode())
    except (ExportError, VideoError, edl.EdlError, storage.StorageError) as error:
        say(f"reelmap: {error}")
        return COULD_NOT
    clips = len(timeline.video_tracks()[0].find_clips())
    say(f"{clips} clips, {timeline.duration().to_seconds():.1f} s: {storage.shown(out)}")
    return DONE


def read_timeline(output: str, video_id: str) -> otio.schema.Timeline:
    """The timeline beside the current reel of a video."""
    reels = tables.read(output, "reels", ["video_id", "files"], {video_id}).to_pylist()
    if not reels:
        raise ExportError("there is no reel of this video: it was scored without being rendered")
    path = f"{MEDIA}/{video_id}/reel.otio"
    if path not in (reels[0]["files"] or ()):
        raise ExportError("its reel was made before reelmap wrote timelines: run `reelmap highlights` again")
    text = storage.read_bytes(storage.join(output, path)).decode()
    try:
        timeline = otio.adapters.read_from_string(text, "otio_json")
    except ValueError as error:
        raise ExportError(f"{path} is damaged: `reelmap verify` says more") from error
    if not isinstance(timeline, otio.schema.Timeline):
        raise ExportError(f"{path} holds no timeline: `reelmap verify` says more")
    return timeline


def relink(timeline: otio.schema.Timeline, folder: str) -> None:
    """Point every clip at the file of its source's name in `folder`. Raises ExportError."""
    for clip in timeline.find_clips():
        name = clip.media_reference.name
        try:
            path = storage.join(folder, name)
        except ValueError as error:
            raise ExportError(
                f"{name!r} cannot be a file of --media: leave that out, or rename it"
            ) from error
        clip.media_reference.target_url = Path(path).as_uri() if path.startswith("/") else path
