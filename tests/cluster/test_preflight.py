"""What stops a run is refused before any work: all of it at once, with where it was found and what to do."""

import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
import ray

from cluster import preflight
from cluster.plan import make_plan
from cluster.preflight import (
    ClusterUnfit,
    Findings,
    Scratch,
    check_cluster,
    differences,
    judge,
    make_look,
    report,
)

VERSIONS = {
    **{
        "ray": "2.60.0",
        "reelmap": "0.1.0",
        "python": "3.11.9",
        "torch": "2.15.0+cpu",
        "torchvision": "0.29.0",
    },
    **{"av": "18.1.0", "numpy": "2.4.0", "pyarrow": "26.0.0"},
}


def having(monkeypatch: pytest.MonkeyPatch, resources: dict[str, float]) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)


def view(free_bytes: int = 10**12, problems: tuple[str, ...] = (), **versions: str | None) -> dict:
    """What a node says that it sees."""
    return {
        "versions": VERSIONS | versions,
        "scratch": "/tmp",
        "free_bytes": free_bytes,
        "problems": list(problems),
    }


@pytest.mark.parametrize("gpus", [0, 2])
def test_a_cluster_that_has_what_the_plan_wants_is_taken(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    plan = make_plan(8, gpus, 100)
    having(monkeypatch, {name: wanted for name, wanted in plan.demand().items() if wanted})
    assert check_cluster(plan) == []


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"CPU": 1.0, "GPU": 2.0}, ("CPU", "has 1", "--num-cpus")),
        ({"CPU": 64.0, "GPU": 1.0}, ("2 GPU", "has 1", "--num-gpus")),
        ({"CPU": 64.0}, ("2 GPU", "has 0", "--num-gpus")),
        ({}, ("CPU", "has 0", "--num-cpus", "2 GPU", "--num-gpus")),
    ],
)
def test_what_is_missing_and_what_to_do_is_said(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], words: tuple[str, ...]
) -> None:
    having(monkeypatch, resources)
    with pytest.raises(ClusterUnfit) as raised:
        check_cluster(make_plan(8, 2, 100))
    assert all(word in str(raised.value) for word in words), raised.value


def test_many_gpus_behind_few_cpus_are_refused_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, {"CPU": 2.0, "GPU": 16.0})
    assert make_plan(16, 16, 100).demand()["GPU"] == 16
    with pytest.raises(ClusterUnfit, match="CPU"):
        check_cluster(make_plan(16, 16, 100))


def test_everything_that_is_wrong_is_said_at_once_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {
        "10.0.0.2": view(free_bytes=10**9),
        "10.0.0.3": view(problems=("cannot write s3://b/out: no permission",), av="17.0.0"),
        "10.0.0.4": view(problems=("cannot write s3://b/out: no permission",), torch="2.14.1"),
    }
    monkeypatch.setattr(preflight, "look_from_nodes", lambda *_: seen)
    monkeypatch.setattr(preflight, "make_look", lambda: lambda *_: view())
    having(monkeypatch, {"CPU": 1.0})
    with pytest.raises(ClusterUnfit) as raised:
        check_cluster(make_plan(8, 0, 100), Scratch(5 * 10**9, 5 * 10**9), probes=[])
    said = str(raised.value).splitlines()
    assert said[0] == "4 things stop this run:"
    assert "the plan wants" in said[1]
    assert said[2].startswith("  - on 10.0.0.2: /tmp has 1.00 GB free, one reel may need 5.00 GB: make room")
    assert said[3] == "  - on 2 of 3 nodes (10.0.0.3, 10.0.0.4): cannot write s3://b/out: no permission"
    assert "on 10.0.0.3: av is 17.0.0, the driver has 18.1.0" in said[4]


