"""`reelmap recut OUTPUT`: other reels from what is known already, beside those that are there."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from ray.exceptions import RayError

from cluster.connect import connection
from jobs.highlights import (
    DONE,
    SOME_FAILED,
    CannotStart,
    Say,
    exit_code,
    saying,
    starting,
)
from jobs.models import open_models
from jobs.plan import plan_job
from jobs.preflight import preflight
from pipeline import cuts, schema, storage
from pipeline.config import Settings, load_settings
from pipeline.lease import lease
from pipeline.library import LibraryError
from pipeline.noted import noted
from pipeline.processes import Stopped
from pipeline.progress import make_console
from pipeline.recut import list_results, todo_of
from pipeline.recutting import Recutting
from pipeline.report import behind, write_report
from pipeline.run import Job, RunBroken, in_words, new_run_id
from pipeline.wording import several, size
from stages.colour import Grade
from stages.effects import Effects
from stages.nn.weights import Bundle

HOLDER = "recut"  # of the lease


@dataclass(frozen=True)
class Options:
    output: str
    name: str | None = None
    config: str | None = None
    flags: tuple[tuple[str, object], ...] = ()
    assignments: tuple[str, ...] = ()
    address: str | None = None


@dataclass(frozen=True)
class Wanted:
    """Cuts of these videos, under this name."""

    output: str
    name: str
    settings: Settings
    bundle: Bundle
    videos: list[dict[str, Any]]  # see list_results

    @property
    def settings_key(self) -> str:
        return self.settings.key(self.bundle)

    def facts(self, command: str) -> dict[str, Any]:
        """What pipeline/noted.py keeps of it."""
        key, videos = self.settings_key, len(self.videos)
        return {"command": command, "name": self.name, "settings_key": key, "videos": videos}

    def todo(self, known: cuts.Known) -> pa.Table:
        done = known.done(self.name, self.settings_key)
        return todo_of(self.videos, self.name, self.settings_key, done)


def recut(options: Options) -> int:
    """The exit code: 0 all done, 1 some failed or were put off, 2 could not start, 130 interrupted."""
    console = make_console()
    say = saying(console)

    def carry_out() -> int:
        with starting():
            wanted = prepare(options)
            known = cuts.Known(wanted.output)
            todo = len(wanted.todo(known))
            pages = behind(known)
        videos = len(wanted.videos)
        say(f"cut {wanted.name!r} of {several(videos, 'video')}, {videos - todo} done already, {todo} to do")
        # A killed recut leaves pages that do not tell of its last cuts.
        return work(wanted, options.address, say) if todo or pages else DONE

    return exit_code(carry_out, say)


def prepare(options: Options) -> Wanted:
    """Everything that can be checked before any work is done."""
    settings = settings_of(options)
    name = cuts.check_name(options.name or usual_name(options, settings))
    bundle = open_look(settings)
    output = storage.absolute(options.output)
    videos = list_results(output, settings.library)
    if not videos:
        raise LibraryError(f"no video of {storage.shown(output)} passes the filters")
    storage.check_writable(output)
    return Wanted(output, name, settings, bundle, videos)


def usual_name(options: Options, settings: Settings) -> str:
    """What a cut is called if nothing is said: as its preset, or by its length."""
    preset = dict(options.flags).get("preset")
    return PurePosixPath(str(preset)).stem if preset else settings.cut.target.replace("%", "pct")


def open_look(settings: Settings) -> Bundle:
    """The bundle, in which there is what a render needs. Raises BundleError."""
    bundle = open_models(settings.bundle)
    Grade(settings.colour, bundle)
    Effects(settings.effects, bundle)
    return bundle


def settings_of(options: Options) -> Settings:
    return load_settings(options.config, dict(options.flags), options.assignments)


def work(wanted: Wanted, address: str | None, say: Say) -> int:
    """Holds OUTPUT, makes the cuts, tidies; writes the pages of the videos, also where it is stopped."""
    run_id = new_run_id()
    with ExitStack() as stack:
        with starting():
            held = stack.enter_context(lease(wanted.output, HOLDER))
            storage.sweep_temporary(wanted.output)
            # Another run may have made some of them before the lease was ours.
            known = cuts.Known(wanted.output)
            known.sweep()
            job = Recutting(known, wanted.settings, wanted.todo(known), held.check)
        with noted(wanted.output, run_id, wanted.facts(HOLDER), job.counts):
            try:
                with closing(made(job, wanted, address, run_id, say)) as rows:
                    for number, row in enumerate(rows, 1):
                        say(f"[{number}/{len(job.todo)}] {line(row, wanted)}")
            finally:
                held.check()
                known.sweep()
                page = write_report(wanted.output, set(), known)
        for uri, why in job.put_off.items():
            say(f"put off: {storage.shown(uri)}: {why}")
        say(summary(job.made))
        say(f"report: {storage.shown(page)}")
    failed = any(row["status"] != schema.OK for row in job.made)
    return SOME_FAILED if failed or job.put_off else DONE


def made(
    job: Recutting, wanted: Wanted, address: str | None, run_id: str, say: Say
) -> Iterator[dict[str, Any]]:
    """The rows of the cuts, as they are done: in processes here, on the cluster if there is an address."""
    if not len(job.todo):
        return
    if address is None:
        try:
            with closing(job.here()) as rows:
                yield from rows
        except Stopped as error:
            raise stopped(error, job.made or job.put_off) from error
        return
    with ExitStack() as stack:
        with starting(RayError, RuntimeError):
            stack.enter_context(connection(address))
            # Sources are read by the workers, results by everybody: the checks are those of a whole run.
            whole = Job(wanted.output, wanted.output, wanted.settings, wanted.bundle, job.todo, job.todo)
            planned = plan_job(whole, address, sum(video["duration_s"] or 0.0 for video in wanted.videos))
            plan = planned.plan.renders_only(planned.resources, len(job.todo))
            for remark in preflight(whole, plan, address):
                say(remark)
        with closing(job.on_cluster(plan, run_id)) as rows:
            yield from rows


def stopped(error: Stopped, work_done: object) -> Exception:
    """What a worker that cannot begin means for the command: it could not start, or it broke off."""
    return RunBroken(str(error)) if work_done else CannotStart(in_words(error))


def line(row: dict[str, Any], wanted: Wanted) -> str:
    names = {video["video_id"]: storage.shown(video["uri"]).rsplit("/", 1)[-1] for video in wanted.videos}
    if row["status"] != schema.OK:
        return f"{names[row['video_id']]}: {row['status']} in {row['stage']}: {row['reason']}"
    return (
        f"{names[row['video_id']]}: {row['duration_s']:.1f} s in {several(len(row['edits']), 'edit')}, "
        f"read {size(row['read_bytes'])} of {size(row['source_bytes'])}"
    )


def summary(rows: list[dict[str, Any]]) -> str:
    good = [row for row in rows if row["status"] == schema.OK]
    read, whole = (sum(row[name] for row in good) for name in ("read_bytes", "source_bytes"))
    share = f" ({read / whole:.0%})" if whole else ""
    bad = len(rows) - len(good)
    return f"{len(good)} ok, {bad} failed; read {size(read)} of sources of {size(whole)}{share}"
