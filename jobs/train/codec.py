"""Train the codec on photographs and video frames: rate + lambda × distortion, all its rates at once.

Each picture of a batch draws a rate r and is charged  bits per pixel + lambda 2^r 255² MSE  (hyperprior); the
vqvae's rate is fixed by its indices, so only its distortion is trained. Quality is measured on held-out
pictures with real bytes, header included, beside Pillow's JPEG and WebP (jobs/train/rate_distortion.py).
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.train.loop import LoopSettings, Run, main
from jobs.train.photos import crops, photos, split
from jobs.train.rate_distortion import bd_rate, curve, ours, pillow
from jobs.train.timelines import VIDEO_SUFFIXES
from stages.container import LIBAV_ERRORS, open_source
from stages.failure import Dropped, Failed
from stages.nn.codec import Codec, build_codec, restore, storable
from stages.nn.transforms import PATCH, Bottleneck
from stages.nn.weights import Bundle

Frames = list[np.ndarray]
VARIANCE = 0.06  # of photographs, in 0..1
FULL_PRECISION_FROM = 0.92  # share of the steps after which no more bf16


class Train(LoopSettings):
    divisible: ClassVar[bool] = True
    steps: int = 20_000
    kind: Literal["hyperprior", "vqvae"] = "hyperprior"
    # Folders below the data folder, separated by commas; every 8th photo of the first is held out. Without
    # videos: videos=''.
    photos: str = "photos"
    videos: str | None = "videos,action"
    frames_per_video: int = 24
    photo_share: float = 0.6  # of a batch: photographs, however many there are of each
    unscaled: float = 0.5  # share of the crops that keep the picture's own pixels
    batch: int = 6
    crop_px: int = 192
    learning_rate: float = 1e-3
    rate_lambda: float = 7e-4  # of rate 0; each further rate doubles it
    bf16: bool = True  # but for the last part; slower than float32 on a CPU that has no instructions for it
    measure_px: int = 256  # of held-out video frames, which are squashed as a proxy is


def train(settings: Train, run: Run) -> tuple[dict[str, Tensor], dict[str, Any]]:
    still, moving, held_out = pictures(settings, run)
    net = build_codec(settings.kind, {}).to(run.device, memory_format=torch.channels_last)
    if run.start and same_shape(net, run.start):
        restore(net, run.start.state("codec"))
    else:
        first = next(crops(still, settings.crop_px, 64, np.random.default_rng(settings.seed)))
        start_linear(net, first.to(run.device).float() / 255)
    optimiser = torch.optim.Adam(net.parameters(), settings.learning_rate)
    batch, called = run.share(settings.batch), run.prepare(net)
    net.train()
    for step in run.steps(net=net, optimiser=optimiser):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, run.progress)
        half = settings.bf16 and run.progress < FULL_PRECISION_FROM
        x = sample(still, moving, batch, settings, run.rng())
        x = x.to(run.device, memory_format=torch.channels_last).float() / 255
        loss, parts = loss_of(net, called, x, settings, half)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0:
            run.log(step=step, loss=loss.item(), **parts)
    net.freeze()
    state = storable(net)
    # Measure what is shipped, in half precision, and not what was trained.
    shipped = build_codec(settings.kind, {})
    restore(shipped, state)
    shipped = shipped.eval().to(run.device)
    quality = {name: quality_of(shipped, frames) for name, frames in held_out.items()}
    run.log(quality=quality)
    card = {
        "kind": settings.kind,
        "settings": net.settings.model_dump(mode="json"),
        "trained": {
            "pictures": {"photos": len(still), "video frames": len(moving)},
            "held_out": "every eighth photograph of the first folder, every eighth video",
            **chosen(settings),
        },
        "quality": quality,
    }
    return state, card


def same_shape(net: Codec, bundle: Bundle) -> bool:
    card = bundle.models.get("codec")
    shape = (net.kind, net.settings.model_dump(mode="json"))
    return card is not None and (card["kind"], card["settings"]) == shape


@torch.no_grad()
def start_linear(net: Codec, x: Tensor) -> None:
    """Start as the Karhunen-Loève transform of x [B, 3, S, S] and its inverse; blocks start as identities.

    After 250 steps, held-out photos are at 26.1 dB and 0.42 bpp; from random weights at 22.1 dB and 0.37 bpp.
    """
    for part in net.modules():
        if isinstance(part, Bottleneck):
            nn.init.zeros_(part.body[-1].weight)
            nn.init.zeros_(part.body[-1].bias)
    forth = [part for part in net.analysis if isinstance(part, nn.Conv2d)]
    back = [part for part in net.synthesis if isinstance(part, nn.Conv2d)]
    y = F.pixel_unshuffle(x - 0.5, PATCH)
    for conv, inverse in zip(forth, reversed(back), strict=True):
        stride = conv.stride[0]
        y = F.pixel_unshuffle(y, stride)
        flat = y.permute(0, 2, 3, 1).flatten(0, 2)
        vectors = torch.linalg.eigh(flat.T @ flat / len(flat)).eigenvectors
        vectors = vectors.flip(1)[:, : conv.out_channels].T
        for part in (conv, inverse):
            part.weight.mul_(0.1)
            part.bias.zero_()
        count, length = vectors.shape
        # Outputs of a strided 3×3 convolution with padding 1 begin at its middle tap.
        tap, back_tap = conv.kernel_size[0] // 2, inverse.kernel_size[0] // 2
        taps = vectors.view(count, length // stride**2, stride, stride)
        conv.weight[:count, :, tap : tap + stride, tap : tap + stride] = taps
        inverse.weight[:, :count, back_tap, back_tap] = vectors.T
        y = torch.einsum("oc,bchw->bohw", vectors, y)
    if net.kind == "vqvae":
        net.start_codebooks(x)


def schedule(step: int, progress: float) -> float:
    """Warm up for 200 steps, then half a cosine over the training."""
    return min(1.0, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def chosen(settings: Train) -> dict[str, Any]:
    names = ("batch", "crop_px", "learning_rate", "rate_lambda")
    return {name: getattr(settings, name) for name in names}


def loss_of(
    net: Codec, called: nn.Module, x: Tensor, settings: Train, half: bool
) -> tuple[Tensor, dict[str, float]]:
    """Mean of bpp + lambda × distortion over x [B, 3, S, S] in 0..1, a rate drawn for each picture."""
    rate = torch.randint(net.rates, (len(x),), device=x.device)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        x_hat, bits, auxiliary = called(x, rate)
    mse = (x_hat.float() - x).square().mean((1, 2, 3))
    bpp = bits / (x.shape[-1] * x.shape[-2])
    if net.kind == "hyperprior":
        # The best loss grows about with the square root of lambda: so each rate counts as much as the others.
        weight, share = settings.rate_lambda * 2.0**rate, 2.0 ** (-0.5 * rate)
    else:
        # Beside the commitment the error counts as a share of the variance, as in the paper.
        weight, share = 1 / (VARIANCE * 255**2), 1.0
    loss = (share * (bpp + weight * 255**2 * mse)).mean() + auxiliary
    psnr = -10 * math.log10(mse.mean().item())
    return loss, {"bpp": bpp.mean().item(), "psnr_db": psnr, "auxiliary": auxiliary.item()}


def sample(still: Frames, moving: Frames, batch: int, settings: Train, rng: np.random.Generator) -> Tensor:
    """uint8 [batch, 3, S, S] of photographs and of frames of videos."""
    photographs = int(rng.binomial(batch, settings.photo_share)) if moving else batch
    parts = [
        next(crops(part, settings.crop_px, count, rng, unscaled=settings.unscaled))
        for part, count in ((still, photographs), (moving, batch - photographs))
        if count
    ]
    return torch.cat(parts)


def pictures(settings: Train, run: Run) -> tuple[Frames, Frames, dict[str, Frames]]:
    """Photographs and video frames to train on, and held-out ones: photographs whole, frames as proxies.

    Of videos, whole files are held out: frames of one file are too much alike.
    """
    still: Frames = []
    moving: Frames = []
    held_out: dict[str, Frames] = defaultdict(list)
    for i, name in enumerate(filter(None, settings.photos.split(","))):
        found = photos(str(run.part(name)))
        if i == 0:
            found, held_out["photos"] = split(found)
        still += found
    files = [
        path
        for name in filter(None, (settings.videos or "").split(","))
        for path in sorted(run.part(name).rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]
    for i, path in enumerate(files):
        frames = list(video_frames(path, settings.frames_per_video))
        if i % 8 == 7:
            held_out["videos"] += frames[:: max(1, len(frames) // 2)][:2]
        else:
            moving += frames
    size = (settings.measure_px, settings.measure_px)
    held_out["videos"] = [cv2.resize(item, size, interpolation=cv2.INTER_AREA) for item in held_out["videos"]]
    held_out = {name: items for name, items in held_out.items() if items}
    run.log(photos=len(still), video_frames=len(moving), held_out={k: len(v) for k, v in held_out.items()})
    return still, moving, held_out


def video_frames(path: Path, count: int, height_px: int = 288) -> Iterator[np.ndarray]:
    """About `count` frames of a video, evenly spaced, uint8 [288, W, 3]; none of an unreadable file."""
    try:
        with open_source(str(path)) as source:
            stream = source.video
            stream.thread_type = "NONE"
            length_s = float((source.container.duration or 0) / 1e6)
            if length_s > 60:
                stream.codec_context.skip_frame = "NONKEY"
            due_s, gap_s = 0.0, length_s / count
            for frame in source.container.decode(stream):
                if frame.pts is None or source.seconds(frame) < due_s:
                    continue
                due_s = source.seconds(frame) + gap_s
                width_px = max(height_px, round(height_px * frame.width / frame.height))
                yield frame.reformat(width_px, height_px, format="rgb24", interpolation="AREA").to_ndarray()
    except (*LIBAV_ERRORS, Failed, Dropped):
        return


def quality_of(net: Codec, frames: Frames) -> dict[str, Any]:
    """Rate, distortion and cost of every rate, and what JPEG and WebP need at equal PSNR."""
    points = curve(frames, ours(net))
    savings = {form: bd_rate(points, curve(frames, pillow(form))) for form in ("jpeg", "webp")}
    return {
        "pictures": len(frames),
        "rates": [
            {
                "rate": rate,
                "bpp": round(point.bpp, 4),
                "psnr_db": round(point.psnr_db, 2),
                # JSON knows no NaN.
                "ms_ssim": None if math.isnan(point.ms_ssim) else round(point.ms_ssim, 4),
                "encode_ms": round(point.encode_ms, 1),
                "decode_ms": round(point.decode_ms, 1),
            }
            for rate, point in enumerate(points)
        ],
        "bd_rate": {form: saving and round(saving.percent, 1) for form, saving in savings.items()},
    }


if __name__ == "__main__":
    main("codec")
