"""Training of the scorer on composed timelines, tested on classes of action that it never saw.

Loss: is there action (binary cross-entropy), and does what is action stand above what is not within the same
video (pairwise logistic loss, https://www.microsoft.com/en-us/research/publication/learning-to-rank-using-gradient-descent/).

    python -m jobs.train.scorer --data DATA --out BUNDLE --set minutes=5
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jobs.train.loop import LoopSettings, Run, TrainingError, main
from jobs.train.timelines import RATE_HZ, SUFFIXES, Timeline, cached, compose, library, split
from stages.failure import Dropped, Failed
from stages.features import ExtractFeatures, FeatureSettings
from stages.nn.scorer import Kind, ScorerNet, ScorerShape, mean_direction
from stages.nn.weights import BundleError, open_bundle
from stages.score import SIGNALS, ScoreSettings, importance, novelty, signals

STEPS = (96, 160, 256, 400)  # lengths of timelines, in samples


class Train(LoopSettings):
    minutes: float = 5.0
    # After 1,400 steps it knows a hundred clips by heart and scores classes that it never saw no better than
    # motion alone does. More clips bear more steps.
    max_steps: int = 200
    kind: Kind = "lstm"
    features: FeatureSettings = FeatureSettings()
    # Mean AP of 3 splits of 107 clips: 0.80 with projection 16 and blind 0.5, 0.88 so, 0.84 without features.
    projection: int = 4
    hidden: int = 24
    dropout: float = Field(0.5, ge=0, lt=1)
    blind: float = Field(0.9, ge=0, lt=1)
    batch: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    ranking: float = 1.0  # weight of the pairwise loss
    test_timelines: int = 120


def train(settings: Train, run: Run) -> tuple[dict[str, Tensor], dict]:
    try:
        bundle = open_bundle(run.out)
        extract = ExtractFeatures(settings.features, bundle)
    except BundleError as error:
        raise TrainingError(f"the scorer needs features to train on ({error}): give --from BUNDLE") from error
    features_key = f"{settings.features.model_dump_json()} {bundle.models.get('features', {}).get('sha256')}"
    rng = np.random.default_rng(settings.seed)
    clips = split(library(run, extract, features_key), rng)
    run.log(**{f"{name}_clips": len(part) for name, part in clips.items()})
    shape = ScorerShape(
        features_width=extract.width,
        signals=SIGNALS,
        projection=settings.projection,
        hidden=settings.hidden,
        dropout=settings.dropout,
        blind=settings.blind,
    )
    net = ScorerNet(settings.kind, shape).to(run.device)
    begin_plain(net)
    start = run.start.models.get("scorer") if run.start else None
    if start and start["kind"] == settings.kind and start["settings"]["shape"] == shape.model_dump():
        net.load_state_dict(run.start.state("scorer"))
    fixed = {
        name: [
            inputs(compose(clips[name], STEPS[i % len(STEPS)], np.random.default_rng(i)))
            for i in range(count)
        ]
        for name, count in (("val", 60), ("test", settings.test_timelines))
    }
    fit(settings, run, net, clips["train"], fixed["val"], rng)
    test_classes = sorted({clip.group for clip in clips["test"] if clip.action})
    quality = measure(net, fixed["test"]) | {"held_out_classes": test_classes}
    if (Path(settings.data) / "videos").exists():
        quality["spread_on_whole_videos"] = spread(run, net, extract, features_key)
    own = settings.features.weights == "bundle"
    card = {
        "kind": settings.kind,
        "settings": {
            "shape": shape.model_dump(),
            "rate_hz": RATE_HZ,
            "features": {
                "kind": settings.features.kind,
                "width": extract.width,
                "weights": settings.features.weights,
            },
        },
        "trained": {
            "data": "timelines composed of clips: action by class, and dull recordings",
            "licence": "unknown/mixed",
            "clips": {name: len(part) for name, part in clips.items()},
        },
        "quality": quality,
        "requires": ["features"] if own else [],
    }
    return net.state_dict(), card


@torch.no_grad()
def begin_plain(net: ScorerNet) -> None:
    """Begin as what needs no training, a sum of motion and novelty; training learns the corrections."""
    # Motion as such and against the video, loudness, audio or not, novelty, change: see stages.score.signals.
    net.direct.weight.copy_(torch.tensor([[0.3, 0.5, 0.1, 0.0, 1.5, 0.0]]))
    net.direct.bias.zero_()
    net.head.weight.mul_(0.1)
    net.head.bias.zero_()


def fit(settings: Train, run: Run, net: ScorerNet, clips: list, val: list, rng: np.random.Generator) -> None:
    """Train `net` in place; what it ends with are the weights that were best on unseen classes (val)."""
    optimiser = torch.optim.AdamW(
        net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    best_net, best = copy.deepcopy(net), -1.0
    for step in run.steps(net=net, optimiser=optimiser, best=best_net):
        net.train()
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - 0.95 * run.progress)
        length = STEPS[rng.integers(len(STEPS))]
        parts = [inputs(compose(clips, length, rng)) for _ in range(settings.batch)]
        features, centre, extra, label = (
            torch.stack(column).to(run.device) for column in zip(*parts, strict=True)
        )
        logits = net(features.float(), centre, extra)
        loss = F.binary_cross_entropy_with_logits(logits, label)
        loss = loss + settings.ranking * ranking_loss(logits, label)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 99:
            quality = measure(net, val)["map"]
            run.log(step=step + 1, progress=run.progress, loss=float(loss.detach()), val_map=quality)
            if quality > best:
                best = quality
                best_net.load_state_dict(net.state_dict())
    net.load_state_dict(best_net.state_dict())
    net.eval()


def inputs(timeline: Timeline) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the network sees of a timeline: features [T, D], centre [1, D], signals [T, S], label [T]."""
    new = novelty(timeline.features, ScoreSettings().typical_share)
    extra = signals(timeline.features, timeline.motion, timeline.loudness, new)
    features = torch.from_numpy(timeline.features)
    label = torch.from_numpy(timeline.label.astype(np.float32))
    return features, mean_direction(features)[None], torch.from_numpy(extra), label


