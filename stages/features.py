"""CNN features: decoded frames -> one vector per sampled frame.

in   frames    uint8   [N, S, S, 3]  RGB
out  features  float16 [N, D]
"""

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from stages import tally
from stages.nn import cnn
from stages.nn.device import MicroBatches, in_bfloat16, pick_device
from stages.nn.weights import Bundle
from stages.settings import Settings

FLOAT16_MAX = float(np.finfo(np.float16).max)


class FeatureSettings(Settings):
    kind: cnn.Kind = Field("compact", description="compact is ours; the others are torchvision's")
    weights: str = Field("bundle", description="bundle, official (torchvision's), or a .safetensors path")
    batch: int = Field(32, ge=1, description="frames in the network at a time; fewer if a GPU is full")
    # bf16 takes half the time, and moves scores by little: tau_b 0.997 to 0.999 on three videos.
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="what the network calculates in; auto: bf16 where the processor has it"
    )


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
