"""Where an OUTPUT stands, from storage alone: what is done, who is at work, how fast, how long still.

Only small columns of `videos` are read, so that it is cheap while a run is on, from any machine.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from pipeline import again, cuts, storage, tables
from pipeline.lease import DEAD_AFTER_S, Holder, holder
from pipeline.records import RUNNING, records, speed_of
from pipeline.schema import DROPPED, FAILED, OK

ARCHIVE_NOTE = "archive.json"  # below OUTPUT: what the last `reelmap archive` found at its source
RUNS = 20  # the latest so many records are read
SHOWN_RUNS = 5
STATUSES = (OK, DROPPED, FAILED)


@dataclass(frozen=True)
class Run:
    """A run as its record tells, and the lease: a run that says it is on and holds nothing has died."""

    run_id: str
    state: str  # running, silent, died, finished, stopped, interrupted, failed
    settings_key: str | None
    started_at: str | None
    updated_at: str | None
    planned: int
    ok: int
    dropped: int
    failed: int
    video_s: float
    wall_s: float
    error: str | None
    share_done: float | None  # of the work, 0 to 1; of a run that is on
    left_s: float | None  # of a run that is on
    host: str | None  # of a run that is on

    @property
    def left(self) -> int:
        return max(0, self.planned - self.ok - self.dropped - self.failed)

    @property
    def hours_per_hour(self) -> float | None:
        return self.video_s / self.wall_s if self.wall_s and self.video_s else None


@dataclass(frozen=True)
class Settled:
    """What was made with one set of settings and weights."""

    settings_key: str
    ok: int
    dropped: int
    failed: int
    video_s: float


@dataclass(frozen=True)
class State:
    output: str
    by_settings: list[Settled]  # those of the latest run first
    put_off: int  # results that the next run makes anew though they are there
    held_by: Holder | None
    runs: list[Run]  # newest first
    speed: float | None  # seconds of footage per second, of past runs
    archive: dict[str, Any] | None
    cuts: dict[str, dict[str, int]]  # name -> status -> how many

    @property
    def running(self) -> Run | None:
        return next((run for run in self.runs if run.state in (RUNNING, "silent")), None)

    @property
    def left(self) -> int | None:
        """Videos without a result: of the run that is on, or of the last one; None before any."""
        if self.running:
            return self.running.left
        if self.archive:
            return self.archive.get("left")
        return self.runs[0].left if self.runs else None

    def facts(self) -> dict[str, Any]:
        speeds = {"speed": self.speed, "left": self.left}
        return asdict(self) | speeds | {"running": asdict(self.running) if self.running else None}


def read_state(output: str, now: datetime) -> State:
    """Raises StorageError. `now` is aware of its zone."""
    held, known = _runs(output)
    results = tables.current(output, ("duration_s",))
    latest = known[-1].get("settings_key") if known else None
    return State(
        output=storage.shown(output),
        by_settings=sorted(by_settings(results), key=lambda made: made.settings_key != latest),
        put_off=len(again.asked(output)),
        held_by=held,
        runs=[as_run(record, held, now) for record in reversed(known)],
        speed=speed_of(known, str(latest)),
        archive=_archive(output),
        cuts=_cuts(output),
    )


def _runs(output: str) -> tuple[Holder | None, list[dict[str, Any]]]:
    """The lease and the latest records, as of one moment as far as runs that are on go.

    A run may begin or end between the two looks: without its lease it has died only if a second look says so.
    """
    suspected: set[str] = set()
    while True:
        held = holder(output)
        known = list(records(output, RUNS))
        on = {str(record.get("run_id")) for record in known if record.get("state") == RUNNING}
        unheld = on - {held.run_id} if held else on
        if unheld <= suspected:
            return held, known
        suspected |= unheld


def by_settings(results: pa.Table) -> list[Settled]:
    """Counts by settings_key, the most videos first."""
    counted = results.group_by(["settings_key", "status"]).aggregate(
        [("video_id", "count"), ("duration_s", "sum")]
    )
    keys: dict[str, dict[str, Any]] = {}
    for row in counted.to_pylist():
        made = keys.setdefault(row["settings_key"], dict.fromkeys(STATUSES, 0) | {"video_s": 0.0})
        made[row["status"]] = row["video_id_count"]
        made["video_s"] += (row["duration_s_sum"] or 0.0) if row["status"] == OK else 0.0
    made = [Settled(key, **counts) for key, counts in keys.items()]
    return sorted(made, key=lambda one: -(one.ok + one.dropped + one.failed))


def as_run(record: dict[str, Any], held: Holder | None, now: datetime) -> Run:
    counts = record.get("counts") or {}
    state, run_id = str(record.get("state")), str(record.get("run_id"))
    mine = held is not None and held.run_id == run_id
    share = left_s = None
    if state == RUNNING:
        if not mine or held.dead:
            state = "died"
        elif _age_s(record.get("updated_at"), now) > DEAD_AFTER_S:
            state = "silent"
        share = record.get("share_done")
        if state == RUNNING and share:
            left_s = (record.get("wall_s") or 0.0) * (1 - share) / share
    return Run(
        run_id=run_id,
        state=state,
        settings_key=record.get("settings_key"),
        started_at=record.get("started_at"),
        updated_at=record.get("updated_at") or record.get("finished_at"),
        planned=counts.get("planned", 0),
        ok=counts.get(OK, 0),
        dropped=counts.get(DROPPED, 0),
        failed=counts.get(FAILED, 0),
        video_s=record.get("video_s") or 0.0,
        wall_s=record.get("wall_s") or 0.0,
        error=record.get("error"),
        share_done=share,
        left_s=left_s,
        host=held.host if mine and held else None,
    )


def _age_s(at: str | None, now: datetime) -> float:
    try:
        return (now - datetime.fromisoformat(at or "")).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _cuts(output: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in cuts.read(output, ["name", "status"]).to_pylist():
        counts = found.setdefault(row["name"], {OK: 0, FAILED: 0})
        counts[row["status"]] += 1
    return found


def _archive(output: str) -> dict[str, Any] | None:
    try:
        known = json.loads(storage.read_bytes(storage.join(output, ARCHIVE_NOTE)))
    except (storage.Missing, ValueError):
        return None
    return known if isinstance(known, dict) else None
