"""`reelmap reel OUTPUT --from ...`: one reel over many videos of an OUTPUT, the best of a day or a season."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from PIL import ImageFont

from cluster.machine import cores
from jobs.highlights import (
    DONE,
    SOME_FAILED,
    CannotStart,
    Say,
    exit_code,
    saying,
    starting,
)
from jobs.recut import Options as RecutOptions
from jobs.recut import Wanted, open_look, settings_of
from pipeline import cuts, schema, storage
from pipeline.best import (
    Choice,
    From,
    choose,
    made_from,
    make_compile,
    make_trial,
    short_name,
    trials_of,
)
from pipeline.config import Settings
from pipeline.guard import Stage
from pipeline.lease import lease
from pipeline.library import LibraryError
from pipeline.noted import noted
from pipeline.processes import PutOff, Stopped, through
from pipeline.progress import make_console
from pipeline.recut import list_results
from pipeline.recutting import as_cut
from pipeline.redact import without_secrets
from pipeline.report import behind, write_report
from pipeline.run import in_words, new_run_id
from pipeline.wording import clock, several, size
from stages.cut import target_seconds
from stages.failure import Failed

HOLDER = "reel"  # of the lease
ROUNDS = (
    5  # of choosing others in place of what cannot be read: more is no chance, but a library that is away
)
SHORT = 0.97  # of the target: what is shorter is said


@dataclass(frozen=True)
class Options(RecutOptions):
    videos: From = From()


@dataclass(frozen=True)
class WantedReel(Wanted):
    """One reel over these videos, under this name."""

    @property
    def settings_key(self) -> str:
        text = f"{self.settings.key(self.bundle)} {self.settings.reel.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def target_s(self) -> float:
        footage_s = sum(video["duration_s"] or 0.0 for video in self.videos)
        return target_seconds(self.settings.cut.target, footage_s)

    def is_done(self, known: cuts.Known) -> bool:
        return known.done(self.name, self.settings_key).get(cuts.LIBRARY) == made_from(self.videos)


def reel(options: Options) -> int:
    """The exit code: 0 made, 1 not made, 2 could not start, 130 interrupted."""
    say = saying(make_console())

    def carry_out() -> int:
        with starting():
            wanted = prepare(options)
            known = cuts.Known(wanted.output)
            done, pages = wanted.is_done(known), behind(known)
        say(f"reel {wanted.name!r} over {several(len(wanted.videos), 'video')}")
        for setting in no_matter(wanted.settings):
            say(f"{setting} does not apply: a reel over many videos is one file, encoded as a whole")
        if done:
            say("nothing to do: it was made from these results with these settings before")
        # One that was killed may have left an index that does not tell of its reel.
        return work(wanted, say) if pages or not done else DONE

    return exit_code(carry_out, say)


def prepare(options: Options) -> WantedReel:
    """Everything that can be checked before any work is done."""
    settings = settings_of(options)
    name = cuts.check_name(options.name or f"best-{settings.cut.target.replace('%', 'pct')}")
    if settings.reel.font:
        check_font(settings.reel.font)
    bundle = open_look(settings)
    output = storage.absolute(options.output)
    videos = [video for video in list_results(output, settings.library) if options.videos(video)]
    if not videos:
        raise LibraryError(
            f"no video of {storage.shown(output)} is meant by --from, --exclude, --since and --until"
        )
    storage.check_writable(output)
    return WantedReel(output, name, settings, bundle, videos)


def work(wanted: WantedReel, say: Say) -> int:
    """Holds OUTPUT, chooses, renders, publishes, writes the index."""
    rows: list[dict[str, Any]] = []

    def counts() -> dict[str, int]:
        good = [row for row in rows if row["status"] == schema.OK]
        return {"planned": 1, "ok": len(good), "failed": len(rows) - len(good)}

    with ExitStack() as stack:
        with starting():
            held = stack.enter_context(lease(wanted.output, HOLDER))
            storage.sweep_temporary(wanted.output)
            # Another one may have made it before the lease was ours.
            known = cuts.Known(wanted.output)
            known.sweep()
        with noted(wanted.output, new_run_id(), wanted.facts(HOLDER), counts):
            if not wanted.is_done(known):
                row = made(wanted, say)
                held.check()
                rows += known.write([row])
                known.sweep()
            page = write_report(wanted.output, set(), known)
    for row in rows:
        if row["status"] != schema.OK:
            say(f"reelmap: {row['reason']}")
            return SOME_FAILED
        say(in_short(row))
        say(f"reel:   {storage.shown(storage.join(wanted.output, row['uri']))}")
    say(f"report: {storage.shown(page)}")
    return DONE


def made(wanted: WantedReel, say: Say) -> dict[str, Any]:
    """The row of the reel, good or failed. Videos that cannot be read are left out, and others chosen."""
    row = {
        "name": wanted.name,
        "video_id": None,
        "settings_key": wanted.settings_key,
        "made_from": made_from(wanted.videos),
        "failure": None,
    }
    left_out: dict[str, str] = {}
    in_vain = False
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
        if result.get("killed"):
            say(f"its worker died: each of {several(len(choice.videos), 'video')} is read alone")
            refused = deadly(choice, wanted)
            if not refused and in_vain:
                return failed(row, "render", f"{result['failure']['reason']}, twice, and with no video alone")
            in_vain = not refused
        elif result["failure"]:
            return failed(row, result["failure"]["stage"], result["failure"]["reason"])
        elif not (refused := result["refused"]):
            sizes = sum(video["size_bytes"] for video in choice.videos)
            return as_cut(result | {"size_bytes": sizes}) | {"reason": "; ".join(reasons(left_out)) or None}
        left_out |= refused
        for text in reasons(refused):
            say(text)
    return failed(row, "render", "; ".join(reasons(left_out)))


def rendered(row: dict[str, Any], wanted: WantedReel) -> dict[str, Any]:
    """In a process of its own: whatever a source does to its decoder, there is a row that says so."""
    args = (wanted.settings, wanted.output, cores())
    (result,) = in_processes([row], "render", make_compile, args, wanted)
    if isinstance(result, Exception):
        raise storage.StorageError(str(result)) from result
    return result


def deadly(choice: Choice, wanted: WantedReel) -> dict[str, str]:
    """The videos that cannot be read, by video_id, one after the other: some kill their decoder."""
    args = (wanted.settings, wanted.output)
    results = in_processes(trials_of(choice), "decode", make_trial, args, wanted)
    names = {video["video_id"]: short_name(video["uri"]) for video in choice.videos}
    return {
        result["video_id"]: f"{names[result['video_id']]}: {result['failure']['reason']}"
        for result in results
        if not isinstance(result, Exception) and result["failure"]
    }


def in_processes(
    rows: list[dict[str, Any]], name: str, make: Callable[..., Stage], args: tuple, wanted: WantedReel
) -> list[dict[str, Any] | PutOff]:
    """What `through` makes of the rows, one at a time: one death of its worker is enough."""
    stall_timeout_s = wanted.settings.limits.stall_timeout_s
    try:
        return [result for _, result in through(rows, name, make, args, 1, stall_timeout_s, 1)]
    except Stopped as error:
        raise CannotStart(in_words(error)) from error


def reasons(left_out: dict[str, str]) -> list[str]:
    texts = {video_id: without_secrets(reason) for video_id, reason in left_out.items()}
    return [f"left out: {text}" if video_id else text for video_id, text in texts.items()]


def failed(row: dict[str, Any], stage: str, reason: str) -> dict[str, Any]:
    return as_cut(row | {"size_bytes": None, "failure": {"stage": stage, "reason": reason}})


def told(choice: Choice, wanted: WantedReel) -> list[str]:
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
