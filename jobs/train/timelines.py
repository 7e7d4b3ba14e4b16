"""Labelled timelines composed of short clips: where in a long dull recording does something happen?

Each source file is decoded and turned into vectors once, by the stages that a run uses, and kept as a
safetensors file. Composition is then a matter of joining sequences: a host with inserts at known times, as
often dull hosts with action set in as action with dull inserts. What would give the inserts away without
looking is made the same for both kinds: every other insert in a dull host is dull, too, of any source,
and one in an action host is action; every clip is shown as a piece as short as the dull recordings are, to
and fro; loudness levels and the scale of motion are drawn per piece; a file without sound gets that of
another.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from jobs.train.loop import Run, TrainingError
from jobs.train.photos import photos
from stages.container import LimitSettings
from stages.decode import DecodeSettings, decode
from stages.failure import Dropped, Failed
from stages.features import ExtractFeatures
from stages.gather import loudness_of
from stages.probe import probe
from stages.score import loudness_at, steady, within_shots

RATE_HZ = 2.0
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".ts")
MIN_SAMPLES = 3
# Raise it when decoding or features come out differently for the same files and weights.
CACHE_VERSION = 5
STILL_S = 12.0
STILL_MOTION = 1.5e-3  # what noise and compression make of a picture that stands still
STILL_UNEVENNESS = 1e-4
STILL_KINDS = 8  # as many folders of dull recordings they count as
HASH_DIGITS = 16
# Of the parts that training, choice and test see. With 7, settings were chosen in view of the test part.
SPLIT_SEED = 11


@dataclass(frozen=True)
class Clip:
    """What is known of one source file, sampled at RATE_HZ."""

    name: str  # path inside the data folder
    group: str  # its folder: an action class, or a kind of dull recording
    action: bool
    features: np.ndarray  # float16 [N, D]
    motion: np.ndarray  # float32 [N]
    motion_std: np.ndarray  # float32 [N]
    loudness: np.ndarray  # float32 [N], LUFS; empty without audio
    shot: np.ndarray  # int [N], number of the shot
    sha256: str  # of the file, 16 hex digits

    @property
    def unit(self) -> str:
        """What is never divided between training and test: a class of action, a dull recording."""
        return self.group if self.action else self.name


@dataclass(frozen=True)
class Timeline:
    """What the scorer sees of a video, already as means within shots, and the truth."""

    features: np.ndarray  # float16 [T, D]
    motion: np.ndarray  # float32 [T]
    motion_std: np.ndarray  # float32 [T]
    loudness: np.ndarray  # float32 [T]; empty without audio
    label: np.ndarray  # bool [T], True where an action clip is


def decode_file(path: Path | str) -> Iterator[dict[str, Any]]:
    """The shards of a file, decoded as a run does it. Raises Failed or Dropped."""
    settings = DecodeSettings(fps=RATE_HZ)
    for shard in probe({"uri": str(path)}, LimitSettings(), settings.shard_s):
        yield decode(shard, settings, LimitSettings())


def read_clip(path: Path | str, extract: ExtractFeatures) -> dict[str, np.ndarray]:
    """features, motion, motion_std, loudness, shot and times_s of a whole file. Raises Failed or Dropped."""
    names = ("features", "motion", "motion_std", "times_s", "cuts_s")
    kept = (*names, "loudness", "start_s", "end_s", "end_of_video_s")
    rows = [{key: row[key] for key in kept} for row in map(extract, decode_file(path))]
    whole = {key: np.concatenate([row[key] for row in rows]) for key in names}
    return {
        "features": whole["features"],
        "motion": whole["motion"],
        "motion_std": whole["motion_std"],
        "loudness": loudness_at(whole["times_s"], loudness_of(rows)),
        "shot": np.searchsorted(whole["cuts_s"], whole["times_s"], side="right"),
        "times_s": whole["times_s"],
    }


def library(run: Run, extract: ExtractFeatures, features_key: str) -> list[Clip]:
    """Every clip of action/CLASS/ and dull/ in the data folder; files that do not decode are left out."""
    clips = []
    for part in ("action", "dull"):
        for path, name, group in labelled(run.part(part)):
            try:
                arrays = cached(run, path, extract, features_key)
            except (Failed, Dropped) as error:
                run.log(left_out=path.name, why=error)
                continue
            if len(arrays["motion"]) < MIN_SAMPLES:
                continue
            arrays.pop("times_s")
            clips.append(Clip(name=name, group=group, action=part == "action", sha256=digest(path), **arrays))
    for part, action in (("action", True), ("dull", False)):
        if len({clip.unit for clip in clips if clip.action == action}) < 3:
            what = "classes of action" if action else "dull recordings"
            raise TrainingError(
                f"{run.part(part)} holds fewer than 3 {what}: one each to train, choose and test"
            )
    return clips


def labelled(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Every video below action/ or dull/: its path, its name in the data folder, and its group.

    The order and the names decide the split: training and benchmark both come here.
    """
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()):
        group = path.parent.name if path.parent != root else path.stem
        yield path, path.relative_to(root.parent).as_posix(), group


