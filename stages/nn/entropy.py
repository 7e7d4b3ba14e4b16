"""Entropy coding that every machine decodes alike: integer tables, fixed-point layers, the header of a code.

A decoder that is off by one in one probability decodes garbage, and floating-point sums differ between
machines, thread counts and batch sizes. So everything that chooses a probability is exact here, after
Ballé, Johnston, Minnen, "Integer networks for data compression with latent-variable models", ICLR 2019:

- Frequencies are integers, stored with the weights; nothing is integrated at coding time.
- The network that chooses the table of each symbol (`FixedConv2d`) has weights and activations on a
  fixed-point grid that is coarse enough for a float32: all its sums are exact, whatever their order.

A code is a header and the words of an ANS coder (`constriction`):

    version u8 | kind u8 | rate u8 | model u32 | width u16 | height u16 | crc32 of all the rest u32 | payload
"""

import math
import struct
import zlib
from dataclasses import dataclass

import constriction
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

AnsCoder = constriction.stream.stack.AnsCoder
Categorical = constriction.stream.model.Categorical

RADIUS = 255  # symbols are -255 .. 255; what lies outside is clamped by the encoder
PRECISION = 24  # frequencies sum to 2^24: an outlier costs 24 bits, a certainty nothing
SCALE_MIN, SCALE_MAX, SCALES = 0.11, 64.0, 64  # below 0.11 a symbol costs nothing already (Ballé 2018)
SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALES - 1)

# The fixed-point network: fraction bits, and largest absolute values in units of the grid. Every partial sum
# is below L1_MAX × 2^8 × INPUT_MAX + 2^18 < 2^24: a whole number that a float32 holds exactly.
WEIGHT_BITS, ACTIVATION_BITS = 8, 4
WEIGHT_MAX, BIAS_MAX, INPUT_MAX = 8.0, 64.0, 255
L1_MAX = 240.0

VERSION = 2
DIFFERENCE = "difference"  # of a hyperprior's latent from that of the frame before
KINDS = {"hyperprior": 1, "vqvae": 2, DIFFERENCE: 3}
HEADER = struct.Struct(">BBBIHHI")
MAX_PIXELS = 2**25  # a hostile header must not ask for more memory than this


class CodecError(ValueError):
    """The bytes are no code, are damaged, or come from another model."""


@dataclass(frozen=True)
class Header:
    kind: str
    rate: int
    model: int  # fingerprint of the weights
    width: int
    height: int


def pack(header: Header, payload: bytes) -> bytes:
    fields = (VERSION, KINDS[header.kind], header.rate, header.model, header.width, header.height)
    crc = zlib.crc32(payload, zlib.crc32(HEADER.pack(*fields, 0)))
    return HEADER.pack(*fields, crc) + payload


def is_key(code: bytes) -> bool:
    """Whether the code is decoded without the one before it. Raises CodecError."""
    return unpack(code)[0].kind != DIFFERENCE


def checksum(code: bytes) -> bytes:
    """By which a difference names the code before it."""
    return code[HEADER.size - 4 : HEADER.size]


def unpack(code: bytes) -> tuple[Header, bytes]:
    """Header and payload of a code. Raises CodecError."""
    if len(code) < HEADER.size:
        raise CodecError(f"a code has at least {HEADER.size} bytes, this one {len(code)}")
    version, kind, rate, model, width, height, crc = HEADER.unpack_from(code)
    if version != VERSION:
        raise CodecError(f"the code has version {version}, this decoder reads version {VERSION}")
    payload = code[HEADER.size :]
    if zlib.crc32(payload, zlib.crc32(code[: HEADER.size - 4] + bytes(4))) != crc:
        raise CodecError("the code is damaged or cut short: its checksum does not fit")
    names = {number: name for name, number in KINDS.items()}
    if kind not in names:
        raise CodecError(f"the code is of kind {kind}, which is not known here")
    if not 0 < width * height <= MAX_PIXELS:
        raise CodecError(f"the code claims {width} by {height} pixels; at most {MAX_PIXELS} are decoded")
    return Header(names[kind], rate, model, width, height), payload


def frequencies(probability: np.ndarray) -> np.ndarray:
    """Integer frequencies >= 1 that sum to 2^24, for each row of `probability` [K, A]."""
    room = 2**PRECISION - probability.shape[1]
    share = probability / probability.sum(axis=1, keepdims=True)
    table = 1 + np.floor(share * room).astype(np.int64)
    table[np.arange(len(table)), share.argmax(axis=1)] += 2**PRECISION - table.sum(axis=1)
    return table.astype(np.int32)


