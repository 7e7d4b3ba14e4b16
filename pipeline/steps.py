"""What each stage of a run is made of, whoever runs it: Ray's operators (flow.py) or processes (here.py)."""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from cluster.plan import Plan
from pipeline.config import Settings
from pipeline.guard import Bounds, Stage, Step
from pipeline.making import make_cut, open_render
from pipeline.progress import Reporter
from pipeline.publish import MEDIA, Publish, upload
from pipeline.recall import Recall
from pipeline.recut import make_recut
from pipeline.rows import CUT, DECODED, GATHERED, LOOKED, RENDERED, SCORED, SHARDS
from pipeline.suspects import DriverWitness, Witness
from stages.compress import Compress
from stages.container import LimitSettings, keeping_blocks
from stages.decode import DecodeSettings, decode
from stages.features import ExtractFeatures
from stages.gather import Gather
from stages.nn import cnn
from stages.nn.weights import open_bundle
from stages.probe import probe
from stages.saliency import Saliency
from stages.score import Score
from stages.watchdog import unwatched

STAGES = ("probe", "decode", "look", "gather", "score", "render", "publish")
FROM_PROXIES = ("look", "score", "publish")
RECUT = ("render",)


@dataclass(frozen=True)
class Pass:
    """One pass over videos, for whoever runs the steps: what is to be done, and with what."""

    todo: pa.Table  # rows.LISTED
    settings: Settings
    plan: Plan
    publish: Publish
    reporter: Reporter
    witness: Witness | DriverWitness
    archive: str | None = None  # the OUTPUT of another run, whose proxies are looked at in place of videos

    def steps(self) -> dict[str, Step]:
        if self.archive:
            return steps_from_proxies(self.settings, self.archive, self.plan.threads)
        return steps_of(self.settings, self.publish.output, self.plan.threads)


def steps_of(settings: Settings, output: str, threads: int) -> dict[str, Step]:
    """All that is between the list of the library and publishing, by name, in order."""
    limits = settings.limits
    reading = Bounds(limits.stall_timeout_s, limits.max_memory_bytes)
    # A large reel takes what it takes.
    rendering = Bounds(limits.stall_timeout_s)
    # Workers that only decode get no more than they need: the whole settings would import torch there.
    probing, decoding = (limits, settings.decode.shard_s), (settings.decode, limits)
    return _by_name(
        Step("probe", make_probe, probing, SHARDS, reading),
        Step("decode", make_decode, decoding, DECODED, reading),
        Step("look", make_look, (settings, threads), LOOKED),
        Step("gather", Gather, (settings.decode.min_coverage,), GATHERED, sees_failures=True),
        Step("score", make_score, (settings,), SCORED),
        Step("render", make_render, (settings, output, threads), RENDERED, rendering),
    )


def steps_from_proxies(settings: Settings, archive: str, threads: int) -> dict[str, Step]:
    """The same from the proxies of `archive`, the OUTPUT of another run: nothing there to cut a reel of."""
    return _by_name(
        Step("look", make_recall, (settings, archive, threads), GATHERED),
        Step("score", make_score, (settings,), SCORED),
    )


def recut_step(settings: Settings, output: str, threads: int) -> Step:
    bounds = Bounds(settings.limits.stall_timeout_s)
    return Step("render", make_recut, (settings, output, threads), CUT, bounds)


def _by_name(*steps: Step) -> dict[str, Step]:
    return {step.name: step for step in steps}


def make_probe(limits: LimitSettings, shard_s: float) -> Stage:
    return partial(probe, limits=limits, shard_s=shard_s)


def make_decode(settings: DecodeSettings, limits: LimitSettings) -> Stage:
    return partial(decode, settings=settings, limits=limits)


def make_recall(settings: Settings, archive: str, threads: int) -> Stage:
    torch.set_num_threads(threads)
    return Recall(archive, settings, open_bundle(settings.bundle))


def make_look(settings: Settings, threads: int) -> Stage:
    """Every network that needs decoded pictures, in one place: they are read once."""
    torch.set_num_threads(threads)
    bundle = open_bundle(settings.bundle)
    features, codec = ExtractFeatures(settings.features, bundle), Compress(settings.codec, bundle)
    return lambda row: codec(features(row))


def make_score(settings: Settings) -> Stage:
    """Everything that looks at a whole video at once, from its vectors and thumbnails."""
    torch.set_num_threads(1)
    bundle = open_bundle(settings.bundle)
    score = Score(settings.score, bundle, settings.features)
    cut = make_cut(settings)
    if not settings.saliency.enabled:
        return lambda row: cut(score(row))
    net = cnn.load(bundle, settings.features.kind, settings.features.weights)
    saliency = Saliency(score, net, settings.cut.novelty_share, settings.decode.colour)
    return lambda row: saliency(cut(score(row)))


def make_render(settings: Settings, output: str, threads: int) -> Stage:
    torch.set_num_threads(threads)
    render = open_render(settings)

    def run(row: dict[str, Any]) -> dict[str, Any]:
        with keeping_blocks(), tempfile.TemporaryDirectory(prefix="reelmap-") as folder:
            row = render(row, Path(folder))
            with unwatched():  # the storage has time-outs of its own
                return row | {"reel": upload(output, row, f"{MEDIA}/{row['video_id']}")}

    return run
