"""A camera flash is no cut, wherever it falls; a cut beside one still is."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stages.decode import DecodeSettings
from stages.shots import ShotFinder, is_flash
from tests.media import Shot, draw, make_video, texture
from tests.stages.test_decode import whole

SIZE = (160, 90)
DETECTORS = ("adaptive", "content", "hash", "histogram")
LOOKS = texture(3, *SIZE), texture(4, *SIZE)


def found(
    detector: str, lit: set[int], light: str, cut: int = 90, fps: float = 25, kept: set[int] | None = None
) -> tuple[list[int], list[int]]:
    """Frames of cuts and of flashes in 120 frames of a moving camera, of which some may be left out."""
    finder = ShotFinder(detector)
    for n in range(120) if kept is None else sorted(kept):
        picture = draw(LOOKS[n >= cut], SIZE, n / fps * 0.2).astype(np.float32)
        if n in lit:
            picture = picture * 2.5 if light == "bright" else np.full_like(picture, 250)
        frame = av.VideoFrame(*SIZE, "bgr24")
        frame.pts, frame.time_base = n, Fraction(1) / Fraction(fps)
        finder.add(np.clip(picture, 0, 255).astype(np.uint8), frame, n / fps, judge=True)
    finder.flush()
    return [round(at * fps) for at in finder.cuts_s], [round(at * fps) for at in finder.flashes_s]


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("light", ["bright", "white"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(detector: str, light: str, length: int) -> None:
    lit = set(range(40, 40 + length))
    assert found(detector, lit, light) == ([90], sorted(lit))


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("fps", [10, 12.5, 24, 30, 60, 100, 120, 240])
def test_a_flash_is_no_cut_at_any_rate(detector: str, fps: float) -> None:
    for length in {max(1, round(0.04 * fps)), max(1, int(0.125 * fps + 1e-6))}:
        lit = set(range(40, 40 + length))
        assert found(detector, lit, "white", fps=fps) == ([90], sorted(lit))


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_flash_among_unevenly_spaced_frames_is_no_cut(detector: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        kept = {n for n in range(120) if rng.uniform() < 0.5} | {38, 42, 88, 90}
        lit = {40, 41, 42, 43, 44} & kept
        assert found(detector, lit, "white", fps=60, kept=kept) == ([90], sorted(lit))


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_shot_that_is_longer_than_a_flash_is_a_shot(detector: str) -> None:
    for fps in (25, 60):
        lit = set(range(40, 40 + round(0.2 * fps)))
        cuts, flashes = found(detector, lit, "white", fps=fps)
        assert cuts == [40, max(lit) + 1, 90]
        assert not flashes


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_strobe_is_no_cut(detector: str, length: int) -> None:
    lit = {n for n in range(30, 70) if n // length % 2}
    cuts, flashes = found(detector, lit, "white")
    assert cuts == [90]
    assert lit - set(flashes) <= {max(lit)}


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_cut_in_the_light_of_a_flash_is_a_cut(detector: str) -> None:
    for lit in ({88, 89}, {90, 91}):
        cuts, flashes = found(detector, lit, "white")
        assert any(88 <= cut <= 92 for cut in cuts)
        assert flashes == sorted(lit)


def test_light_that_stays_is_no_flash() -> None:
    for luma in ([0.2] * 5 + [0.8] * 5, np.linspace(0.1, 0.9, 10), [0.4, 0.45] * 5, [0.2] + [0.8] * 9):
        assert not any(is_flash(np.array(luma), np.arange(10) / 25, at) for at in range(10))


def test_flashes_at_the_seam_of_shards_are_found_once_and_are_no_cuts(tmp_path: Path) -> None:
    # Seams lie at 4, 8 and 12 s.
    lit = [50, 99, 100, 199, 200, 201, 300, 301, 302]
    facts = make_video(tmp_path / "a.mp4", shots=[Shot(7.0, 3), Shot(9.0, 4)], lit=lit, audio=None)
    for seconds in (4.0, 60.0):
        row = whole(facts.path, DecodeSettings(shard_seconds=seconds))
        assert row["cuts_s"] == pytest.approx(facts.cuts_s)
        assert row["flashes_s"] == pytest.approx(facts.times_s[lit])
