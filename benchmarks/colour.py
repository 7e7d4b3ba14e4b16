"""What the colour correction is worth beside identity and classical methods, and what it costs.

    python -m benchmarks.colour --data DIR [--bundle URI] [--json FILE]

DIR holds photos/, colour_pairs/, dull/ and videos/, each of which may be missing, or is any folder of photos,
pairs and videos: what is not there is empty in the JSON. Photos that the bundle's colour model was trained on
are left out by their content. Ours is `lut`, as a run has it: the default settings, a look at the picture at
256 pixels, one LUT; --strength sets another strength.

degraded     photos spoilt in six ways (benchmarks/colour_damage.py), back to what they were
pairs        inputs of real cameras beside an expert's or a colour chart's correction
graded_psnr  photos as they are, through our LUT, beside themselves
flicker      on recordings of static scenes (benchmarks/colour_flicker.py): what a method adds per frame
speed        1080p frames a second on one core: the renderer's filters, and torch's grid_sample
"""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import click
import cv2
import numpy as np
import torch

from benchmarks.colour_damage import KINDS, spoilt
from benchmarks.colour_flicker import FRAME_PX, flicker, jumps, static_scenes
from benchmarks.colour_methods import CLASSICAL, classical, scores
from benchmarks.scoring import one_core
from jobs.train.photos import PICTURES
from jobs.train.timelines import HASH_DIGITS, digest
from stages.colour import ColourSettings, Grade, apply_lut
from stages.cube import write_cube
from stages.nn.lut import apply_luts
from stages.nn.weights import BundleError, open_bundle
from stages.picture import Look, finish

SEED = 0
PHOTO_PX = 384  # longest side of a photo, of a pair twice that
PARTS = ("photos", "colour_pairs", "dull", "videos")
METHODS = (*CLASSICAL, "lut")
MEASURES = ("psnr", "ssim", "de2000")
SPEED_FRAMES = 40
# input -> truth: NAME_input.png beside NAME_target.png, or SET__input__IMAGE_SHOT.jpg beside
# SET__groundtruth__IMAGE.jpg (as in the Rendered WB data sets, where _G_AS is the truth's shot).
PLAIN_INPUT = re.compile(r"(?P<name>.+)_input$")
RENDERED = re.compile(r"(?P<set>.+)__(?P<role>input|groundtruth)__(?P<name>.+)$")


@dataclass(frozen=True)
class Pair:
    given: Path
    truth: Path


@click.command(help=__doc__.splitlines()[0])
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--bundle", "uri", help="Model bundle; none: the one in the package.")
@click.option("--strength", type=click.FloatRange(0, 1), help="None: the default of a run.")
@click.option("--photos", "most_photos", default=40, type=click.IntRange(min=1), show_default=True)
@click.option("--scenes", "most_scenes", default=8, type=click.IntRange(min=0), show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(
    data: Path,
    uri: str | None,
    strength: float | None,
    most_photos: int,
    most_scenes: int,
    json_file: Path | None,
) -> None:
    began = time.monotonic()
    one_core()
    cv2.setNumThreads(1)
    settings = ColourSettings() if strength is None else ColourSettings(strength=strength)
    try:
        bundle = open_bundle(uri)
        grade, seen = Grade(settings, bundle), bundle.card("colour").get("trained", {}).get("files", {})
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    result: dict[str, Any] = {"strength": settings.strength, "agree": settings.agree}
    photos, left_out = unseen(photos_of(data), seen)
    photos = spread(photos, most_photos)
    print(
        f"{len(photos)} photos ({left_out} left out: trained on); strength {settings.strength:g}", flush=True
    )
    result |= {"degraded": {}, "pairs": {}, "graded_psnr": None, "flicker": {}}
    if photos:
        by_kind = degraded(photos, grade)
        result |= {"degraded": mean_of(by_kind), "by_kind": by_kind, "graded_psnr": graded(photos, grade)}
        result["photos"] = len(photos)
        table("degraded", result["degraded"])
        for kind, methods in by_kind.items():
            print(f"{kind:16s}" + "  ".join(f"{name} {methods[name]['psnr']:.2f}" for name in METHODS))
        print(f"graded: {result['graded_psnr']:.2f} dB to itself", flush=True)
    pairs = pairs_of(parts(data, "colour_pairs")[0])
    if pairs:
        result["pairs"] = mean_of(per_pair := {pair.given.name: judged_pair(pair, grade) for pair in pairs})
        result["by_pair"] = {
            name: {m: s["psnr"] for m, s in found.items()} for name, found in per_pair.items()
        }
        table(f"{len(pairs)} pairs", result["pairs"])
    scenes = static_scenes(parts(data, "dull", "videos"), most_scenes)
    if scenes:
        restless = flicker(scenes, grade)
        result["flicker"] = {name: found["flicker"] for name, found in restless.items() if name != "source"}
        result["frame_to_frame"] = {name: found["frame_to_frame"] for name, found in restless.items()}
        print(f"{len(scenes)} static scenes: {', '.join(scene.name for scene in scenes)}")
        for name, found in restless.items():
            print(f"{name:28s}" + "  ".join(f"{what} {value:.3f}" for what, value in found.items()))
        result["jump"] = jumps(scenes, settings, lambda changed: Grade(changed, bundle))
        print(
            "jump: " + "  ".join(f"{name} {value:.2f}" for name, value in result["jump"].items()), flush=True
        )
    result["speed_1080p_fps"] = speed(grade)
    print("1080p frames/s: " + "  ".join(f"{k} {v:.1f}" for k, v in result["speed_1080p_fps"].items()))
    print(f"{time.monotonic() - began:.0f} s")
    if json_file:
        json_file.write_text(json.dumps(rounded(result), indent=1) + "\n")


def parts(data: Path, *names: str) -> list[Path]:
    """These parts of a data folder; the whole folder if it is laid out otherwise."""
    return [data / name for name in names] if any((data / part).is_dir() for part in PARTS) else [data]


def photos_of(data: Path) -> list[Path]:
    """Good pictures: the two sides of pairs are not, wherever they lie."""
    paired = {path for pair in pairs_of(data) for path in (pair.given, pair.truth)}
    return [path for path in pictures(parts(data, "photos")[0]) if path not in paired]


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)


