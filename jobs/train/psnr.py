"""Peak signal-to-noise ratio in dB; what is identical has none, so each is given a ceiling."""

import numpy as np
from torch import Tensor

HIGHEST_DB = 60.0


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """[B] of pictures [B, C, H, W] in [0, 1]."""
    return (-10 * (a - b).square().mean((1, 2, 3)).log10()).clamp(max=HIGHEST_DB)


def psnr_of(a: np.ndarray, b: np.ndarray, highest_db: float = HIGHEST_DB) -> float:
    """Of two uint8 pictures, over all channels."""
    error = np.square(a.astype(np.float64) - b).mean() / 255**2
    return float(-10 * np.log10(max(error, 10 ** (-highest_db / 10))))
