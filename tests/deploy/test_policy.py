"""No manifest holds keys, runs as root, drifts from the product's version or calls what is not there."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs.job_file import load_job_file
from tests.deploy import policy
from tests.deploy.manifests import DEPLOY, Tree, changed, kubernetes, one, pods

HEAD = "spec/headGroupSpec/template/spec"
CRON = "spec/jobTemplate/spec/template/spec"
WORKER = "spec/workerGroupSpecs/0/template/spec"


def test_no_file_holds_a_key() -> None:
    files = [file for file in DEPLOY.rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        assert not policy.secrets_in(file.read_text()), file


@pytest.mark.parametrize(
    "text",
    [
        "AWS_ACCESS_KEY_ID: AKIA" + "Q" * 16,
        "AWS_SECRET_ACCESS_KEY=" + "aB3/" * 10,
        "auth_token: " + "0f" * 32,
        "-----BEGIN RSA " + "PRIVATE KEY-----",
    ],
)
def test_a_key_would_be_seen(text: str) -> None:
    assert policy.secrets_in(f"env:\n  {text}\n")


@pytest.mark.parametrize("tree", kubernetes(), ids=lambda tree: tree["kind"])
@pytest.mark.parametrize("rule", [policy.pod_rights, policy.versions, policy.commands, policy.retries])
def test_manifest_keeps_the_rule(rule: Callable[[Tree], list[str]], tree: Tree) -> None:
    assert rule(tree) == []


def test_every_kind_that_makes_pods_was_looked_at() -> None:
    counts = {tree["kind"]: len(list(pods(tree))) for tree in kubernetes()}
    assert (counts["RayCluster"], counts["RayJob"], counts["CronJob"]) == (3, 4, 1)


@pytest.mark.parametrize("rule", [policy.autoscaler_rights, policy.cluster_shape])
def test_cluster_keeps_the_rule(rule: Callable[[Tree], list[str]]) -> None:
    assert rule(one("RayCluster", kubernetes())) == []


def test_ports_names_and_labels_agree() -> None:
    assert policy.ports(kubernetes()) == []


@pytest.mark.parametrize(
    ("rule", "kind", "path", "value"),
    [
        (policy.pod_rights, "RayCluster", f"{HEAD}/securityContext/runAsNonRoot", False),
        (policy.pod_rights, "RayCluster", f"{HEAD}/securityContext/runAsUser", 0),
        (policy.pod_rights, "RayCluster", f"{WORKER}/securityContext", None),
        (policy.pod_rights, "RayCluster", f"{WORKER}/containers/0/securityContext/privileged", True),
        (policy.pod_rights, "RayCluster", f"{WORKER}/containers/0/resources/limits/memory", "64Gi"),
        (policy.pod_rights, "RayCluster", f"{WORKER}/containers/0/resources/requests/cpu", None),
        (policy.pod_rights, "RayCluster", f"{HEAD}/volumes/0", {"name": "tmp", "hostPath": {"path": "/"}}),
        (policy.pod_rights, "RayJob", "spec/submitterPodTemplate/spec/automountServiceAccountToken", True),
        (policy.pod_rights, "CronJob", f"{CRON}/hostNetwork", True),
        (policy.pod_rights, "CronJob", f"{CRON}/serviceAccountName", None),
        (policy.pod_rights, "CronJob", f"{CRON}/containers/0/securityContext/capabilities/drop", ["NET_RAW"]),
        (
            policy.versions,
            "RayCluster",
            f"{HEAD}/containers/0/image",
            "registry.example.com/reelmap:0.0.1-cpu",
        ),
        (policy.versions, "RayCluster", f"{HEAD}/containers/0/image", "registry.example.com/reelmap"),
        (policy.versions, "CronJob", f"{CRON}/containers/0/image", "docker.io/library/python:latest"),
        (policy.versions, "RayCluster", "spec/rayVersion", "2.9.0"),
        (policy.commands, "RayJob", "spec/entrypoint", "reelmap archiv /config/archive.yaml"),
        (policy.commands, "RayJob", "spec/entrypoint", "reelmap archive"),
        (policy.retries, "CronJob", "spec/jobTemplate/spec/backoffLimit", 1),
        (policy.retries, "RayJob", "spec/backoffLimit", None),
        (policy.commands, "CronJob", f"{CRON}/containers/0/args/3", "--follows"),
        (policy.commands, "CronJob", f"{CRON}/containers/0/args/2", None),
        (policy.autoscaler_rights, "RayCluster", "spec/autoscalerOptions/volumeMounts/1", None),
        (
            policy.autoscaler_rights,
            "RayCluster",
            f"{HEAD}/containers/0/volumeMounts/0/name",
            "autoscaler-token",
        ),
        (policy.cluster_shape, "RayCluster", "spec/authOptions", None),
        (policy.cluster_shape, "RayCluster", "spec/headGroupSpec/rayStartParams/num-cpus", "2"),
        (policy.cluster_shape, "RayCluster", "spec/workerGroupSpecs/0/maxReplicas", 0),
        (policy.cluster_shape, "RayCluster", "spec/workerGroupSpecs/1/minReplicas", 3),
        (policy.cluster_shape, "RayCluster", f"{WORKER}/containers/0/image", "reelmap:0.1.0-cuda"),
    ],
)
def test_breach_is_found(rule: Callable[[Tree], list[str]], kind: str, path: str, value: Any) -> None:
    tree = one(kind, kubernetes())
    assert rule(tree) == []
    assert rule(changed(tree, path, value))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayCluster", f"{HEAD}/containers/0/readinessProbe/httpGet/port", 8266),
        ("RayCluster", f"{WORKER}/containers/0/livenessProbe/httpGet/port", 8265),
        ("RayCluster", f"{WORKER}/containers/0/readinessProbe", None),
        ("RayCluster", f"{WORKER}/containers/0/volumeMounts/0/name", "scratch"),
        ("RayCluster", f"{HEAD}/containers/0/ports/1/containerPort", 8266),
        ("RayCluster", "metadata/name", "other"),
        ("RayCluster", f"{HEAD}/serviceAccountName", "other"),
        ("CronJob", f"{CRON}/containers/0/args/2", "--address=http://reelmap:8265"),
        ("CronJob", f"{CRON}/containers/0/env/1/valueFrom/secretKeyRef/name", "other"),
        ("CronJob", f"{CRON}/containers/0/args/2", "--address=http://reelmap-head-svc:6380"),
    ],
)
def test_ports_that_do_not_agree_are_found(kind: str, path: str, value: Any) -> None:
    trees = [tree for tree in kubernetes() if tree["kind"] != kind]
    assert policy.ports([*trees, changed(one(kind, kubernetes()), path, value)])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/podSelector/matchLabels", {"app.kubernetes.io/component": "nobody"}),
        ("spec/ingress/0/ports/0/port", 8266),
    ],
)
def test_network_rule_for_nothing_is_found(path: str, value: Any) -> None:
    trees = kubernetes()
    rule = one("NetworkPolicy", trees, "reelmap-head")
    assert policy.ports([changed(rule, path, value) if tree == rule else tree for tree in trees])


def reelmap_calls(lines: list[str]) -> list[list[str]]:
    """The arguments of every `reelmap` in shell commands, also of one in a container of compose."""
    words = [line.removeprefix("docker compose exec head ").split() for line in lines]
    return [line[1:] for line in words if line[0] == "reelmap"]


def test_readme_calls_what_is_there() -> None:
    lines = policy.shell_lines(DEPLOY / "README.md")
    calls = reelmap_calls(lines)
    assert len(calls) >= 3
    assert [policy.command_fault(call) for call in calls] == [""] * len(calls)
    assert policy.command_fault(["submit", "archive.yaml", "--adress", "http://127.0.0.1:8265"])
    for file in (word for line in lines for word in line.split() if word.startswith("deploy/")):
        assert (DEPLOY.parent / file).exists(), file


@pytest.mark.parametrize("place", ["archive.yaml", "kubernetes/archive.yaml", "aws/archive.yaml"])
def test_job_file_is_one(place: str) -> None:
    job = load_job_file(str(DEPLOY / place))
    assert job.source.startswith("s3://")
    assert job.output.startswith("s3://")
    assert job.archive.until == "06:00"
    # Where workers start from none, a run that asks for nothing has nothing to plan with.
    assert bool(job.settings.pools.cpus) == ("/" in place)
