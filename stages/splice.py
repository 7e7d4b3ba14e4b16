"""Smart rendering: coded pictures of the source go into the reel as they are, and only the rest is encoded.

What is copied begins with an IDR picture, before which nothing is needed, and ends where no picture that
follows in coding order is shown earlier. The encoder's parameter sets have numbers of their own, so that
both kinds stand in the file's header side by side, as ISO/IEC 14496-15 has it, and a decoder changes from
one to the other at IDR pictures only.
"""

import itertools
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags

from stages.container import LimitSettings, Source, open_source
from stages.cutter import STEPS_BACK_S
from stages.encode import SOFTWARE, Chapter, Form, ReelWriter, configure
from stages.picture import BT709, LIMITED, Colours, Look
from stages.timeline import Slot

# Each seam costs a keyframe: a shorter run is not worth it.
MIN_COPY_S = 0.5
# Pictures are coded at most so many before they are shown (H.264: MaxDpbFrames).
REORDER = 16
IDR, SPS, PPS, DELIMITER = 5, 7, 8, 9
START_CODE = b"\x00\x00\x00\x01"
PARAMETER_SETS = 32  # that a stream may hold, by their numbers
ON_GRID = 0.1  # of a frame
NO_RUN = f"no clip holds {MIN_COPY_S:g} s of whole pictures from an IDR picture on, clear of effects"


@dataclass(frozen=True)
class Coded:
    """One picture of the source, as its decoder wants it."""

    number: int  # in order of presentation, from the start of its clip
    key: bool
    data: bytes  # with start codes, without parameter sets


@dataclass(frozen=True)
class Copied:
    """A run of frames of a clip that is copied: `pictures` in coding order show `first` up to `end`."""

    slot: Slot
    first: int
    pictures: tuple[Coded, ...]

    @property
    def end(self) -> int:
        return self.first + len(self.pictures)


