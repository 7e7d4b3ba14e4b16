"""What decoding for analysis costs, beside others that sample the same pictures: two a second, 256 x 256.

    python -m benchmarks.decode VIDEO ... [--rounds 3] [--rivals PYTHON] [--ffmpeg PATH] [--json FILE]

Ours does more than the others in the same pass: shots, flashes, motion, thumbnails, loudness, voices. What
the pictures take of it stands below. One thread each, where that can be said (daft takes more); rounds are
interleaved; CPU seconds without imports, medians.

--rivals   the python of an environment with torchcodec, decord and daft; without it they are left out

speed   the CPU seconds of ffmpeg over those of the row: more is better
tau_b   Kendall's rank correlation of the importance of the samples with that from exact decoding
cuts    of those that exact decoding finds, how many are found on the same frame
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import av
import click
import numpy as np
from av.video.reformatter import VideoReformatter
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from benchmarks.analysis import Analyser
from stages.container import LimitSettings, open_source
from stages.decode import DecodeSettings, decode, squashed
from stages.probe import probe

QUALITIES = ("exact", "fast", "draft")
FPS, SIDE = 2, 256
LIMIT_S = 120  # of one program on one video
# Each reads argv[1] and leaves the number of pictures in `count`.
OTHERS = {
    "PyAV by hand": """
import av
count, due = 0, 0.0
with av.open(path) as file:
    file.streams.video[0].thread_type = "NONE"
    for frame in file.decode(video=0):
        if frame.time >= due - 1e-6:
            frame.to_ndarray(width=256, height=256, format="rgb24")
            count, due = count + 1, due + 0.5
""",
    "OpenCV": """
import cv2
cv2.setNumThreads(1)
film = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
count, due = 0, 0.0
while film.grab():
    if film.get(cv2.CAP_PROP_POS_MSEC) >= due - 1e-3:
        small = cv2.resize(film.retrieve()[1], (256, 256), interpolation=cv2.INTER_AREA)
        cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        count, due = count + 1, due + 500
""",
}
RIVALS = {
    "torchcodec": """
import torch
torch.set_num_threads(1)
from torchcodec.decoders import VideoDecoder
from torchvision.transforms.v2.functional import resize
film = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate")
begin, end = film.metadata.begin_stream_seconds, film.metadata.end_stream_seconds
due = [begin + k / 2 for k in range(int(2 * (end - begin)))]
for start in range(0, len(due), 60):
    times = due[start : start + 60]
    resize(film.get_frames_played_at(times).data, [256, 256])
count = len(due)
""",
    "decord": """
import decord
film = decord.VideoReader(path, width=256, height=256, num_threads=1)
step = film.get_avg_fps() / 2
numbers = [round(k * step) for k in range(int(len(film) / step))]
for start in range(0, len(numbers), 60):
    film.get_batch(numbers[start : start + 60]).asnumpy()
count = len(numbers)
""",
    "daft": """
