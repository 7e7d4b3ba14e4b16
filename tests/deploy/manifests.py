"""What the tests of deploy/ share: the manifests as trees, their schemas, their pods, and changed copies.

The schemas in schemas/ were written down from the API references of the versions named in them; objects in
them admit no other keys, so that a misspelt one fails instead of being ignored by the cluster.
"""

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
SCHEMAS = {file.name: json.loads(file.read_text()) for file in (Path(__file__).parent / "schemas").glob("*")}
REGISTRY = Registry().with_resources((name, Resource.from_contents(tree)) for name, tree in SCHEMAS.items())
KINDS = {
    ("v1", "Namespace"): "core.json#/$defs/namespace",
    ("v1", "ServiceAccount"): "core.json#/$defs/serviceAccount",
    ("batch/v1", "CronJob"): "batch.json#/$defs/cronJob",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networking.json#/$defs/networkPolicy",
    ("ray.io/v1", "RayCluster"): "kuberay.json#/$defs/rayCluster",
    ("ray.io/v1", "RayJob"): "kuberay.json#/$defs/rayJob",
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"): "kustomization.json#/$defs/kustomization",
}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

Tree = dict[str, Any]


class NoCopies(yaml.SafeLoader):
    """YAML as Kubernetes reads it: of a key that is there twice the first one would vanish in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ValidationError(f"{sorted(twice)} twice in one mapping, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def read(path: Path) -> list[Tree]:
    """The documents of a YAML file, no two parts of which are one object in memory."""
    return [_unshared(tree) for tree in yaml.load_all(path.read_text(), NoCopies)]


def kubernetes_files() -> list[Path]:
    """archive.yaml is a job of reelmap's, not an object of Kubernetes."""
    return sorted(file for file in (DEPLOY / "kubernetes").glob("*.yaml") if file.name != "archive.yaml")


def kubernetes() -> list[Tree]:
    return [tree for file in kubernetes_files() for tree in read(file)]


def one(kind: str, trees: list[Tree], name: str | None = None) -> Tree:
    found = [
        tree
        for tree in trees
        if tree["kind"] == kind and (name is None or tree["metadata"].get("name") == name)
    ]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}, name {name}"
    return found[0]


def check(tree: Tree) -> None:
    """Raises ValidationError where a Kubernetes object is not as its schema says."""
    known = (tree.get("apiVersion"), tree.get("kind"))
    if known not in KINDS:
        raise ValidationError(f"no schema for {known}")
    check_against(KINDS[known], tree)


def check_against(reference: str, tree: Tree) -> None:
    Draft202012Validator({"$ref": reference}, registry=REGISTRY).validate(tree)


def pods(tree: Tree) -> Iterator[tuple[str, Tree]]:
    """(where, pod template) of every pod that an object makes."""
    for path, part in walk(tree):
        if isinstance(part, dict) and isinstance(part.get("spec"), dict) and "containers" in part["spec"]:
            yield path, part


def walk(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every part of a tree with its place: spec.template.spec.containers.0.image."""
    yield path, part
    if isinstance(part, (dict, list)):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from walk(value, f"{path}.{key}".lstrip("."))


def changed(tree: Tree, path: str, value: Any = None) -> Tree:
    """A copy in which the part at `path` is `value`; None: it is gone."""
    result = copy.deepcopy(tree)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    part: Any = result
    for key in parents:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return result


def ray_pin() -> str:
    """The version of Ray in the constraints file."""
    return re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def _unshared(part: Any) -> Any:
    """Anchors make one object of several places: a change in one would be a change in all."""
    if isinstance(part, dict):
        return {key: _unshared(value) for key, value in part.items()}
    return [_unshared(value) for value in part] if isinstance(part, list) else part
