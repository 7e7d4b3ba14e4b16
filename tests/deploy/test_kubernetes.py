"""Every Kubernetes manifest is as its API says, and a slip in any of them is found."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.deploy.manifests import (
    DEPLOY,
    SCHEMAS,
    changed,
    check,
    kubernetes,
    kubernetes_files,
    one,
    read,
    walk,
)


@pytest.mark.parametrize("file", kubernetes_files(), ids=lambda file: file.name)
def test_manifest_is_as_its_schema_says(file: Path) -> None:
    documents = read(file)
    assert documents
    for tree in documents:
        check(tree)


HEAD = "spec/headGroupSpec/template/spec"
POD = "spec/jobTemplate/spec/template/spec"


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayCluster", "spec/enableInTreeAutoscalling", True),
        ("RayCluster", "spec/authOptions/mode", "tokn"),
        ("RayCluster", "spec/rayVersion", 2.6),
        ("RayCluster", "spec/headGroupSpec/rayStartParams/num-cpus", 0),  # KubeRay wants text
        ("RayCluster", "spec/workerGroupSpecs/1/maxReplica", 8),
        ("RayCluster", "spec/workerGroupSpecs/0/minReplicas", -1),
        ("RayCluster", f"{HEAD}/containers/0/securityContext/runAsNonroot", True),
        ("RayCluster", f"{HEAD}/containers/0/livenessProbe/httpGet/port", 99999),
        ("RayCluster", f"{HEAD}/containers/0/resources/limits/memory", "8 GB"),
        ("RayCluster", f"{HEAD}/containers/0/resources/limits/nvidia.com~gpu", "1"),
        ("RayCluster", f"{HEAD}/volumes/0/emptydir", {}),
        ("RayJob", "spec/submissionMode", "K8SJobMode"),
        ("RayJob", "spec/entrypoint", None),
        ("RayJob", "spec/rayClusterSpec", None),
        ("RayJob", "spec/rayClusterSpec/headGroupSpec", None),
        ("RayJob", "spec/submitterPodTemplate/spec/containers/0/image", None),
        ("CronJob", "spec/schedule", "every night"),
        ("CronJob", "spec/concurrencyPolicy", "forbid"),
        ("CronJob", f"{POD}/restartPolicy", "Always"),
        ("CronJob", f"{POD}/restartPolicy", None),
        ("CronJob", f"{POD}/containers/0/env/1/valueFrom/secretKeyRef/key", None),
        ("Namespace", "metadata/name", "Reelmap"),
        ("Namespace", "apiVersion", "v2"),
        ("Kustomization", "resource", []),
    ],
)
def test_slip_is_found(kind: str, path: str, value: Any) -> None:
    tree = one(kind, kubernetes())
    check(tree)
    with pytest.raises(ValidationError):
        check(changed(tree, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/egress/2/to/0/ipBlock/cidr", "0.0.0.0"),
        ("spec/egress/2/to/0/ipBlock/exept", []),
        ("spec/policyTypes/0", "ingress"),
        ("spec/podSelector", None),
    ],
)
def test_slip_in_a_network_policy_is_found(path: str, value: Any) -> None:
    tree = one("NetworkPolicy", kubernetes(), "reelmap")
    check(tree)
    with pytest.raises(ValidationError):
        check(changed(tree, path, value))


def test_key_that_is_there_twice_is_found(tmp_path: Path) -> None:
    text = (DEPLOY / "kubernetes" / "namespace.yaml").read_text()
    (tmp_path / "twice.yaml").write_text(f"{text}kind: Namespace\n")
    with pytest.raises(ValidationError, match="twice"):
        read(tmp_path / "twice.yaml")


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_admit_no_key_that_they_do_not_name(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    for path, part in walk(SCHEMAS[name]):
        if isinstance(part, dict) and part.get("type") == "object":
            assert "additionalProperties" in part, f"{name}: {path}"


def test_kustomization_names_every_manifest_but_the_single_run() -> None:
    tree = read(DEPLOY / "kubernetes" / "kustomization.yaml")[0]
    files = {file.name for file in kubernetes_files()} - {"kustomization.yaml", "rayjob.yaml"}
    assert set(tree["resources"]) == files
    made = tree["configMapGenerator"][0]
    assert all((DEPLOY / "kubernetes" / name).exists() for name in made["files"])


def test_cluster_of_a_single_run_is_the_standing_one() -> None:
    trees = kubernetes()
    assert one("RayJob", trees)["spec"]["rayClusterSpec"] == one("RayCluster", trees)["spec"]
