"""Codes: exact on every machine, smaller than pixels, and refused in plain words when damaged."""

import hashlib
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stages.nn.codec import build_codec, compress, decompress, restore, storable
from stages.nn.entropy import (
    HEADER,
    PRECISION,
    RADIUS,
    AnsCoder,
    CodecError,
    FixedConv2d,
    Tables,
    check_empty,
    frequencies,
    gaussian_frequencies,
    unpack,
)
from stages.nn.hyperprior import channels, numbers

SMALL = {
    "hyperprior": {
        "widths": (8, 16),
        "depths": (1, 1),
        "latent": 16,
        "hyper": 16,
        "hyper_latent": 8,
        "rates": 3,
    },
    "vqvae": {"widths": (8, 16), "depths": (1, 1), "latent": 8, "codebook": 32, "rates": 2},
}

DECODE_ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file
from stages.nn.codec import build_codec, decompress, restore
from tests.stages.nn.test_codec import SMALL, latent_of

torch.set_num_threads(int(sys.argv[1]))
torch.backends.mkldnn.enabled = False  # other kernels: what another machine would run
for kind in SMALL:
    folder = Path(sys.argv[2]) / kind
    net = build_codec(kind, SMALL[kind])
    restore(net, load_file(folder / "codec.safetensors"))
    net.eval()
    codes = [path.read_bytes() for path in sorted(folder.glob("*.code"))]
    np.savez(folder / "decoded.npz", latent=latent_of(net, codes), frames=np.stack(decompress(net, codes)))
"""


def small(kind: str, seed: int = 0) -> torch.nn.Module:
    """A codec with random weights that are large enough for symbols and tables of every sort."""
    torch.manual_seed(seed)
    net = build_codec(kind, SMALL[kind])
    if kind == "hyperprior":
        with torch.no_grad():
            net.gain.mul_(40)
            net.inverse_gain.div_(40)
            net.hyper_analysis[-1].weight.mul_(20)
            net.hyper_synthesis[-1].bias[:16] = torch.linspace(0, 60, 16)
            for part in net.hyper_synthesis:
                if isinstance(part, FixedConv2d):
                    part.weight.mul_(3)
    else:
        net.train()
        for _ in range(3):
            net(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))
    net.freeze()
    stored = storable(net)
    net = build_codec(kind, SMALL[kind])
    restore(net, stored)
    return net.eval()


def pictures(count: int = 2, height: int = 64, width: int = 128, seed: int = 0) -> np.ndarray:
    """Smooth random colour fields, uint8 [N, H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, 3, 5, 5), np.float32))
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * x).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def latent_of(net: torch.nn.Module, codes: list[bytes]) -> np.ndarray:
    header, _ = unpack(codes[0])
    payloads = [unpack(code)[1] for code in codes]
    if net.kind == "vqvae":
        return net.decode_latent(payloads, header.rate, header.height, header.width).numpy()
    return net.decode_latent(payloads, header.height, header.width).numpy()


def resealed(code: bytes, offset: int, value: int) -> bytes:
    """A code with one byte changed and a checksum that fits: what a hostile writer would make."""
    changed = bytearray(code)
    changed[offset] = value
    changed[HEADER.size - 4 : HEADER.size] = bytes(4)
    body, payload = bytes(changed[: HEADER.size]), bytes(changed[HEADER.size :])
    return body[:-4] + zlib.crc32(payload, zlib.crc32(body)).to_bytes(4, "big") + payload


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (50, 71), (1, 1)])
def test_a_frame_of_any_size_comes_back_in_its_size(kind, size):
    frames = pictures(2, *size)
    decoded = decompress(small(kind), compress(small(kind), frames, 1))
    assert [frame.shape for frame in decoded] == [(*size, 3)] * 2
    assert all(frame.dtype == np.uint8 for frame in decoded)


@pytest.mark.parametrize("kind", SMALL)
def test_no_frames_make_no_codes(kind):
    net = small(kind)
    assert compress(net, pictures(1)[:0], 0) == []
    assert decompress(net, []) == []


