"""A process that dies takes its row with it, not the run."""

import os
import signal
from collections.abc import Iterator

import pyarrow as pa
import ray.data

from cluster.plan import make_plan
from pipeline import flow


class DiesOnThree:
    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        if 3 in table["number"].to_pylist():
            os.kill(os.getpid(), signal.SIGKILL)
        yield table


def test_row_that_kills_its_actor_is_given_up_and_the_others_come_through(ray_local: None) -> None:
    flow.configure()
    blocks = [pa.table({"number": [number]}) for number in range(6)]
    ds = ray.data.from_arrow(blocks)
    ds = ds.map_batches(DiesOnThree, batch_size=None, batch_format="pyarrow", **make_plan(2, 0, 6).actors(1))
    came = {
        number for batch in ds.iter_batches(batch_format="pyarrow") for number in batch["number"].to_pylist()
    }
    # Neighbours that were queued behind it may be lost with it: they are planned again.
    assert {0, 1, 5} <= came
    assert 3 not in came
