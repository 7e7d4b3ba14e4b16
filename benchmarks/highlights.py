"""How well scores find what happens: our scorer beside baselines, on labelled videos composed of real ones.

    python -m benchmarks.highlights --data DIR [--json FILE] [--timelines 12] [--robustness-timelines 6]
    python -m benchmarks.highlights --data DIR --bundle FOLD_0 --bundle FOLD_1 ...    # cross-validation

DIR holds action/CLASS/* and dull/* (benchmarks/sources.py); benchmarks/compose.py makes timelines of them,
each is analysed as a run analyses a video, and every method scores it. Per timeline, on a grid of seconds
(the truth is what most of a second shows): average precision, whether the best second is a true one,
Kendall's tau-b and Spearman's rho against the truth; and of a reel of 15 %, cut by the product's own stage,
the share that is action. Then the scorer once more on the same timelines as they look after compression, in
the dark, with noise, small, and with few frames. Means over timelines.

With several bundles each is judged on timelines of what its scorer did not see. Of one folder that is
divided into folds (`reelmap train scorer --set folds=4 --set fold=0`, and so on) every class is judged by a
scorer that never saw it.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

from benchmarks import changes
from benchmarks.analysis import Analyser, differences
from benchmarks.changes import CHANGES, write_changed
from benchmarks.compose import Timeline, plan, write
from benchmarks.methods import METHODS, METRICS, SIGNALS, figures, ranked, scores
from benchmarks.sources import DataError, Footage, Which, choose, examine, listed
from jobs.train.metrics import average_precision
from stages.failure import Dropped, Failed
from stages.nn.weights import BundleError, open_bundle

DRAWS = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Task:
    timeline: Timeline
    bundle: str | None  # whose scorer is judged; None: the one in the package


@click.command(help=__doc__.splitlines()[0])
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--timelines", "count", default=12, type=click.IntRange(min=1), help="Of each bundle.")
@click.option("--robustness-timelines", default=6, type=click.IntRange(min=0))
@click.option(
    "--bundle", "uris", multiple=True, help="Model bundle to judge, or several; none: the one in the package."
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the videos here (GB), and use those that are here.",
)
@click.option("--split", "which", default="auto", type=click.Choice(get_args(Which)), show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--processes", default=2, type=click.IntRange(min=1), show_default=True)
def main(
    data: Path,
    json_file: Path | None,
    count: int,
    robustness_timelines: int,
    uris: tuple[str, ...],
    work: Path | None,
    which: Which,
    seed: int,
    processes: int,
) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        if work is None:
            kept, work = False, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="highlights-")))
        else:
            kept = True
            work.mkdir(parents=True, exist_ok=True)
        # Processes that are started afresh: a fork of one that has threads may hang.
        pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
        stack.callback(pool.shutdown, cancel_futures=True)
        try:
            tasks, footage, reasons = [], [], []
            for uri in uris or (None,):
                mine, why = usable(pool, data, uri, which)
                footage += mine
                reasons.append(why)
                tasks += [
                    Task(plan(mine, i % 2 == 1, np.random.default_rng([seed, i])), uri) for i in range(count)
                ]
            found = judge_all(pool, tasks, work, seed)
            # The first of every bundle, then the second of every bundle, and so on.
            in_turn = sorted(found, key=lambda i: (i % count, i))
            chosen = {i: tasks[i] for i in in_turn[:robustness_timelines]}
            changed = change_all(pool, chosen, work, kept)
        except (DataError, BundleError) as error:
            raise click.ClickException(str(error)) from error
    timelines = [task.timeline for task in tasks]
    result = summary(timelines, found, changed) | sources_of(
        list(dict.fromkeys(footage)), "; ".join(dict.fromkeys(reasons))
    )
    show(result)
    print(f"{time.monotonic() - began:.0f} s")
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")


def usable(pool: ProcessPoolExecutor, data: Path, uri: str | None, which: Which) -> tuple[list[Footage], str]:
    """What the timelines are composed of, and why that; says so. Raises DataError or BundleError."""
    seen = open_bundle(uri).card("scorer").get("trained", {}).get("files")
    sources = listed(data)
    if unlabelled := [path for path in (data / "long").rglob("*") if path.is_file()]:
        print(f"long/: {len(unlabelled)} files without labels, not used here")
    examined = dict(zip(sources, pool.map(examine, sources), strict=True))
    for source, footage in examined.items():
        if not isinstance(footage, Footage):
            print(f"left out: {source.name}: {footage}")
    choice = choose(
        [source for source, footage in examined.items() if isinstance(footage, Footage)], seen, which
    )
    print(f"sources: {choice.why}")
    chosen = [examined[source] for source in choice.sources]
    for action, what in ((True, "action"), (False, "dull")):
        mine = [item for item in chosen if item.source.action == action]
        if not mine:
            raise DataError(f"{data}: no {what} file is left to compose of")
        units = sorted({item.source.unit for item in mine})
        kind = "classes" if action else "recordings"
        print(f"{what}: {len(mine)} files, {len(units)} {kind}: {', '.join(units)}", flush=True)
    return chosen, choice.why


def judge_all(
    pool: ProcessPoolExecutor, wanted: Sequence[Task], work: Path, seed: int
) -> dict[int, dict[str, dict[str, float]]]:
    """Number of each timeline that could be analysed -> method -> figures. Raises DataError if none could."""
    tasks = {
        pool.submit(judge, task.timeline, work, task.bundle, [seed, i, 1]): (i,)
        for i, task in enumerate(wanted)
    }
    found = {}
    for (i,), result in finished(tasks, lambda i: f"timeline {i} ({described(wanted[i].timeline)})"):
        found[i] = result
    if not found:
        raise DataError("no timeline could be composed and analysed")
    return dict(sorted(found.items()))


def change_all(
    pool: ProcessPoolExecutor, wanted: dict[int, Task], work: Path, kept: bool
) -> dict[str, dict[int, float]]:
    """Change -> number of the timeline -> the scorer's AP on it."""
    tasks = {
        pool.submit(judge_changed, task.timeline, name, work, task.bundle, kept): (name, i)
        for i, task in wanted.items()
        for name in CHANGES
    }
    found: dict[str, dict[int, float]] = {name: {} for name in CHANGES}
    for (name, i), result in finished(tasks, lambda name, i: f"{name} of timeline {i}"):
        found[name][i] = result
    return found


