"""Effects at full size: exact ends, smooth in between, the same at any size, sharp where little moves."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jobs.train.effects import simulate
from stages.effects import (
    Effects,
    EffectSettings,
    Warp,
    asked,
    bounds,
    defocused,
    enlarged,
    in_pixels,
    planes,
    warped,
)
from stages.nn.gan import EFFECTS, Cue, Generator, GeneratorSettings, render
from stages.nn.weights import Bundle, BundleError, open_bundle, save_model

SMALL = GeneratorSettings(width=16, features=4, grid=16, picture_px=32)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth and colourful; the same picture at every size of one shape."""
    coarse = np.random.default_rng(seed).integers(30, 226, (9, 16, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).round().astype(np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def spread(light: np.ndarray, middle: int) -> float:
    """Standard deviation along x of the light [H, W, 3] around a column."""
    part = light[:, middle - 40 : middle + 40, 0].sum(0)
    return float(np.sqrt((part * (np.arange(80) - 40.0) ** 2).sum() / part.sum()))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    uri = str(tmp_path_factory.mktemp("bundle"))
    card = {"kind": "gan", "settings": SMALL.model_dump()}
    save_model(uri, "effects", Generator(SMALL).state_dict(), card)
    return open_bundle(uri)


@pytest.fixture(scope="module")
def effects(bundle: Bundle) -> Effects:
    return Effects(EffectSettings(strength=1), bundle)


@pytest.fixture(scope="module")
def shipped() -> Effects:
    return Effects(EffectSettings(strength=1), open_bundle())


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_transition_starts_with_the_one_frame_and_ends_with_the_other(effects, effect):
    a, b = picture(90, 160, 1), picture(90, 160, 2)
    assert np.array_equal(effects.transition(a, b, effect, 0.0), a)
    assert np.array_equal(effects.transition(a, b, effect, 1.0), b)
    assert difference(effects.transition(a, b, effect, 0.01), a) < 1
    assert difference(effects.transition(a, b, effect, 0.99), b) < 1


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_transition_has_no_jump(shipped, effect):
    a, b = picture(90, 160, 1), picture(90, 160, 2)
    frames = [shipped.transition(a, b, effect, phase) for phase in np.linspace(0, 1, 61)]
    steps = [difference(x, y) for x, y in pairwise(frames)]
    assert max(steps) < 0.3 * difference(a, b)


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("phase", [0.25, 0.45])
def test_an_effect_looks_the_same_at_any_size(shipped, effect, phase):
    small = shipped.transition(picture(144, 256, 1), picture(144, 256, 2), effect, phase)
    large = shipped.transition(picture(1080, 1920, 1), picture(1080, 1920, 2), effect, phase)
    assert difference(cv2.resize(large, (256, 144), interpolation=cv2.INTER_AREA), small) < 4


def test_the_same_call_gives_the_same_frame_and_another_seed_another_one(effects):
    a, b = picture(90, 160, 1), picture(90, 160, 2)
    first, again = (effects.transition(a, b, "whip", 0.4, seed=5) for _ in range(2))
    assert np.array_equal(first, again)
    assert difference(effects.transition(a, b, "whip", 0.4, seed=6), first) > 0.5


@pytest.mark.parametrize("effect", EFFECTS)
def test_no_effect_shows_black_beyond_the_edges(shipped, effect):
    white = np.full((180, 320, 3), 250, np.uint8)
    for phase in np.linspace(0.1, 0.9, 9):
        assert shipped.transition(white, white, effect, phase).min() >= 248


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_weak_effect_keeps_the_frame_sharp(shipped, effect):
    frame = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (1080, 1920, 3)).astype(np.uint8), (0, 0), 1.5
    )
    shown = shipped.shown(frame, effect, 0.3, strength=0.02)
    detail = [cv2.Laplacian(x, cv2.CV_32F)[100:-100, 100:-100].var() for x in (frame, shown)]
    assert detail[1] > 0.6 * detail[0]


def test_a_frame_by_itself_moves_more_the_farther_it_is_on_its_way(shipped):
    frame = picture(180, 320)
    assert np.array_equal(shipped.shown(frame, "zoom", 0.0), frame)
    for way in (1, -1):
        steps = [difference(shipped.shown(frame, "zoom", way * phase), frame) for phase in (0.05, 0.2, 0.4)]
        assert steps == sorted(steps)
        assert steps[-1] > 3


