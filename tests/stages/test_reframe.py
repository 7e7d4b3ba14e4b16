"""Reels of another shape: the subject stays in the window, what stands still does, nothing is cut off."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data

from stages.attention import Attention
from stages.container import open_source
from stages.nn.detectors import Faces
from stages.probe import describe
from stages.reframe import Part, barred, least, parts_of, portions, reel_size, split, whole, windowed
from stages.render import Render, RenderSettings, _Reel
from stages.timeline import Slot
from tests.media import make_film, make_video, read_counter, read_pictures

FPS = 25
RADIUS = 18


def meadow(height: int = 180, width: int = 320) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 6, (height // 4, width // 4, 3)).astype(np.float32)
    field = np.float32([70, 120, 60]) + cv2.resize(noise, (width, height))
    return np.clip(field, 0, 255).astype(np.uint8)


def with_disc(x: float, y: float = 90, picture: np.ndarray | None = None) -> np.ndarray:
    """Drawn between the pixels."""
    picture = (meadow() if picture is None else picture).copy()
    place = round(x * 16), round(y * 16)
    return cv2.circle(picture, place, RADIUS * 16, (230, 30, 30), -1, cv2.LINE_AA, shift=4)


def red(picture: np.ndarray) -> np.ndarray:
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    return (red > 140) & (green < 110) & (blue < 110)


def row_of(path: Path, spans: list[tuple[float, float]], shots: list[int] | None = None) -> dict:
    with open_source(str(path)) as source:
        probe = describe(source)
    edits, at_s = [], 0.0
    for clip, (start_s, end_s) in enumerate(spans):
        edits.append(
            {
                "clip": clip,
                "source_start_s": start_s,
                "source_end_s": end_s,
                "reel_start_s": at_s,
                "transition": "cut",
                "transition_s": 0.0,
            }
        )
        at_s += end_s - start_s
    shots = shots or list(range(len(spans)))
    clips = [{"clip": n, "shot": shot, "score": 0.5} for n, shot in enumerate(shots)]
    return {"uri": str(path), "probe": probe, "edits": edits, "clips": clips, "cuts_s": np.empty(0)}


def render(row: dict, folder: Path, aspect: str = "9:16", **settings: object) -> dict:
    folder.mkdir(exist_ok=True)
    return Render(RenderSettings(crf=10, aspect=aspect, **settings), None, None)(row, folder)


def views_of(row: dict, folder: Path, aspect: str = "9:16") -> list:
    """The views of a reel's clips, without rendering it."""
    reel = _Reel(Render(RenderSettings(aspect=aspect), None, None), row, folder)
    reel._prepare()
    return [view for clip in reel.views.values() for view in clip]


@pytest.mark.parametrize(
    ("source", "aspect", "max_height", "reel"),
    [
        ((1920, 1080), "9:16", None, (1080, 1920)),
        ((1920, 1080), "1:1", None, (1080, 1080)),
        ((1920, 1080), "4:5", None, (1080, 1350)),
        ((1080, 1920), "16:9", None, (1920, 1080)),
        ((1920, 1080), "16:9", None, (1920, 1080)),
        ((1920, 1080), "9:16", 1280, (720, 1280)),
        ((1920, 804), "16:9", None, (1428, 804)),
        ((640, 360), "9:16", None, (360, 640)),
        ((161, 91), "1:1", None, (90, 90)),
        ((161, 91), "16:9", None, (160, 90)),
        ((161, 91), "source", None, (160, 90)),
        ((1920, 1080), "source", 720, (1280, 720)),
    ],
)
def test_the_short_side_of_a_reel_is_that_of_its_source(source, aspect, max_height, reel) -> None:
    assert reel_size(*source, aspect, max_height) == reel


