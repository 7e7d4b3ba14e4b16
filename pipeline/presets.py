"""Presets: settings for one use of a reel, as small YAML files in the package or anywhere else.

A preset is what a config file is, without places: `cut: {...}`, `effects: {...}`, `render: {...}`. It comes
first: config file, flags and --set change what it says.
"""

from pathlib import Path
from typing import Any

from pipeline import storage

FOLDER = Path(__file__).parent / "presets"


class NoPreset(ValueError):
    """There is no such preset; the message names those there are."""


def names() -> list[str]:
    """Of the presets in the package, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def content(preset: str) -> bytes:
    """The YAML of the preset of that name, or else of the file at that path (any fsspec URI)."""
    if preset in names():
        return (FOLDER / f"{preset}.yaml").read_bytes()
    try:
        return storage.read_bytes(storage.absolute(preset))
    except storage.StorageError as error:
        raise NoPreset(
            f"{storage.shown(preset)}: there is no such preset: there are {', '.join(names())}, "
            f"and the path of a YAML file works too"
        ) from error


def summary(preset: str) -> str:
    """What a preset of the package is for: the first line of its file."""
    return content(preset).decode().partition("\n")[0].removeprefix("#").strip()


def beneath(preset: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """The preset's tree of settings with those of `tree` on top."""
    merged = dict(preset)
    for name, value in tree.items():
        below = preset.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[name] = beneath(below, value) if both else value
    return merged
