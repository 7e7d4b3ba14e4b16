"""A library of thousands of tiny videos, from S3 to S3: does the last thousand take longer than the first?

    python -m benchmarks.many [--videos 5000] [--groups 5] [--json FILE]

Runs `reelmap highlights` against Ceph's RADOS gateway (tests/s3_rgw.py), or the server in TEST_S3_ENDPOINT.
The videos are published one after another: their `published_at`, in order, says how long each group of them
took. CPU seconds and the peak of memory (PSS) are those of the run and all it started, meanwhile: on a
machine with other things to do, CPU seconds are what can be compared.
"""

import contextlib
import itertools
import json
import math
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import boto3
import click
import numpy as np
import psutil

from benchmarks.memory import tree_bytes
from pipeline import tables
from tests import s3_rgw
from tests.media import make_video

DIFFERENT = 24  # videos; the others are copies of them under names of their own
SAMPLED_EVERY_S = 15.0  # the proportional size of a hundred processes takes a second to read
UPLOADS = 8
# What each video is done with is not the question: the networks that only cost time are left out.
CHEAP = ("codec.kind=none", "effects.kind=none", "colour.kind=none", "saliency.enabled=false")


@click.command(help=__doc__.splitlines()[0])
@click.option("--videos", default=5000)
@click.option("--groups", default=5)
@click.option("--json", "json_file", type=click.Path())
def main(videos: int, groups: int, json_file: str | None) -> None:
    with server(), tempfile.TemporaryDirectory(prefix="many-") as folder:
        bucket = f"many-{secrets.token_hex(4)}"
        fill(bucket, Path(folder), videos)
        started = datetime.now(UTC)
        command = [sys.executable, "-m", "jobs.cli", "highlights", f"s3://{bucket}/in", f"s3://{bucket}/out"]
        samples = follow(
            [*command, *(word for setting in CHEAP for word in ("--set", setting))], Path(folder, "log")
        )
        took_s = (datetime.now(UTC) - started).total_seconds()
        rows = tables.read(f"s3://{bucket}/out", "videos", ["status", "published_at"]).to_pylist()
    result = {"videos": len(rows), "wall_s": took_s, **grouped(rows, groups, started, samples)}
    print(f"{len(rows)} videos in {took_s:.0f} s; the first one after {result['first_s']:.0f} s")
    print(f"{'videos':>14s} {'s':>8s} {'s each':>8s} {'CPU s each':>10s} {'peak MiB':>9s}")
    for group in result["groups"]:
        print(
            f"{group['from']:6d} to {group['to']:5d} {group['s']:8.1f} {group['s_each']:8.3f} "
            f"{group['cpu_s_each']:10.3f} {group['peak_bytes'] / 2**20:9.0f}"
        )
    first, last = result["groups"][0], result["groups"][-1]
    wall, cpu = (last[name] / first[name] for name in ("s_each", "cpu_s_each"))
    print(f"the last group takes {wall:.2f} x the time of the first and {cpu:.2f} x its CPU seconds")
    print(f"not ok: {result['not_ok']}")
    if json_file:
        Path(json_file).write_text(json.dumps(result, indent=1))


@contextlib.contextmanager
def server() -> Iterator[None]:
    """Sets this process's environment so that S3 is the server of the benchmark."""
    with contextlib.ExitStack() as stack:
        if not (endpoint := os.environ.get("TEST_S3_ENDPOINT")):
            if why := s3_rgw.install():
                raise click.ClickException(f"no gateway: {why}")
            endpoint = stack.enter_context(s3_rgw.serve())
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": os.environ.get("TEST_S3_KEY", s3_rgw.KEY),
            "AWS_SECRET_ACCESS_KEY": s3_rgw.SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }
        yield


def fill(bucket: str, folder: Path, videos: int) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    made = [
        make_video(folder / f"{n}.mp4", seconds=1.5 + n % 3 / 2, fps=12, shots=1 + n % 3).path.read_bytes()
        for n in range(min(DIFFERENT, videos))
    ]

    def upload(number: int) -> None:
        client.put_object(Bucket=bucket, Key=f"in/{number:06d}.mp4", Body=made[number % len(made)])

    with ThreadPoolExecutor(UPLOADS) as pool:
        list(pool.map(upload, range(videos)))


@dataclass(frozen=True)
class Sample:
    """What the run had used at a moment."""

    at: datetime
    cpu_s: float
    memory_bytes: int


def follow(
    command: list[str], log: Path, every_s: float = SAMPLED_EVERY_S, most_s: float = math.inf
) -> list[Sample]:
    """Runs the command to its end and looks at it now and then.

    Raises ClickException where it fails, or takes longer than `most_s`: then it is ended, with its children.
    """
    began = time.monotonic()
    samples: list[Sample] = []
    used: dict[tuple[int, float], float] = {}
    with log.open("w") as out:
        run = subprocess.Popen(command, stdout=out, stderr=out)
        while run.poll() is None:
            used |= cpu_of(run.pid)
            samples.append(Sample(datetime.now(UTC), sum(used.values()), tree_bytes(run.pid)))
            if time.monotonic() - began > most_s:
                for process in (*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)):
                    process.kill()
                run.wait()
                raise click.ClickException(f"not done after {most_s:.0f} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(every_s)
    if run.returncode not in (0, 1):
        raise click.ClickException(f"the run ended with {run.returncode}: {log.read_text()[-2000:]}")
    return samples


def cpu_of(pid: int) -> dict[tuple[int, float], float]:
    """CPU seconds of a process and of each of its descendants; a process is its id and when it began."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found[process.pid, process.create_time()] = times.user + times.system
    return found


def grouped(rows: list[dict], groups: int, started: datetime, samples: list[Sample]) -> dict[str, object]:
    """The videos in the order in which they were published, in equal groups, with what each group cost."""
    times = sorted(row["published_at"] for row in rows)
    edges = [round(i * (len(times) - 1) / groups) for i in range(groups + 1)]
    looked_s = [sample.at.timestamp() for sample in samples]
    used_s = [sample.cpu_s for sample in samples]
    found = []
    for first, last in itertools.pairwise(edges):
        begin, end = times[first], times[last]
        cpu_s = np.ptp(np.interp([begin.timestamp(), end.timestamp()], looked_s, used_s))
        seconds, videos = (end - begin).total_seconds(), last - first
        found.append(
            {
                "from": first,
                "to": last,
                "s": seconds,
                "s_each": seconds / videos,
                "cpu_s_each": float(cpu_s) / videos,
                "peak_bytes": max((s.memory_bytes for s in samples if begin <= s.at <= end), default=0),
            }
        )
    return {
        "first_s": (times[0] - started).total_seconds(),
        "not_ok": sum(row["status"] != "ok" for row in rows),
        "groups": found,
    }


if __name__ == "__main__":
    main()
