"""Writes a reel: H.264 by an encoder that is known to work here, sound copied in, chapters, faststart."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from stages.failure import Failed
from stages.picture import BT709, LIMITED

SOFTWARE = "libx264"
# In the order they are tried by "auto". None is believed in before it has encoded a frame.
HARDWARE = ("h264_nvenc", "h264_videotoolbox", "h264_qsv", "h264_amf")
KEYFRAME_EVERY_S = 2
INTERLEAVE_S = 0.5


@dataclass(frozen=True)
class Form:
    """What is encoded, and how."""

    width: int
    height: int
    fps: Fraction
    encoder: str
    crf: int
    preset: str
    primaries: int = BT709
    transfer: int = BT709
    parameter_sets: int = 0  # the number of SPS and PPS


@dataclass(frozen=True)
class Chapter:
    start_s: float
    end_s: float
    title: str


def choose_encoder(wanted: str, width: int, height: int, fps: Fraction) -> str:
    """The encoder to use: `wanted`, or the first that works for "auto". Raises Failed if none does."""
    for name in (*HARDWARE, SOFTWARE) if wanted == "auto" else (wanted,):
        if encodes(name, width, height, fps):
            return name
    raise Failed(f"no encoder: {wanted} does not encode {width}x{height} here; set render.encoder to auto")


@lru_cache(maxsize=64)
def encodes(name: str, width: int, height: int, fps: Fraction) -> bool:
    """Whether this encoder, on this machine, turns grey frames of this size into packets."""
    if name not in av.codecs_available:
        return False
    try:
        context = av.CodecContext.create(name, "w")
        configure(context, Form(width, height, fps, name, 23, "veryfast"))
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane in frame.planes:
            plane.update(np.full(plane.buffer_size, 128, np.uint8))
        packets = []
        for number in range(2):
            frame.pts, frame.time_base = number, 1 / fps
            packets += context.encode(frame)
        packets += context.encode(None)
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    return any(packet.size for packet in packets)


def configure(context: av.VideoCodecContext, form: Form) -> None:
    context.width, context.height, context.pix_fmt = form.width, form.height, "yuv420p"
    context.framerate, context.time_base = form.fps, 1 / form.fps
    context.gop_size = max(1, round(KEYFRAME_EVERY_S * form.fps))
    context.color_range, context.colorspace = LIMITED, BT709
    context.color_primaries, context.color_trc = form.primaries, form.transfer
    context.sample_aspect_ratio = Fraction(1)
    quality = str(form.crf)
    context.options = {
        "libx264": {
            "preset": form.preset,
            "crf": quality,
            "forced-idr": "1",
            "x264-params": f"sps-id={form.parameter_sets}",
        },
        "h264_nvenc": {"preset": "p4", "rc": "vbr", "cq": quality, "b": "0", "forced-idr": "1"},
        # Videotoolbox counts quality upwards, 1..100.
        "h264_videotoolbox": {"q:v": str(max(1, 100 - 2 * form.crf))},
        "h264_qsv": {"global_quality": quality},
        "h264_amf": {"rc": "cqp", "qp_i": quality, "qp_p": quality},
    }.get(form.encoder, {})
    if form.encoder == SOFTWARE:
        context.thread_count = 0


class ReelWriter:
    """One file (its suffix says of which kind): frames in order, beside the sound of `audio`."""

    def __init__(self, path: Path, form: Form, chapters: Sequence[Chapter], audio: Path | None):
        self.form = form
        self.frames = self.copied = 0
        options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
        with ExitStack() as opened:  # closed here if the rest fails
            self._output = opened.enter_context(av.open(str(path), "w", options=options))
            self._audio_file = opened.enter_context(av.open(str(audio))) if audio else None
            self._video = self._output.add_stream(form.encoder, rate=form.fps)
            self._begin(chapters)
            self._opened = opened.pop_all()

    def _begin(self, chapters: Sequence[Chapter]) -> None:
        configure(self._video.codec_context, self.form)
        self._packets = iter(())
        if self._audio_file:
            source = self._audio_file.streams.audio[0]
            self._audio = self._output.add_stream_from_template(source)
            self._packets = (p for p in self._audio_file.demux(source) if p.dts is not None)
        self._output.set_chapters(
            [
                {
                    "id": number + 1,
                    "start": round(chapter.start_s * 1000),
                    "end": round(chapter.end_s * 1000),
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": chapter.title},
                }
                for number, chapter in enumerate(chapters)
            ]
        )
        self._waiting = next(self._packets, None)

    def add(self, frame: av.VideoFrame, key: bool = False) -> None:
        """The next frame (yuv420p, finished); `key` starts a new GOP, so that a player can jump there."""
        self.stamp(frame, key)
        self._output.mux(self._video.encode(frame))
        self.copy_sound()

    def stamp(self, frame: av.VideoFrame, key: bool) -> None:
        """Make it the next one."""
        frame.pts, frame.time_base = self.frames, 1 / self.form.fps
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self.frames += 1

    def copy_sound(self) -> None:
        """As much as belongs beside the frames so far."""
        self._copy_sound(float(self.frames / self.form.fps) + INTERLEAVE_S)

    def _copy_sound(self, until_s: float) -> None:
        while self._waiting is not None:
            packet = self._waiting
            if float(packet.dts * packet.time_base) >= until_s:
                return
            packet.stream = self._audio
            self._output.mux(packet)
            self._waiting = next(self._packets, None)

    def close(self) -> None:
        """Finish the file. A writer that is not closed leaves no playable file."""
        self._output.mux(self._video.encode(None))
        self._copy_sound(float("inf"))
        self.abandon()

    def abandon(self) -> None:
        self._opened.close()


def write_jpeg(frame: av.VideoFrame, path: Path) -> None:
    """A finished (BT.709) frame as a JPEG, which is BT.601 in full range."""
    picture = frame.reformat(
        format="yuvj420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuvj420p"
    context.time_base = Fraction(1, 25)
    context.options = {"qmin": "2", "qmax": "4"}
    picture.pts = 0
    path.write_bytes(b"".join(bytes(p) for p in [*context.encode(picture), *context.encode(None)]))