def digest(path: Path) -> str:
    """The first HASH_DIGITS hex digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]


def stills(run: Run, extract: ExtractFeatures, side: int) -> list[Clip]:
    """Each photograph of the data folder as a dull recording: what stands still is dull, whatever it shows.

    side  of the pictures that the features are made of, pixels
    """
    rng = np.random.default_rng(run.settings.seed)
    count = round(STILL_S * RATE_HZ)
    clips = []
    for i, photo in enumerate(photos(str(run.part("photos")))):
        picture = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
        vector = extract({"frames": picture[None]})["features"]
        level, flicker = rng.normal(0, 0.5), rng.normal(0, 0.2, count)
        clips.append(
            Clip(
                name=f"photos/{i}",
                group=f"still {i % STILL_KINDS}",
                action=False,
                features=vector.repeat(count, axis=0),
                motion=(STILL_MOTION * np.exp(level + flicker)).astype(np.float32),
                motion_std=(STILL_UNEVENNESS * np.exp(level + flicker)).astype(np.float32),
                loudness=np.empty(0, np.float32),
                shot=np.zeros(count, int),
                sha256="",
            )
        )
    return clips


def cached(run: Run, path: Path, extract: ExtractFeatures, features_key: str) -> dict[str, np.ndarray]:
    """read_clip of a file on this machine, decoded once."""
    facts = path.stat()
    return kept(run, path, f"{path.absolute()} {facts.st_size} {facts.st_mtime_ns}", extract, features_key)


def kept(
    run: Run, uri: Path | str, identity: str, extract: ExtractFeatures, features_key: str
) -> dict[str, np.ndarray]:
    """read_clip, kept in the run's folder under everything that the result depends on.

    identity  of the file and its content
    """
    key = f"{identity} {features_key} {RATE_HZ} {CACHE_VERSION}"
    file = run.folder / "clips" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        arrays = read_clip(uri, extract)
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


def hold_out(clips: list[Clip], folds: int, fold: int, rng: np.random.Generator) -> dict[str, list[Clip]]:
    """One of `folds` parts as test, by whole units, and all others as train: every unit is in one test part.

    Raises TrainingError where there are fewer units of a kind than folds.
    """
    parts: dict[str, list[Clip]] = {"train": [], "val": [], "test": []}
    for action in (True, False):
        mine = [clip for clip in clips if clip.action == action]
        units = rng.permutation(sorted({clip.unit for clip in mine})).tolist()
        if len(units) < folds:
            kind = "classes of action" if action else "dull recordings"
            raise TrainingError(f"{len(units)} {kind} cannot be divided into {folds} folds")
        test = set(units[fold::folds])
        for clip in mine:
            parts["test" if clip.unit in test else "train"].append(clip)
    return parts


def compose(
    clips: list[Clip],
    steps: int,
    rng: np.random.Generator,
    gain: float = 0.0,
    action_hosts: float = 0.5,
) -> Timeline:
    """One timeline of `steps` samples.

    A host of 1 to 3 dull sources, or of changing clips of action, with inserts of 4 to 12 s; half of the
    inserts are of the other kind. Sources are drawn by folder first, so that a large one does not dominate.

    gain          standard deviation of the logarithm by which the motion of a piece is scaled: how much moves
                  in an action differs between classes, and the classes of the test are others
    action_hosts  share of the timelines whose host is action
    """
    host_is_action = bool(rng.random() < action_hosts)
    hosts = [draw(clips, host_is_action, rng) for _ in range(rng.integers(1, 4))]
    voices = [clip for clip in clips if len(clip.loudness)]
    audible = bool(voices) and rng.random() < 0.6
    pieces: list[tuple[np.ndarray, ...]] = []
    filled, inside = 0, bool(rng.random() < 0.3)
    while filled < steps:
        if inside:
            clip = draw(clips, host_is_action ^ bool(rng.random() < 0.5), rng)
            seconds = rng.uniform(4, 12)
        elif host_is_action:
            clip, seconds = draw(clips, True, rng), rng.uniform(4, 14)
        else:
            clip, seconds = hosts[rng.integers(len(hosts))], rng.uniform(10, 40)
        count = min(steps - filled, max(2, round(seconds * RATE_HZ)))
        # A short clip repeats itself, and most dull recordings are short: so does a piece of any clip.
        room = min(len(clip.motion), len(draw(clips, False, rng).motion))
        index = rng.integers(len(clip.motion) - room + 1) + walk(room, count, rng)
        scale = np.exp(rng.normal(0, gain))
        cut = np.diff(clip.shot[index], prepend=-1) != 0  # the seam is one, too
        heard = sound(clip, index, voices, rng)
        moved = (scale * clip.motion[index], scale * clip.motion_std[index])
        pieces.append((clip.features[index], *moved, heard, np.full(count, clip.action), cut))
        filled += count
        inside = bool(rng.random() < 0.4) if host_is_action else not inside
    features, motion, motion_std, loudness, label, cut = (
        np.concatenate(column) for column in zip(*pieces, strict=True)
    )
    times_s, cuts_s = np.arange(steps) / RATE_HZ, np.flatnonzero(cut)[1:] / RATE_HZ
    if not audible:
        loudness = np.empty(0, np.float32)
    return Timeline(
        within_shots(features, times_s, cuts_s),
        steady(motion, times_s, cuts_s),
        steady(motion_std, times_s, cuts_s),
        within_shots(loudness, times_s, cuts_s),
        label,
    )


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
