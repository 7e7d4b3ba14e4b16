import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.features import FeatureSettings
from stages.nn import cnn
from stages.nn.scorer import ScorerNet, ScorerShape
from stages.nn.weights import Bundle, BundleError, open_bundle, save_model
from stages.score import (
    SIGNALS,
    Score,
    ScoreSettings,
    columns,
    grid,
    importance,
    loudness_at,
    novelty,
    signals,
    within_shots,
)

COMPACT = {"arch": "resnet18", "without": ["layer3", "layer4"], "width": 128, "input_size": 64}


def make_bundle(folder: Path) -> Bundle:
    torch.manual_seed(0)
    state = cnn.compact(**COMPACT).trunk.state_dict()
    save_model(str(folder), "features", state, {"kind": "compact", "settings": COMPACT})
    shape = ScorerShape(features_width=128, signals=SIGNALS)
    settings = {
        "shape": shape.model_dump(),
        "rate_hz": 2.0,
        "features": {"kind": "compact", "width": 128, "weights": "bundle"},
    }
    card = {"kind": "lstm", "settings": settings, "requires": ["features"]}
    save_model(str(folder), "scorer", ScorerNet("lstm", shape).state_dict(), card)
    return open_bundle(str(folder))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def video(samples: int, fps: float = 2.0, audio: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(samples)
    return {
        "times_s": np.arange(samples) / fps,
        "cuts_s": np.arange(0, samples / fps, 7.0)[1:],
        "features": rng.normal(size=(samples, 128)).astype(np.float16),
        "motion": rng.random(samples).astype(np.float32) / 10,
        "motion_std": rng.random(samples).astype(np.float32) / 50,
        "loudness": rng.normal(-24, 6, int(samples / fps * 2) + 1).astype(np.float32)
        if audio
        else np.empty(0, np.float32),
    }


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 700])
@pytest.mark.parametrize("audio", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "novelty"])
def test_every_sample_has_both_scores_between_0_and_1(bundle: Bundle, samples: int, audio: bool, kind: str):
    out = Score(ScoreSettings(kind=kind), bundle)(video(samples, audio=audio))
    for name in ("importance", "novelty"):
        assert out[name].shape == (samples,)
        assert out[name].dtype == np.float32
        assert ((out[name] >= 0) & (out[name] <= 1)).all()


def test_importance_is_spread_over_a_video_of_which_all_is_action():
    logits = 8 + np.random.default_rng(0).normal(size=400)
    absolute = importance(logits, contrast=0)
    assert np.ptp(absolute) < 0.05
    mixed = importance(logits, contrast=0.5)
    assert np.ptp(mixed) > 0.45
    assert (np.argsort(mixed)[40:-40] == np.argsort(logits)[40:-40]).all()


def test_a_video_without_contrast_is_not_blown_up():
    assert np.ptp(importance(np.full(50, 1.0) + 1e-4 * np.arange(50), contrast=0.5)) < 0.05


def test_a_sample_is_judged_with_its_neighbours_but_not_across_a_cut():
    times = np.arange(40) / 2
    values = np.where(times < 10, 1.0, 5.0)
    values[10] = 11.0
    means = within_shots(values, times, np.array([10.0]))
    assert (means[20:] == 5).all()
    assert means[10] == pytest.approx((16 * 1 + 11) / 17)
    assert (means[:2] == 1).all()
    wide = within_shots(np.stack([values, -values], 1).astype(np.float16), times, np.array([10.0]))
    np.testing.assert_allclose(wide[:, 0], means, atol=0.01)
    assert wide.dtype == np.float16


def test_means_within_shots_are_the_same_however_the_video_is_divided(monkeypatch: pytest.MonkeyPatch):
    v = video(500)
    whole = within_shots(v["features"], v["times_s"], v["cuts_s"])
    monkeypatch.setattr("stages.score.CHUNK", 37)
    np.testing.assert_array_equal(within_shots(v["features"], v["times_s"], v["cuts_s"]), whole)


