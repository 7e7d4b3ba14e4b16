"""A process that dies takes its row with it, not the run and not its neighbours."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import ray.data

from cluster.plan import Plan, make_plan
from jobs.highlights import SOME_FAILED, Options, highlights
from pipeline import flow, tables
from pipeline.config import Settings
from pipeline.guard import Bounds, Step
from pipeline.rows import LISTED, from_table, to_table
from pipeline.steps import steps_of
from pipeline.suspects import Witness, open_witness
from tests.media import make_video
from tests.poison import DEADLY, DiesOnThree, Silent, dies_of_poison, make_poisoned

VIDEOS = 8


@pytest.mark.slow
def test_row_that_kills_its_actor_is_given_up_and_the_others_come_through(ray_local: None) -> None:
    flow.configure()
    blocks = [pa.table({"number": [number]}) for number in range(6)]
    ds = ray.data.from_arrow(blocks)
    options = make_plan(2, 0, 6).options("render") | {"max_task_retries": 2}
    ds = ds.map_batches(DiesOnThree, batch_size=None, batch_format="pyarrow", **options)
    came = {
        number for batch in ds.iter_batches(batch_format="pyarrow") for number in batch["number"].to_pylist()
    }
    # Neighbours that were queued behind it may be lost with it: they are planned again.
    assert {0, 1, 5} <= came
    assert 3 not in came


def attempt(video_ids: list[str], witness: Witness, plan: Plan, actors: bool) -> dict[str, dict]:
    """One pass of a stage that poison kills, two videos to a block; the rows that came out of it."""
    rows = [{"video_id": video_id, "uri": video_id} for video_id in video_ids]
    ds = ray.data.from_arrow([to_table(rows[at : at + 2], LISTED) for at in range(0, len(rows), 2)])
    guarded = partial(Step.guarded, reporter=Silent(), witness=witness)
    name, operator = ("render", flow._actors) if actors else ("decode", flow._tasks)
    step = Step(name, lambda: dies_of_poison, (), LISTED, Bounds(stall_timeout_s=60.0))
    ds = operator(ds, step, guarded, plan)
    batches = ds.iter_batches(batch_size=None, batch_format="pyarrow")
    return {row["video_id"]: row for batch in batches for row in from_table(batch)}


@pytest.mark.parametrize("actors", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_poison_is_set_aside_and_convicted_alone_while_every_neighbour_comes_through(
    actors: bool, ray_local: None
) -> None:
    flow.configure()
    witness, plan = open_witness(), make_plan(2, 0, VIDEOS)
    everyone = [str(number) for number in range(VIDEOS)]
    came = attempt(everyone, witness, plan, actors)
    assert came.keys() == set(everyone) - DEADLY
    assert not [row for row in came.values() if row["failure"]]
    assert witness.suspects(everyone) == DEADLY
    witness.try_alone()
    convicted = attempt(sorted(DEADLY), witness, plan.alone(), actors)
    assert convicted.keys() == DEADLY
    for row in convicted.values():
        assert "its worker died" in row["failure"]["reason"]


def poisoned_steps(settings: Settings, output: str, threads: int) -> dict[str, Step]:
    known = steps_of(settings, output, threads)
    return known | {"decode": replace(known["decode"], make=make_poisoned)}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "processes"])
def test_whole_run_with_poison_harms_no_innocent(
    engine: str, tmp_path: Path, bundle: str, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for name in ("a.mp4", "b-crash-1.mp4", "c.mp4", "d-hang-1.mp4", "e-memory-1.mp4", "f.mp4"):
        make_video(library / name, seconds=3)
    monkeypatch.setattr("pipeline.steps.steps_of", poisoned_steps)
    limits = (("limits.stall_timeout_s", 20.0), ("limits.max_memory_bytes", 1 << 30))
    flags = (
        ("bundle", bundle),
        ("cut.target", "2s"),
        ("run.engine", engine),
        ("saliency.enabled", False),
        *limits,
    )
    output = str(tmp_path / "output")
    assert highlights(Options(str(library), output, flags=flags)) == SOME_FAILED
    status = {Path(row["uri"]).name[0]: row["status"] for row in tables.read(output, "videos").to_pylist()}
    assert status == dict.fromkeys("acf", "ok") | dict.fromkeys("bde", "failed")
    reasons = {Path(r["uri"]).name[0]: r["reason"] for r in tables.read(output, "failures").to_pylist()}
    assert "died" in reasons["b"]
    assert "hung for limits.stall_timeout_s = 20" in reasons["d"]
    assert "limits.max_memory_bytes" in reasons["e"]
