"""`reelmap reel OUTPUT --from ...`: one reel over many videos of an OUTPUT, the best of a day or a season."""

import hashlib
import os
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from PIL import ImageFont

from jobs.highlights import (
    DONE,
    SOME_FAILED,
    CannotStart,
    Say,
    exit_code,
    starting,
)
from jobs.recut import Options as RecutOptions
from jobs.recut import open_look, settings_of
from pipeline import cuts, schema, storage
from pipeline.best import Choice, From, choose, made_from, make_compile
from pipeline.config import Settings
from pipeline.lease import lease
from pipeline.library import LibraryError
from pipeline.processes import Stopped, through
from pipeline.progress import make_console
from pipeline.recut import list_results
from pipeline.recutting import as_cut
from pipeline.report import write_report
from pipeline.wording import clock, several, size
from stages.cut import target_seconds
from stages.failure import Failed
from stages.nn.weights import Bundle

HOLDER = "reel"  # of the lease
ROUNDS = (
    5  # of choosing others in place of what cannot be read: more is no chance, but a library that is away
)
SHORT = 0.97  # of the target: what is shorter is said


@dataclass(frozen=True)
class Options(RecutOptions):
    videos: From = From()


@dataclass(frozen=True)
class Wanted:
    """One reel over these videos, under this name."""

    output: str
    name: str
    settings: Settings
    bundle: Bundle
    videos: list[dict[str, Any]]  # see list_results

    @property
    def settings_key(self) -> str:
        text = f"{self.settings.key(self.bundle)} {self.settings.reel.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def target_s(self) -> float:
        footage_s = sum(video["duration_s"] or 0.0 for video in self.videos)
        return target_seconds(self.settings.cut.target, footage_s)

    def is_done(self) -> bool:
        done = cuts.done(self.output, self.name, self.settings_key)
        return done.get(cuts.LIBRARY) == made_from(self.videos)


def reel(options: Options) -> int:
    """The exit code: 0 made, 1 not made, 2 could not start, 130 interrupted."""
    console = make_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    def carry_out() -> int:
        with starting():
            wanted = prepare(options)
            done = wanted.is_done()
        say(f"reel {wanted.name!r} over {several(len(wanted.videos), 'video')}")
        for setting in no_matter(wanted.settings):
            say(f"{setting} does not apply: a reel over many videos is one file, encoded as a whole")
        if done:
            say("nothing to do: it was made from these results with these settings before")
            return DONE
        return work(wanted, say)

    return exit_code(carry_out, say)


def prepare(options: Options) -> Wanted:
    """Everything that can be checked before any work is done."""
    settings = settings_of(options)
    name = cuts.check_name(options.name or f"best-{settings.cut.target.replace('%', 'pct')}")
    if settings.reel.font:
        check_font(settings.reel.font)
    bundle = open_look(settings)
    output = storage.absolute(options.output)
    videos = [video for video in list_results(output, settings.library) if options.videos(video)]
    if not videos:
        raise LibraryError(f"no video of {storage.shown(output)} is meant by --from, --since and --until")
    storage.check_writable(output)
    return Wanted(output, name, settings, bundle, videos)


def work(wanted: Wanted, say: Say) -> int:
    """Holds OUTPUT, chooses, renders, publishes, writes the index."""
    with ExitStack() as stack:
        with starting():
            held = stack.enter_context(lease(wanted.output, HOLDER))
            cuts.sweep(wanted.output)
        row = made(wanted, say)
        cuts.write(wanted.output, [row])
        held.check()
        cuts.sweep(wanted.output)
        page = write_report(wanted.output, set())
    if row["status"] != schema.OK:
        say(f"reelmap: {row['reason']}")
        return SOME_FAILED
    say(in_short(row))
    say(f"reel:   {storage.shown(storage.join(wanted.output, row['uri']))}")
    say(f"report: {storage.shown(page)}")
    return DONE


def made(wanted: Wanted, say: Say) -> dict[str, Any]:
    """The row of the reel, good or failed. Videos that cannot be read are left out, and others chosen."""
    row = {
        "name": wanted.name,
        "video_id": None,
        "settings_key": wanted.settings_key,
        "made_from": made_from(wanted.videos),
        "failure": None,
    }
    left_out: dict[str, str] = {}
    for _ in range(ROUNDS):
        videos = [video for video in wanted.videos if video["video_id"] not in left_out]
        try:
            choice = choose(wanted.output, videos, wanted.settings, wanted.target_s)
        except Failed as error:
            left_out[""] = str(error)
            break
        for text in told(choice, wanted):
            say(text)
        result = rendered(row | {"choice": choice}, wanted)
        if result["failure"]:
            return failed(row, result["failure"]["stage"], result["failure"]["reason"])
        if not result["refused"]:
            sizes = sum(video["size_bytes"] for video in choice.videos)
            return as_cut(result | {"size_bytes": sizes}) | {"reason": "; ".join(reasons(left_out)) or None}
        left_out |= result["refused"]
        for text in reasons(result["refused"]):
            say(text)
    return failed(row, "render", "; ".join(reasons(left_out)))


def rendered(row: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """In a process of its own: whatever a source does to its decoder, there is a row that says so."""
    args = (wanted.settings, wanted.output, os.cpu_count() or 1)
    rows = through([row], "render", make_compile, args, 1, wanted.settings.limits.stall_timeout_s)
    try:
        with closing(rows):
            _, result = next(rows)
    except Stopped as error:
        raise CannotStart(str(error)) from error
    if isinstance(result, Exception):
        raise storage.StorageError(str(result)) from result
    return result


def reasons(left_out: dict[str, str]) -> list[str]:
    return [f"left out: {reason}" if video_id else reason for video_id, reason in left_out.items()]


def failed(row: dict[str, Any], stage: str, reason: str) -> dict[str, Any]:
    return as_cut(row | {"size_bytes": None, "failure": {"stage": stage, "reason": reason}})


def told(choice: Choice, wanted: Wanted) -> list[str]:
    """What was chosen; and where it does not fill the reel, what would."""
    lines = [
        f"{several(len(choice.edits), 'clip')} of {several(len(choice.videos), 'video')}, the best of "
        f"{choice.clips_looked_at:,}: {clock(choice.seconds)}"
    ]
    if choice.seconds < SHORT * wanted.target_s:
        lines.append(
            f"that is less than {clock(wanted.target_s)}: there is no more with "
            f"{wanted.settings.reel.per_video} of each video (--per-video), "
            f"{wanted.settings.reel.apart:g} apart (--set reel.apart=0) and "
            f"{choice.most_s:.3g} s at most (--max-clip, --set cut.max_share=1)"
        )
    return lines


def in_short(row: dict[str, Any]) -> str:
    sound = "without sound" if row["loudness_lufs"] is None else f"{row['loudness_lufs']:.1f} LUFS"
    return (
        f"{row['duration_s']:.1f} s, {row['width']} x {row['height']}, {row['fps']:.4g} frames/s, {sound}; "
        f"read {size(row['read_bytes'])} of sources of {size(row['source_bytes'])}"
    )


def no_matter(settings: Settings) -> list[str]:
    """Settings of a reel that are on and do nothing here."""
    render = settings.render
    return [f"render.{name}" for name in ("copy_video", "clips") if getattr(render, name)]


def check_font(path: str) -> None:
    """Raises ValueError for what is no font."""
    try:
        ImageFont.truetype(path, 20)
    except OSError as error:
        raise ValueError(f"reel.font: {path} is not a TrueType font that can be read ({error})") from error
