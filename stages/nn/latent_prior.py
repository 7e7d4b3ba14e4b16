"""What a latent is likely to be: table and mean of each value, from the hyper-latent and what is decoded.

The latent is coded in four steps (Li, Li, Lu, CVPR 2023, arXiv 2302.14402). Of every 2 × 2 positions, each
channel sends one a step, a quarter of the channels each in another order:

    channel % 4                        0      1      2      3
    steps of the 2 × 2 positions       0 2    1 3    2 0    3 1
                                       3 1    2 0    1 3    0 2

So from the second step on, each value has neighbours of its own channel and other channels at its position.

Everything here is fixed-point (entropy.py): all sums are exact, in any order.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stages.nn.entropy import (
    ACTIVATION_BITS,
    INPUT_MAX,
    SCALE_STEP,
    SCALES,
    FixedConv2d,
    FixedReLU,
    bound,
    snap,
)

STEPS = 4
# (step, table index, mean) -> the integers [B, M, H, W] by which the latent differs from its mean, of which
# only those of the step count.
Residual = Callable[[int, Tensor, Tensor], Tensor]


class Context(nn.Module):
    """What the values that are decoded already (the others are 0) say of their neighbours."""

    def __init__(self, latent: int, hyper: int, width: int):
        super().__init__()
        self.near = FixedConv2d(latent, width, 3, padding=1)
        self.far = FixedConv2d(hyper, width, 1)
        self.activation = FixedReLU()
        self.out = FixedConv2d(width, 2 * latent, 1)
        # At the start the hyper-latent decides alone.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, y_hat: Tensor, features: Tensor) -> Tensor:
        # Whole numbers: what a mean adds to them, the features know.
        y_hat = snap(y_hat.clamp(-INPUT_MAX, INPUT_MAX))
        return self.out(self.activation(self.near(y_hat) + self.far(features)))


class LatentPrior(nn.Module):
    def __init__(self, latent: int, hyper: int, hyper_latent: int, context: int, rates: int):
        super().__init__()
        self.hyper_synthesis = nn.Sequential(
            FixedConv2d(hyper_latent, 4 * hyper, 3, padding=1),
            nn.PixelShuffle(2),
            FixedReLU(),
            FixedConv2d(hyper, 4 * hyper, 3, padding=1),
            nn.PixelShuffle(2),
            FixedReLU(),
        )
        self.first = FixedConv2d(hyper, 2 * latent, 1)
        self.contexts = nn.ModuleList(Context(latent, hyper, context) for _ in range(STEPS - 1))
        # A quantiser step finer by 2^0.5 makes scales wider by as much.
        start = SCALES / 4 + 0.3466 / SCALE_STEP * torch.arange(rates, dtype=torch.float32)
        self.rate_index = nn.Parameter(start[:, None].expand(rates, latent).clone())

    def forward(
        self, z_hat: Tensor, rate: Tensor, size: tuple[int, int], residual: Residual
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The latent, table indices and means [B, M, *size], of hyper-latents [B, Z, H/4, W/4], rates [B].

        residual   called for each step, in order; may only look at what that step may know
        """
        features = self.hyper_synthesis(z_hat)[..., : size[0], : size[1]]
        base_index, base_mean = self.first(features).chunk(2, 1)
        base_index = base_index + self.rate_index[rate][..., None, None]
        masks = step_masks(base_mean.shape[1:]).to(base_mean)
        y_hat, all_index, all_mean = (torch.zeros_like(base_mean) for _ in range(3))
        for step, mask in enumerate(masks):
            index, mean = base_index, base_mean
            if step:
                more_index, more_mean = self.contexts[step - 1](y_hat, features).chunk(2, 1)
                index, mean = index + more_index, mean + more_mean
            index = bound(index, 0, SCALES - 1)
            if not self.training:
                index = index.round()
            mean = snap(mean.clamp(-INPUT_MAX, INPUT_MAX), ACTIVATION_BITS)
            y_hat = y_hat + mask * (residual(step, index, mean) + mean)
            all_index, all_mean = all_index + mask * index, all_mean + mask * mean
        return y_hat, all_index, all_mean


def step_masks(shape: tuple[int, int, int]) -> Tensor:
    """Which values [M, H, W] each step codes: bool [4, M, H, W]; every value is in one step."""
    channel, row, column = (torch.arange(size) for size in shape)
    # Places in the order (0, 0), (1, 1), (0, 1), (1, 0): the second step has four diagonal neighbours.
    place = torch.tensor([[0, 2], [3, 1]])[row[:, None] % 2, column % 2]
    step = place ^ (channel % STEPS)[:, None, None]
    return torch.stack([step == k for k in range(STEPS)])
