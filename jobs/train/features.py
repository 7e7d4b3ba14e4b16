"""Pre-training of the compact features on labelled photographs, with the damage that videos do to them.

Classification of 64 x 64 photographs (Tiny ImageNet: parquet with `image` bytes and `label`): first with
CutMix (https://arxiv.org/abs/1905.04899), then, at a larger size, each photograph as it is and damaged, side
by side, and the damaged one's vector is drawn to that of the other. What is kept is the trunk. Measured on
the labels and, without further training, on videos: does the nearest other video show the same action
(beside colour histograms and the untrained network)?

    python -m jobs.train.features --data DATA --out BUNDLE --set steps=1200
"""

import math
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from jobs.train.loop import LoopSettings, Run, TrainingError, main
from jobs.train.timelines import VIDEO_SUFFIXES, decode_file
from stages.failure import Dropped, Failed
from stages.nn.cnn import FeatureNet, compact

IMAGE_SIZE = 64
INPUT_SIZES = (64, 96, 128, 160)  # that quality is measured at
FRAMES_PER_CLIP = 8


class Train(LoopSettings):
    divisible: ClassVar[bool] = True
    steps: int = 1200
    # ResNet-18 up to layer3: three quarters of its work, a quarter of its weights. From scratch it learns in
    # fewer steps than networks made for phones (2.4 % top-1 after 130, RegNetY-400MF 0.7 % after 160).
    arch: str = "resnet18"
    without: tuple[str, ...] = ("layer4",)
    width: int = 256
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    train_size: int = 64
    input_size: int = 128  # of the pictures that inference shows it
    cutmix: float = 0.5  # share of the batches in the first part
    late_size: int = 96  # for the last part of the training
    late_from: float = 0.65
    consistency: float = 2.0  # weight of the angle between the vectors of a photograph, damaged and not


def train(settings: Train, run: Run) -> tuple[dict[str, Tensor], dict]:
    images, labels = photographs(run, "train")
    classes = int(labels.max()) + 1
    net = compact(settings.arch, settings.without, settings.width, settings.train_size).to(run.device)
    if run.start and "features" in run.start.models:
        before = run.start.card("features")
        if (before["settings"]["arch"], tuple(before["settings"]["without"])) != (
            settings.arch,
            settings.without,
        ):
            raise TrainingError(f"{run.start.uri} holds features of another build ({before['settings']})")
        net.trunk.load_state_dict(run.start.state("features"))
    net = net.to(memory_format=torch.channels_last)
    head = nn.Linear(settings.width, classes).to(run.device)
    model = nn.ModuleList([net, head])
    optimiser = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    mix = v2.CutMix(num_classes=classes)
    run.share(settings.batch)
    trunk_called, head_called = run.prepare(net.trunk), run.prepare(head)
    losses: list[float] = []
    for step in run.steps(model=model, optimiser=optimiser):
        index = batch_of(step, len(labels), settings.batch, settings.seed)[run.rank :: run.world]
        net.train()
        late = run.progress > settings.late_from
        net.input_size = settings.late_size if late else settings.train_size
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * one_cycle(run.progress)
        target = labels[index].to(run.device)
        clean = view(images[index].to(run.device).float() / 255, net.input_size)
        damaged = damage(clean)
        if late:
            x, target = torch.cat([clean, damaged]), target.repeat(2)
        else:
            # A short training learns little from damaged pictures alone.
            x = torch.where(torch.rand(len(clean), 1, 1, 1, device=run.device) < 0.5, clean, damaged)
            if torch.rand(()) < settings.cutmix:
                x, target = mix(x, target)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(run.device.type, torch.bfloat16):
            v_ND = trunk_called((x - net.mean) / net.std)
            logits = head_called(v_ND)
        loss = F.cross_entropy(logits.float(), target, label_smoothing=settings.label_smoothing)
        if late:
            v_clean, v_damaged = v_ND.float().chunk(2)
            apart = 1 - F.cosine_similarity(v_damaged, v_clean.detach()).mean()
            loss = loss + settings.consistency * apart
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if step % 200 == 199:
            run.log(step=step + 1, progress=run.progress, loss=sum(losses) / len(losses))
            losses.clear()
    untrained = compact(settings.arch, settings.without, settings.width, settings.train_size).to(run.device)
    net.input_size = settings.input_size
    quality = measure(run, net.eval(), head, untrained)
    card = {
        "kind": "compact",
        "settings": {
            "arch": settings.arch,
            "without": list(settings.without),
            "width": settings.width,
            "input_size": net.input_size,
        },
        "trained": {
            "data": f"Tiny ImageNet: {len(labels)} photographs, {classes} classes, 64 x 64",
            "licence": "unknown/mixed",
        },
        "quality": quality,
    }
    # Half floats: the bundle travels with the package.
    return {k: v.half() if v.is_floating_point() else v for k, v in net.trunk.state_dict().items()}, card


