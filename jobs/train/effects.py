"""Trains the effects: a generator of warp and blur fields against a critic and a simulated camera.

The simulation is what a camera operator would do: a pan, a turn, a push in, all with an open shutter and
in linear light; waves, a whirl and a lens in the picture plane; defocus. The generator first learns the
fields of the simulation, then the picture itself: reconstruction plus a patch critic (hinge loss) that sees
the frame, what was asked for, and either the simulated or the generated picture.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from jobs.train.loop import LoopSettings, Run, TrainingError, main
from jobs.train.photos import PICTURES, crops, photos, split
from jobs.train.psnr import psnr
from jobs.train.timelines import digest
from stages.nn.gan import (
    EFFECTS,
    FARTHEST,
    INSTANTS,
    NOISE,
    REACH,
    SHUTTER,
    Critic,
    Cue,
    Fields,
    Generator,
    GeneratorSettings,
    about,
    arrived,
    centres,
    coordinates,
    gain,
    gather,
    polar,
    positions,
    render,
    tap_points,
)
from stages.nn.light import luma
from stages.nn.weights import Bundle

WHIP, SPIN, RIPPLE, TWIST, ZOOM, BLUR, LENS = range(len(EFFECTS))
# Of the gain. With less, errors of large movements count too little: they cost the picture most.
LITTLE = 0.25
# Of the way to the centre, the most that a lens takes: at 1 it would show one point, and beyond it mirror.
MOST_BULGE = 0.8


class Train(LoopSettings):
    # Not divisible: within a step two networks take turns, and the generator is asked twice.
    steps: int = 4800
    photos: str = "photos"  # part of the data folder; every 8th picture is held out
    picture_px: int = 96
    batch: int = 4  # transitions: twice as many frames
    fields_only: float = 0.6  # share of the steps before pictures and the critic come in
    fields_batch: int = 32
    fields_grid: int = 16  # the fields are functions of the place: a coarse grid teaches them as well
    learning_rate: float = 2e-3
    averaging: float = 0.995  # of the weights over the steps: what is kept is smoother than any one step
    critic_rate: float = 4e-4
    adversarial: float = 0.02
    net: GeneratorSettings = GeneratorSettings()


def train(settings: Train, run: Run) -> tuple[dict[str, Tensor], dict[str, Any]]:
    seen, held_out = split(read(run.part(settings.photos)))
    pictures = [picture for _, picture in seen]
    net, critic = Generator(settings.net).to(run.device), Critic().to(run.device)
    if run.start:
        go_on_from(net, run.start)
    makes = torch.optim.Adam(net.parameters(), settings.learning_rate, betas=(0.9, 0.99))
    judges = torch.optim.Adam(critic.parameters(), settings.critic_rate, betas=(0.0, 0.99))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
    random, logged = torch.default_generator, {}
    for step in run.steps(net=net, average=average, critic=critic, makes=makes, judges=judges):
        rng = run.rng()
        makes.param_groups[0]["lr"] = settings.learning_rate * (1 - run.progress) ** 0.9
        x = next(crops(pictures, settings.net.picture_px, settings.fields_batch, rng))
        x = x.to(run.device).float() / 255
        cue = draw(len(x), random, run.device)
        losses = {"fields": fields_loss(net(x, cue, settings.fields_grid), x, cue)}
        if run.progress > settings.fields_only:
            x = next(crops(pictures, settings.picture_px, 2 * settings.batch, rng))
            x = x.to(run.device).float() / 255
            losses |= adversarial_step(net, critic, judges, x, random, settings)
        makes.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        makes.step()
        average.update_parameters(net)
        for name, loss in losses.items():
            logged.setdefault(name, []).append(loss.item())
        if step % 250 == 249:
            run.log(step=step + 1, **{name: float(np.mean(values)) for name, values in logged.items()})
            logged.clear()
    net = average.module
    quality = measure(net.eval(), critic.eval(), [picture for _, picture in held_out], settings.picture_px)
    run.log(**{name: value for name, value in quality.items() if isinstance(value, float)})
    card = {
        "kind": "gan",
        "settings": settings.net.model_dump(),
        "trained": {
            "pictures": {settings.photos: len(pictures)},
            "files": {settings.photos: sorted(sha256 for sha256, _ in seen if sha256)},
            "effects": list(EFFECTS),
        },
        "quality": quality,
    }
    return net.state_dict(), card


def go_on_from(net: Generator, bundle: Bundle) -> None:
    """The weights of the bundle's generator; effects that it did not know yet keep their random start."""
    state, known = bundle.state("effects"), bundle.card("effects")["trained"]["effects"]
    effects = net.effects.weight.detach().clone()
    for name, row in zip(known, state["effects.weight"], strict=True):
        if name in EFFECTS:
            effects[EFFECTS.index(name)] = row
    net.load_state_dict(state | {"effects.weight": effects})


