"""What is seen: what stands out, what moves though the camera does too, faces, and text that stays."""

import cv2
import numpy as np
import pytest

from stages.attention import BINS, Attend, alike, large, lasting, reach, readable

HEIGHT, WIDTH = 224, 384
NOTHING = np.empty((0, 5), np.float32)


def nothing(picture: np.ndarray) -> np.ndarray:
    return NOTHING


def boxes(*found: tuple[float, ...]) -> np.ndarray:
    return np.float32(found).reshape(-1, 5)


def meadow(seed: int = 0, wide: int = WIDTH) -> np.ndarray:
    """A textured backdrop u8[HEIGHT, wide, 3] without anything in it."""
    noise = np.random.default_rng(seed).normal(0, 9, (HEIGHT // 4, wide // 4, 3)).astype(np.float32)
    return np.clip(np.float32([70, 120, 60]) + cv2.resize(noise, (wide, HEIGHT)), 0, 255).astype(np.uint8)


def with_disc(picture: np.ndarray, x: float, y: float = 0.5, colour: tuple = (220, 40, 30)) -> np.ndarray:
    height, width = picture.shape[:2]
    return cv2.circle(picture.copy(), (round(x * width), round(y * height)), 20, colour, -1, cv2.LINE_AA)


def middle(mass: np.ndarray) -> float:
    return float((mass * (np.arange(BINS) + 0.5)).sum() / BINS / mass.sum())


def inside(mass: np.ndarray, low: float, high: float) -> float:
    return float(mass[round(low * BINS) : round(high * BINS)].sum() / mass.sum())


@pytest.mark.parametrize("x", [0.15, 0.5, 0.8])
@pytest.mark.parametrize("colour", [(220, 40, 30), (20, 20, 25), (240, 240, 240)])
def test_a_thing_of_another_colour_is_where_the_eye_goes(x: float, colour: tuple) -> None:
    frames = np.stack([with_disc(meadow(), x, colour=colour)] * 4)
    seen = Attend(nothing, nothing)(frames, across=True)
    assert seen.mass.shape == (4, BINS)
    assert seen.mass.sum(1) == pytest.approx(np.ones(4))
    assert inside(seen.mass[2], x - 0.12, x + 0.12) > 0.6


def test_a_small_thing_that_moves_is_seen_though_the_camera_pans_over_much_else() -> None:
    world = meadow(wide=2 * WIDTH)
    frames = []
    for n in range(8):
        view = world[:, 12 * n : 12 * n + WIDTH]
        for x in (0.3, 0.55):  # things that stand in the world, and so move in the picture
            view = with_disc(view, x - 12 * n / WIDTH, 0.3, (200, 200, 90))
        frames.append(with_disc(view, 0.8, 0.3 + 0.06 * n, (200, 200, 90)))
    mass = Attend(nothing, nothing)(np.stack(frames), across=True).mass
    assert np.mean([inside(one, 0.7, 0.9) for one in mass[1:-1]]) > 0.4


def test_the_axis_is_the_one_that_the_crop_moves_on() -> None:
    frames = np.stack([with_disc(meadow(), 0.5, 0.2)] * 2)
    assert middle(Attend(nothing, nothing)(frames, across=True).mass[0]) == pytest.approx(0.5, abs=0.05)
    assert middle(Attend(nothing, nothing)(frames, across=False).mass[0]) == pytest.approx(0.2, abs=0.08)


def test_a_black_picture_is_nothing_to_look_at() -> None:
    seen = Attend(nothing, nothing)(np.zeros((3, HEIGHT, WIDTH, 3), np.uint8), across=True)
    assert not seen.mass.any()
    assert seen.faces == seen.text == [None] * 3


def test_a_large_face_outweighs_a_bright_thing_and_must_be_kept_with_its_hair() -> None:
    frames = np.stack([with_disc(meadow(), 0.8)] * 4)
    face = boxes((0.2, 0.2, 0.3, 0.5, 0.9))
    seen = Attend(lambda picture: face, nothing)(frames, across=True)
    assert inside(seen.mass[1], 0.1, 0.4) > 0.55
    low, high = seen.faces[1]
    assert low < 0.18
    assert high > 0.32


def test_a_crowd_is_no_subject_and_who_stands_far_behind_is_none_either() -> None:
    near, far, tiny = (0.1, 0.1, 0.3, 0.5, 0.9), (0.6, 0.1, 0.7, 0.25, 0.9), (0.9, 0.1, 0.92, 0.13, 0.9)
    assert reach(large(boxes(near, far, tiny)), True, 0.0) == pytest.approx((0.1, 0.3))
    assert len(large(boxes(tiny))) == 0
    assert reach(large(boxes(far)), True, 0.0) == pytest.approx((0.6, 0.7))
    assert reach(NOTHING, True, 0.0) is None


def test_text_is_kept_if_it_is_large_enough_to_be_read_and_stays() -> None:
    title, label = (0.1, 0.8, 0.6, 0.9, 0.9), (0.5, 0.5, 0.54, 0.51, 0.9)
    assert len(readable(boxes(title, label))) == 1
    passing = [boxes((x, 0.5, x + 0.1, 0.6, 0.9)) for x in (0.1, 0.3, 0.5, 0.7)]
    assert [len(one) for one in lasting(passing)][1:3] == [0, 0]
    staying = [NOTHING, boxes(title), boxes(title), NOTHING]
    assert [len(one) for one in lasting(staying)] == [0, 1, 1, 0]
    # What a shot ends with may go on beyond it.
    assert [len(one) for one in lasting([NOTHING, NOTHING, boxes(title)])] == [0, 0, 1]


def test_boxes_are_alike_when_they_cover_one_place() -> None:
    one = boxes((0.1, 0.1, 0.5, 0.2, 0.9))
    assert alike(one, boxes((0.12, 0.1, 0.5, 0.2, 0.5))).all()
    assert not alike(one, boxes((0.1, 0.3, 0.5, 0.4, 0.9))).any()
    assert not alike(one, NOTHING).any()
