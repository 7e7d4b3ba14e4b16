"""How fast reels are rendered, beside the same cuts by other programs; and what is read of a store for one.

All of them write H.264 (x264, veryfast, CRF 20) and AAC of the same spans. Rounds are interleaved, figures
are medians; CPU seconds are of all threads and children, and count what a busy machine does not change.

    python -m benchmarks.render VIDEO ... [--cuts 12] [--seconds 2.5] [--rounds 3] [--rivals PYTHON] [--s3]

--rivals   the python of an environment with moviepy and auto-editor; without it they are left out
--s3       also render the plain cuts from a local S3 server and count the bytes that are read
"""

import argparse
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import av
import boto3
import numpy as np

from pipeline import presets
from pipeline.config import Settings, load_settings
from pipeline.making import open_render
from stages import tally
from stages.colour import ColourSettings, Grade
from stages.container import keeping_blocks, open_source
from stages.cutter import read_span
from stages.effects import Effects, EffectSettings
from stages.frames import frames_of, on_frames
from stages.nn.weights import BundleError, open_bundle
from stages.picture import Look, finish
from stages.probe import describe
from stages.render import Render, RenderSettings
from stages.timeline import lay_out
from tests import s3

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac", "-b:a", "192k", "-ar", "48000", "-ac", "2")
OURS = RenderSettings(encoder="libx264")
DISSOLVE_S = 0.4
MOVIEPY = """
import sys
from moviepy import VideoFileClip, concatenate_videoclips
source, out, *times = sys.argv[1:]
film = VideoFileClip(source)
spans = zip(map(float, times[::2]), map(float, times[1::2]))
reel = concatenate_videoclips([film.subclipped(start, end) for start, end in spans])
reel.write_videofile(out, codec="libx264", preset="veryfast", ffmpeg_params=["-crf", "20"], audio_codec="aac",
                     audio_bitrate="192k", temp_audiofile=out + ".m4a", logger=None)
"""

Row = dict[str, Any]
Spans = list[tuple[float, float]]
Way = Callable[[Path], Row | None]  # ours says what the reel is


def row_of(video: str, cuts: int, seconds: float, dissolve_s: float = 0.0) -> Row:
    """A video as the render stage gets it, with spans of `seconds` spread over it."""
    with open_source(video) as source:
        facts = describe(source)
    starts = np.linspace(0, facts["duration_s"] - seconds - 0.5, cuts)
    edits, at_s = [], 0.0
    for clip, start_s in enumerate(starts):
        overlap_s = dissolve_s if clip else 0.0
        edits.append(
            {
                "clip": clip,
                "source_start_s": float(start_s),
                "source_end_s": float(start_s + seconds),
                "reel_start_s": at_s - overlap_s,
                "transition": "whip" if overlap_s else "cut",
                "transition_s": overlap_s,
            }
        )
        at_s += seconds - overlap_s
    clips = [{"clip": n, "shot": n, "score": 1.0, "thumbnail_s": float(s) + 1} for n, s in enumerate(starts)]
    return {"uri": video, "probe": facts, "edits": edits, "clips": clips}


def of_preset(hard: Row, soft: Row, settings: Settings) -> Row:
    """The same spans, joined as a preset joins them."""
    if settings.effects.kind == "none":
        return hard
    names = itertools.cycle(settings.effects.transitions)
    edits = [edit | {"transition": next(names) if edit["clip"] else "cut"} for edit in soft["edits"]]
    return soft | {"edits": edits}


def ours(row: Row, render: Render, out: Path) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        done = render(row, Path(folder))
        shutil.copy(done["files"]["reel.mp4"], out)
    return done["reel"]


def by_graph(ffmpeg: str, video: str, spans: Spans, sound: bool, out: Path) -> None:
    """One input, a filter graph that trims and joins: what a person writes first. It decodes all of it."""
    graph, joins = [], []
    for n, (start, end) in enumerate(spans):
        graph.append(f"[0:v]trim={start}:{end},setpts=PTS-STARTPTS[v{n}]")
        joins.append(f"[v{n}]")
        if sound:
            graph.append(f"[0:a]atrim={start}:{end},asetpts=PTS-STARTPTS[a{n}]")
            joins.append(f"[a{n}]")
    graph.append(f"{''.join(joins)}concat=n={len(spans)}:v=1:a={int(sound)}[v]{'[a]' if sound else ''}")
    maps = ["-map", "[v]", *(["-map", "[a]", *AAC] if sound else [])]
    run(ffmpeg, "-v", "error", "-y", "-i", video, "-filter_complex", ";".join(graph), *maps, *X264, str(out))


