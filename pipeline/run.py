"""One run: list - done -> plan -> flow -> publish, again for what was lost, then the record in runs/."""

import platform
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from types import ModuleType
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import ray

from cluster.plan import Plan
from pipeline import again, here, logs, storage, tables
from pipeline.config import RunSettings, Settings
from pipeline.gate import Gate
from pipeline.heartbeat import Heartbeat
from pipeline.lost import LOST, WORKER_OR_STORAGE, give_up, tried_again
from pipeline.overdue import overdue
from pipeline.processes import Stopped
from pipeline.profile import seconds_of
from pipeline.progress import Counts, Display, Meter, Reporter, Totals, open_meter, share_done
from pipeline.publish import Publish
from pipeline.redact import without_secrets
from pipeline.rows import LISTED, to_table
from pipeline.schema import DROPPED, FAILED, OK, TIMESTAMP
from pipeline.steps import FROM_PROXIES, STAGES, Pass
from pipeline.suspects import DriverWitness, open_witness
from stages.nn.kinds import width
from stages.nn.weights import Bundle

# What a dying node or actor takes with it is planned again in the same run, until so many attempts on end
# have brought nothing: a run of days may lose a node a day.
ATTEMPTS = 3
CLOCKS_APART = timedelta(days=1)  # of the machines that ever publish into one OUTPUT, at most
RECORDED = ("reelmap", "ray", "torch", "torchvision", "av", "pyarrow", "numpy", "scenedetect", "s3fs")


class RunBroken(Exception):
    """The flow itself cannot run, such as an actor that cannot start: no video is to blame."""


class TooManyFailed(Exception):
    """More videos fail than the settings allow: something is wrong with the run as a whole."""


@dataclass(frozen=True)
class Job:
    """What is to be done: the library's videos, less those that are done."""

    library: str
    output: str
    settings: Settings
    bundle: Bundle
    listed: pa.Table
    todo: pa.Table
    retry_failed: bool = False
    from_proxies: bool = False  # `library` is the OUTPUT of another run
    superseded: int = 0  # how many of `todo` have a good result of other settings or weights

    @property
    def settings_key(self) -> str:
        return self.settings.key(self.bundle, self.from_proxies)


@dataclass
class Outcome:
    run_id: str
    counts: Counts
    # stopped: at the deadline, with videos left that did not begin or did not come to their end
    state: Literal["running", "finished", "stopped", "interrupted", "failed"] = "running"
    error: Exception | None = None  # why it failed
    start_s: float = 0.0  # what the connection and the plan took before it
    record: dict[str, Any] = field(default_factory=dict)  # what runs/ID.json said in the end
    uris: dict[str, str] = field(default_factory=dict)  # video_id -> uri of what was published
    lost: dict[str, str] = field(default_factory=dict)  # those of them that only got a failure of the run

    def fail(self, error: Exception) -> None:
        self.state, self.error = "failed", error


def make_job(
    library: str,
    output: str,
    settings: Settings,
    bundle: Bundle,
    listed: pa.Table,
    retry_failed: bool = False,
    from_proxies: bool = False,
) -> Job:
    """Raises StorageError when OUTPUT cannot be read."""
    settings_key = settings.key(bundle, from_proxies)
    statuses = (OK,) if retry_failed else (OK, DROPPED, FAILED)
    newest = tables.current(output)
    done = tables.done(output, settings_key, statuses, newest)
    done -= tried_again(output, settings_key) | again.asked(output)
    todo = listed.filter(
        pc.invert(pc.is_in(listed["video_id"], value_set=pa.array(sorted(done), pa.string())))
    )
    other = pc.and_(pc.equal(newest["status"], OK), pc.not_equal(newest["settings_key"], settings_key))
    replaced = pc.is_in(todo["video_id"], value_set=newest.filter(other)["video_id"].combine_chunks())
    superseded = pc.sum(replaced).as_py() or 0
    return Job(library, output, settings, bundle, listed, todo, retry_failed, from_proxies, superseded)


