"""A job in one YAML file: where the videos are, where the results go, how, and how much in one go.

    source: s3://bucket/archive
    output: s3://bucket/reelmap
    preset: social                                            # what comes first, see pipeline/presets.py
    archive: {until: "06:00", max_hours: 4, order: newest}    # see pipeline/budget.py
    decode: {fps: 2}                                          # and every other setting

The file may lie at any fsspec URI. `source`, `output`, `bundle` and a `preset` of one's own may be relative:
they start at the folder of the file, as a scheduler has no folder to speak of. Those given with --set start
at the current one, as every path on a command line does.
"""

import posixpath
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from pipeline import presets, storage
from pipeline.budget import ArchiveSettings
from pipeline.config import ConfigError, Settings, assign, on_preset, parse, validated
from stages.filesystem import protocol_of

PLACES = ("source", "output", "bundle", "preset")


@dataclass(frozen=True)
class JobFile:
    source: str
    output: str
    settings: Settings = field(default_factory=Settings)
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)


class _Keys(Settings):
    """Everything that a job file may hold."""

    source: str = Field(min_length=1)
    output: str = Field(min_length=1)
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)


def load_job_file(
    path: str, assignments: tuple[str, ...] = (), flags: dict[str, Any] | None = None
) -> JobFile:
    """The job in the file at `path`, then flags ({"archive.until": "06:00"}), then "path=value" assignments.

    Raises ConfigError when it cannot be read, or for an unknown key or a value out of range.
    """
    place = storage.absolute(path)
    try:
        tree = parse(storage.read_bytes(place), storage.shown(path))
    except storage.StorageError as error:
        raise ConfigError(str(error)) from error
    if "archive" in tree and tree["archive"] is None:  # all its lines are commented out
        tree["archive"] = {}
    for name, named in places(tree).items():
        tree[name] = below(place, named)
    assign(tree, flags or {}, assignments)
    for name in ("source", "output"):
        if not tree.get(name):
            raise ConfigError(f"{storage.shown(path)}: {name} is missing: write `{name}: s3://bucket/prefix`")
    keys = validated(_Keys, on_preset(tree))
    settings = Settings(**{name: getattr(keys, name) for name in Settings.model_fields})
    return JobFile(storage.absolute(keys.source), storage.absolute(keys.output), settings, keys.archive)


def places(tree: dict[str, Any]) -> dict[str, str]:
    """The places that a file names, as it names them. A preset of the package is none."""
    named = {name: tree[name] for name in PLACES if tree.get(name) and isinstance(tree[name], str)}
    return {name: place for name, place in named.items() if name != "preset" or place not in presets.names()}


def below(file: str, place: str) -> str:
    """A place named in a file; a relative one starts at the folder of the file. Raises ConfigError."""
    if protocol_of(place) != "file" or place.startswith(("/", "file:", "local:")):
        return place
    if protocol_of(file) == "file":
        return posixpath.normpath(posixpath.join(posixpath.dirname(file), place))
    protocol, _, path = file.partition("://")
    bucket, _, key = path.partition("/")
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(key), place))
    if joined == ".." or joined.startswith("../"):
        raise ConfigError(f"{place} leads out of {storage.shown(f'{protocol}://{bucket}')}")
    return f"{protocol}://{bucket}/{joined}" if joined != "." else f"{protocol}://{bucket}"
