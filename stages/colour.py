"""Colour correction: frames of a shot -> one 3D LUT for the whole shot.

in   frames  uint8 [n, S, S, 3] RGB, a few frames of one shot
out  lut     float32 [L, L, L, 3] indexed [blue, green, red], values in [0, 1]

One LUT a shot, so nothing flickers within it. Shots of one video that look alike are of one scene: they lean
towards each other, so that a cut between two of them does not jump. Whether to touch a video at all is mostly
one question for all of it.
"""

import numpy as np
import torch
from torch import Tensor

from stages.networks import ColourSettings
from stages.nn.device import pick_device
from stages.nn.lut import LutNet, LutSettings, apply_luts, identity_lut
from stages.nn.weights import Bundle, BundleError

DARK = 0.03  # mean of a frame that shows nothing: a fade, not a scene
PART = 0.75  # side of a part that is looked at on its own, as a share of the picture's
SHARED = 0.7  # of the doubt about a shot is the doubt about its video
LOOK = (0.05, 0.25, 0.5, 0.75, 0.95)  # quantiles
ALIKE = 0.06  # difference between the looks of two shots at which they have little to say to each other
BAR = 24 / 255  # brightest value in the black bars of a letterbox, with the noise of a codec


class Grade:
    """The colour model of a bundle, ready to grade. With kind "none" it needs no model."""

    def __init__(self, settings: ColourSettings, bundle: Bundle):
        self.settings = settings
        self.net = None if settings.kind == "none" else load_colour(bundle)

    def lut(self, frames: np.ndarray) -> np.ndarray:
        """The LUT of a shot that stands alone."""
        return self.luts([frames])[0]

    @torch.inference_mode()
    def luts(self, shots: list[np.ndarray]) -> list[np.ndarray]:
        """The LUTs of all shots of one video; a dark one's is the identity.

        Shots of one scene lean towards each other, and all share their doubt: in a film that is good as a
        whole, a shot that is bright, dark or pale is meant to be so.
        """
        if self.net is None:
            return [identity_lut(LutSettings().grid).numpy()] * len(shots)
        asked = [self.asked(without_bars(frames)) for frames in shots]
        lit = [one for one in asked if one is not None]
        usual = torch.stack(lit)[:, -1].mean() if lit else torch.zeros(())
        luts = [self.net.identity if one is None else self.toned(one, usual) for one in asked]
        alike = likeness(np.stack([look(frames) for frames in shots]))
        # A dark shot is left alone, and nothing is learnt from it.
        dark = np.array([one is None for one in asked])
        alike[dark], alike[:, dark] = 0, 0
        alike[dark, dark] = 1
        return list(leaning(torch.stack(luts).cpu().numpy(), alike, self.settings.agree))

    def asked(self, frames: np.ndarray) -> Tensor | None:
        """What the network wants done with a shot: the mean over its frames; None if all are dark."""
        lit = frames[frames.mean((1, 2, 3)) > 255 * DARK]
        if not len(lit):
            return None
        pictures = torch.from_numpy(np.ascontiguousarray(lit)).to(self.net.bases.device)
        pictures = pictures.permute(0, 3, 1, 2).float() / 255
        return torch.stack([self.net(view).mean(0) for view in views(pictures)]).mean(0)

    def toned(self, asked: Tensor, usual: Tensor) -> Tensor:
        """The LUT of a shot, of the wanted strength; `usual` is the doubt of its video."""
        shared = asked.clone()
        shared[-1] = torch.lerp(asked[-1], usual, SHARED)
        return torch.lerp(self.net.identity, self.net.luts(shared[None])[0], self.settings.strength)


def load_colour(bundle: Bundle) -> LutNet:
    card = bundle.card("colour")
    if card["kind"] != "lut":
        raise BundleError(
            f"{bundle.uri}: the colour model is of kind {card['kind']}; colour.kind lut wants lut"
        )
    net = LutNet(LutSettings.model_validate(card["settings"]))
    try:
        net.load_state_dict(bundle.state("colour"))
    except RuntimeError as error:
        raise BundleError(
            f"{bundle.uri}: the colour model is of another version: train it with `reelmap train colour`"
        ) from error
    return net.to(pick_device()).eval()


def without_bars(frames: np.ndarray) -> np.ndarray:
    """The frames without the black bars that all of them have; they would pass for a dark scene."""
    brightest = frames.max((0, 3)) / 255.0
    rows, columns = (np.flatnonzero(np.quantile(brightest, 0.98, axis=axis) > BAR) for axis in (1, 0))
    # What is left must be a picture: a lamp at night is not framed by bars.
    if min(len(rows), len(columns)) < frames.shape[1] // 4:
        return frames
    return frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def views(x_B3HW: Tensor) -> list[Tensor]:
    """The whole pictures and nine parts of them: ten opinions on one light, less wrong than one."""
    height, width = (round(PART * side) for side in x_B3HW.shape[-2:])
    tops, lefts = (
        [round(way * (side - part)) for way in (0, 1 / 2, 1)]
        for side, part in zip(x_B3HW.shape[-2:], (height, width), strict=True)
    )
    return [x_B3HW, *(x_B3HW[..., y : y + height, x : x + width] for y in tops for x in lefts)]


def look(frames: np.ndarray) -> np.ndarray:
    """[3 * len(LOOK)]: quantiles of red, green and blue over the frames of a shot."""
    quantiles = np.quantile(without_bars(frames)[:, ::4, ::4].reshape(-1, 3), LOOK, axis=0)
    return (quantiles / 255).astype(np.float32).ravel()


def likeness(looks: np.ndarray) -> np.ndarray:
    """[K, K] in (0, 1] from looks [K, Q]: 1 for shots of the same colours."""
    squares = np.square(looks[:, None] - looks).mean(-1)
    return np.exp(-squares / ALIKE**2)


def leaning(luts: np.ndarray, alike: np.ndarray, share: float) -> np.ndarray:
    """[K, L, L, L, 3]: each LUT moved by `share` of its way to the mean, weighted by likeness [K, K]."""
    means = np.einsum("ij,j...->i...", alike / alike.sum(1, keepdims=True), luts)
    return (luts + share * (means - luts)).astype(np.float32)


def apply_lut(frame: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] RGB through a LUT, trilinear: the reference for what the renderer's filter does."""
    picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
    graded = apply_luts(picture, torch.from_numpy(np.ascontiguousarray(lut))[None])
    return (255 * graded[0]).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
