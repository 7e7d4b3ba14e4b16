"""The LUT network: starts as the identity, keeps highlights, and indexes its LUTs as .cube files do."""

import pytest
import torch

from stages.nn.lut import LutNet, LutSettings, apply_luts, identity_lut, reversals, roughness, statistics

SMALL = LutSettings(grid=9, bases=10, width=4, hidden=8, picture_px=32)


@pytest.fixture
def net() -> LutNet:
    torch.manual_seed(0)
    return LutNet(SMALL).eval()


def test_a_new_network_grades_nothing(net):
    luts = net.luts(net(torch.rand(3, 3, 32, 32)))
    assert torch.equal(luts, net.identity.expand_as(luts))


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
    luts = net.luts(50 * torch.randn(20, SMALL.bases))
    assert luts.min() >= 0
    assert luts.max() <= 1
    not_white = net.identity.amax(-1) < 1
    assert luts[:, not_white].max() < 0.99


def test_weights_do_not_depend_on_the_size_of_the_picture(net):
    torch.nn.init.normal_(net.head[-1].weight)
    picture = torch.rand(1, 3, 32, 32)
    larger = picture.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(net(picture), net(larger), atol=1e-4)


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
    neutral_edges, warm_edges = statistics(grey)[0, -6:-3], statistics(warm)[0, -6:-3]
    assert neutral_edges.abs().max() < 1e-4
    assert warm_edges[0] > 0.2 > -0.2 > warm_edges[2]
