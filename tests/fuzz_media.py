"""Mutates small videos and puts them through probe and decode, looking for what must not come out.

    python -m tests.fuzz_media [--seconds 300] [--seed 0] [--keep FOLDER]

A batch runs in a process of its own, so that a crash or a hang inside libav ends the batch and is charged to
the file it was at. Fine are a decoded video, a Failed and a Dropped; a finding is anything else: a crash, a
hang of HANG_S, an exception of another kind, memory beyond MEMORY_BYTES. Findings are kept.
"""

import random
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import click

from pipeline.rows import DECODED, to_table
from stages.container import LimitSettings
from stages.decode import DecodeSettings, decode
from stages.failure import Dropped, Failed
from stages.probe import probe
from stages.watchdog import bounded
from tests.media import make_video

BATCH = 40
HANG_S = 30.0
MEMORY_BYTES = 1 << 30
SHARDS = 4  # of one file: a header may claim hours
SEEDS = {
    "a.mp4": {},
    "b.mkv": {},
    "c.ts": {},
    "d.webm": {},
    "e.avi": {},
    "f.mov": {"rotation": 90},
    "g.mkv": {"codec": "libx265"},
    "h.mp4": {"vfr": True, "audio": None},
}
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass
class Found:
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[str, str]] = field(default_factory=list)  # file, what happened


def make_seeds(folder: Path) -> list[Path]:
    return [make_video(folder / name, seconds=1, size=(64, 36), **kind).path for name, kind in SEEDS.items()]


def mutate(data: bytes, dice: random.Random) -> bytes:
    """One to eight changes of a kind that breaks lengths, tags, order or content."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 8))):
        if len(changed) < 64:
            break
        # Headers and indexes lie at the ends, and matter most.
        near = dice.choice((len(changed), 4096, 256))
        at = dice.randrange(min(len(changed) - 8, near))
        if dice.random() < 0.3:
            at = len(changed) - 8 - at
        length = dice.randrange(1, min(2048, len(changed) - at))
        match dice.randrange(7):
            case 0:
                changed[at] ^= 1 << dice.randrange(8)
            case 1:
                changed[at : at + 4] = struct.pack(dice.choice((">I", "<I")), dice.choice(NUMBERS))
            case 2:
                changed[at : at + length] = dice.randbytes(length)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                other = dice.randrange(len(changed))
                changed[at : at + length] = changed[other : other + length]
            case 6:
                del changed[at + 8 + dice.randrange(len(changed) - at) :]
    return bytes(changed)


def try_one(path: Path) -> str:
    """What the stages say of a file; raises what they must not raise."""
    limits = LimitSettings(shard_timeout_s=HANG_S)
    row = {"video_id": "v", "uri": str(path), "failure": None}
    try:
        with bounded(HANG_S, MEMORY_BYTES):
            for number, shard in enumerate(probe(row, limits, shard_s=0.5)):
                if number < SHARDS:
                    to_table([decode(shard, DecodeSettings(size=32, fps=4), limits)], DECODED)
    except Failed:
        return "failed"
    except Dropped:
        return "dropped"
    return "ok"


def worker(paths: list[Path]) -> None:
    """A batch: says what it is at before it is, and how that ended."""
    for path in paths:
        print("at", path.name, flush=True)
        try:
            print("was", try_one(path), flush=True)
        except (Exception, MemoryError) as error:
            print("was", f"!{type(error).__name__}: {error}".replace("\n", " "), flush=True)


def fuzz(folder: Path, seconds: float, seed: int, keep: Path | None = None) -> Found:
    """Batches for so long; at least one."""
    dice, found = random.Random(seed), Found()
    seeds = [path.read_bytes() for path in make_seeds(folder)]
    names = list(SEEDS)
    deadline = time.monotonic() + seconds
    while not found.outcomes or time.monotonic() < deadline:
        paths = []
        for number in range(BATCH):
            which = dice.randrange(len(seeds))
            paths.append(folder / f"{number:03d}-{names[which]}")
            paths[-1].write_bytes(mutate(seeds[which], dice))
        before = len(found.findings)
        while paths:
            paths = run_batch(paths, found)
        for name, _ in found.findings[before:]:
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{before}-{name}").write_bytes((folder / name).read_bytes())
    return found


def run_batch(paths: list[Path], found: Found) -> list[Path]:
    """Counts outcomes; returns what is left to do when the batch's process died."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_media", "--batch", *map(str, paths)],
        capture_output=True,
        text=True,
        errors="replace",
    )
    at, done = None, 0
    for line in ended.stdout.splitlines():
        what, _, said = line.partition(" ")
        if what == "at":
            at = said
        elif what == "was":
            done += 1
            found.outcomes["exception" if said.startswith("!") else said] += 1
            if said.startswith("!"):
                found.findings.append((at, said[1:]))
    if done == len(paths):
        return []
    if at is None:
        raise RuntimeError(f"a batch did not start: {ended.stderr[-2000:]}")
    hung = "Timeout (" in ended.stderr
    found.outcomes["hang" if hung else "crash"] += 1
    found.findings.append((at, "hang" if hung else f"exit code {ended.returncode}: {ended.stderr[-300:]}"))
    return paths[done + 1 :]


@click.command(help=__doc__.splitlines()[0])
@click.option("--seconds", default=300.0)
@click.option("--seed", default=0)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the files of findings.")
@click.option("--batch", is_flag=True, hidden=True)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
def main(seconds: float, seed: int, keep: Path | None, batch: bool, paths: tuple[Path, ...]) -> None:
    if batch:
        worker(list(paths))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(Path(folder), seconds, seed, keep)
    print(f"{found.outcomes.total()} files: {dict(found.outcomes)}")
    for name, what in found.findings:
        print(f"{name}: {what}")


if __name__ == "__main__":
    main()
