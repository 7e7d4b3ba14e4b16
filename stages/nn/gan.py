"""Effects by a conditional GAN: a frame, an effect and a phase -> fields that say how to warp and blur it.

Generator: a FiLM-SIREN as in pi-GAN (Chan et al., CVPR 2021, https://arxiv.org/abs/2012.00926), here over
the plane and conditioned on the picture. Critic: PatchGAN (Isola et al., CVPR 2017) with projection
(Miyato & Koyama, ICLR 2018), spectral norm and hinge loss.

    effect, strength, phase, aspect, noise ── MLP ─┬─ camera   3 x (pan, matrix): moves the frame as a whole
                                                   └─ FiLM ─┐
    frame 3x64x64 ── conv ×3 ── features ──┐                ▼
    coordinates around the centre ─────────┴── sin layers ×4 ─┬─ local     3 x flow    ripple, twist, lens
                                                              └─ radius    defocus
                 (FiLM without phase and strength) sin ×3 ────── arrival   when the next clip shows

"3 x" is at three instants: shutter open, half way, shut. Between them the path is a parabola, and a pixel
is the mean of the light along its path: motion blur. All fields are small (32x32) and smooth; they are
enlarged and the full-size frame is sampled once through them, so what does not move stays sharp.

Units: y from -1 (top) to 1 (bottom), x from -aspect to aspect, so that a turn is a turn on any frame.
Phase: 0 is the clean frame, 0 to 1 on the way out (outgoing clip), -1 to 0 on the way in (incoming clip).
B frames, G grid points a side, T = 3 instants.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from stages.nn.kinds import EFFECTS
from stages.settings import Settings

NOISE = 3  # centre x, centre y, direction or wavelength; each in [-1, 1]
INSTANTS = (-1.0, 0.0, 1.0)
WAVES = 9  # numbers that describe a phase
SHUTTER = 0.1  # the shutter is open from phase * 0.9 to phase * 1.1
CENTRE = 0.25  # how far the noise moves the centre, as a share of the half frame
# Beyond this phase a clip is fully hidden by the other one.
FARTHEST = 0.75
# The next clip fades in over arrival - SOFT .. arrival + SOFT; arrival keeps within 0.5 +- REACH.
SOFT = 0.1
REACH = 0.2


class GeneratorSettings(Settings):
    width: int = 64
    picture_px: int = 64
    features: int = 24  # channels of the picture's features
    grid: int = 32


@dataclass(frozen=True)
class Fields:
    camera: Tensor  # [B, T, 2, 3] output position (x, y, 1) -> source position
    local: Tensor  # [B, T, 2, G, G] added to that
    radius: Tensor  # [B, 1, G, G] of the defocus disc
    arrival: Tensor  # [B, 1, G, G] phase of the transition at which half of the next clip shows


@dataclass(frozen=True)
class Cue:
    """What is asked for; every field is [B], noise is [B, NOISE]."""

    effect: Tensor  # index into EFFECTS
    strength: Tensor  # 0: nothing moves, 1: full
    phase: Tensor  # -1 to 1
    aspect: Tensor  # width / height
    noise: Tensor


class Generator(nn.Module):
    def __init__(self, settings: GeneratorSettings):
        super().__init__()
        self.settings = settings
        width, features = settings.width, settings.features
        self.effects = nn.Embedding(len(EFFECTS), 16)
        self.look = nn.Sequential(
            nn.Conv2d(3, features, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(features, features, 3, 1, 1),
            nn.SiLU(),
            nn.Conv2d(features, features, 3, 1, 1),
        )
        self.still = _mlp(16 + NOISE + 1, width)
        self.moving = _mlp(16 + NOISE + 1 + 1 + WAVES, width)
        self.camera = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, len(INSTANTS) * 6))
        self.motion = FilmSiren(5 + features + len(INSTANTS), width, 4, 2 * len(INSTANTS) + 1)
        self.mixing = FilmSiren(5 + features, width // 2, 3, 1, condition=width)

    def forward(self, x_B3HW: Tensor, cue: Cue, grid: int | None = None) -> Fields:
        """Pictures in [0, 1], any size -> fields on the settings' grid, or on another one."""
        grid = grid or self.settings.grid
        size_px = self.settings.picture_px
        if x_B3HW.shape[-2:] != (size_px, size_px):
            x_B3HW = F.interpolate(x_B3HW, (size_px, size_px), mode="area")
        seen = F.adaptive_avg_pool2d(self.look(2 * x_B3HW - 1), grid)
        centre = centres(cue)
        place = coordinates(cue.aspect, grid)
        around = place - centre[..., None, None]
        distance = around.square().sum(1, keepdim=True).sqrt()
        points = torch.cat([place / cue.aspect.clamp(min=1)[:, None, None, None], around, distance, seen], 1)

        known = torch.cat([self.effects(cue.effect), cue.noise, cue.aspect[:, None].log()], 1)
        moving = self.moving(torch.cat([known, cue.strength[:, None], waves(cue.phase)], 1))
        gain_B1 = gain(cue)[:, None]
        steps = gain_B1[..., None] * self.camera(moving).view(-1, len(INSTANTS), 6)
        flow = self.motion(torch.cat([points, rings(cue, distance)], 1), moving)
        return Fields(
            camera=about(centre, steps),
            local=gain_B1[..., None, None, None] * polar(flow[:, :-1], around),
            radius=gain_B1[..., None, None] * F.softplus(flow[:, -1:] - 3),
            arrival=0.5 + REACH * torch.tanh(self.mixing(points, self.still(known))),
        )


