"""Trains the colour model: good pictures, spoilt as footage is (jobs/train/damage.py), back as they were.

A share of the pictures is left alone, so that the model learns to leave good pictures alone; how much it
doubts is settled in the end, on good pictures that it has not seen.
"""

import math
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from jobs.train.damage import Damage, draw, remedies, spoil
from jobs.train.good import Good, apart, good_pictures, varied
from jobs.train.loop import LoopSettings, Run, main
from jobs.train.photos import crops
from jobs.train.psnr import psnr
from stages.colour import ColourSettings
from stages.nn.lut import QUANTILES, REACH, LutNet, LutSettings, apply_luts, reversals, roughness, trust


class Train(LoopSettings):
    divisible: ClassVar[bool] = True
    steps: int = 12_000
    # Parts of the data folder (folders of pictures or videos, tables of pictures) and the share of a batch
    # that each has. The first is nearest to what is asked, but small, and soon learnt by heart.
    parts: dict[str, float] = Field(
        {"photos": 0.15, "tiny_imagenet/train.parquet": 0.45, "videos": 0.06, "action": 0.34}, min_length=1
    )
    most: int = 30_000  # pictures read from each
    batch: int = 32
    learning_rate: float = 1.5e-3
    decay: float = 1e-2  # of the weights
    untouched: float = 0.22  # share of pictures that must come out as they went in
    floor: float = 4e-4  # of the squared error: below it a picture is as good as right
    told: float = 0.05  # weight of the controls that undo the damage, at first
    sure: float = 0.03  # weight of knowing good pictures from spoilt ones
    # PSNR to themselves that held-out good pictures keep in the mean, at the strength of a run: the doubt is
    # raised until they do. To spoil a good picture is worse than to leave a fault.
    kept_db: float = 40.0
    smooth: float = 0.3
    monotone: float = 1.0
    grey: float = 0.3  # the bases must not tint grey: the colour of the light is the controls' part
    net: LutSettings = LutSettings()


USUAL_LIGHT = 0.2  # mean of a good picture, in linear light
HALFWAY = 0.5  # how far an unusual picture is brought there at first
SMALLEST = 0.35  # side of a crop, as a share of the picture's short side
COLOURS = 640  # pixels of each picture that the loss looks at
CHECKED = 2  # pictures of a batch whose whole LUT the loss looks at
SEEN = 1e-3  # of a control: less is rounding
NOISE = 3 / 255  # most of it that a picture is shown with
SOME, SHOWN_PX = 200, 96  # held-out pictures of a part that are looked at, and their side
BATCH = 16  # of them at once
RAISED_BY, FARTHEST = 0.1, 4.0  # steps of the doubt, and the most it is raised by
BLANKED = 0.05  # share of pictures shown with a black rectangle: borders, logos, masks


def train(settings: Train, run: Run) -> tuple[dict[str, Tensor], dict[str, Any]]:
    found = good_pictures(settings.parts, settings.most, run)
    groups, settling, judging = ({} for _ in range(3))
    for name, pictures in found.items():
        groups[name], settling[name], judging[name] = apart(pictures)
    net = LutNet(settings.net).to(run.device)
    if run.start:
        net.load_state_dict(run.start.state("colour"))
    else:
        assume(net)
    optimiser = torch.optim.AdamW(net.parameters(), settings.learning_rate, weight_decay=settings.decay)
    called, losses = run.prepare(net), []
    counts = divided(run.share(settings.batch), [settings.parts.get(name, 1.0) for name in groups])
    pictures = {name: [photo.picture for photo in part] for name, part in groups.items()}
    for step in run.steps(net=net, optimiser=optimiser):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * min(1, (step + 1) / 200) * (1 - run.progress) ** 1.5
        rng, size_px = run.rng(), settings.net.picture_px
        parts = zip(pictures.values(), counts, strict=True)
        good = torch.cat([next(crops(part, size_px, count, rng, SMALLEST)) for part, count in parts])
        good = varied(good.to(run.device).float() / 255)
        damage = draw(len(good), settings.untouched).to(run.device)
        bad = spoil(good, damage)
        asked = called(as_shown(bad))
        loss = loss_of(net, asked, bad, good, settings)
        loss = loss + told(net, asked, damage, settings, settings.told * (1 - run.progress) ** 2)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if step % 500 == 499:
            run.log(step=step + 1, loss=float(np.mean(losses)))
            losses.clear()
    net.eval()
    raised = settle(net, [whole(part) for part in settling.values() if part], settings.kept_db)
    quality = measure(net, [good.picture for good in next(iter(judging.values()))])
    quality["kept_db"] = {
        name: kept(net, whole(part)).mean().item() for name, part in judging.items() if part
    }
    run.log(doubt_raised=raised, **{name: v for name, v in quality.items() if isinstance(v, float)})
    trained = {
        "pictures": {name: len(part) for name, part in groups.items()},
        "files": {name: sorted({good.sha256 for good in part} - {""}) for name, part in groups.items()},
        "doubt_raised": raised,
    }
    card = {"kind": "lut", "settings": settings.net.model_dump(), "trained": trained, "quality": quality}
    return net.state_dict(), card


@torch.no_grad()
def assume(net: LutNet) -> None:
    """Starts from what is known without learning: light is grey in the mean, and of a usual level.

    Of the Minkowski means of light in `statistics`, the first is the plain one, the third that of exponent 6.
    """
    plain, grey = (slice(5 * QUANTILES + 3 * i, 5 * QUANTILES + 3 * i + 3) for i in (0, 2))
    first = net.settings.bases + len(REACH)
    net.skip.weight[first : first + 3, grey] = 1 / 3 - torch.eye(3, device=net.skip.weight.device)
    net.skip.weight[first + 3, plain] = -HALFWAY / 3
    net.skip.bias[first + 3] = HALFWAY * (math.log(USUAL_LIGHT) + 1)


