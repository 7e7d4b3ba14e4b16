"""Autoencoder proxies: sampled frames -> codes of about two kilobytes, and back.

in   frames   uint8 [N, S, S, 3]
out  codes    N byte strings, to be decoded from a key on; an empty list without a codec
"""

from typing import Any

import numpy as np

from stages.networks import CodecSettings
from stages.nn.codec import compress, decompress, load_codec
from stages.nn.device import MicroBatches, pick_device
from stages.nn.entropy import CodecError
from stages.nn.weights import Bundle


class Compress:
    def __init__(self, settings: CodecSettings, bundle: Bundle):
        self.settings, self.parts = settings, MicroBatches()
        self.net = None
        if settings.kind != "none":
            self.net = load_codec(bundle, settings.kind).to(pick_device())
            if not 0 <= settings.rate < self.net.rates:
                raise ValueError(
                    f"codec.rate is {settings.rate}; the {settings.kind} codec of {bundle.uri} "
                    f"has the rates 0 to {self.net.rates - 1}"
                )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.net is None:
            return row | {"codes": []}
        rate, key_every = self.settings.rate, self.settings.key_every
        return row | {"codes": compress(self.net, row["frames"], rate, key_every, self.parts)}


class Decompress:
    """Codes of any rate that the bundle's codec made -> uint8 [N, H, W, 3]."""

    def __init__(self, bundle: Bundle):
        self.net = load_codec(bundle).to(pick_device())

    def __call__(self, codes: list[bytes]) -> np.ndarray:
        """Raises CodecError for damaged codes, for those of another model, and for frames of unequal size."""
        frames = decompress(self.net, codes)
        sizes = {frame.shape for frame in frames}
        if len(sizes) > 1:
            raise CodecError(f"the codes are of frames of {len(sizes)} different sizes: decode them apart")
        return np.stack(frames) if frames else np.zeros((0, 0, 0, 3), np.uint8)
