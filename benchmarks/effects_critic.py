"""Whether a critic trained afresh can tell made pictures from simulated ones.

It learns on one half of the photos and is asked about the other half. It sees what the training's critic sees
(the frame, what was asked for, the shown picture) and judges whole pictures by the mean over its patches.
Half right is guessing.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jobs.train.effects import draw, pair, simulate
from jobs.train.photos import crops
from stages.nn.gan import Critic, Cue, Generator, render

PICTURE_PX = 96
BATCH = 4  # transitions: twice as many pictures
TAPS = 16
ASKED = 12  # batches


def told_apart(net: Generator, photos: list[np.ndarray], steps: int, seed: int = 0) -> dict[str, float]:
    """Share of the pictures that the critic calls right, and the mean margin between real and made."""
    torch.manual_seed(seed)
    critic = Critic()
    optimiser = torch.optim.Adam(critic.parameters(), 4e-4, betas=(0.0, 0.99))
    rng = np.random.default_rng(seed)
    learnt, asked = photos[::2], photos[1::2]
    for _ in range(steps):
        x, cue, made, real = batch(net, learnt, rng)
        loss = F.relu(1 - critic(x, real, cue)).mean() + F.relu(1 + critic(x, made, cue)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    right, margin = [], []
    with torch.inference_mode():
        for _ in range(ASKED):
            x, cue, made, real = batch(net, asked, rng)
            real_B, made_B = (critic(x, shown, cue).mean((1, 2, 3)) for shown in (real, made))
            # Its zero need not lie between them: each picture is compared with its own twin.
            right += (real_B > made_B).float().tolist()
            margin += (real_B - made_B).tolist()
    return {"right": float(np.mean(right)), "margin": float(np.mean(margin))}


@torch.no_grad()
def batch(
    net: Generator, photos: list[np.ndarray], rng: np.random.Generator
) -> tuple[Tensor, Cue, Tensor, Tensor]:
    """Frames, what is asked, made and simulated pictures."""
    x = next(crops(photos, PICTURE_PX, 2 * BATCH, rng)).float() / 255
    cue = pair(draw(BATCH, torch.default_generator, torch.device("cpu")))
    return x, cue, render(x, net(x, cue), cue.aspect, TAPS), simulate(x, cue, taps=TAPS)
