"""What Ray, copies and waiting cost: a whole run beside the bare CPU seconds of its stages.

    python -m benchmarks.pipeline LIBRARY [--times 3] [--target 4s] [--json FILE]

bare   every stage on every video of the library, one after another in this process, one thread: CPU seconds
run    `reelmap highlights` on the library listed several times under other names: wall seconds, the start
       of Ray included, and what its stages say of themselves

The run cannot take less than the bare CPU seconds by the number of cores; `overhead` is what it takes more.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import cv2
import torch

from benchmarks.memory import repeat
from cluster.machine import cores
from pipeline.config import Settings, load_settings
from pipeline.making import open_render
from pipeline.records import records
from pipeline.steps import make_look, make_score
from stages.decode import decode
from stages.gather import merge
from stages.probe import probe


def bare(library: Path, settings: Settings) -> Counter[str]:
    """CPU seconds by stage."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    look, score, render = make_look(settings, 1), make_score(settings), open_render(settings)
    torch.set_num_threads(1)
    spent: Counter[str] = Counter()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        spent[name] += time.process_time() - began

    for path in sorted(library.iterdir()):
        listed = {"video_id": path.name, "uri": str(path), "etag": "", "failure": None}
        with stage("probe"):
            shards = list(probe(listed, settings.limits, settings.decode.shard_s))
        looked = []
        for shard in shards:
            with stage("decode"):
                decoded = decode(shard, settings.decode, settings.limits)
            with stage("look"):
                row = look(decoded)
            looked.append({name: value for name, value in row.items() if name != "frames"})
        with stage("score"):
            row = score(merge(looked, settings.decode.min_coverage))
        with stage("render"), tempfile.TemporaryDirectory() as folder:
            render(row, Path(folder))
    return spent


@click.command(help=__doc__.splitlines()[0])
@click.argument("library", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--times", default=3, type=click.IntRange(1), show_default=True)
@click.option("--target", default="4s", show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(library: Path, times: int, target: str, json_file: Path | None) -> None:
    spent = bare(library, load_settings(None, {"cut.target": target}, ()))
    with tempfile.TemporaryDirectory() as scratch:
        folder, output = Path(scratch, "library"), Path(scratch, "output")
        videos = repeat(library, folder, times)
        command = [sys.executable, "-m", "jobs.cli", "highlights", str(folder), str(output)]
        began = time.monotonic()
        subprocess.run([*command, "--target", target], check=True, stderr=subprocess.DEVNULL)
        wall_s = time.monotonic() - began
        (record,) = records(str(output))
    print(f"{videos} videos, {record['video_s'] / 60:.0f} minutes, reels of {target}, {cores()} cores\n")
    print(f"{'':>10s} {'bare CPU s':>11s} {'CPU s':>8s} {'wall s':>8s} {'copying s':>10s} {'waiting s':>10s}")
    for name, told in record["stages"].items():
        widths = {"cpu_s": 8, "wall_s": 8, "copy_s": 10, "waiting_s": 10}
        seconds = " ".join(f"{told[key]:{width}.1f}" for key, width in widths.items())
        print(f"{name:>10s} {times * spent[name]:11.1f} {seconds}")
    least_s = times * spent.total() / cores()
    flow_s = record["wall_s"]
    print(f"\nbare CPU seconds by cores: {least_s:.1f} s")
    print(f"with the pools up: {flow_s:.1f} s, overhead {flow_s / least_s - 1:.0%}")
    print(f"the whole command: {wall_s:.1f} s, overhead {wall_s / least_s - 1:.0%}")
    if json_file:
        facts = {"bare_cpu_s": spent, "times": times, "wall_s": wall_s, "record": record}
        json_file.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
