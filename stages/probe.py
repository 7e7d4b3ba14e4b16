"""Header checks: one listed video -> its shards, each with what the header says of the video.

out  probe   dict   container, codec, size, rate, rotation, audio (names and units as in the `videos` table)
     shard   int    number of the shard, 0 .. shards - 1
     start_s, end_s  nominal span of the shard; decode moves both to the next keyframe
"""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from stages.container import LIBAV_ERRORS, LimitSettings, Source, open_source, plain
from stages.failure import Failed

FALLBACK_RATE = Fraction(25)
# Packets to try before a video counts as undecodable: a stream cut out of a broadcast starts mid-GOP.
FIRST_FRAME_PACKETS = 600
# Enough to see whether the frame rate varies.
RATE_PACKETS = 120


def probe(row: dict[str, Any], limits: LimitSettings, shard_s: float) -> Iterator[dict[str, Any]]:
    """One row per shard of about `shard_s` seconds.

    Raises Failed for what cannot be decoded or exceeds a limit, Dropped for a file without video.
    """
    with open_source(row["uri"], limits, row.get("etag") or "") as source:
        facts = describe(source)
    # A length that no header knows is one shard, to be read to its end.
    length_s = facts["duration_s"]
    if length_s and length_s > limits.max_duration_s:
        raise Failed(f"{length_s:.0f} s long; limits.max_duration_s is {limits.max_duration_s:.0f}")
    shards = max(1, round(length_s / shard_s)) if length_s else 1
    for shard in range(shards):
        yield row | {
            "probe": facts,
            "shard": shard,
            "shards": shards,
            "start_s": shard * shard_s,
            "end_s": (shard + 1) * shard_s if shard + 1 < shards else math.inf,
        }


def describe(source: Source) -> dict[str, Any]:
    """What the header and the first decoded frame say."""
    container, video, audio = source.container, source.video, source.audio
    frame = _first_frame(source)
    rotation = -frame.rotation % 360
    aspect = video.sample_aspect_ratio or Fraction(1)
    width, height = max(1, round(frame.width * aspect)), frame.height
    if rotation in (90, 270):
        width, height = height, width
    rate = _nominal_rate(video)
    length_s, exact = _duration_s(source)
    return {
        "container": container.format.name,
        "video_codec": video.codec_context.name,
        "pixel_format": frame.format.name,
        "coded_width": frame.width,
        "coded_height": frame.height,
        "width": width,
        "height": height,
        "rotation": rotation,
        "sample_aspect_ratio": f"{aspect.numerator}:{aspect.denominator}",
        "fps": float(rate),
        "fps_exact": f"{rate.numerator}/{rate.denominator}",
        "variable_rate": _varies(source),
        "interlaced": bool(frame.interlaced_frame),
        "color_primaries": int(frame.color_primaries),
        "color_transfer": int(frame.color_trc),
        "color_space": int(frame.colorspace),
        "color_range": int(frame.color_range),
        "duration_s": length_s,
        "duration_exact": exact,
        "start_s": float(source.origin),
        "audio_codec": audio.codec_context.name if audio else None,
        "audio_rate": audio.rate if audio else None,
        "audio_channels": audio.channels if audio else None,
        "timecode": video.metadata.get("timecode") or container.metadata.get("timecode"),
    }


def _first_frame(source: Source) -> av.VideoFrame:
    source.video.thread_type = "NONE"
    error: BaseException | None = None
    try:
        for tried, packet in enumerate(source.packets(source.video)):
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except LIBAV_ERRORS as caught:
                error, frames = caught, []
            if frames:
                return frames[0]
            if tried > FIRST_FRAME_PACKETS:
                break
    except MemoryError:
        raise
    except LIBAV_ERRORS as caught:
        error = caught
    raise Failed("no frame of it can be decoded" + (f": {plain(error)}" if error else ""))


def _nominal_rate(video: av.VideoStream) -> Fraction:
    for rate in (video.guessed_rate, video.average_rate, video.base_rate):
        if rate and 1 <= rate <= 1000:
            return Fraction(rate)
    return FALLBACK_RATE


def _varies(source: Source) -> bool:
    """Whether frames last differently long: by the container's index, or by the first packets."""
    stamps = [entry.timestamp for entry in source.video.index_entries]
    if len(stamps) < RATE_PACKETS:  # no index, or one of keyframes only
        stamps = []
        try:
            source.container.seek(0)
            for packet in source.packets(source.video):
                if packet.pts is not None:
                    stamps.append(packet.pts)
                if len(stamps) >= RATE_PACKETS:
                    break
        except LIBAV_ERRORS:
            pass
    # Packets come in decoding order; the last few wait for frames that were not read.
    steps = np.diff(np.sort(stamps)[:-4])
    steps = steps[steps > 0]
    if len(steps) < 3:
        return False
    median = np.median(steps)
    # One tick either way is the rounding of the time base.
    return bool(np.mean(np.abs(steps - median) > 1 + 0.1 * median) > 0.01)


def _duration_s(source: Source) -> tuple[float | None, bool]:
    """Length of the video, and whether it is that of its pictures rather than of the longest stream."""
    video, container = source.video, source.container
    if video.duration:
        start = (video.start_time or 0) * video.time_base - source.origin
        return float(video.duration * video.time_base + start), True
    if tagged := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", video.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, tagged.groups())  # as Matroska muxers write it
        return 3600 * hours + 60 * minutes + seconds - float(source.origin), True
    return (container.duration / av.time_base if container.duration else None), False
