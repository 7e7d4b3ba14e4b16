"""What the codec saves beside JPEG, WebP and AVIF on a folder of pictures, at their full size.

    python -m benchmarks.codec --data DIR [--bundle URI] [--limit N] [--json FILE]

DIR is any folder of pictures, searched to the bottom; what cannot be read or coded is listed and left out.
Every picture goes through every rate of the codec and through the qualities of the others; sizes are those of
whole files. Points of a curve are means over the pictures, times those of one core, in milliseconds.

bd_rate   bits that ours needs at equal PSNR (RGB), in percent more than the other's: negative is fewer
          (Bjøntegaard, over the PSNR that both cover)

The JSON file has ours in CompressAI's layout (times in seconds), so that curves can be laid over each other;
the others under `others` in the same layout, each picture's points under `pictures`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features
from rich.console import Console
from rich.table import Table

from benchmarks.scoring import one_core
from jobs.train.rate_distortion import (
    QUALITIES,
    Codec,
    Point,
    Saving,
    bd_rate,
    mean,
    measure,
    ours,
    pillow,
)
from stages.nn.codec import load_codec
from stages.nn.entropy import MAX_PIXELS
from stages.nn.weights import Bundle, BundleError, open_bundle

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif"}
LEAST_PX = 16
LITTLE_OVERLAP = 0.5

Curves = dict[str, list[Point]]


@dataclass(frozen=True)
class Measured:
    name: str
    width: int
    height: int
    curves: Curves  # by codec: one point for each of its settings


@click.command(help=__doc__.splitlines()[0])
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--bundle", "uri", help="Model bundle; none: the one in the package.")
@click.option("--limit", type=click.IntRange(min=1), help="Pictures at most, spread over the folder.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(data: Path, uri: str | None, limit: int | None, json_file: Path | None) -> None:
    one_core()
    cv2.setNumThreads(1)
    console = Console()
    try:
        bundle = open_bundle(uri)
        codecs = all_codecs(bundle)
    except BundleError as error:
        raise click.ClickException(str(error)) from error
    measured: list[Measured] = []
    skipped: dict[str, str] = {}
    for path in chosen(data, limit):
        name = path.relative_to(data).as_posix()
        picture = read(path)
        if isinstance(picture, str):
            skipped[name] = picture
            console.print(f"left out: {name}: {picture}", highlight=False, markup=False)
            continue
        measured.append(measure_picture(name, picture, codecs))
    if not measured:
        raise click.ClickException(
            f"{data} holds no picture that can be measured ({', '.join(sorted(SUFFIXES))})"
        )
    curves = {
        codec: [mean(points) for points in zip(*(one.curves[codec] for one in measured), strict=True)]
        for codec in codecs
    }
    savings = {codec: bd_rate(curves["ours"], curves[codec]) for codec in codecs if codec != "ours"}
    show(console, curves, savings, len(measured))
    if json_file:
        result = layout(bundle, codecs, curves, savings, measured, skipped)
        json_file.write_text(json.dumps(result, indent=1) + "\n")


def chosen(folder: Path, limit: int | None) -> list[Path]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
    if limit is None or limit >= len(paths):
        return paths
    return [paths[i * len(paths) // limit] for i in range(limit)]


def read(path: Path) -> np.ndarray | str:
    """The picture uint8 [H, W, 3] the right way up, or why there is none."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return f"{width} by {height} pixels are more than a code may have ({MAX_PIXELS})"
            picture = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        return f"cannot be read: {error}"
    if min(picture.shape[:2]) < LEAST_PX:
        return f"{width} by {height} pixels are too few"
    return picture


def all_codecs(bundle: Bundle) -> dict[str, list[Codec]]:
    """Every codec at every setting, from small files to large ones."""
    forms = [form for form in QUALITIES if form != "avif" or features.check("avif")]
    return {"ours": ours(load_codec(bundle))} | {form: pillow(form) for form in forms}


def measure_picture(name: str, picture: np.ndarray, codecs: dict[str, list[Codec]]) -> Measured:
    # The first call of a network at a new size costs more than the others.
    first = codecs["ours"][0]
    first.decode(first.encode(picture))
    curves = {codec: [measure(picture, one) for one in settings] for codec, settings in codecs.items()}
    return Measured(name, picture.shape[1], picture.shape[0], curves)


def show(console: Console, curves: Curves, savings: dict[str, Saving | None], pictures: int) -> None:
    table = Table(title=f"mean of {pictures} pictures")
    for heading in ("codec", "bpp", "PSNR dB", "MS-SSIM", "encode ms", "decode ms"):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    for codec, points in curves.items():
        for point in points:
            table.add_row(
                codec,
                f"{point.bpp:.3f}",
                f"{point.psnr_db:.2f}",
                f"{point.ms_ssim:.4f}",
                f"{point.encode_ms:.0f}",
                f"{point.decode_ms:.0f}",
            )
        table.add_section()
    console.print(table)
    for codec, saving in savings.items():
        if saving is None:
            console.print(f"BD-rate against {codec}: none, the curves share no PSNR", highlight=False)
            continue
        span = f"{saving.low_db:.1f} to {saving.high_db:.1f} dB"
        words = f"BD-rate against {codec}: {saving.percent:+.1f} % ({span})"
        if saving.share < LITTLE_OVERLAP:
            words += f": only {saving.share:.0%} of our span, so it says little"
        console.print(words, highlight=False)


def layout(
    bundle: Bundle,
    codecs: dict[str, list[Codec]],
    curves: Curves,
    savings: dict[str, Saving | None],
    measured: list[Measured],
    skipped: dict[str, str],
) -> dict[str, Any]:
    card = bundle.card("codec")
    return {
        "name": f"reelmap {card['kind']}",
        "description": f"{bundle.uri}, {len(codecs['ours'])} rates, {len(measured)} pictures, one CPU core",
        "results": results(curves["ours"]),
        "bd_rate": {codec: saving and saving.percent for codec, saving in savings.items()},
        "bd_rate_over": {codec: saving and asdict(saving) for codec, saving in savings.items()},
        "others": {
            codec: {
                "name": codec,
                "description": f"Pillow, quality {', '.join(map(str, QUALITIES[codec]))}",
                "results": results(points),
            }
            for codec, points in curves.items()
            if codec != "ours"
        },
        "pictures": {
            one.name: {
                "width": one.width,
                "height": one.height,
                **{codec: results(points) for codec, points in one.curves.items()},
            }
            for one in measured
        },
        "left_out": skipped,
    }


def results(points: Sequence[Point]) -> dict[str, list[float | None]]:
    """As CompressAI writes them, times in seconds; JSON knows no NaN."""
    return {
        "bpp": [point.bpp for point in points],
        "psnr-rgb": [point.psnr_db for point in points],
        "ms-ssim-rgb": [None if np.isnan(point.ms_ssim) else point.ms_ssim for point in points],
        "encoding_time": [point.encode_ms / 1e3 for point in points],
        "decoding_time": [point.decode_ms / 1e3 for point in points],
    }


if __name__ == "__main__":
    main()
