"""`reelmap tune LIBRARY`: measures on a few videos what each stage costs here, for the plans of later runs.

A real run into a folder that is thrown away, with one worker in every pool and one thread in each, so that a
stage's wall time is its own work and its waiting, and not that of its neighbours.
"""

import platform
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ray.exceptions import RayError

from cluster.connect import connection
from cluster.machine import cores
from cluster.plan import plan_for
from cluster.resources import Resources, connected
from cluster.speeds import SHIPPED, STAGES, Cost, Speeds, default_file, write
from jobs.highlights import CannotStart, Options, Say, prepare, saying, starting
from pipeline.library import LibraryError
from pipeline.progress import make_console
from pipeline.records import records
from pipeline.run import in_words, new_run_id, run

DONE, NOT_DONE, INTERRUPTED = 0, 2, 130
PREFIX = "reelmap-tune-"
SHORT_S = 20.0  # a shard of less costs more to open than to read: no measure of one of a minute


class NothingMeasured(ValueError):
    """The record of the run does not say what a stage costs."""


@dataclass(frozen=True)
class Tuning:
    library: str
    videos: int = 3
    out: str | None = None
    config: str | None = None
    assignments: tuple[str, ...] = ()


def tune(options: Tuning) -> int:
    """The exit code: 0 measured and written, 2 not, 130 interrupted."""
    console = make_console()
    say = saying(console)
    file = Path(options.out) if options.out else default_file()
    try:
        check_writable(file)
        with starting(RayError, RuntimeError, OSError), tempfile.TemporaryDirectory(prefix=PREFIX) as output:
            record, has = measure(options, output, console, say)
            speeds = speeds_of(record, has, described(has))
            write(speeds, file)
    except CannotStart as error:
        say(f"reelmap: {error}")
        return NOT_DONE
    except KeyboardInterrupt:
        say("interrupted: nothing was written")
        return INTERRUPTED
    for name in STAGES:
        cost = speeds.cost(name)
        say(f"  {name:8s} {cost.cpu_s:8.3f} CPU s and {cost.wait_s:.3f} s of waiting each")
    if busy_elsewhere(speeds):
        say(
            "the stages have waited for long: if other programs were at work here, measure again without them"
        )
    if speeds.shard_s < SHORT_S:
        say(f"the shards are short ({speeds.shard_s:.1f} s): longer videos would measure better")
    say(
        f"written to {file}; later plans use it" + (f" with --set pools.speeds={file}" if options.out else "")
    )
    return DONE


def check_writable(file: Path) -> None:
    """Before minutes of measuring, as in a container whose HOME is read-only. Raises CannotStart."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
        if file.exists():
            file.open("ab").close()
    except OSError as error:
        raise CannotStart(f"cannot write {file} ({error.strerror or error}): give --out FILE") from error


def measure(options: Tuning, output: str, console: Any, say: Say) -> tuple[dict[str, Any], Resources]:
    """The record of a run over some of the videos, and what it ran on."""
    job = prepare(Options(options.library, output, options.config, assignments=options.assignments))
    if not len(job.listed):
        raise LibraryError(f"no videos in {options.library} (or none that pass the filters)")
    job = replace(job, todo=some(job.todo, options.videos))
    say(f"measuring on {len(job.todo)} of {len(job.listed)} videos, one worker at a time")
    with connection("local"):
        has = connected("local")
        kind = "gpu" if has.gpus else "cpu"
        plan = replace(plan_for(has, SHIPPED[kind], len(job.todo)).alone(), threads=1)
        outcome = run(job, new_run_id(), plan, console)
    if outcome.error:
        raise NothingMeasured(f"the run broke off: {in_words(outcome.error)}")
    if outcome.state == "interrupted":
        raise KeyboardInterrupt
    return next(iter(records(output))), has


def some(todo: pa.Table, count: int) -> pa.Table:
    """`count` of the videos, from the smaller to the larger ones, without the extremes of a long list."""
    order = np.argsort(todo["size_bytes"].to_numpy(), kind="stable")
    places = (np.arange(count) + 0.5) * len(order) / count
    return todo.take(pa.array(sorted({int(order[int(place)]) for place in places}), pa.int64()))


def speeds_of(record: dict[str, Any], has: Resources, machine: str) -> Speeds:
    """What a run with one worker and one thread in each pool says of the costs.

    Raises NothingMeasured when no video came through.
    """
    stages, ok = record["stages"], record["counts"]["ok"]
    if not ok or not record["video_s"] or not stages.get("decode", {}).get("rows"):
        raise NothingMeasured("none of the videos came through: see with `reelmap highlights` what is wrong")
    kind = "gpu" if has.gpus else "cpu"
    shipped = SHIPPED[kind]
    found = {name: cost_of(stages.get(name), shipped.cost(name)) for name in STAGES}
    if kind == "gpu":
        # What an actor waits for on its GPU is not told apart from its own work. Looking is nearly all of it.
        found["look"] = found["look"].model_copy(update={"gpu_s": found["look"].wall_s()})
        share = shipped.render.gpu_s / shipped.render.cpu_s
        found["render"] = found["render"].model_copy(update={"gpu_s": share * found["render"].cpu_s})
    return Speeds(
        machine=machine,
        kind=kind,
        shard_s=record["video_s"] / stages["decode"]["rows"],
        video_s=record["video_s"] / ok,
        driver_s=shipped.driver_s,
        **found,
    )


def cost_of(stage: dict[str, Any] | None, shipped: Cost) -> Cost:
    """Per row; what was not measured costs what is shipped."""
    if not stage or not stage["rows"]:
        return shipped
    cpu_s, wall_s = stage["cpu_s"] / stage["rows"], stage["wall_s"] / stage["rows"]
    return Cost(cpu_s=round(cpu_s, 6), wait_s=round(max(0.0, wall_s - cpu_s), 6))


def busy_elsewhere(speeds: Speeds) -> bool:
    """Whether stages that compute have waited for half as long: storage seldom takes that much."""
    waited, computed = (
        sum(getattr(speeds.cost(name), what) for name in ("decode", "look", "render"))
        for what in ("wait_s", "cpu_s")
    )
    return speeds.kind == "cpu" and waited > computed / 2


def described(has: Resources) -> str:
    gpus = f", {has.gpus} GPUs" if has.gpus else ", no GPU"
    return f"{cores()} {platform.machine()} cores{gpus}, {datetime.now(UTC):%Y-%m-%d}"
