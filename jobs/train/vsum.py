"""Training and cross-validation of the scorer on the field's feature files (TVSum, SumMe): see vsum_data.

Every split trains a network of its own on its training keys, less a part that validates; its test keys are
looked at once, at the end. Beside them one more network is trained in the same way on all videos, less a part
that validates: it is what the bundle gets, and the splits measure what its making is worth. (The best
split's network would be chosen by its test videos, and have learnt from fewer.) All networks take their
steps side by side, so that one checkpoint holds them all. Which step's weights are kept is decided by τ_b
on the validating videos against the mean score of people.

Loss: binary cross-entropy towards the mean score over the video's own range, and a pairwise logistic loss
on steps of one video, each pair weighted by how far apart people put it
(https://www.microsoft.com/en-us/research/publication/learning-to-rank-using-gradient-descent/).

The files' features come from Caffe's GoogLeNet; on new videos `googlenet` is torchvision's, of the same
architecture, data and width, but with weights of its own training.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.train.metrics import kendall_tau_b
from jobs.train.run import Run, TrainingError
from jobs.train.vsum_data import Split, Video, dataset, known, load
from jobs.train.vsum_measure import OverUsers, cross_validate
from stages.nn.cnn import WIDTHS
from stages.nn.scorer import Kind, ScorerNet, ScorerShape, mean_direction
from stages.score import ScoreSettings, columns, novelty, signals, within_shots
from stages.settings import Settings

# What can be known from features alone: the files hold no pictures and no sound.
SIGNALS = ("novelty", "change")
BACKBONE = "googlenet"
RATE_HZ = 2.0  # of the files' samples


class VsumSettings(Settings):
    """What differs from the training on composed timelines."""

    annotations: str = Field("", description="ydata-tvsum50.mat: people's scores, for files of TVSum without")
    over_users: Literal["auto", "max", "mean"] = Field(
        "auto", description="F1 against the best person (SumMe) or their mean (TVSum); auto: by the names"
    )
    projection: int = 16
    hidden: int = 32
    dropout: float = Field(0.5, ge=0, lt=1)
    blind: float = Field(0.0, ge=0, lt=1)
    batch: int = Field(8, ge=1)
    crop: int = Field(320, ge=2, description="steps of a video that a batch holds")
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    # Validation τ_b after 180 steps at a rate of 1e-3, on features made up around TVSum's real scores:
    # 0.668 with both losses, 0.662 without regression, 0.652 without ranking.
    regression: float = Field(1.0, ge=0)
    ranking: float = Field(1.0, ge=0)
    validate_share: float = Field(0.2, gt=0, lt=1, description="of the training videos of each split")
    validate_every: int = Field(20, ge=1)
    random_draws: int = Field(20, ge=1)


class Asked(Protocol):
    """What is read of the scorer's training settings."""

    @property
    def kind(self) -> Kind: ...
    @property
    def seed(self) -> int: ...
    @property
    def vsum(self) -> VsumSettings: ...


class Inputs:
    """What the network sees of a video: features [T, D], centre [1, D], signals [T, S], and target [T].

    As in stages.score, with the file's segments for shots.
    """

    def __init__(self, video: Video):
        times_s = np.arange(len(video.picks)) / RATE_HZ
        cuts_s = np.interp(video.segments[1:, 0], video.picks, times_s)
        judged = within_shots(video.features, times_s, cuts_s)
        still, no_sound = np.zeros(len(judged), np.float32), np.empty(0, np.float32)
        new = novelty(judged, ScoreSettings().typical_share)
        seen = signals(judged, still, still, no_sound, new)[:, columns(SIGNALS)]
        self.features, self.signals = torch.from_numpy(judged), torch.from_numpy(seen)
        self.centre, self.target = mean_direction(self.features)[None], torch.from_numpy(video.target)


@dataclass(frozen=True)
class Fold:
    """Keys of the videos that one network learns from, and of those that say when it was best."""

    train: tuple[str, ...]
    validate: tuple[str, ...]


