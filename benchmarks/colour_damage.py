"""Good pictures, spoilt so that nobody would leave them as they are: one fault, or several at once.

`jobs.train.damage.spoil` does the arithmetic; what training draws is wider, of other odds, and of several
kinds together.

    exposure        1.2 to 2.4 stops under or 0.8 to 1.6 over, highlights clipped
    white_balance   55 to 88 mired too cold or 90 to 200 too warm: along the Planckian locus, as far
                    as shade and tungsten are from daylight
    tone            gamma 0.55 to 0.75 or 1.35 to 1.8, with a flat (0.5 to 0.7) or a hard curve (1.3 to 1.6)
    saturation      0.2 to 0.45 or 1.4 to 1.65 times
    haze            airlight of 0.8 over 20 to 50 % of the picture
    mixed           two to four of exposure, white balance, tone and saturation
"""

import numpy as np
import torch

from jobs.train.damage import DAYLIGHT_KELVIN, Damage, light_of, spoil

KINDS = ("exposure", "white_balance", "tone", "saturation", "haze", "mixed")
PARTS = {
    "exposure": ("stops",),
    "white_balance": ("mired",),
    "tone": ("gamma", "contrast"),
    "saturation": ("saturation",),
    "haze": ("haze",),
}
ALONE = [kind for kind in PARTS if kind != "haze"]  # what "mixed" is made of


def spoilt(picture: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3] with one of KINDS, at a strength drawn from `rng`."""
    x = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float() / 255
    bad = spoil(x, damage(kind, rng))[0]
    return (255 * bad).round().to(torch.uint8).numpy().transpose(1, 2, 0)


def damage(kind: str, rng: np.random.Generator) -> Damage:
    def either(one: tuple[float, float], other: tuple[float, float]) -> float:
        return rng.uniform(*(one if rng.random() < 0.5 else other))

    # Every number is drawn for every kind, so that kinds share their strengths picture by picture.
    drawn = {
        "stops": either((-2.4, -1.2), (0.8, 1.6)),
        "mired": either((-88, -55), (90, 200)),
        "gamma": either((0.55, 0.75), (1.35, 1.8)),
        "contrast": either((0.5, 0.7), (1.3, 1.6)),
        "saturation": either((0.2, 0.45), (1.4, 1.65)),
        "haze": rng.uniform(0.2, 0.5),
    }
    several = rng.choice(ALONE, rng.integers(2, len(ALONE) + 1), replace=False)
    parts = [part for one in (several if kind == "mixed" else [kind]) for part in PARTS[one]]
    chosen = {name: value for name, value in drawn.items() if name in parts}
    mired = chosen.pop("mired", 0.0)
    kelvin = torch.tensor([1e6 / (1e6 / DAYLIGHT_KELVIN + mired)])
    values = {name: torch.full((1, 1, 1, 1), value) for name, value in chosen.items()}
    return Damage.none(1).but(light=light_of(kelvin), **values)
