"""Frame <-> bytes: the two kinds of codec behind one pair of functions.

compress(net, frames, rate)   uint8 [N, H, W, 3] -> N codes
decompress(net, codes)        N codes -> N frames uint8 [H, W, 3]

Frames are padded to a multiple of 16 pixels by repeating their edge. The bytes of a code are in entropy.py,
the networks in hyperprior.py and vqvae.py.
"""

import itertools
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from stages.nn.device import MicroBatches
from stages.nn.entropy import (
    DIFFERENCE,
    RADIUS,
    CodecError,
    FixedConv2d,
    Header,
    checksum,
    is_key,
    pack,
    unpack,
)
from stages.nn.hyperprior import Hyperprior, HyperpriorSettings, rounded
from stages.nn.vqvae import VqVae, VqVaeSettings
from stages.nn.weights import Bundle, BundleError

Codec = Hyperprior | VqVae
MULTIPLE = 16
LONGEST_SECTION = 512  # codes from a key to the next: more is no stream of ours
MAX_SECTION_PIXELS = 2**27  # of codes that are decoded together
SECTION = 32  # codes that are decoded together, or more up to a key
BATCH_PIXELS = 16 * 256 * 256  # bounds the memory of the activations: 64 floats per 16 pixels and layer


def build_codec(kind: str, settings: dict) -> Codec:
    try:
        if kind == "hyperprior":
            return Hyperprior(HyperpriorSettings(**settings))
        if kind == "vqvae":
            return VqVae(VqVaeSettings(**settings))
    except ValidationError as error:
        raise BundleError(
            f"the {kind} codec has a shape that this version does not know: train it anew "
            f"with `reelmap train codec` ({error.error_count()} settings do not fit)"
        ) from error
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
    """The state as it is stored: weights in half precision, which holds those of the fixed-point grid."""
    half = ("analysis.", "synthesis.", "hyper_analysis.")
    state = {
        name: tensor.half() if name.startswith(half) else tensor for name, tensor in net.state_dict().items()
    }
    for name, part in net.named_modules():
        if isinstance(part, FixedConv2d):
            weight, state[f"{name}.bias"] = part.snapped()
            state[f"{name}.weight"] = weight.half()
    return {name: tensor.detach() for name, tensor in state.items()}


def restore(net: Codec, state: dict[str, Tensor]) -> None:
    """Load what `storable` gave. Raises BundleError."""
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"the codec's weights do not fit its settings: {error}") from error
    net.fingerprint = fingerprint(state)


def fingerprint(state: dict[str, Tensor]) -> int:
    """CRC-32 of the stored weights: a code names the model that can read it."""
    known = 0
    for _, tensor in sorted(state.items()):
        known = zlib.crc32(tensor.cpu().contiguous().numpy().tobytes(), known)
    return known


def compress(
    net: Codec, frames: np.ndarray, rate: int, key_every: int = 1, parts: MicroBatches | None = None
) -> list[bytes]:
    """One code for each frame of uint8 [N, H, W, 3].

    key_every   frames from a key, which is decoded alone, to the next at most. In between, the hyperprior
                codes a frame as its difference from the one before where that is shorter.
    parts       remembers how many frames fit
    """
    if not 0 <= rate < net.rates:
        raise CodecError(f"rate {rate} is not known: this {net.kind} has the rates 0 to {net.rates - 1}")
    height, width = frames.shape[1:3]
    header = Header(net.kind, rate, net.fingerprint, width, height)
    codes: list[bytes] = []
    chain = Chain(net, key_every) if isinstance(net, Hyperprior) and key_every > 1 else None

    def encoded(part: np.ndarray) -> Iterable[tuple]:
        # A copy: arrays from the object store are read-only, which torch cannot share.
        x = padded(torch.tensor(part), device_of(net))
        return list(zip(*net.encode_latent(x, rate), strict=True) if chain else zip(net.encode(x, rate)))

    for part in (parts or MicroBatches())(encoded, frames, batch_of(height, width)):
        codes += [chain.add(header, *one) if chain else pack(header, *one) for one in part]
    return codes


class Chain:
    """Chooses for each frame the shorter code: of its own, or of its difference from the one before."""

    def __init__(self, net: Hyperprior, key_every: int):
        self.net, self.key_every = net, key_every
        self.code, self.latent = b"", torch.empty(0)
        self.since_key = key_every

    def add(self, header: Header, payload: bytes, y: Tensor, y_hat: Tensor) -> bytes:
        code = pack(header, payload)
        self.since_key += 1
        if self.since_key < self.key_every:
            change = rounded(y - self.latent).clamp(-RADIUS, RADIUS)
            difference = checksum(self.code) + self.net.differences.encode(change.numpy())
            shorter = pack(replace(header, kind=DIFFERENCE), difference)
            if len(shorter) < len(code):
                self.code, self.latent = shorter, self.latent + change
                return shorter
        self.code, self.latent, self.since_key = code, y_hat, 0
        return code


