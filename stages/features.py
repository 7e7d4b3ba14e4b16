"""CNN features: decoded frames -> one vector per sampled frame.

in   frames    uint8   [N, S, S, 3]  RGB
out  features  float16 [N, D]
"""

from typing import Any

import numpy as np
import torch

from stages import tally
from stages.networks import FeatureSettings
from stages.nn import cnn
from stages.nn.device import MicroBatches, in_bfloat16, pick_device
from stages.nn.weights import Bundle

FLOAT16_MAX = float(np.finfo(np.float16).max)


class ExtractFeatures:
    """Holds the network; a call adds `features` to a row. Raises BundleError if the weights do not fit."""

    def __init__(self, settings: FeatureSettings, bundle: Bundle):
        self.settings, self.device = settings, pick_device()
        self.net = cnn.load(bundle, settings.kind, settings.weights).to(self.device)
        self.width, self.parts = self.net.width, MicroBatches()
        self.bfloat16 = {"auto": None, "fp32": False, "bf16": True}[settings.precision]

    @torch.inference_mode()
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        vectors = list(self.parts(self._vectors, row["frames"], self.settings.batch))
        tally.level("batch_frames", max(1, int(self.settings.batch * self.parts.share)))
        features_ND = np.concatenate(vectors) if vectors else np.empty((0, self.width), np.float16)
        return row | {"features": features_ND}

    def _vectors(self, frames_NSSC: np.ndarray) -> np.ndarray:
        # A copy, because frames out of an Arrow block are read-only and torch wants them writable.
        frames = torch.from_numpy(np.array(frames_NSSC)).to(self.device)
        with in_bfloat16(self.device, self.bfloat16):
            vectors_ND = self.net(frames).float()
        # VGG's activations can leave the range of half floats, and an infinity spoils every distance.
        return vectors_ND.clamp(-FLOAT16_MAX, FLOAT16_MAX).half().cpu().numpy()
