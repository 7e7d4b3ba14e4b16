"""What the encoder's presets cost: CPU time, bytes and likeness (SSIM) of the same frames.

    python -m benchmarks.encoder VIDEO ... [--seconds 4] [--json FILE]

Frames from the middle of each video at full size, encoded as a reel is (stages/encode.py), but by one
thread. SSIM is FFmpeg's, of all planes, in decibels: -10 log10(1 - SSIM). A preset that reaches a likeness
for as many bytes in less time is better; the same CRF is another likeness with each.
"""

import itertools
import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import click

from stages.container import open_source
from stages.cutter import read_span
from stages.encode import Form, configure
from stages.picture import Look, finish, shown_size
from stages.probe import describe

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
CRFS = (18, 20, 23)


def frames_of(path: Path, seconds: float) -> tuple[list[av.VideoFrame], Fraction]:
    with open_source(str(path)) as source:
        facts = describe(source)
    fps = Fraction(facts["fps_exact"])
    start_s = max(0.0, facts["duration_s"] / 2 - seconds / 2)
    span, count = (start_s, start_s + seconds), int(seconds * fps)
    width, height = shown_size(facts["width"], facts["height"], None)
    with closing(read_span(str(path), span, count, fps, fps)) as read:
        return list(finish(read, Look(width, height))), fps


def encoded(frames: list[av.VideoFrame], form: Form) -> tuple[list[av.Packet], float]:
    """The packets, and the CPU seconds that they took."""
    context = av.CodecContext.create(form.encoder, "w")
    configure(context, form)
    context.thread_count = 1
    packets, began = [], time.process_time()
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base, frame.pict_type = number, 1 / form.fps, 0
        packets += context.encode(frame)
    packets += context.encode(None)
    return packets, time.process_time() - began


def decoded(packets: list[av.Packet]) -> Iterator[av.VideoFrame]:
    context = av.CodecContext.create("h264", "r")
    for data in (*map(bytes, packets), None):
        yield from context.decode(av.Packet(data) if data else None)


def likeness_db(made: Iterator[av.VideoFrame], frames: list[av.VideoFrame]) -> float:
    graph = av.filter.Graph()
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "ssim")
        one, other = (graph.add_buffer(template=None, **form_of(frames[0])) for _ in range(2))
        ssim, sink = graph.add("ssim", stats_file=str(log)), graph.add("buffersink")
        one.link_to(ssim, 0, 0)
        other.link_to(ssim, 0, 1)
        ssim.link_to(sink)
        graph.configure()
        for number, (a, b) in enumerate(itertools.zip_longest(made, frames)):
            for node, frame in ((one, a), (other, b)):
                frame.pts, frame.time_base = number, Fraction(1, 25)
                node.push(frame)
            sink.pull()
        for node in (one, other):
            node.push(None)
        del graph, one, other, ssim, sink  # closes the log
        shares = [float(line.split("All:")[1].split()[0]) for line in log.read_text().splitlines()]
    return -10 * math.log10(1 - sum(shares) / len(shares))


def form_of(frame: av.VideoFrame) -> dict:
    return {
        "width": frame.width,
        "height": frame.height,
        "format": frame.format,
        "time_base": Fraction(1, 25),
    }


@click.command(help=__doc__.splitlines()[0])
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--seconds", default=4.0, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(videos: tuple[Path, ...], seconds: float, json_file: Path | None) -> None:
    found = []
    for path in videos:
        frames, fps = frames_of(path, seconds)
        print(f"{path.stem}, {frames[0].width} x {frames[0].height}\n")
        print(f"{'preset':>10s} {'CRF':>4s} {'ms/frame':>9s} {'kbit/s':>8s} {'SSIM, dB':>9s}")
        for preset, crf in itertools.product(PRESETS, CRFS):
            form = Form(frames[0].width, frames[0].height, fps, "libx264", crf, preset)
            packets, cpu_s = encoded(frames, form)
            row = {
                "preset": preset,
                "crf": crf,
                "ms": 1e3 * cpu_s / len(frames),
                "kbit_s": 8e-3 * sum(packet.size for packet in packets) / float(len(frames) / fps),
                "ssim_db": likeness_db(decoded(packets), frames),
            }
            found.append({"video": path.stem} | row)
            print(f"{preset:>10s} {crf:4d} {row['ms']:9.1f} {row['kbit_s']:8.0f} {row['ssim_db']:9.2f}")
        print()
    if json_file:
        json_file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