import daft
frames = daft.read_video_frames(path, 256, 256, sample_interval_seconds=0.5)
count = len(frames.to_pydict()["data"])
""",
}
TIMED = """
import sys, time
path = sys.argv[1]
{imports}
began = time.process_time()
{code}
print(time.process_time() - began, count)
"""


def others(python: str, code: str, path: Path) -> tuple[float, int]:
    """CPU seconds and pictures of a program in a process of its own."""
    imports = "\n".join(line for line in code.splitlines() if line.startswith(("import ", "from ")))
    script = TIMED.format(imports=imports, code=code)
    said = subprocess.run(
        [python, "-c", script, str(path)], check=True, capture_output=True, text=True, timeout=LIMIT_S
    )
    seconds, count = said.stdout.split()[-2:]
    return float(seconds), int(count)


def by_ffmpeg(ffmpeg: str, path: Path) -> tuple[float, int]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    filters = f"fps={FPS},scale={SIDE}:{SIDE}"
    out = ("-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    command = [ffmpeg, "-v", "error", "-threads", "1", "-filter_threads", "1", "-i", str(path), "-an"]
    with subprocess.Popen([*command, "-vf", filters, *out], stdout=subprocess.PIPE) as run:
        size = 0
        while block := run.stdout.read(SIDE * SIDE * 3):
            size += len(block)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, size // (SIDE * SIDE * 3)


def ours(path: Path, quality: str) -> tuple[float, int]:
    settings, limits = DecodeSettings(quality=quality), LimitSettings()
    began, count = time.process_time(), 0
    for shard in probe({"uri": str(path)}, limits, settings.shard_s):
        count += len(decode(shard, settings, limits)["times_s"])
    return time.process_time() - began, count


def pictures_alone(path: Path, quality: str) -> tuple[float, int]:
    """The same decoder and scaler for the job of the others: no shots, motion or sound."""
    began, count, due_s, scaler = time.process_time(), 0, 0.0, VideoReformatter()
    with open_source(str(path)) as source:
        context = source.video.codec_context
        context.thread_type = "NONE"
        context.options = context.options | {"skip_loop_filter": "all"}
        if quality == "draft":
            context.skip_frame = "NONREF"
        source.only(source.video)
        for packet in source.packets(source.video):
            for frame in packet.decode():
                if source.seconds(frame) >= due_s - 1e-6:
                    squashed(frame, SIDE, scaler)
                    count, due_s = count + 1, due_s + 1 / FPS
    return time.process_time() - began, count


def agreement(path: Path, analysers: dict[str, Analyser]) -> dict[str, dict[str, Any]]:
    """tau_b and found cuts of each quality, against exact decoding."""
    rows = {quality: analyse(path) for quality, analyse in analysers.items()}
    exact, found = rows["exact"], {}
    for quality, row in rows.items():
        score = np.interp(exact["times_s"], row["times_s"], row["importance"])
        same = [bool(np.any(np.abs(row["cuts_s"] - cut) < 1e-3)) for cut in exact["cuts_s"]]
        tau_b = float(kendalltau(exact["importance"], score).statistic)
        found[quality] = {"tau_b": tau_b, "cuts": f"{sum(same)} of {len(same)}"}
    return found


def measure(path: Path, rounds: int, rivals: str | None, ffmpeg: str) -> dict[str, dict[str, Any]]:
    """Of each way: CPU seconds of every round and the number of pictures; what does not run says why."""
    ways = {"ffmpeg -threads 1": lambda: by_ffmpeg(ffmpeg, path)}
    ways |= {f"reelmap {quality}": lambda quality=quality: ours(path, quality) for quality in QUALITIES}
    ways |= {
        f"of {quality}, the pictures": lambda quality=quality: pictures_alone(path, quality)
        for quality in QUALITIES[1:]
    }
    ways |= {name: lambda code=code: others(sys.executable, code, path) for name, code in OTHERS.items()}
    if rivals:
        ways |= {name: lambda code=code: others(rivals, code, path) for name, code in RIVALS.items()}
    seconds, counts, broken = defaultdict(list), {}, {}
    for _ in range(rounds):
        for name, way in ways.items():
            if name in broken:
                continue
            try:
                cpu_s, counts[name] = way()
                seconds[name].append(cpu_s)
            except subprocess.TimeoutExpired:
                broken[name] = f"takes more than {LIMIT_S} s"
            except subprocess.CalledProcessError as error:
                broken[name] = (error.stderr.strip().splitlines() or [str(error)])[-1][:40]
    found = {n: {"cpu_s": median(s), "all_s": s, "pictures": counts[n]} for n, s in seconds.items()}
    return found | {name: {"broken": why} for name, why in broken.items()}


def table_of(path: Path, found: dict[str, dict[str, Any]]) -> Table:
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        title = (
            f"{path.name}: {video.codec.name}, {video.width} x {video.height}, {file.duration / 1e6:.0f} s"
        )
    table = Table("", "CPU s", "speed", "pictures", "tau_b", "cuts", title=title)
    reference = found["ffmpeg -threads 1"]["cpu_s"]
    for name, told in found.items():
        if "broken" in told:
            table.add_row(name, told["broken"])
            continue
        tau_b = f"{told['tau_b']:.3f}" if "tau_b" in told else ""
        speed = f"{reference / told['cpu_s']:.2f} x"
        table.add_row(name, f"{told['cpu_s']:.2f}", speed, str(told["pictures"]), tau_b, told.get("cuts", ""))
    return table


@click.command(help=__doc__.splitlines()[0])
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=3, type=click.IntRange(1), show_default=True)
@click.option("--rivals", help="The python of an environment with torchcodec, decord and daft.")
@click.option("--ffmpeg", default=shutil.which("ffmpeg"), help="FFmpeg's program.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(
    videos: tuple[Path, ...], rounds: int, rivals: str | None, ffmpeg: str | None, json_file: Path | None
) -> None:
    if not ffmpeg:
        raise click.UsageError("there is no ffmpeg here to compare with: give --ffmpeg")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the others; ours are set by the analysers
    analysers = {quality: Analyser.load(None, DecodeSettings(quality=quality)) for quality in QUALITIES}
    results = {}
    for path in videos:
        found = measure(path, rounds, rivals, ffmpeg)
        for quality, told in agreement(path, analysers).items():
            found[f"reelmap {quality}"] |= told
        Console(width=110).print(table_of(path, found))
        results[path.name] = found
    if json_file:
        versions = {name: version(name) for name in ("av", "opencv-python", "numpy", "torch")}
        json_file.write_text(json.dumps({"versions": versions, "videos": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
