"""Dependencies run one way: jobs -> pipeline -> stages -> stages/nn, and jobs, pipeline -> cluster."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "stages/nn": {"stages"},  # settings, filesystem and the like, but no stage: see below
    "stages": {"stages"},
    "cluster": {"cluster", "stages"},  # settings only: see below
    "pipeline": {"pipeline", "stages", "cluster"},
    "jobs": {"jobs", "pipeline", "stages", "cluster"},
}
OURS = {"jobs", "pipeline", "stages", "cluster", "tests", "benchmarks"}
BASE = {"settings", "failure", "filesystem", "nn"}


def imports(file: Path) -> list[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_nothing_imports_what_lies_above_it(folder: str) -> None:
    for file in (ROOT / folder).glob("*.py"):
        ours = {name for name in imports(file) if name.split(".")[0] in OURS}
        wrong = {name for name in ours if name.split(".")[0] not in ALLOWED[folder]}
        assert not wrong, f"{file.relative_to(ROOT)} imports {wrong}"
        if folder in ("stages/nn", "cluster"):
            stages = {name for name in ours if name[:7] == "stages." and name.split(".")[1] not in BASE}
            assert not stages, f"{file.relative_to(ROOT)} imports {stages}"


def test_stages_know_nothing_of_ray() -> None:
    for file in (ROOT / "stages").rglob("*.py"):
        assert not [name for name in imports(file) if name.split(".")[0] == "ray"], file


def test_a_driver_does_without_torch_and_ray_data() -> None:
    """They are seconds of every command, and 400 MB of a run that needs no GPU and no cluster."""
    loaded = "import sys, jobs.cli, jobs.highlights, jobs.archive; print(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "torchvision", "ray.data"} & set(names.stdout.split())
