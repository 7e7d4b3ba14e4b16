"""What is measured on the sound of a shard: its loudness and where somebody speaks.

Coded sound comes in frames of some 20 ms. They are joined into blocks of a second first, so that filters and
resamplers are called once a second.
"""

import av

from stages.loudness import MomentaryLoudness
from stages.speech import MAX_STRAY_S, VoiceActivity

BLOCK_S = 1.0


class Hearing:
    """Feed decoded audio frames in order; read `loudness` and `voice` of [start_s, end_s) after `flush`."""

    def __init__(self, start_s: float, end_s: float):
        self.loudness = MomentaryLoudness(start_s, end_s)
        self.voice = VoiceActivity(start_s, end_s)
        self._block: av.AudioFifo | None = None
        self._form: tuple | None = None
        self._start_s = 0.0  # of the block
        self._next_s = 0.0  # where the sound that was fed so far ends

    def add(self, frame: av.AudioFrame, seconds: float) -> None:
        """A frame that begins at `seconds`; it gives up its samples."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form or abs(seconds - self._next_s) > MAX_STRAY_S:
            self._hand_on()
            self._block, self._form = av.AudioFifo(), form
            self._start_s = self._next_s = seconds
        frame.pts = None  # the samples are counted, packet times are rounded
        self._block.write(frame)
        self._next_s += frame.samples / frame.sample_rate
        if self._block.samples >= BLOCK_S * frame.sample_rate:
            self._hand_on()

    def flush(self) -> None:
        self._hand_on()
        self.loudness.flush()
        self.voice.flush()

    def _hand_on(self) -> None:
        block = self._block.read() if self._block is not None else None
        if block is None:
            return
        block.pts = round(self._start_s / block.time_base)
        self.loudness.add(block, self._start_s)
        self.voice.add(block, self._start_s)
        self._start_s = self._next_s
