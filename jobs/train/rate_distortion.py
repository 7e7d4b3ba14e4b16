"""Rate against distortion: bits per pixel beside PSNR and MS-SSIM, and what one codec saves beside another.

A codec is a pair of functions, `encode(picture) -> bytes` and `decode(bytes) -> picture`; a picture is uint8
[H, W, 3] in RGB. Bytes are those of a file, its header included.
"""

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from jobs.train.psnr import psnr_of
from stages.nn import codec as nn_codec

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik, 2003
MS_SSIM_LEAST_PX = 176  # four halvings leave the 11 pixels of the window
# Pillow's, from small files to large ones.
QUALITIES = {
    "jpeg": (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95),
    "webp": (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95),
    "avif": (10, 20, 30, 40, 50, 60, 70, 80, 90),
}
OPTIONS = {"jpeg": {"optimize": True}, "webp": {"method": 6}, "avif": {}}  # those that make files smallest
LOSSLESS_DB = 100.0  # the PSNR of a picture that comes back as it was

Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[bytes], np.ndarray]


@dataclass(frozen=True)
class Codec:
    encode: Encode
    decode: Decode


@dataclass(frozen=True)
class Point:
    """One picture at one setting, or the means of several pictures."""

    bpp: float
    psnr_db: float
    ms_ssim: float  # NaN of a picture with a side below 176 pixels
    encode_ms: float
    decode_ms: float


def measure(picture: np.ndarray, codec: Codec) -> Point:
    start_s = time.perf_counter()
    data = codec.encode(picture)
    middle_s = time.perf_counter()
    decoded = codec.decode(data)
    end_s = time.perf_counter()
    height, width = picture.shape[:2]
    return Point(
        bpp=8 * len(data) / (height * width),
        psnr_db=psnr_of(picture, decoded, LOSSLESS_DB),
        ms_ssim=ms_ssim(planes(picture), planes(decoded)).item()
        if min(height, width) >= MS_SSIM_LEAST_PX
        else math.nan,
        encode_ms=1e3 * (middle_s - start_s),
        decode_ms=1e3 * (end_s - middle_s),
    )


def curve(pictures: Sequence[np.ndarray], settings: Sequence[Codec]) -> list[Point]:
    """For each setting of a codec the means over the pictures."""
    return [mean([measure(picture, codec) for picture in pictures]) for codec in settings]


def mean(points: Sequence[Point]) -> Point:
    """Means over pictures; that of MS-SSIM over those that have one."""
    known = [point.ms_ssim for point in points if not math.isnan(point.ms_ssim)]
    return Point(
        bpp=fmean(point.bpp for point in points),
        psnr_db=fmean(point.psnr_db for point in points),
        ms_ssim=fmean(known) if known else math.nan,
        encode_ms=fmean(point.encode_ms for point in points),
        decode_ms=fmean(point.decode_ms for point in points),
    )


def planes(picture: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in 0..1."""
    return torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale structural similarity [B] of [B, C, H, W] in 0..1: the mean over the channels.

    Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment", 2003.
    Sides are at least 176.
    """
    batch, count = a.shape[:2]
    a, b = a.flatten(0, 1)[:, None], b.flatten(0, 1)[:, None]
    offsets = torch.arange(11, dtype=a.dtype, device=a.device) - 5
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = window / window.sum()
    product = torch.ones(len(a), dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        stack = torch.cat([a, b, a * a, b * b, a * b])
        blurred = F.conv2d(F.conv2d(stack, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
        mean_a, mean_b, aa, bb, ab = blurred.chunk(5)
        var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
        term = (2 * cov + 0.03**2) / (var_a + var_b + 0.03**2)
        if scale == len(MS_SSIM_WEIGHTS) - 1:
            term = term * (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        product = product * term.mean((1, 2, 3)).clamp_min(0) ** weight
        # An odd side is padded with one row of zeros, as is usual.
        odd = [size % 2 for size in a.shape[-2:]]
        a, b = F.avg_pool2d(a, 2, padding=odd), F.avg_pool2d(b, 2, padding=odd)
    return product.view(batch, count).mean(1)


def ours(net: nn_codec.Codec) -> list[Codec]:
    """The network at each of its rates."""
    return [
        Codec(
            encode=lambda picture, rate=rate: nn_codec.compress(net, picture[None], rate)[0],
            decode=lambda code: nn_codec.decompress(net, [code])[0],
        )
        for rate in range(net.rates)
    ]


def pillow(form: str) -> list[Codec]:
    """JPEG, WebP or AVIF at each of QUALITIES."""
    return [Codec(partial(_write, form=form, quality=quality), _read) for quality in QUALITIES[form]]


def _write(picture: np.ndarray, form: str, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form.upper(), quality=quality, **OPTIONS[form])
    return file.getvalue()


def _read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@dataclass(frozen=True)
class Saving:
    """What `ours` needs of bits at equal quality, in percent: negative is fewer."""

    percent: float
    low_db: float  # the span of PSNR that both curves cover
    high_db: float
    share: float  # of the span of ours


def bd_rate(ours: Sequence[Point], theirs: Sequence[Point]) -> Saving | None:
    """Bjøntegaard's delta rate over the PSNR that both cover; None if their spans do not meet.

    Bjøntegaard, VCEG-M33, 2001, with piecewise cubic (PCHIP) interpolation of log(bpp) over PSNR, as in the
    JCT-VC common test conditions.
    """
    curves = [rising(points) for points in (ours, theirs)]
    if any(len(curve) < 2 for curve in curves):
        return None
    low = max(curve[0, 0] for curve in curves)
    high = min(curve[-1, 0] for curve in curves)
    if high <= low:
        return None
    rate, other = (PchipInterpolator(c[:, 0], np.log(c[:, 1])).integrate(low, high) for c in curves)
    span = curves[0][-1, 0] - curves[0][0, 0]
    percent = 100 * (math.exp((rate - other) / (high - low)) - 1)
    return Saving(percent, float(low), float(high), float((high - low) / span))


def rising(points: Sequence[Point]) -> np.ndarray:
    """(PSNR, bpp) [N, 2] with both rising: points that another one beats in both are left out."""
    kept: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: point.bpp):
        if not kept or point.psnr_db > kept[-1][0]:
            kept.append((point.psnr_db, point.bpp))
    return np.array(kept)
