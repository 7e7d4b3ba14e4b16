"""Effects inside a running clip: short pulses at given times, or over cuts that are there already.

An accent comes and goes within a shot, like a push of the camera and back. Over a cut the effect takes the
outgoing shot away and brings the incoming one, as a whip pan made while filming: what hides the cut is the
movement, not a mix, so no frame is added, left out or moved.

Frames are counted on the grid of what is written: frame n is on show from n / fps on.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from pydantic import Field

from stages.picture import from_rgb, to_rgb
from stages.settings import Settings
from stages.timeline import Slot

ACCENT_PHASE = 0.3  # how far into a transition an accent goes before it comes back
SHORTEST_FRAMES = 3  # a pulse of less is a flicker
# Its waves run through a transition without a break: they need not turn back.
RUNS_THROUGH = ("ripple",)


class AccentSettings(Settings):
    # Off: where a camera that was held still should move is a matter of taste, not of a score.
    clips: int = Field(
        0, ge=0, description="so many of a reel's best clips get one at their strongest moment"
    )
    effect: str = "zoom"
    length_s: float = Field(0.5, ge=0.1, le=5)


@dataclass(frozen=True)
class Pulse:
    """An effect over the frames first <= n < end."""

    middle: float  # in frames; over a cut, the first frame of the new shot
    frames: float  # how long it lasts
    effect: str
    over_cut: bool = False
    seed: int = 0

    @property
    def first(self) -> int:
        return max(0, math.ceil(self.middle - self.frames / 2 - 0.5))

    @property
    def end(self) -> int:
        return math.ceil(self.middle + self.frames / 2 - 0.5)

    def phase(self, frame: int) -> float:
        """What the generator is asked for at a frame between first and end."""
        way = (frame + 0.5 - self.middle) / self.frames  # -0.5 to 0.5: the middle of the frame counts
        if self.over_cut or self.effect in RUNS_THROUGH:
            return way + 0.5 if way < 0 else way - 0.5
        return ACCENT_PHASE * math.cos(math.pi * way) ** 2


class ShowsEffects(Protocol):
    def shown(
        self, frame: np.ndarray, effect: str, phase: float, strength: float | None = None, seed: int = 0
    ) -> np.ndarray:
        """A frame u8[H, W, 3] at a phase of the effect, -0.5 to 0.5; 0 is the frame as it is."""


def pulsed(
    frames: Iterable[av.VideoFrame],
    pulses: Sequence[Pulse],
    effects: ShowsEffects,
    strength: float | None = None,
) -> Iterator[av.VideoFrame]:
    """The finished frames with the pulses (in order of time, apart); all others go through untouched."""
    waiting = iter(pulses)
    pulse = next(waiting, None)
    for number, frame in enumerate(frames):
        while pulse is not None and pulse.end <= number:
            pulse = next(waiting, None)
        if pulse is None or number < pulse.first:
            yield frame
            continue
        phase = pulse.phase(number)
        yield from_rgb(effects.shown(to_rgb(frame), pulse.effect, phase, strength, pulse.seed))


def periodic(every_s: float, duration_s: float) -> list[float]:
    """Times every_s apart, the first after half of that: a short video has one, too."""
    count = max(1, math.floor(duration_s / every_s + 0.5))
    return [min(every_s, duration_s) / 2 + every_s * n for n in range(count)]


def pulses_at(
    times_s: Sequence[float], effect: str, length_s: float, fps: Fraction, over_cuts: bool = False
) -> list[Pulse]:
    """One pulse at each time, in order; where two are closer than they are long, both are shorter."""
    middles = sorted({float(time_s * fps) for time_s in times_s})
    gaps = [math.inf, *(b - a for a, b in itertools.pairwise(middles)), math.inf]
    return [
        Pulse(middle, min(float(length_s * fps), before, after), effect, over_cuts, seed)
        for seed, (middle, before, after) in enumerate(zip(middles, gaps, gaps[1:], strict=False))
    ]


def accents(
    slots: Sequence[Slot], clips: dict[int, dict[str, Any]], fps: Fraction, settings: AccentSettings
) -> dict[int, Pulse]:
    """By clip, an accent on the best of a reel's slots, clear of their transitions; frames of the slot."""
    following = [*(slot.overlap for slot in slots[1:]), 0]
    best = sorted(zip(slots, following, strict=True), key=lambda pair: -clips[pair[0].clip]["score"])
    found = {}
    for slot, overlap in best[: settings.clips]:
        low, high = slot.overlap, slot.count - overlap
        frames = min(float(settings.length_s * fps), high - low)
        if frames >= SHORTEST_FRAMES:
            strongest = float((clips[slot.clip]["thumbnail_s"] - slot.start_s) * fps) + 0.5
            middle = min(max(strongest, low + frames / 2), high - frames / 2)
            found[slot.clip] = Pulse(middle, frames, settings.effect, seed=slot.clip)
    return found
