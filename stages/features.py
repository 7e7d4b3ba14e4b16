"""CNN features: decoded frames -> one vector per sampled frame.

in   frames    uint8   [N, S, S, 3]  RGB
out  features  float16 [N, D]
"""

from typing import Any

import numpy as np
import torch
from pydantic import Field

from stages.nn import cnn
from stages.nn.device import pick_device
from stages.nn.weights import Bundle
from stages.settings import Settings

FLOAT16_MAX = float(np.finfo(np.float16).max)


class FeatureSettings(Settings):
    kind: cnn.Kind = Field("compact", description="compact is ours; the others are torchvision's")
    weights: str = Field("bundle", description="bundle, official (torchvision's), or a .safetensors path")
    batch: int = Field(32, ge=1, description="frames in the network at a time")


class ExtractFeatures:
    """Holds the network; a call adds `features` to a row. Raises BundleError if the weights do not fit."""

    def __init__(self, settings: FeatureSettings, bundle: Bundle):
        self.batch, self.device = settings.batch, pick_device()
        self.net = cnn.load(bundle, settings.kind, settings.weights).to(self.device)
        self.width = self.net.width

    @torch.inference_mode()
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        frames_NSSC = row["frames"]
        features_ND = np.empty((len(frames_NSSC), self.width), np.float16)
        for start in range(0, len(frames_NSSC), self.batch):
            # A copy, because frames out of an Arrow block are read-only and torch wants them writable.
            part = np.array(frames_NSSC[start : start + self.batch])
            vectors = self.net(torch.from_numpy(part).to(self.device))
            # VGG's activations can leave the range of half floats, and an infinity spoils every distance.
            features_ND[start : start + len(part)] = (
                vectors.clamp(-FLOAT16_MAX, FLOAT16_MAX).half().cpu().numpy()
            )
        return row | {"features": features_ND}