def by_seeking(ffmpeg: str, video: str, spans: Spans, sound: bool, out: Path) -> None:
    """An input for each span, which ffmpeg seeks to: the graph of somebody who knows it well."""
    inputs = [x for start, end in spans for x in ("-ss", str(start), "-t", str(end - start), "-i", video)]
    pads = "".join(f"[{n}:v]" + (f"[{n}:a]" if sound else "") for n in range(len(spans)))
    graph = f"{pads}concat=n={len(spans)}:v=1:a={int(sound)}[v]{'[a]' if sound else ''}"
    maps = ["-map", "[v]", *(["-map", "[a]", *AAC] if sound else [])]
    run(ffmpeg, "-v", "error", "-y", *inputs, "-filter_complex", graph, *maps, *X264, str(out))


def by_moviepy(python: str, video: str, spans: Spans, out: Path) -> None:
    times = [str(time) for span in spans for time in span]
    run(python, "-c", MOVIEPY, video, str(out), *times)


def by_auto_editor(python: str, video: str, spans: Spans, out: Path) -> None:
    ends = [0.0, *(time for span in spans for time in span)]
    gaps = [f"{a}sec,{b}sec" for a, b in zip(ends[::2], ends[1::2], strict=False) if b > a]
    tool = str(auto_editor_of(python))
    cuts = [x for gap in [*gaps, f"{ends[-1]}sec,end"] for x in ("--cut-out", gap)]
    coding = ("-c:v", "libx264", "-crf", "20", "--no-open", "--progress", "none")
    run(tool, video, "--edit", "none", *cuts, *coding, "-o", str(out))


def auto_editor_of(python: str) -> Path:
    return Path(python).with_name("auto-editor")


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def cpu_s() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def seconds_of(path: Path) -> float:
    with av.open(str(path)) as file:
        return float(file.streams.video[0].duration * file.streams.video[0].time_base)


