"""How fast each network runs here, beside plain eager float32, and what share of the roofline that is.

    python -m benchmarks.look [--bundle URI] [--rounds 5] [--json FILE]

plain     float32, NCHW, eager: a network as it comes
layout    channels_last
bf16      channels_last, autocast to bfloat16: what the stages do where the processor has it
compiled  the same by torch.compile; `first s` is what its first call took, a compiler included
int8      quantised after training (FX, x86), calibrated on the pictures that it is then measured on: CPU only

roofline  FLOP/s as a share of those of a large matrix product in the same type, measured beside it
like      cosine between this output and the plain one, the mean over the pictures

On the CPU it is one core, and CPU seconds; rounds are interleaved, figures are medians. The networks see
smooth noise, which costs them what pictures do.
"""

import copy
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scoring import one_core
from stages.colour import load_colour
from stages.nn import cnn, scorer
from stages.nn.codec import load_codec
from stages.nn.device import in_bfloat16, pick_device
from stages.nn.weights import Bundle, open_bundle

PICTURES = 16
SIDE_PX = 256  # of a sample
STEPS = 640  # of the scorer: a window with its margins
MATRIX = {"cpu": 2048, "cuda": 8192}

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Network:
    name: str
    net: nn.Module
    inputs: tuple[Tensor, ...]
    items: int  # pictures, or steps of the scorer


@dataclass(frozen=True)
class Figures:
    network: str
    way: str
    per_s: float  # items
    gain: float  # times plain
    roofline: float | None
    like: float
    first_s: float


@click.command(help=__doc__.splitlines()[0])
@click.option("--bundle", "uri", help="Model bundle; none: the one in the package.")
@click.option("--rounds", default=5, type=click.IntRange(min=1))
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(uri: str | None, rounds: int, json_file: Path | None) -> None:
    one_core()
    device = pick_device()
    peaks = {kind: matrix_flops(device, kind) for kind in (torch.float32, torch.bfloat16)}
    found: list[Figures] = []
    for network in networks(open_bundle(uri), device):
        found += measure(network, device, peaks, rounds)
    show(found, peaks, device)
    if json_file:
        result = {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one core",
            "torch": torch.__version__,
            "matrix_flops": {str(kind): peak for kind, peak in peaks.items()},
            "networks": [asdict(one) for one in found],
        }
        json_file.write_text(json.dumps(result, indent=1) + "\n")


def networks(bundle: Bundle, device: torch.device) -> list[Network]:
    """Every network that a run goes through, from float32 on, with an input each."""
    torch.manual_seed(0)
    small = F.interpolate(torch.rand(PICTURES, 3, 12, 12), (SIDE_PX, SIDE_PX), mode="bicubic").clamp(0, 1)
    pictures = small.to(device)
    features, colour, score = cnn.load(bundle), load_colour(bundle), scorer.load(bundle)
    codec = load_codec(bundle).eval().to(device)
    with torch.no_grad():
        latent = codec.analysis(pictures)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (cnn.MEAN, cnn.STD))
    size_px, graded_px = features.input_size, colour.settings.picture_px
    shape = score.shape
    vectors = F.normalize(torch.randn(1, STEPS, shape.features_width, device=device), dim=-1)
    told = torch.randn(1, STEPS, len(shape.signals), device=device)
    seen = F.interpolate((pictures - mean) / std, (size_px, size_px), mode="bilinear")
    graded = F.interpolate(pictures, (graded_px, graded_px), mode="area")
    return [
        Network("features", features.trunk.to(device), (seen,), PICTURES),
        Network("codec, analysis", codec.analysis, (pictures,), PICTURES),
        Network("codec, synthesis", codec.synthesis, (latent,), PICTURES),
        Network("colour", colour.eval().to(device), (graded,), PICTURES),
        Network("scorer", score.eval().to(device), (vectors, vectors.mean(1, keepdim=True), told), STEPS),
    ]