def finished(tasks: dict[Future, tuple], name: Callable[..., str]) -> Iterator[tuple[tuple, Any]]:
    """Results as they come, with a line for each; what failed is named and left out."""
    for done, future in enumerate(as_completed(tasks), 1):
        key = tasks[future]
        try:
            result = future.result()
        except (Failed, Dropped) as error:
            print(f"{done}/{len(tasks)} left out: {name(*key)}: {error}", flush=True)
            continue
        print(f"{done}/{len(tasks)} {name(*key)}", flush=True)
        yield key, result


def described(timeline: Timeline) -> str:
    host = "action" if timeline.host_is_action else "dull"
    return f"{host} host, {timeline.length_s:.0f} s, {len(timeline.pieces)} pieces"


@lru_cache(maxsize=1)
def analyser(uri: str | None) -> Analyser:
    return Analyser.load(uri)


def composed(timeline: Timeline, work: Path) -> Path:
    return made(work / f"{timeline.key()}.mp4", lambda path: write(timeline, path))


def made(path: Path, make: Callable[[Path], None]) -> Path:
    """A file that is there already, or is made now and appears only when it is whole."""
    if not path.exists():
        partial = path.with_name(f"partial-{path.name}")
        try:
            make(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def judge(timeline: Timeline, work: Path, uri: str | None, seed: list[int]) -> dict[str, dict[str, float]]:
    """Method -> figures on one timeline."""
    analyse = analyser(uri)
    path = composed(timeline, work)
    video = analyse(path)
    video["differences"] = differences(path, video["times_s"])
    spans = timeline.spans()
    found = scores(video, np.random.default_rng(seed))
    return {name: figures(video, name, found[name], spans, analyse.cut) for name in (*METHODS, *SIGNALS)}


def judge_changed(timeline: Timeline, name: str, work: Path, uri: str | None, kept: bool) -> float:
    """The scorer's AP on a timeline after a change."""
    change, original = CHANGES[name], composed(timeline, work)
    # Of this process: another one may judge another bundle on the same timeline.
    path = work / f"{timeline.key()}-{name}-{changes.VERSION}{'' if kept else f'-{os.getpid()}'}.mp4"
    try:
        video = analyser(uri)(made(path, lambda path: write_changed(original, change, path)))
    finally:
        if not kept:
            path.unlink(missing_ok=True)
    return average_precision(*ranked(video, video["importance"], timeline.spans()))


def summary(
    timelines: Sequence[Timeline],
    found: dict[int, dict[str, dict[str, float]]],
    changed: dict[str, dict[int, float]],
) -> dict[str, Any]:
    """Means over timelines, rounded to what they can bear."""

    def mean(method: str, metric: str, numbers: Sequence[int]) -> float:
        return round(float(np.mean([found[i][method][metric] for i in numbers])), 4)

    by_host = {
        host: [i for i in found if timelines[i].host_is_action == action]
        for host, action in (("dull", False), ("action", True))
    }
    everywhere = [i for i in found if changed and all(i in aps for aps in changed.values())]
    return {
        "methods": {name: {m: mean(name, m, list(found)) for m in METRICS} for name in METHODS},
        "signals": {name: {m: mean(name, m, list(found)) for m in METRICS} for name in SIGNALS},
        "robustness": {
            name: round(float(np.mean([aps[i] for i in everywhere])), 4)
            for name, aps in changed.items()
            if everywhere
        },
        "timelines": len(found),
        "robustness_base": mean("scorer", "ap", everywhere) if everywhere else None,
        "robustness_timelines": len(everywhere),
        "ap_by_host": {
            name: {host: mean(name, "ap", mine) for host, mine in by_host.items() if mine}
            for name in (*METHODS, *SIGNALS)
        },
        "interval": interval([found[i]["scorer"]["ap"] for i in found]),
    }


def interval(values: Sequence[float]) -> list[float]:
    """95 % bootstrap interval of the mean over timelines.

    Timelines share sources: how it would be on other sources, the interval of more sources would say.
    """
    draws = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(axis=1)
    return [round(float(bound), 4) for bound in np.percentile(draws, (2.5, 97.5))]


def sources_of(footage: Sequence[Footage], why: str) -> dict[str, Any]:
    def units(action: bool) -> list[str]:
        return sorted({item.source.unit for item in footage if item.source.action == action})

    return {
        "sources": why,
        "files": {
            kind: sum(item.source.action == action for item in footage)
            for kind, action in (("action", True), ("dull", False))
        },
        "test_classes": units(True),
        "dull_recordings": units(False),
    }


def show(result: dict[str, Any]) -> None:
    low, high = result["interval"]
    print(f"\n{result['timelines']} timelines\n")
    print(f"{'':16}" + "".join(f"{name:>15}" for name in (*METRICS, "ap dull host", "ap action host")))
    for name, values in (result["methods"] | result["signals"]).items():
        hosts = result["ap_by_host"][name]
        shown = [*(f"{values[m]:.3f}" for m in METRICS)]
        shown += [f"{hosts[host]:.3f}" if host in hosts else "-" for host in ("dull", "action")]
        print(f"{name:16}" + "".join(f"{text:>15}" for text in shown))
    print(f"\nscorer: AP {result['methods']['scorer']['ap']:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    if result["robustness"]:
        base = result["robustness_base"]
        print(f"\nscorer's AP on {result['robustness_timelines']} timelines: {base:.3f}; changed:")
        for name, ap in result["robustness"].items():
            print(f"{name:16}{ap:8.3f}{ap - base:+8.3f}")


if __name__ == "__main__":
    main()