def psnr_db(row: Row, reel: Path) -> float:
    """Of the luma of a plain reel, beside the frames of the source as they are finished for it."""
    facts = row["probe"]
    with av.open(str(reel)) as file:
        fps = file.streams.video[0].average_rate
        shown = file.decode(video=0)
        errors = []
        edits = row["edits"]
        if not facts["variable_rate"]:
            edits = on_frames(edits, [frames_of(row)] * len(edits), fps)
        for slot in lay_out(edits, fps):
            look = Look(facts["width"] // 2 * 2, facts["height"] // 2 * 2, facts["rotation"])
            span = read_span(row["uri"], (slot.start_s, slot.end_s), slot.count, fps, fps)
            for wanted, frame in zip(finish(span, look), shown, strict=False):
                a, b = (np.asarray(f.to_ndarray()[: f.height], np.float32) for f in (wanted, frame))
                errors.append(float(np.mean((a - b) ** 2)))
    return 10 * np.log10(255**2 / max(1e-9, float(np.mean(errors))))


def ways_of(video: str, options: argparse.Namespace) -> dict[str, tuple[Way, bool]]:
    """Every way to make the reel by name, and whether it is of plain cuts."""
    row = row_of(video, options.cuts, options.seconds)
    soft = row_of(video, options.cuts, options.seconds, DISSOLVE_S)
    spans = [(edit["source_start_s"], edit["source_end_s"]) for edit in row["edits"]]
    sound = bool(row["probe"]["audio_codec"])
    plain = Render(OURS, None, None)
    copying = Render(OURS.model_copy(update={"copy_video": True}), None, None)
    bundle = open_bundle(None)
    graded = Render(OURS, Grade(ColourSettings(), bundle), None)
    ways: dict[str, tuple[Way, bool]] = {
        "reelmap, plain cuts": (partial(ours, row, plain), True),
        "reelmap, copying": (partial(ours, row, copying), True),
        "reelmap, graded": (partial(ours, row, graded), False),
        "reelmap, dissolves": (partial(ours, soft, plain), False),
    }
    try:
        effects = Render(OURS, None, Effects(EffectSettings(), bundle))
        ways["reelmap, effects"] = (partial(ours, soft, effects), False)
    except BundleError as error:
        print(f"without effects: {error}")
    for preset in presets.names():
        settings = load_settings(None, {"preset": preset, "render.encoder": "libx264"}, ())
        ways[f"reelmap, preset {preset}"] = (
            partial(ours, of_preset(row, soft, settings), open_render(settings)),
            False,
        )
    if ffmpeg := shutil.which("ffmpeg"):
        ways["ffmpeg, trim and concat"] = (partial(by_graph, ffmpeg, video, spans, sound), True)
        ways["ffmpeg, seeking"] = (partial(by_seeking, ffmpeg, video, spans, sound), True)
    else:
        print("without ffmpeg: there is none on the path")
    if options.rivals and Path(options.rivals).exists():
        ways["moviepy"] = (partial(by_moviepy, options.rivals, video, spans), True)
        if auto_editor_of(options.rivals).exists():
            ways["auto-editor"] = (partial(by_auto_editor, options.rivals, video, spans), True)
    else:
        print("without moviepy and auto-editor: give --rivals the python of an environment that has them")
    return ways


def compare(video: str, options: argparse.Namespace) -> None:
    ways = ways_of(video, options)
    row = row_of(video, options.cuts, options.seconds)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        reels = {name: Path(folder) / f"{number}.mp4" for number, name in enumerate(ways)}
        for _ in range(options.rounds):
            for name, (way, _) in ways.items():
                began_s, cpu_began_s = time.perf_counter(), cpu_s()
                try:
                    reel = way(reels[name]) or {}
                except subprocess.CalledProcessError as error:
                    print(f"{name} ended with {error.returncode}")
                if not reels[name].exists():  # a program that cannot start may end without an error
                    print(f"{name} wrote nothing")
                    continue
                figures = time.perf_counter() - began_s, cpu_s() - cpu_began_s
                taken[name].append(figures)
                said = reel.get("not_copied") or f"{reel.get('copied_s', 0):.1f} s copied"
                print(
                    f"{name}: {figures[0]:.1f} s, {figures[1]:.1f} CPU s, {said}", file=sys.stderr, flush=True
                )
        print(f"\n{Path(video).name}: {options.cuts} clips of {options.seconds:g} s\n")
        print("| | x real time | seconds | CPU seconds | reel, s | kB | PSNR, dB |")
        print("|---" * 7 + "|")
        for name, (_, is_plain) in ways.items():
            if not taken[name]:
                continue
            wall_s, busy_s = (median(figures) for figures in zip(*taken[name], strict=True))
            length_s, size = seconds_of(reels[name]), reels[name].stat().st_size
            quality = f"{psnr_db(row, reels[name]):.1f}" if is_plain and name.startswith("reelmap") else ""
            print(
                f"| {name} | {length_s / wall_s:.2f} | {wall_s:.1f} | {busy_s:.1f} | {length_s:.2f} "
                f"| {size / 1000:.0f} | {quality} |"
            )


def from_store(videos: list[str], options: argparse.Namespace) -> None:
    """The bytes that are read of each object for a reel of it."""
    with s3.serve() as endpoint, tempfile.TemporaryDirectory() as folder:
        keys = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        os.environ |= keys | {"AWS_ENDPOINT_URL": endpoint}
        client = boto3.client("s3")
        client.create_bucket(Bucket="films")
        for number, video in enumerate(videos):
            client.upload_file(video, "films", f"{number}.mp4")
            row = row_of(f"s3://films/{number}.mp4", options.cuts, options.seconds)
            before = tally.counts()["read_bytes"]
            with keeping_blocks():  # as a run renders
                reel = ours(row, Render(OURS, None, None), Path(folder) / "reel.mp4")
            read, size = tally.counts()["read_bytes"] - before, Path(video).stat().st_size
            print(
                f"{Path(video).name} from S3: {read / 1e6:.1f} MB read of {size / 1e6:.1f} MB "
                f"({read / size:.0%}) for {reel['duration_s']:.1f} of {row['probe']['duration_s']:.1f} s"
            )


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--cuts", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rivals")
    parser.add_argument("--s3", action="store_true")
    options = parser.parse_args()
    for video in options.videos:
        compare(video, options)
    if options.s3:
        from_store(options.videos, options)


if __name__ == "__main__":
    main()
