"""A cluster that is too small is refused before any work, and the words say what is missing."""

import pytest
import ray

from cluster.plan import make_plan
from cluster.preflight import ClusterTooSmall, check_cluster


def having(monkeypatch: pytest.MonkeyPatch, resources: dict[str, float]) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)


@pytest.mark.parametrize("gpus", [0, 2])
def test_a_cluster_that_has_what_the_plan_wants_is_taken(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    plan = make_plan(8, gpus, 100)
    having(monkeypatch, {name: wanted for name, wanted in plan.demand().items() if wanted})
    check_cluster(plan)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"CPU": 1.0, "GPU": 2.0}, ("CPU", "has 1", "--num-cpus")),
        ({"CPU": 64.0, "GPU": 1.0}, ("2 GPU", "has 1", "--num-gpus")),
        ({"CPU": 64.0}, ("2 GPU", "has 0", "--num-gpus")),
        ({}, ("CPU", "has 0", "--num-cpus")),
    ],
)
def test_what_is_missing_and_what_to_do_is_said(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], words: tuple[str, ...]
) -> None:
    having(monkeypatch, resources)
    with pytest.raises(ClusterTooSmall) as raised:
        check_cluster(make_plan(8, 2, 100))
    assert all(word in str(raised.value) for word in words), raised.value


def test_many_gpus_behind_few_cpus_are_refused_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, {"CPU": 2.0, "GPU": 16.0})
    with pytest.raises(ClusterTooSmall, match="CPU"):
        check_cluster(make_plan(2, 16, 100))
