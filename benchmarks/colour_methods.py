"""What people use today to correct colours, and the measures; pictures are uint8 [H, W, 3] RGB.

Every method is a function from a picture to a picture that knows nothing else. Those of one map for the whole
picture are given as a function that finds the map, so that the map of one frame can be laid on another:
that is how flicker is measured.
"""

from collections.abc import Callable

import cv2
import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from jobs.train.psnr import psnr_of

Map = Callable[[np.ndarray], np.ndarray]

GAMMA = 2.2
MINKOWSKI = 6  # Finlayson and Trezzi, "Shades of Gray and Colour Constancy", CIC 2004
CLIPPED = (0.01, 0.99)  # the share of pixels that levels clip at either end
CLAHE_LIMIT, CLAHE_TILES = 2.0, (8, 8)  # OpenCV's own tutorial


def identity(frame: np.ndarray) -> Map:
    return lambda picture: picture


def grey_world(frame: np.ndarray) -> Map:
    """The light that the scene returns is grey on average (Buchsbaum 1980); luminance is kept."""
    return light(light_linear(frame).mean((0, 1)))


def shades_of_grey(frame: np.ndarray) -> Map:
    """Between grey world and the brightest patch: the Minkowski mean of the scene is grey."""
    return light((light_linear(frame) ** MINKOWSKI).mean((0, 1)) ** (1 / MINKOWSKI))


def auto_levels(frame: np.ndarray) -> Map:
    """Each channel stretched from its 1st to its 99th percentile, as photo editors do."""
    low, high = np.quantile(frame.reshape(-1, 3), CLIPPED, axis=0)
    return levels(low, high)


def auto_contrast(frame: np.ndarray) -> Map:
    """Luma stretched from its 1st to its 99th percentile, all channels alike: colours keep their hue."""
    low, high = np.quantile(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), CLIPPED)
    return levels(low, high)


def mid_grey(frame: np.ndarray) -> Map:
    """Grey world, and gamma so that the mean luma is half of the range."""
    balanced = grey_world(frame)
    mean = cv2.cvtColor(balanced(frame), cv2.COLOR_RGB2GRAY).mean() / 255
    power = np.clip(np.log(0.5) / np.log(np.clip(mean, 0.02, 0.98)), 0.25, 4.0)
    return lambda picture: to_bytes(255 * (balanced(picture) / 255.0) ** power)


def clahe(picture: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation of L in CIELAB (Zuiderveld 1994), by OpenCV."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(CLAHE_LIMIT, CLAHE_TILES).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def light(colour: np.ndarray) -> Map:
    """Gains in linear light that turn this colour grey without changing its mean."""
    gains = colour.mean() / np.maximum(colour, 1e-4)
    return lambda picture: to_bytes(255 * (light_linear(picture) * gains).clip(0, 1) ** (1 / GAMMA))


def levels(low: np.ndarray, high: np.ndarray) -> Map:
    span = np.maximum(high - low, 0.05 * 255)
    return lambda picture: to_bytes(255 * (picture - low) / span)


def light_linear(picture: np.ndarray) -> np.ndarray:
    return (picture / 255.0) ** GAMMA


def to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


MAPS: dict[str, Callable[[np.ndarray], Map]] = {
    "identity": identity,
    "grey_world": grey_world,
    "shades_of_grey": shades_of_grey,
    "auto_levels": auto_levels,
    "auto_contrast": auto_contrast,
    "mid_grey": mid_grey,
}


def classical(name: str, picture: np.ndarray) -> np.ndarray:
    return clahe(picture) if name == "clahe" else MAPS[name](picture)(picture)


CLASSICAL = (*MAPS, "clahe")


def scores(picture: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PSNR in dB (at most 60: what is identical has none), SSIM, mean CIEDE2000."""
    return {
        "psnr": psnr_of(picture, truth),
        "ssim": float(structural_similarity(picture, truth, channel_axis=2, data_range=255)),
        "de2000": difference(picture, truth),
    }


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean CIEDE2000 of two pictures."""
    return float(deltaE_ciede2000(rgb2lab(a), rgb2lab(b)).mean())
