"""The colour benchmark: measures, methods, damages, pairs, held-out photos, flicker, a whole run."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.colour import Pair, main, pairs_of, parts, photos_of, spread, unseen
from benchmarks.colour_damage import KINDS, spoilt
from benchmarks.colour_flicker import Scene, flicker, interleaved, jump, jumps
from benchmarks.colour_methods import CLASSICAL, MAPS, classical, difference, scores
from jobs.train.timelines import digest
from stages.colour import ColourSettings, Grade
from stages.nn.weights import open_bundle
from tests.stages.test_colour import bundle as random_colour
from tests.stages.test_colour import scene

__all__ = ["random_colour"]


def test_the_same_picture_scores_best_and_a_brighter_one_as_much_less_as_it_should():
    picture = scene()
    assert scores(picture, picture) == {"psnr": 60.0, "ssim": 1.0, "de2000": 0.0}
    brighter = np.clip(picture.astype(int) + 10, 0, 255).astype(np.uint8)
    assert 25 < scores(brighter, picture)["psnr"] < 30
    assert 2 < difference(brighter, picture) < 6


def test_grey_world_and_its_kin_take_the_colour_of_the_light_away():
    grey = np.repeat(scene()[..., :1], 3, axis=2)
    warm = np.clip(grey * np.array([0.9, 0.75, 0.55]), 0, 255).astype(np.uint8)
    for name in ("grey_world", "shades_of_grey", "mid_grey"):
        assert np.ptp(classical(name, warm).reshape(-1, 3).mean(0)) < 3, name
    assert np.ptp(warm.reshape(-1, 3).mean(0)) > 20


def test_levels_fill_the_range_and_identity_changes_nothing():
    flat = (80 + scene() // 4).astype(np.uint8)
    for name in ("auto_levels", "auto_contrast"):
        assert np.ptp(classical(name, flat)) > 250, name
    assert np.array_equal(classical("identity", flat), flat)
    assert classical("clahe", flat).std() > flat.std()
    assert set(CLASSICAL) == {*MAPS, "clahe"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_shows_and_is_the_same_for_the_same_seed(kind):
    picture = scene()
    bad = spoilt(picture, kind, np.random.default_rng(3))
    assert np.array_equal(bad, spoilt(picture, kind, np.random.default_rng(3)))
    assert not np.array_equal(bad, spoilt(picture, kind, np.random.default_rng(4)))
    assert difference(bad, picture) > 2


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])


def test_pairs_are_found_by_the_names_of_both_layouts(tmp_path):
    names = (
        "fivek/a1_input.png",
        "fivek/a1_target.png",
        "fivek/a2_input.png",
        "wb/Cube__input__19_F.png",
        "wb/Cube__input__19_S.png",
        "wb/Cube__input__1_F.png",
        "wb/Cube__groundtruth__19.png",
        "wb/Cube__groundtruth__1.png",
        "wb/Set1__input__Canon_0087_F_P.png",
        "wb/Set1__groundtruth__Canon_0087_G_AS.png",
        "no_reference/a5_P1.5.png",
    )
    for name in names:
        write(tmp_path / name, scene(size_px=16))
    expected = {
        ("a1_input", "a1_target"),
        ("Cube__input__19_F", "Cube__groundtruth__19"),
        ("Cube__input__19_S", "Cube__groundtruth__19"),
        ("Cube__input__1_F", "Cube__groundtruth__1"),
        ("Set1__input__Canon_0087_F_P", "Set1__groundtruth__Canon_0087_G_AS"),
    }
    found = pairs_of(tmp_path)
    assert all(isinstance(pair, Pair) for pair in found)
    assert {(pair.given.stem, pair.truth.stem) for pair in found} == expected


def test_photos_that_were_trained_on_are_left_out_by_content(tmp_path):
    for i in range(4):
        write(tmp_path / "photos" / f"{i}.png", scene(i, 32))
    write(tmp_path / "colour_pairs" / "x_input.png", scene(9, 32))
    files = photos_of(tmp_path)
    assert [file.name for file in files] == ["0.png", "1.png", "2.png", "3.png"]
    renamed = files[2].rename(tmp_path / "photos" / "new name.png")
    left, count = unseen(photos_of(tmp_path), {"photos": [digest(renamed)]})
    assert count == 1
    assert [file.name for file in left] == ["0.png", "1.png", "3.png"]
    assert spread(left, 2) == [left[0], left[2]]
    assert len(photos_of(tmp_path / "photos")) == 4


def test_a_folder_laid_out_otherwise_is_searched_as_a_whole(tmp_path):
    for name in ("a.png", "deep/b.png", "c_input.png", "c_target.png"):
        write(tmp_path / name, scene(size_px=16))
    assert parts(tmp_path, "dull", "videos") == [tmp_path]
    assert [path.name for path in photos_of(tmp_path)] == ["a.png", "b.png"]
    (tmp_path / "photos").mkdir()
    assert parts(tmp_path, "dull", "videos") == [tmp_path / "dull", tmp_path / "videos"]


def still(seed: int) -> Scene:
    """A static scene in which the light wavers and something passes."""
    rng, frames = np.random.default_rng(seed), []
    for i in range(32):
        frame = scene(seed, 256) * (0.8 + 0.02 * np.sin(i))
        frame[100:160, 6 * i : 6 * i + 60] = 230
        frames.append(np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
    return Scene(str(seed), np.stack(frames))


def test_one_lut_a_shot_adds_no_flicker_and_one_a_frame_does(random_colour):
    found = flicker([still(0)], Grade(ColourSettings(), random_colour))
    assert found["source"]["flicker"] == found["lut"]["flicker"] == 0
    assert found["lut_per_frame"]["flicker"] > 0.01
    assert found["auto_levels_per_frame"]["flicker"] > 0.01
    assert found["lut"]["frame_to_frame"] > 0


def test_a_jump_is_what_a_scene_s_shots_differ_by():
    shots, scene_of = interleaved([still(0), still(1)])
    assert scene_of == [0, 1] * 4
    darker = [lambda picture: picture, lambda picture: picture] + [lambda picture: picture // 2] * 2
    assert jump(shots[:4], scene_of[:4], darker) > 5
    assert jump(shots[:4], scene_of[:4], darker[:2] * 2) == 0


def test_shots_of_a_scene_jump_less_than_when_each_is_graded_alone(random_colour):
    settings = ColourSettings(agree=0.9)
    found = jumps([still(0), still(1)], settings, lambda changed: Grade(changed, random_colour))
    assert found["lut"] < 0.6 * found["lut_per_shot"]


@pytest.mark.slow
def test_a_whole_run_writes_every_figure(tmp_path, bundle):
    for i in range(2):
        write(tmp_path / "data" / "photos" / f"{i}.png", scene(i, 96))
        write(tmp_path / "data" / "colour_pairs" / f"{i}_input.png", scene(i, 96) // 2)
        write(tmp_path / "data" / "colour_pairs" / f"{i}_target.png", scene(i, 96))
    out = tmp_path / "found.json"
    arguments = ["--data", str(tmp_path / "data"), "--bundle", bundle, "--json", str(out)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert set(found["degraded"]) == set(found["pairs"]) == {*CLASSICAL, "lut"}
    assert set(found["degraded"]["lut"]) == {"psnr", "ssim", "de2000"}
    # An untrained network is the identity.
    assert found["degraded"]["lut"]["psnr"] == pytest.approx(found["degraded"]["identity"]["psnr"], abs=0.1)
    assert found["graded_psnr"] > 50
    assert found["speed_1080p_fps"]["renderer"] > 0
    assert open_bundle(bundle).card("colour")["kind"] == "lut"


@pytest.mark.slow
def test_a_plain_folder_of_photos_gives_every_key(tmp_path, bundle):
    for i in range(2):
        write(tmp_path / "photos only" / f"{i}.png", scene(i, 96))
    out = tmp_path / "found.json"
    arguments = ["--data", str(tmp_path / "photos only"), "--bundle", bundle, "--json", str(out)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert {"degraded", "pairs", "graded_psnr", "flicker"} <= set(found)
    assert found["pairs"] == found["flicker"] == {}
    assert found["photos"] == 2
