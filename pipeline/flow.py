"""The topology: library -> probe -> decode -> look -> gather -> score -> render -> publish.

From the proxies of an archive it is shorter: archive -> look -> score -> publish. Other reels of an archive
(pipeline/recut.py) are one step: their driver publishes them.

Rows stream: the first reel is out while the library is still being read. Decoded pictures cross one
boundary only, decode -> look; full-size frames never leave the render actor.
"""

import logging
import math
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data
import torch
from ray.data import DataContext, Dataset

from cluster.plan import Plan
from pipeline.config import Settings
from pipeline.guard import Batches, Bounds, Guard, Stage
from pipeline.making import make_cut, open_render
from pipeline.progress import Reporter
from pipeline.publish import MEDIA, Publish, upload
from pipeline.recall import Recall
from pipeline.recut import make_recut
from pipeline.rows import CUT, DECODED, GATHERED, LOOKED, RENDERED, SCORED, SHARDS
from pipeline.suspects import Witness
from stages.compress import Compress
from stages.container import keeping_blocks
from stages.decode import decode
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
LISTING_BLOCKS = 256


def build(
    todo: pa.Table,
    settings: Settings,
    plan: Plan,
    publish: Publish,
    reporter: Reporter,
    witness: Witness,
    archive: str | None = None,
) -> Dataset:
    """The whole run as one lazy dataset; consuming it does the work. `todo` has the schema rows.LISTED.

    archive   the OUTPUT of another run, whose proxies are looked at in place of the videos
    """
    configure()
    guard = partial(Guard, reporter=reporter, witness=witness)
    limits = settings.limits
    reading = partial(guard, bounds=Bounds(limits.stall_timeout_s, limits.max_memory_bytes))
    # A large reel takes what it takes.
    rendering = partial(guard, bounds=Bounds(limits.stall_timeout_s))
    # Workers that only decode get no more than they need: the whole settings would import torch there.
    probe_video = partial(probe, limits=limits, shard_s=settings.decode.shard_s)
    decode_shard = partial(decode, settings=settings.decode, limits=limits)
    # A block is probed row by row by one task: small blocks, so that many headers are read at once.
    step = math.ceil(len(todo) / LISTING_BLOCKS)
    listing = [todo.slice(start, step) for start in range(0, len(todo), step)]
    ds = ray.data.from_arrow(listing)
    if archive:
        ds = ds.repartition(target_num_rows_per_block=1)
        look = plan.options("look")
        ds = _actors(ds, "look", make_recall, (settings, archive, plan.threads), GATHERED, guard, look)
        ds = _actors(ds, "score", make_score, (settings,), SCORED, guard, plan.options("score"))
        return published(ds, publish, plan, reporter)
    ds = _tasks(ds, "probe", probe_video, SHARDS, reading, plan.options("probe"))
    # Rows made from one input run one after another unless they are spread out again.
    ds = ds.repartition(target_num_rows_per_block=1)
    ds = _tasks(ds, "decode", decode_shard, DECODED, reading, plan.options("decode"))
    ds = _actors(ds, "look", make_look, (settings, plan.threads), LOOKED, guard, plan.options("look"))
    # One actor, since only it knows when the last shard of a video has come.
    gathering = partial(Guard, reporter=reporter, sees_failures=True)
    coverage = (settings.decode.min_coverage,)
    ds = _actors(ds, "gather", Gather, coverage, GATHERED, gathering, plan.options("gather"))
    ds = _actors(ds, "score", make_score, (settings,), SCORED, guard, plan.options("score"))
    args = (settings, publish.output, plan.threads)
    ds = _actors(ds, "render", make_render, args, RENDERED, rendering, plan.options("render"))
    return published(ds, publish, plan, reporter)


def build_recut(
    todo: pa.Table, settings: Settings, output: str, plan: Plan, reporter: Reporter, witness: Witness
) -> Dataset:
    """Other reels of videos of `output`, rendered and uploaded. `todo` has the schema rows.TO_CUT."""
    configure()
    guard = partial(Guard, reporter=reporter, witness=witness, bounds=Bounds(settings.limits.stall_timeout_s))
    ds = ray.data.from_arrow(todo).repartition(target_num_rows_per_block=1)
    args = (settings, output, plan.threads)
    return _actors(ds, "render", make_recut, args, CUT, guard, plan.options("render"))


def published(ds: Dataset, publish: Publish, plan: Plan, reporter: Reporter) -> Dataset:
    return ds.map_batches(
        _named("publish", Batches("publish", publish, reporter)),
        batch_size=plan.publish_rows,
        batch_format="pyarrow",
        **plan.options("publish"),
    )


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


def configure() -> None:
    """Every knob of Ray Data that the flow relies on; `context_facts` goes into runs/."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # It warns of every pool that is larger than what is left to do.
    warnings.filterwarnings("ignore", module="ray.data")
    # The successor of ray_remote_args has no name yet for the bound on retries.
    warnings.filterwarnings("ignore", message=".*ray_remote_args")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    # Memory is bounded by the sizes of the pools and of the object store; its advice is not for users.
    context.issue_detectors_config.detectors = []
    context.execution_options.preserve_order = False
    # A block that is lost for good is not the end of the run: its videos are planned again.
    context.max_errored_blocks = -1
    # A long reel is rendered in one piece: no news for hours is no sign of a hang.
    context.execution_no_progress_timeout_s = 12 * 3600


def context_facts() -> dict[str, Any]:
    context = DataContext.get_current()
    names = (
        "target_max_block_size",
        "target_min_block_size",
        "max_errored_blocks",
        "execution_no_progress_timeout_s",
        "op_resource_reservation_enabled",
        "op_resource_reservation_ratio",
    )
    return {name: getattr(context, name) for name in names} | {
        "preserve_order": context.execution_options.preserve_order
    }


def _tasks(
    ds: Dataset,
    name: str,
    stage: Stage,
    schema: pa.Schema,
    guard: Callable[..., Guard],
    options: dict[str, Any],
) -> Dataset:
    guarded = guard(name, stage, schema)
    return ds.map_batches(_named(name, guarded), batch_size=None, batch_format="pyarrow", **options)


def _actors(
    ds: Dataset,
    name: str,
    make: Callable[..., Stage],
    args: tuple,
    schema: pa.Schema,
    guard: Callable[..., Guard],
    options: dict[str, Any],
) -> Dataset:
    class Pool:
        def __init__(self) -> None:
            self.guard = guard(name, make(*args), schema)

        def __call__(self, table: pa.Table) -> Any:
            yield from self.guard(table)

    Pool.__name__ = Pool.__qualname__ = name
    # Ray Data refuses whole blocks for actors with a GPU. Blocks hold one row here: it comes to the same.
    size = 1 if options.get("num_gpus") else None
    return ds.map_batches(Pool, batch_size=size, batch_format="pyarrow", **options)


def _named(name: str, function: Callable) -> Callable:
    """A plain function, as Ray wants one for a task, under the name that its dashboard shows."""

    def call(table: pa.Table) -> Any:
        yield from function(table)

    call.__name__ = call.__qualname__ = name
    return call