class Folds(nn.Module):
    """One network a fold, the best so far of each, and how good that was: what a checkpoint holds."""

    def __init__(self, kind: Kind, shape: ScorerShape, count: int):
        super().__init__()
        self.nets = nn.ModuleList(ScorerNet(kind, shape) for _ in range(count))
        self.best = copy.deepcopy(self.nets)
        self.register_buffer("tau", torch.full((count,), -torch.inf))
        self.register_buffer("best_step", torch.zeros(count, dtype=torch.long))

    def keep(self, fold: int, tau: float, step: int) -> None:
        if tau > self.tau[fold]:
            self.tau[fold], self.best_step[fold] = tau, step
            self.best[fold].load_state_dict(self.nets[fold].state_dict())


def train_vsum(settings: Asked, run: Run, file: str, splits: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights trained on the videos of `file`, and a card with what every split of `splits` measured."""
    if not splits:
        raise TrainingError(f"{file} is trained on in splits: give --splits FILE.json")
    asked = settings.vsum
    videos, named = load(run.uses("features", file), run.uses("splits", splits), asked.annotations)
    if asked.annotations:
        run.uses("annotations", asked.annotations)
    width = next(iter(videos.values())).features.shape[1]
    if width != WIDTHS[BACKBONE]:
        raise TrainingError(
            f"the features of {file} are {width} wide, those of {BACKBONE} are {WIDTHS[BACKBONE]}: "
            "a scorer of these could not be used on new videos"
        )
    rng = np.random.default_rng(settings.seed)
    folds = [hold_out(split.train, asked.validate_share, rng) for split in named]
    folds.append(hold_out(tuple(sorted(videos)), asked.validate_share, rng))
    shape = ScorerShape(
        features_width=width,
        signals=SIGNALS,
        projection=asked.projection,
        hidden=asked.hidden,
        dropout=asked.dropout,
        blind=asked.blind,
    )
    over = over_users(asked, file, videos, named)
    run.log(videos=len(videos), splits=len(named), f1_over_people=over)
    inputs = {key: Inputs(video) for key, video in videos.items()}
    nets = Folds(settings.kind, shape, len(folds)).to(run.device)
    fit(settings, run, nets, inputs, folds)
    nets.eval()
    quality = cross_validate(
        videos,
        named,
        lambda number, key: score_of(nets.best[number], inputs[key]),
        over,
        draws=asked.random_draws,
        seed=settings.seed,
        log=run.log,
    )
    for number, part in enumerate(quality["splits"]):
        part |= {"best_step": int(nets.best_step[number]), "val_tau": round(float(nets.tau[number]), 4)}
    shipped = folds[-1]
    card = {
        "kind": settings.kind,
        "settings": {
            "shape": shape.model_dump(),
            "rate_hz": RATE_HZ,
            "features": {"kind": BACKBONE, "width": width, "weights": "official"},
        },
        "trained": {
            "data": Path(file).name,
            "splits": Path(splits).name,
            "videos": {"train": len(shipped.train), "val": len(shipped.validate)},
            "best_step": int(nets.best_step[-1]),
            "val_tau": round(float(nets.tau[-1]), 4),
            "licence": "that of the dataset",
            **asked.model_dump(mode="json", exclude={"annotations"}),
        },
        "quality": quality,
        "requires": [],
    }
    return nets.best[-1].state_dict(), card


def hold_out(keys: tuple[str, ...], share: float, rng: np.random.Generator) -> Fold:
    """`keys` parted into those that train and those that validate, at least one each."""
    order = [keys[i] for i in rng.permutation(len(keys))]
    count = min(len(keys) - 1, max(1, round(share * len(keys))))
    return Fold(train=tuple(order[count:]), validate=tuple(order[:count]))


def over_users(asked: VsumSettings, file: str, videos: dict[str, Video], splits: list[Split]) -> OverUsers:
    """Which people a summary is compared with: the best one for SumMe, all of them for TVSum."""
    if asked.over_users != "auto":
        return asked.over_users
    tested = splits[0].test[0]
    name = known(dataset(tested)) or known(Path(file).name)
    if name in ("summe", "tvsum"):
        return "max" if name == "summe" else "mean"
    return "max" if videos[tested].scores is None else "mean"


def fit(settings: Asked, run: Run, nets: Folds, inputs: dict[str, Inputs], folds: list[Fold]) -> None:
    """Train every fold's network, and keep the weights that were best on its validating videos."""
    asked = settings.vsum
    # One optimiser for all: AdamW treats every number by itself, so the networks don't meet in it.
    optimiser = torch.optim.AdamW(
        nets.nets.parameters(), asked.learning_rate, weight_decay=asked.weight_decay
    )
    for step in run.steps(nets=nets, optimiser=optimiser):
        nets.train()
        for group in optimiser.param_groups:
            group["lr"] = asked.learning_rate * (1 - 0.95 * run.progress)
        # Drawn anew from the step's number, so that a resumed training sees what an unbroken one does.
        rng = np.random.default_rng((settings.seed, step))
        batches = [batch([inputs[key] for key in fold.train], asked, rng) for fold in folds]
        losses = torch.stack([loss_of(net, b, asked) for net, b in zip(nets.nets, batches, strict=True)])
        optimiser.zero_grad()
        losses.sum().backward()
        for net in nets.nets:
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % asked.validate_every == 0:
            validate(nets, inputs, folds, step + 1)
            run.log(step=step + 1, loss=float(losses.detach().mean()), best_val_tau=float(nets.tau.mean()))
    validate(nets, inputs, folds, run.step)


def validate(nets: Folds, inputs: dict[str, Inputs], folds: list[Fold], step: int) -> None:
    nets.eval()
    for number, (net, fold) in enumerate(zip(nets.nets, folds, strict=True)):
        held_out = [inputs[key] for key in fold.validate]
        taus = [kendall_tau_b(score_of(net, video), video.target.numpy()) for video in held_out]
        nets.keep(number, float(np.mean(taus)), step)


def score_of(net: ScorerNet, video: Inputs) -> np.ndarray:
    """Logits [T] of a whole video, as the scoring of new videos sees it."""
    return net.score(video.features, video.signals).numpy()


def batch(videos: list[Inputs], asked: VsumSettings, rng: np.random.Generator) -> dict[str, Tensor]:
    """A crop [L] each of random videos, shorter ones padded: features, centre, signals, target, length."""
    parts: dict[str, list[Tensor]] = {name: [] for name in ("features", "centre", "signals", "target")}
    lengths = []
    for video in (videos[i] for i in rng.integers(len(videos), size=asked.batch)):
        start = int(rng.integers(max(1, len(video.target) - asked.crop + 1)))
        crop = slice(start, start + asked.crop)
        for name in ("features", "signals", "target"):
            parts[name].append(getattr(video, name)[crop])
        parts["centre"].append(video.centre)
        lengths.append(len(parts["target"][-1]))
    padded = {name: nn.utils.rnn.pad_sequence(part, batch_first=True) for name, part in parts.items()}
    return padded | {"length": torch.tensor(lengths)}


def loss_of(net: ScorerNet, batch: dict[str, Tensor], asked: VsumSettings) -> Tensor:
    b = {name: tensor.to(net.head.weight.device) for name, tensor in batch.items()}
    logits_BT = net(b["features"], b["centre"], b["signals"])
    real_BT = torch.arange(logits_BT.shape[1], device=logits_BT.device) < b["length"][:, None]
    apart = F.binary_cross_entropy_with_logits(logits_BT, b["target"], reduction="none")
    regression = apart[real_BT].mean()
    return asked.regression * regression + asked.ranking * ranking(logits_BT, b["target"], b["length"])


def ranking(logits_BT: Tensor, target_BT: Tensor, length_B: Tensor, pairs: int = 512) -> Tensor:
    """Mean of log(1 + exp(lower - higher)) over random pairs of steps within each video, weighted by the gap
    between their targets."""
    drawn = torch.rand(2, len(length_B), pairs, device=logits_BT.device) * length_B[:, None]
    first, second = drawn.long()
    gap = target_BT.gather(1, first) - target_BT.gather(1, second)
    lead = logits_BT.gather(1, first) - logits_BT.gather(1, second)
    return (gap.abs() * F.softplus(-gap.sign() * lead)).sum() / gap.abs().sum().clamp_min(1e-6)
