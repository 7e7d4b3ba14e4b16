"""Colour correction: one LUT a shot, a .cube that FFmpeg reads as we do, a light hand on good pictures."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jobs.train.damage import Damage, light_of, spoil
from stages.colour import (
    ColourSettings,
    Grade,
    apply_lut,
    leaning,
    likeness,
    look,
    without_bars,
)
from stages.cube import write_cube
from stages.nn.lut import LutNet, LutSettings, identity_lut
from stages.nn.weights import Bundle, BundleError, open_bundle, save_model

SMALL = LutSettings(grid=9, bases=12, width=4, hidden=8, picture_px=32)


def scene(seed: int = 0, size_px: int = 128) -> np.ndarray:
    """A picture with a full range of light, greys and moderate colours: nothing to correct."""
    rng = np.random.default_rng(seed)
    luma = cv2.resize(
        rng.random((9, 9)).astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC
    )
    luma = (luma - luma.min()) / np.ptp(luma)
    tint = cv2.resize(rng.normal(0, 0.12, (6, 6, 3)).astype(np.float32), (size_px, size_px))
    tint[: size_px // 3] = 0
    picture = luma[..., None] + tint - tint.mean((0, 1)) + rng.normal(0, 0.02, (size_px, size_px, 1))
    return np.clip(255 * picture, 0, 255).round().astype(np.uint8)


def spoilt(picture: np.ndarray, stops: float = 0.0, kelvin: float = 6500.0) -> np.ndarray:
    damage = Damage.none(1).but(stops=torch.full((1, 1, 1, 1), stops), light=light_of(torch.tensor([kelvin])))
    x = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() / 255
    return (255 * spoil(x, damage)[0]).round().to(torch.uint8).numpy().transpose(1, 2, 0)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2 + 1e-9))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small network that grades at random, and visibly."""
    torch.manual_seed(0)
    net = LutNet(SMALL)
    net.bases.data *= 0.3  # of noise: between the points of rougher ones, filters may differ
    torch.nn.init.normal_(net.skip.weight, std=0.03)
    torch.nn.init.normal_(net.head[-1].bias, std=0.3)
    uri = str(tmp_path_factory.mktemp("bundle"))
    save_model(uri, "colour", net.state_dict(), {"kind": "lut", "settings": SMALL.model_dump()})
    return open_bundle(uri)


@pytest.fixture(scope="module")
def shipped() -> Grade:
    return Grade(ColourSettings(), open_bundle())


def through_ffmpeg(frame: np.ndarray, cube: Path, interpolation: str) -> np.ndarray:
    graph = av.filter.Graph()
    height, width = frame.shape[:2]
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base="1/25")
    lut = graph.add("lut3d", f"file={cube}:interp={interpolation}")
    sink = graph.add("buffersink")
    source.link_to(lut)
    lut.link_to(sink)
    graph.configure()
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture.pts = 0
    source.push(picture)
    return sink.pull().to_ndarray(format="rgb24")


@pytest.mark.parametrize("interpolation", ["trilinear", "tetrahedral"])
def test_ffmpeg_reads_the_cube_file_as_apply_lut_does(bundle, tmp_path, interpolation):
    frame = scene(1)
    lut = Grade(ColourSettings(strength=1), bundle).lut(frame[None])
    write_cube(lut, tmp_path / "grade.cube")
    ours = apply_lut(frame, lut)
    theirs = through_ffmpeg(frame, tmp_path / "grade.cube", interpolation)
    assert np.abs(ours.astype(int) - frame).max() > 10  # else the comparison says nothing
    apart = np.abs(ours.astype(int) - theirs)
    # Between the points the two ways differ where the LUT bends: there are only nine of them.
    assert apart.max() <= (2 if interpolation == "trilinear" else 10)
    assert apart.mean() < 1


def test_the_cube_file_names_its_size_and_lists_red_first(tmp_path):
    write_cube(identity_lut(3).numpy(), tmp_path / "grade.cube")
    lines = (tmp_path / "grade.cube").read_text().splitlines()
    assert lines[1] == "LUT_3D_SIZE 3"
    assert lines[3] == "0.500000 0.000000 0.000000"
    assert len(lines) == 2 + 27