def measure(
    network: Network, device: torch.device, peaks: dict[torch.dtype, float], rounds: int
) -> list[Figures]:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.net(*network.inputs)
    flops = counter.get_total_flops()
    ways = all_ways(network, device)
    outputs, first_s, seconds = {}, {}, defaultdict(list)
    for name, run in ways.items():
        began = time.perf_counter()
        try:
            outputs[name] = run().float().cpu().flatten(1)
        except Exception as error:  # a compiler that is missing, an operation that has no int8
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            click.echo(f"{network.name}: no {name}: {reason}", err=True)
        first_s[name] = time.perf_counter() - began
    for _ in range(rounds):
        for name in outputs:
            seconds[name].append(seconds_of(ways[name], device))
    made = []
    for name, output in outputs.items():
        took_s = median(seconds[name])
        peak = peaks[torch.bfloat16 if name in ("bf16", "compiled") else torch.float32]
        likeness = F.cosine_similarity(output, outputs["plain"])
        made.append(
            Figures(
                network.name,
                name,
                per_s=network.items / took_s,
                gain=median(seconds["plain"]) / took_s,
                roofline=flops / took_s / peak if flops and name != "int8" else None,
                like=float(likeness.mean()),
                first_s=first_s[name],
            )
        )
    return made


def all_ways(network: Network, device: torch.device) -> dict[str, Run]:
    plain = copy.deepcopy(network.net)
    for weights in plain.parameters():
        weights.data = weights.data.contiguous()
    layout = copy.deepcopy(network.net)
    for weights in layout.parameters():  # `to` would also try those of five dimensions
        weights.data = _channels_last(weights.data)
    last = tuple(_channels_last(one) for one in network.inputs)

    def running(net: nn.Module, inputs: tuple[Tensor, ...], half: bool = False) -> Run:
        @torch.inference_mode()
        def run() -> Tensor:
            with in_bfloat16(device, True) if half else nullcontext():
                return net(*inputs)

        return run

    ways = {
        "plain": running(plain, tuple(one.contiguous() for one in network.inputs)),
        "layout": running(layout, last),
        "bf16": running(layout, last, half=True),
        "compiled": running(torch.compile(copy.deepcopy(layout)), last, half=True),
    }
    if device.type == "cpu":
        ways["int8"] = quantised(network, last)
    return ways


def quantised(network: Network, inputs: tuple[Tensor, ...]) -> Run:
    @cache
    def made() -> nn.Module:
        from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx  # on its way out of torch

        net = copy.deepcopy(network.net).eval()
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            prepared = quantize_fx.prepare_fx(net, get_default_qconfig_mapping("x86"), inputs)
            prepared(*inputs)
            return quantize_fx.convert_fx(prepared)

    def run() -> Tensor:
        net = made()
        with torch.inference_mode():
            return net(*inputs)

    return run


def _channels_last(one: Tensor) -> Tensor:
    return one.contiguous(memory_format=torch.channels_last) if one.dim() == 4 else one


def seconds_of(run: Run, device: torch.device, least_s: float = 0.5) -> float:
    """A call's, of as many as take `least_s`; on the CPU those that the process had of it."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    calls, began = 0, clock()
    while True:
        run()
        calls += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
        if (took_s := clock() - began) >= least_s:
            return took_s / calls


def matrix_flops(device: torch.device, kind: torch.dtype) -> float:
    """FLOP/s of a product of two large square matrices."""
    side = MATRIX[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))

    def run() -> Tensor:
        return a @ b

    run()
    return 2 * side**3 / median(seconds_of(run, device) for _ in range(3))


def show(found: list[Figures], peaks: dict[torch.dtype, float], device: torch.device) -> None:
    said = ", ".join(f"{kind}: {peak / 1e9:,.0f} GFLOP/s" for kind, peak in peaks.items())
    table = Table(title=f"{device.type}, matrices in {said}")
    for heading in ("network", "way", "items/s", "x plain", "roofline", "like", "first s"):
        table.add_column(heading, justify="left" if heading in ("network", "way") else "right")
    for one in found:
        share = "" if one.roofline is None else f"{one.roofline:.0%}"
        table.add_row(
            one.network,
            one.way,
            f"{one.per_s:,.1f}",
            f"{one.gain:.2f}",
            share,
            f"{one.like:.4f}",
            f"{one.first_s:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