def divided(batch: int, shares: list[float]) -> list[int]:
    """How many pictures of each part a batch holds; what rounding leaves is the first one's."""
    counts = [max(1, round(batch * share / sum(shares))) for share in shares]
    return [counts[0] + batch - sum(counts), *counts[1:]]


def as_shown(bad: Tensor) -> Tensor:
    """What the network sees: with some noise, so that it cannot count grey levels, and at times a mask."""
    noise = NOISE * torch.rand(len(bad), 1, 1, 1, device=bad.device) * torch.randn_like(bad)
    shown = (bad + noise).clamp(0, 1)
    side = bad.shape[-1]
    for i in torch.nonzero(torch.rand(len(bad)) < BLANKED).flatten().tolist():
        height, width = torch.randint(side // 8, side // 2, (2,)).tolist()
        top, left = int(torch.randint(side - height + 1, ())), int(torch.randint(side - width + 1, ()))
        shown[i, :, top : top + height, left : left + width] = 0
    return shown


def loss_of(net: LutNet, asked: Tensor, bad: Tensor, good: Tensor, settings: Train) -> Tensor:
    """The log of the squared error, as PSNR counts it, and what a LUT should be like."""
    chosen = torch.randperm(bad[0, 0].numel(), device=bad.device)[:COLOURS]
    graded = net.grade(bad.flatten(2)[..., chosen], asked)
    error = (graded - good.flatten(2)[..., chosen]).square().mean((1, 2))
    few = slice(None, None, max(1, len(asked) // CHECKED))
    tinge = tinges(net.identity + net.residuals(asked[few])).mean()
    return (
        0.1 * (error + settings.floor).log().mean()
        + settings.smooth * roughness(net.bases)
        + settings.monotone * reversals(net.luts(asked[few]))
        + settings.grey * tinge
    )


def told(net: LutNet, asked: Tensor, damage: Damage, settings: Train, share: float) -> Tensor:
    """What was done is known: told so, the network soon knows what its controls and its doubt are for.

    share  weight of the controls, which are the loss's own business later on
    """
    wanted = remedies(damage)
    faulty = (wanted.abs() > SEEN).any(1).float()
    off = ((net.controls(asked) - wanted).abs().mean(1) * faulty).sum() / faulty.sum().clamp(min=1)
    return share * off + settings.sure * F.binary_cross_entropy(trust(asked)[:, 0], faulty)


def tinges(luts: Tensor) -> Tensor:
    """[B, L]: how far from grey each LUT sends each grey: the most colourful channel less the least."""
    steps = torch.arange(luts.shape[1], device=luts.device)
    greys = luts[:, steps, steps, steps]
    return greys.amax(-1) - greys.amin(-1)


def whole(part: list[Good]) -> Tensor:
    """[N, 3, S, S]: pictures as the network is shown a frame; of a large part, some."""
    some = [good.picture for good in part[:: max(1, len(part) // SOME)]]
    small = [cv2.resize(picture, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_AREA) for picture in some]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def settle(net: LutNet, parts: list[Tensor], kept_db: float) -> float:
    """Raises the doubt until good pictures keep so much, all parts alike, and returns by how much."""
    raised = 0.0
    while parts and raised < FARTHEST and np.mean([kept(net, x).mean().item() for x in parts]) < kept_db:
        net.head[-1].bias[-1] += RAISED_BY
        raised += RAISED_BY
    return raised


@torch.no_grad()
def kept(net: LutNet, good: Tensor) -> Tensor:
    """[N]: PSNR of pictures through their own LUTs, of the strength of a run, beside themselves."""
    found = []
    for x in good.to(net.bases.device).split(BATCH):
        luts = torch.lerp(net.identity, net.luts(net(x)), ColourSettings().strength)
        found.append(psnr(apply_luts(x, luts), x))
    return torch.cat(found)


@torch.inference_mode()
def measure(net: LutNet, held_out: list[np.ndarray], each: int = 4) -> dict[str, Any]:
    """Mean PSNR (dB) against the untouched picture, ours and without a grade; benchmarks/colour.py says more.

    graded_psnr: untouched pictures through our own LUT; higher is a lighter hand.
    """
    random = torch.Generator().manual_seed(1)
    device = next(net.parameters()).device
    ours, identity, graded, tinge = [], [], [], []
    for picture in held_out:
        good = (
            torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].to(device).float() / 255
        )
        bad = spoil(good.expand(each, -1, -1, -1), draw(each, 0.0, random).to(device))
        bad = (255 * bad).round() / 255
        ours += psnr(apply_luts(bad, net.luts(net(bad))), good).tolist()
        identity += psnr(bad, good).tolist()
        lut = net.luts(net(good))
        graded += psnr(apply_luts(good, lut), good).tolist()
        tinge.append(tinges(lut).max().item())
    return {
        "data": f"{len(held_out)} held-out photographs, {each} damages each, as in training",
        "psnr_db": float(np.mean(ours)),
        "identity_psnr_db": float(np.mean(identity)),
        "graded_psnr_db": float(np.mean(graded)),
        "grey_tinge_of_255": 255 * float(np.mean(tinge)),
    }


if __name__ == "__main__":
    main("colour")
