"""Decode for analysis: one shard -> sampled pictures, shot cuts, motion, brightness and loudness.

out  times_s     float64 [N]           presentation time of each sampled frame
     frames      uint8   [N, S, S, 3]  squashed to a square; RGB or HSV
     motion      float32 [N]           |luma difference| within a tenth of a second where most moves, 0..1
     motion_std  float32 [N]           how unevenly the whole picture moves: see `unevenness`
     luma        float32 [N]           mean luma, 0..1
     thumbnails  list of JPEG bytes    true aspect, one per sample
     cuts_s      float64 [C]           first frame of each new shot
     flashes_s   float64 [F]           frames of a camera flash or a strobe
     loudness    float32 [M]           momentary, LUFS, per half second from start_s; empty without audio
     speech      float32 [V]           probability of a voice per 32 ms; empty without audio
     end_of_video_s float              end of the last frame of the span (nan if it has none)

A shard owns the frames from the first keyframe at or after its nominal start to the first keyframe at
or after its nominal end, in presentation order, so that neighbours agree without speaking and no GOP is
decoded twice. A cut on the seam belongs to the shard before, which reads a few frames over its end.
"""

import math
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from pydantic import Field

from stages.container import LIBAV_ERRORS, LimitSettings, Source, open_source
from stages.failure import Failed
from stages.hearing import Hearing
from stages.settings import Settings
from stages.shots import OWN_FROM, ShotFinder
from stages.speech import LEAD_S

# Motion is measured on coarse pixels, which average noise away, between frames about this far apart: from 10
# frames a second on it hardly depends on the frame rate. A sample's is the mean of the strongest tenth of the
# picture: a gesture before a still background is as much of an event as a camera that pans.
COARSE = (40, 24)
BLOCK = 4
MOTION_LAG_S = 0.1
STRONGEST = 0.1
# How unevenly it moves is judged on the last half second, however often the video is sampled.
DIFFERENCES = 5
LEAST_DIFFERENCES = 3  # of which one is left out: fewer show no spread
THUMBNAIL_HEIGHT = 108
JPEG_QUALITY = 78
# How far before a shard to look for a keyframe when the seek led to a later one.
STEPS_BACK_S = (0.0, 2.0, 10.0, 60.0, math.inf)
# A shard ends at a keyframe only. One that grows to so many times its size is sampled more thinly.
MAX_GROWTH = 4


class DecodeSettings(Settings):
    size: int = Field(256, ge=32, le=1024, description="side of the square pictures, pixels")
    colour: Literal["rgb", "hsv"] = "rgb"
    fps: float = Field(2.0, gt=0, le=60, description="samples per second")
    # H.264's loop filter takes a fifth of the time and changes little in a small picture; `draft` also
    # skips frames that no other frame needs, at the price of cuts that are a frame or two off.
    quality: Literal["exact", "fast", "draft"] = "fast"
    detector: Literal["adaptive", "content", "hash", "histogram"] = "adaptive"
    shard_seconds: float = Field(60.0, ge=2)
    shard_max_bytes: int = Field(48 << 20, description="of decoded pictures")
    min_coverage: float = Field(
        0.95, ge=0, le=1, description="of the length in the header; less is a failure"
    )

    @cached_property
    def shard_s(self) -> float:
        """Seconds per shard: a multiple of the half seconds that loudness is measured in."""
        by_bytes = self.shard_max_bytes / (self.fps * self.size**2 * 3)
        return max(2.0, math.floor(min(self.shard_seconds, by_bytes) * 2) / 2)


@dataclass
class _Samples:
    times_s: list[float] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)
    motion_std: list[float] = field(default_factory=list)
    luma: list[float] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)

    def thin_out(self) -> None:
        """Keeps every other sample."""
        for values in vars(self).values():
            del values[1::2]


