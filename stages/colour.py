"""Colour correction: frames of a shot -> one 3D LUT for the whole shot, and the .cube file of it.

in   frames  uint8 [n, S, S, 3] RGB, a few frames of one shot
out  lut     float32 [L, L, L, 3] indexed [blue, green, red], values in [0, 1]

One LUT a shot, so nothing flickers within it; the shots of one video lean towards their mean, so that a
cut between two of them does not jump.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from stages.nn.device import pick_device
from stages.nn.lut import LutNet, LutSettings, apply_luts, identity_lut
from stages.nn.weights import Bundle, BundleError
from stages.settings import Settings

DARK = 0.03  # mean of a frame that shows nothing: a fade, not a scene
BAR = 24 / 255  # brightest value in the black bars of a letterbox, with the noise of a codec


class ColourSettings(Settings):
    kind: Literal["lut", "none"] = "lut"
    # 1 is the whole correction that the model proposes; a film keeps some of its own light.
    strength: float = Field(0.8, ge=0, le=1)
    # How far each shot's LUT goes towards the mean of the video's shots.
    agree: float = Field(0.3, ge=0, le=1)


class Grade:
    """The colour model of a bundle, ready to grade. With kind "none" it needs no model."""

    def __init__(self, settings: ColourSettings, bundle: Bundle):
        self.settings = settings
        self.net = None if settings.kind == "none" else load_colour(bundle)

    @torch.inference_mode()
    def lut(self, frames: np.ndarray) -> np.ndarray:
        """The LUT of one shot: the mean of what its frames ask for; the identity if all are dark."""
        if self.net is None:
            return identity_lut(LutSettings().grid).numpy()
        frames = without_bars(frames)
        lit = frames[frames.mean((1, 2, 3)) > 255 * DARK]
        weights = torch.zeros(1, self.net.settings.bases, device=self.net.bases.device)
        if len(lit):
            pictures = torch.from_numpy(np.ascontiguousarray(lit)).to(weights.device)
            weights = self.net(pictures.permute(0, 3, 1, 2).float() / 255).mean(0, keepdim=True)
        lut = self.net.luts(weights)[0]
        return torch.lerp(self.net.identity, lut, self.settings.strength).cpu().numpy()

    def luts(self, shots: list[np.ndarray]) -> list[np.ndarray]:
        """The LUTs of all shots of one video, leaning towards their mean."""
        return list(leaning(np.stack([self.lut(frames) for frames in shots]), self.settings.agree))


def load_colour(bundle: Bundle) -> LutNet:
    card = bundle.card("colour")
    if card["kind"] != "lut":
        raise BundleError(
            f"{bundle.uri}: the colour model is of kind {card['kind']}; colour.kind lut wants lut"
        )
    net = LutNet(LutSettings.model_validate(card["settings"]))
    net.load_state_dict(bundle.state("colour"))
    return net.to(pick_device()).eval()


def without_bars(frames: np.ndarray) -> np.ndarray:
    """The frames without the black bars that all of them have; they would pass for a dark scene."""
    brightest = frames.max((0, 3)) / 255.0
    rows, columns = (np.flatnonzero(np.quantile(brightest, 0.98, axis=axis) > BAR) for axis in (1, 0))
    # What is left must be a picture: a lamp at night is not framed by bars.
    if min(len(rows), len(columns)) < frames.shape[1] // 4:
        return frames
    return frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def leaning(luts: np.ndarray, share: float) -> np.ndarray:
    """[K, L, L, L, 3]: each LUT moved by `share` of its way to their mean."""
    return (luts + np.float32(share) * (luts.mean(0) - luts)).astype(np.float32)


def apply_lut(frame: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] RGB through a LUT, trilinear: the reference for what the renderer's filter does."""
    picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
    graded = apply_luts(picture, torch.from_numpy(np.ascontiguousarray(lut))[None])
    return (255 * graded[0]).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def write_cube(lut: np.ndarray, path: Path) -> None:
    """The LUT as a .cube file (Adobe Cube LUT Specification 1.0): red varies fastest."""
    lines = "\n".join("{:.6f} {:.6f} {:.6f}".format(*entry) for entry in lut.reshape(-1, 3).tolist())
    path.write_text(f'TITLE "reelmap grade"\nLUT_3D_SIZE {len(lut)}\n{lines}\n', encoding="ascii")
