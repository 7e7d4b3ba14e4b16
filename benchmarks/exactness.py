"""How exact reels are, by the kind of their source: right frames, sound in step, both of one length.

The first table is of sources whose every frame carries its number (tests/exactness.py). With --files the
second one is of real files, in a process each: what a reel of three spans of each came out as, or why not.

    python -m benchmarks.exactness [--cuts 40] [--files FOLDER]
"""

import argparse
import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import av

from stages.container import LIBAV_ERRORS, LimitSettings, open_source
from stages.failure import Dropped, Failed
from stages.probe import describe
from stages.render import Render, RenderSettings
from stages.timeline import lay_out
from tests.exactness import HEADER, KINDS, examine, line

SPANS, SPAN_S = 3, 0.7
LIMIT_S = 120
LIMITS = LimitSettings(max_memory_bytes=2 << 30, max_pixels=4096 * 4096)
QUICK = RenderSettings(crf=28, preset="ultrafast", encoder="libx264")


def reel_of(path: Path, folder: Path) -> tuple[float, int, float, float | None]:
    """A reel of spans of a real file: seconds and frames it should have, seconds of picture and sound."""
    with open_source(str(path), LIMITS) as source:
        facts = describe(source)
        starts = source.video.start_time or 0
        first_s = max(0.0, float(starts * source.video.time_base - source.origin))
    end_s = facts["duration_s"] or 0.0
    length_s = min(SPAN_S, (end_s - first_s) / SPANS)
    if length_s <= 2 / facts["fps"]:
        raise Failed(f"too short for spans: {end_s:.2f} s")
    row = {"uri": str(path), "probe": facts, "shard_log": [{"start_s": first_s}], "edits": [], "clips": []}
    for clip in range(SPANS):
        start_s = first_s + (end_s - first_s) * clip / SPANS
        row["edits"].append(
            {
                "clip": clip,
                "source_start_s": start_s,
                "source_end_s": start_s + length_s,
                "reel_start_s": clip * length_s,
                "transition": "cut",
                "transition_s": 0.0,
            }
        )
        row["clips"].append({"clip": clip, "shot": 0, "score": 1.0})
    done = Render(QUICK, None, None, LIMITS)(row, folder)
    with av.open(str(done["files"]["reel.mp4"])) as file:
        fps = file.streams.video[0].average_rate
        frames = sum(1 for _ in file.decode(video=0))
        streams = [*file.streams.video, *file.streams.audio]
        ends_s = [float(stream.duration * stream.time_base) for stream in streams]
    wanted = lay_out(done["edits"], fps)[-1].end
    if frames != wanted:
        raise AssertionError(f"{frames} frames decode instead of {wanted}")
    return wanted / float(fps), frames, ends_s[0], ends_s[1] if len(ends_s) > 1 else None


def judge(path: Path) -> tuple[str, str]:
    """(what became of a file, more about it)."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            wanted_s, frames, picture_s, sound_s = reel_of(path, Path(folder))
        except (Failed, Dropped) as error:
            return "refused", str(error)
        except LIBAV_ERRORS as error:
            return "refused", f"cannot be opened: {type(error).__name__}"
        except AssertionError as error:
            return "WRONG", str(error)
    off_ms = 1000 * abs(picture_s - wanted_s)
    text = f"{frames} frames, {picture_s:.3f} s, {off_ms:.1f} ms off"
    if sound_s is not None:
        text += f", sound ends {1000 * (sound_s - picture_s):+.1f} ms"
    return ("exact" if off_ms < 1 else "WRONG"), text


def judged(paths: list[Path]) -> Iterator[tuple[Path, str, str]]:
    """Each in a process of its own, since a decoder may crash or hang."""
    context = multiprocessing.get_context("spawn")
    for path in paths:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=report, args=(path, theirs))
        process.start()
        theirs.close()
        answer = ("WRONG", f"takes more than {LIMIT_S} s")
        if ours.poll(LIMIT_S):
            try:
                answer = ours.recv()
            except EOFError:
                answer = ("WRONG", "crashes")
        process.kill()
        process.join()
        yield path, *answer


def report(path: Path, pipe: Connection) -> None:
    pipe.send(judge(path))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=40)
    parser.add_argument("--files", type=Path, help="a folder of real files, read to any depth")
    options = parser.parse_args()
    print(HEADER)
    for name, kind in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            print(line(name, examine(kind, Path(folder), options.cuts)), flush=True)
    if not options.files:
        return
    print("\n| file | | |\n|---|---|---|")
    counts: Counter[str] = Counter()
    for path, what, text in judged(sorted(path for path in options.files.rglob("*") if path.is_file())):
        print(f"| {path.relative_to(options.files)} | {what} | {text} |", flush=True)
        counts[what] += 1
    print("\n" + ", ".join(f"{count} {what}" for what, count in counts.most_common()))


if __name__ == "__main__":
    main()
