"""The colour training: what it reads, what it says of it, and that it learns."""

import numpy as np
import pytest
import torch

from jobs.train.colour import Train, as_shown, assume, divided, kept, loss_of, settle, train
from jobs.train.damage import Damage, light_of, spoil
from jobs.train.run import Run
from stages.nn.lut import CONTROLS, LutNet, LutSettings
from tests.jobs.train.test_good import write_photos

SMALL = LutSettings(grid=9, bases=4, width=4, hidden=16, picture_px=32)


def test_every_part_has_its_share_of_a_batch_and_the_first_what_rounding_leaves():
    assert divided(32, [0.3, 0.3, 0.15, 0.25]) == [9, 10, 5, 8]
    assert divided(32, [0.3]) == [32]
    assert divided(4, [0.9, 0.01]) == [3, 1]


def test_what_is_shown_is_the_picture_with_a_little_noise():
    torch.manual_seed(0)
    bad = torch.rand(200, 3, 16, 16)
    shown = as_shown(bad)
    blanked = (shown == 0).flatten(1).float().mean(1) > 0.01
    assert 0 < blanked.float().mean() < 0.15
    assert 0.001 < (shown - bad)[~blanked].abs().mean() < 0.01


def test_before_training_the_colour_of_the_light_is_taken_away():
    torch.manual_seed(0)
    net = LutNet(SMALL).eval()
    assume(net)
    grey = torch.rand(1, 1, 32, 32).expand(-1, 3, -1, -1) * 0.5 + 0.2
    warm = spoil(grey, Damage.none(1).but(light=light_of(torch.tensor([4500.0]))))
    red_less_blue = net.controls(net(warm))[0, [6, 8]].diff()
    assert red_less_blue > 0.3
    assert net.controls(net(grey))[0, 6:9].diff().abs().max() < 0.05


def test_the_loss_is_less_for_the_remedy_than_for_leaving_the_picture():
    torch.manual_seed(0)
    net, good = LutNet(SMALL), torch.rand(4, 3, 32, 32) * 0.5 + 0.2
    bad = spoil(good, Damage.none(4).but(stops=torch.full((4, 1, 1, 1), -1.0)))
    nothing = torch.zeros(4, SMALL.bases + CONTROLS + 1)
    nothing[:, -1] = -8  # no doubt
    remedy = nothing.clone()
    remedy[:, -2] = np.log(2)
    settings = Train(net=SMALL)
    assert loss_of(net, remedy, bad, good, settings) < loss_of(net, nothing, bad, good, settings) - 0.1


def test_the_doubt_is_raised_until_good_pictures_keep_what_they_should():
    torch.manual_seed(0)
    net = LutNet(SMALL).eval()
    torch.nn.init.normal_(net.head[-1].bias, std=0.5)
    good = torch.linspace(0.1, 0.9, 3).view(3, 1, 1, 1).expand(-1, 3, 32, 32)
    before, doubt = kept(net, good).mean().item(), net.head[-1].bias[-1].item()
    raised = settle(net, [good], before + 4)
    assert before + 4 <= kept(net, good).mean() < before + 6
    assert net.head[-1].bias[-1].item() == pytest.approx(doubt + raised)
    assert settle(net, [good], before + 1) == 0


@pytest.mark.slow
def test_a_short_training_beats_leaving_pictures_as_they_are_and_names_its_files(tmp_path):
    write_photos(tmp_path / "data" / "photos", 24)
    settings = Train(data=str(tmp_path / "data"), steps=150, batch=16, net=SMALL, workers=0)
    state, card = train(settings, Run(settings, tmp_path / "run"))
    assert card["quality"]["psnr_db"] > card["quality"]["identity_psnr_db"]
    named = card["trained"]["files"]["photos"]
    assert len(named) == len(set(named)) == 18
    net = LutNet(SMALL)
    net.load_state_dict(state)
