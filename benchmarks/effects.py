"""What the effects are worth beside the simulated camera, and what they cost beside OpenCV and FFmpeg.

    python -m benchmarks.effects --data DIR [--bundle URI] [--without URI] [--json FILE] [--sheet PNG]

DIR is any folder of photos, or holds photos/. Those that the bundle's effects were trained on are left out by
their content. Frames are 256 pixels high (wide photos) or wide; ours goes the way that a reel goes.

effects   per effect: PSNR, SSIM, GMSD and a distance in the features network to the simulation, at strengths
          and phases drawn evenly; `untouched` is the frame as it is; `detail` is the sharpness of ours as a
          share of the simulation's
smooth    per effect: see benchmarks/effects_measures.py
critic    how often a critic trained afresh tells made from simulated, 0.5 is guessing (with --critic STEPS)
without   the same measures of a bundle whose effects were trained without the adversarial term
speed     1080p frames per CPU second, beside benchmarks/effects_rivals.py
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.colour import photos_of, rounded, spread, unseen
from benchmarks.effects_critic import told_apart
from benchmarks.effects_measures import Perceptual, detail, gmsd, simulated, smoothness, ssim
from benchmarks.effects_rivals import ffmpeg, opencv
from jobs.train.psnr import psnr_of
from stages.effects import Effects, EffectSettings, asked, effect_names
from stages.nn import cnn
from stages.nn.gan import EFFECTS
from stages.nn.weights import BundleError, open_bundle

SEED = 0
FRAME_PX = 256
TRIES = 4  # strengths and phases for each photo and effect
PHASES, STRENGTHS = (0.1, 0.5), (0.3, 1.0)
COMBINED = ("spin+zoom", "ripple+blur")
SPEED_PHASES = (0.08, 0.16, 0.24, 0.32, 0.4, 0.48)
RUNS = 3
SHEET_PHASES = (0.12, 0.24, 0.34, 0.42, 0.49, -0.49, -0.38, -0.24)
SHEET_PX = 128


@click.command(help=__doc__.splitlines()[0])
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--bundle", "uri", help="Model bundle; none: the one in the package.")
@click.option("--without", help="A bundle whose effects were trained without the adversarial term.")
@click.option("--photos", "most", default=12, type=click.IntRange(min=2), show_default=True)
@click.option("--critic", "critic_steps", default=0, type=click.IntRange(min=0), show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="A contact sheet as PNG.")
def main(
    data: Path,
    uri: str | None,
    without: str | None,
    most: int,
    critic_steps: int,
    json_file: Path | None,
    sheet: Path | None,
) -> None:
    began = time.monotonic()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        bundle = open_bundle(uri)
        effects = Effects(EffectSettings(), bundle)
        other = Effects(EffectSettings(), open_bundle(without)) if without else None
        perceptual = Perceptual(cnn.load(bundle, bundle.card("features")["kind"]))
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    seen = bundle.card("effects").get("trained", {}).get("files", {})
    files, left_out = unseen(photos_of(data), seen)
    if len(files) < 2:
        raise click.ClickException(f"{data}: two photos are needed that the effects were not trained on")
    photos = [read(path) for path in spread(files, most)]
    print(f"{len(photos)} photos ({left_out} left out: trained on)", flush=True)
    result: dict[str, Any] = {"photos": len(photos)}
    for key, made_by in (("", effects), ("without", other)):
        if made_by is not None:
            found = judged(made_by, photos, perceptual, critic_steps)
            result |= {key: found} if key else found
            show(found, key or bundle.uri)
    result["speed_1080p_fps"] = speed(effects, cv2.resize(photos[0], (1920, 1080)))
    print(
        f"\n{'1080p frames per CPU second':28s}" + "".join(f"{n:>9s}" for n in ("ours", "opencv", "ffmpeg"))
    )
    for name, rates in result["speed_1080p_fps"].items():
        print(f"{name:28s}" + "".join(f"{rate:9.1f}" for rate in rates.values()), flush=True)
    if sheet:
        contact_sheet(effects, photos[len(photos) // 2]).save(sheet)
    print(f"{time.monotonic() - began:.0f} s")
    if json_file:
        json_file.write_text(json.dumps(rounded(result), indent=1) + "\n")


def read(path: Path) -> np.ndarray:
    """The photo with FRAME_PX on its short side."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise click.ClickException(f"{path} is not a picture that OpenCV reads")
    scale = FRAME_PX / min(picture.shape[:2])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = [round(side * scale) for side in picture.shape[1::-1]]
    return cv2.cvtColor(cv2.resize(picture, size, interpolation=kind), cv2.COLOR_BGR2RGB)


