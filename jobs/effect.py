"""`reelmap effect VIDEO OUT --effect ripple --strength 0.6`: an effect inside a whole video.

VIDEO and OUT are paths or fsspec URIs. OUT is an .mp4 of the same length, its sound in step with it.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from jobs.label import seconds
from jobs.models import open_models
from pipeline import storage
from pipeline.wording import tenths
from stages.effects import Effects, EffectSettings, effect_names
from stages.failure import Dropped, Failed, Unavailable
from stages.film import Film, cuts_of, look_at, write_film
from stages.nn.weights import BundleError
from stages.pulses import SHORTEST_FRAMES, Pulse, periodic, pulses_at

DONE, COULD_NOT, INTERRUPTED = 0, 2, 130


class EffectError(Exception):
    """Nothing was written; the message says what to do."""


@dataclass(frozen=True)
class Options:
    video: str
    out: str
    effect: str
    strength: float
    duration_s: float = 0.8
    every_s: float | None = None  # the three ways to say when exclude one another
    at: str | None = None
    cuts: bool = False
    bundle: str | None = None
    overwrite: bool = False


def effect(options: Options) -> int:
    """Exit code: 0 written, 2 not, 130 interrupted."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    video, out = storage.absolute(options.video), storage.absolute(options.out)
    try:
        effects = prepared(options, out)
        if not storage.exists(video):
            raise EffectError(f"there is no {storage.shown(video)}")
        film = look_at(video)
        pulses = planned(film, options)
        console.print(summary(pulses, film, options))
        with tempfile.TemporaryDirectory(prefix="reelmap-") as folder:
            path = Path(folder) / "film.mp4"
            write(film, path, pulses, effects, options.strength, console)
            storage.put_file(path, out)
    except (Failed, Dropped, Unavailable) as error:
        console.print(f"reelmap: {storage.shown(video)}: {error}")
        return COULD_NOT
    except (EffectError, BundleError, storage.StorageError) as error:
        console.print(f"reelmap: {error}")
        return COULD_NOT
    except KeyboardInterrupt:
        console.print("interrupted: nothing was written")
        return INTERRUPTED
    console.print(storage.shown(out))
    return DONE


def prepared(options: Options, out: str) -> Effects:
    """The effects, after a check of all that can be known before the video is opened."""
    try:
        effect_names(options.effect)
        if options.at is not None:
            times_of(options.at)
    except ValueError as error:
        raise EffectError(str(error)) from error
    if sum((options.every_s is not None, options.at is not None, options.cuts)) > 1:
        raise EffectError("--every, --at and --cuts exclude one another: give one of them")
    if not out.lower().endswith(".mp4"):
        raise EffectError(f"{storage.shown(out)}: what is written is an .mp4, call it so")
    if not options.overwrite and storage.exists(out):
        raise EffectError(f"{storage.shown(out)} is there already: --overwrite replaces it")
    storage.check_writable(out.rsplit("/", 1)[0] or "/")
    return Effects(EffectSettings(strength=options.strength), open_models(options.bundle))


def planned(film: Film, options: Options) -> list[Pulse]:
    """When the effect is on show. Raises EffectError when that is never, or beyond the end."""
    shortest_s = float(SHORTEST_FRAMES / film.fps)
    if not math.isfinite(options.duration_s + (options.every_s or 0)):
        raise EffectError("--every and --duration are lengths in seconds")
    if options.duration_s < shortest_s:
        raise EffectError(f"--duration {options.duration_s:g}: that is less than {SHORTEST_FRAMES} frames")
    if options.at is not None:
        times_s = times_of(options.at)
        late = [time_s for time_s in times_s if time_s >= film.duration_s]
        if late:
            raise EffectError(f"--at {late[0]:g}: the video is {film.duration_s:.1f} s long")
    elif options.cuts:
        times_s = cuts_of(film)
        if not times_s:
            raise EffectError("there is no cut in it: use --every or --at")
    else:
        every_s = 2.0 if options.every_s is None else options.every_s
        if every_s < shortest_s:
            raise EffectError(f"--every {every_s:g}: that is less than {SHORTEST_FRAMES} frames")
        times_s = periodic(every_s, film.duration_s)
    return pulses_at(times_s, options.effect, options.duration_s, film.fps, over_cuts=options.cuts)


def times_of(text: str) -> list[float]:
    """Seconds of "1.5,1:02,2m3s". Raises ValueError in words."""
    return [seconds(part.strip()) for part in text.split(",")]


def summary(pulses: list[Pulse], film: Film, options: Options) -> str:
    times = [tenths(pulse.middle / float(film.fps)) for pulse in pulses]
    where = f"{', '.join(times[:8])}{' ...' if len(times) > 8 else ''}"
    times_word = "time" if len(pulses) == 1 else "times"
    return (
        f"{options.effect} {len(pulses)} {times_word} in {film.duration_s:.1f} s "
        f"({film.frames} frames): {where}"
    )


def write(
    film: Film, path: Path, pulses: list[Pulse], effects: Effects, strength: float, console: Console
) -> None:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("writing", total=film.frames)
        write_film(film, path, pulses, effects, strength, tell=lambda n: progress.update(task, completed=n))
