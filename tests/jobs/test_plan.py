"""`--plan` says what would be, in a table, and does nothing; sizes that do not fit stop a run at once."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from cluster.plan import PlanError, PoolSettings
from cluster.resources import Node, Resources, machine
from cluster.speeds import CPU, Cost, write
from jobs import highlights as job
from jobs.highlights import COULD_NOT_START, DONE, Options, highlights
from jobs.plan import footage_of
from pipeline.config import Settings
from stages.nn.weights import open_bundle
from tests.media import make_video

NODE = Node(16.0, 45 << 30, 19 << 30, gpus=1, gpu_bytes=80 << 30)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    for number in range(2):
        make_video(folder / f"{number}.mp4", seconds=3, fps=12)
    monkeypatch.setattr("cluster.speeds.default_file", lambda: tmp_path / "speeds.yaml")
    monkeypatch.setattr(job, "connection", lambda _: nullcontext())
    monkeypatch.setattr(job, "check_models", lambda *_: None)
    monkeypatch.setattr("jobs.plan.connected", lambda _: machine(8))
    return folder


def plan(library: Path, *assignments: str, address: str | None = None) -> int:
    output, wanted = str(library.parent / "output"), ("run.engine=ray", *assignments)
    return highlights(Options(str(library), output, assignments=wanted, address=address, plan=True))


def test_it_prints_every_pool_and_stops(library: Path, capfd: pytest.CaptureFixture) -> None:
    assert plan(library) == DONE
    said = capfd.readouterr().err
    assert not (library.parent / "output").exists()
    assert "this machine: 8 cores, no GPU" in said
    assert "2 videos, 0.00 hours" in said
    for name in ("probe", "decode", "look", "gather", "score", "render", "publish"):
        assert f"\n{name} " in said
    assert "shipped defaults" in said
    assert "video-hours per hour" in said
    assert "nothing was done (--plan)" in said


def test_of_a_cluster_it_says_its_nodes_and_how_busy_its_gpus_are(
    library: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.plan.connected", lambda _: Resources((NODE,) * 3, 48.0))
    assert plan(library, address="head:6379") == DONE
    said = capfd.readouterr().err
    assert "3 nodes: 48 cores, 3 GPUs" in said
    assert "GPUs busy" in said


def test_of_a_small_machine_it_says_what_is_short(
    library: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.plan.connected", lambda _: machine(2, memory_gib=3))
    assert plan(library) == DONE
    assert "the machine has 2.4 for them" in capfd.readouterr().err


def test_it_says_what_bounds_the_run_by_the_speeds_that_were_tuned(
    library: Path, capfd: pytest.CaptureFixture
) -> None:
    write(CPU.model_copy(update={"score": Cost(cpu_s=0.0, wait_s=100.0)}), library.parent / "speeds.yaml")
    assert plan(library, "pools.score=1") == DONE
    said = capfd.readouterr().err.replace("\n", " ")
    assert "held up by the pool score" in said
    assert "measured by `reelmap tune`" in said


def test_sizes_that_do_not_fit_stop_a_run_before_its_work(
    library: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.plan.connected", lambda _: machine(8, 1))
    output = str(library.parent / "output")
    asked = ("pools.look=2", "pools.gpu=0.5")
    assert highlights(Options(str(library), output, assignments=asked)) == COULD_NOT_START
    said = capfd.readouterr().err
    assert (
        "pools.look wants 1 GPUs, the cluster has 0.5 of 1 left by the other pools: set pools.look to 1"
        in said
    )
    assert not list(Path(output).glob("videos/*"))


def test_nodes_come_before_the_plan_and_are_given_back_after_the_run(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[object] = []

    @contextmanager
    def room(_address: str | None, pools: PoolSettings, _say: object) -> Iterator[None]:
        order.append(pools.cpus)
        try:
            yield
        finally:
            order.append("given back")

    def refused(*_: object) -> None:
        order.append("plan")
        raise PlanError("too small")

    monkeypatch.setattr(job, "room", room)
    monkeypatch.setattr(job, "plan_job", refused)
    output = str(library.parent / "output")
    assert highlights(Options(str(library), output, assignments=("pools.cpus=8",))) == COULD_NOT_START
    assert order == [8, "plan", "given back"]


def test_footage_is_known_from_a_few_headers(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job.prepare(Options(str(library), str(library.parent / "output"), plan=True))
    assert footage_of(made, 8) == pytest.approx(6.0, abs=0.3)
    assert footage_of(made, 1) == pytest.approx(6.0, abs=0.5)
    (library / "0.mp4").write_bytes(b"no video")
    assert footage_of(made, 8) == pytest.approx(6.0, abs=0.5)
    (library / "1.mp4").write_bytes(b"no video")
    assert footage_of(made, 8) is None


def test_sizes_do_not_change_the_result() -> None:
    bundle = open_bundle(None)
    assert Settings(pools={"look": 2}).key(bundle) == Settings().key(bundle)


def test_without_ray_it_says_so(library: Path, capfd: pytest.CaptureFixture) -> None:
    assert plan(library, "run.engine=processes") == DONE
    said = capfd.readouterr().err
    assert "processes, each of which does all stages, and no Ray (run.engine)" in said
    assert "nothing was done (--plan)" in said
    assert plan(library, "run.engine=processes", "pools.decode=2") == COULD_NOT_START
    assert "pools.decode is of a Ray" in capfd.readouterr().err
