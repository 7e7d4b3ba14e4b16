"""Importance and novelty of every sample of a whole video.

in   times_s     float64 [N]     features  float16 [N, D]     motion, motion_std  float32 [N]
     cuts_s      float64 [C]     first frame of each new shot
     loudness    float32 [M]     LUFS per half second from the start; empty without audio
out  importance  float32 [N]     in [0, 1], learned; spread over every video that has any contrast at all
     novelty     float32 [N]     in [0, 1], unlearned: how unlike most of the video a sample looks

What is judged is not a single picture but some seconds of its shot: see `within_shots`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stages.loudness import STEP_S
from stages.networks import FeatureSettings, ScoreSettings
from stages.nn import scorer
from stages.nn.device import pick_device
from stages.nn.kinds import width
from stages.nn.weights import Bundle, BundleError

# What the scorer may see beside the features; a bundle's card names those that its scorer does see.
SIGNALS = (
    "motion",
    "relative_motion",
    "motion_std",
    "relative_motion_std",
    "relative_loudness",
    "audible",
    "novelty",
    "change",
)
SILENCE_LUFS = -60.0
# Less is the noise of a camera that looks at nothing.
LEAST_MOTION = 1e-3
# A broken clock may jump by hours: longer pauses between samples count as this.
MAX_GAP_S = 5.0
# To both sides of a sample. Mean AP on composed timelines, without any learning: 0.918 for single samples,
# 0.926 so, 0.937 with the mean over the true segments.
REACH_S = 4.0
CHUNK = 4096


class Score:
    """Holds the scorer; a call adds `importance` and `novelty` to the row of a whole video.

    Raises BundleError if the scorer was trained on other features than `features` says.
    """

    def __init__(
        self, settings: ScoreSettings, bundle: Bundle, features: FeatureSettings = FeatureSettings()
    ):
        self.settings, self.device = settings, pick_device()
        self.net = None
        if settings.kind != "novelty":
            check_features(bundle, features)
            self.net = scorer.load(bundle, settings.kind).to(self.device)
            self.rate_hz = bundle.card("scorer")["settings"]["rate_hz"]
            self.columns = columns(self.net.shape.signals)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        features_ND, new, signals_NS = self.inputs(row)
        if self.net is None:
            return row | {"importance": new.copy(), "novelty": new}
        times_s = row["times_s"]
        if len(times_s) and features_ND.shape[1] != self.net.shape.features_width:
            raise BundleError(
                f"the features are {features_ND.shape[1]} wide, the scorer was trained on "
                f"{self.net.shape.features_width}: set features.kind to what it was trained on"
            )
        index, clock, steps = grid(times_s, self.rate_hz)
        if not len(index):
            return row | {"importance": np.empty(0, np.float32), "novelty": new}
        seen_TS = signals_NS[index][:, self.columns]
        logits = self.net.score(torch.from_numpy(features_ND[index]), torch.from_numpy(seen_TS))
        logits_N = np.interp(clock, steps, logits.numpy())
        return row | {"importance": importance(logits_N, self.settings.contrast), "novelty": new}

    def inputs(self, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is judged of a whole video: features [N, D], novelty [N], signals [N, len(SIGNALS)]."""
        times_s, cuts_s = row["times_s"], row["cuts_s"]
        features_ND = within_shots(row["features"], times_s, cuts_s)
        new = novelty(features_ND, self.settings.typical_share)
        motion = steady(row["motion"], times_s, cuts_s)
        motion_std = steady(row["motion_std"], times_s, cuts_s)
        loudness = within_shots(loudness_at(times_s, row["loudness"]), times_s, cuts_s)
        return features_ND, new, signals(features_ND, motion, motion_std, loudness, new)


def check_features(bundle: Bundle, features: FeatureSettings) -> None:
    """Raises BundleError, in words for the operator, unless the scorer was trained on these features."""
    trained = bundle.card("scorer")["settings"]["features"]
    wanted = (features.kind, width(bundle, features.kind), features.weights)
    if (trained["kind"], trained["width"], trained["weights"]) == wanted:
        return
    raise BundleError(
        f"{bundle.uri}: the scorer was trained on {trained['kind']} features ({trained['width']} wide, "
        f"weights: {trained['weights']}), the settings ask for {features.kind} ({wanted[1]} wide, weights: "
        f"{features.weights}): set features back, train a scorer with `reelmap train scorer "
        f"--set features.kind={features.kind}`, or set score.kind to novelty"
    )


def columns(names: Sequence[str]) -> list[int]:
    """Which columns of `signals` these are. Raises BundleError for a name that this version doesn't know."""
    if unknown := set(names) - set(SIGNALS):
        raise BundleError(f"the scorer wants signals that are not known here: {', '.join(sorted(unknown))}")
    return [SIGNALS.index(name) for name in names]


def within_shots(values: np.ndarray, times_s: np.ndarray, cuts_s: np.ndarray) -> np.ndarray:
    """Mean of each sample's neighbours within REACH_S and within its shot, [N, ...] in the type of `values`.

    times_s  float64 [N], rising
    """
    count = len(values)
    if not count:
        return values
    shot = np.searchsorted(cuts_s, times_s, side="right")
    first = np.maximum(np.searchsorted(times_s, times_s - REACH_S), np.searchsorted(shot, shot))
    stop = np.searchsorted(times_s, times_s + REACH_S, side="right")
    stop = np.minimum(stop, np.searchsorted(shot, shot, side="right"))
    means = np.empty_like(values)
    # A part of the video at a time: sums are wide, and a long video of wide vectors has many.
    for start in range(0, count, CHUNK):
        rows = slice(start, min(start + CHUNK, count))
        low, high = int(first[rows].min()), int(stop[rows].max())
        sums = np.zeros((high - low + 1, *values.shape[1:]), np.float64)
        np.cumsum(values[low:high], axis=0, dtype=np.float64, out=sums[1:])
        total = sums[stop[rows] - low] - sums[first[rows] - low]
        size = (stop[rows] - first[rows]).reshape(-1, *[1] * (values.ndim - 1))
        means[rows] = total / size
    return means


