"""What each stage costs: seconds per shard or per video, as `reelmap tune` measured them or as shipped.

A worker that has one thread takes `cpu_s` + `wait_s` for one piece; more threads shorten the first part. On a
GPU it also holds the GPU for `gpu_s`, which lie within its `cpu_s` (CUDA polls while it waits) or `wait_s`.
The file is YAML; JSON is YAML too.
"""

import os
from pathlib import Path
from typing import Literal

import click
import yaml
from pydantic import Field, ValidationError

from stages.settings import Settings

# How much a second, third, ... thread of a worker adds, of what the first does: measured with torch and x264
# on two cores, where two threads did 1.6 to 1.8 times the work of one.
PER_THREAD = 0.7
PER_SHARD = ("decode", "look", "gather")
PER_VIDEO = ("probe", "score", "render", "publish")
STAGES = ("probe", "decode", "look", "gather", "score", "render", "publish")
THREADED = ("look", "render")


class SpeedsError(ValueError):
    """The file cannot be read or is none; the message says what to do."""


class Cost(Settings):
    """Of one piece, a shard or a video."""

    cpu_s: float = Field(ge=0)
    wait_s: float = Field(0.0, ge=0, description="for storage")
    gpu_s: float = Field(0.0, ge=0)

    def wall_s(self, threads: int = 1) -> float:
        """How long a worker with so many threads has it."""
        return max(self.cpu_s / (1 + PER_THREAD * (threads - 1)) + self.wait_s, self.gpu_s)

    def cores(self, threads: int = 1) -> float:
        """Cores that such a worker keeps busy while it has work."""
        wall_s = self.wall_s(threads)
        return self.cpu_s / wall_s if wall_s else 0.0


class Speeds(Settings):
    machine: str
    kind: Literal["cpu", "gpu"] = "cpu"  # where look and render ran
    shard_s: float = Field(gt=0, description="footage of a shard")
    video_s: float = Field(gt=0, description="mean length of the videos it was measured with")
    probe: Cost
    decode: Cost
    look: Cost
    gather: Cost
    score: Cost
    render: Cost
    publish: Cost
    # Of the driver, which hands every block to every operator.
    driver_s: float = Field(0.0, ge=0)

    def cost(self, stage: str) -> Cost:
        return getattr(self, stage)

    def for_shards(self, shard_s: float) -> "Speeds":
        """The same for shards of another length, whose costs grow with it."""
        factor = shard_s / self.shard_s
        scaled = {
            name: Cost(cpu_s=cost.cpu_s * factor, wait_s=cost.wait_s * factor, gpu_s=cost.gpu_s * factor)
            for name in PER_SHARD
            for cost in (self.cost(name),)
        }
        return self.model_copy(update=scaled | {"shard_s": shard_s})

    def pieces(self, stage: str, video_s: float) -> float:
        """What the stage costs for a video of such a length, in pieces: a short one is part of a shard."""
        return video_s / self.shard_s if stage in PER_SHARD else 1.0

    def shards(self, video_s: float) -> int:
        return max(1, round(video_s / self.shard_s))


def default_file() -> Path:
    """Where `reelmap tune` writes, in the user's configuration folder."""
    return Path(click.get_app_dir("reelmap"), "speeds.yaml")


def find(file: str | None, gpus: int, local: bool) -> tuple[Speeds, str]:
    """The speeds to plan with, and where they come from: `file`, what was tuned here, or what is shipped.

    What was tuned on this machine says nothing of a cluster's: it is for a local Ray only.
    Raises SpeedsError for a file that was asked for and does not fit.
    """
    kind = "gpu" if gpus else "cpu"
    if file:
        return read(file), f"measured, {file}"
    tuned = default_file()
    if local and os.access(tuned, os.R_OK):  # Path.exists raises where a folder above may not be read
        speeds = read(str(tuned))
        if speeds.kind == kind:
            return speeds, f"measured by `reelmap tune`, {tuned} ({speeds.machine})"
    speeds = SHIPPED[kind]
    return speeds, f"shipped defaults ({speeds.machine}); `reelmap tune LIBRARY` measures yours"


def read(file: str) -> Speeds:
    try:
        return Speeds.model_validate(yaml.safe_load(Path(file).read_text()))
    except OSError as error:
        raise SpeedsError(f"{file}: {error.strerror or error}: run `reelmap tune LIBRARY`") from error
    except (UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise SpeedsError(f"{file} holds no speeds ({first}): run `reelmap tune LIBRARY` again") from error


def write(speeds: Speeds, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(speeds.model_dump(mode="json"), sort_keys=False))


# CPU seconds measured on five films of two minutes and a half on average, 360p to 1080p, with reels of a
# minute at most, from a local disk. The waiting is for a store that answers within 50 ms. `gather` and
# `driver_s` include what Ray takes of a call.
CPU = Speeds(
    machine="2 cores of an AMD EPYC, no GPU",
    shard_s=60,
    video_s=600,
    probe=Cost(cpu_s=0.025, wait_s=0.1),
    decode=Cost(cpu_s=4.0, wait_s=0.2),
    look=Cost(cpu_s=4.7),
    gather=Cost(cpu_s=0.003),
    score=Cost(cpu_s=0.33),
    render=Cost(cpu_s=54.0, wait_s=1.0),
    publish=Cost(cpu_s=0.03, wait_s=0.3),
    driver_s=0.003,
)
# Not measured: decode, gather and publish as above; on a GPU the networks take a small part of what is left.
GPU = CPU.model_copy(
    update={
        "machine": "an estimate for a machine with a GPU, from the one without",
        "kind": "gpu",
        "look": Cost(cpu_s=0.6, gpu_s=0.3),
        "render": Cost(cpu_s=30.0, wait_s=0.5, gpu_s=2.0),
    }
)
SHIPPED = {"cpu": CPU, "gpu": GPU}
