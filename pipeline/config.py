"""All settings of a run in one frozen tree, from a preset, a YAML file, flags and `--set decode.fps=4`."""

import hashlib
import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from cluster.plan import PoolSettings
from pipeline import presets, storage
from pipeline.library import LibrarySettings
from stages import settings as base
from stages.best import ReelSettings
from stages.container import LimitSettings
from stages.cut import CutSettings
from stages.decode import DecodeSettings
from stages.networks import (
    CodecSettings,
    ColourSettings,
    EffectSettings,
    FeatureSettings,
    SaliencySettings,
    ScoreSettings,
)
from stages.nn.weights import Bundle
from stages.render import RenderSettings

Tree = TypeVar("Tree", bound=base.Settings)

# Raise it when the code changes what comes out for the same settings and weights.
RESULT_VERSION = 6


class ConfigError(ValueError):
    """A setting is unknown or out of range; the message names it."""


class RunSettings(base.Settings):
    """What runs it, and when it gives up as a whole: a damaged store, a bundle that fits nothing."""

    engine: Literal["auto", "ray", "processes"] = Field(
        "auto", description="auto: Ray for a cluster, a GPU or pools of given sizes; else processes"
    )
    # Of the videos that this run has finished; what was dropped has not failed. 1: never.
    max_failed_share: float = Field(1.0, ge=0.0, le=1.0)
    # Before so many are finished nothing is concluded.
    min_finished: int = Field(20, ge=1)


class Settings(base.Settings):
    run: RunSettings = Field(default_factory=RunSettings)
    library: LibrarySettings = Field(default_factory=LibrarySettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    pools: PoolSettings = Field(default_factory=PoolSettings)
    decode: DecodeSettings = Field(default_factory=DecodeSettings)
    features: FeatureSettings = Field(default_factory=FeatureSettings)
    codec: CodecSettings = Field(default_factory=CodecSettings)
    score: ScoreSettings = Field(default_factory=ScoreSettings)
    cut: CutSettings = Field(default_factory=CutSettings)
    saliency: SaliencySettings = Field(default_factory=SaliencySettings)
    colour: ColourSettings = Field(default_factory=ColourSettings)
    effects: EffectSettings = Field(default_factory=EffectSettings)
    render: RenderSettings = Field(default_factory=RenderSettings)
    reel: ReelSettings = Field(default_factory=ReelSettings)
    bundle: str | None = Field(None, description="URI of the model bundle; none: the one in the package")

    def key(self, bundle: Bundle, from_proxies: bool = False) -> str:
        """Hash of everything that changes the result: the stages' settings, weights, the code's version."""
        no_matter = dict.fromkeys(("run", "library", "limits", "pools", "reel", "bundle"), True)
        parts = self.model_dump(mode="json", exclude=no_matter | {"features": {"batch"}})
        text = json.dumps([RESULT_VERSION, parts, bundle.key()], sort_keys=True)
        # Scores from proxies have no reels beside them: they are never taken for those of a whole run.
        return hashlib.sha256((text + " from proxies" * from_proxies).encode()).hexdigest()[:16]


GROUPS = tuple(name for name, field in Settings.model_fields.items() if field.default_factory)


def load_settings(file: str | None, flags: dict[str, Any], assignments: tuple[str, ...]) -> Settings:
    """Settings from a YAML file, then flags ({"cut.target": "20s"}), then "path=value" assignments.

    The `preset` that any of these names comes before them all.

    Raises ConfigError for an unknown key or a value out of range.
    """
    tree: dict[str, Any] = {}
    if file:
        try:
            tree = parse(Path(file).read_bytes(), file)
        except OSError as error:
            raise ConfigError(f"{file}: {error}") from error
    assign(tree, flags, assignments)
    return validated(Settings, on_preset(tree))


def on_preset(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree on top of the settings of the preset that it names, if it names one. Raises ConfigError."""
    rest = dict(tree)
    preset = rest.pop("preset", None)
    if preset is None:
        return rest
    if not isinstance(preset, str):
        raise ConfigError(f"preset: {preset!r} is neither a name nor a path")
    name = f"preset {storage.shown(preset)}"
    try:
        below = parse(presets.content(preset), name)
    except presets.NoPreset as error:
        raise ConfigError(str(error)) from error
    try:
        validated(Settings, below)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return presets.beneath(below, rest)


def parse(content: bytes, name: str) -> dict[str, Any]:
    """The tree of settings in a YAML file called `name`. Raises ConfigError."""
    try:
        tree = yaml.safe_load(content.decode()) or {}
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{name}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}: expected settings such as `decode: {{fps: 4}}`")
    # `cut:` with every line below it commented out is an empty group, which YAML reads as null.
    return tree | {group: {} for group in GROUPS if group in tree and tree[group] is None}


def assign(tree: dict[str, Any], flags: dict[str, Any], assignments: tuple[str, ...]) -> None:
    """Puts flags, then "path=value" assignments into a tree. Raises ConfigError."""
    for path, value in flags.items():
        _assign(tree, path, value)
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {assignment}: write it as stage.setting=value")
        try:
            _assign(tree, path.strip(), yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment}: {error}") from error


def validated(model: type[Tree], tree: dict[str, Any]) -> Tree:
    """Raises ConfigError, which names every key that is unknown and every value out of range."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_in_words(model, each) for each in error.errors())) from error


def _in_words(model: type[base.Settings], error: ErrorDetails) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = get_close_matches(name, _names(model), 1)
        return f"{name}: there is no such setting" + (f": did you mean {near[0]}?" if near else "")
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"


def _names(group: type[base.Settings], before: str = "") -> list[str]:
    """The names of all settings, with those of their groups in front: cut, cut.target, ..."""
    found = []
    for name, field in group.model_fields.items():
        found.append(before + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, base.Settings):
            found += _names(field.annotation, f"{before}{name}.")
    return found


def _assign(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: {parent} is a value, not a group of settings")
    tree[name] = value
