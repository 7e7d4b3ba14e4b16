"""How far one run scales: predicted from what stages cost, and checked against real runs.

    python -m benchmarks.scale --simulate [--speeds FILE]   10, 100, 1,000 nodes, and 1, 2, 4 raylets
    python -m benchmarks.scale --real 1,2,4                 raylets of bounded CPUs on this machine
    python -m benchmarks.scale --plan-rows 1000000          list - done -> rows to do, of such a catalogue

The prediction is the plan of cluster/plan.py played through by discrete events (benchmarks/scale_events.py).
See benchmarks/scale_real.py for what a real run is, and what it does and does not check.
"""

import json
import resource
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import click

from benchmarks.scale_events import Flow, Outcome
from benchmarks.scale_real import LIBRARY, SLEEPS, hand_over_s, measure, raylets, running
from cluster.forecast import forecast
from cluster.plan import PoolSettings, plan_for, work_of
from cluster.resources import Node, Resources
from cluster.speeds import SHIPPED, Speeds, read

GIB = 2**30
# Of rented machines: 16 cores with 4 GiB each, and the same with one GPU of 80 GiB.
CPU_NODE = Node(16.0, 45 * GIB, 19 * GIB)
GPU_NODE = Node(16.0, 45 * GIB, 19 * GIB, gpus=1, gpu_bytes=80 * GIB)
NODES = (1, 10, 100, 1000)
MINUTES = 10  # of the cluster's work that is played through, at the least
MOST_VIDEOS = 5_000


@click.command(help=__doc__.splitlines()[0])
@click.option("--simulate", is_flag=True, help="Predict clusters of up to 1,000 nodes.")
@click.option("--real", metavar="1,2,4", help="Run on so many raylets, prediction beside measurement.")
@click.option("--seconds", default=60.0, show_default=True, help="About how long each real run takes.")
@click.option("--plan-rows", type=int, metavar="N", help="Plan a catalogue of N rows, nine in ten done.")
@click.option("--speeds", "file", metavar="FILE", help="What `reelmap tune` wrote; shipped ones by default.")
@click.option("--json", "json_file", type=click.Path())
def main(
    simulate: bool,
    real: str | None,
    seconds: float,
    plan_rows: int | None,
    file: str | None,
    json_file: str | None,
) -> None:
    results: dict[str, list] = {}
    if simulate:
        results["simulated"] = predictions(file)
    if real:
        results["real"] = beside_real([int(count) for count in real.split(",")], seconds)
    if plan_rows:
        command = [sys.executable, "-m", "benchmarks.scale_rows", str(plan_rows)]
        subprocess.run(command, check=True)  # a process of its own, for its peak of memory
    if json_file:
        Path(json_file).write_text(json.dumps(results, indent=1))


def predict(nodes: Resources, speeds: Speeds, videos: int | None = None) -> tuple[Outcome, float, str]:
    """What the simulator says of a cluster, and the forecast of `--plan`: videos/s, and what bounds them."""
    library = videos or 10**6
    plan = plan_for(nodes, speeds, library)
    work = work_of(nodes, speeds, library, PoolSettings(), None)
    expected = forecast(plan, nodes, speeds, library)
    count = videos or int(min(MOST_VIDEOS, max(200, 4 * plan.render, expected.videos_per_s * 60 * MINUTES)))
    return Flow(plan, work, count).run(), expected.videos_per_s, expected.bottleneck


def predictions(file: str | None) -> list[dict]:
    rows = []
    print(
        f"{'cluster':>22s} {'video-h/h':>10s} {'--plan':>8s} {'cores':>6s} {'GPUs':>6s} {'driver':>7s} gather"
    )
    for node, kind in ((CPU_NODE, "cpu"), (GPU_NODE, "gpu")):
        speeds = read(file) if file else SHIPPED[kind]
        if speeds.kind != kind:
            continue
        for count in NODES:
            found, expected, bottleneck = predict(Resources((node,) * count, node.cores * count), speeds)
            hours = found.videos / found.wall_s * speeds.video_s  # from the first to the last
            name = f"{count} x {node.cores:.0f} cores" + (" + GPU" if node.gpus else "")
            print(
                f"{name:>22s} {hours:10.0f} {expected * speeds.video_s:8.0f} {found.core_use:6.0%} "
                f"{found.gpu_use:6.0%} {found.driver_use:7.0%} {found.gather_use:6.0%}  {bottleneck}",
                flush=True,
            )
            rows.append({"nodes": count, "kind": kind, "hours_per_hour": hours, **asdict(found)})
    return rows


def beside_real(counts: list[int], seconds: float) -> list[dict]:
    rows = []
    print(f"{'raylets':>8s} {'videos':>7s} {'predicted/s':>12s} {'measured/s':>11s} {'error':>7s}")
    for count in counts:
        has = raylets(count)
        plan = plan_for(has, SLEEPS, LIBRARY)
        work = work_of(has, SLEEPS, LIBRARY, PoolSettings(), None)
        most = Flow(plan, work, 100, contended=False).run().videos_per_s
        videos = max(8, round(seconds * most))
        with running(count):
            # What Ray takes of each block on this machine, as busy as it is, is measured in front of the run.
            driver_s = hand_over_s(plan)
            measured, _ = measure(plan, videos)
        work = replace(work, speeds=SLEEPS.model_copy(update={"driver_s": driver_s}))
        predicted = Flow(plan, work, videos, contended=False).run().videos_per_s
        print(
            f"{count:8d} {videos:7d} {predicted:12.3f} {measured:11.3f} {predicted / measured - 1:+7.1%}   "
            f"(without Ray's own {1e3 * driver_s:.1f} ms a block {most:.3f}; sizes {plan.sizes})",
            flush=True,
        )
        rows.append({"raylets": count, "videos": videos, "predicted": predicted, "measured": measured})
    return rows


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
