"""The mean-scale hyperprior: a latent whose distribution is itself sent along, in a few bytes.

Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018 (arXiv 1802.01436); the means
are of Minnen, Ballé, Toderici, NeurIPS 2018 (arXiv 1809.02736); several rates in one network by gain units
(Cui et al., "Asymmetric gained deep image compression", CVPR 2021); what is decoded already helps to predict
the rest, in four steps: see latent_prior.py.

    x ─ analysis ─ ×gain ─ y ────────────── round(y − mean) ─ ANS ─ + mean ─ ŷ ─ ×inverse gain ─ synthesis ─ x̂
                           │                                   │        │    │
                           └ hyper-analysis ─ round ─ ẑ ─ ANS ─┴─ table index, mean (what of ŷ is known)

The prior of the latent is a fixed-point network (see entropy.py), so ŷ is the same on every machine. The
synthesis is in float32: a pixel may differ by one level between machines.
"""

import copy
import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from stages.nn.device import in_bfloat16
from stages.nn.difference import DifferenceCoder
from stages.nn.entropy import (
    RADIUS,
    SCALE_MIN,
    SCALE_STEP,
    SCALES,
    FixedConv2d,
    Tables,
    check_empty,
    coder_of,
    frequencies,
    gaussian_frequencies,
    new_coder,
    snap,
    words,
)
from stages.nn.latent_prior import LatentPrior, step_masks
from stages.nn.transforms import Analysis, Synthesis
from stages.settings import Settings

DOWN = 16  # pixels per latent
HYPER_DOWN = 4  # latents per hyper-latent
DEAD = 0.06  # BD-rate on held-out photos against 0: -1 %; 0.12 loses it again


