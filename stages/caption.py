"""Names over pictures: two lines in the lower third, drawn once, laid on finished frames.

White on a shadow on a darker plate, so that it can be read on any picture; it comes and goes within its
clip, clear of the transitions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import av
import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 1 / 24  # of the shorter side of the picture: the height of the first line's letters and their room
LEAST_PX = 13
SECOND = 0.78  # size of the second line
MARGIN = 1 / 18  # from the left and from the bottom, of the width and of the height
WIDEST = 0.86  # of the picture's width
SHADOW = 0.85
PLATE = 0.45  # of black behind both lines: a shadow alone is lost on white
WHITE, BLACK = 235, 16  # luma in limited range
SHOWN_S, FADE_S = 3.0, 0.3


@dataclass(frozen=True)
class Caption:
    """Where it lies, and how much of white (text) and black (shadow) it lays over luma and chroma."""

    left: int
    top: int
    text: np.ndarray  # f32[h, w] in [0, 1]
    shadow: np.ndarray

    def on(self, frame: av.VideoFrame, share: float) -> av.VideoFrame:
        """A finished frame (yuv420p) with so much of the caption, 0 to 1; the frame itself is left alone."""
        height, width = frame.height, frame.width
        flat = frame.to_ndarray().reshape(-1)
        luma = flat[: width * height].reshape(height, width)
        chroma = flat[width * height :].reshape(2, height // 2, width // 2)
        h, w = self.text.shape
        part = luma[self.top : self.top + h, self.left : self.left + w]
        text, shadow = share * self.text, share * self.shadow
        dark = part * (1 - shadow) + BLACK * shadow
        part[:] = np.rint(dark * (1 - text) + WHITE * text)
        over = 1 - (1 - shadow) * (1 - text)
        over = cv2.resize(over, (w // 2, h // 2), interpolation=cv2.INTER_AREA)
        rows = slice(self.top // 2, (self.top + h) // 2)
        columns = slice(self.left // 2, (self.left + w) // 2)
        chroma[:, rows, columns] = np.rint(chroma[:, rows, columns] * (1 - over) + 128 * over)
        return av.VideoFrame.from_ndarray(flat.reshape(-1, width), format="yuv420p")


def draw_caption(first: str, second: str, size: tuple[int, int], font: str | None = None) -> Caption | None:
    """The caption for pictures of that size; a name that is too long is cut. None where there is no room."""
    width, height = size
    px = max(LEAST_PX, round(SIZE * min(size)))
    room = round(WIDEST * width)
    lines = [(first, _font(font, px)), (second, _font(font, max(LEAST_PX - 2, round(SECOND * px))))]
    lines = [(fitting(text, face, room), face) for text, face in lines if text]
    pad = px // 2
    step = round(1.35 * px)
    h = (step * len(lines) + 2 * pad) // 2 * 2
    w = min(width, round(max(face.getlength(text) for text, face in lines)) + 2 * pad) // 2 * 2
    if h > height:
        return None
    picture = Image.new("L", (w, h))
    pen = ImageDraw.Draw(picture)
    for number, (text, face) in enumerate(lines):
        pen.text((pad, pad + number * step + step // 2), text, 255, face, anchor="lm")
    drawn = np.asarray(picture, np.float32) / 255
    spread = cv2.dilate(drawn, np.ones((3, 3), np.uint8))
    shadow = SHADOW * np.clip(2.2 * cv2.GaussianBlur(spread, (0, 0), px / 7), 0, 1)
    shadow = np.maximum(shadow, PLATE)
    left = min(max(0, round(MARGIN * width) - pad), width - w) // 2 * 2
    top = min(max(0, round((1 - MARGIN) * height) - h + pad), height - h) // 2 * 2
    return Caption(left, top, drawn, shadow)


def fitting(text: str, face: ImageFont.FreeTypeFont, room: float) -> str:
    """As much of the text as has room; names are data, and what cannot be printed is left out."""
    text = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    if face.getlength(text) <= room:
        return text
    while text and face.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _font(path: str | None, px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, px) if path else ImageFont.load_default(px)


def captioned(
    frames: Iterator[av.VideoFrame], caption: Caption, first: int, end: int, fade: int
) -> Iterator[av.VideoFrame]:
    """The frames, those from `first` to before `end` with the caption, which fades over `fade` frames."""
    for number, frame in enumerate(frames):
        ramp = min(number - first + 1, end - number) / (fade + 1)
        yield caption.on(frame, min(1.0, ramp)) if ramp > 0 else frame
