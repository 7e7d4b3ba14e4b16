"""Overlays: they show what the score rests on, follow the weights, and never cost a video."""

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from stages.cut import Cut, CutSettings
from stages.nn import cnn
from stages.nn.cnn import FeatureNet
from stages.nn.scorer import ScorerNet, ScorerShape
from stages.nn.weights import Bundle, open_bundle, save_model
from stages.saliency import Saliency, Worth, decoded, overlay
from stages.score import SIGNALS, Score, ScoreSettings

COMPACT = {"arch": "resnet18", "without": ["layer4"], "width": 256, "input_size": 128}
SHARE = CutSettings().novelty_share
WIDTH, HEIGHT = 192, 108


def make_bundle(folder: Path, signals: tuple[str, ...] = SIGNALS, seed: int = 0) -> Bundle:
    torch.manual_seed(seed)
    state = cnn.compact(**COMPACT).trunk.state_dict()
    save_model(str(folder), "features", state, {"kind": "compact", "settings": COMPACT})
    shape = ScorerShape(features_width=256, signals=signals, projection=4)
    scorer = ScorerNet("lstm", shape)
    torch.nn.init.normal_(scorer.look.weight, std=0.02)
    settings = {
        "shape": shape.model_dump(),
        "rate_hz": 2.0,
        "features": {"kind": "compact", "width": 256, "weights": "bundle"},
    }
    card = {"kind": "lstm", "settings": settings, "requires": ["features"]}
    save_model(str(folder), "scorer", scorer.state_dict(), card)
    return open_bundle(str(folder))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def net(bundle: Bundle) -> FeatureNet:
    return cnn.load(bundle)