def decode(row: dict[str, Any], settings: DecodeSettings, limits: LimitSettings) -> dict[str, Any]:
    """The row of a shard with its sampled pictures and measures.

    Raises Failed when the source cannot be read or takes longer than limits.shard_timeout_s.
    """
    started_at = datetime.now(UTC)
    with open_source(row["uri"], limits, row.get("etag") or "") as source:
        reader = _ShardReader(source, row, settings, limits.max_duration_s)
        deadline = time.monotonic() + limits.shard_timeout_s
        for packet in reader.packets():
            reader.take(packet)
            if reader.done:
                break
            if time.monotonic() > deadline:
                raise Failed(
                    f"decoding takes longer than limits.shard_timeout_s = {limits.shard_timeout_s:g}"
                )
        reader.flush()
    samples, heard = reader.samples, reader.hearing
    side = settings.size
    return row | {
        "times_s": np.array(samples.times_s, np.float64),
        "frames": np.stack(samples.frames) if samples.frames else np.empty((0, side, side, 3), np.uint8),
        "motion": carried(np.array(samples.motion, np.float32)),
        "motion_std": carried(np.array(samples.motion_std, np.float32)),
        "luma": np.array(samples.luma, np.float32),
        "thumbnails": samples.thumbnails,
        "cuts_s": np.array(reader.shots.cuts_s, np.float64),
        "flashes_s": np.array(reader.shots.flashes_s, np.float64),
        "loudness": heard.loudness.half_seconds(row["start_s"]) if heard else np.empty(0, np.float32),
        "speech": heard.voice.steps() if heard else np.empty(0, np.float32),
        "end_of_video_s": reader.end_s,
        "frames_decoded": reader.frames,
        "log": {
            "shard": row["shard"],
            "start_s": reader.first_s,
            "end_s": reader.end_s,
            "frames": reader.frames,
            "decode_started_at": started_at,
            "decode_finished_at": datetime.now(UTC),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        },
    }


