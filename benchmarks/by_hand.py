"""Highlight reels of a library as one would write them from Ray's documentation, beside reelmap's.

    python -m benchmarks.by_hand LIBRARY [--rounds 3] [--python PYTHON] [--json FILE]

by hand   read_videos -> map_batches (our own features network) -> groupby -> map_groups: novelty of two
          pictures a second, shots by PySceneDetect, loudness and a reel of four seconds by the ffmpeg
          command -> Parquet. No motion, voices, thumbnails, report.
          `plain` samples after reading, as every frame is a row; `options` has read_videos sample and shrink.
reelmap   `reelmap highlights --target 4s`: all of these and, `as it comes`, colour correction, transitions
          and proxies; `the same` is without the three.

--python   of an environment that has decord, which read_videos needs, beside reelmap's packages

Wall and CPU seconds of all processes and their peak memory (PSS), the start of Ray included; medians.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import av
import click
import numpy as np
from scenedetect import ContentDetector, detect

from benchmarks.many import follow

WAYS = ("by hand, plain", "by hand, options", "reelmap, the same", "reelmap, as it comes")
PLAIN = ("colour.kind=none", "effects.kind=none", "codec.kind=none")
SIDE, FPS = 256, 2
REEL_S, CLIP_S = 4.0, 1.5
EVERY_S, GIVEN_UP_S = 0.5, 900.0


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
                "seconds": np.array([span[0] for span in batch["frame_timestamp"]]),
                "features": self.extract({"frames": frames})["features"].astype(np.float32),
            }

    def shrink(batch: dict[str, Any]) -> dict[str, Any]:
        import cv2

        small = [cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in batch["frame"]]
        return batch | {"frame": np.stack(small)}

    def cut(group: dict[str, Any]) -> dict[str, Any]:
        path = group["path"][0]
        order = np.argsort(group["seconds"])
        score = novelty(np.stack(list(group["features"]))[order], 0.2)
        seconds = group["seconds"][order]
        clips = best(shots_of(path, float(seconds[-1])), seconds, score)
        reel = str(Path(output, f"{Path(path).stem}.mp4"))
        render(path, clips, reel)
        return {
            "path": [path],
            "reel": [reel],
            "clips": [json.dumps(clips)],
            "loudness": [json.dumps(loudness(path))],
            "score": [json.dumps(score.tolist())],
        }

    # With one for each of two cores `plain` waits for ever: its reader, filter and actor want one each.
    cpus = max(4, os.cpu_count() or 1)
    ray.init(
        address="local", num_cpus=cpus, log_to_driver=False, logging_level="error", include_dashboard=False
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    Path(output).mkdir(parents=True, exist_ok=True)
    columns = {"include_paths": True, "include_timestamps": True}
    if options:
        ds = ray.data.read_videos(library, fps=FPS, resize=(SIDE, SIDE), **columns)
    else:
        every = 25 // FPS
        ds = ray.data.read_videos(library, **columns)
        ds = ds.filter(lambda row: row["frame_index"] % every == 0)
        ds = ds.map_batches(shrink, batch_size=16)
    ds = ds.map_batches(Features, batch_size=64, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1)
    ds.groupby("path").map_groups(cut, batch_format="numpy").write_parquet(output)


def shots_of(path: str, end_s: float) -> list[tuple[float, float]]:
    found = [(start.seconds, end.seconds) for start, end in detect(path, ContentDetector())]
    return found or [(0.0, end_s)]


def best(
    shots: list[tuple[float, float]], seconds: np.ndarray, score: np.ndarray
) -> list[tuple[float, float]]:
    """A second and a half around the best moment of the best shots, in time order."""
    clips = []
    for start, end in shots:
        inside = (seconds >= start) & (seconds < end)
        if inside.any() and end - start >= CLIP_S:
            peak = seconds[inside][np.argmax(score[inside])]
            start = min(max(start, peak - CLIP_S / 2), end - CLIP_S)
            clips.append((float(score[inside].max()), float(start)))
    chosen = sorted(clips, reverse=True)[: math.ceil(REEL_S / CLIP_S)]
    return sorted((start, start + CLIP_S) for _, start in chosen)


def has_sound(path: str) -> bool:
    with av.open(path) as container:
        return bool(container.streams.audio)


def loudness(path: str) -> list[float]:
    """Momentary, LUFS, ten times a second; empty without sound."""
    if not has_sound(path):
        return []
    measure = "ebur128=metadata=1,ametadata=print:key=lavfi.r128.M"
    told = ffmpeg("-i", path, "-vn", "-af", measure, "-f", "null", "-")
    return [float(value) for value in re.findall(r"lavfi\.r128\.M=(-?[\d.]+)", told)]


def render(path: str, clips: list[tuple[float, float]], reel: str) -> None:
    kinds = "va" if has_sound(path) else "v"
    inputs = [word for start, end in clips for word in ("-ss", f"{start}", "-to", f"{end}", "-i", path)]
    parts = "".join(f"[{k}:{kind}]" for k in range(len(clips)) for kind in kinds)
    outs = "".join(f"[{kind}]" for kind in kinds)
    joined = f"{parts}concat=n={len(clips)}:v=1:a={len(kinds) - 1}{outs}"
    maps = [word for kind in kinds for word in ("-map", f"[{kind}]")]
    made = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-c:a", "aac", "-y", reel)
    ffmpeg(*inputs, "-filter_complex", joined, *maps, *made)


def ffmpeg(*words: str) -> str:
    command = ["ffmpeg", "-hide_banner", "-nostats", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def command_of(way: str, library: Path, output: Path, python: str) -> list[str]:
    if way.startswith("reelmap"):
        sets = [word for setting in PLAIN for word in ("--set", setting)] if "the same" in way else []
        command = [sys.executable, "-m", "jobs.cli", "highlights", str(library), str(output)]
        return [*command, "--target", f"{REEL_S:g}s", *sets]
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
                    command = command_of(way, library, Path(scratch, "out"), python)
                    samples = follow(command, Path(scratch, "log"), EVERY_S, GIVEN_UP_S)
                except click.ClickException as error:
                    print(f"{way}: {error.message[-300:]}", flush=True)
                    continue
                found[way]["wall_s"].append(time.monotonic() - began)
                found[way]["cpu_s"].append(samples[-1].cpu_s)
                found[way]["peak_mib"].append(max(s.memory_bytes for s in samples) / 2**20)
    print(f"{'':>20s} {'wall s':>8s} {'CPU s':>8s} {'peak MiB':>9s}")
    for way, told in found.items():
        wall, cpu, peak = (median(told[name]) for name in ("wall_s", "cpu_s", "peak_mib"))
        print(f"{way:>20s} {wall:8.1f} {cpu:8.1f} {peak:9.0f}")
    if json_file:
        json_file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
