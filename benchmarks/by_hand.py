"""The analysis of a library as one would write it from Ray's documentation, beside reelmap's whole run.

    python -m benchmarks.by_hand LIBRARY [--rounds 3] [--python PYTHON] [--json FILE]

by hand   read_videos -> map_batches (our own features network) -> groupby -> map_groups (novelty) -> Parquet:
          features and a score for two pictures a second; no shots, motion, sound, thumbnails, reels.
          `plain` samples after reading, as every frame is a row; `options` has read_videos sample and shrink.
reelmap   `reelmap highlights --target 4s`: all of these, and a reel of every video.

--python   of an environment that has decord, which read_videos needs, beside reelmap's packages

Wall and CPU seconds of all processes and their peak memory (PSS), the start of Ray included; medians.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from benchmarks.many import follow

WAYS = ("by hand, plain", "by hand, options", "reelmap")
SIDE, FPS = 256, 2


def by_hand(library: str, output: str, options: bool) -> None:
    """What a user would write; a program of its own, run with `--hand`."""
    import ray
    import torch

    from pipeline.config import Settings
    from stages.features import ExtractFeatures
    from stages.nn.weights import open_bundle
    from stages.score import novelty

    class Features:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            settings = Settings()
            self.extract = ExtractFeatures(settings.features, open_bundle(None))

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            frames = np.ascontiguousarray(batch["frame"])
            return {
                "path": batch["path"],
                "frame_index": batch["frame_index"],
                "features": self.extract({"frames": frames})["features"].astype(np.float32),
            }

    def shrink(batch: dict[str, Any]) -> dict[str, Any]:
        import cv2

        small = [cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in batch["frame"]]
        return batch | {"frame": np.stack(small)}

    def score(group: dict[str, Any]) -> dict[str, Any]:
        order = np.argsort(group["frame_index"])
        features = np.stack(list(group["features"]))[order]
        return {
            "path": group["path"][order],
            "frame_index": group["frame_index"][order],
            "score": novelty(features, 0.5),
        }

    ray.init(address="local", log_to_driver=False, logging_level="error", include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if options:
        ds = ray.data.read_videos(library, include_paths=True, fps=FPS, resize=(SIDE, SIDE))
    else:
        every = 25 // FPS
        ds = ray.data.read_videos(library, include_paths=True)
        ds = ds.filter(lambda row: row["frame_index"] % every == 0)
        ds = ds.map_batches(shrink, batch_size=16)
    ds = ds.map_batches(Features, batch_size=64, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1)
    ds.groupby("path").map_groups(score, batch_format="numpy").write_parquet(output)


def command_of(way: str, library: Path, output: Path, python: str) -> list[str]:
    if way == "reelmap":
        return [sys.executable, "-m", "jobs.cli", "highlights", str(library), str(output), "--target", "4s"]
    form = ["--options"] if "options" in way else []
    return [python, "-m", "benchmarks.by_hand", str(library), "--hand", str(output), *form]


@click.command(help=__doc__.splitlines()[0])
@click.argument("library", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", default=3, type=click.IntRange(1), show_default=True)
@click.option("--python", default=sys.executable, help="Of an environment that has decord.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--way", "ways", multiple=True, type=click.Choice(WAYS), help="Only these.")
@click.option("--hand", type=click.Path(path_type=Path), hidden=True)
@click.option("--options", is_flag=True, hidden=True)
def main(
    library: Path,
    rounds: int,
    python: str,
    json_file: Path | None,
    ways: tuple[str, ...],
    hand: Path | None,
    options: bool,
) -> None:
    if hand:
        by_hand(str(library.absolute()), str(hand), options)
        return
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for way in ways or WAYS:
            with tempfile.TemporaryDirectory() as scratch:
                began = time.monotonic()
                try:
                    samples = follow(
                        command_of(way, library, Path(scratch, "out"), python), Path(scratch, "log")
                    )
                except click.ClickException as error:
                    print(f"{way}: {error.message[-300:]}", flush=True)
                    continue
                found[way]["wall_s"].append(time.monotonic() - began)
                found[way]["cpu_s"].append(samples[-1].cpu_s)
                found[way]["peak_mib"].append(max(s.memory_bytes for s in samples) / 2**20)
    print(f"{'':>18s} {'wall s':>8s} {'CPU s':>8s} {'peak MiB':>9s}")
    for way, told in found.items():
        wall, cpu, peak = (median(told[name]) for name in ("wall_s", "cpu_s", "peak_mib"))
        print(f"{way:>18s} {wall:8.1f} {cpu:8.1f} {peak:9.0f}")
    if json_file:
        json_file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
