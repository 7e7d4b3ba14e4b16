"""How near scores from stored proxies come to scores from the videos, and how much cheaper they are.

    python -m benchmarks.proxies VIDEO ... [--bundle URI] [--rate N] [--json FILE]

Each video is analysed as a run does it, one core, without Ray, and once more from its codes and measures.

tau_b    Kendall's rank correlation of the importance of the samples, from proxies against from the video
chosen   share of the chosen clips, in seconds, that both choose
bytes    read: the file, against the codes and the measures of the samples
cpu_s    to the scores: probe, decode, features, score, against decoding of the codes, features, score
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from benchmarks.scoring import one_core
from stages.compress import CodecSettings, Compress, Decompress
from stages.container import LimitSettings
from stages.cut import Cut, CutSettings
from stages.decode import DecodeSettings, decode
from stages.failure import Dropped, Failed
from stages.features import ExtractFeatures, FeatureSettings
from stages.gather import merge
from stages.nn.weights import Bundle, BundleError, open_bundle
from stages.probe import probe
from stages.score import Score, ScoreSettings

REEL = "15%"
MEASURES = ("times_s", "cuts_s", "motion", "motion_std", "luma", "loudness")
STEP_S = 0.1  # in which the time of chosen clips is compared

Row = dict[str, Any]


class Stages:
    """The networks of a bundle, and every other setting as it is when nothing is set."""

    def __init__(self, bundle: Bundle, rate: int | None):
        features = FeatureSettings()
        codec = CodecSettings() if rate is None else CodecSettings(rate=rate)
        self.extract = ExtractFeatures(features, bundle)
        self.compress, self.decompress = Compress(codec, bundle), Decompress(bundle)
        self.score = Score(ScoreSettings(kind=bundle.card("scorer")["kind"]), bundle, features)
        self.cut = Cut(CutSettings(target=REEL), (), 0.0)

    def from_video(self, path: Path) -> tuple[Row, float]:
        """The scored row, and the CPU seconds that it took but for the making of the codes."""
        settings, limits = DecodeSettings(), LimitSettings()
        shards, coded_s, start_s = [], 0.0, time.process_time()
        for shard in probe({"uri": str(path)}, limits, settings.shard_s):
            row = decode(shard, settings, limits)
            before_s = time.process_time()
            row = self.compress(row)
            coded_s += time.process_time() - before_s
            shards.append({key: value for key, value in self.extract(row).items() if key != "frames"})
        whole = self.score(merge(shards, settings.min_coverage))
        return whole, time.process_time() - start_s - coded_s

    def from_proxies(self, whole: Row) -> tuple[Row, float]:
        """The row scored from decoded codes; what was measured on the video stays."""
        start_s = time.process_time()
        frames = self.decompress(whole["codes"])
        row = self.score(whole | {"features": self.extract({"frames": frames})["features"]})
        return row, time.process_time() - start_s

    def chosen(self, row: Row) -> np.ndarray:
        """Which tenths of a second are in the reel."""
        at_s = np.arange(0, row["duration_s"], STEP_S)
        inside = np.zeros(len(at_s), bool)
        for edit in self.cut(row)["edits"]:
            inside |= (at_s >= edit["source_start_s"]) & (at_s < edit["source_end_s"])
        return inside


def measure(path: Path, stages: Stages) -> dict[str, float]:
    whole, cpu_s = stages.from_video(path)
    again, proxy_cpu_s = stages.from_proxies(whole)
    picked, picked_again = stages.chosen(whole), stages.chosen(again)
    return {
        "seconds": whole["duration_s"],
        "samples": len(whole["times_s"]),
        "tau_b": float(kendalltau(whole["importance"], again["importance"]).statistic),
        "chosen": float((picked & picked_again).sum() / picked.sum()),
        "bytes": path.stat().st_size,
        "proxy_bytes": sum(map(len, whole["codes"])) + sum(whole[name].nbytes for name in MEASURES),
        "cpu_s": cpu_s,
        "proxy_cpu_s": proxy_cpu_s,
    }


@click.command(help=__doc__.splitlines()[0])
@click.argument(
    "videos", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--bundle", "uri", help="Model bundle; none: the one in the package.")
@click.option("--rate", type=click.IntRange(min=0), help="Of the codec; none: the default of a run.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(videos: tuple[Path, ...], uri: str | None, rate: int | None, json_file: Path | None) -> None:
    one_core()
    cv2.setNumThreads(1)
    try:
        stages = Stages(open_bundle(uri), rate)
    except (BundleError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    found = {}
    for path in videos:
        try:
            found[path.name] = measure(path, stages)
        except (Failed, Dropped) as error:
            click.echo(f"left out: {path}: {error}")
    if not found:
        raise click.ClickException("none of the videos can be analysed")
    mean = {
        name: statistics.fmean(row[name] for row in found.values()) for name in next(iter(found.values()))
    }
    show(found | {"mean": mean})
    if json_file:
        json_file.write_text(json.dumps({"videos": found, "mean": mean}, indent=1) + "\n")


def show(found: dict[str, dict[str, float]]) -> None:
    table = Table()
    headings = ("video", "seconds", "tau_b", "chosen", "MB", "proxies MB", "CPU s", "proxies CPU s")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "video" else "right")
    for name, row in found.items():
        table.add_row(
            name,
            f"{row['seconds']:.0f}",
            f"{row['tau_b']:.3f}",
            f"{row['chosen']:.0%}",
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['proxy_bytes'] / 1e6:.2f}",
            f"{row['cpu_s']:.1f}",
            f"{row['proxy_cpu_s']:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
