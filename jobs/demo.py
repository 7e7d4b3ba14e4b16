"""A small library to try reelmap on, drawn and played by numpy: no download, and the same each time.

Five films of 20 to 30 s (five frame rates, three containers) in which dull stretches and lively ones take
turns, and one broken file, as every real library has one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from jobs.demo_scenes import SCENES
from jobs.demo_sound import SOUNDS
from stages.audio import RATE
from stages.encode import SOFTWARE, Form, ReelWriter
from stages.mastering import encode_aac
from stages.picture import from_rgb

WIDTH, HEIGHT = 640, 360


@dataclass(frozen=True)
class Film:
    name: str
    fps: Fraction
    shots: tuple[tuple[str, float, str], ...]  # scene, seconds, sound


FILMS = (
    Film(
        "harbour-evening.mp4",
        Fraction(25),
        (
            ("sunset", 5, "hush"),
            ("still_dunes", 6, "hush"),
            ("ball", 4, "music"),
            ("fireworks", 5, "bangs"),
            ("sunset", 3, "hush"),
            ("city", 4, "music"),
        ),
    ),
    Film(
        "city-night.mkv",
        Fraction(24000, 1001),
        (
            ("city", 4, "music"),
            ("slide", 5, "speech"),
            ("stars", 4, "music"),
            ("fireworks", 4, "bangs"),
            ("city", 5, "hush"),
        ),
    ),
    Film(
        "talk-with-slides.mp4",
        Fraction(30),
        (
            ("slide", 8, "speech"),
            ("ball", 3, "speech"),
            ("slide", 7, "speech"),
            ("stars", 3, "music"),
            ("slide", 6, "speech"),
        ),
    ),
    Film(
        "reef-dive.ts",
        Fraction(30000, 1001),
        (
            ("still_dunes", 5, "hush"),
            ("reef", 5, "music"),
            ("sunset", 4, "hush"),
            ("reef", 4, "music"),
            ("ball", 3, "bangs"),
        ),
    ),
    Film(
        "games/ball-practice.mkv",
        Fraction(50),
        (
            ("ball", 4, "bangs"),
            ("still_dunes", 5, "hush"),
            ("ball", 4, "music"),
            ("stars", 3, "hush"),
            ("fireworks", 4, "bangs"),
        ),
    ),
)
BROKEN = "broken-transfer.mp4"


def render_demo_library(folder: Path, say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """The files of the demo library, made where they are missing; `say` hears of each one made."""
    paths = []
    for number, film in enumerate(FILMS):
        path = folder / film.name
        paths.append(path)
        if not path.exists():
            say(f"drawing {film.name} ({number + 1} of {len(FILMS)})")
            path.parent.mkdir(parents=True, exist_ok=True)
            render_film(film, path, seed=number)
    broken = folder / BROKEN
    if not broken.exists():
        data = paths[0].read_bytes()
        broken.write_bytes(data[len(data) // 2 :])  # without the header, it cannot be read
    return [*paths, broken]


def render_film(film: Film, path: Path, seed: int) -> None:
    """Draw and play one film. It appears under its name only when it is whole."""
    sound_path = path.with_suffix(".m4a.part")
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    sounds = [
        SOUNDS[sound](seconds, np.random.default_rng((seed, number)))
        for number, (_, seconds, sound) in enumerate(film.shots)
    ]
    samples = np.concatenate(sounds).astype(np.float32)
    encode_aac((samples[at : at + RATE] for at in range(0, len(samples), RATE)), sound_path, 128_000)
    writer = ReelWriter(part, Form(WIDTH, HEIGHT, film.fps, SOFTWARE, 22, "superfast"), [], sound_path)
    begin_s, shown = 0.0, 0
    for number, (scene, seconds, _) in enumerate(film.shots):
        picture = SCENES[scene](np.random.default_rng((seed, number, 1)))
        until = round((begin_s + seconds) * film.fps)
        while shown < until:
            writer.add(from_rgb(picture(float(shown / film.fps) - begin_s)))
            shown += 1
        begin_s += seconds
    writer.close()
    sound_path.unlink()
    part.rename(path)
