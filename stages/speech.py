"""Where people speak: the voice activity of a stream, step by step.

speech    float32 [M]  probability of a voice in step k, from k * STEP_S of the presentation on; empty if
                       nothing is known

What a step says depends on the sound of some seconds before it and on nothing else, so that shards which
are read side by side agree about it: the network starts from rest for each window of a fixed grid.
"""

import math

import av
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stages.nn.voice import CHUNK, CONTEXT, RATE, STEP_S, WIDTH, encode, listen

# Steps of a window, and of sound before it that the network warms up on.
WINDOW, WARM_UP = 62, 125
LEAD_S = (WINDOW + WARM_UP) * STEP_S  # how much sound before a shard has a say in its first step
MAX_STRAY_S = 0.04
BATCH_STEPS = 2048


def step_at(seconds: float) -> int:
    """The first step that begins at `seconds` or later."""
    return math.ceil(seconds / STEP_S - 1e-6)


class VoiceActivity:
    """Feed decoded audio frames in order; read the steps that begin in [start_s, end_s)."""

    def __init__(self, start_s: float, end_s: float):
        self.start_s, self.end_s = start_s, end_s
        self._resampler: av.AudioResampler | None = None
        self._form: tuple | None = None
        self._next_s = 0.0  # where the sound that was fed so far ends
        self._skip = 0  # samples until the first step of a stretch
        self._samples: list[np.ndarray] = []  # not encoded yet
        self._encoded = np.empty((0, WIDTH), np.float32)  # not listened to yet, a warm-up in front
        self._first = 0  # step of the stretch
        self._step = 0  # of the first window that waits
        self._found: dict[int, np.ndarray] = {}  # probabilities by their first step

    def add(self, frame: av.AudioFrame, seconds: float) -> None:
        end_s = seconds + frame.samples / frame.sample_rate
        if seconds >= self.end_s or end_s < self.start_s - LEAD_S - STEP_S:
            return
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form or abs(seconds - self._next_s) > MAX_STRAY_S:
            self.flush()
            self._resampler, self._form, self._next_s = av.AudioResampler("fltp", "mono", RATE), form, seconds
            self._first = step_at(seconds)
            self._step = self._first // WINDOW * WINDOW
            self._skip = round((self._first * STEP_S - seconds) * RATE)
            # Before a stretch there is silence, of which nothing is said: it may be a hole in the sound.
            silence = (self._first - self._step + WARM_UP) * CHUNK
            self._samples = [np.zeros(CONTEXT + silence, np.float32)]
        frame.pts = None  # the samples are counted, packet times are rounded
        self._next_s = end_s
        self._take(self._resampler.resample(frame))
        if sum(map(len, self._samples)) >= BATCH_STEPS * CHUNK:
            self._encode()

    def flush(self) -> None:
        if self._resampler is None:
            return
        self._take(self._resampler.resample(None))
        self._encode()
        if rest := (len(self._encoded) - WARM_UP) % WINDOW:
            whole = np.pad(self._encoded, ((0, WINDOW - rest), (0, 0)))
            (last,) = listen(whole[None, -WARM_UP - WINDOW :])
            self._keep(last[-WINDOW:][:rest])
        self._resampler = self._form = None
        self._samples, self._encoded = [], np.empty((0, WIDTH), np.float32)

    def steps(self) -> np.ndarray:
        """Probabilities f32[M] of the steps from start_s on; 0 where there was no sound between others."""
        first, end = step_at(self.start_s), max((k + len(p) for k, p in self._found.items()), default=0)
        if math.isfinite(self.end_s):
            end = min(end, step_at(self.end_s))
        speech = np.zeros(max(0, end - first), np.float32)
        for step, heard in self._found.items():
            low, high = max(step, first), min(step + len(heard), end)
            if low < high:
                speech[low - first : high - first] = heard[low - step : high - step]
        return np.round(speech, 3)

    def _take(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray()[0]
            skipped = min(self._skip, len(samples))
            self._skip -= skipped
            # Damaged sound may hold what is no number.
            self._samples.append(np.clip(np.nan_to_num(samples[skipped:]), -1, 1))

    def _encode(self) -> None:
        """Encodes what there is, and listens to all windows that are complete."""
        samples = np.concatenate(self._samples)
        steps = (len(samples) - CONTEXT) // CHUNK
        self._samples = [samples[steps * CHUNK :]]
        if steps:
            self._encoded = np.concatenate([self._encoded, encode(samples[: CONTEXT + steps * CHUNK])])
        count = (len(self._encoded) - WARM_UP) // WINDOW
        if count > 0:
            windows_NDT = sliding_window_view(self._encoded, WARM_UP + WINDOW, axis=0)[::WINDOW][:count]
            self._keep(listen(windows_NDT.swapaxes(1, 2))[:, WARM_UP:].ravel())
            self._encoded = self._encoded[count * WINDOW :]
            self._step += count * WINDOW

    def _keep(self, probabilities: np.ndarray) -> None:
        """Those of the steps from `_step` on, less what lies before the stretch."""
        step = max(self._step, self._first)
        self._found[step] = probabilities[step - self._step :]
