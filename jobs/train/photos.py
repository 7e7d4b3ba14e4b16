"""Photographs to train on: a folder of pictures (or a Parquet table with an `image` column) -> crops.

photos(folder)   list of uint8 [H, W, 3] RGB, in the order of their names
split(items)     (train, held out), the same cut every time
crops(...)       endless batches of uint8 [B, 3, S, S], a random square of a random picture
"""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import cv2
import fsspec
import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from jobs.train.loop import TrainingError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def photos(folder: str, longest_px: int = 1024, most: int | None = None) -> list[np.ndarray]:
    """Every picture below `folder` (any fsspec URI, or one file), at most `longest_px` on its long side.

    Raises TrainingError when there is not one.
    """
    found: list[np.ndarray] = []
    for data in _files(folder):
        if most is not None and len(found) >= most:
            break
        picture = _decode(data, longest_px)
        if picture is not None:
            found.append(picture)
    if not found:
        raise TrainingError(f"{folder} holds no pictures ({', '.join(PICTURES)}, or .parquet of them)")
    return found


def split(items: list[np.ndarray], every: int = 8) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every `every`-th item is held out; the order of names decides, so it is the same in every run."""
    held_out = items[every - 1 :: every]
    return [item for index, item in enumerate(items) if index % every != every - 1], held_out


def crops(
    pictures: list[np.ndarray],
    size_px: int,
    batch: int,
    rng: np.random.Generator,
    smallest: float = 0.4,
    flip: bool = True,
    unscaled: float = 0.0,
) -> Iterator[Tensor]:
    """uint8 [batch, 3, size_px, size_px] for ever: a random square, scaled, mirrored half of the time.

    smallest   the least side of the square, as a share of the picture's short side
    unscaled   share of the squares that keep the picture's own pixels
    """
    while True:
        yield torch.stack(
            [
                crop(pictures[rng.integers(len(pictures))], size_px, rng, smallest, flip, unscaled)
                for _ in range(batch)
            ]
        )


def crop(
    picture: np.ndarray,
    size_px: int,
    rng: np.random.Generator,
    smallest: float = 0.4,
    flip: bool = True,
    unscaled: float = 0.0,
) -> Tensor:
    """One random square of `picture` as uint8 [3, size_px, size_px]."""
    height, width = picture.shape[:2]
    short = min(height, width)
    # Never enlarge if the picture has the pixels: an enlarged crop teaches a model to be soft.
    least = min(short, max(size_px, round(smallest * short)))
    side = int(rng.integers(least, short + 1))
    if unscaled and rng.random() < unscaled:
        side = min(size_px, short)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    part = picture[top : top + side, left : left + side]
    if side != size_px:
        part = cv2.resize(
            part, (size_px, size_px), interpolation=cv2.INTER_AREA if side > size_px else cv2.INTER_LINEAR
        )
    if flip and rng.random() < 0.5:
        part = part[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))


def _files(folder: str) -> Iterable[bytes]:
    filesystem, root = fsspec.url_to_fs(folder)
    names = [root] if filesystem.isfile(root) else sorted(filesystem.find(root))
    for name in names:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in PICTURES:
            yield filesystem.cat_file(name)
        elif suffix == ".parquet":
            with filesystem.open(name, "rb") as handle:
                for batch in pq.ParquetFile(handle).iter_batches(columns=["image"]):
                    yield from batch.column("image").to_pylist()


def _decode(data: bytes, longest_px: int) -> np.ndarray | None:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        return None
    longest = max(picture.shape[:2])
    if longest > longest_px:
        scale = longest_px / longest
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
