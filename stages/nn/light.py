"""Light and how displays show it: sRGB's transfer (IEC 61966-2-1) and the luma of its primaries."""

import torch
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)  # BT.709


def luma(x: Tensor) -> Tensor:
    """RGB [B, 3, ...] -> [B, 1, ...]."""
    return (x * x.new_tensor(LUMA).view(1, 3, *[1] * (x.dim() - 2))).sum(1, keepdim=True)


def linear(x: Tensor) -> Tensor:
    """sRGB display values -> linear light."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def display(x: Tensor) -> Tensor:
    """Linear light -> sRGB display values."""
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
