"""An OUTPUT as a run leaves it, made in this process by the stages of the flow: no Ray."""

from pathlib import Path

import pyarrow as pa

from pipeline.config import Settings
from pipeline.library import list_library
from pipeline.publish import Publish
from pipeline.rows import GATHERED, RENDERED, SCORED, to_table
from pipeline.steps import make_look, make_render, make_score
from stages.decode import decode
from stages.gather import Gather
from stages.nn.kinds import width
from stages.nn.weights import open_bundle
from stages.probe import probe

RUN_ID = "20260501T120000Z-abcdef"


def analyse(library: str | Path, output: str | Path, settings: Settings, render: bool = False) -> None:
    """Every video of the library, which must all be good ones; each as a part of its own.

    render   also the reels of the run; without, as after a run from proxies
    """
    library, output, bundle = str(library), str(output), open_bundle(settings.bundle)
    look, score, gather = make_look(settings, 1), make_score(settings), Gather(settings.decode.min_coverage)
    publish = Publish(output, RUN_ID, settings.key(bundle), ("none", ""), width(bundle, "compact"))
    rendering = make_render(settings, output, 1) if render else None
    for video in list_library(library, output=output).to_pylist():
        row = video | {"settings_key": settings.key(bundle), "failure": None}
        for shard in probe(row, settings.limits, settings.decode.shard_s):
            whole = gather(look(decode(shard, settings.decode, settings.limits)))
        scored = score(through(whole, GATHERED))
        row = rendering(through(scored, SCORED)) if rendering else scored
        list(publish(to_table([row], RENDERED)))


def through(row: dict, schema: pa.Schema) -> dict:
    """What of a row crosses the boundary of an operator."""
    return {name: row.get(name) for name in schema.names}