def judged(
    effects: Effects, photos: list[np.ndarray], perceptual: Perceptual, critic_steps: int
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "effects": {name: near(effects, photos, name, perceptual) for name in (*EFFECTS, *COMBINED)},
        "smooth": {
            name: mean_of([smoothness(effects.net, photo, name, i) for i, photo in enumerate(photos[:3])])
            for name in EFFECTS
        },
    }
    if critic_steps:
        found["critic"] = told_apart(effects.net, photos, critic_steps)
    return found


def near(effects: Effects, photos: list[np.ndarray], effect: str, perceptual: Perceptual) -> dict[str, float]:
    """Means over the photos; `lowest_psnr` is the worst picture's."""
    rows = []
    for i, photo in enumerate(photos):
        rng = np.random.default_rng([SEED, i])
        phases = rng.choice((-1, 1), TRIES) * rng.uniform(*PHASES, TRIES)
        for phase, strength in zip(phases.tolist(), rng.uniform(*STRENGTHS, TRIES).tolist(), strict=True):
            aspect = photo.shape[1] / photo.shape[0]
            cues = [asked(name, [phase], strength, aspect, i) for name in effect_names(effect)]
            true, made = simulated(photo, *cues), effects.shown(photo, effect, phase, strength, i)
            row = {
                "psnr": psnr_of(made, true),
                "ssim": ssim(made, true),
                "gmsd": gmsd(made, true),
                "perceptual": perceptual(made, true),
            }
            row |= {"detail": detail(made) / max(detail(true), 1e-6), "untouched_psnr": psnr_of(photo, true)}
            rows.append(row | {"untouched_perceptual": perceptual(photo, true)})
    return mean_of(rows) | {"lowest_psnr": min(row["psnr"] for row in rows)}


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def speed(effects: Effects, frame: np.ndarray) -> dict[str, dict[str, float]]:
    """Effect -> way -> frames of 1080p per CPU second: the median of the runs over the phases."""
    found = {}
    for name in EFFECTS:
        height, width = frame.shape[:2]
        slow = [opencv((height, width), asked(name, [p], 0.8, width / height, SEED)) for p in (0.24, 0.48)]
        effects.shown(frame, name, SPEED_PHASES[0])
        found[name] = {
            "ours": rate(
                lambda name=name: [effects.shown(frame, name, phase) for phase in SPEED_PHASES],
                len(SPEED_PHASES),
            ),
            "opencv": rate(lambda slow=slow: [apply(frame) for apply in slow], len(slow), runs=1),
            "ffmpeg": rate(lambda name=name: list(ffmpeg(name, frame, 3)), 3, runs=1),
        }
    return found


def rate(work: Any, count: int, runs: int = RUNS) -> float:
    """CPU seconds, not those on the wall: what else the machine does is no cost of an effect."""
    spent = []
    for _ in range(runs):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return count / max(statistics.median(spent), 1e-9)


def contact_sheet(effects: Effects, photo: np.ndarray) -> Image.Image:
    """Two lines for each effect, ours above the simulation, by phase from left to right."""
    height, width = photo.shape[:2]
    cell = (round(SHEET_PX * width / height), SHEET_PX)
    label_px = 78
    lines = 2 * len(EFFECTS)
    sheet = Image.new("RGB", (label_px + len(SHEET_PHASES) * cell[0], 18 + lines * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for column, phase in enumerate(SHEET_PHASES):
        draw.text((label_px + column * cell[0] + 4, 3), f"phase {phase:+.2f}", fill="black")
        for line, name in enumerate(EFFECTS):
            made = effects.shown(photo, name, phase, 0.8, SEED)
            true = simulated(photo, asked(name, [phase], 0.8, width / height, SEED))
            for row, (picture, what) in enumerate(((made, name), (true, "simulated"))):
                top = 18 + (2 * line + row) * cell[1]
                small = cv2.resize(picture, cell, interpolation=cv2.INTER_AREA)
                sheet.paste(Image.fromarray(small), (label_px + column * cell[0], top))
                draw.text((4, top + SHEET_PX // 2 - 6), what, fill="black" if row == 0 else "gray")
    return sheet


def show(found: dict[str, Any], title: str) -> None:
    rows = found["effects"]
    print(f"\n{title}\n{'':14s}" + "".join(f"{name:>22s}" for name in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:14s}" + "".join(f"{value:22.4f}" for value in row.values()))
    for name, row in found["smooth"].items():
        print(f"{name:14s}" + "  ".join(f"{what} {value:.2f}" for what, value in row.items()))
    if "critic" in found:
        print("critic trained afresh: " + "  ".join(f"{k} {v:.3f}" for k, v in found["critic"].items()))
    print(end="", flush=True)


if __name__ == "__main__":
    main()
