"""The camera: still if it can be, smooth if it moves, and no crop where none does the picture justice."""

from types import SimpleNamespace

import numpy as np
import pytest

from stages.camera import FASTEST, QUICKEST, does_justice, frame_shot, positions

STEP_S = 0.25
WINDOW = 0.316  # 9:16 out of 16:9
N = 128


def seen_at(*middles: np.ndarray, spread: float = 0.03) -> np.ndarray:
    """Mass [T, N] of as many equal subjects as there are courses [T]."""
    places = (np.arange(N) + 0.5) / N
    mass = sum(np.exp(-0.5 * ((places - course[:, None]) / spread) ** 2) for course in middles)
    return (mass / mass.sum(1, keepdims=True)).astype(np.float32)


def shot(
    mass: np.ndarray, faces: list | None = None, text: list | None = None, window: float = WINDOW
) -> np.ndarray | None:
    nothing = [None] * len(mass)
    return frame_shot(mass, faces or nothing, text or nothing, window, STEP_S)


def every_frame(path: np.ndarray, fps: int = 25) -> np.ndarray:
    return positions(path, np.arange(int((len(path) - 1) * STEP_S * fps) + 1) / (STEP_S * fps))


def assert_within_bounds(path: np.ndarray, fps: int = 25) -> None:
    frames = every_frame(path, fps)
    assert np.abs(np.diff(frames)).max() * fps <= FASTEST * 1.001
    assert np.abs(np.diff(frames, 2)).max() * fps**2 <= QUICKEST * 1.001
    assert frames.min() >= -1e-9
    assert frames.max() <= 1 - WINDOW + 1e-9


@pytest.mark.parametrize("middle", [0.05, 0.3, 0.5, 0.97])
def test_a_subject_that_stands_still_gives_a_window_that_stands_still(middle: float) -> None:
    path = shot(seen_at(np.full(20, middle)))
    assert np.ptp(path) == 0
    assert path[0] <= max(0, middle - 0.1)
    assert path[0] + WINDOW >= min(1, middle + 0.1)
    if 0.2 < middle < 0.8:  # it stands in the middle of the window
        assert path[0] + WINDOW / 2 == pytest.approx(middle, abs=0.03)


def test_a_subject_that_sways_is_no_reason_to_move() -> None:
    sway = 0.5 + 0.04 * np.sin(np.arange(40) * 0.9) + np.random.default_rng(1).normal(0, 0.01, 40)
    assert np.ptp(shot(seen_at(sway))) == 0


@pytest.mark.parametrize("seconds", [4, 8, 30])
def test_a_subject_that_crosses_the_picture_is_followed_within_the_bounds(seconds: int) -> None:
    moments = round(seconds / STEP_S) + 1
    course = np.linspace(0.15, 0.85, moments)
    path = shot(seen_at(course))
    assert np.ptp(path) > 0.3
    assert_within_bounds(path)
    frames = every_frame(path)
    subject = np.linspace(0.15, 0.85, len(frames))
    assert (frames <= subject - 0.02).all()
    assert (frames + WINDOW >= subject + 0.02).all()
    assert np.diff(frames).min() > -1e-4  # it never turns back


def test_one_move_of_the_subject_is_one_move_of_the_camera_and_no_faster() -> None:
    course = np.concatenate([np.full(16, 0.25), np.linspace(0.25, 0.75, 16), np.full(16, 0.75)])
    path = shot(seen_at(course))
    assert_within_bounds(path)
    frames = every_frame(path)
    assert np.diff(frames).min() > -1e-4
    assert np.diff(frames).max() * 25 < 0.5 / (16 * STEP_S)
    subject = np.interp(np.arange(len(frames)) / (25 * STEP_S), np.arange(len(course)), course)
    assert (frames <= subject - 0.02).all()
    assert (frames + WINDOW >= subject + 0.02).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_bounds_hold_whatever_there_is_to_see(seed: int) -> None:
    rng = np.random.default_rng(seed)
    jumps = rng.choice([0.1, 0.5, 0.9], 24)  # faster than any camera may move
    courses = [jumps, np.clip(np.cumsum(rng.normal(0, 0.08, 24)) + 0.5, 0, 1), np.linspace(0, 1, 24) ** 4]
    for course in courses:
        path = shot(seen_at(course))
        if path is not None:
            assert_within_bounds(path)
            assert_within_bounds(path, fps=60)


def test_two_subjects_far_apart_are_not_cropped() -> None:
    left, right = np.full(20, 0.15), np.full(20, 0.85)
    assert shot(seen_at(left, right)) is None
    # The same two fit into a square.
    assert shot(seen_at(left + 0.15, right - 0.15), window=0.5625) is not None


