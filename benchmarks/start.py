"""How soon something happens: a help page, and the first shard of a library that is decoded.

    python -m benchmarks.start [--rounds 5] [--json FILE]

--help         beside `python -c pass`, wall seconds
first shard    from the start of `reelmap highlights` on one small video to that of its decoding, in processes
               and on Ray, beside what Ray alone takes to start and run a task that does nothing

Rounds are interleaved; medians.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import click

from pipeline import tables
from tests.media import make_video

RAY = """
import ray
ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
ray.get(ray.remote(lambda: None).remote())
"""


def seconds_of(*command: str) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def until_first_shard(library: Path, output: Path, engine: str) -> tuple[float, float]:
    """Seconds to the start of the first decoding, and of the whole command."""
    began, clock = datetime.now(UTC), time.monotonic()
    command = [sys.executable, "-m", "jobs.cli", "highlights", str(library), str(output), "--target", "2s"]
    subprocess.run([*command, "--set", f"run.engine={engine}"], check=True, stderr=subprocess.DEVNULL)
    whole_s = time.monotonic() - clock
    (video,) = tables.read(str(output), "videos", ["shard_log"]).to_pylist()
    first = min(shard["decode_started_at"] for shard in video["shard_log"])
    return (first.replace(tzinfo=UTC) - began).total_seconds(), whole_s


@click.command(help=__doc__.splitlines()[0])
@click.option("--rounds", default=5, type=click.IntRange(1), show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(rounds: int, json_file: Path | None) -> None:
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch, "library")
        library.mkdir()
        make_video(library / "one.mp4", seconds=6, shots=3)
        for number in range(rounds):
            found["python -c pass"].append(seconds_of(sys.executable, "-c", "pass"))
            found["reelmap --help"].append(seconds_of(sys.executable, "-m", "jobs.cli", "--help"))
            found["Ray alone, one task"].append(seconds_of(sys.executable, "-c", RAY))
            for engine in ("processes", "ray"):
                output = Path(scratch, f"{engine}-{number}")
                first_s, whole_s = until_first_shard(library, output, engine)
                found[f"{engine}: first shard begins"].append(first_s)
                found[f"{engine}: one video of 6 s"].append(whole_s)
    for name, seconds in found.items():
        print(f"{name:>30s} {median(seconds):7.2f} s   {min(seconds):.2f} to {max(seconds):.2f}")
    if json_file:
        json_file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
