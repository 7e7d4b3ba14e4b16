"""What scoring costs: the Score stage alone on a long video, on one core.

    python -m benchmarks.scoring [--hours 2] [--bundle URI] [--json FILE]

Prints milliseconds per second of video (the median of five) and by how much memory grows while the stage
works, for this length and for twice as much.
"""

import json
import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch

from stages.features import FeatureSettings
from stages.loudness import STEP_S
from stages.nn.weights import Bundle, BundleError, open_bundle
from stages.score import Score, ScoreSettings

RUNS = 5
SAMPLES_HZ = 2.0
SCENE_S = 20.0


@click.command(help=__doc__.splitlines()[0])
@click.option("--hours", default=2.0, type=click.FloatRange(min=0, min_open=True), show_default=True)
@click.option("--bundle", "uri", help="Model bundle; none: the one in the package.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(hours: float, uri: str | None, json_file: Path | None) -> None:
    one_core()
    try:
        bundle = open_bundle(uri)
        score, width = load(bundle)
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    score(video(60.0, width))  # what is loaded on first use is no cost of a video
    # The longer one last: the mark of the most memory held never goes down.
    found = [measure(score, video(length_s, width)) for length_s in (3600 * hours, 7200 * hours)]
    for result in found:
        grown, given = result["growth_bytes"] / 2**20, result["input_bytes"] / 2**20
        print(
            f"{result['hours']:g} h, {result['samples']} samples of {width}: "
            f"{result['wall_ms_per_s']:.3f} ms ({result['cpu_ms_per_s']:.3f} ms of CPU) per second of video, "
            f"memory + {grown:.1f} MiB (the inputs are {given:.1f} MiB)"
        )
    if json_file:
        json_file.write_text(json.dumps(found[0] | {"twice": found[1]}, indent=1) + "\n")


def one_core() -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def load(bundle: Bundle) -> tuple[Score, int]:
    """The bundle's Score stage, and how wide the features are that it wants. Raises BundleError."""
    card = bundle.card("scorer")
    seen = card["settings"]["features"]
    features = FeatureSettings(kind=seen["kind"], weights=seen["weights"])
    return Score(ScoreSettings(kind=card["kind"]), bundle, features), seen["width"]


def video(length_s: float, width: int) -> dict[str, np.ndarray]:
    """What gather hands on for a video: scenes of SCENE_S, each around a vector of its own."""
    rng = np.random.default_rng(0)
    count = round(length_s * SAMPLES_HZ)
    scenes = rng.normal(size=(int(length_s / SCENE_S) + 1, width)).astype(np.float16)
    scene = (np.arange(count) / SAMPLES_HZ / SCENE_S).astype(int)
    features = np.empty((count, width), np.float16)
    # In small pieces, so that the mark of the most memory held stays that of the result.
    for start in range(0, count, 256):
        part = scenes[scene[start : start + 256]]
        features[start : start + len(part)] = part + 0.3 * rng.normal(size=part.shape)
    return {
        "times_s": np.arange(count) / SAMPLES_HZ,
        "features": features,
        "cuts_s": np.arange(SCENE_S, length_s, SCENE_S),
        "motion": rng.gamma(1.0, 0.02, count).astype(np.float32),
        "motion_std": rng.gamma(1.0, 0.004, count).astype(np.float32),
        "loudness": rng.normal(-24, 6, round(length_s / STEP_S)).astype(np.float32),
    }


def measure(score: Score, row: dict[str, np.ndarray]) -> dict[str, Any]:
    length_s = len(row["times_s"]) / SAMPLES_HZ
    before = psutil.Process().memory_info().rss
    wall, cpu = [], []
    for _ in range(RUNS):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        score(row)
        wall.append(time.perf_counter() - wall_s)
        cpu.append(time.process_time() - cpu_s)
    return {
        "hours": length_s / 3600,
        "samples": len(row["times_s"]),
        "wall_ms_per_s": round(1e3 * statistics.median(wall) / length_s, 4),
        "cpu_ms_per_s": round(1e3 * statistics.median(cpu) / length_s, 4),
        "growth_bytes": peak_bytes() - before,
        "input_bytes": sum(array.nbytes for array in row.values()),
    }


def peak_bytes() -> int:
    """The most memory that this process has held (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
