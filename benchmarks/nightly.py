"""What looking costs: `reelmap archive` with nothing to do, and `reelmap status` of a large OUTPUT.

    python -m benchmarks.nightly [--listed 1000] [--videos 100000] [--json FILE]

The idle night runs from S3 to S3 (moto, or the server in TEST_S3_ENDPOINT) behind a proxy that counts its
requests. The large OUTPUT lies on the local disk: made-up results, 64 to a part, as a run of that size writes
them. Seconds are those of the whole command with its start; memory is its peak resident size.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import click
import pyarrow as pa

from jobs.models import open_models
from pipeline import tables
from pipeline.config import Settings
from pipeline.library import list_library
from tests import s3 as s3_server
from tests.faulty_s3 import FaultyS3
from tests.pipeline.made_up import result
from tests.pipeline.made_up import tables as made_up

PER_PART = 64
# Runs a command and says what it used.
SMALL = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
facts = {"cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * 1024}
print(json.dumps(facts), file=sys.stderr)
sys.exit(code)
"""


@click.command(help=__doc__.splitlines()[0])
@click.option("--listed", default=1000)
@click.option("--videos", default=100_000)
@click.option("--json", "json_file", type=click.Path())
def main(listed: int, videos: int, json_file: str | None) -> None:
    figures = {"status": large(videos), "idle": idle(listed)}
    for name, found in figures.items():
        print(f"{name}: {found['s']:.1f} s, {found['peak_bytes'] / 2**20:.0f} MiB, {found}")
    if json_file:
        Path(json_file).write_text(json.dumps(figures, indent=1))


def idle(listed: int) -> dict[str, Any]:
    """An archive of which every video is done."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nightly-")))
        endpoint = os.environ.get("TEST_S3_ENDPOINT") or stack.enter_context(s3_server.serve())
        os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret12345"}
        bucket = f"nightly-{secrets.token_hex(4)}"
        client = boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        with ThreadPoolExecutor(8) as pool:
            names = (f"in/{number:06}.mp4" for number in range(listed))
            for _ in pool.map(lambda name: client.put_object(Bucket=bucket, Key=name, Body=b"video"), names):
                pass
        source, output = f"s3://{bucket}/in", f"s3://{bucket}/out"
        key = Settings().key(open_models(None))
        rows = list_library(source).to_pylist()
        publish(output, [(row["video_id"], row["uri"]) for row in rows], key, 2)
        config = folder / "night.yaml"
        config.write_text(f"source: {source}\noutput: {output}\n")
        proxy = stack.enter_context(FaultyS3(endpoint))
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        found = timed(["archive", str(config)])
        requests: Counter[str] = proxy.requests
        return found | {"listed": listed, "requests": requests.total(), "by_kind": dict(requests)}


def large(videos: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="nightly-") as folder:
        publish(folder, [(f"{number:024x}", f"/library/{number:06}.mp4") for number in range(videos)], "k", 2)
        return timed(["status", folder]) | {"videos": videos}


def publish(output: str, named: list[tuple[str, str]], settings_key: str, minutes: float) -> None:
    """Results of these videos: one part is made, the others are copies of it under other names."""
    made = made_up(*(result(f"{n:024}", settings_key, duration_s=60 * minutes) for n in range(PER_PART)))
    made = {"videos": made["videos"]}
    with ThreadPoolExecutor(4) as pool:
        starts = range(0, len(named), PER_PART)
        for _ in pool.map(lambda at: write(output, made, named[at : at + PER_PART], settings_key), starts):
            pass


def write(
    output: str, made: dict[tables.Table, pa.Table], named: list[tuple[str, str]], settings_key: str
) -> None:
    videos = made["videos"].slice(0, len(named))
    for column, values in (("video_id", [one for one, _ in named]), ("uri", [uri for _, uri in named])):
        videos = videos.set_column(videos.schema.get_field_index(column), column, pa.array(values))
    tables.write_part(
        output, tables.part_name(videos["video_id"].to_pylist(), settings_key), {"videos": videos}
    )


def timed(arguments: list[str]) -> dict[str, Any]:
    """Runs one command to its end."""
    started = time.monotonic()
    # The peak of a child of this large process would be that of the process itself, of which it is a copy.
    command = [sys.executable, "-c", SMALL, sys.executable, "-m", "jobs.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise click.ClickException(done.stdout + done.stderr)
    *said, used = (done.stdout + done.stderr).strip().splitlines()
    return {"s": round(time.monotonic() - started, 1)} | json.loads(used) | {"said": said[-6:]}


if __name__ == "__main__":
    main()
