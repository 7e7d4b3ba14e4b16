"""Image-adaptive 3D LUT: a picture -> one colour table that grades it.

Zeng, Cai, Li, Cao, Zhang, "Learning Image-adaptive 3D Lookup Tables for High Performance Photo Enhancement in
Real-time", TPAMI 2020 (https://arxiv.org/abs/2009.14468); a part that works on each channel before the
part that mixes them as in Yang et al., "SepLUT", ECCV 2022 (https://arxiv.org/abs/2207.08351).

    picture ─┬─ conv ×5 ─ mean, max ─┐
             └─ colour statistics ───┴─ MLP ─┬─ controls ─ develop: levels, saturation, contrast, gamma, ─┐
                                             │             haze, white balance and exposure in linear light│
                                             ├─ weights ── Σ weights_k · basis_k ──────────────────────────┤
                                             └─ doubt ──── scales both                                     ▼
                                                                  the LUT's colours, between floor and ceiling

The controls are those of a colourist, so they reach far with few numbers; the bases add what they cannot say.
The doubt is for pictures that are good as they are: one number moves the whole grade to the identity.
Statistics (quantiles, means of light, joint histogram) hand colours over exactly, where instance norm as in
the paper would take exposure away.

B pictures, K bases, L grid points a side, N colours. A LUT is [L, L, L, 3] indexed [blue, green, red], values
in [0, 1]: red varies fastest in memory, as in a .cube file.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.nn.light import display, linear, luma
from stages.settings import Settings

QUANTILES = 17  # of every channel
BINS = 8  # a side of the joint histogram
# Quantiles and histogram are of a grid of about so many pixels a side: of all, they cost more than layers do.
SAMPLED_PX = 24
# Of the distance to white that a colour has, at least this share stays: what was not white never is.
HEADROOM = 0.1
# Likewise above black; less, because haze has to go down to it.
FOOTROOM = 0.03
# White stays white, and what is near it at most so many times as far from it as it was: where a picture has
# burnt out there is nothing to win, and a grey page or window looks worse than a bright one.
WHITES = 2.5
# What a control of 1 does: black level and haze in parts of the range, the others as exponents of e.
REACH = {"black": 0.15, "white": 1.0, "saturation": 0.5, "gamma": 0.3, "contrast": 0.3, "haze": 0.4}
FARTHEST = 4.0  # that a control goes
GAINS = 4  # red, green, blue and all of them
CONTROLS = len(REACH) + GAINS
MEANS = (1, 2, 6)  # exponents of the Minkowski means of light
EDGE_MEANS = (1, 4)  # and of its edges
KNOWN = 5 * QUANTILES + 3 * len(MEANS + EDGE_MEANS)
TINY = 1e-4


class LutSettings(Settings):
    grid: int = 17  # points a side
    bases: int = 12
    width: int = 32  # channels of the first convolution
    hidden: int = 256
    picture_px: int = 48


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
            nn.Linear(8 * width + KNOWN + BINS**3, settings.hidden),
            nn.SiLU(),
            nn.Dropout(0.05),
            nn.Linear(settings.hidden, settings.hidden),
            nn.SiLU(),
            nn.Linear(settings.hidden, settings.bases + CONTROLS + 1),
        )
        # What the colours alone say is nearly a sum of logarithms: learnt in a few steps without the layers.
        self.skip = nn.Linear(KNOWN, settings.bases + CONTROLS + 1)
        # A new network grades nothing: it starts from the identity.
        for last in (self.head[-1], self.skip):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        identity = identity_lut(settings.grid)
        self.bases = nn.Parameter(0.02 * torch.randn(settings.bases, *identity.shape))
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Pictures, RGB in [0, 1], any size -> what to do with them [B, K + CONTROLS + 1]."""
        size_px = self.settings.picture_px
        if x_B3HW.shape[-2:] != (size_px, size_px):
            x_B3HW = F.interpolate(x_B3HW, (size_px, size_px), mode="area")
        features = self.trunk(4 * x_B3HW - 2)
        with torch.no_grad():
            known, shares = statistics(x_B3HW), histogram(x_B3HW)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3)), known, 4 * shares.sqrt()], 1)
        return self.head(pooled) + self.skip(known)

    def luts(self, asked: Tensor) -> Tensor:
        """What to do [B, ...] -> LUTs [B, L, L, L, 3]."""
        corners = self.identity.reshape(1, -1, 3).mT.expand(len(asked), -1, -1)
        return self.grade(corners, asked).mT.reshape(-1, *self.identity.shape)

    def grade(self, x_B3N: Tensor, asked: Tensor) -> Tensor:
        """Colours through the LUT as it would be with endlessly many points.

        Ceiling and floor bound every colour on its own, so any mean of LUTs keeps within them, too.
        """
        graded = develop(x_B3N, self.controls(asked) * trust(asked))
        graded = graded + apply_luts(x_B3N[..., None], self.residuals(asked))[..., 0]
        ceiling = 1 - HEADROOM * (1 - x_B3N.amax(1, keepdim=True))
        darkest = x_B3N.amin(1, keepdim=True)
        floor = torch.maximum(FOOTROOM * darkest, 1 - WHITES * (1 - darkest))
        return torch.minimum(torch.maximum(graded, floor), ceiling)

    def controls(self, asked: Tensor) -> Tensor:
        """[B, CONTROLS] for `develop`, were there no doubt."""
        return asked[:, self.settings.bases : -1].clamp(-FARTHEST, FARTHEST)

    def residuals(self, asked: Tensor) -> Tensor:
        """The sum of bases: what is added to the developed colours, as LUTs."""
        weights_BK = asked[:, : self.settings.bases] * trust(asked)
        return torch.einsum("bk,kzyxc->bzyxc", weights_BK, self.bases)


