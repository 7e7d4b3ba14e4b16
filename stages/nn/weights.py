"""The model bundle: a folder (any fsspec URI) of safetensors files and one bundle.json.

bundle.json
    {"format": 1,
     "models": {"features": {"kind": "compact", "file": "features.safetensors", "sha256": "...",
                             "settings": {...},     how the network is built
                             "trained": {...},      data, licence, seed, steps, commit
                             "quality": {...},      measured, beside the baselines
                             "requires": {...}}}}   model -> sha256 it was trained on

Nothing is ever unpickled.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from stages.filesystem import open_filesystem

if TYPE_CHECKING:  # a driver reads cards, and has no use for the weights and for what they take to import
    import torch

DEFAULT_BUNDLE = str(Path(__file__).parent / "bundle")
MODELS = ("features", "scorer", "colour", "effects", "codec")


class BundleError(ValueError):
    """The bundle is missing, damaged, or its parts do not belong together."""


@dataclass(frozen=True)
class Bundle:
    uri: str
    models: dict[str, dict[str, Any]]

    def card(self, model: str) -> dict[str, Any]:
        """Everything bundle.json says of `model`."""
        if model not in self.models:
            raise BundleError(f"{self.uri} has no {model} model: train it with `reelmap train {model}`")
        return self.models[model]

    def state(self, model: str) -> "dict[str, torch.Tensor]":
        """The weights of `model`, checked against their hash."""
        from safetensors.torch import load

        card = self.card(model)
        if card["file"] != _file_of(model):
            raise BundleError(f"{self.uri}: {model} lies in {card['file']!r}, not in {_file_of(model)}")
        data = _read(f"{self.uri}/{card['file']}")
        if hashlib.sha256(data).hexdigest() != card["sha256"]:
            raise BundleError(f"{self.uri}/{card['file']} is not the file that bundle.json describes")
        try:
            return load(data)
        except SafetensorError as error:  # a pickle of that name, too: nothing is ever unpickled
            raise BundleError(f"{self.uri}/{card['file']} is not a safetensors file") from error

    def key(self) -> str:
        """Hash of all weights: a result made with another bundle is another result."""
        hashes = {name: card["sha256"] for name, card in sorted(self.models.items())}
        return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:16]


def open_bundle(uri: str | None = None) -> Bundle:
    """The bundle at `uri`, or the one that comes with the package."""
    uri = (uri or DEFAULT_BUNDLE).rstrip("/")
    try:
        description = json.loads(_read(f"{uri}/bundle.json"))
    except json.JSONDecodeError as error:
        raise BundleError(f"{uri}/bundle.json is not JSON: {error}") from error
    known = description.get("format") if isinstance(description, dict) else None
    if known != 1:
        raise BundleError(f"{uri}: bundle format {known} is not known here")
    models = description.get("models")
    if not isinstance(models, dict) or not all(_is_card(card) for card in models.values()):
        raise BundleError(f"{uri}/bundle.json does not describe its models")
    bundle = Bundle(uri=uri, models=models)
    for name, card in bundle.models.items():
        for other, sha256 in card.get("requires", {}).items():
            if bundle.card(other)["sha256"] != sha256:
                raise BundleError(
                    f"{uri}: the {name} model was trained on other {other} than the bundle holds; "
                    f"run `reelmap train {name} --from {uri}`"
                )
    return bundle


def save_model(uri: str, model: str, state: "dict[str, torch.Tensor]", card: dict[str, Any]) -> None:
    """Write the weights of one model into a bundle and describe them in its bundle.json.

    card holds kind, settings, trained, quality, and requires (model names; hashes are filled in here).
    """
    from safetensors.torch import save

    if model not in MODELS:
        raise BundleError(f"no model is called {model}; there are {', '.join(MODELS)}")
    uri = uri.rstrip("/")
    filesystem, path = open_filesystem(uri)
    filesystem.makedirs(path, exist_ok=True)
    try:
        models = dict(open_bundle(uri).models)
    except BundleError:
        models = {}
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    file = _file_of(model)
    sha256 = hashlib.sha256(data).hexdigest()
    # A model that was trained on other weights than these is of no more use.
    models = {
        name: old for name, old in models.items() if old.get("requires", {}).get(model, sha256) == sha256
    }
    models[model] = {
        **card,
        "file": file,
        "sha256": sha256,
        "requires": {other: models[other]["sha256"] for other in card.get("requires", ())},
    }
    filesystem.pipe_file(f"{path}/{file}", data)
    description = json.dumps({"format": 1, "models": dict(sorted(models.items()))}, indent=1)
    filesystem.pipe_file(f"{path}/bundle.json", description.encode())


def _is_card(card: Any) -> bool:
    """Whether it says which file holds the weights, and what they need."""
    return (
        isinstance(card, dict)
        and all(isinstance(card.get(name), str) for name in ("kind", "file", "sha256"))
        and isinstance(card.get("requires", {}), dict)
    )


def _file_of(model: str) -> str:
    return f"{model}.safetensors"


def _read(uri: str) -> bytes:
    filesystem, path = open_filesystem(uri)
    try:
        return filesystem.cat_file(path)
    except FileNotFoundError as error:
        raise BundleError(f"{uri} does not exist") from error
