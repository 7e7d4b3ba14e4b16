"""How well a clip begins or ends at a moment: not inside a word or on a flash, with room to breathe.

Costs are in words: 1 is a cut through the middle of one, and what is less is worth less than one. Between two
sentences is better than within one.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from stages.nn.voice import STEP_S

# A stretch of talk is what is likely to be a voice, if some of it surely is: as the network's authors do.
SURE, LIKELY = 0.5, 0.35
# Gaps within a word, such as before a plosive, are shorter; so are noises that are no word.
IN_WORD_S = 0.15
BLIP_S = 0.1
# How late the network hears that a word is over, at least: benchmarks/speech.py.
TAIL_S = 0.064
# From talk that is left out: its edge is known to two steps.
GUARD_S = 2 * STEP_S
# A pause of this length lies between two sentences.
SENTENCE_S = 0.6
BREATHLESS, IN_SENTENCE = 0.3, 0.3
NO_PAUSE = BREATHLESS + IN_SENTENCE  # what costs more is no pause at all
# Inside talk without a pause, what the least likely moment is better than the surest.
DIP = 0.3
# What is left free beside a flash: some frames, and the whole of the one that is lit.
FLASH, FLASH_REACH_S, FLASH_REACH_FRAMES = 2.0, 0.07, 1.5


@dataclass(frozen=True)
class Edges:
    """What is known of a video that a cut has to heed: stretches of talk, and flashes."""

    starts_s: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64 [S] of the stretches
    ends_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    speech: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    flashes_s: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64 [F], rising
    breath_s: float = 0.0
    flash_reach_s: float = FLASH_REACH_S

    def entering(self, times_s: np.ndarray, faded_s: float = 0.0) -> np.ndarray:
        """What it costs a clip to begin at these times, its first part faded in."""
        before_s, after_s = self._around(times_s)
        return self._cost(times_s, before_s, after_s, after_s - times_s, times_s - before_s, faded_s)

    def leaving(self, times_s: np.ndarray, faded_s: float = 0.0) -> np.ndarray:
        """What it costs a clip to end at these times, its last part faded out."""
        before_s, after_s = self._around(times_s)
        return self._cost(times_s, before_s, after_s, times_s - before_s, after_s - times_s, faded_s)

    def talk_in(self, start_s: float, end_s: float) -> bool:
        """Whether anybody speaks in a span."""
        return bool(np.any((self.starts_s < end_s) & (self.ends_s > start_s)))

    def flash_at(self, times_s: np.ndarray) -> np.ndarray:
        """Whether there is a flash beside these times."""
        low, high = (
            np.searchsorted(self.flashes_s, times_s + by_s)
            for by_s in (-self.flash_reach_s, self.flash_reach_s)
        )
        return high > low

    def _around(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The end of the last talk that began before, and the start of the next that ends after.

        Inside talk both are of the same stretch, and the first is the later one.
        """
        before = np.searchsorted(self.starts_s, times_s)
        after = np.searchsorted(self.ends_s, times_s, side="right")
        return np.append(self.ends_s, -np.inf)[before - 1], np.append(self.starts_s, np.inf)[after]

    def _cost(
        self,
        times_s: np.ndarray,
        before_s: np.ndarray,
        after_s: np.ndarray,
        room_s: np.ndarray,
        outside_s: np.ndarray,
        faded_s: float,
    ) -> np.ndarray:
        """room_s: to the talk inside of the clip; outside_s: to that which is left out."""
        step = np.clip((times_s / STEP_S).astype(int), 0, max(0, len(self.speech) - 1))
        sure = self.speech[step] if len(self.speech) else np.zeros(len(times_s))
        in_word = 1 - DIP * (1 - sure)
        # A word that is faded half is still heard.
        breath_s = max(self.breath_s + faded_s / 2, 1e-6)
        breathless = BREATHLESS * np.clip(1 - np.minimum(room_s / breath_s, outside_s / GUARD_S), 0, 1)
        in_sentence = IN_SENTENCE * np.clip(1 - (after_s - before_s) / SENTENCE_S, 0, 1)
        cost = np.where(before_s > after_s, in_word, breathless + in_sentence)
        return cost + FLASH * self.flash_at(times_s)


def edges_of(speech: np.ndarray, flashes_s: np.ndarray, breath_s: float, frame_s: float = 0.0) -> Edges:
    """What to heed in a video.

    speech     float32 [M]  probability of a voice in every step; empty: nobody is known to speak
    flashes_s  float64 [F]  frames of flashes
    frame_s                 how long a frame is on show
    """
    width = round(IN_WORD_S / STEP_S)
    likely = ndimage.binary_closing(np.pad(speech > LIKELY, width), np.ones(width))[width:-width]
    bounds = np.flatnonzero(np.diff(likely.astype(int), prepend=0, append=0))
    firsts, stops = bounds[::2], bounds[1::2]
    sure = np.maximum.reduceat(speech, firsts) > SURE if len(firsts) else np.zeros(0, bool)
    starts_s, ends_s = firsts * STEP_S, stops * STEP_S - TAIL_S
    spoken = sure & (ends_s - starts_s >= BLIP_S)
    reach_s = max(FLASH_REACH_S, FLASH_REACH_FRAMES * frame_s)
    return Edges(starts_s[spoken], ends_s[spoken], speech, np.sort(flashes_s), breath_s, reach_s)
