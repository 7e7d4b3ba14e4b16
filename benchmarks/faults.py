"""Faults injected into running jobs, and what they cost: lost rows, doubled rows, innocents, time.

    python -m benchmarks.faults [--fault NAME ...] [--times 20] [--videos 12] [--json FILE]

driver                kill -9 of the command at a random moment, then the same command again
workers               kill -9 of workers of all stages at random moments; or of one: decode, look, ...
node                  kill -9 of a whole Ray node of three, at a random moment (another one joins)
spill                 the smallest object store that Ray allows, with rows that do not fit
disk                  a scratch disk too small for a reel; then the same command with room
poison                videos that do to whoever decodes them what their name says (a stand-in kills itself,
                      reads from 0, sleeps for ever with Python's lock held, takes memory without end)

A library of small videos, networks without training. After every run the tables are compared with those of
an undisturbed run: per video the same status and as many rows in each table, nothing else in OUTPUT.
"""

import contextlib
import io
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks.losses import Tally, Undisturbed, judge, rows_of, shown
from cluster.connect import connection
from jobs.highlights import Options, highlights
from pipeline import steps, tables
from stages.container import LimitSettings
from stages.decode import DecodeSettings, decode
from tests.bundles import make_bundle
from tests.media import make_video
from tests.poison import POISONS, poisoned

WORKERS = ("probe", "decode", "look", "gather", "score", "render", "publish")
FAULTS = ("workers", "poison", *WORKERS, "driver", "node", "spill", "disk")
# Of one run; a gather actor that dies takes all that it holds.
KILLS_PER_RUN = 24
BETWEEN_S = (0.2, 1.2)
AGAIN = 4  # the same command, until nothing is left to do
STALL_S = 8.0
MEMORY_BYTES = 1 << 30
DISK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bench:
    folder: Path
    bundle: str
    videos: int

    @property
    def library(self) -> Path:
        return self.folder / "library"

    def options(self, output: Path, library: Path | None = None) -> Options:
        limits = (("limits.stall_timeout_s", STALL_S), ("limits.max_memory_bytes", MEMORY_BYTES))
        flags = (("cut.target", "2s"), ("bundle", self.bundle), ("saliency.enabled", False), *limits)
        return Options(str(library or self.library), str(output), flags=flags)

    def new_output(self) -> Path:
        return self.folder / f"output-{secrets.token_hex(4)}"


@click.command(help=__doc__.splitlines()[0])
@click.option("--fault", "faults", multiple=True, help="NAME or NAME:TIMES; default: all.")
@click.option("--times", default=20, help="How often each fault is injected, at least.")
@click.option("--videos", default=12)
@click.option("--seed", default=0)
@click.option("--json", "json_file", type=click.Path())
def main(faults: tuple[str, ...], times: int, videos: int, seed: int, json_file: str | None) -> None:
    chosen = dict(parse(fault, times) for fault in faults or ("workers", "poison", *FAULTS[-4:]))
    dice, began = random.Random(seed), time.monotonic()
    inject = {"driver": kill_drivers, "node": kill_nodes, "spill": spill, "disk": fill_disk, "poison": poison}
    tallies = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        bench = prepare(Path(folder), videos)
        with connection(None):
            whole = undisturbed(bench)
            print(f"undisturbed: {whole.seconds:.1f} s for {videos} videos", flush=True)
            for fault in [fault for fault in chosen if fault in ("workers", "poison", *WORKERS)]:
                how = inject.get(fault, kill_workers)
                tallies.append(shown(how(bench, fault, chosen.pop(fault), whole, dice)))
        for fault, count in chosen.items():
            tallies.append(shown(inject[fault](bench, fault, count, whole, dice)))
    total = sum(tally.injected for tally in tallies)
    print(f"{total} faults in {time.monotonic() - began:.0f} s")
    if json_file:
        Path(json_file).write_text(json.dumps([vars(tally) for tally in tallies], indent=1))


def parse(fault: str, times: int) -> tuple[str, int]:
    name, _, count = fault.partition(":")
    if name not in FAULTS:
        raise click.BadParameter(f"{name}: not one of {', '.join(FAULTS)}")
    return name, int(count or times)


