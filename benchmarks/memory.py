"""Peak memory of a whole run, all processes together, for a library and for the same listed several times.

    python -m benchmarks.memory LIBRARY [--times 3] [--set run.engine=ray] [--json FILE]
    python -m benchmarks.memory ONE_HOUR --beside TEN_HOURS [--set codec.kind=none] [--json FILE]

Prints the peak of the proportional set size (PSS: shared pages are counted once) over the driver, Ray's own
processes and all workers, sampled every half second.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

EVERY_S = 0.5


@click.command(help=__doc__.splitlines()[0])
@click.argument("library", type=click.Path(exists=True, file_okay=False))
@click.option("--times", default=3, help="How often the library is listed in the second run.")
@click.option("--beside", type=click.Path(exists=True, file_okay=False), help="Another library instead.")
@click.option("--target", default="20s")
@click.option("--set", "assignments", multiple=True, help="As of `reelmap highlights`.")
@click.option("--json", "json_file", type=click.Path())
def main(
    library: str,
    times: int,
    beside: str | None,
    target: str,
    assignments: tuple[str, ...],
    json_file: str | None,
) -> None:
    runs = {"the library": (library, 1), "beside it": (beside, 1) if beside else (library, times)}
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (folder, count) in runs.items():
            copied, output = Path(scratch, f"of {name}"), Path(scratch, f"output of {name}")
            videos = repeat(Path(folder), copied, count)
            peak_bytes, wall_s = measure(copied, output, target, assignments)
            figures[name] = {"videos": videos, "peak_bytes": peak_bytes, "wall_s": round(wall_s, 1)}
            print(f"{name}, {videos} videos: peak {peak_bytes / 2**20:.0f} MiB, {wall_s:.1f} s", flush=True)
    ratio = figures["beside it"]["peak_bytes"] / figures["the library"]["peak_bytes"]
    print(f"{ratio:.2f} x the memory")
    if json_file:
        Path(json_file).write_text(json.dumps({"runs": figures, "ratio": ratio}, indent=1))


def repeat(library: Path, folder: Path, times: int) -> int:
    """`times` copies of every file of the library under names of their own; returns how many there are."""
    folder.mkdir()
    for turn in range(times):
        for file in sorted(path for path in library.iterdir() if path.is_file()):
            shutil.copyfile(file, folder / f"{turn}-{file.name}")
    return len(list(folder.iterdir()))


def measure(library: Path, output: Path, target: str, assignments: tuple[str, ...] = ()) -> tuple[int, float]:
    """Peak PSS of one run with everything it starts, and its wall time."""
    began = time.monotonic()
    command = [sys.executable, "-m", "jobs.cli", "highlights", str(library), str(output), "--target", target]
    command += [word for assignment in assignments for word in ("--set", assignment)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    peak = 0
    while run.poll() is None:
        peak = max(peak, tree_bytes(run.pid))
        time.sleep(EVERY_S)
    if run.returncode not in (0, 1):
        raise click.ClickException(f"the run ended with {run.returncode}")
    return peak, time.monotonic() - began


def tree_bytes(pid: int) -> int:
    """PSS of a process and all its descendants, in bytes."""
    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended meanwhile
    return total


if __name__ == "__main__":
    main()
