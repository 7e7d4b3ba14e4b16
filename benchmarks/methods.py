"""Every way of scoring side by side, on one analysed video, and what the truth says of each.

A score is float [N], one per sample of the analysis; higher is better. None but the scorer has learned.

The baselines are the plain cues as one would write them down: the difference of successive frames, the
loudness, how unlike the rest a picture is. SIGNALS are the scorer's own inputs, each taken alone: they show
what of its result is due to how it measures, and what to putting the measures together.
"""

from typing import Any

import cv2
import numpy as np

from jobs.train.metrics import average_precision, hit_at_1, kendall_tau_b, spearman_rho
from stages.cut import Cut
from stages.score import ScoreSettings, loudness_at, novelty, steady

METHODS = ("random", "uniform", "motion", "loudness", "colour_novelty", "feature_novelty", "scorer")
SIGNALS = ("signal_motion", "signal_novelty")
METRICS = ("ap", "hit1", "tau", "rho", "reel_precision")
HUES, SATURATIONS, VALUES = 12, 4, 4


def colours(frames: np.ndarray) -> np.ndarray:
    """Square roots of HSV histograms, f32 [N, 192], of pictures u8 [N, S, S, 3] (RGB).

    The cosine of two such vectors is the Bhattacharyya coefficient of the histograms.
    """
    bins, ranges = [HUES, SATURATIONS, VALUES], [0, 180, 0, 256, 0, 256]
    found = np.empty((len(frames), HUES * SATURATIONS * VALUES), np.float32)
    for row, frame in zip(found, frames, strict=True):
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        row[:] = cv2.calcHist([hsv], [0, 1, 2], None, bins, ranges).ravel() / hsv[..., 0].size
    return np.sqrt(found)


def scores(video: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The score of every method and signal on an analysed video with `colours` and `differences`."""
    times_s, cuts_s = video["times_s"], video["cuts_s"]
    second = times_s.astype(int)
    last = int(second[-1])
    typical = ScoreSettings().typical_share
    loud = loudness_at(times_s, video["loudness"])
    return {
        "random": rng.random(last + 1)[second],
        "uniform": spread_evenly(last + 1)[second],
        "motion": video["differences"],
        "loudness": loud if len(loud) else np.zeros(len(times_s)),
        "colour_novelty": novelty(video["colours"], typical),
        "feature_novelty": novelty(video["features"], typical),
        "scorer": video["importance"],
        "signal_motion": steady(video["motion"], times_s, cuts_s),
        "signal_novelty": video["novelty"],
    }


def spread_evenly(count: int) -> np.ndarray:
    """Scores f64 [count] whose best k are spread over the whole about evenly, for any k.

    The van der Corput sequence in base 2 (the index with its bits reversed), the middle being best.
    """
    index = (np.arange(count) - count // 2) % count
    bits = max(1, count.bit_length())
    flipped = np.zeros(count)
    for bit in range(bits):
        flipped += (index >> bit & 1) / 2.0 ** (bit + 1)
    return 1 - flipped


def per_second(times_s: np.ndarray, score: np.ndarray, seconds: int) -> np.ndarray:
    """Mean score f64 [seconds] of the samples in each second; nan where there is none."""
    second = np.minimum(times_s.astype(int), seconds)  # what is beyond the last whole one
    total = np.bincount(second, score, seconds + 1)[:seconds]
    count = np.bincount(second, minlength=seconds + 1)[:seconds]
    return np.divide(total, count, out=np.full(seconds, np.nan), where=count > 0)


def truth_per_second(spans: np.ndarray, seconds: int) -> np.ndarray:
    """Whether most of each second lies within the spans [K, 2], bool [seconds]."""
    starts = np.arange(seconds)
    return np.array([covered_s(spans, start, start + 1) > 0.5 for start in starts.tolist()], bool)


def covered_s(spans: np.ndarray, start_s: float, end_s: float) -> float:
    """Seconds of [start_s, end_s) that lie within the spans [K, 2], which don't overlap."""
    return float(np.clip(np.minimum(spans[:, 1], end_s) - np.maximum(spans[:, 0], start_s), 0, None).sum())


def ranked(video: dict[str, Any], score: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truth and score of every whole second that has a sample."""
    count = int(video["duration_s"] + 1e-3)
    values = per_second(video["times_s"], score, count)
    known = np.isfinite(values)
    return truth_per_second(spans, count)[known], values[known]


def figures(
    video: dict[str, Any], method: str, score: np.ndarray, spans: np.ndarray, cut: Cut
) -> dict[str, float]:
    """Everything in METRICS for one method on one video."""
    truth, values = ranked(video, score, spans)
    return {
        "ap": average_precision(truth, values),
        "hit1": hit_at_1(truth, values),
        "tau": kendall_tau_b(truth, values),
        "rho": spearman_rho(truth, values),
        "reel_precision": reel_precision(video, method, score, spans, cut),
    }


def reel_precision(
    video: dict[str, Any], method: str, score: np.ndarray, spans: np.ndarray, cut: Cut
) -> float:
    """Which share of the reel's source is action, when this score alone chooses the clips."""
    if method != "scorer":
        # The knapsack wants scores in [0, 1]; their order stays.
        scaled = (score - score.min()) / max(float(np.ptp(score)), 1e-9)
        video = video | {"importance": scaled, "novelty": scaled}
    shown = [(edit["source_start_s"], edit["source_end_s"]) for edit in cut(video)["edits"]]
    return sum(covered_s(spans, *span) for span in shown) / sum(end - start for start, end in shown)
