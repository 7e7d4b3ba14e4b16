"""Options that several commands have, and the settings that they stand for."""

import os
from collections.abc import Callable
from typing import Any

import click

from cluster.machine import may_have_gpu
from pipeline.warm import warm

Command = Callable[..., Any]
Flags = tuple[tuple[str, object], ...]

# By the name of the parameter; what is not given changes nothing.
PLACES = {
    "preset": "preset",
    "target": "cut.target",
    "min_clip": "cut.min_clip_s",
    "max_clip": "cut.max_clip_s",
    "clips": "render.clips",
    "include": "library.include",
    "exclude": "library.exclude",
    "limit": "library.limit",
    "per_video": "reel.per_video",
    "order": "reel.order",
    "captions": "reel.captions",
    "bundle": "bundle",
}

preset = click.option(
    "--preset", metavar="NAME|FILE", help="Settings for one use, see `reelmap presets`; all others change it."
)
include = click.option(
    "--include", multiple=True, metavar="GLOB", help="Only videos that match; may be given again."
)
exclude = click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Not the videos that match; may be given again."
)
limit = click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N videos.")
clips = click.option(
    "--clips", is_flag=True, default=None, help="Also write every clip as a file of its own."
)
bundle = click.option("--bundle", metavar="URI", help="Model bundle; the one in the package by default.")
config = click.option(
    "--config", type=click.Path(exists=True, dir_okay=False), help="Settings in a YAML file."
)


def target(of_what: str) -> Callable[[Command], Command]:
    return click.option(
        "--target", metavar="LENGTH", help=f"Length of {of_what}: 60s, 1m30s, or a share of the footage: 15%."
    )


def assignments(example: str) -> Callable[[Command], Command]:
    return click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help=f"Any setting: {example}."
    )


def address(otherwise: str) -> Callable[[Command], Command]:
    return click.option(
        "--address", metavar="ADDRESS", help=f"A Ray cluster to run on; {otherwise} by default."
    )


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """All of these, in their order on the help page."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# Which clips, and what is between them.
cutting = together(
    click.option("--min-clip", type=float, metavar="SECONDS", help="Shortest clip."),
    click.option("--max-clip", type=float, metavar="SECONDS", help="Longest clip."),
    click.option("--transitions", metavar="NAMES", help="whip,dissolve,... or cut for hard cuts only."),
)


def reels(example: str, otherwise: str) -> Callable[[Command], Command]:
    """Of a command that makes a reel of each of some videos; for `assignments` and `address`."""
    which = include, exclude, limit
    how = config, assignments(example), bundle, address(otherwise)
    return together(preset, target("a reel"), cutting, clips, *which, *how)


def get_ready(address: str | None = None) -> None:
    """Begins to import what processes of this machine will need, unless a Ray will surely do the work."""
    if not (address or os.environ.get("RAY_ADDRESS") or may_have_gpu()):
        warm()


def flags_of(transitions: str | None = None, **given: object) -> Flags:
    """What the options of a command set: of those in PLACES, and --transitions."""
    flags = {}
    for name, value in given.items():
        value = list(value) or None if isinstance(value, tuple) else value
        if value is not None:
            flags[PLACES[name]] = value
    return tuple((flags | (effects(transitions) if transitions is not None else {})).items())


def effects(transitions: str) -> dict[str, object]:
    """The settings that --transitions stands for: they hold whatever a file says of the effects' kind."""
    names = [name.strip() for name in transitions.split(",")]
    if names == ["cut"]:
        return {"effects.kind": "none"}
    if "cut" in names:
        raise click.UsageError("--transitions: cut stands alone, it means hard cuts and no effects")
    if not all(names):
        raise click.UsageError("--transitions takes names with commas between them: whip,spin")
    return {"effects.kind": "gan", "effects.transitions": names}
