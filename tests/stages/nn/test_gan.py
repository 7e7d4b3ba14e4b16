"""The effects' networks: nothing moves at rest, fields mean the same everywhere, and both can be trained."""

import numpy as np
import pytest
import torch

from jobs.train.effects import (
    Train,
    adversarial_step,
    draw,
    fields_loss,
    psnr,
    simulate,
    true_fields,
)
from stages.nn.gan import (
    EFFECTS,
    Critic,
    Cue,
    Generator,
    GeneratorSettings,
    about,
    arrived,
    centres,
    coordinates,
    render,
)

SMALL = GeneratorSettings(width=16, features=4, grid=16, picture_px=32)


def picture(count: int, size_px: int, seed: int = 0) -> torch.Tensor:
    """Smooth coloured noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    return torch.nn.functional.interpolate(coarse, (size_px, size_px), mode="bicubic").clamp(0, 1)


def cue(count: int, strength: float = 1.0, phase: float = 0.4, aspect: float = 16 / 9) -> Cue:
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, 3))).float()
    return Cue(
        effect=torch.arange(count) % len(EFFECTS),
        strength=torch.full((count,), strength),
        phase=torch.full((count,), phase),
        aspect=torch.full((count,), aspect),
        noise=noise,
    )


@pytest.fixture
def net() -> Generator:
    torch.manual_seed(0)
    return Generator(SMALL).eval()


@pytest.mark.parametrize("rest", [{"phase": 0.0}, {"strength": 0.0}])
def test_nothing_moves_at_rest(net, rest):
    frames, asked = picture(6, 64), cue(6, **rest)
    shown = render(frames, net(frames, asked), asked.aspect)
    assert (shown - frames).abs().max() < 2 / 255


def test_something_moves_on_the_way(net):
    frames, asked = picture(6, 64), cue(6)
    shown = render(frames, net(frames, asked), asked.aspect)
    assert ((shown - frames).abs().mean((1, 2, 3)) > 1 / 255).all()


def test_the_incoming_clip_is_absent_at_the_start_there_at_the_end_and_never_goes_back(net):
    arrival = net(picture(6, 64), cue(6)).arrival
    shares = torch.stack([arrived(arrival, torch.full((6,), p)) for p in torch.linspace(0, 1, 41).tolist()])
    assert shares[0].max() == 0
    assert shares[-1].min() == 1
    assert (shares.diff(dim=0) >= 0).all()


def test_when_the_next_clip_arrives_does_not_depend_on_the_phase(net):
    frames = picture(6, 64)
    early, late = (net(frames, cue(6, phase=phase)).arrival for phase in (0.1, 0.7))
    assert torch.equal(early, late)


def test_turning_and_growing_leave_the_centre_where_it_is():
    asked = cue(2)
    steps = torch.zeros(2, 3, 6)
    steps[..., 2:] = torch.randn(2, 3, 4)
    centre = centres(asked)
    moved = torch.einsum("btij,bj->bti", about(centre, steps), torch.cat([centre, torch.ones(2, 1)], 1))
    assert torch.allclose(moved, centre[:, None].expand_as(moved), atol=1e-5)


def test_coordinates_are_square_on_a_wide_frame():
    place = coordinates(torch.tensor([2.0]), 8)[0]
    assert place[0].max() == pytest.approx(2 * place[1].max())
    assert place.mean() == pytest.approx(0, abs=1e-6)


def test_the_fields_of_the_simulation_give_the_picture_of_the_simulation():
    frames, asked = picture(12, 96), cue(12, strength=0.8, phase=0.35)
    shown = render(frames, true_fields(frames, asked, 32), asked.aspect, taps=16)
    assert (psnr(shown, simulate(frames, asked, taps=16)) > 30).all()


def test_a_few_steps_bring_the_fields_closer_and_the_critic_gives_a_gradient():
    torch.manual_seed(0)
    net, critic = Generator(SMALL), Critic(8)
    random = torch.Generator().manual_seed(0)
    frames, asked = picture(8, 32), draw(8, random, torch.device("cpu"))
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    before = fields_loss(net(frames, asked), frames, asked).item()
    for _ in range(30):
        optimiser.zero_grad()
        fields_loss(net(frames, asked), frames, asked).backward()
        optimiser.step()
    assert fields_loss(net(frames, asked), frames, asked).item() < 0.7 * before
    optimiser.zero_grad()
    judges = torch.optim.Adam(critic.parameters(), 1e-3)
    losses = adversarial_step(net, critic, judges, picture(4, 32), random, Train(net=SMALL))
    losses["fooled"].backward()
    assert net.motion.layers[0].weight.grad.abs().max() > 0
