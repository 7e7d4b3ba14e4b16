"""Training of the scorer on composed timelines, tested on classes of action that it never saw.

supervised       is there action (binary cross-entropy), and does what is action stand above what is not
                 within the same video (pairwise logistic loss, Burges et al., "Learning to rank using
                 gradient descent", ICML 2005)
self-supervised  the labels say only when to stop: what is picked shall be diverse and stand for the whole,
                 see jobs/train/unsupervised.py

    reelmap train scorer --data DATA --from BUNDLE --out BUNDLE

Data that ends with .h5 is one of the field's feature files: see jobs/train/vsum.py. With --labels it learns
what a person likes: see jobs/train/feedback.py.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from jobs.train.loop import LoopSettings, Run, TrainingError, main
from jobs.train.metrics import average_precision
from jobs.train.taste import TasteSettings
from jobs.train.timelines import (
    RATE_HZ,
    SPLIT_SEED,
    VIDEO_SUFFIXES,
    Clip,
    Timeline,
    cached,
    compose,
    hold_out,
    library,
    split,
    stills,
)
from jobs.train.unsupervised import unsupervised_loss
from jobs.train.vsum import VsumSettings, train_vsum
from stages.decode import DecodeSettings
from stages.failure import Dropped, Failed
from stages.features import ExtractFeatures, FeatureSettings
from stages.nn.scorer import Kind, ScorerNet, ScorerShape, load, mean_direction
from stages.nn.weights import BundleError, open_bundle
from stages.score import SIGNALS, ScoreSettings, columns, importance, novelty, signals, steady, within_shots

STEPS = (96, 160, 256, 400)  # lengths of timelines, in samples
# What needs no training: a sum of novelty and motion. Training learns what to add to it.
PLAIN = {"novelty": 1.3, "motion": 1.0, "motion_std": 0.8}


class Train(LoopSettings):
    steps: int = 80
    kind: Kind = "lstm"
    features: FeatureSettings = FeatureSettings()
    # `change` is left out: it betrays the seams.
    signals: tuple[str, ...] = tuple(name for name in SIGNALS if name != "change")
    projection: int = Field(8, ge=0)
    hidden: int = 24
    dropout: float = Field(0.5, ge=0, lt=1)
    blind: float = Field(0.0, ge=0, lt=1)
    # How much moves in an action differs between classes: of each piece, motion is scaled at random (standard
    # deviation of the logarithm), and to each signal of a timeline a constant is added.
    gain: float = Field(1.0, ge=0)
    offset: float = Field(0.5, ge=0)
    # With more, the network learns to take what is rare in a video for dull, wherever much moves.
    action_hosts: float = Field(0.1, ge=0, le=1)
    batch: int = 8
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    loss: Literal["supervised", "self-supervised"] = "supervised"
    ranking: float = 1.0  # weight of the pairwise loss
    # Weight of the mean square of what the network adds to the plain sum. In 4-fold cross-validation over
    # whole classes, AP is 0.916 for the plain sum, 0.937 with the correction, 0.930 with half of the
    # restraint; free to replace the sum, the network learns a hundred clips by heart and falls below it.
    restraint: float = Field(0.2, ge=0)
    with_val: bool = Field(False, description="train on the validation part, too: the settings are settled")
    folds: int = Field(0, ge=0, description="of a cross-validation; 0: one fixed split")
    fold: int = Field(0, ge=0, description="which of the folds is held out to test")
    test_timelines: int = 120
    labels: str = Field("", description="OUTPUT with `reelmap label`s: they are learnt, not the timelines")
    feedback: TasteSettings = TasteSettings()
    splits: str = Field("", description="the field's split file, for data that is a feature file")
    vsum: VsumSettings = VsumSettings()


def train(settings: Train, run: Run) -> tuple[dict[str, Tensor], dict]:
    if settings.data.endswith(".h5") != bool(settings.splits):
        raise TrainingError("--splits FILE.json and --data FILE.h5 belong together")
    if settings.splits and settings.labels:
        raise TrainingError("a feature file has no videos to label: give --labels or --splits, not both")
    if settings.splits:
        return train_vsum(settings, run, settings.data, settings.splits)
    if settings.labels:
        from jobs.train import feedback  # is built on this module

        return feedback.train(settings, run)
    try:
        bundle = open_bundle(run.out)
        extract = ExtractFeatures(settings.features, bundle)
        columns(settings.signals)
    except BundleError as error:
        raise TrainingError(f"the scorer needs features to train on ({error}): give --from BUNDLE") from error
    features_key = f"{settings.features.model_dump_json()} {bundle.models.get('features', {}).get('sha256')}"
    clips = parts(settings, library(run, extract, features_key))
    run.log(**{f"{name}_clips": len(part) for name, part in clips.items()})
    val = fixed(settings, clips["val"], 60) if clips["val"] else []
    if settings.with_val:
        clips = {"train": clips["train"] + clips["val"], "val": [], "test": clips["test"]}
    held = []
    if (Path(settings.data) / "photos").exists():
        held = stills(run, extract, DecodeSettings().size)
    net = begin(settings, run, extract.width)
    fit(settings, run, net, [*clips["train"], *held], val)
    quality = measure(net, fixed(settings, clips["test"], settings.test_timelines))
    quality["held_out_classes"] = sorted({clip.group for clip in clips["test"] if clip.action})
    if (Path(settings.data) / "videos").exists():
        quality["spread_on_whole_videos"] = spread(run, net, extract, features_key)
    own = settings.features.weights == "bundle"
    card = {
        "kind": settings.kind,
        "settings": {
            "shape": net.shape.model_dump(mode="json"),
            "rate_hz": RATE_HZ,
            "features": {
                "kind": settings.features.kind,
                "width": extract.width,
                "weights": settings.features.weights,
            },
        },
        "trained": {
            "data": "timelines composed of clips: action by class, dull recordings, photographs held still",
            "licence": "unknown/mixed",
            "loss": settings.loss,
            "clips": {name: len(part) for name, part in clips.items()} | {"photographs": len(held)},
            # So that a benchmark can leave out what the scorer has seen.
            "files": {name: sorted(clip.sha256 for clip in part) for name, part in clips.items()},
        },
        "quality": quality,
        "requires": ["features"] if own else [],
    }
    return net.state_dict(), card


def parts(settings: Train, clips: list[Clip]) -> dict[str, list[Clip]]:
    """train, val and test: the fixed split, or what a fold of the cross-validation holds out as test."""
    rng = np.random.default_rng(SPLIT_SEED)
    if not settings.folds:
        return split(clips, rng)
    if settings.folds == 1:
        raise TrainingError("one fold leaves nothing to train on: 2 or more")
    if settings.fold >= settings.folds:
        raise TrainingError(f"fold {settings.fold} of {settings.folds}: they are numbered from 0")
    return hold_out(clips, settings.folds, settings.fold, rng)


def begin(settings: Train, run: Run, features_width: int) -> ScorerNet:
    """The network before training: that of --from if it is built alike, else the plain sum."""
    shape = ScorerShape(
        features_width=features_width,
        signals=settings.signals,
        projection=settings.projection,
        hidden=settings.hidden,
        dropout=settings.dropout,
        blind=settings.blind,
    )
    net = ScorerNet(settings.kind, shape).to(run.device)
    begin_plain(net)
    if run.start and "scorer" in run.start.models:
        before = load(run.start, run.start.card("scorer")["kind"])
        if run.start.card("scorer")["kind"] == settings.kind and alike(before.shape, shape):
            net.load_state_dict(before.state_dict())
        else:
            run.log(not_from=run.start.uri, why="its scorer is built otherwise")
    return net


def alike(a: ScorerShape, b: ScorerShape) -> bool:
    """Whether the weights of one fit the other and mean the same."""
    return all(
        getattr(a, name) == getattr(b, name) for name in ("features_width", "signals", "projection", "hidden")
    )


@torch.no_grad()
def begin_plain(net: ScorerNet) -> None:
    net.direct.weight.copy_(torch.tensor([[PLAIN.get(name, 0.0) for name in net.shape.signals]]))
    net.direct.bias.zero_()
    net.head.weight.mul_(0.1)
    net.head.bias.zero_()


def fit(settings: Train, run: Run, net: ScorerNet, clips: list[Clip], val: list[tuple[Tensor, ...]]) -> None:
    """Train `net` in place. Unseen classes (val), if any, are watched; they are too few to choose by."""
    # Looks as such are a matter of taste, which feedback teaches, and the plain sum stays what it is.
    still = [*net.look.parameters(), *net.direct.parameters()]
    for parameter in still:
        parameter.requires_grad_(False)
    learnt = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learnt, settings.learning_rate, weight_decay=settings.weight_decay)
    if val:
        run.log(val_map=measure(net, val)["map"])
    for step in run.steps(net=net, optimiser=optimiser):
        net.train()
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - 0.95 * run.progress)
        loss = loss_of(settings, run, net, clips)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        if step % 20 == 19 or run.progress == 1:
            watched = {"val_map": measure(net, val)["map"]} if val else {}
            run.log(step=step + 1, progress=run.progress, loss=float(loss.detach()), **watched)
    for parameter in still:
        parameter.requires_grad_(True)
    net.eval()


def loss_of(settings: Train, run: Run, net: ScorerNet, clips: list[Clip]) -> Tensor:
    """Loss of `net` on one batch of fresh timelines."""
    rng = run.rng()
    length = STEPS[rng.integers(len(STEPS))]
    parts = [
        inputs(compose(clips, length, rng, settings.gain, settings.action_hosts), net.shape.signals)
        for _ in range(settings.batch)
    ]
    features, centre, extra, label = (
        torch.stack(column).to(run.device) for column in zip(*parts, strict=True)
    )
    extra = extra + settings.offset * torch.randn(len(extra), 1, extra.shape[2], device=run.device)
    logits = net(features.float(), centre, extra)
    if settings.loss == "self-supervised":
        return unsupervised_loss(logits, features.float())
    loss = F.binary_cross_entropy_with_logits(logits, label)
    correction = logits - net.direct(extra).squeeze(-1)
    loss = loss + settings.restraint * correction.square().mean()
    return loss + settings.ranking * ranking_loss(logits, label)


def fixed(settings: Train, clips: list[Clip], count: int) -> list[tuple[Tensor, ...]]:
    """Inputs of timelines that are the same every time."""
    found = [compose(clips, STEPS[i % len(STEPS)], np.random.default_rng(i)) for i in range(count)]
    return [inputs(t, settings.signals) for t in found if t.label.any() and not t.label.all()]


def inputs(timeline: Timeline, names: tuple[str, ...] = SIGNALS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the network sees of a timeline: features [T, D], centre [1, D], signals [T, S], label [T]."""
    new = novelty(timeline.features, ScoreSettings().typical_share)
    moved = (timeline.motion, timeline.motion_std)
    extra = signals(timeline.features, *moved, timeline.loudness, new)[:, columns(names)]
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