def test_two_effects_at_once_are_the_one_seen_through_the_other(shipped):
    """Against the exact simulation of both; the names' order is the order of the cameras."""
    frame = picture(180, 320)
    for names in ("spin+zoom", "ripple+twist", "blur+whip"):
        cues = [asked(name, [0.35], 0.8, 320 / 180, 3) for name in names.split("+")]
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        true = 255 * simulate(x, *cues, taps=48)[0].permute(1, 2, 0).numpy()
        both = shipped.shown(frame, names, 0.35, 0.8, seed=3)
        assert difference(both, true) < 4, names
        for name in names.split("+"):
            alone = shipped.shown(frame, name, 0.35, 0.8, seed=3)
            assert difference(both, true) < 0.7 * difference(alone, true), (names, name)


def test_a_transition_may_be_of_two_effects(shipped):
    a, b = picture(90, 160, 1), picture(90, 160, 2)
    steps = [shipped.transition(a, b, "spin+zoom", phase) for phase in np.linspace(0, 1, 61)]
    assert np.array_equal(steps[0], a)
    assert np.array_equal(steps[-1], b)
    assert max(difference(x, y) for x, y in pairwise(steps)) < 0.3 * difference(a, b)


def test_defocus_is_a_disc_and_where_the_radii_differ_each_place_has_its_own():
    light = np.zeros((120, 200, 3), np.float32)
    light[60, 50] = light[60, 150] = 1
    even = np.full((32, 32), 8.0, np.float32)
    wider = np.broadcast_to(np.linspace(4, 16, 32, dtype=np.float32), (32, 32))
    # Along one axis the light of a disc has the standard deviation radius / 2.
    assert [2 * spread(defocused(light, even), middle) for middle in (50, 150)] == pytest.approx(
        [8, 8], abs=0.5
    )
    left, right = (2 * spread(defocused(light, wider), middle) for middle in (50, 150))
    assert 5 < left < right - 3 < 13
    assert defocused(np.ones((40, 60, 3), np.float32), np.full((32, 32), 9.0)) == pytest.approx(1, abs=1e-4)


def test_strength_0_is_a_plain_fade(effects):
    a, b = picture(90, 160, 1), picture(90, 160, 2)
    assert difference(effects.transition(a, b, "spin", 0.25, strength=0), a) < 1


def test_full_size_is_what_the_network_was_trained_to_give(shipped):
    """The quick way (small copy, two passes, sharp parts from the full frame) against the plain one."""
    frame = cv2.resize(picture(288, 512), (360, 360))
    for index, effect in enumerate(EFFECTS):
        one = torch.ones(1)
        cue = Cue(
            effect=torch.tensor([index]), strength=one, phase=0.42 * one, aspect=one, noise=torch.zeros(1, 3)
        )
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            fields = shipped.net(x, cue)
            plain = 255 * render(x, fields, one, taps=64)[0].permute(1, 2, 0).numpy()
        parts = (fields.camera[0], fields.local[0], fields.radius[0, 0])
        quick = warped(frame, Warp(*(part.numpy() for part in parts)))
        assert difference(quick, plain) < 4, effect


def test_a_whip_smears_along_its_way_only(shipped):
    frame = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (360, 640, 3)).astype(np.uint8), (0, 0), 2.0
    )
    shown = shipped.transition(frame, frame, "whip", 0.36).astype(np.float32)
    across, down = (np.abs(np.diff(shown, axis=axis)).mean() for axis in (1, 0))
    assert down > 2 * across


def test_a_zoom_pushes_in_and_a_spin_turns(shipped):
    frame = np.zeros((180, 180, 3), np.uint8)
    cv2.circle(frame, (90, 90), 30, (255, 255, 255), -1)
    zoomed = shipped.transition(frame, frame, "zoom", 0.35)
    assert zoomed.mean() > 1.3 * frame.mean()
    bar = np.zeros((180, 180, 3), np.uint8)
    bar[80:100] = 255
    turned = shipped.transition(bar, bar, "spin", 0.35)
    assert turned[:20].mean() + turned[-20:].mean() < 60
    assert abs(turned[40:80, :40].mean() - turned[100:140, :40].mean()) > 20


