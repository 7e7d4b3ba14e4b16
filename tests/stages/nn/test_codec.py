"""Codes: exact on every machine, smaller than pixels, and refused in plain words when damaged."""

import copy
import hashlib
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stages.nn.codec import (
    build_codec,
    compress,
    decompress,
    latents_of,
    padded,
    restore,
    sections,
    storable,
)
from stages.nn.entropy import (
    ACTIVATION_BITS,
    HEADER,
    INPUT_MAX,
    PRECISION,
    RADIUS,
    WEIGHT_BITS,
    AnsCoder,
    CodecError,
    FixedConv2d,
    Tables,
    check_empty,
    frequencies,
    gaussian_frequencies,
    is_key,
    unpack,
)
from stages.nn.hyperprior import DEAD, channels, numbers, rounded
from stages.nn.latent_prior import LatentPrior, step_masks

SMALL = {
    "hyperprior": {
        "widths": (8, 16, 16),
        "depths": (1, 1, 1),
        "latent": 16,
        "hyper": 16,
        "hyper_latent": 8,
        "context": 16,
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
            net.latent_prior.rate_index.copy_(torch.linspace(0, 60, 16).expand(3, 16))
            for part in net.latent_prior.modules():
                if isinstance(part, FixedConv2d):
                    part.weight.add_(0.2 * torch.randn_like(part.weight)).mul_(3)
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
    return torch.stack(latents_of(net, codes)[1]).numpy()


def film(count: int, change: float = 2.0) -> np.ndarray:
    """Frames of a picture that hardly moves, uint8 [N, 128, 128, 3]."""
    rng = np.random.default_rng(3)
    still = pictures(1, 128, 128)[0].astype(float)
    frames = [still]
    for _ in range(count - 1):
        frames.append(frames[-1] + change * rng.standard_normal((1, 1, 3)))
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


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


@torch.inference_mode()
def test_symbols_and_means_come_back_exactly():
    net = small("hyperprior")
    x = torch.from_numpy(pictures(3)).permute(0, 3, 1, 2) / 255
    payloads, y, _ = net.encode_latent(x, 1)
    z = net.hyper_analysis(y).round().clamp(-RADIUS, RADIUS)
    residuals = []

    def quantise(step, index, mean):
        residuals.append(rounded(y - mean).clamp(-RADIUS, RADIUS))
        return residuals[-1]

    y_hat, index, _ = net.exact(z, torch.tensor([1, 1, 1]), (4, 8), quantise)
    # Not a trivial case.
    assert len(index.unique()) > 5
    assert residuals[-1].abs().max() > 5
    assert torch.equal(net.decode_latent(payloads, 1, 64, 128), y_hat)


def test_another_process_with_other_threads_and_kernels_decodes_the_same(tmp_path: Path):
    made = {kind: small(kind) for kind in SMALL}
    codes = {kind: compress(net, film(6), 1, key_every=4) for kind, net in made.items()}
    assert [is_key(code) for code in codes["hyperprior"]] == [True, False, False, False, True, False]
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
def test_tables_and_means_do_not_depend_on_the_order_or_precision_of_sums():
    net = small("hyperprior")
    z, residual = torch.randint(-255, 256, (2, 8, 3, 3)).float(), torch.randint(-255, 256, (2, 16, 12, 12))

    def run(prior):
        precise = next(prior.parameters()).dtype
        return prior(z.to(precise), torch.tensor([0, 2]), (12, 12), lambda *_: residual.to(precise))

    y_hat, index, mean = run(net.exact)
    assert index.std() > 5
    assert mean.std() > 5
    for other in run(copy.deepcopy(net.exact).double()), run(shuffled(copy.deepcopy(net.exact))):
        assert all(torch.equal(a, b.float()) for a, b in zip((y_hat, index, mean), other, strict=True))


def shuffled(prior: LatentPrior) -> LatentPrior:
    """The same network with its inner channels in another order: it sums in another order."""
    order = torch.randperm(16)
    first, second = prior.hyper_synthesis[0], prior.hyper_synthesis[3]
    first.weight.copy_(first.weight.view(16, 4, 8, 3, 3)[order].flatten(0, 1))
    first.bias.copy_(first.bias.view(16, 4)[order].flatten())
    second.weight.copy_(second.weight[:, order])
    for context in prior.contexts:
        for part in (context.near, context.far):
            part.weight.copy_(part.weight[order])
            part.bias.copy_(part.bias[order])
        context.out.weight.copy_(context.out.weight[:, order])
    return prior


def test_the_largest_sums_of_the_fixed_point_network_are_exact_in_float32():
    conv = FixedConv2d(192, 4, 3)
    with torch.no_grad():
        conv.weight.copy_(8 * torch.rand_like(conv.weight).sign())
        conv.bias.fill_(100)
    weight, bias = conv.snapped()
    for grid in (1.0, 2.0**-ACTIVATION_BITS):  # of whole numbers, and of what comes from a FixedReLU
        most = INPUT_MAX * grid * weight.abs().sum((1, 2, 3)) + bias.abs()
        assert (most < 2**24 * grid * 2.0**-WEIGHT_BITS).all()
        assert (bias % (grid * 2.0**-WEIGHT_BITS) == 0).all()
        x = INPUT_MAX * grid * torch.ones(1, 192, 3, 3)
        assert torch.equal(conv(x), copy.deepcopy(conv).double()(x.double()).float())


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (1, 1)])
def test_each_value_is_coded_in_one_step(size):
    masks = step_masks((8, *size))
    assert torch.equal(masks.sum(0), torch.ones(8, *size))
    if size == (4, 4):
        assert (masks.float().mean((1, 2, 3)) == 0.25).all()
        # The same place in other channels is another step's.
        assert torch.equal(masks[:, :4, 0, 0].float(), torch.eye(4))


