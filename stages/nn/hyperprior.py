"""The mean-scale hyperprior: a latent whose distribution is itself sent along, in a few bytes.

Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018 (arXiv 1802.01436); the means
are of Minnen, Ballé, Toderici, NeurIPS 2018 (arXiv 1809.02736); several rates in one network by gain units
(Cui et al., "Asymmetric gained deep image compression", CVPR 2021).

    x ─ analysis ─ ×gain ─ y ────────────── round(y − mean) ─ ANS ─ + mean ─ ŷ ─ ×inverse gain ─ synthesis ─ x̂
                           │                                   │        │
                           └ hyper-analysis ─ round ─ ẑ ─ ANS ─┴─ hyper-synthesis ─ table index, mean

The hyper-synthesis is a fixed-point network (see entropy.py), so ŷ is the same on every machine. The
synthesis is in float32: a pixel may differ by one level between machines.
"""

import copy
import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from stages.nn.entropy import (
    RADIUS,
    SCALE_MIN,
    SCALE_STEP,
    SCALES,
    FixedConv2d,
    FixedReLU,
    Tables,
    bound,
    check_empty,
    coder_of,
    frequencies,
    gaussian_frequencies,
    new_coder,
    snap,
    words,
)
from stages.nn.transforms import Analysis, Synthesis
from stages.settings import Settings

DOWN = 64  # pixels per hyper-latent


class HyperpriorSettings(Settings):
    widths: tuple[int, int] = (48, 96)
    depths: tuple[int, int] = (2, 3)
    latent: int = 96
    hyper: int = 64
    hyper_latent: int = 32
    rates: int = 4


class LogisticMixture(nn.Module):
    """Factorised prior of the hyper-latent: for each channel a mixture of three logistic distributions."""

    def __init__(self, channels: int, parts: int = 3):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, parts, 1, 1))
        self.mean = nn.Parameter(
            torch.linspace(-1, 1, parts).expand(channels, parts)[..., None, None].clone()
        )
        self.log_scale = nn.Parameter(torch.zeros(channels, parts, 1, 1))

    def forward(self, z_BCHW: Tensor) -> Tensor:
        """Probability of the unit interval around each value."""
        centred = z_BCHW[:, :, None] - self.mean
        inverse = torch.exp(-self.log_scale)
        mass = torch.sigmoid((centred + 0.5) * inverse) - torch.sigmoid((centred - 0.5) * inverse)
        return (mass * self.weight.softmax(1)).sum(2)


