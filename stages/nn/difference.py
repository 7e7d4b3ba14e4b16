"""A latent coded as what has changed since the frame before it, for frames that look alike.

    y ─ − ─ round ─ ANS ─ + ─ ŷ        each channel with the table that fits its mean square
        │                 │
        └ ŷ of the frame before

The latent before is exact (latent_prior.py), and on a grid that a float32 holds: so the sum is exact, too.
Every latent is as near to what was meant as without differences: nothing drifts.
"""

import numpy as np

from stages.nn.entropy import (
    PRECISION,
    RADIUS,
    SCALES,
    CodecError,
    Tables,
    check_empty,
    coder_of,
    new_coder,
    words,
)

# For the table of the steps between channels' tables: any of them.
ANY = Tables(np.full((1, SCALES), 2**PRECISION // SCALES))


class DifferenceCoder:
    def __init__(self, tables: Tables, frequencies: np.ndarray):
        """The tables of the symbols -RADIUS .. RADIUS, and what they are made of: [SCALES, 2 RADIUS + 1]."""
        self.tables = tables
        squares = np.square(np.arange(-RADIUS, RADIUS + 1.0))
        self.mean_square = frequencies.astype(np.float64) @ squares / 2**PRECISION

    def encode(self, difference: np.ndarray) -> bytes:
        """Whole numbers [M, H, W] within ±RADIUS."""
        flat = difference.reshape(len(difference), -1).astype(np.int32)
        index = self.best(np.square(flat, dtype=np.float64).mean(1))
        # Neighbouring channels have much the same table.
        steps = np.diff(index, prepend=0)
        of_steps = self.best(np.square(steps, dtype=np.float64).mean(keepdims=True))
        coder = new_coder()
        # A stack: what is pushed last is popped first.
        self.tables.encode(coder, flat.ravel() + RADIUS, index.repeat(flat.shape[1]))
        self.tables.encode(coder, steps + RADIUS, of_steps.repeat(len(steps)))
        ANY.encode(coder, of_steps, np.zeros(1, int))
        return words(coder)

    def decode(self, payload: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        """The numbers int32 [M, H, W]. Raises CodecError."""
        coder = coder_of(payload)
        of_steps = ANY.decode(coder, np.zeros(1, int))
        index = np.cumsum(self.tables.decode(coder, of_steps.repeat(shape[0])) - RADIUS)
        if index.min() < 0 or index.max() >= SCALES:
            raise CodecError("the code is damaged: it names a table that is not there")
        flat = self.tables.decode(coder, index.repeat(shape[1] * shape[2])) - RADIUS
        check_empty(coder)
        return flat.reshape(shape)

    def best(self, mean_square: np.ndarray) -> np.ndarray:
        """The first table that is at least so wide."""
        return np.minimum(np.searchsorted(self.mean_square, mean_square), SCALES - 1)