def test_symbols_and_means_come_back_exactly():
    net = small("hyperprior")
    x = torch.from_numpy(pictures(3)).permute(0, 3, 1, 2) / 255
    y = net.analysis(x) * net.gain[1][:, None, None]
    index, mean = net.exact_parameters(net.hyper_analysis(y).round().clamp(-RADIUS, RADIUS))
    residual = (y - mean).round().clamp(-RADIUS, RADIUS)
    # Not a trivial case.
    assert len(index.unique()) > 5
    assert residual.abs().max() > 5
    decoded = net.decode_latent(net.encode(x, 1), 64, 128)
    assert torch.equal(decoded, (residual + mean).detach())


def test_another_process_with_other_threads_and_kernels_decodes_the_same(tmp_path: Path):
    made = {kind: small(kind) for kind in SMALL}
    codes = {kind: compress(net, pictures(3, 128, 128), 1) for kind, net in made.items()}
    for kind, net in made.items():
        (tmp_path / kind).mkdir()
        save_file(storable(net), tmp_path / kind / "codec.safetensors")
        for i, code in enumerate(codes[kind]):
            (tmp_path / kind / f"{i}.code").write_bytes(code)
    threads = 2 if torch.get_num_threads() == 1 else 1
    subprocess.run(
        [sys.executable, "-c", DECODE_ELSEWHERE, str(threads), str(tmp_path)],
        cwd=Path(__file__).parents[3],
        check=True,
        timeout=120,
    )
    for kind, net in made.items():
        there = np.load(tmp_path / kind / "decoded.npz")
        assert np.array_equal(there["latent"], latent_of(net, codes[kind]))
        here = np.stack(decompress(net, codes[kind])).astype(int)
        # The latents are exact; the synthesis is in float32, and a rounding may fall to the other side.
        assert np.abs(there["frames"] - here).max() <= 1


@torch.inference_mode()
def test_tables_and_means_do_not_depend_on_the_order_of_summation():
    net = small("hyperprior")
    z = torch.randint(-5, 6, (4, 8, 3, 3)).double()
    before = net.exact(z)
    # The same network with its inner channels in another order sums in another order.
    first, second = net.exact[0], net.exact[3]
    order = torch.randperm(16)
    first.weight.copy_(first.weight.view(16, 4, 8, 3, 3)[order].flatten(0, 1))
    first.bias.copy_(first.bias.view(16, 4)[order].flatten())
    second.weight.copy_(second.weight[:, order])
    assert before.std() > 1
    assert torch.equal(before, net.exact(z))


def test_codes_do_not_depend_on_the_batch():
    net = small("hyperprior")
    frames = pictures(5, 64, 64)
    together = decompress(net, compress(net, frames, 2))
    apart = [decompress(net, [code])[0] for code in compress(net, frames, 2)]
    assert np.abs(np.stack(together).astype(int) - np.stack(apart)).max() <= 1


def test_frames_of_different_sizes_and_rates_are_decoded_in_their_order():
    net = small("hyperprior")
    codes = [compress(net, pictures(1, 64, width), rate)[0] for width, rate in ((64, 0), (128, 2), (64, 1))]
    assert [frame.shape[1] for frame in decompress(net, codes)] == [64, 128, 64]
    assert [unpack(code)[0].rate for code in codes] == [0, 2, 1]


@pytest.mark.parametrize("kind", SMALL)
def test_codes_are_much_smaller_than_pixels(kind):
    frames = pictures(2, 256, 256)
    sizes = [len(code) for code in compress(small(kind), frames, 0)]
    assert max(sizes) < frames[0].nbytes / 10