def new_run_id() -> str:
    """Sorts by time, and no two runs share it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def run(
    job: Job, run_id: str, plan: Plan, console: Any, gate: Gate | None = None, start_s: float = 0.0
) -> Outcome:
    """Does the job on the connected Ray, or in processes where the plan has some.

    Unless it is stopped, every video of `todo` ends in `videos/`.
    What stops it is in the outcome; what was published by then stays. With a `gate`, videos that would not
    be done in time do not begin, and what is under way long after its deadline (pipeline/overdue.py) is left.
    """
    started_at = datetime.now(UTC)
    size_bytes = pc.sum(job.todo["size_bytes"]).as_py() or 0
    counts = Counts(len(job.todo), size_bytes, decodes=not job.from_proxies)
    outcome = Outcome(run_id, counts, start_s=start_s)
    publish = Publish(
        job.output,
        run_id,
        job.settings_key,
        codec_of(job.settings, job.bundle),
        width(job.bundle, job.settings.features.kind),
        published_lately(job, started_at),
    )
    logs.at(logs.Place(run_id))
    logs.log.info("the run begins: %d of %d videos to do", counts.total, len(job.listed))
    meter = Meter() if plan.processes else open_meter(run_id)
    reporter = Reporter(meter, run_id, logs.wanted())
    reporter.plan(counts.total)
    failed_in: Counter[str] = Counter()
    results = attempts(job, plan, publish, reporter, gate)
    file = storage.join(job.output, "runs", f"{run_id}.json")

    def so_far() -> dict[str, Any]:
        return record(job, outcome, plan, started_at, display.read())

    # A run that is stopped tells Ray to stop here, not whenever the generator is collected.
    over = threading.Event()
    beat = Heartbeat(file, so_far)
    with Display(counts, meter, console) as display, closing(results), beat:
        try:
            with overdue(gate, over):
                for result in results:
                    outcome.uris[result["video_id"]] = result["uri"]
                    _count(counts, result)
                    reporter.publish(result)
                    display.message(_line(counts, result), warn=result["status"] != OK)
                    if result["stage"] == LOST:  # these come last, when there is nothing left to be stopped
                        outcome.lost[result["video_id"]] = storage.shown(result["uri"])
                        continue
                    failed_in[result["stage"]] += result["status"] == FAILED
                    check_share(job.settings.run, failed_in, counts)
            outcome.state = "stopped" if gate and counts.finished < counts.total else "finished"
        except KeyboardInterrupt:
            outcome.state = "stopped" if over.is_set() else "interrupted"
        except (RunBroken, TooManyFailed, storage.StorageError, ray.exceptions.RayError) as error:
            outcome.fail(error)
        totals = display.read()
    outcome.record = record(job, outcome, plan, started_at, totals)
    try:
        beat.end(outcome.record)
    except storage.StorageError as error:
        if not outcome.error:
            outcome.fail(error)
    logs.at(logs.Place(run_id))
    logs.log.info("the run ends: %s", outcome.state, extra={"seconds": round(counts.elapsed_s, 3)})
    return outcome


def published_lately(job: Job, now: datetime) -> dict[str, datetime]:
    """video_id -> when the last result of a video of `todo` was published, if a clock may be behind that.

    Results that are older than CLOCKS_APART are older by every clock, and not carried to the workers.
    """
    newest = tables.current(job.output)
    mine = pc.is_in(newest["video_id"], value_set=job.todo["video_id"].combine_chunks())
    late = pc.greater(newest["published_at"], pa.scalar(now - CLOCKS_APART, TIMESTAMP))
    rows = newest.filter(pc.and_(mine, late))
    return dict(zip(rows["video_id"].to_pylist(), rows["published_at"].to_pylist(), strict=True))


def check_share(settings: RunSettings, failed_in: Counter[str], counts: Counts) -> None:
    """Raises TooManyFailed when more videos fail, by stage, than the settings allow."""
    failed, finished = failed_in.total(), counts.finished
    if finished < settings.min_finished or failed <= settings.max_failed_share * finished:
        return
    stage, most = failed_in.most_common(1)[0]
    raise TooManyFailed(
        f"{failed} of {finished} videos failed ({most} of them in {stage}), and run.max_failed_share is "
        f"{settings.max_failed_share:g}: `reelmap failures` lists them, and with --retry plans them again"
    )


def record(job: Job, outcome: Outcome, plan: Plan, started_at: datetime, totals: Totals) -> dict[str, Any]:
    """What runs/ID.json says, while the run is on and in the end."""
    counts = outcome.counts
    now = datetime.now(UTC).isoformat()
    bundle = storage.shown(job.settings.bundle) if job.settings.bundle else None
    return {
        "run_id": outcome.run_id,
        "library": storage.shown(job.library),
        "from_proxies": job.from_proxies,
        "state": outcome.state,
        "error": in_words(outcome.error) if outcome.error else None,
        "started_at": started_at.isoformat(),
        "updated_at": now,
        "finished_at": None if outcome.state == "running" else now,
        "settings": job.settings.model_dump(mode="json") | {"bundle": bundle},
        "settings_key": job.settings_key,
        "bundle": {"uri": storage.shown(job.bundle.uri), "key": job.bundle.key()},
        "plan": plan.facts(),
        "data_context": None if plan.processes else _flow().context_facts(),
        "versions": {name: version(name) for name in RECORDED} | {"python": platform.python_version()},
        "counts": {
            "listed": len(job.listed),
            "planned": counts.total,
            "ok": counts.ok,
            "dropped": counts.dropped,
            "failed": counts.failed,
            "clips": counts.clips,
        },
        "lost": dict(outcome.lost),
        "video_s": counts.video_s,
        "reel_s": counts.reel_s,
        "wall_s": counts.elapsed_s,
        "video_hours_per_hour": counts.hours_per_hour,
        "decoded_s": totals.decoded_s,
        "share_done": share_done(counts, totals),
        "start_s": outcome.start_s,
        "stages": {
            # gather and publish have one worker
            name: seconds_of(stage, getattr(plan, name, 1), counts.elapsed_s)
            for name, stage in dict(totals.stages).items()
        },
    }


def _flow() -> ModuleType:
    from pipeline import flow  # Ray Data: a second and 60 MB, and a run in processes has no use for it

    return flow


def codec_of(settings: Settings, bundle: Bundle) -> tuple[str, str]:
    """Kind and hash of the codec that reads the proxies of a run."""
    if settings.codec.kind == "none":
        return "none", ""
    return settings.codec.kind, bundle.card("codec")["sha256"]


def attempts(
    job: Job, plan: Plan, publish: Publish, reporter: Reporter, gate: Gate | None = None
) -> Iterator[dict[str, Any]]:
    """Plans what is left until nothing is, or until ATTEMPTS have brought nothing; yields what is published.

    Videos under which workers died (pipeline/suspects.py) come last, alone, in as many attempts of their own.
    Raises RunBroken when even the last attempt fell as a whole before any video came out of it.
    """
    left = {
        row["video_id"]: {
            "video_id": row["video_id"],
            "settings_key": job.settings_key,
            "uri": row["uri"],
            "etag": row["etag"],
            "size_bytes": row["size_bytes"],
            "modified_at": row["modified_at"],
            "failure": None,
        }
        for row in job.todo.to_pylist()
    }
    witness = DriverWitness(gate) if plan.processes else open_witness(gate)
    why, broken = "", False

    def finished(result: dict[str, Any]) -> dict[str, Any]:
        if gate:
            witness.finish(result["video_id"])
        return result

    def attempt(these: set[str], plan: Plan) -> Iterator[dict[str, Any]]:
        """One pass over `these`, which takes out of `left` what is published."""
        nonlocal why, broken
        why, broken, before = WORKER_OR_STORAGE, False, len(left)
        todo = to_table([row for video_id, row in left.items() if video_id in these], LISTED)
        archive = job.library if job.from_proxies else None
        reporter.begin(FROM_PROXIES if job.from_proxies else STAGES, len(todo))
        one_pass = Pass(todo, job.settings, plan, publish, reporter, witness, archive)
        results_of = here.results if plan.processes else _flow().results
        try:
            with closing(results_of(one_pass)) as parts:
                for batch in parts:
                    for result in batch.to_pylist():
                        if left.pop(result["video_id"], None):
                            yield finished(result)
        except (ray.exceptions.RayError, Stopped) as error:  # the whole topology fell
            why, broken = in_words(error), True
        # A worker may have died between writing a part and saying so.
        for result in _written(job.output, publish.run_id, set(left)):
            del left[result["video_id"]]
            yield finished(result)
        broken = broken and len(left) == before

    def tried(these: Callable[[], set[str]], plan: Plan) -> Iterator[dict[str, Any]]:
        in_vain = 0
        while in_vain < ATTEMPTS and (now := these()):
            before = len(left)
            yield from attempt(now, plan)
            in_vain = in_vain + 1 if len(left) == before else 0

    def late() -> set[str]:
        return (witness.late(left) or set()) if gate else set()

    def in_time() -> set[str]:
        if gate:
            witness.reconsider()
        return left.keys() - witness.suspects(left) - late()

    yield from tried(in_time, plan)
    if suspects := witness.suspects(left) - late():
        witness.try_alone()
        yield from tried(lambda: suspects & left.keys(), plan.alone())
    if broken:
        raise RunBroken(why)
    # The next run begins what is late; where nobody knows what is, nothing is said to be lost.
    unbegun = witness.late(left) if gate else set()
    for video_id in set(left) if unbegun is None else unbegun:
        del left[video_id]
    yield from give_up(job.output, job.settings_key, publish, list(left.values()), why)


def _written(output: str, run_id: str, video_ids: set[str]) -> Iterator[dict[str, Any]]:
    """Those of the videos that this run has published already, as the flow would have said it."""
    if not video_ids:
        return
    newest = tables.current(output)

    def rows(table: tables.Table, *columns: str) -> dict[str, dict[str, Any]]:
        found = tables.read(output, table, ["video_id", *columns], video_ids, newest)
        return {row["video_id"]: row for row in found.to_pylist()}

    reels, failures = rows("reels", "duration_s"), rows("failures", "stage", "reason")
    for video_id, video in rows("videos", "uri", "status", "run_id", "duration_s", "clips").items():
        if video["run_id"] == run_id:
            failure, reel = failures.get(video_id, {}), reels.get(video_id, {})
            yield video | {
                "clips": video["clips"] or 0,
                "stage": failure.get("stage"),
                "reason": failure.get("reason"),
                "reel_s": reel.get("duration_s"),
            }


def in_words(error: Exception) -> str:
    """What an error says; of a remote one, which quotes a whole trace, the line that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ray.exceptions.RayError):
        lines = lines[-1:]
    return without_secrets(" ".join(lines) or repr(error))


def _count(counts: Counts, result: dict[str, Any]) -> None:
    if result["status"] == OK:
        counts.ok += 1
        counts.clips += result["clips"]
        counts.video_s += result["duration_s"] or 0.0
        counts.reel_s += result["reel_s"] or 0.0
    elif result["status"] == DROPPED:
        counts.dropped += 1
    else:
        counts.failed += 1


def _line(counts: Counts, result: dict[str, Any]) -> str:
    name = storage.shown(result["uri"]).rsplit("/", 1)[-1]
    place = f"[{counts.finished}/{counts.total}] {name}"
    if result["status"] == OK:
        reel = "" if result["reel_s"] is None else f"{result['reel_s']:.1f} s of "
        return f"{place}: {reel}{result['duration_s']:.1f} s, {result['clips']} clips"
    return f"{place}: {result['status']} in {result['stage']}: {result['reason']}"