def decompress(net: Codec, codes: list[bytes]) -> list[np.ndarray]:
    """The frame uint8 [H, W, 3] of each code. Raises CodecError.

    A code that is a difference stands behind the code that it is the difference from.
    """
    frames: list[np.ndarray] = []
    for part in sections(codes, SECTION):
        frames += rendered(net, *latents_of(net, part))
    return frames


def sections(codes: list[bytes], least: int) -> Iterator[list[bytes]]:
    """Runs of codes that need no others: about `least` each, which bounds the memory of their latents."""
    part: list[bytes] = []
    for code in codes:
        if len(part) >= least and is_key(code):
            yield part
            part = []
        if len(part) >= LONGEST_SECTION:
            raise CodecError(f"more than {LONGEST_SECTION} codes without a key among them")
        part.append(code)
    if part:
        yield part


def latents_of(net: Codec, codes: list[bytes]) -> tuple[list[Header], list[Tensor]]:
    """What each code says the picture is, the same on every machine. Raises CodecError."""
    forms, payloads, keys = [], [], defaultdict(list)
    pixels = 0
    for i, code in enumerate(codes):
        header, payload = unpack(code)
        check(net, header)
        # What a difference adds up to is like any other latent.
        forms.append(replace(header, kind=net.kind))
        payloads.append(payload)
        pixels += header.width * header.height
        if pixels > MAX_SECTION_PIXELS:
            raise CodecError(f"codes that belong together claim more than {MAX_SECTION_PIXELS} pixels")
        if header.kind != DIFFERENCE:
            keys[header].append(i)
    latents: dict[int, Tensor] = {}
    for form, members in keys.items():
        step = batch_of(form.height, form.width)
        for part in (members[first : first + step] for first in range(0, len(members), step)):
            found = net.decode_latent(
                [payloads[i] for i in part], form.rate, whole(form.height), whole(form.width)
            )
            latents |= dict(zip(part, found, strict=True))
    for i in range(len(codes)):
        if i not in latents:
            if not i or payloads[i][:4] != checksum(codes[i - 1]) or forms[i] != forms[i - 1]:
                raise CodecError(
                    "the code is a difference from another than the one before it: start at a key"
                )
            change = net.differences.decode(payloads[i][4:], tuple(latents[i - 1].shape))
            latents[i] = latents[i - 1] + torch.from_numpy(change)
    return forms, [latents[i] for i in range(len(codes))]


def rendered(net: Codec, forms: list[Header], latents: list[Tensor]) -> list[np.ndarray]:
    frames: dict[int, np.ndarray] = {}
    alike = defaultdict(list)
    for i, form in enumerate(forms):
        alike[form].append(i)
    for form, members in alike.items():

        def pictures(part: list[int], form: Header = form) -> np.ndarray:
            x = net.render(torch.stack([latents[i] for i in part]), form.rate)
            pixels = (255 * x[..., : form.height, : form.width]).round().clamp(0, 255).to(torch.uint8)
            return pixels.permute(0, 2, 3, 1).cpu().numpy()

        rendered_parts = MicroBatches()(pictures, members, batch_of(form.height, form.width))
        for i, frame in zip(members, itertools.chain.from_iterable(rendered_parts), strict=True):
            frames[i] = np.ascontiguousarray(frame)
    return [frames[i] for i in range(len(forms))]


def batch_of(height: int, width: int) -> int:
    """Pictures of this size in the network at a time."""
    return max(1, BATCH_PIXELS // max(1, whole(height) * whole(width)))


def check(net: Codec, header: Header) -> None:
    """Raises CodecError for a code that another model made."""
    kind = Hyperprior.kind if header.kind == DIFFERENCE else header.kind
    if kind != net.kind:
        raise CodecError(f"the code was made by a {kind} codec, this one is a {net.kind}")
    if header.model != net.fingerprint:
        raise CodecError("the code was made by a codec with other weights: open the bundle that made it")
    if header.rate >= net.rates:
        raise CodecError(f"the code has rate {header.rate}; this codec has {net.rates} rates")


def padded(frames: Tensor, device: torch.device) -> Tensor:
    """uint8 [N, H, W, 3] -> float [N, 3, H', W'] in 0..1, sides multiples of 16, the edge repeated."""
    x = frames.to(device).permute(0, 3, 1, 2).float() / 255
    height, width = x.shape[-2:]
    x = F.pad(x, (0, whole(width) - width, 0, whole(height) - height), mode="replicate")
    return x.contiguous(memory_format=torch.channels_last)


def whole(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


def device_of(net: Codec) -> torch.device:
    return next(net.parameters()).device
