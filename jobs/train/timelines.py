"""Labelled timelines composed of short clips: where in a long dull recording does something happen?

Each source file is decoded and turned into vectors once, by the stages that a run uses, and kept as a
safetensors file. Composition is then a matter of joining sequences: a host (one kind) with inserts of the
other at known times. What would give the inserts away without looking is made the same for both kinds: seams
join two sources of one kind, too; every clip is shown as a piece as short as the dull recordings are, to and
fro; loudness levels and the scale of motion are drawn per piece; a file without sound gets that of another.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from jobs.train.loop import Run, TrainingError
from stages.container import LimitSettings
from stages.decode import DecodeSettings, decode
from stages.failure import Dropped, Failed
from stages.features import ExtractFeatures
from stages.probe import probe
from stages.score import loudness_at

RATE_HZ = 2.0
SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".ts"}
MIN_SAMPLES = 3


@dataclass(frozen=True)
class Clip:
    """What is known of one source file, sampled at RATE_HZ."""

    name: str  # path inside the data folder
    group: str  # its folder: an action class, or a kind of dull recording
    action: bool
    features: np.ndarray  # float16 [N, D]
    motion: np.ndarray  # float32 [N]
    loudness: np.ndarray  # float32 [N], LUFS; empty without audio

    @property
    def unit(self) -> str:
        """What is never divided between training and test: a class of action, a dull recording."""
        return self.group if self.action else self.name


@dataclass(frozen=True)
class Timeline:
    features: np.ndarray  # float16 [T, D]
    motion: np.ndarray  # float32 [T]
    loudness: np.ndarray  # float32 [T]; empty without audio
    label: np.ndarray  # bool [T], True where an action clip is


def decode_file(path: Path) -> Iterator[dict[str, Any]]:
    """The shards of a file, decoded as a run does it. Raises Failed or Dropped."""
    settings = DecodeSettings(fps=RATE_HZ)
    for shard in probe({"uri": str(path)}, LimitSettings(), settings.shard_s):
        yield decode(shard, settings, LimitSettings())


def read_clip(path: Path, extract: ExtractFeatures) -> dict[str, np.ndarray]:
    """features, motion, loudness and times_s of a whole file. Raises Failed or Dropped."""
    rows = []
    for row in decode_file(path):
        row = extract(row)
        row["loud"] = loudness_at(row["times_s"] - row["start_s"], row["loudness"])
        rows.append({key: row[key] for key in ("features", "motion", "loud", "times_s")})
    whole = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    return {"loudness" if key == "loud" else key: value for key, value in whole.items()}


def library(run: Run, extract: ExtractFeatures, features_key: str) -> list[Clip]:
    """Every clip of action/CLASS/ and dull/ in the data folder; files that do not decode are left out."""
    clips = []
    for part in ("action", "dull"):
        root = run.part(part)
        for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES):
            try:
                arrays = cached(run, path, extract, features_key)
            except (Failed, Dropped) as error:
                run.log(left_out=path.name, why=error)
                continue
            # The first sample has no motion: nothing came before it.
            arrays = {key: value[1:] for key, value in arrays.items()}
            if len(arrays["motion"]) < MIN_SAMPLES:
                continue
            name = path.relative_to(root.parent).as_posix()
            group = path.parent.name if path.parent != root else path.stem
            clips.append(
                Clip(name, group, part == "action", arrays["features"], arrays["motion"], arrays["loudness"])
            )
    for part, action in (("action", True), ("dull", False)):
        if len({clip.unit for clip in clips if clip.action == action}) < 3:
            what = "classes of action" if action else "dull recordings"
            raise TrainingError(
                f"{run.part(part)} holds fewer than 3 {what}: one each to train, choose and test"
            )
    return clips


def cached(run: Run, path: Path, extract: ExtractFeatures, features_key: str) -> dict[str, np.ndarray]:
    """read_clip, kept in the run's folder under everything that the result depends on."""
    facts = path.stat()
    key = f"{path.absolute()} {facts.st_size} {facts.st_mtime_ns} {features_key} {RATE_HZ}"
    file = run.folder / "clips" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        arrays = read_clip(path, extract)
        save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}, temporary)
        temporary.replace(file)
    return {key: value.numpy() for key, value in load_file(file).items()}