def trust(asked: Tensor) -> Tensor:
    """[B, 1] in (0, 1): 0 leaves the picture as it is."""
    return torch.sigmoid(1 - asked[:, -1:])


def develop(x_B3N: Tensor, controls_BC: Tensor) -> Tensor:
    """Colours as a colourist's controls leave them; controls of 0 change nothing.

    In the reverse order of what happens to light in a camera (jobs/train/damage.py).
    """
    values = controls_BC[..., None]
    black, white, saturation, gamma, contrast, haze = (
        reach * values[:, i : i + 1] for i, reach in enumerate(REACH.values())
    )
    gains, gain = values[:, -GAINS:-1], values[:, -1:]
    x = (x_B3N - black) * white.exp()
    grey = luma(x)
    x = (grey + saturation.exp() * (x - grey)).clamp(TINY, 1.5)
    x = torch.where(x < 1, s_curve(x, contrast.exp()), x) ** gamma.exp()
    return display((linear(x) - haze).clamp(min=0) * (gains + gain).exp())


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.SiLU())


def identity_lut(grid: int) -> Tensor:
    """[L, L, L, 3]: the LUT that changes nothing."""
    axis = torch.linspace(0, 1, grid)
    blue, green, red = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([red, green, blue], -1)


def s_curve(x: Tensor, slope: Tensor) -> Tensor:
    """[0, 1] -> [0, 1], a straight line in log odds: `slope` in the middle, and 1 / slope undoes it."""
    x = x.clamp(TINY, 1 - TINY)
    up, down = x**slope, (1 - x) ** slope
    return up / (up + down)


def statistics(x_B3HW: Tensor) -> Tensor:
    """[B, KNOWN]: quantiles of red, green, blue, chroma and luma; logs of mean light and edges."""
    chroma = x_B3HW.amax(1, keepdim=True) - x_B3HW.amin(1, keepdim=True)
    ordered = sampled(torch.cat([x_B3HW, chroma, luma(x_B3HW)], 1)).flatten(2).sort(-1).values
    picks = (torch.linspace(0.005, 0.995, QUANTILES) * (ordered.shape[-1] - 1)).round().long()
    quantiles = ordered[..., picks.to(x_B3HW.device)].flatten(1)
    return torch.cat([4 * quantiles - 2, means(x_B3HW) + 1], 1)


def sampled(x_BCHW: Tensor) -> Tensor:
    step = max(1, x_BCHW.shape[-1] // SAMPLED_PX)
    return x_BCHW[..., ::step, ::step]


def means(x_B3HW: Tensor) -> Tensor:
    """[B, 3 * 5]: logs of Minkowski means of each channel's linear light, then of its differences.

    Each is grey under white light, by one assumption or another (grey world, shades of grey, grey edge: van
    de Weijer et al., TIP 2007), and another exposure or light adds to the logs.
    """
    light = linear(x_B3HW)
    edges = light.diff(dim=-1).abs() + TINY
    of = [(light, p) for p in MEANS] + [(edges, p) for p in EDGE_MEANS]
    return torch.cat([(v.clamp(min=1e-3) ** p).mean((2, 3)).log() / p for v, p in of], 1)


def histogram(x_B3HW: Tensor) -> Tensor:
    """[B, BINS³]: the share of pixels at every colour, each pixel divided among the eight bins around it."""
    places = sampled(x_B3HW).flatten(2).clamp(0, 1) * (BINS - 1)
    bins = torch.arange(BINS, device=places.device)
    red, green, blue = (1 - (places[..., None] - bins).abs()).clamp(min=0).unbind(1)  # [B, N, BINS]
    green_red = (green[..., :, None] * red[..., None, :]).flatten(2)
    return (blue.mT @ green_red).flatten(1) / places.shape[-1]


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
