"""Reads a span of a source to the frame, at full size, conformed to a constant rate.

A span is [start_s, end_s): the frames with start_s <= t < end_s, whatever the GOP looks like. Decoding
starts at a keyframe before it and is always exact. Output frame k shows the source frame that is on show
k / fps after the first one, rounded to the nearest as FFmpeg's fps filter does, so that a clock which
rounds to milliseconds neither doubles nor loses a frame.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

import av

from stages.container import LIBAV_ERRORS, LimitSettings, Source, open_source
from stages.failure import Failed

# Half of what a millisecond clock may be off, and some: times within it are the same time.
SAME_S = 1e-3
# How far before a span to look for a keyframe when the index led to a later one.
STEPS_BACK_S = (0.0, 2.0, 10.0, 40.0, math.inf)
MAX_FREEZE_S = 1.0
# A program stream says the time of few pictures; what libav makes of it for the first ones after a seek may
# be half a frame off.
UNSURE_AFTER_SEEK = ("mpeg",)


def read_span(
    uri: str,
    span: tuple[float, float],
    count: int,
    fps: Fraction,
    source_fps: Fraction,
    limits: LimitSettings = LimitSettings(),
    etag: str = "",
) -> Iterator[tuple[av.VideoFrame, int]]:
    """Frames of the span in order, each with the number (> 0) of output frames it is shown for.

    The numbers add up to `count`. Raises Failed when the source has no such span.
    """
    yield from conform(frames_from(uri, span[0], source_fps, limits, etag), span, count, fps, source_fps)


def conform(
    frames: Iterator[tuple[float, av.VideoFrame]],
    span: tuple[float, float],
    count: int,
    fps: Fraction,
    source_fps: Fraction,
) -> Iterator[tuple[av.VideoFrame, int]]:
    """(time, frame) in order of presentation -> (frame, how many output frames show it)."""
    start_s, end_s = span
    nearest_s = 0.5 / float(source_fps)
    held: av.VideoFrame | None = None
    origin_s: float | None = None  # what the first output frame shows, in source time
    shown, last_s, ended = 0, -math.inf, True
    for time_s, frame in frames:
        if time_s >= end_s - SAME_S:
            ended = False
            break
        if origin_s is None and time_s >= start_s - SAME_S:
            # A frame that is held over the start of the span (variable rate) is on show then.
            held_over = held is not None and time_s - start_s > 1 / float(source_fps)
            origin_s = start_s if held_over else time_s
            held = held if held_over else None
        if origin_s is not None and held is not None:
            until = min(count, math.ceil((time_s - origin_s - nearest_s) * fps))
            if until > shown:
                yield held, until - shown
                shown = until
            if shown == count:
                return
        held, last_s = frame, time_s
    if held is None:
        raise Failed(f"no frame can be decoded between {start_s:.3f} and {end_s:.3f} s")
    if ended:
        length_s = float(held.duration * held.time_base) if held.duration else 0.0
        if end_s - last_s - max(length_s, 1 / float(source_fps)) > MAX_FREEZE_S:
            raise Failed(f"the video ends at {last_s:.3f} s, before the clip does ({end_s:.3f} s)")
    yield held, count - shown


def frames_from(
    uri: str,
    start_s: float,
    source_fps: Fraction,
    limits: LimitSettings = LimitSettings(),
    etag: str = "",
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decoded frames with their times, in order, the first of them at or before start_s if there is one."""
    for step_s in STEPS_BACK_S:
        # Opened anew for each try: not every source can go back once it is read.
        with open_source(uri, limits, etag) as source:
            source.video.thread_type = "AUTO"
            source.only(source.video)
            from_start = start_s - step_s <= 0
            if not (step_s or from_start) and source.container.format.name in UNSURE_AFTER_SEEK:
                continue
            if not from_start:
                source.seek(start_s - step_s)
            frames = _whole_frames(source, source_fps, from_start)
            first = next(frames, None)
            if first is not None and (from_start or first[0] <= start_s + SAME_S):
                yield first
                yield from frames
                return


def _whole_frames(
    source: Source, source_fps: Fraction, from_start: bool
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames from the first keyframe on: what an open GOP leads in with lacks its references."""
    sound, last_s = from_start, -math.inf
    for frame in _decoded(source):
        sound = sound or frame.key_frame
        if not sound:
            continue
        # A raw stream has no times: then frames follow one another at the nominal rate.
        timed = frame.pts is not None
        time_s = (
            source.seconds(frame) if timed else max(last_s, -1 / float(source_fps)) + 1 / float(source_fps)
        )
        if time_s > last_s:
            last_s = time_s
            yield time_s, frame


def _decoded(source: Source) -> Iterator[av.VideoFrame]:
    packets = source.packets(source.video)
    while True:
        try:
            packet = next(packets, None)
        except LIBAV_ERRORS:
            return  # a damaged tail; whether enough was read is for the caller to say
        if packet is None:
            return
        try:
            frames = packet.decode()
        except LIBAV_ERRORS:
            continue  # a damaged picture: the one before is held
        yield from frames
