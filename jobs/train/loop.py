"""Every training from the outside: settings, bundle, and where it runs; see jobs/train/run.py for the inside.

A training is a module jobs/train/MODEL.py with `class Train(LoopSettings)` and

    def train(settings: Train, run: Run) -> tuple[dict[str, Tensor], dict]      # the state and its card

    reelmap train features --data DATA --out BUNDLE --set steps=500

It runs in Ray Train (jobs/train/on_ray.py), resumes from its last checkpoint, and is repeatable to the bit.
The card that lands in bundle.json says under "trained" what it takes to repeat it: seed, steps, workers,
threads, device, torch, commit, the bundle it started from, and data_sha256: of every part of the data folder
that was read, one hash over the contents and relative paths of its files (jobs/train/provenance.py).
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.commands import teach
from jobs.train.job import Job, cache_folder, carry_out_here, checkpoint_name, forget
from jobs.train.run import LoopSettings, Run, TrainingError
from pipeline.storage import absolute
from stages.filesystem import protocol_of
from stages.nn.weights import MODELS, Bundle, BundleError, open_bundle, save_model

__all__ = ["LoopSettings", "Run", "TrainingError", "main", "run_training"]


def run_training(
    model: str,
    data: str,
    out: str,
    from_bundle: str | None = None,
    overrides: dict[str, Any] | None = None,
    folder: str | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Train `model` on the data folder `data`, write it into the bundle `out`, and return its card.

    from_bundle  a bundle to start from; its other models come along, so that `out` is a whole bundle
    overrides    settings of the training by name; a dot reaches into a part (features.kind)
    folder       for checkpoints (any fsspec URI) and caches; the user's cache folder if not given
    address      a Ray cluster; a local Ray that ends with the training if not given. On a cluster, data,
                 bundles and folder are places that every node reaches.
    """
    if model not in MODELS:
        raise TrainingError(f"no model is called {model}; there are {', '.join(MODELS)}")
    data, out = absolute(data), absolute(out)
    settings = read_settings(model, {**(overrides or {}), "data": data})
    if address is None and protocol_of(data) == "file" and not Path(data).exists():
        raise TrainingError(f"there is no {data}: see --data")
    start = open_bundle(absolute(from_bundle)) if from_bundle else None
    if start:
        copy_models(start, out)
    job = Job(
        module=f"jobs.train.{model}",
        settings=settings,
        folder=absolute(folder or str(cache_folder() / model)),
        name=checkpoint_name(model, settings, out, start),
        out=out,
        start=start.uri if start else None,
    )
    if settings.workers == 0:
        state, card = carry_out_here(job, say)
    else:
        from jobs.train.on_ray import carry_out_on_ray  # seconds to import

        state, card = carry_out_on_ray(job, address, say)
    save_model(out, model, state, card)
    forget(job)
    return card


def read_settings(model: str, values: dict[str, Any]) -> LoopSettings:
    """The settings of a model's training. Raises TrainingError in words for whoever gave the values."""
    kind: type[LoopSettings] = importlib.import_module(f"jobs.train.{model}").Train
    try:
        settings = kind.model_validate(nested(values))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise TrainingError("; ".join(lines)) from error
    if settings.workers > 1 and not kind.divisible:
        raise TrainingError(f"the training of {model} cannot be divided among workers: set workers to 1")
    return settings


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


def say(line: str) -> None:
    print(line, flush=True)


def main(model: str) -> None:
    """`python -m jobs.train.MODEL` is `reelmap train MODEL`."""
    teach.train([model, *sys.argv[1:]], prog_name="reelmap train")