def unseen(files: list[Path], seen: dict[str, list[str]]) -> tuple[list[Path], int]:
    """The files that the model was not trained on, and how many those are that it was."""
    known = {digits[:HASH_DIGITS] for part in seen.values() for digits in part}
    left = [path for path in files if digest(path) not in known]
    return left, len(files) - len(left)


def spread(files: list[Path], most: int) -> list[Path]:
    """At most this many, evenly over the order of their names."""
    return [files[i] for i in np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int)]


def pairs_of(folder: Path) -> list[Pair]:
    files = {path.with_suffix("").relative_to(folder).as_posix(): path for path in pictures(folder)}
    found = []
    for key, path in files.items():
        if (plain := PLAIN_INPUT.match(key)) and (truth := files.get(f"{plain['name']}_target")):
            found.append(Pair(path, truth))
        if (rendered := RENDERED.match(key)) and rendered["role"] == "input":
            truths = [
                (len(name), other)
                for other_key, other in files.items()
                if (match := RENDERED.match(other_key))
                and (match["set"], match["role"]) == (rendered["set"], "groundtruth")
                and rendered["name"].startswith(name := f"{match['name'].removesuffix('_G_AS')}_")
            ]
            # The longest name: 1 is the beginning of 19, too.
            found += [Pair(path, max(truths)[1])] if truths else []
    return found


def read(path: Path, longest_px: int) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise click.ClickException(f"{path} is not a picture that OpenCV reads")
    scale = longest_px / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def ours(picture: np.ndarray, grade: Grade) -> np.ndarray:
    """As a run grades a shot of this one frame."""
    look = cv2.resize(picture, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_AREA)
    return apply_lut(picture, grade.lut(look[None]))


def judged(given: np.ndarray, truth: np.ndarray, grade: Grade) -> dict[str, dict[str, float]]:
    found = {name: scores(classical(name, given), truth) for name in CLASSICAL}
    return found | {"lut": scores(ours(given, grade), truth)}


def degraded(photos: list[Path], grade: Grade) -> dict[str, dict[str, dict[str, float]]]:
    """Kind of damage -> method -> measures, means over the photos."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for i, path in enumerate(photos):
        good = read(path, PHOTO_PX)
        for kind in KINDS:
            found[kind][path.name] = judged(spoilt(good, kind, np.random.default_rng([SEED, i])), good, grade)
    return {kind: mean_of(each) for kind, each in found.items()}


def judged_pair(pair: Pair, grade: Grade) -> dict[str, dict[str, float]]:
    given, truth = (read(path, 2 * PHOTO_PX) for path in (pair.given, pair.truth))
    if given.shape != truth.shape:
        truth = cv2.resize(truth, given.shape[1::-1], interpolation=cv2.INTER_AREA)
    return judged(given, truth, grade)


def graded(photos: list[Path], grade: Grade) -> float:
    goods = (read(path, PHOTO_PX) for path in photos)
    return float(np.mean([scores(ours(good, grade), good)["psnr"] for good in goods]))


def mean_of(each: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Something -> method -> measures, averaged over that something."""
    return {
        name: {
            measure: float(np.mean([found[name][measure] for found in each.values()])) for measure in MEASURES
        }
        for name in METHODS
    }


def speed(grade: Grade) -> dict[str, float]:
    """Frames of 1080p a second."""
    rng = np.random.default_rng(SEED)
    picture = cv2.resize(rng.integers(0, 256, (34, 60, 3), dtype=np.uint8), (1920, 1080))
    lut = grade.lut(cv2.resize(picture, (FRAME_PX, FRAME_PX))[None])
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
    with tempfile.TemporaryDirectory() as folder:
        cube = Path(folder) / "grade.cube"
        write_cube(lut, cube)
        found = {"renderer": rate(partial(rendered, frame, Look(1920, 1080, cube=cube)))}
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    luts = torch.from_numpy(lut)[None]
    return found | {"grid_sample": rate(lambda: [apply_luts(x, luts) for _ in range(5)])}


def rate(work: Any) -> float:
    began = time.perf_counter()
    count = sum(1 for _ in work())
    return count / (time.perf_counter() - began)


def rendered(frame: av.VideoFrame, look: Look) -> Iterator[av.VideoFrame]:
    frame.time_base = Fraction(1, 25)
    return finish(((frame, 1) for _ in range(SPEED_FRAMES)), look)


def table(title: str, methods: dict[str, dict[str, float]]) -> None:
    print(f"\n{title:16s}" + "".join(f"{measure:>8s}" for measure in MEASURES))
    for name, found in methods.items():
        print(f"{name:16s}" + "".join(f"{found[measure]:8.3f}" for measure in MEASURES), flush=True)


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