def gaussian_frequencies() -> np.ndarray:
    """Tables [64, 511] of zero-mean Gaussians, their scales spaced evenly in the logarithm."""
    edges = np.arange(-RADIUS, RADIUS + 2) - 0.5
    rows = []
    for k in range(SCALES):
        scale = SCALE_MIN * math.exp(k * SCALE_STEP)
        # The lower tail of both halves: differences near 1 would lose the tails.
        tail = np.array([0.5 * math.erfc(abs(edge) / scale / math.sqrt(2)) for edge in edges])
        below, above = np.diff(tail[: RADIUS + 1]), -np.diff(tail[RADIUS + 1 :])
        rows.append(np.concatenate([below, [1 - tail[RADIUS] - tail[RADIUS + 1]], above]))
    return frequencies(np.array(rows))


class Tables:
    """Symbols <-> bytes, each symbol with the frequencies of a table of its own choice."""

    def __init__(self, table: np.ndarray):
        """table  int [K, A]: frequencies of the symbols 0 .. A-1, each row summing to 2^24."""
        self.alphabet = table.shape[1]
        # perfect=False is pure scaling: with these integers, sums and products are exact in float64.
        self.models = [Categorical(row.astype(np.float64), perfect=False) for row in table]

    def encode(self, coder: AnsCoder, symbols: np.ndarray, index: np.ndarray) -> None:
        """Push symbols int [n] (0 .. A-1) coded with the tables index int [n]."""
        order, spans = _groups(index)
        symbols = symbols[order].astype(np.int32)
        # A stack: what is pushed last is popped first.
        for k, first, last in reversed(spans):
            coder.encode_reverse(symbols[first:last], self.models[k])

    def decode(self, coder: AnsCoder, index: np.ndarray) -> np.ndarray:
        """Pop the symbols int32 [n] that were pushed with the same `index`."""
        order, spans = _groups(index)
        symbols = np.empty(len(index), np.int32)
        for k, first, last in spans:
            symbols[order[first:last]] = coder.decode(self.models[k], last - first)
        return symbols


def _groups(index: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The order that brings equal tables together (one call per table is fast), and (table, first, last)."""
    order = np.argsort(index.astype(np.uint16), kind="stable")
    counts = np.bincount(index)
    ends = np.cumsum(counts)
    return order, [(k, int(ends[k] - n), int(ends[k])) for k, n in enumerate(counts) if n]


def words(coder: AnsCoder) -> bytes:
    return coder.get_compressed().astype("<u4").tobytes()


def new_coder() -> AnsCoder:
    return AnsCoder()


def coder_of(payload: bytes) -> AnsCoder:
    if len(payload) % 4:
        raise CodecError("the code is damaged: its payload is no whole number of words")
    try:
        return AnsCoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    except ValueError as error:
        raise CodecError(f"the code is damaged: {error}") from error


def check_empty(coder: AnsCoder) -> None:
    if not coder.is_empty():
        raise CodecError("the code is damaged: symbols are left over after the last one")


class FixedConv2d(nn.Conv2d):
    """A convolution with weights and biases on the grid 2^-8, exact on inputs of at most 255 steps.

    Its input is whole numbers, or the output of a FixedReLU.
    """

    frozen = False

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (self.weight, self.bias) if self.frozen else self.snapped()
        return F.conv2d(x, weight, bias, self.stride, self.padding)

    def snapped(self) -> tuple[Tensor, Tensor]:
        weight = self.weight.clamp(-WEIGHT_MAX, WEIGHT_MAX)
        # Rounding adds at most half a step to each of the weights.
        room = L1_MAX - weight[0].numel() * 2.0 ** -(WEIGHT_BITS + 1)
        weight = weight * (room / weight.abs().sum((1, 2, 3), keepdim=True).clamp_min(room))
        bias = self.bias.clamp(-BIAS_MAX, BIAS_MAX)
        return snap(weight, WEIGHT_BITS), snap(bias, WEIGHT_BITS)

    @torch.no_grad()
    def freeze(self) -> None:
        """Snap for good, not once more in every call."""
        weight, bias = self.snapped()
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        self.frozen = True


class FixedReLU(nn.Module):
    """max(0, x), bounded, on the grid 2^-4."""

    def forward(self, x: Tensor) -> Tensor:
        return snap(x.clamp(0, INPUT_MAX / 2**ACTIVATION_BITS), ACTIVATION_BITS)


class Snap(torch.autograd.Function):
    """Round to the grid 2^-bits; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, bits: int) -> Tensor:
        return torch.round(x * 2**bits) / 2**bits

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def snap(x: Tensor, bits: int = 0) -> Tensor:
    return Snap.apply(x, bits)


class Bound(torch.autograd.Function):
    """Clamp to low .. high; outside, only a gradient that leads back in passes."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = (low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,), (low, high) = ctx.saved_tensors, ctx.range
        outwards = ((x < low) & (grad > 0)) | ((x > high) & (grad < 0))
        return grad.masked_fill(outwards, 0), None, None


def bound(x: Tensor, low: float, high: float) -> Tensor:
    return Bound.apply(x, low, high)
