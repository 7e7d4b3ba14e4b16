"""The LUT network: starts as the identity, keeps highlights, and indexes its LUTs as .cube files do."""

import numpy as np
import pytest
import torch

from stages.nn.light import display, linear
from stages.nn.lut import (
    CONTROLS,
    LutNet,
    LutSettings,
    apply_luts,
    develop,
    histogram,
    identity_lut,
    means,
    reversals,
    roughness,
    s_curve,
)

SMALL = LutSettings(grid=9, bases=10, width=4, hidden=8, picture_px=32)


@pytest.fixture
def net() -> LutNet:
    torch.manual_seed(0)
    return LutNet(SMALL).eval()


def test_a_new_network_grades_nothing(net):
    luts = net.luts(net(torch.rand(3, 3, 32, 32)))
    assert torch.allclose(luts, net.identity.expand_as(luts), atol=3e-4)


def test_the_identity_lut_changes_no_picture():
    picture = torch.rand(2, 3, 16, 20)
    lut = identity_lut(17).expand(2, -1, -1, -1, -1)
    assert torch.allclose(apply_luts(picture, lut), picture, atol=1e-5)


def test_a_lut_is_indexed_blue_green_red():
    lut = identity_lut(5).clone()
    lut[0, 0, 4] = torch.tensor([0.1, 0.2, 0.3])  # where pure red is looked up
    picture = torch.zeros(1, 3, 1, 1)
    picture[:, 0] = 1
    assert torch.allclose(apply_luts(picture, lut[None]).flatten(), torch.tensor([0.1, 0.2, 0.3]))


def test_no_weights_whatever_turn_a_colour_into_white_or_leave_the_range(net):
    luts = net.luts(50 * torch.randn(20, SMALL.bases + CONTROLS + 1))
    assert luts.min() >= 0
    assert luts.max() <= 1
    not_white = net.identity.amax(-1) < 1
    assert luts[:, not_white].max() < 0.99


def test_what_is_asked_for_does_not_depend_on_the_size_of_the_picture(net):
    torch.nn.init.normal_(net.head[-1].weight)
    picture = torch.rand(1, 3, 32, 32)
    larger = picture.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(net(picture), net(larger), atol=1e-4)


def test_a_lut_holds_what_the_colours_at_its_points_are_graded_to(net):
    asked = torch.randn(2, SMALL.bases + CONTROLS + 1)
    colours = torch.tensor([[0.25, 0.5, 0.75], [1.0, 0.125, 0.0]]).T.expand(2, -1, -1)
    lut = net.luts(asked)
    graded = net.grade(colours, asked)
    assert torch.allclose(lut[:, 6, 4, 2], graded[..., 0], atol=1e-5)
    assert torch.allclose(lut[:, 0, 1, 8], graded[..., 1], atol=1e-5)


def test_doubt_takes_the_whole_grade_back(net):
    asked = torch.randn(1, SMALL.bases + CONTROLS + 1)
    asked[:, -1] = 30
    assert torch.allclose(net.luts(asked)[0], net.identity, atol=3e-4)


def test_every_control_does_something_and_keeps_grey_grey_unless_it_is_one_channel_s():
    greys = torch.linspace(0.1, 0.9, 9).expand(1, 3, 9)
    colours = greys * torch.tensor([0.5, 0.9, 1.1]).view(1, 3, 1)
    for control in range(CONTROLS):
        controls = torch.zeros(1, CONTROLS)
        controls[0, control] = 0.5
        assert (develop(colours, controls) - colours).abs().max() > 0.01, control
        developed = develop(greys, controls)
        tinge = (developed.amax(1) - developed.amin(1)).max()
        assert (tinge > 0.01) == (control in (6, 7, 8)), control


def test_exposure_is_a_gain_in_linear_light():
    colours = torch.rand(1, 3, 50) * 0.4 + 0.1
    controls = torch.zeros(1, CONTROLS)
    controls[0, -1] = 0.5
    expected = display(linear(colours) * torch.tensor(0.5).exp())
    assert torch.allclose(develop(colours, controls), expected, atol=1e-4)


def test_an_s_curve_is_undone_by_its_inverse():
    x = torch.linspace(0.01, 0.99, 50)
    slope = torch.tensor(1.6)
    assert torch.allclose(s_curve(s_curve(x, slope), 1 / slope), x, atol=1e-4)
    assert s_curve(torch.tensor(0.7), slope) > 0.75


def test_the_histogram_divides_every_pixel_among_the_bins_around_it():
    shares = histogram(torch.rand(2, 3, 16, 16))
    assert torch.allclose(shares.sum(1), torch.ones(2), atol=1e-4)
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0] = 1
    assert histogram(red)[0, 7] == 1


def test_regularisers_are_zero_for_the_identity_and_see_a_kink_and_a_reversal():
    identity = identity_lut(9)[None]
    kinked, reversed_ = identity.clone(), 1 - identity
    kinked[:, :, :, 4, 0] += 0.2
    assert roughness(identity) < 1e-10 < roughness(kinked)
    assert reversals(identity) == 0
    assert reversals(reversed_) > 0.1


def test_statistics_show_the_colour_of_the_light():
    grey = torch.rand(1, 1, 32, 32).expand(-1, 3, -1, -1) * 0.6
    warm = grey * torch.tensor([1.4, 1.0, 0.6]).view(1, 3, 1, 1)
    for seen in means(grey).view(-1, 3):
        assert (seen - seen.mean()).abs().max() < 1e-4
    for seen in means(warm).view(-1, 3):
        assert seen[0] > seen[1] + 0.2 > seen[2] + 0.6


def test_twice_the_light_adds_the_same_to_all_means():
    picture = torch.rand(1, 3, 32, 32) * 0.5 + 0.2
    brighter = display(linear(picture) * 1.5)
    added = means(brighter) - means(picture)
    assert torch.allclose(added, torch.full_like(added, float(np.log(1.5))), atol=0.02)