def batch_of(step: int, count: int, batch: int, seed: int) -> Tensor:
    """Indices of the photographs of a step: every epoch deals them out in an order of its own."""
    epoch, place = divmod(step, max(1, count // batch))
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return torch.from_numpy(order[place * batch : (place + 1) * batch])


def one_cycle(progress: float, warm: float = 0.05) -> float:
    """Linear warm-up, then a cosine to 0: https://arxiv.org/abs/1708.07120 without the momentum part."""
    if progress < warm:
        return (progress + 0.001) / (warm + 0.001)
    return 0.5 * (1 + math.cos(math.pi * (progress - warm) / (1 - warm)))


def photographs(run: Run, split: str) -> tuple[Tensor, Tensor]:
    """All images uint8 [N, 3, 64, 64] and labels int64 [N] of a split, in memory (245 MB for 20,000)."""
    table = pq.read_table(run.part("tiny_imagenet") / f"{split}.parquet", columns=["image", "label"])
    images = torch.empty(len(table), 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    for i, data in enumerate(table["image"].to_pylist()):
        data = data["bytes"] if isinstance(data, dict) else data
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if picture is None or picture.shape != (IMAGE_SIZE, IMAGE_SIZE, 3):
            raise TrainingError(
                f"picture {i} of {split}.parquet is not one of {IMAGE_SIZE} x {IMAGE_SIZE} pixels"
            )
        images[i] = torch.from_numpy(picture).permute(2, 0, 1)
    return images, torch.tensor(table["label"].to_pylist())


def view(x_BCHW: Tensor, size: int) -> Tensor:
    """A crop of each picture, float [B, 3, H, W] in 0..1, at `size` x `size`; half of them mirrored.

    Crops show 40 to 100 %; the squash is that of 4:3 to 16:9 and their upright twins.
    """
    B, device = len(x_BCHW), x_BCHW.device
    area = uniform(B, 0.4, 1.0, device).flatten().sqrt()
    aspect = uniform(B, -0.28, 0.28, device).flatten().exp()
    wide, high = (area * aspect).clamp(max=1), (area / aspect).clamp(max=1)
    flip = torch.where(torch.rand(B, device=device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(B, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = wide * flip, high
    theta[:, 0, 2] = (1 - wide) * (torch.rand(B, device=device) * 2 - 1)
    theta[:, 1, 2] = (1 - high) * (torch.rand(B, device=device) * 2 - 1)
    grid = F.affine_grid(theta, [B, 3, size, size], align_corners=False)
    return F.grid_sample(x_BCHW, grid, padding_mode="reflection", align_corners=False)


def damage(clean_BCSS: Tensor) -> Tensor:
    """What a camera, an editor and a codec do to a picture: exposure, tint, blur, noise, JPEG.

    in  float [B, 3, S, S] in 0..1, out the same
    """
    B, device, size = len(clean_BCSS), clean_BCSS.device, clean_BCSS.shape[-1]

    def between(low: float, high: float) -> Tensor:
        return uniform(B, low, high, device)

    grey = clean_BCSS.mean(1, keepdim=True)
    x = grey + (clean_BCSS - grey) * between(0.2, 1.5)  # saturation
    x = x * between(-0.9, 0.5).exp()  # exposure
    x = x * (torch.rand(B, 3, 1, 1, device=device) * 0.3 + 0.85)  # white balance
    middle = x.mean((1, 2, 3), keepdim=True)
    x = (middle + (x - middle) * between(0.6, 1.3)).clamp(0, 1)  # contrast
    x = (x + 1e-4) ** between(-0.35, 0.35).exp()  # gamma
    small = round(size * float(torch.rand(()) * 0.5 + 0.4))
    soft = F.interpolate(x, (small, small), mode="bilinear", antialias=True)
    soft = F.interpolate(soft, (size, size), mode="bilinear")
    x = torch.where(between(0, 1) < 0.3, soft, x)
    x = (x + torch.randn_like(x) * (between(0, 1) < 0.5) * between(0.0, 0.12)).clamp(0, 1)
    for i in range(0, B, 4):
        x[i] = jpeg(x[i], quality=int(torch.randint(8, 70, (1,))))
    return x


def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """Random numbers [count, 1, 1, 1]."""
    return torch.rand(count, 1, 1, 1, device=device) * (high - low) + low


def jpeg(x_CHW: Tensor, quality: int) -> Tensor:
    picture = (x_CHW.permute(1, 2, 0) * 255).byte().cpu().numpy()
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))
    return back.permute(2, 0, 1).to(x_CHW.device).float() / 255


def measure(run: Run, net: FeatureNet, head: nn.Linear, untrained: FeatureNet) -> dict[str, Any]:
    """Quality beside the baselines."""
    size = net.input_size
    images, labels = photographs(run, "val")
    clips = action_clips(run)
    groups = [group for group, _ in clips]
    frames = torch.from_numpy(np.concatenate([pictures for _, pictures in clips]))
    found = {size: retrieval(vectors(net, frames, size), groups) for size in INPUT_SIZES}
    quality = {
        "val_top1": {str(s): round(top1(net, head, images, labels, s), 4) for s in INPUT_SIZES[:2]},
        "same_action": retrieval(vectors(net, frames, size), groups),
        "same_action_by_input_size": {str(s): value["map"] for s, value in found.items()},
        "same_action_colour_histogram": retrieval(histograms(frames), groups),
        "same_action_untrained": retrieval(vectors(untrained.eval(), frames, size), groups),
    }
    net.input_size = size
    return quality


@torch.inference_mode()
def top1(net: FeatureNet, head: nn.Linear, images: Tensor, labels: Tensor, size: int) -> float:
    """Share of photographs whose class is guessed first, seen at `size`."""
    net.input_size = size
    right = 0
    for start in range(0, len(labels), 100):
        x = images[start : start + 100].permute(0, 2, 3, 1).to(net.mean.device)
        right += int((head(net(x)).argmax(1).cpu() == labels[start : start + 100]).sum())
    return right / len(labels)


def action_clips(run: Run) -> list[tuple[str, np.ndarray]]:
    """Class and FRAMES_PER_CLIP pictures uint8 [8, 256, 256, 3] of every video of the action classes."""
    clips = []
    for path in sorted(p for p in run.part("action").rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES):
        try:
            frames = np.concatenate([row["frames"] for row in decode_file(path)])
        except (Failed, Dropped) as error:
            run.log(left_out=path.name, why=error)
            continue
        if len(frames):
            clips.append(
                (path.parent.name, frames[np.linspace(0, len(frames) - 1, FRAMES_PER_CLIP).astype(int)])
            )
    return clips


@torch.inference_mode()
def vectors(net: FeatureNet, frames: Tensor, size: int) -> Tensor:
    net.input_size = size
    parts = [net(frames[i : i + 32].to(net.mean.device)).float().cpu() for i in range(0, len(frames), 32)]
    return torch.cat(parts)


def histograms(frames: Tensor) -> Tensor:
    """Square roots of joint RGB histograms, 8 bins a channel; products are Bhattacharyya coefficients."""
    bins_NP = (frames // 32).long().flatten(1, 2) @ torch.tensor([64, 8, 1])
    return torch.stack([torch.bincount(bins, minlength=512).float() for bins in bins_NP]).sqrt()


def retrieval(vectors_ND: Tensor, groups: list[str]) -> dict[str, float]:
    """Leave one video out: how well do the other videos of its class rank by cosine, every class alike?

    map   mean average precision;  nearest  share of videos whose nearest other video is of the same class
    """
    clips_KD = F.normalize(vectors_ND, dim=1).unflatten(0, (len(groups), -1)).mean(1)
    like_KK = F.normalize(clips_KD, dim=1) @ F.normalize(clips_KD, dim=1).T
    same_KK = torch.tensor([[a == b for b in groups] for a in groups])
    by_class: dict[str, list[tuple[float, float]]] = {}
    for k, group in enumerate(groups):
        others = torch.arange(len(groups)) != k
        hit = same_KK[k][others][like_KK[k][others].argsort(descending=True)]
        if hit.any():
            precision = hit.cumsum(0) / torch.arange(1, len(hit) + 1)
            by_class.setdefault(group, []).append((float(precision[hit].mean()), float(hit[0])))
    means = np.array([np.mean(values, axis=0) for values in by_class.values()]).mean(0)
    return {"map": round(float(means[0]), 4), "nearest": round(float(means[1]), 4)}


if __name__ == "__main__":
    main("features")
