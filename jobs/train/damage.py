"""What goes wrong with a camera: good pictures -> as bad footage shows them.

    good ─ un-render ─ exposure, light, haze ─ clip ─ render ─ gamma, contrast, saturation, levels ─► bad
           (display ► linear light)                (linear ► display)

Exposure, the colour of the light and haze act on the light before the camera's tone curve; the rest acts on
what the camera made of it. Pictures are float [B, 3, H, W] RGB in [0, 1].
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stages.nn.light import LUMA, display, linear, luma
from stages.nn.lut import REACH, s_curve

DAYLIGHT_KELVIN = 6500.0


@dataclass(frozen=True)
class Damage:
    """One value per picture of a batch, each [B, 1, 1, 1] unless said otherwise."""

    render: Tensor  # slope of the camera's tone curve, over sRGB's own; 1: none
    stops: Tensor
    light: Tensor  # [B, 3, 1, 1] gains of red, green, blue in linear light
    haze: Tensor  # share of the airlight; 0: none
    airlight: Tensor
    gamma: Tensor
    contrast: Tensor  # slope of an S curve: below 1 flat, above 1 hard
    saturation: Tensor
    black: Tensor
    white: Tensor

    @staticmethod
    def none(count: int) -> "Damage":
        zero, one = torch.zeros(count, 1, 1, 1), torch.ones(count, 1, 1, 1)
        return Damage(
            render=one,
            stops=zero,
            light=torch.ones(count, 3, 1, 1),
            haze=zero,
            airlight=0.8 * one,
            gamma=one,
            contrast=one,
            saturation=one,
            black=zero,
            white=zero,
        )

    def but(self, **values: Tensor) -> "Damage":
        return replace(self, **values)

    def to(self, device: torch.device) -> "Damage":
        return Damage(**{name: value.to(device) for name, value in vars(self).items()})


def spoil(good: Tensor, damage: Damage) -> Tensor:
    """Pictures [B, 3, H, W] -> the same as a bad camera would have shown them, before it rounds to 8 bit."""
    x = linear(s_curve(good, 1 / damage.render)) * torch.exp2(damage.stops) * damage.light
    x = x * (1 - damage.haze) + damage.airlight * damage.haze
    x = s_curve(display(x.clamp(0, 1)), damage.render)
    x = s_curve(x**damage.gamma, damage.contrast)
    grey = luma(x)
    x = grey + damage.saturation * (x - grey)
    return damage.black + (1 - damage.black - damage.white) * x.clamp(0, 1)


FAULTS = ("exposure", "light", "tone", "saturation", "haze", "levels")


def draw(count: int, untouched: float, random: torch.Generator = torch.default_generator) -> Damage:
    """Damage for `count` pictures: a share of them stays as it is, each other one has a fault that shows.

    Faults too small to be seen are left out: to mend one is to change good pictures. A picture with one fault
    may have others, from hardly ever to mostly.
    """

    def rand(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=random)

    def chance(share: float | Tensor) -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=random) < share

    def has(fault: str, share: float) -> Tensor:
        return ((first == FAULTS.index(fault)) | chance(share * more)) & ~spared

    def either(one: tuple[float, float], other: tuple[float, float]) -> Tensor:
        return torch.where(chance(0.5), rand(*one), rand(*other))

    # Most bad footage has one thing wrong with it, and mostly wrong as the standard has it.
    spared, more = chance(untouched), rand(0, 1) ** 2
    first = torch.randint(len(FAULTS), (count, 1, 1, 1), generator=random)
    # Equal steps in mired (1e6 / kelvin) are about equal steps to the eye: 2,800 K to 15,700 K.
    mired = has("light", 0.5) * either((-90, -30), (35, 210))
    green = 1 + (has("light", 0.1) & chance(0.4)) * rand(-0.12, 0.12)
    tone, levels = has("tone", 0.4), has("levels", 0.2)
    return Damage(
        render=torch.exp(chance(0.5) * rand(0, 0.55)),
        stops=has("exposure", 0.5) * either((-2.6, -0.5), (0.4, 1.7)),
        light=light_of((1e6 / (1e6 / DAYLIGHT_KELVIN + mired)).flatten(), green.flatten()),
        haze=has("haze", 0.2) * rand(0.1, 0.55),
        airlight=rand(0.65, 1.0),
        gamma=torch.exp(tone * chance(0.7) * either((-0.6, -0.15), (0.15, 0.6))),
        contrast=torch.exp(tone * either((-0.7, -0.15), (0.12, 0.5))),
        saturation=torch.exp(has("saturation", 0.4) * either((-1.6, -0.35), (0.2, 0.5))),
        black=levels * rand(0.03, 0.18),
        white=levels * chance(0.7) * rand(0.0, 0.25),
    )


def remedies(damage: Damage) -> Tensor:
    """[B, CONTROLS]: the controls of stages/nn/lut.py that undo the damage, but for the render."""
    parts = {
        "black": damage.black,
        "white": -(1 - damage.black - damage.white).log(),
        "saturation": -damage.saturation.log(),
        "gamma": -damage.gamma.log(),
        "contrast": -damage.contrast.log(),
        "haze": damage.airlight * damage.haze,
    }
    reached = [parts[name].flatten(1) / reach for name, reach in REACH.items()]
    gain = -damage.stops * math.log(2) - (1 - damage.haze).log()
    return torch.cat([*reached, -damage.light.log().flatten(1), gain.flatten(1)], 1)


def light_of(kelvin: Tensor, green: Tensor | float = 1.0) -> Tensor:
    """[N] -> [N, 3, 1, 1]: gains of a light of this temperature beside daylight; luminance is kept.

    green  factor off the Planckian locus, as of a fluorescent lamp
    """
    gains = planckian(kelvin) / planckian(torch.tensor([DAYLIGHT_KELVIN]))
    gains = gains * torch.stack(
        [torch.ones_like(kelvin), green * torch.ones_like(kelvin), torch.ones_like(kelvin)], 1
    )
    # A light changes the hue, exposure the brightness: keep the two apart.
    return (gains / (gains @ torch.tensor(LUMA))[:, None])[..., None, None]


def planckian(kelvin: Tensor) -> Tensor:
    """[N] -> [N, 3]: linear sRGB of a black body, luminance 1.

    Kim et al., cubic splines of the Planckian locus in CIE xy, 1,667 to 25,000 K (US patent 7024034).
    """
    t = 1000 / kelvin
    warm = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    cool = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    x = torch.where(kelvin <= 4000, warm, cool)
    below = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    above = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    y = torch.where(kelvin <= 4000, below, above)
    xyz = torch.stack([x / y, torch.ones_like(y), (1 - x - y) / y], -1)
    to_rgb = xyz.new_tensor(
        [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
    )
    return (xyz @ to_rgb.T).clamp(min=1e-3)