def steady(motion: np.ndarray, times_s: np.ndarray, cuts_s: np.ndarray) -> np.ndarray:
    """Motion as geometric means within shots; see `within_shots`."""
    moved = np.exp(within_shots(np.log(motion.astype(np.float32) + LEAST_MOTION), times_s, cuts_s))
    return moved - LEAST_MOTION


def novelty(features_ND: np.ndarray, typical_share: float, landmarks: int = 256) -> np.ndarray:
    """How unlike most of its video each sample is, float32 [N] in [0, 1].

    The cosine distance within which a sample finds `typical_share` of the video, for which evenly spaced
    landmarks stand: N x 256 distances, not N x N. Stretched over the video's own range, but a video that
    hardly changes stays low everywhere.
    """
    count = len(features_ND)
    if count < 2:
        return np.zeros(count, np.float32)
    marks = unit(features_ND[np.linspace(0, count - 1, min(count, landmarks)).round().astype(int)])
    nearest = min(len(marks) - 1, max(1, round(typical_share * len(marks))))
    distance = np.empty(count, np.float32)
    for start in range(0, count, CHUNK):
        apart = 1 - unit(features_ND[start : start + CHUNK]) @ marks.T
        distance[start : start + CHUNK] = np.partition(apart, nearest, axis=1)[:, nearest]
    return stretch(distance, least=0.02)


def stretch(values: np.ndarray, least: float) -> np.ndarray:
    """Values over their own range in [0, 1]; a range below `least` is not blown up to fill it."""
    low, high = np.percentile(values, (2, 98))
    return np.clip((values - low) / max(high - low, least), 0, 1).astype(np.float32)


def unit(features: np.ndarray) -> np.ndarray:
    wide = features.astype(np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-6)


def loudness_at(times_s: np.ndarray, loudness: np.ndarray) -> np.ndarray:
    """LUFS at each sample, float32 [N]; empty without audio."""
    if not len(loudness):
        return np.empty(0, np.float32)
    index = np.clip((times_s / STEP_S).astype(int), 0, len(loudness) - 1)
    return loudness[index].astype(np.float32)


def signals(
    features_ND: np.ndarray,
    motion: np.ndarray,
    motion_std: np.ndarray,
    loudness: np.ndarray,
    new: np.ndarray,
) -> np.ndarray:
    """What the scorer may see beside the features, float32 [N, len(SIGNALS)], each roughly within -2 to 2.

    motion               as such
    relative_motion      against the video
    motion_std           as such: how unevenly it moves
    relative_motion_std  against the video
    relative_loudness    against the video
    audible              whether there is audio
    novelty              see `novelty`
    change               of the picture's vector since the sample before
    """
    moved, uneven = (np.log(values.astype(np.float32) + LEAST_MOTION) for values in (motion, motion_std))
    found = {name: np.zeros(len(motion), np.float32) for name in SIGNALS}
    found["motion"] = (moved + 4) / 1.5
    found["motion_std"] = (uneven + 5.8) / 0.8
    for name, values in (("relative_motion", moved), ("relative_motion_std", uneven)):
        found[name] = np.clip((values - middle(values)) / max(spread(values), 0.25), -3, 3)
    heard = loudness[loudness > SILENCE_LUFS]
    if len(heard):
        found["relative_loudness"] = np.clip((loudness - middle(heard)) / max(spread(heard), 2.0), -3, 3)
        found["audible"][:] = 1
    found["novelty"] = 2 * new - 1
    for start in range(0, len(features_ND) - 1, CHUNK):
        vectors = unit(features_ND[start : start + CHUNK + 1])
        apart = 1 - np.sum(vectors[1:] * vectors[:-1], axis=1)
        found["change"][start + 1 : start + len(vectors)] = 4 * apart
    return np.stack([found[name] for name in SIGNALS], axis=1).astype(np.float32)


def middle(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0


def spread(values: np.ndarray) -> float:
    """Half of 16th to 84th percentile: the standard deviation of a bell curve, unmoved by outliers."""
    return float(np.diff(np.percentile(values, (16, 84)))[0] / 2) if len(values) else 0.0


def grid(times_s: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples at any times -> even steps at the rate that the scorer was trained at.

    Returns the nearest sample of each step [T], the samples' times [N] and the steps' times [T] on a clock
    without long pauses.
    """
    if not len(times_s):
        return np.empty(0, int), np.empty(0), np.empty(0)
    clock = np.concatenate([[0.0], np.cumsum(np.clip(np.diff(times_s), 0, MAX_GAP_S))])
    steps = np.arange(int(clock[-1] * rate_hz + 1e-6) + 1) / rate_hz
    after = np.clip(np.searchsorted(clock, steps), 1, max(1, len(clock) - 1))
    after = np.minimum(after, len(clock) - 1)
    before = np.maximum(after - 1, 0)
    index = np.where(steps - clock[before] <= clock[after] - steps, before, after)
    return index, clock, steps


def importance(logits: np.ndarray, contrast: float) -> np.ndarray:
    """Logits [N] of one video -> float32 [N] in [0, 1].

    A mix of the probability, which compares videos, and of its place between the video's own extremes: a
    film that is all action would else score 1 from end to end, and nothing could be chosen from it.
    """
    absolute = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    if len(logits) < 2:
        return absolute.astype(np.float32)
    relative = stretch(logits, least=0.2)
    return ((1 - contrast) * absolute + contrast * relative).astype(np.float32)