def test_what_stops_nothing_is_only_said(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {"10.0.0.2": view(torch="2.14.1"), "10.0.0.3": view(torch="2.14.1")}
    monkeypatch.setattr(preflight, "look_from_nodes", lambda *_: seen)
    monkeypatch.setattr(preflight, "make_look", lambda: lambda *_: view())
    having(monkeypatch, {"CPU": 64.0})
    (remark,) = check_cluster(make_plan(8, 0, 100), probes=[])
    assert remark.startswith(
        "on all 2 nodes (10.0.0.2, 10.0.0.3): torch is 2.14.1, the driver has 2.15.0+cpu"
    )


@pytest.mark.parametrize(
    ("theirs", "stops", "words"),
    [
        ({"ray": "2.60.1"}, True, "Ray is 2.60.1, the driver has 2.60.0"),
        ({"python": "3.12.9"}, True, "Python is 3.12.9"),
        ({"python": "3.11.4"}, False, ""),
        ({"torch": "2.15.0+cu126"}, False, ""),
        ({"torch": "2.15.1"}, False, ""),
        ({"av": "18.0.2"}, False, "av is 18.0.2"),
        ({"numpy": "1.26.4"}, True, "numpy is 1.26.4"),
        ({"pyarrow": None}, True, "pyarrow is not installed"),
    ],
)
def test_versions_that_cannot_work_together_stop_a_run(
    theirs: dict[str, str | None], stops: bool, words: str
) -> None:
    problems, remarks = differences(VERSIONS, VERSIONS | theirs)
    assert [words in text for text in (problems if stops else remarks)] == [True] * bool(words)
    assert not (remarks if stops else problems)


def test_many_nodes_with_one_trouble_are_one_line() -> None:
    findings = Findings()
    for number in range(1000):
        judge(f"10.0.0.{number}", view(), view(problems=("the bucket does not exist",)), Scratch(), findings)
    said = report(findings.problems, 1000)
    assert said == "on all 1000 nodes (10.0.0.0, 10.0.0.1, 10.0.0.2, …): the bucket does not exist"


def test_a_full_disk_stops_a_run_on_this_machine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**6, 10**6))
    having(monkeypatch, {"CPU": 64.0})
    with pytest.raises(ClusterUnfit, match=r"this machine.*TMPDIR"):
        check_cluster(make_plan(8, 0, 100), Scratch(10**9, 10**9))


@pytest.mark.parametrize(
    ("free_bytes", "problems", "remarks"), [(10**9, 1, 0), (10**10, 0, 1), (10**11, 0, 0)]
)
def test_a_disk_that_holds_a_reel_but_not_the_largest_at_once_stops_nothing(
    free_bytes: int, problems: int, remarks: int
) -> None:
    findings = Findings()
    judge("10.0.0.2", view(), view(free_bytes), Scratch(5 * 10**9, 5 * 10**10), findings)
    assert (len(findings.problems), len(findings.remarks)) == (problems, remarks)


def test_a_node_without_reelmap_can_be_looked_at_and_says_that_it_has_none() -> None:
    """In a process of its own that cannot import any of our packages, as on a node with Ray alone."""
    script = """
import sys, importlib.abc
class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cluster", "jobs", "pipeline", "stages", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Without())
import pickle
look, probes = pickle.load(sys.stdin.buffer)
print(look(("numpy", "no-such-package"), probes))
"""
    probes = ray.cloudpickle.dumps([check_cluster])
    packed = ray.cloudpickle.dumps((make_look(), probes))
    done = subprocess.run([sys.executable, "-c", script], input=packed, capture_output=True, check=False)
    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "reelmap cannot be loaded" in said
    assert "--working-dir" in said
    assert "'no-such-package': None" in said


def test_what_a_probe_finds_on_a_node_is_said_with_its_address(ray_local: None) -> None:
    def fails() -> str:
        return "cannot read s3://b/in: it does not exist"

    with pytest.raises(ClusterUnfit, match=r"on 127.0.0.1: cannot read s3://b/in"):
        check_cluster(make_plan(2, 0, 1), probes=[lambda: None, fails])
    assert check_cluster(make_plan(2, 0, 1), probes=[lambda: None]) == []


def test_a_probe_that_breaks_is_a_problem_of_its_node_and_no_crash(ray_local: None) -> None:
    with pytest.raises(ClusterUnfit, match=r"on 127.0.0.1: a task cannot run: .*division by zero"):
        check_cluster(make_plan(2, 0, 1), probes=[lambda: str(1 / 0)])