def prepare(folder: Path, videos: int) -> Bench:
    bench = Bench(folder, make_bundle(str(folder / "bundle")), videos)
    bench.library.mkdir()
    for number in range(videos):
        make_video(bench.library / f"{number:02d}.mp4", seconds=3 + number % 3, shots=2)
    return bench


def undisturbed(bench: Bench) -> Undisturbed:
    output, began = bench.new_output(), time.monotonic()
    run(bench.options(output))
    return Undisturbed(rows_of(output), time.monotonic() - began)


def run(options: Options) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        highlights(options)


def finished(tally: Tally, bench: Bench, output: Path, library: Path | None = None) -> None:
    """The command, and again while a run says that it has lost videos: the first such count as put off."""
    for attempt in range(1 + AGAIN):
        run(bench.options(output, library))
        put_off = tables.read(str(output), "failures", ["stage"])["stage"].to_pylist().count("run")
        tally.put_off += put_off if attempt == 0 else 0
        if not put_off:
            return


def kill_workers(bench: Bench, fault: str, times: int, whole: Undisturbed, dice: random.Random) -> Tally:
    tally = Tally(fault)
    stages = WORKERS if fault == "workers" else (fault,)
    for _ in range(times):  # a run may be over before its stage was met
        if tally.injected >= times:
            break
        output, began = bench.new_output(), time.monotonic()
        with killing(stages, min(times - tally.injected, KILLS_PER_RUN), dice) as killed:
            finished(tally, bench, output)
        tally.injected += len(killed)
        tally.kinds.update(killed)
        tally.runs += 1
        tally.extra_s += time.monotonic() - began - whole.seconds
        judge(tally, output, whole)
    return tally


