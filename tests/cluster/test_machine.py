"""The machine as a container sees it: the smallest limit counts, and none is no limit."""

import os
from pathlib import Path

import pytest

from cluster import machine

GIB = 1 << 30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The process lies in pod/box, and the machine has 64 cores and 100 GiB free."""
    (tmp_path / "pod" / "box").mkdir(parents=True)
    real = machine._text
    told = {"/proc/self/cgroup": "0::/pod/box", "/proc/meminfo": f"MemAvailable: {100 * GIB >> 10} kB"}
    monkeypatch.setattr(machine, "_text", lambda file: told.get(str(file)) or real(file))
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    return tmp_path


def test_without_limits_the_whole_machine_counts(groups: Path) -> None:
    (groups / "pod" / "cpu.max").write_text("max 100000\n")
    (groups / "pod" / "memory.max").write_text("max\n")
    assert (machine.cores(), machine.free_memory_bytes()) == (64, 100 * GIB)


def test_the_smallest_limit_on_the_way_up_counts(groups: Path) -> None:
    (groups / "pod" / "cpu.max").write_text("250000 100000\n")
    (groups / "pod" / "box" / "cpu.max").write_text("400000 100000\n")
    assert machine.cores() == 3
    (groups / "pod" / "box" / "cpu.max").write_text("20000 100000\n")
    assert machine.cores() == 1


def test_memory_is_what_the_group_has_left_and_files_in_the_cache_are_left(groups: Path) -> None:
    (groups / "pod" / "memory.max").write_text(str(8 * GIB))
    (groups / "pod" / "memory.current").write_text(str(7 * GIB))
    (groups / "pod" / "memory.stat").write_text(f"anon {5 * GIB}\ninactive_file {2 * GIB}\n")
    assert machine.free_memory_bytes() == 3 * GIB


def test_limits_of_version_1_count_too(groups: Path) -> None:
    for name, value in {"cpu/cpu.cfs_quota_us": 200000, "cpu/cpu.cfs_period_us": 100000}.items():
        (groups / name).parent.mkdir(exist_ok=True)
        (groups / name).write_text(str(value))
    assert machine.cores() == 2
    (groups / "cpu/cpu.cfs_quota_us").write_text("-1")
    assert machine.cores() == 64


def test_of_the_cores_only_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5})
    assert machine.cores() <= 2
