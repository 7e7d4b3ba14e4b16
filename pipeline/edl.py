"""A reel's timeline as a CMX 3600 edit decision list, by the adapter of OpenTimelineIO.

The list knows one picture track, cuts and dissolves: what the effect was called stands in a comment.
"""

import re

import opentimelineio as otio

from stages.editorial import NAMESPACE

REEL_CHARACTERS = 8
DROP_FRAME = (30000 / 1001, 60000 / 1001)


class EdlError(ValueError):
    """The reel cannot be written as an EDL; the message says why."""


def write(timeline: otio.schema.Timeline) -> str:
    timeline = timeline.clone()
    rate = timeline.global_start_time.rate
    if not otio.opentime.RationalTime.is_smpte_timecode_rate(rate):
        raise EdlError(
            f"an EDL counts in timecode, and there is none for {rate:g} frames/s: take otio or fcpxml"
        )
    track = timeline.video_tracks()[0]
    for number, item in enumerate(track):
        if isinstance(item, otio.schema.Clip):
            item.metadata["cmx_3600"] = {
                "reel": reel_name(item.name),
                "comments": comments(item, track[number - 1] if number else None),
            }
    text = otio.adapters.write_to_string(timeline, "cmx_3600", rate=rate)
    title, _, events = text.partition("\n\n")
    dropped = any(abs(rate - other) < 0.01 for other in DROP_FRAME)
    return f"{title}\nFCM: {'DROP' if dropped else 'NON-DROP'} FRAME\n\n{events}"


def reel_name(name: str) -> str:
    """What the list calls a source: letters and digits, eight at most."""
    return re.sub(r"[^A-Z0-9]", "", name.rsplit(".", 1)[0].upper())[:REEL_CHARACTERS] or "AX"


def comments(clip: otio.schema.Clip, before: otio.core.Composable | None) -> list[str]:
    facts = clip.metadata.get(NAMESPACE, {})
    found = [f"EFFECT NAME: {before.name.upper()}"] if isinstance(before, otio.schema.Transition) else []
    return found + ([f"GRADE: {facts['grade']}"] if "grade" in facts else [])
