"""GAN effects at full size: transitions between two clips, pulses within one (stages/pulses.py).

in   a, b   uint8 [H, W, 3] RGB, a frame of the outgoing and of the incoming clip
out         uint8 [H, W, 3] RGB

The generator looks at a small copy and answers with small smooth fields (stages/nn/gan.py); here they are
enlarged and the frame goes once through them. What is smeared is computed small, in linear light; what is
not smeared is sampled from the full frame and stays sharp.

Effects are named as in stages/nn/gan.py; "spin+zoom" is both at once. A transition may also be "dissolve", a
plain cross-fade: no network has a part in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from stages.networks import DISSOLVE, EffectSettings, effect_names
from stages.nn.device import pick_device
from stages.nn.gan import EFFECTS, FARTHEST, NOISE, Cue, Generator, GeneratorSettings, arrived
from stages.nn.weights import Bundle, BundleError

# Short side of the copy that a smear is computed on: the longer the smear, the less is to be seen in it.
LIGHT_PX, HEAVY_PX = 432, 360
HEAVY_SMEAR = 0.04  # share of the height
# A smear of so many pixels of that copy is blurred; below half of it the sharp frame shows.
SMEARED_PX = 3.0
SHORT_SMEAR_PX = 14.0  # so many pixels of the copy are well blurred in one pass
MOST_TAPS = 10  # in each of two passes: the second one repeats the first one's smear end to end
STILL_PX = 0.2  # movement that nobody sees
ONE_RADIUS = 0.1  # defocus that varies by less is the same everywhere


@dataclass(frozen=True)
class Warp:
    """The generator's fields for one frame; T = 3 instants, G grid points, units as in stages/nn/gan.py."""

    camera: np.ndarray  # [T, 2, 3]
    local: np.ndarray  # [T, 2, G, G]
    radius: np.ndarray  # [G, G]


class Effects:
    """The effects model of a bundle. With kind "none" it needs no model: transitions are cross-fades.

    Nor does it where nothing but dissolves was asked for.
    """

    def __init__(self, settings: EffectSettings, bundle: Bundle):
        self.settings, self.accents = settings, settings.accents
        self.net = load_effects(bundle) if settings.wants_generator else None

    def transition(
        self,
        a: np.ndarray,
        b: np.ndarray,
        effect: str,
        phase: float,
        strength: float | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """The frame at `phase` of the way from `a` (0) to `b` (1).

        seed   of the noise that varies an effect (its centre, direction, wavelength): one for a transition
        """
        check_pair(a, b)
        if phase <= 0 or phase >= 1:
            return a.copy() if phase <= 0 else b.copy()
        if self.net is None or effect == DISSOLVE:
            return cv2.addWeighted(a, 1 - phase, b, phase, 0)
        warps, share = self._fields([a, b], [phase, phase - 1], effect, strength, seed)
        if share.max() == 0:
            return warped(a, warps[0])
        if share.min() == 1:
            return warped(b, warps[1])
        return mixed(warped(a, warps[0]), warped(b, warps[1]), share)

    def shown(
        self, frame: np.ndarray, effect: str, phase: float, strength: float | None = None, seed: int = 0
    ) -> np.ndarray:
        """A frame by itself: `phase` 0 is the clean frame, up to 0.5 the way out, from -0.5 the way in."""
        if self.net is None or phase == 0:
            return frame.copy()
        return warped(frame, self._fields([frame], [phase], effect, strength, seed)[0][0])

    @torch.inference_mode()
    def _fields(
        self, frames: list[np.ndarray], phases: list[float], effect: str, strength: float | None, seed: int
    ) -> tuple[list[Warp], np.ndarray]:
        """One warp for each frame, and the share of the incoming clip [G, G]: the outgoing clip's mix."""
        device, size_px = self.net.effects.weight.device, self.net.settings.picture_px
        height, width = frames[0].shape[:2]
        small = np.stack([cv2.resize(f, (size_px, size_px), interpolation=cv2.INTER_AREA) for f in frames])
        x = torch.from_numpy(small).to(device).permute(0, 3, 1, 2).float() / 255
        amount = self.settings.strength if strength is None else strength
        warps: list[Warp] = []
        shares = []
        for name in effect_names(effect):
            fields = self.net(x, asked(name, phases, amount, width / height, seed, device))
            shares.append(arrived(fields.arrival[:1], torch.tensor(phases[:1], device=device))[0, 0])
            parts = [part.cpu().numpy() for part in (fields.camera, fields.local, fields.radius[:, 0])]
            found = [Warp(*(part[i] for part in parts)) for i in range(len(frames))]
            warps = [both(*ab, width / height) for ab in zip(warps, found, strict=True)] if warps else found
        return warps, torch.stack(shares).mean(0).cpu().numpy()


def asked(
    effect: str,
    phases: list[float],
    strength: float,
    aspect: float,
    seed: int,
    device: torch.device | None = None,
) -> Cue:
    """One effect at several phases; the seed varies it (centre, direction, wavelength)."""
    count = len(phases)
    noise = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, NOISE)).float()
    return Cue(
        effect=torch.full((count,), EFFECTS.index(effect), device=device),
        strength=torch.full((count,), float(strength), device=device),
        phase=torch.tensor(phases, device=device).float().clamp(-FARTHEST, FARTHEST),
        aspect=torch.full((count,), aspect, device=device),
        noise=noise.expand(count, -1).to(device),
    )


