"""Does a correction stand still where the scene does? Per frame against one for the shot, on static scenes.

flicker         mean CIEDE2000 between one and the same frame under the corrections of two neighbouring
                frames: what the method adds, whatever noise and movement the recording has of its own
frame_to_frame  mean CIEDE2000 between neighbouring corrected frames, the recording's own changes included;
                `source` is the recording as it is. Pictures are averaged to small ones first
jump            the same scene on both sides of a cut: each recording is cut into shots that stand in turn
                with shots of others; mean CIEDE2000 between a frame under its own shot's correction and
                under that of the scene's last shot
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.colour_methods import MAPS, Map, difference
from jobs.train.timelines import VIDEO_SUFFIXES, digest
from stages.colour import ColourSettings, Grade, apply_lut
from stages.container import LIBAV_ERRORS, open_source
from stages.cutter import frames_from
from stages.failure import Dropped, Failed
from stages.picture import Look, finish
from stages.probe import describe

FRAME_PX = 256
FRAMES = 60
COMPARED_PX = 64
# Mean difference of neighbouring frames of 64 pixels, of 255: more is a cut, a pan or a crowd.
STILL = 2.5
MIN_FRAMES = 24
PIECE = 8  # frames of a piece of a scene


@dataclass(frozen=True)
class Scene:
    name: str
    frames: np.ndarray  # uint8 [n, FRAME_PX, FRAME_PX, 3]


def static_scenes(folders: list[Path], most: int) -> list[Scene]:
    """Recordings below `folders` that stand still in their first frames.

    In the order of their hashes: by name, all could be of one camera.
    """
    found: list[Scene] = []
    paths = (path for folder in folders for path in folder.rglob("*"))
    files = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    for path in sorted(files, key=digest):
        if len(found) == most:
            break
        frames = opening(path)
        if frames is not None:
            found.append(Scene(path.name, frames))
    return found


def opening(path: Path) -> np.ndarray | None:
    """The first frames of a recording, as far as they stand still; None if that is too few of them."""
    kept: list[np.ndarray] = []
    try:
        for frame in shown(path):
            if kept and np.abs(small(frame).astype(float) - small(kept[-1])).mean() > STILL:
                break
            kept.append(frame)
            if len(kept) == FRAMES:
                break
    except (Failed, Dropped, *LIBAV_ERRORS):
        return None
    return np.stack(kept) if len(kept) >= MIN_FRAMES else None


def shown(path: Path) -> Iterator[np.ndarray]:
    """The frames as the colour model sees them; dark ones (a fade-in) are left out."""
    with open_source(str(path)) as opened:
        facts = describe(opened)
    look = Look(FRAME_PX, FRAME_PX, facts["rotation"] or 0, squash=True)
    fps = facts["fps_exact"]
    for picture in finish(((frame, 1) for _, frame in frames_from(str(path), 0.0, fps)), look):
        frame = picture.to_ndarray()
        if frame.mean() > 16:
            yield frame


def flicker(scenes: list[Scene], grade: Grade) -> dict[str, dict[str, float]]:
    """Method -> flicker and frame_to_frame, means over the scenes."""
    per_scene: dict[str, list[tuple[float, float]]] = {}
    for scene in scenes:
        whole = grade.luts([scene.frames[[len(scene.frames) * k // 6 for k in (1, 3, 5)]]])[0]
        per_frame = [grade.lut(frame[None]) for frame in scene.frames]
        maps = {
            "source": [lambda picture: picture] * len(scene.frames),
            "lut": [through(whole)] * len(scene.frames),
            "lut_per_frame": [through(lut) for lut in per_frame],
        }
        maps |= {f"{name}_per_frame": [find(f) for f in scene.frames] for name, find in MAPS.items()}
        del maps["identity_per_frame"]
        for name, mine in maps.items():
            per_scene.setdefault(name, []).append(restless(scene.frames, mine))
    return {
        name: dict(zip(("flicker", "frame_to_frame"), np.mean(values, axis=0).tolist(), strict=True))
        for name, values in per_scene.items()
    }


def restless(frames: np.ndarray, maps: list[Map]) -> tuple[float, float]:
    added, whole = [], []
    for i in range(1, len(frames)):
        now, same = small(maps[i](frames[i])), small(maps[i - 1](frames[i]))
        added.append(difference(now, same))
        whole.append(difference(now, small(maps[i - 1](frames[i - 1]))))
    return float(np.mean(added)), float(np.mean(whole))


def jumps(
    scenes: list[Scene], settings: ColourSettings, grade_with: Callable[[ColourSettings], Grade]
) -> dict[str, float]:
    """Mean jump between neighbouring shots of a scene: as set, and with every shot graded on its own."""
    shots, scene_of = interleaved(scenes)
    found = {}
    for name, agree in (("lut", settings.agree), ("lut_per_shot", 0.0)):
        luts = grade_with(settings.model_copy(update={"agree": agree})).luts(shots)
        found[name] = jump(shots, scene_of, [through(lut) for lut in luts])
    for name in ("grey_world", "auto_levels"):
        middles = [shot[len(shot) // 2] for shot in shots]
        found[f"{name}_per_shot"] = jump(shots, scene_of, [MAPS[name](frame) for frame in middles])
    return found


def interleaved(scenes: list[Scene]) -> tuple[list[np.ndarray], list[int]]:
    """Shots of all scenes in turn, and which scene each is of."""
    pieces = [len(scene.frames) // PIECE for scene in scenes]
    turns = [(turn, i) for turn in range(max(pieces)) for i in range(len(scenes)) if turn < pieces[i]]
    shots = [scenes[i].frames[turn * PIECE : (turn + 1) * PIECE] for turn, i in turns]
    return [shot[[1, 4, 6]] for shot in shots], [i for _, i in turns]


def jump(shots: list[np.ndarray], scene_of: list[int], maps: list[Map]) -> float:
    last: dict[int, int] = {}
    found = []
    for i, scene in enumerate(scene_of):
        if scene in last:
            frame = shots[i][0]
            found.append(difference(small(maps[i](frame)), small(maps[last[scene]](frame))))
        last[scene] = i
    return float(np.mean(found))


def through(lut: np.ndarray) -> Map:
    return lambda picture: apply_lut(picture, lut)


def small(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (COMPARED_PX, COMPARED_PX), interpolation=cv2.INTER_AREA)