def unlike(facts: dict[str, Any], colours: Colours, look: Look, form: Form, graded: bool) -> str:
    """Why no coded picture of a source may stand in a reel of this form; "" if they may."""
    rate = Fraction(facts["fps_exact"])
    reasons = {
        f"the source is {facts['video_codec']}, not h264": facts["video_codec"] != "h264",
        "every picture is graded: set colour.kind to none": graded,
        f"its pictures are {facts['pixel_format']}, not yuv420p": facts["pixel_format"] != "yuv420p",
        "its pictures are turned": bool(look.rotation),
        "its pictures are interlaced": look.deinterlace,
        "its pictures are scaled": (look.width, look.height) != (facts["coded_width"], facts["coded_height"]),
        "its frame rate varies": bool(facts["variable_rate"]),
        f"the reel has {float(form.fps):g} frames/s": form.fps != rate,
        "its colours are not BT.709 in limited range": (colours.matrix, colours.range) != (BT709, LIMITED),
        f"{form.encoder} encodes the rest: set render.encoder to {SOFTWARE}": form.encoder != SOFTWARE,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def units(data: bytes, length_bytes: int) -> list[bytes]:
    """The NAL units of a packet, whose lengths take so many bytes each; 0: start codes stand between them."""
    if not length_bytes:
        return [unit.rstrip(b"\0") for unit in re.split(b"\x00\x00\x01", data) if unit.strip(b"\0")]
    found, at = [], 0
    while at + length_bytes < len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        found.append(data[at + length_bytes : at + length_bytes + size])
        at += length_bytes + size
    return found


def parameter_sets(extradata: bytes) -> tuple[list[bytes], int]:
    """The SPS and PPS of a stream's header, and how many bytes a length takes in its packets."""
    if extradata[:1] != b"\x01":
        return [unit for unit in units(extradata, 0) if unit[0] & 31 in (SPS, PPS)], 0
    found, at = [], 6
    for count in (extradata[5] & 31, None):
        if count is None:
            count, at = extradata[at], at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            found.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    return found, (extradata[4] & 3) + 1


def numbers_of(sets: Iterable[bytes]) -> set[int]:
    """The numbers that parameter sets have, seq_parameter_set_id or pic_parameter_set_id."""
    return {exp_golomb(unit[4:] if unit[0] & 31 == SPS else unit[1:]) for unit in sets}


def exp_golomb(data: bytes) -> int:
    """The unsigned number, ue(v) of H.264, that bytes begin with."""
    bits = "".join(f"{byte:08b}" for byte in data[:8])
    zeros = len(bits) - len(bits.lstrip("0"))
    return int(bits[zeros : 2 * zeros + 1], 2) - 1


class Copier:
    """Finds what may be copied of the clips of one source."""

    def __init__(self, uri: str, fps: Fraction, limits: LimitSettings, etag: str):
        self.uri, self.fps, self.limits, self.etag = uri, fps, limits, etag
        with open_source(uri, limits, etag) as source:
            extradata = source.video.codec_context.extradata or b""
        self.sets, self.length_bytes = parameter_sets(extradata) if extradata else ([], 0)

        # A number that no parameter set of the source has.
        self.free = min(set(range(PARAMETER_SETS)) - numbers_of(self.sets), default=None)

    @property
    def header(self) -> bytes:
        return b"".join(START_CODE + unit for unit in self.sets)

    @property
    def refused(self) -> str:
        """Why nothing of this source can be copied; "" if something may be."""
        if not self.sets:
            return "its header holds no parameter sets"
        if self.free is None:
            return (
                f"its parameter sets take all {PARAMETER_SETS} numbers, and none is left for what is encoded"
            )
        return ""

    def find(self, slot: Slot, low: int, high: int) -> Copied | None:
        """The run of frames from `low` up to `high` of a clip that may be copied, if there is one."""
        for step_s in STEPS_BACK_S[:2]:
            with open_source(self.uri, self.limits, self.etag) as source:
                begin_s = slot.start_s + float(low / self.fps) - step_s
                if begin_s > 0:
                    source.seek(begin_s)
                pictures = self._pictures(source, slot)
                first = next(pictures, None)
                if first is None:
                    return None
                if begin_s > 0 and first.number > low:
                    continue  # an index that leads too far
                run = self._whole(itertools.chain([first], pictures), low, high)
                break
        else:
            return None
        return Copied(slot, run[0].number, tuple(run)) if len(run) >= MIN_COPY_S * self.fps else None

    @staticmethod
    def _whole(pictures: Iterable[Coded | None], low: int, high: int) -> list[Coded]:
        """The longest run that begins with the first IDR picture from `low` on and is whole before `high`."""
        run: list[Coded] = []
        whole = last = 0
        for picture in pictures:
            if picture is None or last >= high + REORDER:
                break
            if not run and not (picture.key and picture.number >= low):
                continue
            run.append(picture)
            if picture.number < run[0].number:
                break
            last = max(last, picture.number)
            if last - run[0].number == len(run) - 1 and last < high:
                whole = len(run)
        return run[:whole]

    def _pictures(self, source: Source, slot: Slot) -> Iterator[Coded | None]:
        """The pictures in coding order; None where one is not what it would have to be, or is not shown."""
        begun = False
        for packet in source.packets(source.video):
            if packet.is_discard and not begun:
                continue  # what an edit list only decodes, for the pictures after it
            begun = True
            if packet.pts is None or not packet.size or packet.is_discard:
                yield None
                continue
            place = (source.seconds(packet) - slot.start_s) * float(self.fps)
            found = units(bytes(packet), self.length_bytes)
            kinds = [unit[0] & 31 for unit in found if unit]
            strange = any(
                unit not in self.sets for unit, kind in zip(found, kinds, strict=True) if kind in (SPS, PPS)
            )
            if strange or packet.is_corrupt or abs(place - round(place)) > ON_GRID:
                yield None
                continue
            kept = [u for u, k in zip(found, kinds, strict=True) if k not in (SPS, PPS, DELIMITER)]
            yield Coded(round(place), IDR in kinds, b"".join(START_CODE + unit for unit in kept))


def segments(slots: Sequence[Slot], copier: Copier, changed: Container[int]) -> Iterator[list[Slot] | Copied]:
    """The reel in order: clips and parts of them that are encoded together, and runs that are copied.

    changed   the clips that an effect goes over
    """
    waiting: list[Slot] = []
    for number, slot in enumerate(slots):
        shared = slots[number + 1].overlap if number + 1 < len(slots) else 0
        copied = None
        if slot.clip not in changed:
            copied = copier.find(slot, slot.overlap, slot.count - shared)
        if copied is None:
            waiting.append(slot)
            continue
        if copied.first:
            waiting.append(part(slot, 0, copied.first, copier.fps))
        if waiting:
            yield waiting
        yield copied
        waiting = [part(slot, copied.end, slot.count, copier.fps)] if copied.end < slot.count else []
    if waiting:
        yield waiting


def part(slot: Slot, first: int, end: int, fps: Fraction) -> Slot:
    """Frames `first` up to `end` of a clip as a clip of its own."""
    return replace(
        slot,
        start_s=slot.start_s + float(first / fps),
        end_s=slot.start_s + float(end / fps),
        first=slot.first + first,
        count=end - first,
        overlap=0 if first else slot.overlap,
        effect="cut" if first else slot.effect,
    )


class SpliceWriter(ReelWriter):
    """A reel that is partly copied. Frames and copied runs come in order; each run of frames is complete."""

    def __init__(
        self, path: Path, form: Form, chapters: Sequence[Chapter], audio: Path | None, copier: Copier
    ):
        self._header = copier.header
        self._written = 0
        self._encoder: av.VideoCodecContext | None = None
        super().__init__(path, replace(form, parameter_sets=copier.free), chapters, audio)

    def _begin(self, chapters: Sequence[Chapter]) -> None:
        super()._begin(chapters)
        context = self._video.codec_context
        context.open()
        context.extradata = self._header + context.extradata

    def add(self, frame: av.VideoFrame, key: bool = False) -> None:
        if self._encoder is None:
            self._encoder = av.CodecContext.create(self.form.encoder, "w")
            configure(self._encoder, self.form)
            self._encoder.flags |= Flags.global_header
        self.stamp(frame, key)
        self._put((packet, packet.pts) for packet in self._encoder.encode(frame))

    def copy(self, run: Copied) -> None:
        self._finish()
        first = self.frames - run.first
        self.frames += len(run.pictures)
        self.copied += len(run.pictures)
        for picture in run.pictures:
            packet = av.Packet(picture.data)
            packet.is_keyframe = picture.key
            self._put([(packet, first + picture.number)])

    def decode(self, run: Copied) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames of a run that was just copied, with their numbers in the reel."""
        context = av.CodecContext.create("h264", "r")
        context.extradata, context.thread_type = self._header, "AUTO"
        first = self.frames - len(run.pictures)
        packets = [av.Packet(picture.data) for picture in run.pictures]
        frames = (frame for packet in [*packets, None] for frame in context.decode(packet))
        yield from enumerate(frames, first)

    def close(self) -> None:
        self._finish()
        super().close()

    def _finish(self) -> None:
        if self._encoder is not None:
            self._put((packet, packet.pts) for packet in self._encoder.encode(None))
            self._encoder = None

    def _put(self, packets: Iterable[tuple[av.Packet, int]]) -> None:
        """Packets in coding order with the numbers of their frames."""
        for packet, number in packets:
            packet.stream, packet.time_base = self._video, 1 / self.form.fps
            packet.pts, packet.dts, packet.duration = number, self._written - REORDER, 1
            self._written += 1
            self._output.mux(packet)
            self.copy_sound()