def test_what_is_rare_in_a_video_is_novel():
    rng = np.random.default_rng(0)
    usual, rare = rng.normal(size=128), rng.normal(size=128)
    features = np.where((np.arange(300) // 20 == 7)[:, None], rare, usual) + rng.normal(0, 0.1, (300, 128))
    new = novelty(features.astype(np.float16), typical_share=0.2)
    assert new[140:160].min() > 0.8
    assert new[:140].max() < 0.3


def test_a_picture_that_stands_still_is_novel_nowhere():
    rng = np.random.default_rng(0)
    features = np.abs(rng.normal(size=128)) + rng.normal(0, 0.005, (200, 128))
    assert novelty(features.astype(np.float16), typical_share=0.2).max() < 0.1


def test_loudness_is_read_at_the_half_second_of_each_sample():
    heard = loudness_at(np.array([0.0, 0.49, 0.5, 3.2, 99.0]), np.arange(8.0))
    np.testing.assert_array_equal(heard, [0, 0, 1, 6, 7])


def test_missing_audio_is_flagged_and_not_taken_for_silence():
    v = video(50)
    new = novelty(v["features"], 0.2)
    seen = (v["features"], v["motion"], v["motion_std"])
    with_audio = signals(*seen, loudness_at(v["times_s"], v["loudness"]), new)
    without = signals(*seen, np.empty(0, np.float32), new)
    level, audible = columns(["relative_loudness", "audible"])
    assert (with_audio[:, audible] == 1).all()
    assert with_audio[:, level].std() > 0.3
    assert (without[:, [level, audible]] == 0).all()


def test_a_level_or_gain_of_the_whole_video_does_not_change_what_is_relative():
    v = video(80)
    new, heard = novelty(v["features"], 0.2), loudness_at(v["times_s"], v["loudness"])
    plain = signals(v["features"], v["motion"], v["motion_std"], heard, new)
    other = signals(v["features"], v["motion"] * 3, v["motion_std"] * 3, heard + 6, new)
    loud, moved, uneven = columns(["relative_loudness", "relative_motion", "relative_motion_std"])
    np.testing.assert_allclose(plain[:, loud], other[:, loud], atol=1e-4)
    np.testing.assert_allclose(plain[:, [moved, uneven]], other[:, [moved, uneven]], atol=0.5)


@pytest.mark.parametrize("fps", [0.5, 2.0, 4.0, 23.976])
def test_the_scorer_sees_steps_of_its_own_rate_whatever_the_sampling(fps: float):
    times = np.arange(200) / fps + 3.0
    index, clock, steps = grid(times, rate_hz=2.0)
    assert np.allclose(np.diff(steps), 0.5)
    assert np.abs(clock[index] - steps).max() <= max(0.5 / fps, 1e-9) + 1e-9


def test_a_clock_that_jumps_by_a_day_does_not_fill_the_memory():
    times = np.concatenate([np.arange(100) / 2, 86400 * 365 + np.arange(100) / 2])
    index, clock, steps = grid(times, rate_hz=2.0)
    assert len(steps) < 250
    assert len(clock) == len(times)
    assert index.max() == len(times) - 1


def test_scores_belong_to_their_samples_at_irregular_times(bundle: Bundle):
    v = video(300)
    keep = np.sort(np.random.default_rng(0).permutation(300)[:280])
    thinned = v | {k: v[k][keep] for k in ("times_s", "features", "motion", "motion_std")}
    all_of_it, some = (Score(ScoreSettings(), bundle)(x)["importance"] for x in (v, thinned))
    assert np.corrcoef(all_of_it[keep], some)[0, 1] > 0.8


def test_features_of_another_kind_are_refused_in_plain_words(bundle: Bundle):
    with pytest.raises(
        BundleError, match=r"trained on compact features \(128 wide.* ask for resnet18 \(512 wide"
    ):
        Score(ScoreSettings(), bundle, FeatureSettings(kind="resnet18", weights="official"))


def test_novelty_works_with_any_features(bundle: Bundle):
    score = Score(ScoreSettings(kind="novelty"), bundle, FeatureSettings(kind="resnet18", weights="official"))
    out = score(video(40))
    np.testing.assert_array_equal(out["importance"], out["novelty"])


def test_vectors_of_another_width_are_refused(bundle: Bundle):
    row = video(20)
    row["features"] = row["features"][:, :64]
    with pytest.raises(BundleError, match="64 wide, the scorer was trained on 128"):
        Score(ScoreSettings(), bundle)(row)


def test_new_features_take_the_scorer_of_the_old_ones_out_of_the_bundle(tmp_path: Path):
    bundle = make_bundle(tmp_path)
    torch.manual_seed(7)
    state = cnn.compact(**COMPACT).trunk.state_dict()
    save_model(str(tmp_path), "features", state, {"kind": "compact", "settings": COMPACT})
    with pytest.raises(BundleError, match="no scorer model: train it"):
        Score(ScoreSettings(), open_bundle(str(tmp_path)))
    assert bundle.models.keys() == {"features", "scorer"}


def test_an_hour_takes_less_than_two_milliseconds_per_second_of_video(bundle: Bundle):
    score, row = Score(ScoreSettings(), bundle), video(7200)
    started = time.process_time()
    score(row)
    assert (time.process_time() - started) / 3600 < 0.002