class FilmSiren(nn.Module):
    """Sine layers over points [B, C, G, G], their frequency and shift set by a condition [B, D]."""

    def __init__(self, inputs: int, width: int, depth: int, outputs: int, condition: int | None = None):
        super().__init__()
        sizes = [inputs] + [width] * depth
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(sizes))
        self.films = nn.ModuleList(nn.Linear(condition or width, 2 * width) for _ in range(depth))
        self.out = nn.Conv2d(width, outputs, 1)
        for layer, inputs_of in zip(self.layers, sizes, strict=False):
            # SIREN's start (Sitzmann et al., NeurIPS 2020): sines keep their spread through the layers.
            nn.init.uniform_(layer.weight, -((6 / inputs_of) ** 0.5), (6 / inputs_of) ** 0.5)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BCGG: Tensor, condition_BD: Tensor) -> Tensor:
        for layer, film in zip(self.layers, self.films, strict=True):
            scale, shift = film(condition_BD)[..., None, None].chunk(2, 1)
            x_BCGG = torch.sin((1 + scale) * layer(x_BCGG) + shift)
        return self.out(x_BCGG)


class Critic(nn.Module):
    """Frame and effect applied to it -> [B, 1, h, w]: how real each patch is, given what was asked for."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.effects = nn.Embedding(len(EFFECTS), 16)
        self.condition = nn.Sequential(
            nn.Linear(16 + 1 + WAVES + NOISE, 64), nn.SiLU(), nn.Linear(64, 4 * width)
        )
        sizes = (6, width, 2 * width, 4 * width)
        self.body = nn.Sequential(
            *(_patch(a, b, 2) for a, b in pairwise(sizes)),
            _patch(4 * width, 4 * width, 1),
        )
        self.out = spectral_norm(nn.Conv2d(4 * width, 1, 1))

    def forward(self, source_B3HW: Tensor, shown_B3HW: Tensor, cue: Cue) -> Tensor:
        asked = [self.effects(cue.effect), cue.strength[:, None], waves(cue.phase), cue.noise]
        asked_BC11 = self.condition(torch.cat(asked, 1))[..., None, None]
        x = self.body(2 * torch.cat([source_B3HW, shown_B3HW], 1) - 1)
        return self.out(x) + (x * asked_BC11).mean(1, keepdim=True)


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
    )


def _patch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    size = 4 if stride == 2 else 3
    return nn.Sequential(spectral_norm(nn.Conv2d(inputs, outputs, size, stride, 1)), nn.LeakyReLU(0.2))


def waves(phase_B: Tensor) -> Tensor:
    """[B, WAVES]: the phase as the networks see it."""
    angles = torch.pi * phase_B[:, None] * phase_B.new_tensor([1.0, 2.0, 4.0])
    parts = [phase_B[:, None], phase_B[:, None].abs(), (phase_B[:, None] > 0).float() - 0.5]
    return torch.cat([*parts, angles.sin(), angles.cos()], 1)


def gain(cue: Cue) -> Tensor:
    """[B]: 0 at the clean frame, 1 half way at full strength. Every movement is a multiple of it."""
    return cue.strength * (2 * cue.phase.abs().clamp(max=FARTHEST)) ** 2


def centres(cue: Cue) -> Tensor:
    """[B, 2]: what the effect turns, grows or spreads about."""
    half = torch.stack([cue.aspect, torch.ones_like(cue.aspect)], -1)
    return CENTRE * cue.noise[:, :2] * half


def coordinates(aspect_B: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """[B, 2, rows, columns]: (x, y) of the cells' middles; a square of cells unless columns are given."""
    down, across = (
        (2 * torch.arange(count, device=aspect_B.device) + 1) / count - 1 for count in (rows, columns or rows)
    )
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([x, y]) * torch.stack([aspect_B, torch.ones_like(aspect_B)], -1)[..., None, None]


