"""The vector-quantised autoencoder: every 8×8 pixels become a few indices into learned codebooks.

van den Oord et al., "Neural discrete representation learning", NeurIPS 2017 (arXiv 1711.00937), with the
codebooks learned as exponential moving averages. Several stages, each of which quantises what the one before
left over, give several rates in one network (Zeghidour et al., "SoundStream", 2021). The indices are coded
with their frequencies.

    x ─ analysis ─ y ─ nearest of codebook 0 ─ rest ─ nearest of codebook 1 ─ ... ─ sum ─ synthesis ─ x̂
                              │                             │
                              └────────── ANS ──────────────┘          rate r: the codebooks 0 to r
"""

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.entropy import Tables, check_empty, coder_of, frequencies, new_coder, words
from stages.nn.transforms import Analysis, Synthesis
from stages.settings import Settings

DOWN = 8  # pixels per index
DECAY = 0.99
COMMITMENT = 0.25


class VqVaeSettings(Settings):
    widths: tuple[int, int] = (48, 96)
    depths: tuple[int, int] = (2, 3)
    latent: int = 32
    codebook: int = 512
    rates: int = 3


class VqVae(nn.Module):
    kind = "vqvae"
    fingerprint = 0  # of the stored weights; see stages/nn/codec.py

    def __init__(self, settings: VqVaeSettings):
        super().__init__()
        self.settings, self.rates = settings, settings.rates
        s = settings
        self.analysis = Analysis(s.widths, s.depths, s.latent)
        self.synthesis = Synthesis(s.widths, s.depths, s.latent)
        shape = (s.rates, s.codebook)
        self.register_buffer("codebook", torch.randn(*shape, s.latent) / s.latent**0.5)
        self.register_buffer("count", torch.ones(shape))
        self.register_buffer("total", self.codebook.clone())
        self.register_buffer("table", torch.zeros(shape, dtype=torch.int32))

    def forward(self, x: Tensor, rate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x̂, bits per picture [B] (a constant: no gradient) and the commitment loss, for training."""
        y = self.analysis(x).float()
        rest, y_hat = y.detach(), torch.zeros_like(y)
        bits, commitment = x.new_zeros(len(x)), x.new_zeros(())
        for stage in range(self.rates):
            used = (rate >= stage).float()[:, None, None, None]
            index, vectors = self.nearest(rest, stage)
            if self.training:
                self.update(stage, rest, index, used)
            rest, y_hat = rest - vectors, y_hat + used * vectors
            # Each prefix is to be a good approximation of its own.
            commitment = commitment + (used * (y - y_hat).square()).mean()
            share = (self.count[stage] / self.count[stage].sum()).clamp_min(1e-6)
            bits = bits - used[:, 0, 0, 0] * torch.log2(share)[index].sum((1, 2))
        x_hat = self.synthesis(y + (y_hat - y).detach())
        return x_hat, bits, COMMITMENT * commitment

    def nearest(self, y_BDHW: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        """Index [B, H, W] of the nearest vector of a codebook, and the vectors [B, D, H, W]."""
        codebook = self.codebook[stage]
        flat = y_BDHW.permute(0, 2, 3, 1)
        distance = codebook.square().sum(1) - 2 * flat @ codebook.T
        index = distance.argmin(-1)
        return index, F.embedding(index, codebook).permute(0, 3, 1, 2)

    @torch.no_grad()
    def start_codebooks(self, x: Tensor) -> None:
        """Fill the codebooks with vectors of pictures x [B, 3, H, W], or most would stay unused for long."""
        rest = self.analysis(x)
        for stage, codebook in enumerate(self.codebook):
            flat = rest.permute(0, 2, 3, 1).flatten(0, 2)
            codebook.copy_(flat[torch.randint(len(flat), (len(codebook),), device=flat.device)])
            self.total[stage] = codebook * self.count[stage, :, None]
            rest = rest - self.nearest(rest, stage)[1]

    @torch.no_grad()
    def update(self, stage: int, rest: Tensor, index: Tensor, used: Tensor) -> None:
        """Move each vector to the mean of what chose it; a vector that nothing chooses starts again."""
        flat = rest.permute(0, 2, 3, 1)[used[:, 0, 0, 0] > 0].flatten(0, 2)
        index = index[used[:, 0, 0, 0] > 0].flatten()
        if not len(flat):
            return
        size = self.codebook.shape[1]
        total = torch.zeros_like(self.total[stage]).index_add_(0, index, flat)
        self.count[stage].lerp_(torch.bincount(index, minlength=size).float(), 1 - DECAY)
        self.total[stage].lerp_(total, 1 - DECAY)
        dead = self.count[stage] < 0.1
        fresh = flat[torch.randint(len(flat), (size,), device=flat.device)]
        self.count[stage] = torch.where(dead, 1.0, self.count[stage])
        self.total[stage] = torch.where(dead[:, None], fresh, self.total[stage])
        self.codebook[stage] = self.total[stage] / self.count[stage, :, None]

    @torch.no_grad()
    def freeze(self) -> None:
        """Turn the counts into tables of integers."""
        self.table.copy_(torch.from_numpy(frequencies(self.count.cpu().double().numpy())))

    @torch.inference_mode()
    def encode(self, x: Tensor, rate: int) -> list[bytes]:
        """One payload for each picture of x [B, 3, H, W] in 0..1; H and W are multiples of 8."""
        rest, stages = self.analysis(x), []
        for stage in range(rate + 1):
            index, vectors = self.nearest(rest, stage)
            rest = rest - vectors
            stages.append(index.flatten(1))
        symbols = torch.stack(stages, 1).cpu().numpy()
        tables, payloads = self.tables, []
        for symbols_i in symbols:
            coder = new_coder()
            tables.encode(coder, symbols_i.ravel(), stage_of(*symbols_i.shape))
            payloads.append(words(coder))
        return payloads

    @torch.inference_mode()
    def render(self, latent: Tensor, rate: int) -> Tensor:
        """The pictures [B, 3, H, W] in 0..1 of latents."""
        return self.synthesis(latent)

    @torch.inference_mode()
    def decode_latent(self, payloads: list[bytes], rate: int, height: int, width: int) -> Tensor:
        """Sum of the chosen vectors [B, D, H/8, W/8], the same on every machine. Raises CodecError."""
        high, wide = height // DOWN, width // DOWN
        tables, symbols = self.tables, []
        for payload in payloads:
            coder = coder_of(payload)
            symbols.append(
                tables.decode(coder, stage_of(rate + 1, high * wide)).reshape(rate + 1, high, wide)
            )
            check_empty(coder)
        index = torch.from_numpy(np.stack(symbols)).long().to(self.codebook.device)
        vectors = sum(F.embedding(index[:, stage], self.codebook[stage]) for stage in range(rate + 1))
        return vectors.permute(0, 3, 1, 2)

    @cached_property
    def tables(self) -> Tables:
        return Tables(self.table.cpu().numpy())


def stage_of(stages: int, positions: int) -> np.ndarray:
    """The stage of each index of a flattened [stages, positions]: its table."""
    return np.repeat(np.arange(stages), positions)
