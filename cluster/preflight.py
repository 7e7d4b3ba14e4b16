"""What would stop a run on this cluster: all of it said at once, before any work is done.

A task on every node looks from there: versions, scratch space, and what the job asks it to try (the storage,
the model bundle). Nodes without CPUs, such as a head that only schedules, do no work and are left out.
"""

import importlib.metadata
import pickle
import platform
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.plan import Plan

ANSWER_S = 180  # a worker has to start and to import torch, on all nodes at once
NODES_NAMED = 3
# Interfaces that we call change with the major version, and so may what comes out (PyAV carries the decoders;
# NumPy 2 writes pickles that NumPy 1 cannot read): those are refused. Minor versions were seen to change last
# digits at most, and a cluster being upgraded node by node goes on working: those are only said.
LIBRARIES = ("torch", "torchvision", "av", "numpy", "pyarrow")

Probe = Callable[[], str | None]  # tries something where it is called; what is wrong and what to do, or None


class ClusterUnfit(Exception):
    """The message says everything that stops the run, and what to change."""


@dataclass(frozen=True)
class Scratch:
    """What the temporary folder of a node must hold, and what it may have to."""

    least_bytes: int = 0
    most_bytes: int = 0


@dataclass
class Findings:
    """What was found, by its words, with the nodes it was found on: none for the cluster as a whole."""

    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    remarks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def check_cluster(plan: Plan, scratch: Scratch = Scratch(), probes: list[Probe] | None = None) -> list[str]:
    """Raises ClusterUnfit, or returns what is worth saying though it stops nothing.

    probes   are called on every node; None: the driver's machine is the cluster, only it is looked at
    """
    findings = Findings()
    if not plan.processes:
        for problem in pools_without_room(plan, ray.cluster_resources()):
            findings.problems[problem] = []
    mine = make_look()((*LIBRARIES, "ray", "reelmap"), pickle.dumps([]))
    seen = {"this machine": mine} if probes is None else look_from_nodes(probes, findings)
    for node, theirs in seen.items():
        judge(node, mine, theirs, scratch, findings)
    if findings.problems:
        raise ClusterUnfit(report(findings.problems, len(seen)))
    return [in_place(text, nodes, len(seen)) for text, nodes in findings.remarks.items()]


def pools_without_room(plan: Plan, have: Mapping[str, float]) -> list[str]:
    """What the plan wants and the cluster has not, all pools at once."""
    return [
        f"the plan wants {wanted:g} {name}, the cluster has {have.get(name, 0):g}: add a node, or start Ray "
        f"with more (ray start --num-{name.lower()}s)"
        for name, wanted in plan.demand().items()
        if have.get(name, 0) + 1e-9 < wanted
    ]


def look_from_nodes(probes: list[Probe], findings: Findings) -> dict[str, dict[str, Any]]:
    """What every node that can do work sees, by its address."""
    task = ray.remote(num_cpus=0, max_retries=1)(make_look())
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    packed = ray.cloudpickle.dumps(probes)
    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[task.options(scheduling_strategy=here).remote((*LIBRARIES, "ray", "reelmap"), packed)] = node
    answered, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S) if asked else ([], [])
    # Several Rays on one machine share its address.
    names, seen = distinct([node["NodeManagerAddress"] for node in nodes]), {}
    by_ref = dict(zip(asked, names, strict=True))
    for ref in late:
        ray.cancel(ref, force=True)
        findings.problems[
            f"no answer within {ANSWER_S} s: look at the logs of Ray there, or take the node out"
        ].append(by_ref[ref])
    for ref in answered:
        try:
            seen[by_ref[ref]] = ray.get(ref)
        except ray.exceptions.RayError as error:
            last = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
            findings.problems[f"a task cannot run: {last}"].append(by_ref[ref])
    return seen