def both(outer: Warp, inner: Warp, aspect: float) -> Warp:
    """The picture through `inner`, and that through `outer`: source = inner(outer(place))."""
    grid = outer.radius.shape[0]
    place = places(grid, aspect)
    camera, local = [], []
    for b, a, flow_b, flow_a in zip(outer.camera, inner.camera, outer.local, inner.local, strict=True):
        camera.append(np.hstack([a[:, :2] @ b[:, :2], (a[:, :2] @ b[:, 2] + a[:, 2])[:, None]]))
        x, y = np.einsum("ij,jyx->iyx", b, place) + flow_b
        # The cells of the grid in which the inner flow is looked up.
        at = [((way + 1) * grid / 2 - 0.5).astype(np.float32) for way in (x / aspect, y)]
        carried = [cv2.remap(f, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for f in flow_a]
        local.append(np.einsum("ij,jyx->iyx", a[:, :2], flow_b) + np.stack(carried))
    return Warp(np.stack(camera), np.stack(local), np.hypot(outer.radius, inner.radius))


def load_effects(bundle: Bundle) -> Generator:
    card = bundle.card("effects")
    if card["kind"] != "gan":
        raise BundleError(f"{bundle.uri}: the effects are of kind {card['kind']}; effects.kind gan wants gan")
    net = Generator(GeneratorSettings.model_validate(card["settings"]))
    try:
        net.load_state_dict(bundle.state("effects"))
    except RuntimeError as error:
        raise BundleError(
            f"{bundle.uri}: the effects are of another version: go on with `reelmap train effects --from`"
        ) from error
    return net.to(pick_device()).eval()


def check_pair(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"a transition wants two frames of one size, not {a.shape} and {b.shape}")


def mixed(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`a` and `b` by the share of `b` [G, G]."""
    height, width = a.shape[:2]
    if np.ptp(share) < 1 / 512:
        return cv2.addWeighted(a, 1 - float(share.mean()), b, float(share.mean()), 0)
    weight = np.clip(enlarged(share, width, height), 0, 1)
    return cv2.blendLinear(a, b, 1 - weight, weight)


def warped(frame: np.ndarray, warp: Warp) -> np.ndarray:
    """The frame as seen through the fields; the frame's edges mirror."""
    height, width = frame.shape[:2]
    path = paths(warp, width / height)
    smear = path + 2 * warp.radius
    heavy = smear.max() > 2 * HEAVY_SMEAR  # the height is 2 units
    shrink = max(1.0, min(height, width) / (HEAVY_PX if heavy else LIGHT_PX))
    unit = height / 2 / shrink
    smear_px = smear * unit
    if smear_px.max() < SMEARED_PX / 2:
        return sharp(frame, warp, (0, 0, width, height))
    size = (round(width / shrink), round(height / shrink))
    soft = smeared(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), warp, float(path.max()) * unit)
    soft = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    weight = np.clip(2 * smear_px / SMEARED_PX - 1, 0, 1)
    if weight.min() == 1:
        return soft
    left, top, right, bottom = box = bounds(weight < 1, width, height)
    inner = np.clip(enlarged(weight, width, height)[top:bottom, left:right], 0, 1)
    part = np.ascontiguousarray(soft[top:bottom, left:right])
    soft[top:bottom, left:right] = cv2.blendLinear(sharp(frame, warp, box), part, 1 - inner, inner)
    return soft


def paths(warp: Warp, aspect: float) -> np.ndarray:
    """[G, G]: length of each point's path while the shutter is open."""
    place = places(warp.radius.shape[0], aspect)
    path = np.einsum("ij,jyx->iyx", warp.camera[2] - warp.camera[0], place) + warp.local[2] - warp.local[0]
    return np.hypot(path[0], path[1])


def places(grid: int, aspect: float) -> np.ndarray:
    """[3, G, G]: (x, y, 1) of the grid's points."""
    axis = (2 * np.arange(grid, dtype=np.float32) + 1) / grid - 1
    return np.stack([*np.broadcast_arrays(axis * aspect, axis[:, None]), np.ones((grid, grid), np.float32)])


def sharp(frame: np.ndarray, warp: Warp, box: tuple[int, int, int, int]) -> np.ndarray:
    """The box (left, top, right, bottom) of the frame at the middle of the exposure, full size."""
    left, top, right, bottom = box
    height, width = frame.shape[:2]
    matrix = in_pixels(warp.camera[1], width, height)
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    if np.abs(warp.local[1]).max() * height / 2 < STILL_PX:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            frame, matrix, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REFLECT
        )
    maps = planes(matrix, right - left, bottom - top)
    for axis, flow in zip(maps, warp.local[1], strict=True):
        axis += (enlarged(flow, width, height) * (height / 2))[top:bottom, left:right]
    return cv2.remap(frame, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def smeared(small: np.ndarray, warp: Warp, path_px: float) -> np.ndarray:
    """Mean of the light over each pixel's disc and along its path, of which the longest is path_px.

    A long path takes two passes of n taps: the first smears the source by an n-th of the path, the second
    puts n of these end to end. n x n taps for the price of 2n.
    """
    height, width = small.shape[:2]
    short = path_px <= SHORT_SMEAR_PX
    taps = int(np.clip(np.ceil(path_px / 2.5 if short else np.sqrt(path_px / 1.5)), 2, MOST_TAPS))
    opened, middle, shut = (in_pixels(camera, width, height) for camera in warp.camera)
    half, bend = (shut - opened) / 2, (shut + opened) / 2 - middle
    # The first pass works on the source: the path there is that of the output, seen from where it lands.
    back = np.vstack([cv2.invertAffineTransform(middle), (0, 0, 1)])
    rest, speed = np.eye(2, 3), half @ back
    if np.abs(warp.local).max() * height / 2 > STILL_PX:
        flow = np.stack([[enlarged(part, width, height) for part in parts] for parts in warp.local])
        flow *= height / 2
        own = (flow[2] - flow[0]) / 2
        rest, middle, half, bend, speed = (
            planes(m, width, height) for m in (rest, middle, half, bend, speed)
        )
        bend = bend + (flow[2] + flow[0]) / 2 - flow[1]
        middle, half, speed = middle + flow[1], half + own, speed + own
    light = np.square(small, dtype=np.float32)
    if warp.radius.max() * height / 2 > STILL_PX:
        light = defocused(light, warp.radius * height / 2)
    if not short:
        light = mean_along(light, (rest + t / taps * speed for t in times(taps)), taps)
    light = mean_along(light, (middle + t * half + t * t * bend for t in times(taps)), taps)
    return np.sqrt(light, out=light).round().astype(np.uint8)


def mean_along(light: np.ndarray, path: Iterator[np.ndarray], taps: int) -> np.ndarray:
    """Mean of float32 [H, W, 3] seen through each step of a path: matrices [2, 3], or maps [2, H, W]."""
    height, width = light.shape[:2]
    total = np.zeros_like(light)
    for step in path:
        if step.ndim == 2:
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            total += cv2.warpAffine(light, step, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        else:
            total += cv2.remap(light, step[0], step[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    total /= taps
    return total


def defocused(light: np.ndarray, radius_px: np.ndarray) -> np.ndarray:
    """Mean over each pixel's disc; where the radii [G, G] differ, between the least and the largest disc."""
    least, most = float(radius_px.min()), float(radius_px.max())
    if most - least < ONE_RADIUS * most:
        return blurred(light, float(radius_px.mean()))
    weight = np.clip(enlarged((radius_px - least) / (most - least), *light.shape[1::-1]), 0, 1)
    return cv2.blendLinear(blurred(light, least), blurred(light, most), 1 - weight, weight)


def blurred(light: np.ndarray, radius_px: float) -> np.ndarray:
    """Seen through a round aperture, its edge smooth."""
    reach = int(np.ceil(radius_px))
    axis = np.arange(-reach, reach + 1)
    disc = np.clip(radius_px + 0.5 - np.hypot(axis, axis[:, None]), 0, 1).astype(np.float32)
    # The Fourier transform of a large kernel leaves rounding errors, and their root must be taken.
    return np.maximum(cv2.filter2D(light, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT), 0)


def times(taps: int) -> list[float]:
    """Of the taps, over the exposure: -1 to 1."""
    return [(2 * tap + 1) / taps - 1 for tap in range(taps)]


def in_pixels(camera: np.ndarray, width: int, height: int) -> np.ndarray:
    """A camera [2, 3] in field units -> the same from pixel to pixel of a frame."""
    # x spans -aspect to aspect over the width: both axes have height / 2 pixels to the unit.
    half = np.array([width, height]) / 2
    unit = height / 2
    matrix = camera[:, :2].astype(np.float64)
    origin = 0.5 - half
    shift = matrix @ origin + camera[:, 2] * unit - origin
    return np.hstack([matrix, shift[:, None]])


def planes(matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """float32 [2, height, width]: where the matrix [2, 3] sends each pixel."""
    across = (matrix[:, :1] * np.arange(width) + matrix[:, 2:]).astype(np.float32)
    down = (matrix[:, 1:2] * np.arange(height)).astype(np.float32)
    return across[:, None, :] + down[:, :, None]


def enlarged(field: np.ndarray, width: int, height: int) -> np.ndarray:
    """A field [G, G] -> [height, width]; smooth, and straight on beyond the outermost cells' middles."""
    margin = field.shape[0] // 8
    padded = np.pad(field, margin, mode="reflect", reflect_type="odd").astype(np.float32)
    share = 1 + 2 * margin / field.shape[0]
    # Cubic to a modest size, linear from there: the fields have nothing finer.
    size = (min(round(width * share), 480), min(round(height * share), 270))
    padded = cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC)
    # Output pixel i looks at ((i + 0.5) / width + margin') / share in the padded field.
    step = np.array([size[0] / (width * share), size[1] / (height * share)])
    edge = np.array(size) * (1 - 1 / share) / 2
    matrix = np.hstack([np.diag(step), (0.5 * step + edge - 0.5)[:, None]])
    return cv2.warpAffine(padded, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def bounds(mask: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Box in pixels (left, top, right, bottom) around the true cells and their neighbours."""
    grid = mask.shape[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    low = [max(0, cells[0] - 1) / grid for cells in (columns, rows)]
    high = [min(grid, cells[-1] + 2) / grid for cells in (columns, rows)]
    return int(low[0] * width), int(low[1] * height), round(high[0] * width), round(high[1] * height)
