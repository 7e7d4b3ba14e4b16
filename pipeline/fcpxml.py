"""A reel's timeline as FCPXML 1.9, for Final Cut Pro and DaVinci Resolve.

OpenTimelineIO's adapter leaves out transitions and knows neither 23.976 nor 29.97 frames/s exactly, so this
is written here: every time is a fraction of seconds on the frame grid of what it counts.
"""

from fractions import Fraction
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import opentimelineio as otio
from opentimelineio.opentime import RationalTime

from stages.editorial import NAMESPACE

VERSION = "1.9"
# The dissolve that comes with Final Cut Pro, by the name that it has in every file of it.
DISSOLVE = ("Cross Dissolve", "FxPlug:4731E73A-8DAC-4113-9A30-AE85B1761265")


def write(timeline: otio.schema.Timeline) -> str:
    facts = timeline.metadata[NAMESPACE]
    fps = Fraction(facts["rate"])
    root = Element("fcpxml", version=VERSION)
    resources = SubElement(root, "resources")
    sequence_format = _format(resources, "r1", fps, facts["size"])
    track = timeline.video_tracks()[0]
    assets = _assets(resources, track)
    dissolve = None
    if any(isinstance(item, otio.schema.Transition) for item in track):
        dissolve = f"r{len(resources) + 1}"
        SubElement(resources, "effect", id=dissolve, name=DISSOLVE[0], uid=DISSOLVE[1])
    event = SubElement(SubElement(root, "library"), "event", name="reelmap")
    project = SubElement(event, "project", name=timeline.name)
    sequence = SubElement(project, "sequence", format=sequence_format, tcStart="0s", tcFormat="NDF")
    spine = SubElement(sequence, "spine")
    at = Fraction(0)  # seconds of the reel
    for item in track:
        if isinstance(item, otio.schema.Transition):
            reach = seconds(item.in_offset, fps), seconds(item.out_offset, fps)
            node = SubElement(spine, "transition", name=item.name)
            node.attrib |= {"offset": text(at - reach[0]), "duration": text(sum(reach))}
            SubElement(node, "filter-video", ref=dissolve, name=DISSOLVE[0])
        else:
            at += _clip(spine, item, assets, at)
    sequence.set("duration", text(at))
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{body}\n'


def _assets(resources: Element, track: otio.schema.Track) -> dict[str, tuple[str, str]]:
    """Adds every source once; the ids of its asset and its format by its URL."""
    assets: dict[str, tuple[str, str]] = {}
    for clip in track.find_clips():
        reference = clip.media_reference
        if reference.target_url in assets:
            continue
        facts = reference.metadata[NAMESPACE]
        fps = Fraction(facts["rate"])
        form = _format(resources, f"r{len(resources) + 1}", fps, facts["size"])
        asset = SubElement(resources, "asset", id=f"r{len(resources) + 1}", name=clip.name, format=form)
        span = reference.available_range
        asset.attrib |= {"start": text(seconds(span.start_time, fps)), "hasVideo": "1"}
        asset.attrib |= {"duration": text(seconds(span.duration, fps)), "videoSources": "1"}
        if facts["audio"]:
            asset.attrib |= {"hasAudio": "1", "audioSources": "1", "audioChannels": "2"}
        SubElement(asset, "media-rep", kind="original-media", src=reference.target_url)
        assets[reference.target_url] = asset.attrib["id"], form
    return assets


def _format(resources: Element, name: str, fps: Fraction, size: list[int]) -> str:
    node = SubElement(resources, "format", id=name, frameDuration=text(1 / fps))
    node.attrib |= {"width": str(int(size[0])), "height": str(int(size[1]))}
    return name


def _clip(
    spine: Element, clip: otio.schema.Clip, assets: dict[str, tuple[str, str]], at: Fraction
) -> Fraction:
    """Adds a clip at `at` seconds of the reel; its length in seconds."""
    fps = Fraction(clip.media_reference.metadata[NAMESPACE]["rate"])
    asset, form = assets[clip.media_reference.target_url]
    length = seconds(clip.source_range.duration, fps)
    node = SubElement(spine, "asset-clip", ref=asset, format=form, name=clip.name, offset=text(at))
    start = seconds(clip.source_range.start_time, fps)
    node.attrib |= {"start": text(start), "duration": text(length), "tcFormat": "NDF"}
    for marker in clip.markers:
        marked = text(seconds(marker.marked_range.start_time, fps))
        SubElement(node, "marker", start=marked, duration=text(1 / fps), value=marker.name)
    return length


def seconds(time: RationalTime, fps: Fraction) -> Fraction:
    """A time whose rate is `fps`, without what a float lost."""
    return Fraction(time.value).limit_denominator(1000) / fps


def text(time: Fraction) -> str:
    """Seconds as FCPXML writes them: 1001/30000s, 5s."""
    return f"{time.numerator}/{time.denominator}s" if time.denominator > 1 else f"{time.numerator}s"