def test_a_picture_that_is_the_same_everywhere_is_not_cropped() -> None:
    assert shot(np.full((20, N), 1 / N, np.float32)) is None


def test_nothing_to_be_seen_is_shown_from_the_middle() -> None:
    path = shot(np.zeros((20, N), np.float32))
    assert path == pytest.approx(np.full(20, (1 - WINDOW) / 2), abs=0.01)


@pytest.mark.parametrize("what", ["faces", "text"])
def test_what_must_be_kept_is_kept_though_more_is_to_be_seen_elsewhere(what: str) -> None:
    mass = seen_at(np.full(20, 0.3), np.full(20, 0.32), np.full(20, 0.6))
    path = shot(mass, **{what: [(0.5, 0.7)] * 20})
    assert path is None or ((path <= 0.51) & (path + WINDOW >= 0.69)).all()
    near = shot(seen_at(np.full(20, 0.45)), **{what: [(0.4, 0.66)] * 20})
    assert ((near <= 0.41) & (near + WINDOW >= 0.65)).all()


@pytest.mark.parametrize("what", ["faces", "text"])
def test_what_must_be_kept_is_never_cut_when_it_is_too_wide(what: str) -> None:
    mass = seen_at(np.full(20, 0.5))
    assert shot(mass, **{what: [(0.2, 0.8)] * 20}) is None
    # For a moment it is no reason to give the crop up, and none to move.
    path = shot(mass, **{what: [(0.2, 0.8)] * 2 + [(0.45, 0.55)] * 18})
    assert np.ptp(path) == 0


def test_a_face_is_cut_for_no_more_than_one_look_in_error() -> None:
    """Ten seconds of somebody who stands still, and a face elsewhere."""
    mass = seen_at(np.full(40, 0.25))

    def with_face(moments: int) -> np.ndarray | None:
        return shot(mass, [None] * 20 + [(0.75, 0.9)] * moments + [None] * (20 - moments))

    assert with_face(2) is not None
    for moments in (3, 6):
        path = with_face(moments)
        at = None if path is None else positions(path, np.arange(20, 20 + moments))
        assert at is None or ((at <= 0.755) & (at + WINDOW >= 0.895)).all()
    # The same of text, which passes in the street, is given away for a while.
    assert shot(mass, None, [None] * 20 + [(0.75, 0.9)] * 5 + [None] * 15) is not None


def test_a_path_is_judged_by_what_it_shows_and_not_by_its_control_points() -> None:
    """A spline rounds off its control points: at the turn of a zigzag it is a third of the way back."""
    faces = [(0.3, 0.4), (0.6, 0.7)] * 6
    points = np.array([0.3, 0.384] * 6)  # each holds its face
    shown = positions(points, np.arange(12))
    mass = seen_at(np.full(12, 0.5))
    nothing = [None] * 12
    assert does_justice(mass, faces, nothing, points, WINDOW)
    assert not does_justice(mass, faces, nothing, shown, WINDOW)
    # No path of any shot is given that fails this.
    rng = np.random.default_rng(5)
    for _ in range(20):
        middles = np.clip(np.cumsum(rng.normal(0, 0.06, 30)) + 0.5, 0.1, 0.9)
        faces = [(x - 0.08, x + 0.08) for x in middles]
        path = shot(seen_at(middles), faces)
        at = None if path is None else positions(path, np.arange(30))
        assert at is None or does_justice(seen_at(middles), faces, [None] * 30, at, WINDOW)


def test_what_the_solver_does_not_find_is_no_movement(monkeypatch: pytest.MonkeyPatch) -> None:
    course = np.linspace(0.15, 0.85, 20)
    assert np.ptp(shot(seen_at(course))) > 0
    monkeypatch.setattr("stages.camera.linprog", lambda *_, **__: SimpleNamespace(status=4, x=None))
    still = shot(seen_at(course))
    assert still is None or np.ptp(still) == 0


@pytest.mark.parametrize("moments", [1, 2, 3, 4])
def test_the_shortest_of_clips_are_framed(moments: int) -> None:
    path = shot(seen_at(np.full(moments, 0.7)))
    assert positions(path, np.linspace(0, moments - 1, 5)) == pytest.approx(np.full(5, 0.54), abs=0.03)


def test_the_same_shot_is_framed_the_same_way() -> None:
    course = np.linspace(0.1, 0.9, 30)
    one, other = (shot(seen_at(course)) for _ in range(2))
    assert np.array_equal(one, other)