@contextlib.contextmanager
def killing(stages: Sequence[str], most: int, dice: random.Random) -> Iterator[list[str]]:
    """Kills workers of ours of these stages, now and then, while inside; whose they were is in the list."""
    stop, killed = threading.Event(), []

    def kill() -> None:
        stop.wait(dice.uniform(*BETWEEN_S))
        while not stop.is_set() and len(killed) < most:
            stage = dice.choice(stages)
            if found := workers(stage):
                try:
                    os.kill(dice.choice(found), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed.append(stage)
                stop.wait(dice.uniform(*BETWEEN_S))
            else:
                stop.wait(0.02)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def workers(stage: str) -> list[int]:
    """Ray names its workers after what they do just now: `ray::MapBatches(decode)`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::") and f"({stage})" in name:
            found.append(process.pid)
    return found


def poison(bench: Bench, fault: str, times: int, whole: Undisturbed, dice: random.Random) -> Tally:
    """Two poisons of each kind among the healthy videos of a run."""
    tally = Tally(fault)
    library = bench.folder / "library-poison"
    library.mkdir()
    for file in bench.library.iterdir():
        (library / file.name).hardlink_to(file)
    healthy = sorted(bench.library.iterdir())
    while tally.injected < times:
        names = {f"{dice.randrange(bench.videos):02d}-{kind}-{n}.mp4" for kind in POISONS for n in (1, 2)}
        for name in names:
            (library / name).write_bytes(healthy[0].read_bytes())
        output, began = bench.new_output(), time.monotonic()
        with stand_in(poisoned):
            finished(tally, bench, output, library)
        tally.injected += len(names)
        tally.kinds.update(dict.fromkeys(POISONS, 2))
        tally.runs += 1
        tally.extra_s += time.monotonic() - began - whole.seconds
        judge(tally, output, whole, names)
        for name in names:
            (library / name).unlink()
    return tally


@contextlib.contextmanager
def stand_in(stage: Callable[..., Any]) -> Iterator[None]:
    before, steps.decode = steps.decode, stage
    try:
        yield
    finally:
        steps.decode = before


def kill_drivers(bench: Bench, fault: str, times: int, whole: Undisturbed, dice: random.Random) -> Tally:
    """Several kills on one OUTPUT, then the command that is let through."""
    tally = Tally(fault)
    start_s = 0.0
    while tally.injected < times:
        output, began = bench.new_output(), time.monotonic()
        for _ in range(min(times - tally.injected, KILLS_PER_RUN)):
            started = command(bench, output)
            try:
                started.wait(dice.uniform(0.5, whole.seconds + start_s + 4))
                break  # it was done before
            except subprocess.TimeoutExpired:
                tally.injected += 1
                family = psutil.Process(started.pid).children(recursive=True)
                started.kill()
                started.wait()
                psutil.wait_procs(family, timeout=30)
        last = time.monotonic()
        command(bench, output).wait(600)
        start_s = start_s or max(0.0, time.monotonic() - last - whole.seconds)
        tally.runs += 1
        tally.extra_s += time.monotonic() - began - whole.seconds - start_s
        judge(tally, output, whole)
    return tally


def command(bench: Bench, output: Path, **environment: str) -> subprocess.Popen:
    options = bench.options(output)
    sets = [word for name, value in options.flags for word in ("--set", f"{name}={json.dumps(value)}")]
    words = [sys.executable, "-m", "jobs.cli", "highlights", options.library, options.output, *sets]
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environment
    )


def kill_nodes(bench: Bench, fault: str, times: int, whole: Undisturbed, dice: random.Random) -> Tally:
    tally = Tally(fault)
    node = {"num_cpus": 4, "object_store_memory": 256 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    others = [cluster.add_node(**node) for _ in range(2)]
    try:
        while tally.injected < times:
            output, began, stop = bench.new_output(), time.monotonic(), threading.Event()

            def kill(stop: threading.Event = stop) -> None:
                for _ in range(2):
                    if stop.wait(dice.uniform(2, 10)):
                        return
                    cluster.remove_node(others.pop(0), allow_graceful=False)
                    tally.injected += 1
                    others.append(cluster.add_node(**node))

            thread = threading.Thread(target=kill, daemon=True)
            thread.start()
            finished(tally, bench, output)
            stop.set()
            thread.join()
            tally.runs += 1
            tally.extra_s += time.monotonic() - began - whole.seconds
            judge(tally, output, whole)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return tally


def spill(bench: Bench, fault: str, times: int, whole: Undisturbed, dice: random.Random) -> Tally:
    """One injection is one run on a store that cannot hold what is in flight."""
    tally = Tally(fault)
    ray.init("local", num_cpus=8, object_store_memory=78 << 20, include_dashboard=False, log_to_driver=False)
    before = steps.decode
    steps.decode = bulky
    try:
        for _ in range(max(1, times // 10)):
            output, began = bench.new_output(), time.monotonic()
            finished(tally, bench, output)
            tally.injected += 1
            tally.runs += 1
            tally.extra_s += time.monotonic() - began - whole.seconds
            judge(tally, output, whole)
    finally:
        steps.decode = before
        ray.shutdown()
    return tally


def bulky(row: dict[str, Any], settings: DecodeSettings, limits: LimitSettings) -> dict[str, Any]:
    """`decode`, with a thumbnail of 24 MB: a quarter of the store."""
    row = decode(row, settings, limits)
    return row | {"thumbnails": [row["thumbnails"][0] + bytes(24 << 20), *row["thumbnails"][1:]]}


def fill_disk(bench: Bench, fault: str, times: int, whole: Undisturbed, dice: random.Random) -> Tally:
    """One injection is one video that meets a full disk. Wants to mount a small tmpfs: root only."""
    tally = Tally(fault)
    small = bench.folder / "small"
    small.mkdir(exist_ok=True)
    while tally.injected < times:
        output, began = bench.new_output(), time.monotonic()
        size = dice.randrange(DISK_BYTES // 16, DISK_BYTES)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], check=True)
        try:
            command(bench, output, TMPDIR=str(small)).wait(600)
        finally:
            subprocess.run(["umount", "-l", str(small)], check=True)
        lost = tables.read(str(output), "failures", ["stage"])["stage"].to_pylist().count("run")
        tally.injected += max(1, lost)
        tally.put_off += lost
        command(bench, output).wait(600)
        tally.runs += 1
        tally.extra_s += time.monotonic() - began - whole.seconds
        judge(tally, output, whole)
    return tally


if __name__ == "__main__":
    main()