class Hyperprior(nn.Module):
    kind = "hyperprior"

    def __init__(self, settings: HyperpriorSettings):
        super().__init__()
        self.settings, self.rates = settings, settings.rates
        s, hyper = settings, settings.hyper
        self.analysis = Analysis(s.widths, s.depths, s.latent)
        self.synthesis = Synthesis(s.widths, s.depths, s.latent)
        self.hyper_analysis = nn.Sequential(
            nn.Conv2d(s.latent, hyper, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hyper, hyper, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hyper, s.hyper_latent, 3, stride=2, padding=1),
        )
        self.hyper_synthesis = nn.Sequential(
            FixedConv2d(s.hyper_latent, 4 * hyper, 3, padding=1),
            nn.PixelShuffle(2),
            FixedReLU(),
            FixedConv2d(hyper, 4 * hyper, 3, padding=1),
            nn.PixelShuffle(2),
            FixedReLU(),
            FixedConv2d(hyper, 2 * s.latent, 1),
        )
        # Rate r is meant for 2^r times the lambda of rate 0: a quantiser step finer by its square root.
        gain = 2 ** (0.5 * torch.arange(s.rates, dtype=torch.float32))[:, None].expand(s.rates, s.latent)
        self.gain, self.inverse_gain = nn.Parameter(1.5 * gain), nn.Parameter(1 / (1.5 * gain))
        self.prior = LogisticMixture(s.hyper_latent)
        with torch.no_grad():
            # Scales start in the middle of the tables.
            self.hyper_synthesis[-1].bias[: s.latent] = SCALES / 3
        alphabet = 2 * RADIUS + 1
        self.register_buffer("y_table", torch.zeros(SCALES, alphabet, dtype=torch.int32))
        self.register_buffer("z_table", torch.zeros(s.hyper_latent, alphabet, dtype=torch.int32))

    def forward(self, x: Tensor, rate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x̂, bits per picture [B] and the auxiliary loss (none here), for training.

        Rates are estimated with uniform noise in place of rounding, the distortion with the rounded values
        (Minnen and Singh, 2020).
        """
        y = self.analysis(x).float() * self.gain[rate][..., None, None]
        z = self.hyper_analysis(y).float()
        # Not in half precision even in training: its grid is finer than that.
        with torch.autocast(x.device.type, enabled=False):
            scale_index, mean = self.hyper_synthesis(snap(z)).chunk(2, 1)
        scale_index = bound(scale_index, 0, SCALES - 1)
        scale = SCALE_MIN * torch.exp(SCALE_STEP * scale_index)
        y_bits = -torch.log2(normal_mass(y - mean + noise(y), scale).clamp_min(1e-7))
        z_bits = -torch.log2(self.prior(z + noise(z)).clamp_min(1e-7))
        y_hat = snap(y - mean) + mean
        x_hat = self.synthesis(y_hat * self.inverse_gain[rate][..., None, None])
        return x_hat, y_bits.sum((1, 2, 3)) + z_bits.sum((1, 2, 3)), x.new_zeros(())

    @torch.no_grad()
    def freeze(self) -> None:
        """Turn the priors into tables of integers."""
        symbols = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64).view(1, 1, -1, 1)
        mass = copy.deepcopy(self.prior).cpu().double()(symbols.expand(1, len(self.z_table), -1, 1))
        self.z_table.copy_(torch.from_numpy(frequencies(mass[0, ..., 0].numpy())))
        self.y_table.copy_(torch.from_numpy(gaussian_frequencies()))

    @torch.inference_mode()
    def encode(self, x: Tensor, rate: int) -> list[bytes]:
        """One payload for each picture of x [B, 3, H, W] in 0..1; H and W are multiples of 64."""
        y = self.analysis(x) * self.gain[rate][:, None, None]
        z = self.hyper_analysis(y).round().clamp(-RADIUS, RADIUS).cpu()
        index, mean = self.exact_parameters(z)
        residual = (y.cpu() - mean).round().clamp(-RADIUS, RADIUS)
        y_tables, z_tables = self.tables
        payloads = []
        for residual_i, index_i, z_i in zip(numbers(residual), numbers(index), numbers(z), strict=True):
            coder = new_coder()
            y_tables.encode(coder, residual_i.ravel() + RADIUS, index_i.ravel())
            z_tables.encode(coder, z_i.ravel() + RADIUS, channels(z_i.shape))
            payloads.append(words(coder))
        return payloads

    @torch.inference_mode()
    def decode(self, payloads: list[bytes], rate: int, height: int, width: int) -> Tensor:
        """The pictures [B, 3, height, width] in 0..1. Raises CodecError."""
        y_hat = self.decode_latent(payloads, height, width).to(self.gain.device)
        return self.synthesis(y_hat * self.inverse_gain[rate][:, None, None])

    @torch.inference_mode()
    def decode_latent(self, payloads: list[bytes], height: int, width: int) -> Tensor:
        """ŷ [B, M, height/16, width/16], the same on every machine."""
        y_tables, z_tables = self.tables
        shape = (len(self.z_table), height // DOWN, width // DOWN)
        coders = [coder_of(payload) for payload in payloads]
        z = [z_tables.decode(coder, channels(shape)).reshape(shape) - RADIUS for coder in coders]
        index, mean = self.exact_parameters(torch.from_numpy(np.stack(z)))
        residual = []
        for coder, index_i in zip(coders, numbers(index), strict=True):
            residual.append(y_tables.decode(coder, index_i.ravel()).reshape(index_i.shape) - RADIUS)
            check_empty(coder)
        return torch.from_numpy(np.stack(residual)) + mean

    def exact_parameters(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Table index and mean of each latent, in float64 on the CPU: every sum of the network is exact."""
        scale_index, mean = self.exact(z_hat.double()).chunk(2, 1)
        return scale_index.round().clamp(0, SCALES - 1), mean.float()

    @cached_property
    def exact(self) -> nn.Module:
        return copy.deepcopy(self.hyper_synthesis).cpu().double()

    @cached_property
    def tables(self) -> tuple[Tables, Tables]:
        return Tables(self.y_table.cpu().numpy()), Tables(self.z_table.cpu().numpy())


def noise(like: Tensor) -> Tensor:
    return torch.rand_like(like) - 0.5


def normal_mass(value: Tensor, scale: Tensor) -> Tensor:
    """Probability of the unit interval around `value` under N(0, scale)."""
    # By symmetry in the lower tail, where the differences keep their digits.
    value = value.abs()
    return tail((value - 0.5) / scale) - tail((value + 0.5) / scale)


def tail(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(x / math.sqrt(2))


def numbers(x: Tensor) -> np.ndarray:
    return x.to(torch.int32).numpy()


def channels(shape: tuple[int, ...]) -> np.ndarray:
    """The channel of each value of a flattened [C, H, W]: its table."""
    return np.repeat(np.arange(shape[0]), shape[1] * shape[2])