def test_a_higher_rate_costs_more_bytes():
    net, frames = small("hyperprior"), pictures(2, 128, 128)
    sizes = [sum(map(len, compress(net, frames, rate))) for rate in range(3)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("kind", SMALL)
def test_any_flipped_or_missing_byte_is_an_error(kind):
    net = small(kind)
    (code,) = compress(net, pictures(1), 1)
    for offset in range(0, len(code), max(1, len(code) // 40)):
        damaged = bytearray(code)
        damaged[offset] ^= 0x10
        with pytest.raises(CodecError):
            decompress(net, [bytes(damaged)])
    for length in (0, 5, HEADER.size, len(code) - 4, len(code) - 1):
        with pytest.raises(CodecError):
            decompress(net, [code[:length]])
    with pytest.raises(CodecError):
        decompress(net, [code + b"\0\0\0\0"])


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [(0, 9, "version"), (1, 77, "kind"), (2, 200, "rate"), (3, 1, "weights"), (7, 0xFF, "pixels")],
)
def test_a_hostile_header_is_refused_before_memory_is_asked_for(offset, value, words):
    net = small("hyperprior")
    frames = np.zeros((1, 64, 2040, 3), np.uint8)
    (code,) = compress(net, frames, 0)
    if words == "pixels":
        code = resealed(code, 9, 0xFF)
    with pytest.raises(CodecError, match=words):
        decompress(net, [resealed(code, offset, value)])


@pytest.mark.parametrize("kind", SMALL)
def test_garbage_with_a_fitting_checksum_is_an_error_or_a_picture(kind):
    net = small(kind)
    (code,) = compress(net, pictures(1), 1)
    rng = np.random.default_rng(1)
    refused = 0
    for length in rng.integers(0, 2 * len(code), 20):
        garbage = resealed(code[: HEADER.size] + rng.bytes(length), 2, 1)
        try:
            assert decompress(net, [garbage])[0].shape == (64, 128, 3)
        except CodecError:
            refused += 1
    assert refused > 5


def test_a_code_of_other_weights_or_another_kind_is_refused():
    (code,) = compress(small("hyperprior", seed=1), pictures(1), 0)
    with pytest.raises(CodecError, match="other weights"):
        decompress(small("hyperprior", seed=2), [code])
    with pytest.raises(CodecError, match="made by a hyperprior"):
        decompress(small("vqvae"), [code])
    with pytest.raises(CodecError, match="rates 0 to 2"):
        compress(small("hyperprior"), pictures(1), 3)


def test_frequencies_fill_the_range_and_leave_nothing_out():
    table = gaussian_frequencies()
    assert (table.sum(axis=1) == 2**PRECISION).all()
    assert table.min() >= 1
    assert np.array_equal(table, table[:, ::-1])
    entropy_bits = -(table / 2**PRECISION * np.log2(table / 2**PRECISION)).sum(axis=1)
    assert entropy_bits[0] < 0.01
    # A Gaussian of scale 32: 0.5 log2(2 pi e 32^2) bits.
    assert entropy_bits[-1] == pytest.approx(7.047, abs=0.01)


def test_stored_codes_stay_readable():
    # A library that codes these symbols with other words would break every archive.
    table = frequencies(np.array([[0.7, 0.2, 0.1, 0.0], [0.1, 0.1, 0.1, 0.7]]))
    symbols = np.array([0, 3, 1, 3, 0, 0, 2, 3, 3, 0, 1, 1] * 8)
    index = np.array([0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1] * 8)
    coder = AnsCoder()
    Tables(table).encode(coder, symbols, index)
    words = coder.get_compressed().astype("<u4").tobytes()
    assert hashlib.sha256(words).hexdigest()[:16] == "503e685e4e327f12"
    coder = AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32))
    assert np.array_equal(Tables(table).decode(coder, index), symbols)
    check_empty(coder)


def test_channels_name_the_table_of_each_value():
    assert channels((2, 1, 3)).tolist() == [0, 0, 0, 1, 1, 1]
    assert numbers(torch.tensor([1.0, -2.0])).dtype == np.int32


@pytest.mark.parametrize("kind", SMALL)
def test_training_has_gradients_everywhere_and_lowers_the_loss(kind):
    torch.manual_seed(0)
    net = build_codec(kind, SMALL[kind]).train()
    x = torch.from_numpy(pictures(4, 64, 64)).permute(0, 3, 1, 2).float() / 255
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        x_hat, bits, auxiliary = net(x, torch.tensor([0, 1, 0, 1]))
        loss = 100 * (x_hat - x).square().mean() + bits.mean() / 64**2 + auxiliary
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in net.parameters())
