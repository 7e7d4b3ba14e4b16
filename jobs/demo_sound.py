"""The demo library's sounds: (seconds, random generator) -> samples f32[n, 2] at 48 kHz.

Speech is a source-filter model (Fant, 1960): harmonics of a voice weighted by the formants of vowels, in
syllables and phrases. It says nothing, but it has the rhythm.
"""

from collections.abc import Callable

import numpy as np

from stages.audio import RATE

# First three formants in Hz: a, e, i, o, u (Peterson & Barney, 1952, men).
VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
BANDWIDTH_HZ = 90.0
CHORDS = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7), (164.8, 196.0, 246.9))


def hush(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Wind: smoothed noise that comes and goes, quiet."""
    count = round(seconds * RATE)
    noise = np.convolve(rng.standard_normal(count), np.ones(40) / 40, "same")
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 0.25 * np.arange(count) / RATE)
    return _stereo(0.06 * noise * swell)


def speech(seconds: float, rng: np.random.Generator) -> np.ndarray:
    voice = np.zeros(round(seconds * RATE))
    at = 0.15
    while at < seconds - 0.3:
        for _ in range(int(rng.integers(5, 11))):  # a phrase
            length = rng.uniform(0.11, 0.24)
            _add(voice, at, 0.25 * syllable(length, rng))
            at += length + rng.uniform(0.01, 0.05)
        at += rng.uniform(0.25, 0.6)
    return _stereo(voice + 0.001 * rng.standard_normal(len(voice)))


def syllable(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """One vowel with a falling pitch and a hiss before it."""
    t = np.arange(round(seconds * RATE)) / RATE
    formants = VOWELS[rng.integers(len(VOWELS))]
    pitch = rng.uniform(105, 140) * (1 - 0.15 * t / seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    wave = np.zeros(len(t))
    for harmonic in range(1, 28):
        hz = harmonic * pitch[0]
        gain = sum(1 / (1 + ((hz - f) / BANDWIDTH_HZ) ** 2) / (n + 1) for n, f in enumerate(formants))
        wave += gain * np.sin(harmonic * phase)
    wave *= np.sin(np.pi * t / seconds) ** 0.6
    onset = rng.standard_normal(len(t)) * np.exp(-t / 0.015)
    return wave + 0.15 * onset


def music(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Plucked chords and a bass at 120 beats a minute."""
    tune = np.zeros(round(seconds * RATE))
    for beat in range(int(seconds * 4)):
        chord = CHORDS[beat // 8 % len(CHORDS)]
        _add(tune, beat / 4, 0.16 * pluck(chord[beat % 3] * (2 if rng.random() < 0.4 else 1), 0.5))
        if beat % 4 == 0:
            _add(tune, beat / 4, 0.3 * pluck(chord[0] / 2, 0.9))
    return _stereo(tune)


def pluck(hz: float, seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * hz * k * t) * np.exp(-t * (4 + 3 * k)) / k for k in range(1, 7))
    return tone * np.minimum(1, t / 0.004)


def bangs(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A thud every 0.6 s, in step with the fireworks."""
    noise = 0.004 * rng.standard_normal(round(seconds * RATE))
    t = np.arange(round(0.5 * RATE)) / RATE
    for k in range(int(seconds / 0.6) + 1):
        rumble = np.convolve(rng.standard_normal(len(t)), np.ones(24) / 24, "same")
        _add(noise, 0.6 * k, (2.2 * rumble + 0.5 * np.sin(2 * np.pi * 62 * t)) * np.exp(-t * 9))
    return _stereo(noise)


def _add(track: np.ndarray, at_s: float, wave: np.ndarray) -> None:
    first = round(at_s * RATE)
    part = track[first : first + len(wave)]
    part += wave[: len(part)]


def _stereo(mono: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(mono, -0.98, 0.98)[:, None], 2, axis=1).astype(np.float32)


SOUNDS: dict[str, Callable[[float, np.random.Generator], np.ndarray]] = {
    "hush": hush,
    "speech": speech,
    "music": music,
    "bangs": bangs,
}