def test_a_ripple_is_waves_and_a_twist_winds_up_towards_its_centre(shipped):
    frame = picture(360, 360)
    # Seeds move the centre; along the longest way from it there is room for a whole wave.
    ripple = shipped._fields([frame], [0.4], "ripple", 1.0, seed=0)[0][0].local[1]
    inward = ripple[0, 16][np.abs(ripple[0, 16]) > 0.01]
    assert np.count_nonzero(np.diff(np.sign(inward))) >= 2
    twist = shipped._fields([frame], [0.4], "twist", 1.0, seed=0)[0][0].local[1]
    length = np.hypot(*twist)
    assert length[4:28, 4:28].mean() > 2 * np.concatenate([length[0], length[-1]]).mean()


def test_kind_none_fades_without_a_model():
    effects = Effects(EffectSettings(kind="none"), Bundle("empty", {}))
    a, b = np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 200, np.uint8)
    assert np.abs(effects.transition(a, b, "whip", 0.5).astype(int) - 100).max() <= 1
    assert np.array_equal(effects.shown(a, "whip", 0.5), a)


def test_a_dissolve_is_a_plain_mix_beside_the_effects_and_alone_needs_no_model(effects):
    a, b = picture(90, 160, 1), picture(90, 160, 2)
    alone = Effects(EffectSettings(transitions=("dissolve",)), Bundle("empty", {}))
    for phase in (0.25, 0.8):
        mix = (1 - phase) * a + phase * b
        for made in (effects, alone):
            assert np.abs(made.transition(a, b, "dissolve", phase) - mix).max() <= 1
    mixed = EffectSettings(transitions=("dissolve", "whip"))
    accented = EffectSettings.model_validate({"transitions": ("dissolve",), "accents": {"clips": 1}})
    for settings in (mixed, accented):
        with pytest.raises(BundleError):
            Effects(settings, Bundle("empty", {}))
    # Two pictures are mixed: there is none to do it within one, nor beside another effect.
    for wrong in ({"transitions": ("dissolve+spin",)}, {"accents": {"effect": "dissolve"}}):
        with pytest.raises(ValidationError, match="no effect is called dissolve"):
            EffectSettings.model_validate(wrong)


def test_what_cannot_work_says_why(effects):
    a = picture(90, 160)
    with pytest.raises(ValueError, match="no effect is called wipe"):
        effects.transition(a, a, "wipe", 0.5)
    with pytest.raises(ValueError, match="two frames of one size"):
        effects.transition(a, picture(90, 120), "whip", 0.5)
    with pytest.raises(ValueError, match="each effect once"):
        effects.shown(a, "whip+whip", 0.5)
    for wrong in ({"transitions": ("spin+wipe",)}, {"accents": {"clips": 1, "effect": "wipe"}}):
        with pytest.raises(ValidationError, match="no effect is called wipe"):
            EffectSettings.model_validate(wrong)
    with pytest.raises(BundleError, match="has no effects model"):
        Effects(EffectSettings(), Bundle("empty", {}))
    with pytest.raises(BundleError, match="of kind shader"):
        Effects(EffectSettings(), Bundle("other", {"effects": {"kind": "shader"}}))


def test_a_field_enlarges_straight_on_to_the_edges():
    ramp = np.broadcast_to(np.linspace(-31 / 32, 31 / 32, 32, dtype=np.float32), (32, 32))
    large = enlarged(ramp, 640, 360)
    expected = (2 * np.arange(640) + 1) / 640 - 1
    assert np.abs(large - expected).max() < 0.01


def test_a_camera_in_pixels_turns_about_the_middle_of_the_frame():
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    across, down = planes(in_pixels(quarter, 200, 100), 200, 100)
    assert (across == 149 - np.arange(100)[:, None]).all()
    assert (down == np.arange(200) - 50).all()


def test_bounds_hold_every_marked_cell():
    mask = np.zeros((16, 16), bool)
    mask[4:7, 10] = True
    left, top, right, bottom = bounds(mask, 1600, 900)
    assert left <= 1000
    assert right >= 1100
    assert top <= 225
    assert bottom >= 394
