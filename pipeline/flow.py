"""The topology: library -> probe -> decode -> look -> gather -> score -> render -> publish.

From the proxies of an archive it is shorter: archive -> look -> score -> publish. Other reels of an archive
(pipeline/recut.py) are one step: their driver publishes them.

Rows stream: the first reel is out while the library is still being read. Decoded pictures cross one
boundary only, decode -> look; full-size frames never leave the render actor.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import DataContext, Dataset

from cluster.plan import Plan
from pipeline.config import Settings
from pipeline.guard import Batches, Guard, Step
from pipeline.progress import Reporter
from pipeline.publish import Publish
from pipeline.steps import Pass, recut_step
from pipeline.suspects import Witness

LISTING_BLOCKS = 256

Guarded = Callable[[Step], Guard]


def results(one_pass: Pass) -> Iterator[pa.Table]:
    """What was published, as rows.PUBLISHED, part by part, on the connected Ray."""
    yield from build(one_pass).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def build(one_pass: Pass) -> Dataset:
    """The whole run as one lazy dataset; consuming it does the work."""
    configure()
    todo, plan, reporter = one_pass.todo, one_pass.plan, one_pass.reporter
    steps = one_pass.steps()
    guarded = partial(Step.guarded, reporter=reporter, witness=one_pass.witness)
    # A block is probed row by row by one task: small blocks, so that many headers are read at once.
    step = math.ceil(len(todo) / LISTING_BLOCKS)
    listing = [todo.slice(start, step) for start in range(0, len(todo), step)]
    ds = ray.data.from_arrow(listing)
    if one_pass.archive:
        ds = ds.repartition(target_num_rows_per_block=1)
        ds = _actors(ds, steps["look"], guarded, plan)
        ds = _actors(ds, steps["score"], guarded, plan)
        return published(ds, one_pass.publish, plan, reporter)
    ds = _tasks(ds, steps["probe"], guarded, plan)
    # Rows made from one input run one after another unless they are spread out again.
    ds = ds.repartition(target_num_rows_per_block=1)
    ds = _tasks(ds, steps["decode"], guarded, plan)
    ds = _actors(ds, steps["look"], guarded, plan)
    # One actor, since only it knows when the last shard of a video has come.
    ds = _actors(ds, steps["gather"], partial(Step.guarded, reporter=reporter), plan)
    ds = _actors(ds, steps["score"], guarded, plan)
    ds = _actors(ds, steps["render"], guarded, plan)
    return published(ds, one_pass.publish, plan, reporter)


def build_recut(
    todo: pa.Table, settings: Settings, output: str, plan: Plan, reporter: Reporter, witness: Witness
) -> Dataset:
    """Other reels of videos of `output`, rendered and uploaded. `todo` has the schema rows.TO_CUT."""
    configure()
    ds = ray.data.from_arrow(todo).repartition(target_num_rows_per_block=1)
    guarded = partial(Step.guarded, reporter=reporter, witness=witness)
    return _actors(ds, recut_step(settings, output, plan.threads), guarded, plan)


def published(ds: Dataset, publish: Publish, plan: Plan, reporter: Reporter) -> Dataset:
    return ds.map_batches(
        _named("publish", Batches("publish", publish, reporter)),
        batch_size=plan.publish_rows,
        batch_format="pyarrow",
        **plan.options("publish"),
    )


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


def _tasks(ds: Dataset, step: Step, guarded: Guarded, plan: Plan) -> Dataset:
    call, options = _named(step.name, guarded(step)), plan.options(step.name)
    return ds.map_batches(call, batch_size=None, batch_format="pyarrow", **options)


def _actors(ds: Dataset, step: Step, guarded: Guarded, plan: Plan) -> Dataset:
    class Pool:
        def __init__(self) -> None:
            self.guard = guarded(step)

        def __call__(self, table: pa.Table) -> Any:
            yield from self.guard(table)

    Pool.__name__ = Pool.__qualname__ = step.name
    options = plan.options(step.name)
    # Ray Data refuses whole blocks for actors with a GPU. Blocks hold one row here: it comes to the same.
    size = 1 if options.get("num_gpus") else None
    return ds.map_batches(Pool, batch_size=size, batch_format="pyarrow", **options)


def _named(name: str, function: Callable) -> Callable:
    """A plain function, as Ray wants one for a task, under the name that its dashboard shows."""

    def call(table: pa.Table) -> Any:
        yield from function(table)

    call.__name__ = call.__qualname__ = name
    return call
