"""What each stage of a run is made of, whoever runs it: Ray's operators (flow.py) or processes (here.py)."""

from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from cluster.plan import Plan
from pipeline.config import Settings
from pipeline.guard import Bounds, Stage, Step
from pipeline.progress import Reporter
from pipeline.publish import Publish
from pipeline.rows import CUT, DECODED, GATHERED, LOOKED, RENDERED, SCORED, SHARDS
from pipeline.suspects import DriverWitness, Witness
from stages.container import LimitSettings
from stages.decode import DecodeSettings, decode
from stages.gather import Gather
from stages.probe import probe

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


# What holds models is imported where it runs: a driver does without torch.


def make_recall(settings: Settings, archive: str, threads: int) -> Stage:
    from pipeline import making

    return making.make_recall(settings, archive, threads)


def make_look(settings: Settings, threads: int) -> Stage:
    from pipeline import making

    return making.make_look(settings, threads)


def make_score(settings: Settings) -> Stage:
    from pipeline import making

    return making.make_score(settings)


def make_render(settings: Settings, output: str, threads: int) -> Stage:
    from pipeline import making

    return making.make_render(settings, output, threads)


def make_recut(settings: Settings, output: str, threads: int) -> Stage:
    from pipeline import recut

    return recut.make_recut(settings, output, threads)
