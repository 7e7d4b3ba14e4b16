"""Image-adaptive 3D LUT: a picture -> one colour table that grades it.

Zeng, Cai, Li, Cao, Zhang, "Learning Image-adaptive 3D Lookup Tables for High Performance Photo
Enhancement in Real-time", TPAMI 2020 (https://arxiv.org/abs/2009.14468).

    picture 3x64x64 ─┬─ conv ×5 ─ mean, max ─┐
                     └─ colour statistics ───┴─ MLP ─ weights K ─┐
                         identity + Σ weights_k · basis_k ◄──────┘ ─ ceiling, floor ─► LUT

The bases are differences from the identity, so that all weights at 0 leave the picture alone. Grading
is decided by the whole picture's colours, which 64 pixels show; statistics (quantiles, grey edge) hand
them over exactly, where instance norm as in the paper would take exposure away.

B pictures, K bases, L grid points a side. A LUT is [L, L, L, 3] indexed [blue, green, red], values in
[0, 1]: red varies fastest in memory, as in a .cube file.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.settings import Settings

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LUMA = (0.2126, 0.7152, 0.0722)  # BT.709
# Of the distance to white that a colour has, at least this share stays: what was not white never is.
HEADROOM = 0.15
# Likewise above black; less, because haze has to go down to it.
FOOTROOM = 0.03


class LutSettings(Settings):
    grid: int = 17  # points a side
    bases: int = 12
    width: int = 24  # channels of the first convolution
    hidden: int = 128
    picture_px: int = 64


class LutNet(nn.Module):
    def __init__(self, settings: LutSettings):
        super().__init__()
        self.settings = settings
        width = settings.width
        self.trunk = nn.Sequential(
            _conv(3, width, 2),
            _conv(width, 2 * width, 2),
            _conv(2 * width, 4 * width, 2),
            _conv(4 * width, 4 * width, 1),
            _conv(4 * width, 4 * width, 1),
        )
        self.head = nn.Sequential(
            nn.Linear(8 * width + 4 * len(QUANTILES) + 6, settings.hidden),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(settings.hidden, settings.hidden),
            nn.SiLU(),
            nn.Linear(settings.hidden, settings.bases),
        )
        # A new network grades nothing: it starts from the identity.
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)
        identity = identity_lut(settings.grid)
        self.bases = nn.Parameter(first_bases(identity, settings.bases))
        self.register_buffer("identity", identity, persistent=False)
        brightest, darkest = identity.amax(-1, keepdim=True), identity.amin(-1, keepdim=True)
        self.register_buffer("ceiling", 1 - HEADROOM * (1 - brightest), persistent=False)
        self.register_buffer("floor", FOOTROOM * darkest, persistent=False)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Pictures, RGB in [0, 1], any size -> weights [B, K]."""
        size_px = self.settings.picture_px
        if x_B3HW.shape[-2:] != (size_px, size_px):
            x_B3HW = F.interpolate(x_B3HW, (size_px, size_px), mode="area")
        features = self.trunk(4 * x_B3HW - 2)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3)), statistics(x_B3HW)], 1)
        return self.head(pooled)

    def luts(self, weights_BK: Tensor) -> Tensor:
        """Weights [B, K] -> LUTs [B, L, L, L, 3].

        Ceiling and floor bound every entry on its own, so any mean of LUTs keeps within them, too.
        """
        luts = self.identity + torch.einsum("bk,kzyxc->bzyxc", weights_BK, self.bases)
        return torch.minimum(torch.maximum(luts, self.floor), self.ceiling)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.SiLU())


def identity_lut(grid: int) -> Tensor:
    """[L, L, L, 3]: the LUT that changes nothing."""
    axis = torch.linspace(0, 1, grid)
    blue, green, red = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([red, green, blue], -1)


def first_bases(identity: Tensor, count: int) -> Tensor:
    """[K, L, L, L, 3]: where the bases start: gain and gamma of each channel, contrast, saturation, noise."""
    channels = torch.eye(3)
    grey = (identity * identity.new_tensor(LUMA)).sum(-1, keepdim=True)
    starts = [identity * channel for channel in channels]
    starts += [4 * identity * (1 - identity) * channel for channel in channels]
    starts.append(4 * identity * (1 - identity) * (2 * identity - 1))
    starts.append(identity - grey)
    starts.append((1 - identity) ** 2)
    if count > len(starts):
        starts.append(0.02 * torch.randn(count - len(starts), *identity.shape))
    return torch.cat([start.reshape(-1, *identity.shape) for start in starts])[:count].clone()


def statistics(x_B3HW: Tensor) -> Tensor:
    """[B, 4Q + 6]: quantiles of red, green, blue and chroma; grey edge; grey world.

    Grey edge: the mean of |gradient| is grey under white light (van de Weijer et al., TIP 2007).
    """
    chroma = x_B3HW.amax(1, keepdim=True) - x_B3HW.amin(1, keepdim=True)
    ordered = torch.cat([x_B3HW, chroma], 1).flatten(2).sort(-1).values
    picks = [round(q * (ordered.shape[-1] - 1)) for q in QUANTILES]
    quantiles = ordered[..., picks].flatten(1)
    edges = (x_B3HW[..., 1:] - x_B3HW[..., :-1]).abs().mean((2, 3)) + 1e-3
    means = x_B3HW.mean((2, 3)) + 1e-2
    ratios = [(v / v.mean(1, keepdim=True)).log() for v in (edges, means)]
    return torch.cat([4 * quantiles - 2, *ratios], 1)


def apply_luts(x_B3HW: Tensor, luts_BLLLC: Tensor) -> Tensor:
    """Pictures in [0, 1] through one LUT each, trilinear."""
    points = (2 * x_B3HW - 1).permute(0, 2, 3, 1)[:, None]  # [B, 1, H, W, 3]: x = red picks the last axis
    volumes = luts_BLLLC.permute(0, 4, 1, 2, 3)
    return F.grid_sample(volumes, points, "bilinear", "border", align_corners=True)[:, :, 0]


def roughness(luts_BLLLC: Tensor) -> Tensor:
    """The paper's smoothness term, on second differences: a straight ramp is not rough."""
    return sum(luts_BLLLC.diff(n=2, dim=dim).square().mean() for dim in (1, 2, 3))


def reversals(luts_BLLLC: Tensor) -> Tensor:
    """The paper's monotonicity term: more of a colour in must not be less of it out."""
    steps = ((3, 0), (2, 1), (1, 2))  # axis of the input colour, channel of the output
    return sum(F.relu(-luts_BLLLC[..., channel].diff(dim=axis)).mean() for axis, channel in steps)
