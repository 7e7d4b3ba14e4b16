"""One run: list - done -> plan -> flow -> publish, again for what was lost, then the record in runs/."""

import json
import platform
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from cluster.plan import Plan
from pipeline import flow, storage, tables
from pipeline.config import Settings
from pipeline.progress import Counts, Display, Meter, Reporter
from pipeline.publish import Publish
from pipeline.rows import LISTED, to_table
from pipeline.schema import DROPPED, FAILED, OK
from stages.nn import cnn
from stages.nn.weights import Bundle

# What a dying node or actor takes with it is planned again; after this often the video gets the blame.
ATTEMPTS = 3
RECORDED = ("reelmap", "ray", "torch", "torchvision", "av", "pyarrow", "numpy", "scenedetect", "s3fs")


@dataclass(frozen=True)
class Job:
    """What is to be done: the library's videos, less those that are done."""

    library: str
    output: str
    settings: Settings
    bundle: Bundle
    listed: pa.Table
    todo: pa.Table

    @property
    def settings_key(self) -> str:
        return self.settings.key(self.bundle)


@dataclass
class Outcome:
    run_id: str
    counts: Counts
    interrupted: bool
    uris: dict[str, str]  # video_id -> uri of what was published


def make_job(library: str, output: str, settings: Settings, bundle: Bundle, listed: pa.Table) -> Job:
    """Raises StorageError when OUTPUT cannot be read."""
    done = tables.done(output, settings.key(bundle))
    todo = listed.filter(
        pc.invert(pc.is_in(listed["video_id"], value_set=pa.array(sorted(done), pa.string())))
    )
    return Job(library, output, settings, bundle, listed, todo)


def new_run_id() -> str:
    """Sorts by time, and no two runs share it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def run(job: Job, run_id: str, plan: Plan, console: Any) -> Outcome:
    """Does the job on the connected Ray; unless interrupted, every video of `todo` ends in `videos/`."""
    started_at = datetime.now(UTC)
    counts = Counts(total=len(job.todo), size_bytes=pc.sum(job.todo["size_bytes"]).as_py() or 0)
    publish = Publish(
        job.output,
        run_id,
        job.settings_key,
        codec_of(job.settings, job.bundle),
        cnn.width(job.bundle, job.settings.features.kind),
    )
    meter = Meter.remote()
    published: dict[str, str] = {}
    interrupted = False
    with Display(counts, meter, console) as display:
        try:
            for result in _attempts(job, plan, publish, Reporter(meter), published):
                _count(counts, result)
                display.message(_line(counts, result))
        except KeyboardInterrupt:
            interrupted = True
        totals = display.read()
    record = {
        "run_id": run_id,
        "library": job.library,
        "state": "interrupted" if interrupted else "finished",
        "started_at": started_at.isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        "settings": job.settings.model_dump(mode="json"),
        "settings_key": job.settings_key,
        "bundle": {"uri": job.bundle.uri, "key": job.bundle.key()},
        "plan": plan.facts(),
        "data_context": flow.context_facts(),
        "versions": {name: version(name) for name in RECORDED} | {"python": platform.python_version()},
        "counts": {
            "listed": len(job.listed),
            "planned": counts.total,
            "ok": counts.ok,
            "dropped": counts.dropped,
            "failed": counts.failed,
            "clips": counts.clips,
        },
        "video_s": counts.video_s,
        "reel_s": counts.reel_s,
        "wall_s": counts.elapsed_s,
        "video_hours_per_hour": counts.hours_per_hour,
        "stages": {name: vars(stage) for name, stage in totals.stages.items()},
    }
    storage.write_bytes(
        storage.join(job.output, "runs", f"{run_id}.json"), json.dumps(record, indent=1).encode()
    )
    return Outcome(run_id, counts, interrupted, published)


def codec_of(settings: Settings, bundle: Bundle) -> tuple[str, str]:
    """Kind and hash of the codec that reads the proxies of a run."""
    if settings.codec.kind == "none":
        return "none", ""
    return settings.codec.kind, bundle.card("codec")["sha256"]


def _attempts(
    job: Job, plan: Plan, publish: Publish, reporter: Reporter, published: dict[str, str]
) -> Iterator[dict[str, Any]]:
    rows = [
        {
            "video_id": row["video_id"],
            "settings_key": job.settings_key,
            "uri": row["uri"],
            "etag": row["etag"],
            "size_bytes": row["size_bytes"],
            "modified_at": row["modified_at"],
            "failure": None,
        }
        for row in job.todo.to_pylist()
    ]
    why = "the process that worked on it died, or its results could not be written"
    for _ in range(ATTEMPTS):
        left = [row for row in rows if row["video_id"] not in published]
        if not left:
            return
        ds = flow.build(to_table(left, LISTED), job.settings, plan, publish, reporter)
        try:
            for batch in ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for result in batch.to_pylist():
                    if result["video_id"] not in published:
                        published[result["video_id"]] = result["uri"]
                        yield result
        except (
            ray.exceptions.RayError
        ) as error:  # the whole topology fell, such as an actor that cannot start
            why = str(error).strip().splitlines()[-1]
    for row in rows:
        if row["video_id"] not in published:
            lost = {
                "status": FAILED,
                "stage": "run",
                "reason": f"lost {ATTEMPTS} times: {why} (see the logs of Ray)",
                "failed_at": datetime.now(UTC),
            }
            for batch in publish(to_table([row | {"failure": lost}], LISTED)):
                published[row["video_id"]] = row["uri"]
                yield from batch.to_pylist()


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
        return f"{place}: {result['reel_s']:.1f} s of {result['duration_s']:.1f} s, {result['clips']} clips"
    return f"{place}: {result['status']} in {result['stage']}: {result['reason']}"
