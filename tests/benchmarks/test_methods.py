"""Scores and figures of the benchmark on arrays whose answers are known."""

import numpy as np
import pytest

from benchmarks.methods import (
    METHODS,
    METRICS,
    SIGNALS,
    colours,
    covered_s,
    figures,
    per_second,
    ranked,
    scores,
    spread_evenly,
    truth_per_second,
)
from stages.cut import Cut, CutSettings

SPANS = np.array([[10.0, 20.0], [40.5, 48.0]])


def video(length_s: float = 60.0, audio: bool = True) -> dict:
    times_s = np.arange(0, length_s, 0.5)
    rng = np.random.default_rng(0)
    inside = np.array([covered_s(SPANS, t, t + 0.5) > 0.25 for t in times_s])
    return {
        "times_s": times_s,
        "duration_s": length_s,
        "features": rng.normal(size=(len(times_s), 8)).astype(np.float16),
        "colours": rng.random((len(times_s), 8)).astype(np.float32),
        "differences": rng.random(len(times_s)).astype(np.float32),
        "motion": rng.random(len(times_s)).astype(np.float32),
        "motion_std": rng.random(len(times_s)).astype(np.float32),
        "luma": np.full(len(times_s), 0.5, np.float32),
        "loudness": rng.normal(-24, 3, len(times_s)).astype(np.float32) if audio else np.empty(0, np.float32),
        "importance": (0.1 + 0.8 * inside).astype(np.float32),
        "novelty": rng.random(len(times_s)).astype(np.float32),
        "cuts_s": np.array([10, 20, 40.5, 48.0]),
        "thumbnails": [b"jpeg"] * len(times_s),
        "shard_log": [{"start_s": 0.0}],
    }


def cut() -> Cut:
    return Cut(CutSettings(target="15%"), (), 0.0)


@pytest.mark.parametrize("audio", [True, False])
def test_every_method_scores_every_sample(audio: bool) -> None:
    row = video(audio=audio)
    found = scores(row, np.random.default_rng(0))
    assert tuple(found) == METHODS + SIGNALS
    for name in found:
        assert found[name].shape == row["times_s"].shape
        values = figures(row, name, found[name], SPANS, cut())
        assert tuple(values) == METRICS
        assert all(np.isfinite(value) for value in values.values())


def test_silence_orders_nothing() -> None:
    row = video(audio=False)
    values = figures(row, "loudness", scores(row, np.random.default_rng(0))["loudness"], SPANS, cut())
    assert values["tau"] == values["rho"] == 0
    assert values["hit1"] == pytest.approx(17 / 60)


def test_a_score_that_knows_the_truth_is_perfect_and_its_opposite_is_not() -> None:
    row = video()
    knows = figures(row, "scorer", row["importance"], SPANS, cut())
    assert knows["ap"] == knows["hit1"] == 1
    assert knows["reel_precision"] > 0.99
    against = figures(row, "motion", -row["importance"], SPANS, cut())
    assert against["hit1"] == against["reel_precision"] == 0
    assert against["tau"] < 0


def test_seconds_are_means_of_their_samples_and_truth_is_what_fills_most_of_them() -> None:
    assert per_second(np.array([0.0, 0.5, 2.0, 3.4]), np.array([1.0, 2.0, 5.0, 9.0]), 3) == pytest.approx(
        [1.5, np.nan, 5.0], nan_ok=True
    )
    assert np.flatnonzero(truth_per_second(np.array([[1.4, 3.6]]), 5)).tolist() == [1, 2, 3]
    assert np.flatnonzero(truth_per_second(np.array([[1.6, 3.4]]), 5)).tolist() == [2]


def test_a_second_without_a_sample_is_left_out() -> None:
    row = video() | {"times_s": np.array([0.0, 10.0, 11.0, 59.7])}
    truth, values = ranked(row, np.array([1.0, 2.0, 3.0, 4.0]), SPANS)
    assert truth.tolist() == [False, True, True, False]
    assert values.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("count", [1, 2, 16, 97])
def test_the_best_of_the_uniform_score_lie_evenly(count: int) -> None:
    order = np.argsort(-spread_evenly(count))
    assert len(set(spread_evenly(count))) == count
    for k in range(2, count + 1):
        gaps = np.diff(np.sort(order[:k]), append=np.min(order[:k]) + count)
        assert gaps.max() <= 2 * np.ceil(count / k)


def test_colours_are_alike_where_pictures_are() -> None:
    pictures = np.zeros((3, 32, 32, 3), np.uint8)
    pictures[0], pictures[1] = (200, 30, 30), (202, 31, 31)
    pictures[2] = (30, 30, 200)
    found = colours(pictures)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-3)
    assert found[0] @ found[1] > 0.99
    assert found[0] @ found[2] < 0.01