def test_what_a_step_may_not_know_does_not_change_it():
    net = small("hyperprior")
    z, y = torch.randint(-3, 4, (1, 8, 2, 2)).float(), torch.randint(-9, 10, (1, 16, 8, 8)).float()
    masks = step_masks((16, 8, 8))

    def seen(y):
        means = []

        def residual(step, index, mean):
            means.append(mean[0][masks[step]])
            return y

        net.exact(z, torch.tensor([0]), (8, 8), residual)
        return means

    before, after = seen(y), seen(torch.where(masks[2], y + 5, y))
    assert all(torch.equal(before[step], after[step]) for step in range(3))
    assert not torch.equal(before[3], after[3])


def test_stored_weights_are_those_that_are_used():
    net = small("hyperprior")
    for name, part in net.named_modules():
        if isinstance(part, FixedConv2d):
            weight, bias = part.snapped()
            stored = storable(net)
            assert torch.equal(stored[f"{name}.weight"].float(), weight)
            assert torch.equal(stored[f"{name}.bias"], bias)


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


def test_frames_that_look_alike_cost_less_than_alone_and_lose_no_more():
    net, frames = small("hyperprior"), film(6)
    alone, chained = (compress(net, frames, 1, key_every) for key_every in (1, 6))
    assert sum(map(len, chained)) < 0.6 * sum(map(len, alone))
    y = net.encode_latent(padded(torch.from_numpy(frames), torch.device("cpu")), 1)[1].numpy()
    for codes in (alone, chained):
        assert np.abs(latent_of(net, codes) - y).max() <= 0.5 + DEAD + 1e-4


def test_a_difference_is_used_only_where_it_is_shorter():
    net = small("hyperprior")
    frames = np.concatenate([film(2), pictures(1, 128, 128, seed=9)])
    alone, chained = (compress(net, frames, 1, key_every) for key_every in (1, 16))
    assert all(len(b) <= len(a) for a, b in zip(alone, chained, strict=True))
    assert all(is_key(b) == (len(a) == len(b)) for a, b in zip(alone, chained, strict=True))


def test_a_difference_is_decoded_behind_its_own_frame_only():
    net = small("hyperprior")
    codes = compress(net, film(7), 1, key_every=4)
    whole_film = decompress(net, codes)
    from_key = decompress(net, codes[4:])
    assert np.abs(np.stack(from_key).astype(int) - np.stack(whole_film[4:])).max() <= 1
    for wrong in (codes[1:], codes[:1] + codes[2:], [codes[0], codes[5]], [codes[0], codes[2], codes[1]]):
        with pytest.raises(CodecError, match="start at a key"):
            decompress(net, wrong)


@pytest.mark.parametrize("scale", [0.0, 0.02, 1.0, 30.0])
def test_a_difference_comes_back_whatever_its_size(scale):
    coder = small("hyperprior").differences
    rng = np.random.default_rng(0)
    change = np.clip(scale * rng.laplace(size=(16, 5, 7)) * rng.random((16, 1, 1)), -RADIUS, RADIUS).round()
    payload = coder.encode(change)
    assert np.array_equal(coder.decode(payload, change.shape), change)
    assert len(payload) <= 8 or scale
    with pytest.raises(CodecError):
        coder.decode(payload, (16, 5, 6))


def test_long_films_are_decoded_a_section_at_a_time():
    net = small("hyperprior")
    codes = compress(net, film(10), 0, key_every=3)
    assert [len(part) for part in sections(codes, 4)] == [6, 4]
    assert [code for part in sections(codes, 1) for code in part] == codes
    assert all(is_key(part[0]) for part in sections(codes, 1))


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
    # A Gaussian of scale 64: 0.5 log2(2 pi e 64^2) bits.
    assert entropy_bits[-1] == pytest.approx(8.047, abs=0.01)


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


def test_the_encoder_rounds_rather_towards_zero():
    x = torch.tensor([-1.7, -0.55, -0.5, 0.0, 0.5, 0.55, 0.57, 1.55, 2.0, 300.4])
    assert rounded(x).tolist() == [-2, 0, 0, 0, 0, 0, 1, 1, 2, 300]