def test_a_bright_object_that_crosses_the_picture_stays_in_the_window_on_every_frame(tmp_path: Path) -> None:
    course = np.linspace(45, 275, 4 * FPS)
    film = make_film(tmp_path / "a.mp4", [with_disc(x) for x in course], FPS)
    reel = render(row_of(film, [(0, 4)]), tmp_path / "out")
    pictures = read_pictures(reel["files"]["reel.mp4"])
    assert len(pictures) == len(course)
    assert pictures[0].shape == (320, 180, 3)
    area = np.pi * (RADIUS * 320 / 180) ** 2
    assert min(red(picture).sum() for picture in pictures) > 0.9 * area
    # Its way through the reel's frame is even: what is left of its movement does not judder.
    middles = np.array([np.nonzero(red(picture))[1].mean() for picture in pictures])
    assert np.abs(np.diff(middles, 2)).max() < 1.0


def test_a_pan_is_seen_to_move_between_the_pixels(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", [with_disc(x) for x in np.linspace(60, 260, 6 * FPS)], FPS)
    (view,) = views_of(row_of(film, [(0, 6)]), tmp_path)
    assert view.begins is not None
    assert len(view.begins) == view.frames == 6 * FPS
    assert np.ptp(view.begins) > 0.3
    assert view.first == pytest.approx(view.begins.min())
    assert view.first + view.share == pytest.approx(view.begins.max() + 0.3164, abs=1e-3)


def test_what_stands_still_is_shown_by_a_window_that_stands_perfectly_still(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", [with_disc(230)] * (3 * FPS), FPS)
    row = row_of(film, [(0, 3)])
    (view,) = views_of(row, tmp_path)
    assert (view.begins, view.bars) == (None, False)
    assert view.first <= 0.72 - RADIUS / 320
    assert view.first + view.share >= 0.72 + RADIUS / 320
    pictures = np.stack(read_pictures(render(row, tmp_path / "out")["files"]["reel.mp4"])).astype(int)
    assert np.abs(pictures - pictures[0]).max() < 16  # what a codec leaves of nothing
    middles = [np.nonzero(red(picture.astype(np.uint8)))[1].mean() for picture in pictures]
    assert np.ptp(middles) < 0.05


def test_a_shot_that_goes_on_in_the_next_clip_is_one_movement(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", [with_disc(x) for x in np.linspace(50, 270, 6 * FPS)], FPS)
    first, second = views_of(row_of(film, [(0, 3), (3, 6)], shots=[0, 0]), tmp_path)
    seam = np.concatenate([first.begins[-3:], second.begins[:3]])
    assert np.abs(np.diff(seam)).max() < 0.02
    assert np.abs(np.diff(seam, 2)).max() < 0.002


def test_a_cut_within_a_clip_is_a_cut_of_the_window_too(tmp_path: Path) -> None:
    pictures = [with_disc(60)] * 40 + [with_disc(250)] * 60
    row = row_of(make_film(tmp_path / "a.mp4", pictures, FPS), [(0, 4)]) | {"cuts_s": np.array([1.6])}
    views = views_of(row, tmp_path)
    assert [view.frames for view in views] == [40, 60]
    assert all(view.begins is None for view in views)
    reel = read_pictures(render(row, tmp_path / "out")["files"]["reel.mp4"])
    area = np.pi * (RADIUS * 320 / 180) ** 2
    assert min(red(picture).sum() for picture in reel) > 0.9 * area


def test_two_people_far_apart_are_both_shown_before_a_blurred_copy(tmp_path: Path) -> None:
    face = cv2.resize(data.astronaut()[:280, 80:360], (150, 150), interpolation=cv2.INTER_AREA)
    scene = meadow(360, 640)
    scene[180:330, 10:160] = face
    scene[180:330, 480:630] = face[:, ::-1]
    row = row_of(make_film(tmp_path / "a.mp4", [scene] * 30, FPS), [(0, 1.2)])
    (view,) = views_of(row, tmp_path)
    assert (view.bars, view.begins) == (True, None)
    picture = read_pictures(render(row, tmp_path / "out")["files"]["reel.mp4"])[10]
    assert picture.shape == (640, 360, 3)
    assert len(Faces()(picture[:, :352])) == 2
    assert picture[:150].std() < 0.5 * scene.std()  # the bars hold no second picture
    assert picture[:150].mean() < 0.7 * scene.mean()
    square = views_of(row, tmp_path, "1:1")
    assert square[0].bars


def test_a_slide_is_shown_whole(tmp_path: Path) -> None:
    slide = np.full((360, 640, 3), 250, np.uint8)
    for n, line in enumerate(
        ("What a lesson says in words", "- must not be cut off", "- is read from left to right")
    ):
        cv2.putText(
            slide, line, (40, 90 + 70 * n), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (30, 30, 60), 2, cv2.LINE_AA
        )
    row = row_of(make_film(tmp_path / "a.mp4", [slide] * 40, FPS), [(0, 1.6)])
    for aspect in ("9:16", "1:1", "4:5"):
        (view,) = views_of(row, tmp_path, aspect)
        assert (view.bars, view.first, view.share) == (True, 0.0, 1.0)


@pytest.mark.parametrize(
    ("aspect", "options"),
    [
        ("9:16", {}),
        ("16:9", {"rotation": 90, "size": (320, 180)}),
        ("4:5", {"rotation": 180}),
        ("1:1", {"sample_aspect_ratio": (4, 3)}),
        ("9:16", {"size": (161, 91), "pixel_format": "yuv444p"}),
        ("1:1", {"vfr": True, "seconds": 6}),
        ("9:16", {"options": {"x264-params": "interlaced=1"}, "size": (160, 96)}),
        ("4:5", {"fps": 5}),
    ],
)
def test_every_kind_of_source_fits_other_shapes_and_is_whole_before_its_copy(tmp_path, aspect, options):
    facts = make_video(tmp_path / "v.mkv", audio=None, **{"seconds": 2} | options)
    row = row_of(facts.path, [(0.2, 0.8), (1.2, 1.6)])
    for fit in ("crop", "blur"):
        made = render(row, tmp_path / fit, aspect, fit=fit, clips=True)
        across, down = map(int, aspect.split(":"))
        width, height = made["reel"]["width"], made["reel"]["height"]
        assert (width % 2, height % 2) == (0, 0)
        assert abs(width * down - height * across) <= 2 * max(across, down)
        films = {name: file for name, file in made["files"].items() if file.suffix == ".mp4"}
        assert len(films) == 3
        for name, file in [*films.items(), ("poster.jpg", made["files"]["poster.jpg"])]:
            with av.open(str(file)) as opened:
                stream = opened.streams.video[0]
                assert (stream.codec_context.width, stream.codec_context.height) == (width, height), name
    pictures = read_pictures(made["files"]["reel.mp4"])
    scale = min(width / facts.width, height / facts.height)
    w, h = round(facts.width * scale), round(facts.height * scale)
    left, top = (width - w) // 2, (height - h) // 2
    shown = [read_counter(picture[top : top + h, left : left + w]) for picture in pictures]
    assert abs(facts.times_s[shown[0]] - 0.2) < 1.5 / facts.fps
    assert shown == sorted(shown)


def test_the_aspect_of_the_source_needs_no_crop_and_no_look(tmp_path: Path) -> None:
    facts = make_video(tmp_path / "a.mkv", size=(161, 91), pixel_format="yuv444p", audio=None, seconds=2)
    row = row_of(facts.path, [(0, 2)])
    same, asked = (render(row, tmp_path / name, name) for name in ("source", "16:9"))
    a, b = (np.stack(read_pictures(made["files"]["reel.mp4"])).astype(int) for made in (same, asked))
    assert np.abs(a - b).mean() < 0.5
    (view,) = views_of(row, tmp_path, "16:9")
    assert (view.first, view.share, view.begins, view.bars) == (0, 1, None, False)


def test_a_window_between_the_pixels_is_sampled_there() -> None:
    ramp = np.add.outer(np.zeros(16), 2 * np.arange(64)).astype(np.uint8) + 40
    chroma = np.add.outer(np.zeros(8), 2 * np.arange(32)).astype(np.uint8) + 90
    frame = whole([ramp, chroma, chroma])
    for shift in (0.0, 0.5, 3.25, 10.0):
        luma, blue, red = split(windowed(frame, shift, True, 32, 16))
        assert luma.shape == (16, 32)
        assert luma[:, 2:-2].mean() == pytest.approx(40 + 2 * (shift + 15.5), abs=0.6)
        assert blue[:, 2:-2].mean() == pytest.approx(90 + 2 * (shift / 2 + 7.5), abs=0.6)
        assert np.array_equal(blue, red)
    down = windowed(whole([ramp.T.copy(), chroma.T.copy(), chroma.T.copy()]), 3.25, False, 16, 32)
    assert split(down)[0][2:-2].mean() == pytest.approx(40 + 2 * (3.25 + 15.5), abs=0.6)


def test_bars_hold_the_picture_untouched_in_their_middle() -> None:
    luma = np.random.default_rng(0).integers(16, 236, (36, 64)).astype(np.uint8)
    chroma = np.full((18, 32), 100, np.uint8)
    luma_out, blue, _ = split(barred(whole([luma, chroma, chroma]), 64, 114))
    assert luma_out.shape == (114, 64)
    assert np.array_equal(luma_out[38:74], luma)
    assert np.array_equal(blue[19:37], chroma)
    assert luma_out[:38].std() < luma.std() / 4
    assert luma_out[:38].mean() < luma.mean() * 0.7


def test_clips_are_divided_at_cuts_and_go_on_where_one_ends_as_the_next_begins() -> None:
    fps = Fraction(25)
    slots = [
        Slot(0, 1.0, 3.0, 0, 50, 0, "cut"),
        Slot(1, 3.0, 5.0, 50, 50, 0, "cut"),
        Slot(2, 5.0, 7.0, 95, 50, 5, "dissolve"),
    ]
    clips = {n: {"shot": shot} for n, shot in enumerate((0, 0, 0))}
    parts = parts_of(slots, clips, [0.5, 1.0, 3.4, 7.0, 9.0], fps)
    assert parts == {
        0: [Part(0, 50, 0)],
        1: [Part(0, 10, 50), Part(10, 40, 0)],
        2: [Part(0, 50, 0)],
    }
    others = parts_of(slots, {n: {"shot": n} for n in range(3)}, [], fps)
    assert not any(part.before for some in others.values() for part in some)


def test_a_frame_that_is_held_over_a_cut_is_shown_on_both_sides_of_it() -> None:
    frames = iter([("a", 3), ("b", 5), ("c", 2)])
    assert [list(portion) for portion in portions(frames, [4, 1, 5])] == [
        [("a", 3), ("b", 1)],
        [("b", 1)],
        [("b", 3), ("c", 2)],
    ]


def test_before_bars_stands_no_more_of_the_picture_than_it_takes() -> None:
    mass = np.zeros((4, 128), np.float32)
    mass[:, [40, 90]] = 0.5
    group = Attention(mass, [None] * 4, [None] * 4)
    first, share = least(group, 0.3)
    assert first <= 40 / 128
    assert first + share >= 91 / 128
    assert share < 0.5
    faces = Attention(mass, [(0.2, 0.4), None, None, None], [None] * 4)
    assert least(faces, 0.3)[0] <= 0.2
    # Something to read is shown whole, and so is a picture of which nearly all is wanted.
    assert least(Attention(mass, [None] * 4, [(0.4, 0.6)] + [None] * 3), 0.3) == (0.0, 1.0)
    assert least(Attention(np.full((4, 128), 1 / 128, np.float32), [None] * 4, [None] * 4), 0.3) == (0.0, 1.0)
    assert least(Attention(np.zeros((4, 128), np.float32), [None] * 4, [None] * 4), 0.3)[1] <= 1
