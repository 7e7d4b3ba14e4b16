"""What this process may use of its machine: a container, or a job of a batch system, has less than all.

cgroup v2 (docs.kernel.org/admin-guide/cgroup-v2.html): a limit holds for all groups below it, so the smallest
on the way up counts. Of v1 the limits of the own group are read, where containers have them mounted.
"""

import math
import os
import sys
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
GPU_DEVICES = ("nvidia*", "nvhost-gpu*", "nvgpu*", "kfd", "dxg")  # in /dev: of CUDA, of ROCm, beneath Windows


def cores() -> int:
    """CPUs that this process may keep busy, at least 1: by affinity and by the limit of its cgroup."""
    # macOS has no affinity.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(limit) for limit in _cpu_limits())]))


def free_memory_bytes() -> int | None:
    """Memory that this process may still take without swapping; None where nobody tells."""
    known = [*_memory_rooms(), *_available()]
    return max(0, min(known)) if known else None


def may_have_gpu() -> bool:
    """False only where there surely is none that torch could use."""
    if sys.platform == "linux":
        return any(True for name in GPU_DEVICES for _ in Path("/dev").glob(name))
    return sys.platform != "darwin"


def _cpu_limits() -> list[float]:
    limits = []
    for folder in _groups():
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    quota, period = (_text(CGROUPS / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    if quota.isdigit() and period.isdigit():  # -1 is none
        limits.append(int(quota) / int(period))
    return limits


def _memory_rooms() -> list[int]:
    """What each group has left; files that are cached and not in use count as left."""
    v1 = CGROUPS / "memory"
    places = [(folder, "memory.max", "memory.current", "inactive_file") for folder in _groups()]
    places.append((v1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    rooms = []
    for folder, limit, usage, cached in places:
        most, used = _text(folder / limit), _text(folder / usage)
        if most.isdigit() and used.isdigit():  # "max" is none
            lines = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
            rooms.append(int(most) - int(used) + int(lines.get(cached, 0)))
    return rooms


def _available() -> list[int]:
    lines = _text(Path("/proc/meminfo")).splitlines()
    return [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]


def _groups() -> list[Path]:
    """The folders of this process's cgroup and of those above it."""
    named = _text(Path("/proc/self/cgroup")).splitlines()
    path = next((line.removeprefix("0::") for line in named if line.startswith("0::")), None)
    if path is None:
        return []
    own = CGROUPS / path.lstrip("/")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(CGROUPS)]


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