def picture(rng: np.random.Generator) -> np.ndarray:
    """A dull one: soft grey noise."""
    return cv2.GaussianBlur(rng.integers(90, 150, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 2)


def with_corner(plain: np.ndarray) -> np.ndarray:
    """The same with a chequered patch in the lower right quarter."""
    changed = plain.copy()
    rows, columns = np.indices((HEIGHT // 3, WIDTH // 3)) // 6
    changed[-HEIGHT // 3 :, -WIDTH // 3 :] = np.where((rows + columns) % 2, 255, 0)[..., None]
    return changed


def jpeg(shown: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


@torch.inference_mode()
def video(pictures: list[np.ndarray], net: FeatureNet, count: int | None = None) -> dict[str, Any]:
    """Two samples a second; of more samples than pictures, the pictures come again."""
    count = count or len(pictures)
    rng = np.random.default_rng(count)
    square = [cv2.cvtColor(cv2.resize(p, (128, 128)), cv2.COLOR_BGR2RGB) for p in pictures]
    features = net(torch.from_numpy(np.stack(square))).half().numpy()
    again = np.arange(count) % len(pictures)
    return {
        "times_s": np.arange(count) / 2,
        "features": features[again],
        "motion": rng.random(count).astype(np.float32) / 10,
        "motion_std": rng.random(count).astype(np.float32) / 50,
        "luma": np.full(count, 0.5, np.float32),
        "loudness": rng.normal(-24, 6, count + 1).astype(np.float32),
        "cuts_s": np.empty(0),
        "thumbnails": [jpeg(pictures[k]) for k in again],
        "duration_s": count / 2,
        "shard_log": [{"start_s": 0.0}],
    }


def one_corner(net: FeatureNet) -> dict[str, Any]:
    """Five shots of four seconds that look alike, but for the fourth: samples 24 to 31."""
    rng = np.random.default_rng(1)
    pictures = [with_corner(picture(rng)) if 24 <= k < 32 else picture(rng) for k in range(40)]
    return video(pictures, net) | {"cuts_s": np.array([4.0, 8.0, 12.0, 16.0])}


def found(row: dict[str, Any], at: int, score: Score, net: FeatureNet) -> np.ndarray:
    """The map of one sample."""
    scored = score(row) | {"clips": [{"thumbnail_s": row["times_s"][at]}]}
    pictures = {0: decoded(row["thumbnails"][at])}
    return Saliency(score, net, SHARE, "rgb").maps(scored, pictures)[0]


def test_what_makes_a_picture_unlike_the_rest_of_its_video_lights_up(bundle: Bundle, net: FeatureNet):
    score = Score(ScoreSettings(kind="novelty"), bundle)
    one = found(one_corner(net), 25, score, net)
    height, width = one.shape
    row, column = np.unravel_index(one.argmax(), one.shape)
    assert row >= height / 2
    assert column >= width / 2
    assert one[height // 2 :, width // 2 :].sum() > 0.7 * one.sum()


def test_maps_follow_the_weights(tmp_path: Path, bundle: Bundle, net: FeatureNet):
    """Adebayo et al., https://arxiv.org/abs/1810.03292: an edge detector would not notice."""
    row, settings = one_corner(net), ScoreSettings()
    ours = found(row, 25, Score(settings, bundle), net)
    again = found(row, 25, Score(settings, bundle), net)
    np.testing.assert_allclose(again, ours)
    other = make_bundle(tmp_path, seed=5)
    other_net = cnn.load(other)
    frame_network = found(one_corner(other_net), 25, Score(settings, other), other_net)
    assert np.corrcoef(ours.ravel(), frame_network.ravel())[0, 1] < 0.9
    score = Score(settings, bundle)
    for layer in (score.net.project, score.net.direct, score.net.look):
        layer.weight.data = -layer.weight.data
    assert np.corrcoef(ours.ravel(), found(row, 25, score, net).ravel())[0, 1] < 0.9


def worth(row: dict[str, Any], score: Score, share: float) -> np.ndarray:
    out = score(row)
    return (1 - share) * out["importance"] + share * out["novelty"]


def random_video(count: int, fps: float = 2.0) -> dict[str, Any]:
    rng = np.random.default_rng(count)
    row = {
        "times_s": np.arange(count) / fps,
        "features": rng.normal(size=(count, 256)).astype(np.float32),
        "motion": rng.random(count).astype(np.float32) / 10,
        "motion_std": rng.random(count).astype(np.float32) / 50,
        "loudness": np.empty(0, np.float32),
        "cuts_s": np.arange(1, count // 9) * 9 / fps,
    }
    row["features"][:, 0] += 2
    return row


def moved(row: dict[str, Any], sample: int, by: np.ndarray) -> dict[str, Any]:
    features = row["features"].copy()
    features[sample] += by
    return row | {"features": features}


@pytest.mark.parametrize("fps", [0.8, 2.0, 4.0])
def test_the_gradient_is_that_of_the_score_that_is_given(tmp_path: Path, fps: float):
    """Without novelty, which is smoothed here, and without stretching, whose ends move with a sample."""
    bundle = make_bundle(tmp_path, signals=tuple(name for name in SIGNALS if name != "novelty"))
    score = Score(ScoreSettings(contrast=0), bundle)
    row = random_video(600, fps)
    samples = np.array([0, 8, 300, 598])
    gradients = Worth(row | score(row), score, 0.0).gradient(samples).numpy()
    for sample, gradient in zip(samples, gradients, strict=True):
        step = gradient / np.linalg.norm(gradient)
        up, down = (worth(moved(row, sample, by * step), score, 0.0)[sample] for by in (0.05, -0.05))
        assert (up - down) / 0.1 == pytest.approx(np.linalg.norm(gradient), rel=0.05)


@pytest.mark.parametrize("kind", ["lstm", "novelty"])
def test_a_step_along_the_gradient_raises_the_score(bundle: Bundle, kind: str):
    score, row = Score(ScoreSettings(kind=kind), bundle), random_video(90)
    before = worth(row, score, SHARE)
    samples = np.argsort(before)[30:60]
    gradients = Worth(row | score(row), score, SHARE).gradient(samples).numpy()
    higher = [
        worth(moved(row, sample, 3 * gradient / np.linalg.norm(gradient)), score, SHARE)[sample]
        > before[sample]
        for sample, gradient in zip(samples, gradients, strict=True)
    ]
    assert np.mean(higher) > 0.9


@pytest.mark.parametrize("samples", [1, 2, 3, 30, 300])
def test_videos_of_any_length_get_overlays_of_their_chosen_clips_only(
    bundle: Bundle, net: FeatureNet, samples: int
):
    rng = np.random.default_rng(samples)
    pictures = [with_corner(picture(rng)) if k % 7 == 1 else picture(rng) for k in range(min(samples, 12))]
    row = video(pictures, net, samples) | {"cuts_s": np.arange(1, samples // 6) * 3.0}
    score = Score(ScoreSettings(), bundle)
    cut = Cut(CutSettings(target="10s"), (), 0.0)(score(row))
    clips = Saliency(score, net, SHARE, "rgb")(cut)["clips"]
    # A video of one shot looks the same from end to end: its picture is not what it is judged by.
    assert any(clip.get("saliency") for clip in clips) == (samples >= 30)
    for clip in clips:
        assert clip["chosen"] or clip.get("saliency") is None
        if clip.get("saliency"):
            assert decoded(clip["saliency"]).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("broken", [b"", b"no picture", None])
def test_a_thumbnail_that_cannot_be_read_costs_its_overlay_only(
    bundle: Bundle, net: FeatureNet, broken: bytes | None
):
    score = Score(ScoreSettings(), bundle)
    row = Cut(CutSettings(target="10s"), (), 0.0)(score(one_corner(net)))
    first, *others = [clip["clip"] for clip in row["clips"] if clip["chosen"]]
    row["clips"][first]["thumbnail"] = broken
    clips = Saliency(score, net, SHARE, "rgb")(row)["clips"]
    assert clips[first].get("saliency") is None
    assert all(clips[number]["saliency"] for number in others)
    for number in others:
        row["clips"][number]["thumbnail"] = broken
    assert not any(clip.get("saliency") for clip in Saliency(score, net, SHARE, "rgb")(row)["clips"])


@pytest.mark.parametrize(("colour", "red"), [("rgb", (254, 0, 0)), ("hsv", (0, 255, 254))])
def test_the_network_sees_the_colours_that_it_saw_in_the_run(bundle: Bundle, colour: str, red: tuple):
    net, seen = cnn.load(bundle), []
    score = Score(ScoreSettings(), bundle)
    row = Cut(CutSettings(target="5s"), (), 0.0)(score(one_corner(net)))
    thumbnail = jpeg(np.full((HEIGHT, WIDTH, 3), (0, 0, 255), np.uint8))
    saliency = Saliency(score, net, SHARE, colour)
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    saliency(row | {"clips": [clip | {"thumbnail": thumbnail} for clip in row["clips"]]})
    np.testing.assert_allclose(seen[0].float().mean((0, 1, 2)), red, atol=2)


def test_the_overlay_glows_where_the_map_is_strong_and_fades_with_it():
    plain = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    places = np.zeros((4, 4), np.float32)
    places[3, 0] = 1
    strong, weak = (decoded(overlay(plain, by * places, strongest=1.0)).astype(int) for by in (1.0, 0.1))
    coloured = np.ptp(strong, axis=2)
    assert coloured[-10:, :10].mean() > 40
    assert coloured[:50, 100:].mean() < 3
    assert 5 < np.ptp(weak, axis=2)[-10:, :10].mean() < 0.6 * coloured[-10:, :10].mean()
    assert overlay(plain, 0 * places, strongest=1.0) is None


def test_an_overlay_takes_less_than_60_milliseconds(bundle: Bundle, net: FeatureNet):
    rng = np.random.default_rng(0)
    pictures = [with_corner(picture(rng)), *(picture(rng) for _ in range(9))]
    score = Score(ScoreSettings(), bundle)
    row = Cut(CutSettings(target="30s"), (), 0.0)(score(video(pictures, net, 200)))
    saliency, threads = Saliency(score, net, SHARE, "rgb"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        saliency(row)
        started = time.process_time()
        clips = saliency(row)["clips"]
        spent_s = time.process_time() - started
    finally:
        torch.set_num_threads(threads)
    assert spent_s / sum(clip["chosen"] for clip in clips) < 0.06
