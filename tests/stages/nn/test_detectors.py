"""The detectors: faces and lines of text are found where they are, and nowhere else."""

import cv2
import numpy as np
import pytest
from skimage import data

from stages.nn.detectors import Faces, Text


@pytest.fixture(scope="module")
def faces() -> Faces:
    return Faces()


@pytest.fixture(scope="module")
def text() -> Text:
    return Text()


def textures() -> list[np.ndarray]:
    """Pictures u8[224, 384, 3] without faces or words."""
    pictures = (data.coffee(), data.grass(), data.gravel(), data.brick())
    return [
        cv2.resize(picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), (384, 224))
        for picture in pictures
    ]


@pytest.mark.parametrize(("size", "side"), [((384, 224), 224), ((384, 224), 110), ((224, 384), 160)])
def test_a_face_is_found_at_any_size_and_place(faces: Faces, size: tuple[int, int], side: int) -> None:
    width, height = size
    astronaut = cv2.resize(data.astronaut()[:300, 60:360], (side, side), interpolation=cv2.INTER_AREA)
    for left in (0, width - side):
        picture = np.full((height, width, 3), 128, np.uint8)
        picture[height - side :, left : left + side] = astronaut
        (box,) = faces(picture)
        assert box[4] > 0.5
        middle = (box[0] + box[2]) / 2 * width - left, (box[1] + box[3]) / 2 * height - (height - side)
        assert middle == pytest.approx((0.55 * side, 0.37 * side), abs=0.1 * side)
        assert 0.2 * side < (box[3] - box[1]) * height < 0.6 * side


def test_lines_of_text_are_found_whole(text: Text) -> None:
    picture = np.full((224, 384, 3), 250, np.uint8)
    lines = {60: "Lines of text", 120: "are found whole"}
    for y, line in lines.items():
        cv2.putText(picture, line, (40, y), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (30, 30, 30), 2, cv2.LINE_AA)
    found = sorted(text(picture).tolist(), key=lambda box: box[1])
    assert len(found) == 2
    for (y, line), (left, top, right, bottom, _) in zip(lines.items(), found, strict=True):
        (width, height), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.9, 2)
        assert left * 384 <= 44
        assert right * 384 >= 40 + width - 6
        assert top * 224 <= y - height + 8
        assert bottom * 224 >= y - 4


def test_where_there_is_nothing_nothing_is_found(faces: Faces, text: Text) -> None:
    for picture in (*textures(), np.zeros((224, 384, 3), np.uint8), np.zeros((384, 224, 3), np.uint8)):
        assert faces(picture).shape == (0, 5)
        assert text(picture).shape == (0, 5)
