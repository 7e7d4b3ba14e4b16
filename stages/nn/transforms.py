"""Picture <-> latent: the two transforms that both codecs share.

Analysis    [B, 3, H, W] in 0..1 -> [B, M, H/16, W/16] with three widths, [B, M, H/8, W/8] with two
Synthesis   the reverse

    x ─ unshuffle 4 ─ conv 3 ─ blocks ─ conv 3 ↓2 ─ blocks ─ conv 3 ↓2 ─ blocks ─ conv 1 ─ y
                      └ widths[0] at /4 ┘         └ widths[1] at /8 ┘         └ widths[2] at /16

The block is the residual bottleneck of ELIC (He et al., CVPR 2022), which stands in for GDN at less cost.
Nothing is computed at full resolution: a CPU core spends its time in memory there. A 3×3 convolution on
unshuffled pixels is a 12×12 one with stride 4, so neighbouring patches overlap and do not show.
"""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor, nn

PATCH = 4


class Bottleneck(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width // 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width // 2, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 2, width, 1),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.body(x_BCHW)


def blocks(width: int, count: int) -> list[nn.Module]:
    return [Bottleneck(width) for _ in range(count)]


class Analysis(nn.Sequential):
    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], latent: int):
        super().__init__(
            nn.PixelUnshuffle(PATCH),
            nn.Conv2d(3 * PATCH**2, widths[0], 3, padding=1),
            *blocks(widths[0], depths[0]),
            *self.down(widths, depths),
            nn.Conv2d(widths[-1], latent, 1),
        )

    def down(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> Iterator[nn.Module]:
        for (fine, coarse), depth in zip(pairwise(widths), depths[1:], strict=True):
            yield nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
            yield from blocks(coarse, depth)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.5)


class Synthesis(nn.Sequential):
    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], latent: int):
        super().__init__(
            nn.Conv2d(latent, widths[-1], 1),
            *blocks(widths[-1], depths[-1]),
            *self.up(widths[::-1], depths[::-1]),
            nn.Conv2d(widths[0], 3 * PATCH**2, 3, padding=1),
            nn.PixelShuffle(PATCH),
        )

    def up(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> Iterator[nn.Module]:
        for (coarse, fine), depth in zip(pairwise(widths), depths[1:], strict=True):
            yield nn.Conv2d(coarse, fine * 4, 1)
            yield nn.PixelShuffle(2)
            yield from blocks(fine, depth)

    def forward(self, y: Tensor) -> Tensor:
        return super().forward(y) + 0.5