def read(folder: Path) -> list[tuple[str, np.ndarray]]:
    """Every picture with the hash of its file, in the order of names; those of a table have none."""
    found = []
    for path in sorted(folder.rglob("*"), key=str):
        if path.suffix.lower() in PICTURES:
            try:
                found.append((digest(path), photos(str(path))[0]))
            except TrainingError:
                continue  # no picture, whatever its name says
    return found or [("", picture) for picture in photos(str(folder))]


def adversarial_step(
    net: Generator,
    critic: Critic,
    judges: torch.optim.Optimizer,
    x: Tensor,
    random: torch.Generator,
    settings: Train,
) -> dict[str, Tensor]:
    """One step of the critic; the generator's losses for the caller's step.

    The first half of `x` goes out and the second half comes in, with one cue for each pair.
    """
    cue = pair(draw(len(x) // 2, random, x.device))
    fields, truth = net(x, cue), true_fields(x, cue, settings.net.grid)
    made, real = render(x, fields, cue.aspect), simulate(x, cue, taps=8)
    judged_real, judged_made = critic(x, real, cue), critic(x, made.detach(), cue)
    hinge = F.relu(1 - judged_real).mean() + F.relu(1 + judged_made).mean()
    judges.zero_grad(set_to_none=True)
    hinge.backward()
    judges.step()
    return {
        "picture": (made - real).abs().mean()
        + (mixed(made, fields, cue) - mixed(real, truth, cue)).abs().mean(),
        "fooled": -settings.adversarial * critic(x, made, cue).mean(),
    }


def draw(count: int, random: torch.Generator, device: torch.device) -> Cue:
    """Any effect, at any phase that can be seen, on a frame of any usual shape."""

    def rand(*size: int) -> Tensor:
        return torch.rand(*size, generator=random)

    shapes = torch.tensor([9 / 16, 1.0, 4 / 3, 16 / 9, 16 / 9, 2.39])
    cue = {
        "effect": torch.randint(len(EFFECTS), (count,), generator=random),
        "strength": 0.1 + 1.0 * rand(count),
        "phase": FARTHEST * (2 * rand(count) - 1),
        "aspect": shapes[torch.randint(len(shapes), (count,), generator=random)],
        "noise": 2 * rand(count, NOISE) - 1,
    }
    return Cue(**{name: value.to(device) for name, value in cue.items()})


def pair(cue: Cue) -> Cue:
    """The outgoing and the incoming clip of the same transitions: phase p and phase p - 1."""
    out = cue.phase % 1
    twice = {name: torch.cat([value, value]) for name, value in vars(cue).items()}
    return Cue(**{**twice, "phase": torch.cat([out, out - 1])})


def mixed(shown: Tensor, fields: Fields, cue: Cue) -> Tensor:
    """[B, 3, S, S] outgoing then incoming -> [B/2, 3, S, S] transitions; the outgoing clip's mix rules."""
    half = len(shown) // 2
    share = arrived(fields.arrival[:half], cue.phase[:half])
    share = F.interpolate(share, shown.shape[-2:], mode="bilinear", align_corners=False)
    return shown[:half] + share * (shown[half:] - shown[:half])


def fields_loss(fields: Fields, x: Tensor, cue: Cue) -> Tensor:
    """Charbonnier distance of the fields, relative to how much is to move but where that is little."""
    truth = true_fields(x, cue, fields.local.shape[-1])
    scale = (1 / (gain(cue) + LITTLE))[:, None, None, None, None]
    place = coordinates(cue.aspect, 8)
    homogeneous = torch.cat([place, torch.ones_like(place[:, :1])], 1)
    rigid = torch.einsum("btij,bjyx->btiyx", fields.camera - truth.camera, homogeneous)
    local, radius = fields.local - truth.local, fields.radius - truth.radius
    terms = [scale * rigid, 6 * scale * local, 2 * scale[..., 0] * radius, fields.arrival - truth.arrival]
    return sum((term.square() + 1e-6).sqrt().mean() for term in terms)


def true_fields(x: Tensor, cue: Cue, grid: int) -> Fields:
    """What the generator should say."""
    centre, place = centres(cue), coordinates(cue.aspect, grid)
    around = place - centre[..., None, None]
    times = [cue.phase * (1 + SHUTTER * t) for t in INSTANTS]
    flow = torch.cat([whirl(cue, time, around) for time in times], 1)
    return Fields(
        camera=about(centre, torch.stack([rigid(cue, time) for time in times], 1)),
        local=polar(flow, around),
        radius=defocus(cue)[:, None, None, None].expand(-1, 1, grid, grid),
        arrival=arrival(x, cue, around),
    )


def simulate(x: Tensor, *cues: Cue, taps: int = 16) -> Tensor:
    """The picture [B, 3, H, W] as the simulated camera sees it: every point of the path is exact.

    Of several cues, the picture goes through the last one first.
    """
    aspect = cues[0].aspect
    disc_B = torch.stack([defocus(cue) for cue in cues]).square().sum(0).sqrt()
    places = []
    for t, disc in tap_points(taps, x.device):
        place = coordinates(aspect, *x.shape[-2:])
        for cue in cues:
            place = moved(place, cue, cue.phase * (1 + SHUTTER * t))
        places.append(place + disc_B[:, None, None, None] * disc)
    return gather(x, aspect, places)


def moved(place: Tensor, cue: Cue, time: Tensor) -> Tensor:
    """Where the simulated camera looks for the points `place` [B, 2, H, W] at a time."""
    around = place - centres(cue)[..., None, None]
    pan, matrix = rigid(cue, time).split([2, 4], -1)
    turned = torch.einsum("bij,bjyx->biyx", matrix.unflatten(-1, (2, 2)), around)
    flow = whirl(cue, time, around)
    local = flow[:, :1] * around + flow[:, 1:] * torch.stack([-around[:, 1], around[:, 0]], 1)
    return place + turned + pan[..., None, None] + local


def ease(phase: Tensor) -> Tensor:
    """-1 half way in, 0 at rest, 1 half way out: slow at rest, fastest where the clips meet."""
    return phase.sign() * (2 * phase.abs()) ** 2.2


def rigid(cue: Cue, phase: Tensor) -> Tensor:
    """[B, 6]: pan, and matrix less identity, of the camera at `phase`."""
    amount = cue.strength * ease(phase)
    tilt = 0.3 * cue.noise[:, 2]
    reach = (cue.effect == WHIP) * 1.1 * cue.aspect * amount
    angle = (cue.effect == SPIN) * 1.2 * amount
    # Out: into the frame. In: from a little further away, so that the push goes on through the cut.
    depth = 0.9 * amount.clamp(min=0) + 0.5 * amount.clamp(max=0)
    depth = (cue.effect == ZOOM) * depth + (cue.effect == TWIST) * 0.2 * amount.abs()
    depth = depth + (cue.effect == BLUR) * 0.08 * amount.abs()
    size = torch.exp(-depth)
    cos, sin = size * angle.cos(), size * angle.sin()
    return torch.stack([reach * tilt.cos(), reach * tilt.sin(), cos - 1, -sin, sin, cos - 1], -1)


def whirl(cue: Cue, phase: Tensor, around: Tensor) -> Tensor:
    """[B, 2, G, G]: ripple, twist and lens as shares of the way to the centre, outward and turning."""
    distance = around.square().sum(1, keepdim=True).sqrt()
    effect, strength = cue.effect[:, None, None, None], cue.strength[:, None, None, None]
    phase, noise = phase[:, None, None, None], cue.noise[:, 2, None, None, None]
    # Both clips ride on the same waves: phase p of the one is p - 1 of the other.
    on = phase % 1
    crest = torch.sin(2 * torch.pi * ((1.6 + 0.4 * noise) * distance - 2 * on))
    wave = 0.08 * strength * (torch.pi * on).sin().square() * crest / (distance + 0.15)
    edge = 1.2 * cue.aspect.clamp(min=1)[:, None, None, None]
    turn = 2.4 * strength * ease(phase) * (1 - distance / edge).clamp(min=0) ** 2
    # Out: the middle swells until only it is left. In: from a little shrunk, so that it goes on swelling.
    swell = ease(phase)
    swell = strength * (0.7 * swell.clamp(min=0) + 0.6 * swell.clamp(max=0))
    bulge = swell.clamp(-1.0, MOST_BULGE) * (1 - (distance / edge).square()).clamp(min=0).square()
    outward = (effect == RIPPLE) * wave + (effect == TWIST) * (turn.cos() - 1) - (effect == LENS) * bulge
    return torch.cat([outward, (effect == TWIST) * turn.sin()], 1)


def defocus(cue: Cue) -> Tensor:
    """[B]: radius of the disc that a point becomes."""
    return (cue.effect == BLUR) * 0.18 * cue.strength * ease(cue.phase).abs()


def arrival(x: Tensor, cue: Cue, around: Tensor) -> Tensor:
    """[B, 1, G, G]: when the next clip shows: from the centre out, and in bright places first."""
    grid = around.shape[-1]
    distance = around.square().sum(1, keepdim=True).sqrt()
    reach = distance / (1 + cue.aspect.square()).sqrt()[:, None, None, None]
    bright = F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(luma(x), grid // 2), grid)
    #                          whip  spin  ripple twist zoom  blur  lens
    start = reach.new_tensor([0.50, 0.50, 0.33, 0.45, 0.46, 0.50, 0.44])[cue.effect][:, None, None, None]
    spread = reach.new_tensor([0.0, 0.0, 0.34, 0.10, 0.08, 0.0, 0.12])[cue.effect][:, None, None, None]
    key = reach.new_tensor([0.04, 0.04, 0.06, 0.06, 0.04, 0.12, 0.06])[cue.effect][:, None, None, None]
    late = start + spread * reach + key * (0.5 - bright)
    return late.clamp(0.5 - 0.95 * REACH, 0.5 + 0.95 * REACH)


@torch.inference_mode()
def measure(
    net: Generator, critic: Critic, held_out: list[np.ndarray], picture_px: int, batches: int = 24
) -> dict[str, Any]:
    """Held-out transitions, made and simulated: PSNR of the picture, beside a plain cross-fade's."""
    device = next(net.parameters()).device
    random, feed = torch.Generator().manual_seed(1), crops(held_out, picture_px, 16, np.random.default_rng(1))
    made_db: dict[str, list[float]] = {name: [] for name in EFFECTS}
    fade_db, error, margin = [], [], []
    for _ in range(batches):
        x = next(feed).to(device).float() / 255
        cue = pair(draw(len(x) // 2, random, device))
        fields, truth = net(x, cue), true_fields(x, cue, net.settings.grid)
        made, real = render(x, fields, cue.aspect, taps=16), simulate(x, cue, taps=32)
        target = mixed(real, truth, cue)
        for effect, value in zip(cue.effect, psnr(mixed(made, fields, cue), target), strict=False):
            made_db[EFFECTS[effect]].append(float(value))
        fade_db += psnr(mixed(x, truth, cue), target).tolist()
        gap = positions(fields, cue.aspect, 32) - positions(truth, cue.aspect, 32)
        # Half way and beyond, the other clip shows.
        error += gap.square().sum(2).sqrt().mean((1, 2, 3))[cue.phase.abs() <= 0.5].tolist()
        margin.append((critic(x, real, cue).mean() - critic(x, made, cue).mean()).item())
    return {
        "data": f"{8 * batches} transitions between {len(held_out)} held-out photographs, {picture_px} px",
        "psnr_db": float(np.mean([value for values in made_db.values() for value in values])),
        "cross_fade_psnr_db": float(np.mean(fade_db)),
        **{f"{name}_psnr_db": float(np.mean(values)) for name, values in made_db.items()},
        "flow_error_px_at_1080p": 540 * float(np.mean(error)),
        "critic_margin": float(np.mean(margin)),
    }


if __name__ == "__main__":
    main("effects")
