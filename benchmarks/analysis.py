"""The product's own path on one file, without Ray: probe, decode, features, gather, score, edit list."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter

from benchmarks.compose import FPS
from benchmarks.methods import colours
from stages.container import LimitSettings
from stages.cut import Cut, CutSettings
from stages.cutter import frames_from
from stages.decode import DecodeSettings, decode
from stages.effects import EffectSettings
from stages.features import ExtractFeatures, FeatureSettings
from stages.gather import merge
from stages.nn.weights import open_bundle
from stages.probe import probe
from stages.score import Score, ScoreSettings

REEL = "15%"
SMALL = (160, 90)  # pixels in which frames are compared


@dataclass(frozen=True)
class Analyser:
    """A bundle's networks, and every other setting but `decode` as it is when nothing is set."""

    extract: ExtractFeatures
    score: Score
    cut: Cut
    decode: DecodeSettings = DecodeSettings()

    @classmethod
    def load(cls, uri: str | None, decode: DecodeSettings = DecodeSettings()) -> "Analyser":
        """On one thread: files are what runs side by side. Raises BundleError."""
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        bundle = open_bundle(uri)
        card = bundle.card("scorer")
        seen = card["settings"]["features"]
        features = FeatureSettings(kind=seen["kind"], weights=seen["weights"])
        effects = EffectSettings()
        return cls(
            ExtractFeatures(features, bundle),
            Score(ScoreSettings(kind=card["kind"]), bundle, features),
            Cut(CutSettings(target=REEL), effects.transitions, effects.transition_s),
            decode,
        )

    def __call__(self, path: Path) -> dict[str, Any]:
        """The row of a whole video, scored, with `colours` beside the features. Raises Failed or Dropped."""
        settings, limits = self.decode, LimitSettings()
        shards, histograms = [], []
        for shard in probe({"uri": str(path)}, limits, settings.shard_s):
            row = self.extract(decode(shard, settings, limits))
            histograms.append(colours(row["frames"]))
            shards.append({key: value for key, value in row.items() if key != "frames"} | {"codes": []})
        whole = self.score(merge(shards, settings.min_coverage))
        return whole | {"colours": np.concatenate(histograms)}


def differences(path: Path, times_s: np.ndarray) -> np.ndarray:
    """Median over the frames since the sample before of their mean |luma difference|, f32 [N] in 0..1."""
    at_s, found = [], []
    small, last = VideoReformatter(), None
    for time_s, frame in frames_from(str(path), 0.0, FPS):
        luma = small.reformat(
            frame, *SMALL, format="gray8", interpolation=Interpolation.FAST_BILINEAR
        ).to_ndarray()
        if last is not None:
            at_s.append(time_s)
            found.append(float(cv2.absdiff(luma, last).mean()) / 255)
        last = luma
    sample = np.searchsorted(times_s, np.array(at_s) - 1e-6)
    parts = np.split(np.array(found, np.float32), np.searchsorted(sample, np.arange(1, len(times_s))))
    # The first sample has no frame before it.
    return np.array([np.median(part) if len(part) else 0.0 for part in parts], np.float32)