class HyperpriorSettings(Settings):
    widths: tuple[int, int, int] = (48, 128, 192)
    depths: tuple[int, int, int] = (1, 3, 1)
    latent: int = 192
    hyper: int = 96
    hyper_latent: int = 32
    context: int = 64
    rates: int = 6


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
    fingerprint = 0  # of the stored weights; see stages/nn/codec.py

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
        self.latent_prior = LatentPrior(s.latent, s.hyper, s.hyper_latent, s.context, s.rates)
        # Rate r is meant for 2^r times the lambda of rate 0: a quantiser step finer by its square root.
        gain = 2 ** (0.5 * torch.arange(s.rates, dtype=torch.float32))[:, None].expand(s.rates, s.latent)
        self.gain, self.inverse_gain = nn.Parameter(1.5 * gain), nn.Parameter(1 / (1.5 * gain))
        self.prior = LogisticMixture(s.hyper_latent)
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
            y_hat, scale_index, mean = self.latent_prior(
                snap(z), rate, y.shape[-2:], lambda step, index, mean: snap(y - mean)
            )
        scale = SCALE_MIN * torch.exp(SCALE_STEP * scale_index)
        y_bits = -torch.log2(normal_mass(y - mean + noise(y), scale).clamp_min(1e-7))
        z_bits = -torch.log2(self.prior(z + noise(z)).clamp_min(1e-7))
        x_hat = self.synthesis(y_hat * self.inverse_gain[rate][..., None, None])
        return x_hat, y_bits.sum((1, 2, 3)) + z_bits.sum((1, 2, 3)), x.new_zeros(())

    @torch.no_grad()
    def freeze(self) -> None:
        """Turn the priors into tables of integers."""
        symbols = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64).view(1, 1, -1, 1)
        mass = copy.deepcopy(self.prior).cpu().double()(symbols.expand(1, len(self.z_table), -1, 1))
        self.z_table.copy_(torch.from_numpy(frequencies(mass[0, ..., 0].numpy())))
        self.y_table.copy_(torch.from_numpy(gaussian_frequencies()))

    def encode(self, x: Tensor, rate: int) -> list[bytes]:
        """One payload for each picture of x [B, 3, H, W] in 0..1; H and W are multiples of 16."""
        return self.encode_latent(x, rate)[0]

    @torch.inference_mode()
    def encode_latent(self, x: Tensor, rate: int) -> tuple[list[bytes], Tensor, Tensor]:
        """The payloads, y, and ŷ [B, M, H/16, W/16] as they will be decoded."""
        with in_bfloat16(x.device):  # three quarters of the time, 0.04 dB; what decodes a code stays exact
            y = self.analysis(x).float() * self.gain[rate][:, None, None]
        z = self.hyper_analysis(y).round().clamp(-RADIUS, RADIUS).cpu()
        y, masks = y.cpu(), step_masks(y.shape[1:]).numpy()
        symbols = []

        def quantise(step: int, index: Tensor, mean: Tensor) -> Tensor:
            residual = rounded(y - mean).clamp(-RADIUS, RADIUS)
            symbols.append((numbers(residual)[:, masks[step]], numbers(index)[:, masks[step]]))
            return residual

        y_hat, _, _ = self.exact(z, torch.full((len(x),), rate), y.shape[-2:], quantise)
        y_tables, z_tables = self.tables
        payloads = []
        for i, z_i in enumerate(numbers(z)):
            coder = new_coder()
            # A stack: what is pushed last is popped first.
            for residual, index in reversed(symbols):
                y_tables.encode(coder, residual[i] + RADIUS, index[i])
            z_tables.encode(coder, z_i.ravel() + RADIUS, channels(z_i.shape))
            payloads.append(words(coder))
        return payloads, y, y_hat

    @torch.inference_mode()
    def render(self, y_hat: Tensor, rate: int) -> Tensor:
        """The pictures [B, 3, H, W] in 0..1 of latents."""
        return self.synthesis(y_hat.to(self.gain.device) * self.inverse_gain[rate][:, None, None])

    @torch.inference_mode()
    def decode_latent(self, payloads: list[bytes], rate: int, height: int, width: int) -> Tensor:
        """ŷ [B, M, height/16, width/16], the same on every machine. Raises CodecError."""
        y_tables, z_tables = self.tables
        high, wide = height // DOWN, width // DOWN
        shape = (len(self.z_table), -(-high // HYPER_DOWN), -(-wide // HYPER_DOWN))
        masks = step_masks((self.settings.latent, high, wide)).numpy()
        coders = [coder_of(payload) for payload in payloads]
        z = [z_tables.decode(coder, channels(shape)).reshape(shape) - RADIUS for coder in coders]

        def read(step: int, index: Tensor, mean: Tensor) -> Tensor:
            residual = np.zeros(mean.shape, np.int32)
            for residual_i, coder, index_i in zip(residual, coders, numbers(index), strict=True):
                residual_i[masks[step]] = y_tables.decode(coder, index_i[masks[step]]) - RADIUS
            return torch.from_numpy(residual).float()

        z_hat, rates = torch.from_numpy(np.stack(z)).float(), torch.full((len(z),), rate)
        y_hat = self.exact(z_hat, rates, (high, wide), read)[0]
        for coder in coders:
            check_empty(coder)
        return y_hat

    @cached_property
    def exact(self) -> nn.Module:
        """The prior of the latent, on the CPU."""
        prior = copy.deepcopy(self.latent_prior).cpu()
        for part in prior.modules():
            if isinstance(part, FixedConv2d):
                part.freeze()
        return prior

    @cached_property
    def tables(self) -> tuple[Tables, Tables]:
        return Tables(self.y_table.cpu().numpy()), Tables(self.z_table.cpu().numpy())

    @cached_property
    def differences(self) -> DifferenceCoder:
        return DifferenceCoder(self.tables[0], self.y_table.cpu().numpy())


def rounded(x: Tensor) -> Tensor:
    """To whole numbers, rather towards zero: the bits that it saves are worth more than what it spoils."""
    return x.sign() * (x.abs() + 0.5 - DEAD).floor()


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
