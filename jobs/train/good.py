"""Good pictures to learn colour from: photographs, and frames of films that somebody graded.

good_pictures(...)  the pictures of the data folder, by part
apart(pictures)     some of them are held out, by whole files
varied(good)        the same at other hues and tones, some cut in two, some on a page

A few hundred scenes are soon learnt by heart; what is varied here stays as good as it was, but is never the
same twice. Pictures are uint8 [H, W, 3], batches float [B, 3, S, S] in [0, 1], all RGB.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jobs.train.codec import video_frames
from jobs.train.photos import PICTURES, photos
from jobs.train.run import Run, TrainingError
from jobs.train.timelines import HASH_DIGITS, VIDEO_SUFFIXES
from stages.filesystem import open_filesystem
from stages.nn.light import luma

EVERY, SETTLES, JUDGES = 8, 3, 7  # of every 8 files, those of these numbers are held out
FRAMES = 16  # of a video
FRAME_PX = 160  # height of a frame
HUE = 0.12  # radians that all hues turn by at most
VIVID = 0.2  # exponent of e: most that colours get stronger or weaker
BRIGHT = 0.12  # likewise gamma
CUT = 0.3  # share of pictures with another one beside or above
PAGES = 0.1  # share of pictures on a page


@dataclass(frozen=True)
class Good:
    picture: np.ndarray
    file: str  # its path; with a number for a picture out of a table
    sha256: str  # of its file, the first digits; empty for a picture out of a table


def good_pictures(names: Iterable[str], most: int, run: Run) -> dict[str, list[Good]]:
    """The named parts of the data folder that are there; the whole folder if it is laid out otherwise."""
    root = run.settings.data.rstrip("/")
    filesystem, path = open_filesystem(root)
    there = [name for name in names if filesystem.exists(f"{path}/{name}")]
    if not there:
        return {"": read(run.uses(".", root), most)}
    return {name: read(run.uses(name, f"{root}/{name}"), most) for name in there}


def read(uri: str, most: int) -> list[Good]:
    """The pictures and the frames of videos below a folder; files that cannot be read are left out."""
    if uri.endswith(".parquet"):
        return [Good(picture, f"{uri} {i:06d}", "") for i, picture in enumerate(photos(uri, most=most))]
    filesystem, path = open_filesystem(uri)
    found: list[Good] = []
    for name in sorted(filesystem.find(path)):
        if len(found) >= most:
            break
        file, suffix = uri + name.removeprefix(path), PurePosixPath(name).suffix.lower()
        if suffix == ".parquet":
            found += read(file, most - len(found))
        elif pictures := shown_in(file, suffix):
            with filesystem.open(name, "rb") as handle:
                sha256 = hashlib.file_digest(handle, "sha256").hexdigest()[:HASH_DIGITS]
            found += [Good(picture, name, sha256) for picture in pictures]
    if not found:
        raise TrainingError(f"{uri} holds no pictures ({', '.join(PICTURES + VIDEO_SUFFIXES)}, or .parquet)")
    return found


def shown_in(file: str, suffix: str) -> list[np.ndarray]:
    if suffix in VIDEO_SUFFIXES:
        return list(video_frames(file, FRAMES, FRAME_PX))
    try:
        return photos(file) if suffix in PICTURES else []
    except TrainingError:
        return []


def apart(pictures: list[Good]) -> tuple[list[Good], list[Good], list[Good]]:
    """To learn from, to settle the doubt, to judge: of every 8 files in the order of their names, 6, 1 and 1.

    Whole files: frames of one video are alike. Of a table every picture counts as a file.
    """
    files = sorted({picture.file for picture in pictures})
    settling, judging = (set(files[first::EVERY]) for first in (SETTLES, JUDGES))
    return (
        [picture for picture in pictures if picture.file not in settling | judging],
        [picture for picture in pictures if picture.file in settling],
        [picture for picture in pictures if picture.file in judging],
    )


def varied(good: Tensor) -> Tensor:
    """Other good pictures out of these."""
    return on_paper(cut_in_two(tinted(good)))


def tinted(good: Tensor) -> Tensor:
    """Hues turned about grey, colours stronger or weaker, all of it brighter or darker: by a little."""
    turn, vivid, bright = (2 * torch.rand(3, len(good), 1, 1, 1, device=good.device) - 1).unbind()
    # A turn about the axis of greys (Rodrigues), on what is left of a colour without its grey.
    grey = luma(good)
    chroma = good - good.mean(1, keepdim=True)
    across = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3)
    chroma = torch.exp(VIVID * vivid) * (torch.cos(HUE * turn) * chroma + torch.sin(HUE * turn) * across)
    turned = grey + chroma - luma(chroma)
    return turned.clamp(0, 1) ** torch.exp(BRIGHT * bright)


def cut_in_two(good: Tensor) -> Tensor:
    """Some of the pictures with the next one of the batch over a part of theirs: scenes that nobody knows."""
    side, other = good.shape[-1], good.roll(1, 0)
    cut = good.clone()
    for i in torch.nonzero(torch.rand(len(good)) < CUT).flatten().tolist():
        at = int(torch.randint(side // 4, 3 * side // 4, ()))
        if torch.rand(()) < 0.5:
            cut[i, :, at:] = other[i, :, at:]
        else:
            cut[i, :, :, at:] = other[i, :, :, at:]
    return cut


def on_paper(good: Tensor) -> Tensor:
    """Some of the pictures small on a flat page with lines of text: slides are good as they are."""
    side = good.shape[-1]
    for i in torch.nonzero(torch.rand(len(good)) < PAGES).flatten().tolist():
        light = bool(torch.rand(()) < 0.8)
        tone = 0.15 * torch.rand(()) ** 2
        page = torch.full_like(good[i], float(1 - tone if light else tone))
        ink = 0.3 * torch.rand(3, 1, device=good.device)
        rows = torch.randperm(side)[: int(torch.randint(1, side // 6, ()))].tolist()
        for row in rows:
            page[:, row, side // 8 : int(torch.randint(side // 4, side, ()))] = ink if light else 1 - ink
        size = int(torch.randint(side // 8, side // 2, ()))
        top, left = torch.randint(side - size + 1, (2,)).tolist()
        photo = F.interpolate(good[i : i + 1], (size, size), mode="area")[0]
        page[:, top : top + size, left : left + size] = photo
        good[i] = page
    return good