def ranking_loss(logits_BT: Tensor, label_BT: Tensor, pairs: int = 256) -> Tensor:
    """Mean of log(1 + exp(dull - action)) over random pairs within each timeline."""
    losses = []
    for logits, label in zip(logits_BT, label_BT, strict=True):
        action, dull = logits[label > 0.5], logits[label < 0.5]
        if len(action) and len(dull):
            a = action[torch.randint(len(action), (pairs,), device=logits.device)]
            d = dull[torch.randint(len(dull), (pairs,), device=logits.device)]
            losses.append(F.softplus(d - a).mean())
    return torch.stack(losses).mean() if losses else logits_BT.sum() * 0


def average_precision(label: np.ndarray, score: np.ndarray) -> float:
    """Area under precision over recall, as a sum over the true samples in falling order of score."""
    order = np.argsort(-score, kind="stable")
    hit = label[order]
    return float((np.cumsum(hit) / np.arange(1, len(hit) + 1))[hit].mean())


def measure(net: ScorerNet, timelines: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> dict[str, Any]:
    """Mean average precision over timelines: the scorer, and what needs no training."""
    net.eval()
    rng = np.random.default_rng(0)
    scores: dict[str, list[float]] = {"map": [], "random_map": [], "motion_map": [], "novelty_map": []}
    for features, _, extra, label in timelines:
        truth = label.numpy() > 0.5
        if not truth.any() or truth.all():
            continue
        scores["map"].append(average_precision(truth, net.score(features, extra).numpy()))
        scores["random_map"].append(average_precision(truth, rng.random(len(truth))))
        scores["motion_map"].append(average_precision(truth, extra[:, 0].numpy()))
        scores["novelty_map"].append(average_precision(truth, extra[:, 4].numpy()))
    return {name: round(float(np.mean(values)), 4) for name, values in scores.items()}


def spread(run: Run, net: ScorerNet, extract: ExtractFeatures, features_key: str) -> dict[str, float]:
    """Of each whole video, how far importance reaches from its 5th to its 95th percentile."""
    reach = {}
    for path in sorted(p for p in run.part("videos").iterdir() if p.suffix.lower() in SUFFIXES):
        try:
            arrays = cached(run, path, extract, features_key)
        except (Failed, Dropped) as error:
            run.log(left_out=path.name, why=error)
            continue
        new = novelty(arrays["features"], ScoreSettings().typical_share)
        extra = signals(arrays["features"], arrays["motion"], arrays["loudness"], new)
        logits = net.score(torch.from_numpy(arrays["features"]), torch.from_numpy(extra)).numpy()
        low, high = np.percentile(importance(logits, ScoreSettings().contrast), (5, 95))
        reach[path.stem] = round(float(high - low), 3)
    return reach


if __name__ == "__main__":
    main("scorer")