def about(centre_B2: Tensor, steps_BT6: Tensor) -> Tensor:
    """Pan (2) and matrix less identity (4) about a centre -> [B, T, 2, 3] about the origin."""
    matrix = torch.eye(2, device=steps_BT6.device) + steps_BT6[..., 2:].unflatten(-1, (2, 2))
    pan = steps_BT6[..., :2, None]
    centre = centre_B2[:, None, :, None]
    return torch.cat([matrix, centre - matrix @ centre + pan], -1)


def rings(cue: Cue, distance_B1GG: Tensor) -> Tensor:
    """[B, T, G, G]: waves that run outward from the centre, two periods in a transition, at each instant.

    Ripples are too fine to be found from smooth coordinates in reasonable time; from these they are not.
    """
    per_unit = (1.6 + 0.4 * cue.noise[:, 2])[:, None, None, None]
    times = cue.phase[:, None] * (1 + SHUTTER * cue.phase.new_tensor(INSTANTS))
    return torch.sin(2 * torch.pi * (per_unit * distance_B1GG - 2 * times[..., None, None]))


def polar(flow_B6GG: Tensor, around_B2GG: Tensor) -> Tensor:
    """Outward and turning share of the way to the centre, at each instant -> flow [B, T, 2, G, G]."""
    outward, turning = flow_B6GG.unflatten(1, (len(INSTANTS), 2))[:, :, :, None].unbind(2)
    across = torch.stack([-around_B2GG[:, 1], around_B2GG[:, 0]], 1)
    return outward * around_B2GG[:, None] + turning * across[:, None]


def positions(fields: Fields, aspect_B: Tensor, size_px: int) -> Tensor:
    """[B, T, 2, S, S]: where each output pixel looks in the source, at each instant."""
    place = coordinates(aspect_B, size_px)
    homogeneous = torch.cat([place, torch.ones_like(place[:, :1])], 1)
    rigid = torch.einsum("btij,bjyx->btiyx", fields.camera, homogeneous)
    local = F.interpolate(fields.local.flatten(1, 2), (size_px, size_px), mode="bicubic", align_corners=False)
    return rigid + local.unflatten(1, (len(INSTANTS), 2))


def render(x_B3SS: Tensor, fields: Fields, aspect_B: Tensor, taps: int = 8) -> Tensor:
    """The effect on a (small) picture in [0, 1]: differentiable, for training and as the reference."""
    size_px = x_B3SS.shape[-1]
    opened, middle, shut = positions(fields, aspect_B, size_px).unbind(1)
    radius = F.interpolate(fields.radius, (size_px, size_px), mode="bilinear", align_corners=False)
    bend = (shut + opened) / 2 - middle
    places = [
        middle + t * (shut - opened) / 2 + t * t * bend + radius * disc
        for t, disc in tap_points(taps, x_B3SS.device)
    ]
    return gather(x_B3SS, aspect_B, places)


def gather(x_B3SS: Tensor, aspect_B: Tensor, places: list[Tensor]) -> Tensor:
    """Mean of the light at `places`, each [B, 2, S, S]. Light is about the square of the value."""
    light = x_B3SS.square()
    scale = torch.stack([1 / aspect_B, torch.ones_like(aspect_B)], -1)[..., None, None]
    total = torch.zeros_like(light)
    for place in places:
        grid = (place * scale).permute(0, 2, 3, 1)
        total = total + F.grid_sample(light, grid, "bilinear", "reflection", align_corners=False)
    return (total / len(places)).clamp(min=1e-6).sqrt()


def tap_points(taps: int, device: torch.device) -> list[tuple[float, Tensor]]:
    """For each tap: its time in the shutter's span, -1 to 1, and its point [1, 2, 1, 1] of the unit disc.

    The points are a sunflower (Vogel 1979), visited in another order than the times, so that no
    direction of the disc belongs to one end of the path.
    """
    points = []
    for tap in range(taps):
        t = (2 * tap + 1) / taps - 1
        seed = (tap * 5) % taps if taps % 5 else (tap * 3) % taps
        angle = torch.tensor(2.39996323 * seed)
        radius = ((seed + 0.5) / taps) ** 0.5
        points.append((t, radius * torch.stack([angle.cos(), angle.sin()]).view(1, 2, 1, 1).to(device)))
    return points


def arrived(arrival: Tensor, phase_B: Tensor) -> Tensor:
    """Share of the incoming clip: exactly 0 at phase 0, exactly 1 at phase 1, never going back."""
    x = ((phase_B[:, None, None, None] - arrival) / (2 * SOFT) + 0.5).clamp(0, 1)
    return x * x * (3 - 2 * x)
