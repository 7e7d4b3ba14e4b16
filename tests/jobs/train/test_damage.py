"""Damage: what was not damaged stays, every fault shows, and its remedy undoes it."""

import pytest
import torch

from jobs.train.damage import FAULTS, Damage, draw, light_of, planckian, remedies, spoil
from stages.nn.light import LUMA
from stages.nn.lut import develop

PICTURE = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2


def of(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


def test_no_damage_changes_nothing_whatever_the_camera_s_tone_curve():
    assert torch.allclose(spoil(PICTURE, Damage.none(1).but(render=of(1.5))), PICTURE, atol=1e-3)


@pytest.mark.parametrize(
    "faults",
    [
        {"stops": of(-1.5)},
        {"stops": of(0.7)},
        {"light": light_of(torch.tensor([4500.0]))},
        {"haze": of(0.3)},
        {"gamma": of(1.4)},
        {"contrast": of(0.7)},
        {"saturation": of(0.4)},
        {"gamma": of(0.7), "contrast": of(1.5)},
        {"black": of(0.1), "white": of(0.1)},
        {
            "stops": of(-1.0),
            "light": light_of(torch.tensor([9000.0])),
            "saturation": of(0.6),
            "gamma": of(0.8),
        },
    ],
)
def test_the_remedies_of_a_damage_undo_it(faults):
    damage = Damage.none(1).but(**faults)
    bad = spoil(PICTURE, damage)
    assert (bad - PICTURE).abs().mean() > 0.02
    mended = develop(bad.flatten(2), remedies(damage)).view_as(bad)
    assert (mended - PICTURE).abs().mean() < 0.005


def test_untouched_pictures_stay_and_every_other_one_visibly_does_not():
    torch.manual_seed(0)
    pictures = PICTURE.expand(400, -1, -1, -1)
    changes = (spoil(pictures, draw(400, untouched=0.25)) - pictures).abs().mean((1, 2, 3))
    untouched = changes < 1e-3
    assert 0.15 < untouched.float().mean() < 0.35
    assert changes[~untouched].quantile(0.05) > 0.01


def test_one_fault_alone_is_as_usual_as_several():
    torch.manual_seed(0)
    damage = draw(1000, untouched=0.0)
    faults = torch.stack(
        [
            damage.stops.flatten() != 0,
            (damage.light - 1).abs().amax((1, 2, 3)) > 1e-3,
            damage.contrast.flatten() != 1,
            damage.saturation.flatten() != 1,
            damage.haze.flatten() != 0,
            damage.black.flatten() != 0,
        ]
    )
    count = faults.sum(0)
    assert len(faults) == len(FAULTS)
    assert count.min() == 1
    assert 0.1 < (count == 1).float().mean() < 0.6
    assert (faults.float().mean(1) > 0.15).all()


def test_light_follows_the_planckian_locus_at_constant_luminance():
    kelvin = torch.tensor([2900.0, 6500.0, 12000.0])
    light = light_of(kelvin).flatten(1)
    assert torch.allclose(light @ torch.tensor(LUMA), torch.ones(3), atol=1e-5)
    assert torch.allclose(light[1], torch.ones(3), atol=1e-5)
    assert light[0, 0] > 1.3 > 1 > light[0, 2]
    assert light[2, 2] > 1.2 > 1 > light[2, 0]
    # Illuminant A is at x = 0.4476, y = 0.4074 (CIE 15).
    warm = planckian(torch.tensor([2856.0]))[0]
    xyz = (
        torch.linalg.inv(
            torch.tensor([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
        )
        @ warm
    )
    assert torch.allclose(xyz[:2] / xyz.sum(), torch.tensor([0.4476, 0.4074]), atol=2e-3)