def make_look() -> Callable[[tuple[str, ...], bytes], dict[str, Any]]:
    """The function that looks. Made here, it is pickled with its code: a node without reelmap can run it."""

    def look(names: tuple[str, ...], probes: bytes) -> dict[str, Any]:
        def version(name: str) -> str | None:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return None

        seen: dict[str, Any] = {"versions": {name: version(name) for name in names}, "problems": []}
        seen["versions"]["python"] = platform.python_version()
        try:
            seen["scratch"] = tempfile.gettempdir()
            seen["free_bytes"] = shutil.disk_usage(seen["scratch"]).free
        except OSError as error:
            seen["problems"].append(f"there is no temporary folder to write to ({error}): set TMPDIR")
        try:
            tries = pickle.loads(probes)
        except (ImportError, AttributeError) as error:
            seen["problems"].append(
                f"reelmap cannot be loaded, or is another one ({error}): install the driver's version there, "
                "or send the code along (reelmap submit --working-dir)"
            )
            return seen
        seen["problems"] += [wrong for wrong in (attempt() for attempt in tries) if wrong]
        return seen

    return look


def judge(
    node: str, mine: dict[str, Any], theirs: dict[str, Any], scratch: Scratch, findings: Findings
) -> None:
    """Adds what one node's view means for the run."""
    for problem in theirs["problems"]:
        findings.problems[problem].append(node)
    free_bytes = theirs.get("free_bytes")
    if free_bytes is not None and free_bytes < scratch.most_bytes:
        certain = free_bytes < scratch.least_bytes
        needs = (
            f"one reel may need {in_gb(scratch.least_bytes)}"
            if certain
            else f"the largest reels at once may need {in_gb(scratch.most_bytes)}"
        )
        (findings.problems if certain else findings.remarks)[
            f"{theirs['scratch']} has {in_gb(free_bytes)} free, {needs}: make room, or set TMPDIR to a "
            "larger disk before Ray starts there"
        ].append(node)
    refused, said = differences(mine["versions"], theirs["versions"])
    for problem in refused:
        findings.problems[problem].append(node)
    for remark in said:
        findings.remarks[remark].append(node)


def differences(mine: dict[str, str | None], theirs: dict[str, str | None]) -> tuple[list[str], list[str]]:
    """What stops a run (problems), and what is only worth saying (remarks), in versions."""
    problems, remarks = [], []
    if mine["ray"] != theirs["ray"]:
        problems.append(f"Ray is {theirs['ray']}, the driver has {mine['ray']}: install the same there")
    # Functions travel as byte code, which every minor version of Python changes.
    if parts(mine["python"])[:2] != parts(theirs["python"])[:2]:
        problems.append(
            f"Python is {theirs['python']}, the driver has {mine['python']}: use the same minor version"
        )
    for name in LIBRARIES:
        ours, other = mine[name], theirs[name]
        if other is None:
            problems.append(f"{name} is not installed: install reelmap with all it requires")
        elif parts(ours)[:1] != parts(other)[:1]:
            problems.append(f"{name} is {other}, the driver has {ours}: install the same major version")
        elif parts(ours)[:2] != parts(other)[:2]:
            remarks.append(
                f"{name} is {other}, the driver has {ours}: scores may differ in their last digits"
            )
    return problems, remarks


def parts(version: str | None) -> list[str]:
    return (version or "").split("+")[0].split(".")


def distinct(names: list[str]) -> list[str]:
    """The names, with a number where one comes again."""
    counts: dict[str, int] = defaultdict(int)
    found = []
    for name in names:
        counts[name] += 1
        found.append(name if counts[name] == 1 else f"{name} #{counts[name]}")
    return found


def report(problems: Mapping[str, list[str]], nodes: int) -> str:
    lines = [in_place(text, where, nodes) for text, where in problems.items()]
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} things stop this run:" + "".join(f"\n  - {line}" for line in lines)


def in_place(text: str, where: list[str], nodes: int) -> str:
    if not where:
        return text
    some = ", ".join(where[:NODES_NAMED]) + (", …" if len(where) > NODES_NAMED else "")
    if len(where) == 1:
        return f"on {some}: {text}"
    return f"on {'all' if len(where) == nodes else f'{len(where)} of'} {nodes} nodes ({some}): {text}"


def in_gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"
