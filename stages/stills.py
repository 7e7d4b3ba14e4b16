"""Pictures of a reel, made from the finished frames as they go by: a storyboard, and previews for players.

storyboard.jpg   a picture of every clip with its times and what joins it to the one before; of more than 200
                 clips, of as many of them from the first to the last
thumbnails.vtt   a WebVTT track of previews, in thumbnails.jpg: `thumbnails.jpg#xywh=x,y,width,height`
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image, ImageDraw, ImageFont

from stages.timeline import Slot

STORYBOARD, PREVIEWS, TRACK = "storyboard.jpg", "thumbnails.jpg", "thumbnails.vtt"
PREVIEW_PX, PREVIEW_EVERY_S, MAX_PREVIEWS, PREVIEWS_A_ROW = 160, 1.0, 100, 10
PICTURE_PX, SHEET_PX, MARGIN_PX, CAPTION_PX, TEXT_PX = 320, 1360, 16, 44, 15
# A JPEG ends at 65,500 px, and a sheet is made in memory: of square pictures this one takes 78 MB.
MAX_PICTURES = 200
QUALITY = 88
PAPER, INK, FAINT = (22, 24, 28), (236, 238, 241), (150, 156, 166)


class Stills:
    """Shown every frame of a reel in order, keeps small pictures of those that it needs."""

    def __init__(self, slots: Sequence[Slot], fps: Fraction):
        self.slots, self.fps, self.end = slots, fps, slots[-1].end
        # The middle of what a clip has for itself: no transition lies over it.
        after = [slot.overlap for slot in slots[1:]] + [0]
        self.middles = {
            slots[n].first + (slots[n].overlap + slots[n].count - after[n]) // 2: n
            for n in np.linspace(0, len(slots) - 1, min(len(slots), MAX_PICTURES)).round().astype(int)
        }
        step = max(round(PREVIEW_EVERY_S * fps), -(-self.end // MAX_PREVIEWS))
        self.previews = range(0, self.end, step)
        # A preview stands for a whole step: its middle shows more of it than where it begins.
        self._preview_at = {min(self.end - 1, first + step // 2): first for first in self.previews}
        self._pictures: dict[int, Image.Image] = {}
        self._small: dict[int, Image.Image] = {}

    @property
    def wanted(self) -> set[int]:
        """The numbers of the frames that are kept."""
        return {*self.middles, *self._preview_at}

    def see(self, number: int, frame: av.VideoFrame) -> None:
        if number in self._preview_at:
            self._small[self._preview_at[number]] = smaller(frame, PREVIEW_PX)
        if number in self.middles:
            self._pictures[number] = smaller(frame, PICTURE_PX)

    def write(self, folder: Path) -> dict[str, Path]:
        """The files by their names, when all frames have been seen."""
        files = {name: folder / name for name in (STORYBOARD, PREVIEWS, TRACK)}
        pictures = [self._pictures[middle] for middle in self.middles]
        texts = [captions(number, self.slots[number], self.fps) for number in self.middles.values()]
        storyboard(pictures, texts).save(files[STORYBOARD], quality=QUALITY)
        sprite([self._small[first] for first in self.previews]).save(files[PREVIEWS], quality=QUALITY)
        starts = [float(first / self.fps) for first in [*self.previews, self.end]]
        files[TRACK].write_text(track(starts, self._small[0].size))
        return files


def smaller(frame: av.VideoFrame, side: int) -> Image.Image:
    """A finished frame with its longer side scaled to `side` pixels."""
    scale = side / max(frame.width, frame.height)
    small = frame.reformat(
        width=max(1, round(frame.width * scale)),
        height=max(1, round(frame.height * scale)),
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation="AREA",
    )
    return Image.fromarray(np.ascontiguousarray(small.to_ndarray()))


def storyboard(pictures: Sequence[Image.Image], texts: Sequence[tuple[str, str]]) -> Image.Image:
    """All pictures on one sheet, row by row, each over its two lines of text."""
    width, height = pictures[0].size
    columns = min(len(pictures), (SHEET_PX - MARGIN_PX) // (width + MARGIN_PX))
    rows = -(-len(pictures) // columns)
    across, down = width + MARGIN_PX, height + CAPTION_PX + MARGIN_PX
    sheet = Image.new("RGB", (columns * across + MARGIN_PX, rows * down + MARGIN_PX), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_PX)
    for number, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        x = MARGIN_PX + number % columns * across
        y = MARGIN_PX + number // columns * down
        sheet.paste(picture, (x, y))
        for line, (text, colour) in enumerate(zip(lines, (INK, FAINT), strict=True)):
            pen.text((x, y + height + 5 + line * (TEXT_PX + 4)), text, fill=colour, font=font)
    return sheet


def captions(number: int, slot: Slot, fps: Fraction) -> tuple[str, str]:
    """Where a clip stands in the reel and how it comes in; what of the source it is."""
    joined = f"{slot.effect} {float(slot.overlap / fps):.2f} s" if slot.overlap else slot.effect
    way = "" if number == 0 else f"  ·  {joined}"
    length_s = float(slot.count / fps)
    return (
        f"{number + 1}   {tenths(float(slot.first / fps))}{way}",
        f"{tenths(slot.start_s)} to {tenths(slot.start_s + length_s)}, {length_s:.1f} s",
    )


def tenths(seconds: float) -> str:
    whole = round(seconds * 10)
    return f"{whole // 600}:{whole // 10 % 60:02d}.{whole % 10}"


def sprite(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size side by side, without gaps."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // PREVIEWS_A_ROW)
    sheet = Image.new("RGB", (min(len(pictures), PREVIEWS_A_ROW) * width, rows * height))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, place(number, picture.size))
    return sheet


def place(number: int, size: tuple[int, int]) -> tuple[int, int]:
    """The upper left corner of a preview in its sheet."""
    return number % PREVIEWS_A_ROW * size[0], number // PREVIEWS_A_ROW * size[1]


def track(starts: Sequence[float], size: tuple[int, int]) -> str:
    """WebVTT cues, one from each start to the next; the last start is the end of the reel."""
    cues = ["WEBVTT"]
    for number in range(len(starts) - 1):
        x, y = place(number, size)
        cues.append(
            f"{stamp(starts[number])} --> {stamp(starts[number + 1])}\n"
            f"{PREVIEWS}#xywh={x},{y},{size[0]},{size[1]}"
        )
    return "\n\n".join(cues) + "\n"


def stamp(seconds: float) -> str:
    """hh:mm:ss.mmm"""
    thousandths = round(seconds * 1000)
    whole = thousandths // 1000
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{thousandths % 1000:03d}"
