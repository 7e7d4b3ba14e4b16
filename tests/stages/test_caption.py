"""Captions of any picture: inside it however small it is, and none where there is no room."""

import av
import numpy as np
import pytest

from stages.caption import draw_caption


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (50, 48), (320, 180), (180, 320), (1920, 1080)])
def test_a_caption_lies_within_its_picture(size: tuple[int, int]) -> None:
    caption = draw_caption("A rather long name of a video, of a day in November", "1:23", size)
    width, height = size
    frame = av.VideoFrame.from_ndarray(np.full((height * 3 // 2, width), 128, np.uint8), format="yuv420p")
    luma = caption.on(frame, 1.0).to_ndarray()[:height].astype(int)
    assert luma.max() > 200
    rows, columns = np.nonzero(luma != 128)
    assert rows.min() >= caption.top
    assert rows.max() < caption.top + caption.text.shape[0] <= height
    assert columns.max() < caption.left + caption.text.shape[1] <= width


def test_there_is_none_where_it_has_no_room() -> None:
    assert draw_caption("name", "1:23", (64, 36)) is None
