"""`reelmap status OUTPUT`: what is done, running, failed and left; how fast, and how long still."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from pipeline import storage
from pipeline.state import SHOWN_RUNS, Run, State, read_state
from pipeline.wording import clock, hours, several

DONE, COULD_NOT_LOOK, INTERRUPTED = 0, 2, 130
WATCH_S = 10.0

Say = Callable[[str], None]


def status(output: str, as_json: bool, watch: bool, say: Say) -> int:
    """Exit code: 0 said, 2 could not look, 130 interrupted while it watched."""
    output = storage.absolute(output)
    try:
        while True:
            state = read_state(output, datetime.now(UTC))
            if not state.by_settings and not state.runs and not state.held_by:
                raise storage.StorageError(f"there are no results of reelmap in {storage.shown(output)}")
            if as_json:
                say(json.dumps(state.facts()))
            else:
                for line in lines(state):
                    say(line)
            if not watch or (state.running is None and state.held_by is None):
                return DONE
            time.sleep(WATCH_S)
            if not as_json:
                say("")
    except storage.StorageError as error:
        say(f"reelmap: {error}")
        return COULD_NOT_LOOK
    except KeyboardInterrupt:
        return INTERRUPTED


def lines(state: State) -> Iterator[str]:
    """The state for people."""
    several_keys = len(state.by_settings) > 1
    for made in state.by_settings:
        of = f"settings {made.settings_key}: " if several_keys else ""
        total = made.ok + made.dropped + made.failed
        yield (
            f"{of}{several(total, 'video')} done, {hours(made.video_s)} of footage: "
            f"{made.ok} ok, {made.dropped} dropped, {made.failed} failed"
        )
    for name, counts in sorted(state.cuts.items()):
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        yield f"cut {name}: {several(counts['ok'], 'reel')}{failed}"
    if state.put_off:
        yield f"{several(state.put_off, 'video')} put off: the next run makes them anew"
    if run := state.running:
        yield from _running(run)
    elif state.held_by:
        dead = ", which is dead: the next run takes over" if state.held_by.dead else ""
        since = f" since {_minute(state.held_by.since)}" if state.held_by.since else ""
        yield (
            f"held by run {state.held_by.run_id} on {state.held_by.host} "
            f"(process {state.held_by.pid}){since}{dead}"
        )
    else:
        yield "no run is on"
    if state.left and not state.running:
        yield f"{several(state.left, 'video')} left for the next run"
    if state.speed:
        yield f"speed of past runs: {state.speed:.1f} video-hours per hour"
    if state.archive:
        yield from _archive(state.archive)
    past = [run for run in state.runs if run is not state.running][:SHOWN_RUNS]
    if past:
        yield "last runs:"
    for run in past:
        yield f"  {_past(run)}"


def _running(run: Run) -> Iterator[str]:
    finished = run.ok + run.dropped + run.failed
    speed = f", {run.hours_per_hour:.1f} video-hours per hour" if run.hours_per_hour else ""
    share = f", {run.share_done:.0%} of the work" if run.share_done else ""
    left = f", {clock(run.left_s)} left" if run.left_s is not None else ""
    silent = "" if run.state == "running" else f"; no sign of life since {_minute(run.updated_at)}"
    yield (
        f"running: {run.run_id} on {run.host} since {_minute(run.started_at)}: {finished} of {run.planned} "
        f"videos ({run.ok} ok, {run.dropped} dropped, {run.failed} failed){share}{speed}{left}{silent}"
    )


def _past(run: Run) -> str:
    speed = f", {run.hours_per_hour:.1f} video-hours per hour" if run.hours_per_hour else ""
    left = f", {run.left} left" if run.left else ""
    error = f": {run.error}" if run.error else ""
    return (
        f"{_minute(run.started_at)} {run.state}: {run.ok} ok, {run.dropped} dropped, {run.failed} failed"
        f"{left} in {clock(run.wall_s)}{speed}{error}"
    )


def _archive(note: dict) -> Iterator[str]:
    looked = _minute(note.get("looked_at"))
    yield f"archive: {note.get('listed')} videos in {note.get('source')}, looked at {looked}"
    if note.get("outdated"):
        yield f"  {note['outdated']} made with other settings: --reprocess makes them anew"
    if note.get("gone"):
        yield f"  {several(note['gone'], 'source')} gone, results kept: {', '.join(note['gone_uris'][:3])}"


def _minute(at: str | None) -> str:
    """An ISO time as it is read here."""
    try:
        return f"{datetime.fromisoformat(at or '').astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return "an unknown time"