def test_a_shot_gets_the_mean_of_what_its_frames_ask_for(bundle):
    grade = Grade(ColourSettings(), bundle)
    frames = np.stack([scene(0), scene(1) // 2, spoilt(scene(2), kelvin=4000)])
    lut = grade.lut(frames)
    assert lut.shape == (9, 9, 9, 3)
    assert lut.dtype == np.float32
    assert np.allclose(lut, grade.lut(frames[::-1]), atol=1e-5)
    assert not np.allclose(lut, grade.lut(frames[:1]), atol=1e-3)


def test_dark_frames_have_no_say(bundle):
    grade = Grade(ColourSettings(), bundle)
    frames, dark = scene()[None], np.zeros((2, 128, 128, 3), np.uint8)
    assert np.allclose(grade.lut(np.concatenate([frames, dark])), grade.lut(frames), atol=1e-6)


def test_a_wholly_dark_shot_is_left_alone(bundle):
    lut = Grade(ColourSettings(), bundle).lut(np.zeros((2, 128, 128, 3), np.uint8))
    assert np.allclose(lut, identity_lut(9), atol=1e-6)


def test_letterbox_bars_have_no_say(bundle):
    frames = np.stack([scene(seed) for seed in range(2)])
    barred = np.zeros((2, 168, 128, 3), np.uint8)
    barred[:, 20:148] = frames
    assert np.array_equal(without_bars(barred), frames)


def test_a_lamp_at_night_is_not_taken_for_a_letterbox():
    night = np.full((1, 128, 128, 3), 5, np.uint8)
    night[:, 60:70, 60:70] = 220
    assert without_bars(night).shape == night.shape


def test_strength_0_is_the_identity_and_strength_1_the_whole_correction(bundle):
    frames = scene()[None]
    none, half, whole = (Grade(ColourSettings(strength=s), bundle).lut(frames) for s in (0, 0.5, 1))
    assert np.allclose(none, identity_lut(9), atol=1e-6)
    assert np.allclose(half, (none + whole) / 2, atol=1e-6)


def test_shots_that_look_alike_lean_towards_each_other_and_others_stay():
    luts = np.random.default_rng(0).random((3, 5, 5, 5, 3)).astype(np.float32)
    alike = np.array([[1, 0.9, 1e-4], [0.9, 1, 1e-4], [1e-4, 1e-4, 1]])
    assert np.array_equal(leaning(luts, alike, 0), luts)
    leant = leaning(luts, alike, 1)
    assert leant.dtype == np.float32
    assert np.abs(leant[0] - leant[1]).mean() < 0.1 * np.abs(luts[0] - luts[1]).mean()
    assert np.allclose(leant[2], luts[2], atol=1e-3)


def test_another_take_of_a_scene_looks_like_it_and_another_scene_does_not():
    day, night = scene(0), (scene(0) * 0.2).astype(np.uint8)
    takes = [day[None], np.roll(day, 40, axis=1)[None], night[None]]
    alike = likeness(np.stack([look(take) for take in takes]))
    assert np.allclose(np.diag(alike), 1)
    assert alike[0, 1] > 0.9
    assert alike[0, 2] < 0.01


def test_a_cut_inside_a_scene_does_not_jump(bundle):
    take = scene(0)
    other = np.clip(take + np.array([6, 0, -6]), 0, 255).astype(np.uint8)
    luts = {
        agree: Grade(ColourSettings(agree=agree), bundle).luts([take[None], other[None]])
        for agree in (0, 0.8)
    }
    apart = {agree: np.abs(a - b).mean() for agree, (a, b) in luts.items()}
    assert apart[0.8] < 0.4 * apart[0]


def test_a_shot_of_a_film_that_is_good_as_a_whole_is_touched_less_than_alone(bundle):
    grade = Grade(ColourSettings(agree=0), bundle)
    shots = [scene(seed)[None] for seed in range(3)] + [(scene(3) * 0.4).astype(np.uint8)[None]]
    doubts = [grade.asked(shot)[-1].item() for shot in shots]
    order = sorted(range(4), key=doubts.__getitem__)
    surest, together = order[0], grade.luts(shots)
    away = [
        np.abs(lut - identity_lut(9).numpy()).mean() for lut in (together[surest], grade.lut(shots[surest]))
    ]
    assert away[0] < away[1]
    assert np.allclose(grade.luts([shots[0]] * 2)[1], grade.lut(shots[0]), atol=1e-6)


def test_kind_none_needs_no_model_and_changes_nothing():
    grade = Grade(ColourSettings(kind="none"), Bundle("empty", {}))
    frame = scene()
    assert np.array_equal(apply_lut(frame, grade.lut(frame[None])), frame)


def test_a_bundle_without_the_model_or_with_another_kind_says_so():
    with pytest.raises(BundleError, match="has no colour model"):
        Grade(ColourSettings(), Bundle("empty", {}))
    with pytest.raises(BundleError, match="of kind curves"):
        Grade(ColourSettings(), Bundle("other", {"colour": {"kind": "curves"}}))


def test_weights_of_another_version_say_so(bundle, tmp_path):
    state = {name: tensor for name, tensor in bundle.state("colour").items() if not name.startswith("skip")}
    save_model(str(tmp_path), "colour", state, {"kind": "lut", "settings": SMALL.model_dump()})
    with pytest.raises(BundleError, match="of another version"):
        Grade(ColourSettings(), open_bundle(str(tmp_path)))


def test_strength_beyond_1_is_refused():
    with pytest.raises(ValidationError):
        ColourSettings(strength=1.5)


def test_the_shipped_model_leaves_a_good_picture_nearly_alone(shipped):
    pictures = [scene(seed) for seed in range(4)]
    luts = [shipped.lut(picture[None]) for picture in pictures]
    assert np.mean([psnr(apply_lut(p, lut), p) for p, lut in zip(pictures, luts, strict=True)]) > 35


def test_the_shipped_model_keeps_greys_grey_and_whites_apart(shipped):
    luts = [shipped.lut(scene(seed)[None]) for seed in range(4)]
    steps = np.arange(len(luts[0]))
    greys = np.stack([lut[steps, steps, steps] for lut in luts])
    assert np.ptp(greys, axis=-1).mean() < 5 / 255
    assert (np.diff(greys.mean(-1), axis=-1) > 0).all()


@pytest.mark.parametrize("fault", [{"stops": -1.5}, {"stops": 1.0}, {"kelvin": 3800.0}, {"kelvin": 12000.0}])
def test_the_shipped_model_undoes_part_of_a_wrong_exposure_or_light(shipped, fault):
    gains = []
    for seed in range(4):
        good = scene(seed)
        bad = spoilt(good, **fault)
        gains.append(psnr(apply_lut(bad, shipped.lut(bad[None])), good) - psnr(bad, good))
    assert min(gains) > 0
    assert np.mean(gains) > 0.4
