"""What every training shares: device, seed, time limit, log, checkpoints, and the way into a bundle.

A training is a module jobs/train/MODEL.py with `class Train(LoopSettings)` and

    def train(settings: Train, run: Run) -> tuple[dict[str, Tensor], dict]      # the state and its card

    python -m jobs.train.features --data DATA --out BUNDLE --set minutes=5
"""

import hashlib
import importlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file

from jobs import cli
from stages.nn.device import pick_device
from stages.nn.weights import MODELS, Bundle, BundleError, open_bundle, save_model
from stages.settings import Settings


class TrainingError(ValueError):
    """The training cannot start: data or settings are missing or wrong."""


class LoopSettings(Settings):
    """Base of each model's training settings."""

    data: str = ""
    seed: int = 0
    minutes: float = 20.0  # wall time; the schedule is laid out over it
    max_steps: int = 0  # ends the training sooner; 0: only the time does
    threads: int = 0  # torch threads on a CPU; 0 leaves it to torch
    save_every_s: float = 60.0  # between two checkpoints


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Run:
    """One training: `for step in run.steps(net=net, optimiser=optimiser): ...; run.log(loss=...)`.

    start   the bundle that a fine-tuning starts from (`--from`), else None
    out     the bundle that the result goes to
    folder  for checkpoints and caches; a training that is started again in it goes on
    """

    def __init__(self, settings: LoopSettings, folder: Path, start: Bundle | None = None, out: str = ""):
        self.settings, self.folder, self.start, self.out = settings, folder, start, out
        self.device = pick_device()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        seed_all(settings.seed)
        folder.mkdir(parents=True, exist_ok=True)
        self.started_s = self.saved_s = time.monotonic()
        self.step = 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    @property
    def progress(self) -> float:
        """Share of the time (or of max_steps) that is used up, 0 to 1: what schedules run on."""
        share = self.elapsed_s / (60 * self.settings.minutes)
        if self.settings.max_steps:
            share = max(share, self.step / self.settings.max_steps)
        return min(1.0, share)

    def log(self, **values: Any) -> None:
        parts = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
        print(f"[{self.elapsed_s:7.1f} s]", *parts, flush=True)

    def part(self, name: str) -> Path:
        """A part of the data folder, such as "tiny_imagenet" or "action"."""
        path = Path(self.settings.data) / name
        if not self.settings.data or not path.exists():
            raise TrainingError(f"the data folder {self.settings.data or '(none)'} has no {name}: see --data")
        return path

    def steps(self, **parts: Stateful) -> Iterator[int]:
        """Step numbers until the time or max_steps is used up, from the last checkpoint of `parts` on."""
        if self.checkpoint.exists():
            self._restore(parts)
            self.log(resumed_at=self.step)
        while self.progress < 1:
            yield self.step
            self.step += 1
            if time.monotonic() - self.saved_s > self.settings.save_every_s:
                self._save(parts)

    @property
    def checkpoint(self) -> Path:
        # Named by the settings: other settings are another training and do not go on from this one.
        key = hashlib.sha256(self.settings.model_dump_json().encode()).hexdigest()[:12]
        return self.folder / f"checkpoint-{key}.safetensors"

    def _save(self, parts: dict[str, Stateful]) -> None:
        tensors: dict[str, torch.Tensor] = {}
        plain = flatten({name: part.state_dict() for name, part in parts.items()}, tensors)
        text = json.dumps({"step": self.step, "elapsed_s": self.elapsed_s, "parts": plain})
        temporary = self.checkpoint.with_suffix(".tmp")
        save_file(tensors, temporary, metadata={"run": text})
        temporary.replace(self.checkpoint)
        self.saved_s = time.monotonic()

    def _restore(self, parts: dict[str, Stateful]) -> None:
        with safe_open(self.checkpoint, "pt", device=str(self.device)) as file:
            saved = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
        for name, state in unflatten(saved["parts"], tensors).items():
            parts[name].load_state_dict(state)
        self.step = saved["step"]
        self.started_s = time.monotonic() - saved["elapsed_s"]
        # Not the random numbers of the first steps once more.
        seed_all(self.settings.seed + self.step)


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def flatten(value: Any, tensors: dict[str, torch.Tensor], path: str = "") -> Any:
    """`value` as JSON, its tensors put aside: safetensors holds a flat list, a state dict is a tree."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().clone().contiguous()
        return {"tensor": path}
    if isinstance(value, dict):
        # Pairs, because an optimiser's keys are numbers.
        return {"pairs": [[k, flatten(v, tensors, f"{path}/{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [flatten(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]
    return value


def unflatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The reverse of `flatten`."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {k: unflatten(v, tensors) for k, v in value["pairs"]}
    return [unflatten(v, tensors) for v in value] if isinstance(value, list) else value


def run_training(
    model: str,
    data: str,
    out: str,
    from_bundle: str | None = None,
    overrides: dict[str, Any] | None = None,
    folder: str | None = None,
) -> dict[str, Any]:
    """Train `model` on the data folder `data`, write it into the bundle `out`, and return its card.

    from_bundle  a bundle to start from; its other models come along, so that `out` is a whole bundle
    overrides    settings of the training by name; a dot reaches into a part (features.kind)
    folder       for checkpoints and caches; the user's cache folder if not given
    """
    if model not in MODELS:
        raise TrainingError(f"no model is called {model}; there are {', '.join(MODELS)}")
    module = importlib.import_module(f"jobs.train.{model}")
    try:
        settings = module.Train.model_validate(nested({**(overrides or {}), "data": data}))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise TrainingError("; ".join(lines)) from error
    start = open_bundle(from_bundle) if from_bundle else None
    if start:
        copy_models(start, out)
    run = Run(settings, Path(folder) if folder else cache_folder() / model, start, out)
    state, card = module.train(settings, run)
    card["trained"] = {
        **card.get("trained", {}),
        "seed": settings.seed,
        "steps": run.step,
        "wall_minutes": round(run.elapsed_s / 60, 1),
        "device": run.device.type,
        "torch": torch.__version__,
        "commit": commit(),
        "from": start.key() if start else None,
    }
    save_model(out, model, state, card)
    run.checkpoint.unlink(missing_ok=True)
    return card


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise TrainingError(f"{name}: {parent} is a value, not a group of settings")
        place[last] = value
    return tree


def copy_models(start: Bundle, out: str) -> None:
    """Every model of `start` that `out` lacks."""
    try:
        there = open_bundle(out).models
    except BundleError:
        there = {}
    # A model is listed after those it requires.
    for model in MODELS:
        if model in start.models and model not in there:
            save_model(out, model, start.state(model), start.card(model))


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelmap" / "train"


def commit() -> str | None:
    """The commit that this code was checked out at; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "--verify", "-q", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def main(model: str) -> None:
    """`python -m jobs.train.MODEL` is `reelmap train MODEL`."""
    cli.train([model, *sys.argv[1:]], prog_name="reelmap train")