def measure(net: ScorerNet, timelines: list[tuple[Tensor, ...]]) -> dict[str, Any]:
    """Mean average precision over timelines: the scorer, and what needs no training."""
    net.eval()
    rng = np.random.default_rng(0)
    names = net.shape.signals
    plain = {f"{name}_map": names.index(name) for name in ("motion", "novelty") if name in names}
    scores: dict[str, list[float]] = {name: [] for name in ("map", "random_map", *plain)}
    for features, _, extra, label in timelines:
        truth = label.numpy() > 0.5
        scores["map"].append(average_precision(truth, net.score(features, extra).numpy()))
        scores["random_map"].append(average_precision(truth, rng.random(len(truth))))
        for name, column in plain.items():
            scores[name].append(average_precision(truth, extra[:, column].numpy()))
    return {name: round(float(np.mean(values)), 4) for name, values in scores.items()}


def spread(run: Run, net: ScorerNet, extract: ExtractFeatures, features_key: str) -> dict[str, float]:
    """Of each whole video, how far importance reaches from its 5th to its 95th percentile."""
    reach = {}
    for path in sorted(p for p in run.part("videos").iterdir() if p.suffix.lower() in VIDEO_SUFFIXES):
        try:
            timeline = whole(cached(run, path, extract, features_key))
        except (Failed, Dropped) as error:
            run.log(left_out=path.name, why=error)
            continue
        features, _, extra, _ = inputs(timeline, net.shape.signals)
        logits = net.score(features, extra).numpy()
        low, high = np.percentile(importance(logits, ScoreSettings().contrast), (5, 95))
        reach[path.stem] = round(float(high - low), 3)
    return reach


def whole(arrays: dict[str, np.ndarray]) -> Timeline:
    """A video as it is, of which nothing is known to be action."""
    times_s, shot = arrays["times_s"], arrays["shot"]
    cuts_s = times_s[np.flatnonzero(np.diff(shot, prepend=shot[:1]))]
    return Timeline(
        within_shots(arrays["features"], times_s, cuts_s),
        steady(arrays["motion"], times_s, cuts_s),
        steady(arrays["motion_std"], times_s, cuts_s),
        within_shots(arrays["loudness"], times_s, cuts_s),
        np.zeros(len(times_s), bool),
    )


if __name__ == "__main__":
    main("scorer")