class _ShardReader:
    """Walks the packets of one shard once and fills in everything that is measured on them."""

    def __init__(self, source: Source, row: dict[str, Any], settings: DecodeSettings, max_duration_s: float):
        self.source, self.settings, self.max_duration_s = source, settings, max_duration_s
        self.start_s, self.nominal_end_s = row["start_s"], row["end_s"]
        self.first_shard = row["shard"] == 0
        self.facts = row["probe"]
        self.samples = _Samples()
        self.shots = ShotFinder(settings.detector)
        span = (self.start_s, min(self.nominal_end_s, max_duration_s))
        self.hearing = Hearing(*span) if source.audio else None
        self.started = self.first_shard
        self.start_pts: int | None = None  # first keyframe of this shard; None reads from the very start
        self.end_pts: int | None = None  # first keyframe of the next shard
        self.frames = self.over = self.errors = 0
        self.first_s = self.end_s = math.nan
        self.done = False
        self._next_sample = -math.inf
        self._samples_per_s = settings.fps
        room = MAX_GROWTH * settings.shard_max_bytes // (3 * settings.size**2)
        self._max_samples = max(2, room)
        self._last_pts: int | None = None
        self._reference: tuple[float, np.ndarray] | None = None  # what motion is measured from
        self._motion: list[np.ndarray] = []
        self._latest: deque[float] = deque(maxlen=DIFFERENCES)
        self._big, self._small = VideoReformatter(), VideoReformatter()
        self._small_size = _small_size(self.facts)
        self._open_decoder()

    def _open_decoder(self) -> None:
        context = self.source.video.codec_context
        # Shards run side by side: a thread each, so that they do not fight for cores.
        context.thread_type = "NONE"
        if self.settings.quality != "exact":
            context.options = context.options | {"skip_loop_filter": "all"}
        if self.settings.quality == "draft":
            context.skip_frame = "NONREF"
        wanted = (self.source.video, self.source.audio)
        for stream in self.source.container.streams:
            if stream not in wanted:
                stream.discard = av.stream.Discard.all

    def packets(self) -> Iterator[av.Packet]:
        """Packets of picture and sound from before the shard's first keyframe on."""
        source = self.source
        streams = [source.video] + ([source.audio] if source.audio else [])
        try:
            if self.first_shard:
                yield from source.packets(*streams)
                return
            # The sound before the shard has a say in its speech; the pictures there are read, not decoded.
            lead_s = LEAD_S if source.audio else 0.0
            for back_s in STEPS_BACK_S:
                source.seek(max(0.0, self.start_s - lead_s - back_s))
                packets = source.packets(*streams)
                head, before_start = self._head(packets)
                if before_start or lead_s + back_s >= self.start_s:
                    yield from head
                    yield from packets
                    return
        except MemoryError:
            raise
        except LIBAV_ERRORS:
            # A damaged tail: what was read so far counts; gather compares it with the header.
            return

    def _head(self, packets: Iterator[av.Packet]) -> tuple[list[av.Packet], bool]:
        """The packets up to the first keyframe, and whether that lies before the shard.

        MPEG streams have no index: a seek may land behind the time asked for, and the parser does not know a
        keyframe before it has seen a sequence header.
        """
        head = []
        for packet in packets:
            head.append(packet)
            if packet.stream is self.source.video and packet.pts is not None:
                after = self.source.seconds(packet) > self.start_s + 1e-6
                if packet.is_keyframe or after:
                    return head, not after
        return head, False

    def take(self, packet: av.Packet) -> None:
        if packet.stream is self.source.audio:
            self._take_audio(packet)
            return
        if packet.is_keyframe and packet.pts is not None:
            seconds = self.source.seconds(packet)
            if not self.started and seconds >= self.start_s:
                self.started, self.start_pts = True, packet.pts
            if self.end_pts is None and seconds >= self.nominal_end_s:
                self.end_pts = packet.pts
                if self.start_pts == packet.pts:
                    self.done = True  # the shard before reaches over all of this one
                    return
        if self.started:
            for frame in self._frames_of(packet):
                self._take_frame(frame)

    def flush(self) -> None:
        self.shots.flush()
        if self.hearing:
            self.hearing.flush()

    def _frames_of(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except MemoryError:
            raise
        except LIBAV_ERRORS:
            self.errors += 1
            return []

    def _take_audio(self, packet: av.Packet) -> None:
        for frame in self._frames_of(packet):
            if frame.pts is not None:
                self.hearing.add(frame, self.source.seconds(frame))

    def _take_frame(self, frame: av.VideoFrame) -> None:
        if frame.pts is None or (self._last_pts is not None and frame.pts <= self._last_pts):
            return
        if self.start_pts is not None and frame.pts < self.start_pts:
            return  # leading pictures of an open GOP: the shard before has them whole
        self._last_pts = frame.pts
        seconds = self.source.seconds(frame)
        if seconds > self.max_duration_s:
            raise Failed(f"its clock jumps to {seconds:.0f} s, beyond limits.max_duration_s")
        small = self._small.reformat(
            frame, *self._small_size, format="bgr24", interpolation=Interpolation.FAST_BILINEAR, threads=1
        ).to_ndarray()
        past_end = self.end_pts is not None and frame.pts >= self.end_pts
        number = self.frames + self.over
        # The first frames of a shard lie in the window of the shard before, which judges them.
        owned = number >= OWN_FROM or self.first_shard
        self.shots.add(small, frame, seconds, judge=owned and self.over < OWN_FROM)
        if past_end:
            self.over += 1
            self.done = self.over >= OWN_FROM + self.shots.look_ahead
            return
        self._measure(frame, small, seconds)

    def _measure(self, frame: av.VideoFrame, small: np.ndarray, seconds: float) -> None:
        luma = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        coarse = cv2.resize(luma.astype(np.float32), COARSE, interpolation=cv2.INTER_AREA)
        if self._reference is None:
            self._reference = (seconds, coarse)
            self.first_s = seconds
            # The first frame of a video is always a sample; that of a later shard, if it is due.
            before_s = -math.inf if self.first_shard else seconds - 1 / self.facts["fps"]
            self._next_sample = self._grid_after(before_s)
        elif seconds - self._reference[0] >= MOTION_LAG_S - 1e-3:
            self._motion.append(blocks(cv2.absdiff(coarse, self._reference[1])))
            self._latest.append(float(self._motion[-1].mean()))
            self._reference = (seconds, coarse)
        self.frames += 1
        step_s = float(frame.duration * frame.time_base) if frame.duration else 1 / self.facts["fps"]
        self.end_s = seconds + step_s
        if seconds * self._samples_per_s + 1e-6 >= self._next_sample:
            if len(self.samples.frames) >= self._max_samples:
                self.samples.thin_out()
                self._samples_per_s /= 2
            self._next_sample = self._grid_after(seconds)
            self._sample(frame, luma, seconds)

    def _grid_after(self, seconds: float) -> float:
        """The first point of the sampling grid after a time, in units of its step."""
        return math.floor(seconds * self._samples_per_s + 1e-6) + 1 if seconds > -math.inf else seconds

    def _sample(self, frame: av.VideoFrame, luma: np.ndarray, seconds: float) -> None:
        picture = squashed(frame, self.settings.size, self._big)
        if self.facts["rotation"]:
            picture = np.ascontiguousarray(np.rot90(picture, -self.facts["rotation"] // 90))
        samples = self.samples
        samples.times_s.append(seconds)
        samples.thumbnails.append(thumbnail(picture, self.facts["width"] / self.facts["height"]))
        samples.frames.append(coloured(picture, self.settings.colour))
        samples.motion.append(strongest(self._motion))
        samples.motion_std.append(unevenness(self._latest))
        samples.luma.append(float(luma.mean()) / 255)
        self._motion.clear()


def squashed(frame: av.VideoFrame, side: int, reformatter: VideoReformatter | None = None) -> np.ndarray:
    """A frame as u8[side, side, 3] RGB, as the networks are shown it."""
    reformat = (reformatter or VideoReformatter()).reformat
    scaled = reformat(frame, side, side, format="rgb24", interpolation=Interpolation.AREA, threads=1)
    return scaled.to_ndarray()


def coloured(picture: np.ndarray, colour: Literal["rgb", "hsv"]) -> np.ndarray:
    """An RGB picture in the colours that `decode.colour` asks for."""
    return picture if colour == "rgb" else cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)


def blocks(difference: np.ndarray) -> np.ndarray:
    """Means of the blocks of a coarse picture, flat."""
    height, width = difference.shape
    return difference.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean((1, 3)).ravel()


def carried(motion: np.ndarray) -> np.ndarray:
    """Motion with gaps filled by the next sample's (the first has no frame before it), else by 0."""
    known = np.flatnonzero(~np.isnan(motion))
    if not len(known):
        return np.zeros_like(motion)
    following = np.searchsorted(known, np.arange(len(motion)))
    return motion[known[np.minimum(following, len(known) - 1)]]


def strongest(differences: list[np.ndarray]) -> float:
    """Motion, 0..1, of the blocks' differences since the last sample; nan if there are none."""
    if not differences:
        return math.nan
    # A cut is a change of shot, not motion: the median leaves single jumps out.
    typical = np.sort(np.median(differences, axis=0))
    return float(typical[-round(STRONGEST * len(typical)) :].mean()) / 255


def unevenness(differences: Sequence[float]) -> float:
    """Standard deviation, 0..1, of the picture's mean differences of late; nan if they are too few.

    What people do goes in bursts; what goes on by itself, traffic or a noisy camera, is even. The largest
    difference is left out: at a cut it is the cut.
    """
    if len(differences) < LEAST_DIFFERENCES:
        return math.nan
    return float(np.sort(differences)[:-1].std()) / 255


def _small_size(facts: dict[str, Any]) -> tuple[int, int]:
    """Width and height of the pictures that every decoded frame is compared in."""
    scale = 160 / max(facts["coded_width"], facts["coded_height"])
    return tuple(
        max(16, round(side * min(1, scale))) for side in (facts["coded_width"], facts["coded_height"])
    )


def thumbnail(picture: np.ndarray, aspect: float) -> bytes:
    """JPEG of a squashed picture at its true aspect (width / height)."""
    width = min(4 * THUMBNAIL_HEIGHT, max(16, round(THUMBNAIL_HEIGHT * aspect)))
    resized = cv2.resize(picture, (width, THUMBNAIL_HEIGHT), interpolation=cv2.INTER_AREA)
    encoded, data = cv2.imencode(
        ".jpg", cv2.cvtColor(resized, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not encoded:
        raise Failed("its thumbnail cannot be made")
    return data.tobytes()
