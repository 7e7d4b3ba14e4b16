"""The effects benchmark: measures that know better from worse, rivals that do what they say, a whole run."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.effects import main
from benchmarks.effects_critic import told_apart
from benchmarks.effects_measures import Perceptual, detail, gmsd, simulated, smoothness
from benchmarks.effects_rivals import FILTERS, ffmpeg, opencv
from jobs.train.psnr import psnr_of
from stages.effects import asked
from stages.nn import cnn
from stages.nn.gan import EFFECTS, Generator, GeneratorSettings
from stages.nn.weights import open_bundle

SMALL = GeneratorSettings(width=16, features=4, grid=16, picture_px=32)


def photo(seed: int = 0, height: int = 96, width: int = 144) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(20, 236, (height // 6, width // 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_every_measure_is_perfect_for_the_same_picture_and_worse_the_more_it_is_blurred(bundle):
    picture = photo()
    perceptual = Perceptual(cnn.load(open_bundle(bundle), "compact"))
    blurred = [cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (0.8, 2.5)]
    assert psnr_of(picture, picture) == 60
    assert gmsd(picture, picture) == perceptual(picture, picture) == 0
    for measure in (gmsd, perceptual):
        assert 0 < measure(picture, blurred[0]) < measure(picture, blurred[1])
    assert detail(picture) > detail(blurred[0]) > detail(blurred[1])


@pytest.mark.parametrize("effect", EFFECTS)
def test_opencv_makes_the_same_effect_and_ffmpeg_one_of_its_own(effect):
    picture = photo()
    cue = asked(effect, [0.4], 0.8, 1.5, 1)
    made = opencv(picture.shape[:2], cue)(picture)
    assert psnr_of(made, simulated(picture, cue)) > psnr_of(picture, simulated(picture, cue)) + 8
    shown = list(ffmpeg(effect, picture, 2))
    assert len(shown) == 2
    assert np.abs(shown[0].astype(int) - picture).mean() > 2
    assert set(FILTERS) == set(EFFECTS)


def test_smoothness_tells_the_moves_of_the_simulation_from_those_of_the_network():
    found = smoothness(Generator(SMALL).eval(), photo(), "whip", 0)
    assert set(found) == {"step", "true_step", "jolt", "true_jolt", "wander"}
    assert found["true_step"] > 5
    assert found["wander"] > 1  # an untrained network goes another way


@pytest.mark.slow
def test_a_fresh_critic_tells_an_untrained_generator_from_the_simulation():
    photos = [photo(seed) for seed in range(4)]
    found = told_apart(Generator(SMALL).eval(), photos, 25)
    assert found["right"] > 0.7
    assert found["margin"] > 0


@pytest.mark.slow
def test_a_whole_run_writes_every_figure(tmp_path: Path, bundle: str):
    for seed in range(2):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), photo(seed))
    out, sheet = tmp_path / "found.json", tmp_path / "sheet.jpg.png"
    arguments = ["--data", str(tmp_path), "--bundle", bundle, "--json", str(out), "--sheet", str(sheet)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert set(EFFECTS) < set(found["effects"])
    assert {"psnr", "ssim", "gmsd", "perceptual", "detail", "lowest_psnr"} < set(found["effects"]["whip"])
    assert set(found["smooth"]) == set(found["speed_1080p_fps"]) == set(EFFECTS)
    assert set(found["speed_1080p_fps"]["zoom"]) == {"ours", "opencv", "ffmpeg"}
    assert cv2.imread(str(sheet)).shape[0] > 1500
