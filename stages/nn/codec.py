"""Frame <-> bytes: the two kinds of codec behind one pair of functions.

compress(net, frames, rate)   uint8 [N, H, W, 3] -> N codes
decompress(net, codes)        N codes -> N frames uint8 [H, W, 3]

Frames are padded to a multiple of 64 pixels by repeating their edge. The bytes of a code are in entropy.py,
the networks in hyperprior.py and vqvae.py.
"""

import zlib
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.nn.entropy import CodecError, Header, pack, unpack
from stages.nn.hyperprior import Hyperprior, HyperpriorSettings
from stages.nn.vqvae import VqVae, VqVaeSettings
from stages.nn.weights import Bundle, BundleError

Codec = Hyperprior | VqVae
MULTIPLE = 64
BATCH_PIXELS = 16 * 256 * 256  # bounds the memory of the activations: 64 floats per 16 pixels and layer


def build_codec(kind: str, settings: dict) -> Codec:
    if kind == "hyperprior":
        return Hyperprior(HyperpriorSettings(**settings))
    if kind == "vqvae":
        return VqVae(VqVaeSettings(**settings))
    raise BundleError(f"no codec is of kind {kind}; there are hyperprior and vqvae")


def load_codec(bundle: Bundle, kind: str | None = None) -> Codec:
    """The codec of a bundle, ready to run on the CPU. Raises BundleError if it is not of the wanted kind."""
    card = bundle.card("codec")
    if kind is not None and card["kind"] != kind:
        raise BundleError(
            f"the settings ask for a {kind} codec, {bundle.uri} holds a {card['kind']}: "
            f"set codec.kind to {card['kind']}, or train one with `reelmap train codec --set kind={kind}`"
        )
    net = build_codec(card["kind"], card["settings"])
    restore(net, bundle.state("codec"))
    return net.eval()


def storable(net: Codec) -> dict[str, Tensor]:
    """The state as it is stored: half precision, but for the parts that choose probabilities."""
    half = ("analysis.", "synthesis.", "hyper_analysis.")
    state = net.state_dict()
    return {name: tensor.half() if name.startswith(half) else tensor for name, tensor in state.items()}


def restore(net: Codec, state: dict[str, Tensor]) -> None:
    """Load what `storable` gave. Raises BundleError."""
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"the codec's weights do not fit its settings: {error}") from error


def fingerprint(net: Codec) -> int:
    """CRC-32 of the stored weights: a code names the model that can read it."""
    known = 0
    for _, tensor in sorted(storable(net).items()):
        known = zlib.crc32(tensor.cpu().contiguous().numpy().tobytes(), known)
    return known


def compress(net: Codec, frames: np.ndarray, rate: int) -> list[bytes]:
    """One code for each frame of uint8 [N, H, W, 3]."""
    if not 0 <= rate < net.rates:
        raise CodecError(f"rate {rate} is not known: this {net.kind} has the rates 0 to {net.rates - 1}")
    count, height, width = frames.shape[:3]
    header = Header(net.kind, rate, fingerprint(net), width, height)
    step = max(1, BATCH_PIXELS // max(1, height * width))
    codes = []
    for first in range(0, count, step):
        # A copy: arrays from the object store are read-only, which torch cannot share.
        x = padded(torch.tensor(frames[first : first + step]), device_of(net))
        codes += [pack(header, payload) for payload in net.encode(x, rate)]
    return codes


def decompress(net: Codec, codes: list[bytes]) -> list[np.ndarray]:
    """The frame uint8 [H, W, 3] of each code. Raises CodecError."""
    alike, own = defaultdict(list), fingerprint(net)
    for i, code in enumerate(codes):
        header, payload = unpack(code)
        if header.kind != net.kind:
            raise CodecError(f"the code was made by a {header.kind} codec, this one is a {net.kind}")
        if header.model != own:
            raise CodecError("the code was made by a codec with other weights: open the bundle that made it")
        if header.rate >= net.rates:
            raise CodecError(f"the code has rate {header.rate}; this codec has {net.rates} rates")
        alike[header].append((i, payload))
    frames: dict[int, np.ndarray] = {}
    for header, members in alike.items():
        high, wide = whole(header.height), whole(header.width)
        step = max(1, BATCH_PIXELS // (high * wide))
        for first in range(0, len(members), step):
            part = members[first : first + step]
            x = net.decode([payload for _, payload in part], header.rate, high, wide)
            pixels = (255 * x[..., : header.height, : header.width]).round().clamp(0, 255).to(torch.uint8)
            for (i, _), frame in zip(part, pixels.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
                frames[i] = np.ascontiguousarray(frame)
    return [frames[i] for i in range(len(codes))]


def padded(frames: Tensor, device: torch.device) -> Tensor:
    """uint8 [N, H, W, 3] -> float [N, 3, H', W'] in 0..1, sides multiples of 64, the edge repeated."""
    x = frames.to(device).permute(0, 3, 1, 2).float() / 255
    height, width = x.shape[-2:]
    x = F.pad(x, (0, whole(width) - width, 0, whole(height) - height), mode="replicate")
    return x.contiguous(memory_format=torch.channels_last)


def whole(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


def device_of(net: Codec) -> torch.device:
    return next(net.parameters()).device
