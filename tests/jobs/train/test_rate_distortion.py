"""Bits, PSNR, MS-SSIM and BD-rate are those of their definitions."""

import math

import numpy as np
import pytest
import torch

from jobs.train.rate_distortion import (
    QUALITIES,
    Codec,
    Point,
    bd_rate,
    curve,
    measure,
    ms_ssim,
    ours,
    pillow,
    planes,
)
from tests.stages.nn.test_codec import pictures, small


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(bpp, psnr_db, 1.0, 0.0, 0.0) for bpp, psnr_db in pairs]


def test_ms_ssim_is_one_for_the_same_and_falls_with_noise():
    torch.manual_seed(0)
    x = torch.cat([planes(picture) for picture in pictures(2, 256, 181)])
    noise = torch.randn_like(x)
    values = [ms_ssim(x, (x + amount * noise).clamp(0, 1)) for amount in (0, 0.05, 0.2)]
    assert values[0].tolist() == pytest.approx([1, 1])
    assert (values[0] > values[1]).all()
    assert (values[1] > values[2]).all()
    assert (values[2] > 0).all()


def test_psnr_and_rate_are_those_of_the_definition():
    picture = np.full((100, 200, 3), 100, np.uint8)
    point = measure(picture, Codec(encode=lambda picture: b"x" * 500, decode=lambda data: picture + 1))
    assert point.psnr_db == pytest.approx(20 * np.log10(255))
    assert point.bpp == 8 * 500 / (100 * 200)
    # Too small for five scales.
    assert math.isnan(point.ms_ssim)


def test_means_are_over_pictures_of_any_size():
    sizes = [(64, 64), (176, 200)]
    codec = Codec(encode=lambda p: b"x" * (p.size // 3), decode=lambda data: data)
    exact = Codec(encode=codec.encode, decode=lambda data: next(shown))
    frames = [pictures(1, *size)[0] for size in sizes]
    shown = iter(frames)
    (point,) = curve(frames, [exact])
    assert point.bpp == 8
    assert point.ms_ssim == pytest.approx(1)


def test_half_the_bits_at_equal_quality_are_minus_fifty_percent():
    theirs = points((0.2, 26), (0.4, 29), (0.8, 32), (1.6, 35))
    half = [Point(p.bpp / 2, p.psnr_db, 1, 0, 0) for p in theirs]
    saving = bd_rate(half, theirs)
    assert saving.percent == pytest.approx(-50)
    assert (saving.low_db, saving.high_db, saving.share) == (26, 35, 1)
    assert bd_rate(theirs, half).percent == pytest.approx(100)


def test_the_delta_rate_is_that_over_the_quality_that_both_reach():
    theirs = points((0.2, 26), (0.4, 29), (0.8, 32), (1.6, 35))
    # Straight in the logarithm of the rate: the same bits up to 29 dB, then half.
    ours = points((0.4, 29), (0.4 * 2**0.5, 32), (0.8, 35), (1.6, 41))
    saving = bd_rate(ours, theirs)
    assert (saving.low_db, saving.high_db, saving.share) == (29, 35, 0.5)
    assert -40 < saving.percent < -20
    assert bd_rate(points((0.1, 20), (0.2, 22)), theirs) is None


def test_a_setting_that_costs_more_for_less_does_not_bend_the_curve():
    theirs = points((0.2, 26), (0.4, 29), (0.8, 32))
    worse = [*theirs, *points((0.5, 28))]
    assert bd_rate(worse, theirs).percent == pytest.approx(0)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_files_of_higher_quality_are_larger_and_better(form: str):
    rng = np.random.default_rng(0)
    frame = np.clip(pictures(1, 192, 192)[0] + rng.integers(-20, 20, (192, 192, 3)), 0, 255).astype(np.uint8)
    found = curve([frame], pillow(form))
    assert len(found) == len(QUALITIES[form])
    for name in ("bpp", "psnr_db"):
        values = [getattr(point, name) for point in found]
        assert values == sorted(values), name


def test_our_codec_has_one_point_for_each_rate():
    net = small("hyperprior")
    found = curve(list(pictures(2, 64, 96)), ours(net))
    assert len(found) == net.rates
    assert found[0].bpp < found[-1].bpp
    assert all(point.encode_ms > 0 and point.decode_ms > 0 for point in found)
