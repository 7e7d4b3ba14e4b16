"""How near a made picture is to the simulated one, how sharp, how smooth in time.

Pictures are uint8 [H, W, 3] RGB.
"""

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from jobs.train.effects import simulate, true_fields
from stages.effects import asked
from stages.nn.cnn import FeatureNet
from stages.nn.gan import Cue, Generator, positions

GMSD_C = 170.0  # Xue et al., "Gradient Magnitude Similarity Deviation", TIP 2014, for values to 255
SIMULATED_TAPS = 96  # with fewer, the simulation's own grain costs decibels
STEPS = 31  # frames of one half of a transition: half a second at 60 frames/s
PX_AT_1080P = 540  # to a unit of the fields


def tensor(picture: np.ndarray) -> Tensor:
    """float32 [1, 3, H, W] in 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255


@torch.inference_mode()
def simulated(picture: np.ndarray, *cues: Cue) -> np.ndarray:
    shown = simulate(tensor(picture), *cues, taps=SIMULATED_TAPS)
    return (255 * shown[0]).round().byte().permute(1, 2, 0).numpy()


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    return float(structural_similarity(a, b, channel_axis=2, data_range=255))


def gmsd(a: np.ndarray, b: np.ndarray) -> float:
    """Deviation of the gradient magnitudes' similarity: 0 is identical, 0.1 plain to see."""
    first, second = (gradients(halved(picture)) for picture in (a, b))
    similarity = (2 * first * second + GMSD_C) / (first**2 + second**2 + GMSD_C)
    return float(similarity.std())


def halved(picture: np.ndarray) -> np.ndarray:
    """Luma at half the size, as the measure wants it."""
    return cv2.cvtColor(cv2.blur(picture, (2, 2)), cv2.COLOR_RGB2GRAY)[::2, ::2].astype(np.float64)


def gradients(luma: np.ndarray) -> np.ndarray:
    """Magnitude by Prewitt's operator."""
    kernel = np.array([[1, 0, -1]] * 3) / 3
    return np.hypot(*(cv2.filter2D(luma, -1, k, borderType=cv2.BORDER_REFLECT) for k in (kernel, kernel.T)))


def detail(picture: np.ndarray) -> float:
    """Mean magnitude of the gradients: how sharp."""
    return float(gradients(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)).mean())


class Perceptual:
    """A distance in a network's activations, as LPIPS (Zhang et al., CVPR 2018) without learned weights.

    At every size of its maps the last map counts: channels normalised, squared difference, mean over places.
    """

    def __init__(self, net: FeatureNet):
        self.net = net

    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        pairs = zip(self.maps(a), self.maps(b), strict=True)
        return float(np.mean([(x - y).square().sum(1).mean().item() for x, y in pairs]))

    @torch.inference_mode()
    def maps(self, picture: np.ndarray) -> list[Tensor]:
        found: dict[tuple[int, ...], Tensor] = {}

        def look(_: torch.nn.Module, __: tuple, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
                found[tuple(output.shape[2:])] = output

        hooks = [module.register_forward_hook(look) for module in self.net.trunk.modules()]
        try:
            self.net.trunk((tensor(picture) - self.net.mean) / self.net.std)
        finally:
            for hook in hooks:
                hook.remove()
        return [torch.nn.functional.normalize(each, dim=1) for each in found.values()]


@torch.inference_mode()
def smoothness(net: Generator, picture: np.ndarray, effect: str, seed: int) -> dict[str, float]:
    """What moves from frame to frame of a transition of one second at 60 frames/s, in pixels of 1080p.

    step    mean way of the picture's points; of the simulation `true_step`
    jolt    mean change of that way from one frame to the next; of the simulation `true_jolt`
    wander  mean way of the error: what trembles though the simulation does not
    """
    height, width = picture.shape[:2]
    halves = (np.linspace(0, 0.5, STEPS), np.linspace(-0.5, 0, STEPS))
    found: dict[str, list[float]] = {}
    for phases in halves:
        cue = asked(effect, phases.tolist(), 1.0, width / height, seed)
        x = tensor(cv2.resize(picture, (net.settings.picture_px,) * 2, interpolation=cv2.INTER_AREA))
        x = x.expand(STEPS, -1, -1, -1)
        made, true = (
            PX_AT_1080P * positions(fields, cue.aspect, net.settings.grid)[:, 1]
            for fields in (net(x, cue), true_fields(x, cue, net.settings.grid))
        )
        for name, way in (("step", made.diff(dim=0)), ("true_step", true.diff(dim=0))):
            found.setdefault(name, []).append(way.norm(dim=1).mean().item())
        for name, jolt in (("jolt", made), ("true_jolt", true)):
            found.setdefault(name, []).append(jolt.diff(n=2, dim=0).norm(dim=1).mean().item())
        found.setdefault("wander", []).append((made - true).diff(dim=0).norm(dim=1).mean().item())
    return {name: float(np.mean(values)) for name, values in found.items()}