def split(clips: list[Clip], rng: np.random.Generator) -> dict[str, list[Clip]]:
    """train, val and test: whole classes of action, and dull recordings by file (60, 15 and 25 %)."""
    parts: dict[str, list[Clip]] = {"train": [], "val": [], "test": []}
    for action in (True, False):
        mine = [clip for clip in clips if clip.action == action]
        units = rng.permutation(sorted({clip.unit for clip in mine})).tolist()
        test, val = (max(1, round(share * len(units))) for share in (0.25, 0.15))
        of = {
            name: "test" if i < test else "val" if i < test + val else "train" for i, name in enumerate(units)
        }
        for clip in mine:
            parts[of[clip.unit]].append(clip)
    return parts


def compose(clips: list[Clip], steps: int, rng: np.random.Generator) -> Timeline:
    """One timeline of `steps` samples.

    A host of 1 to 3 sources with inserts of 3 to 14 s of the other kind; mostly action in dull hosts,
    sometimes the reverse. Sources are drawn by folder first, so that a large one does not dominate.
    """
    host_is_action = rng.random() < 0.35
    hosts = [draw(clips, host_is_action, rng) for _ in range(rng.integers(1, 4))]
    voices = [clip for clip in clips if len(clip.loudness)]
    audible = bool(voices) and rng.random() < 0.6
    scale = np.exp(rng.normal(0, 0.4))
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    filled, inside = 0, bool(rng.random() < 0.3)
    while filled < steps:
        clip = draw(clips, not host_is_action, rng) if inside else hosts[rng.integers(len(hosts))]
        seconds = rng.uniform(3, 14) if inside else rng.uniform(4, 40)
        count = min(steps - filled, max(2, round(seconds * RATE_HZ)))
        # A short clip repeats itself, and most dull recordings are short: so does a piece of any clip.
        room = min(len(clip.motion), len(draw(clips, False, rng).motion))
        index = rng.integers(len(clip.motion) - room + 1) + walk(room, count, rng)
        vectors = clip.features[index] * (1 + rng.normal(0, 0.1, (count, clip.features.shape[1])))
        moved = clip.motion[index] * scale * np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.15, count))
        pieces.append(
            (vectors.astype(np.float16), moved, sound(clip, index, voices, rng), np.full(count, clip.action))
        )
        filled += count
        # Else the next piece is of the same kind from another source: a seam that means nothing.
        inside ^= bool(rng.random() < 0.65)
    features, motion, loudness, label = (np.concatenate(column) for column in zip(*pieces, strict=True))
    if not audible:
        loudness = np.empty(0, np.float32)
    return Timeline(features, motion.astype(np.float32), loudness, label)


def draw(clips: list[Clip], action: bool, rng: np.random.Generator) -> Clip:
    """A clip of a kind: a folder first, then a file in it."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.action == action:
            groups.setdefault(clip.group, []).append(clip)
    # The root of the size, between one chance per folder and one per file.
    sizes = np.sqrt([len(group) for group in groups.values()])
    group = list(groups.values())[rng.choice(len(groups), p=sizes / sizes.sum())]
    return group[rng.integers(len(group))]


def walk(length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` successive indices into a clip of `length`, to and fro if it is too short: no jump inside."""
    period = np.concatenate([np.arange(length), np.arange(1, length - 1)[::-1]])
    return period[(rng.integers(len(period)) + np.arange(count)) % len(period)]


def sound(clip: Clip, index: np.ndarray, voices: list[Clip], rng: np.random.Generator) -> np.ndarray:
    """Loudness of a segment at a level that says nothing of its kind; that of any clip if it has none."""
    if not voices:
        return np.empty(0, np.float32)
    if not len(clip.loudness):
        clip = voices[rng.integers(len(voices))]
        index = walk(len(clip.loudness), len(index), rng)
    shape = clip.loudness - np.median(clip.loudness)
    return np.clip(shape[index] + rng.normal(-24, 4), -70, 0).astype(np.float32)
