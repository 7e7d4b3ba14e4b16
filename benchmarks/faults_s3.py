"""What each fault of S3 does to each operation: injected, lost, doubled, unfinished uploads, extra time.

    python -m benchmarks.faults_s3 [--repeat 3] [--burst 2] [--json FILE]

Every operation of storage runs through tests/faulty_s3.py with a burst of one fault on one kind of request,
against the server of tests/s3.py, or the one in TEST_S3_ENDPOINT. Lost is what failed or gave other bytes
than were written; doubled what is there under a key that nobody meant. For a whole run:
pytest -s tests/pipeline/test_s3_faults.py.
"""

import contextlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import click

from pipeline import storage
from pipeline.library import list_library
from stages.filesystem import open_filesystem
from tests import s3 as s3_server
from tests.faulty_s3 import FAULTS, SILENT, STALL_GET, FaultyS3, Rule

SMALL, LARGE = 1 << 20, 33 << 20  # the large one goes up in three parts
KEYS = 25
SECONDS = {SILENT: 3, STALL_GET: 3}  # then they are reset, before the client's own 30 s are over


class Bench:
    """One bucket behind a proxy; every operation says whether its result is what was written."""

    def __init__(self, endpoint: str, folder: Path):
        self.client = boto3.client("s3", endpoint_url=endpoint)
        self.bucket = f"bench-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=self.bucket)
        self.uri, self.small = f"s3://{self.bucket}", os.urandom(SMALL)
        self.file = folder / "large"
        self.file.write_bytes(os.urandom(LARGE))
        self.client.put_object(Bucket=self.bucket, Key="in/a.mp4", Body=self.small)
        for number in range(KEYS):
            self.client.put_object(Bucket=self.bucket, Key=f"lib/{number}.mp4", Body=b"x")
        self.operations: dict[str, tuple[str, Callable[[], bool]]] = {
            "list": ("list", lambda: len(list_library(f"{self.uri}/lib")) == KEYS),
            "look": ("head", lambda: storage.exists(f"{self.uri}/in/a.mp4")),
            "read": ("head get", lambda: storage.read_bytes(f"{self.uri}/in/a.mp4") == self.small),
            "read a range": ("head get", self.read_range),
            "write": ("put", self.write),
            "create once": ("put", self.create),
            "upload in parts": ("start part complete", self.upload),
            "delete": ("delete", self.delete),
        }

    def read_range(self) -> bool:
        filesystem, path = open_filesystem(f"{self.uri}/in/a.mp4")
        with filesystem.open(path, "rb", cache_type="none") as file:
            file.seek(1000)
            return file.read(500_000) == self.small[1000:501_000]

    def write(self) -> bool:
        storage.write_bytes(f"{self.uri}/out/w", self.small)
        return self._there("out/w") == self.small

    def create(self) -> bool:
        key = f"lease/{secrets.token_hex(6)}"
        won = storage.create_exclusive(f"{self.uri}/{key}", b"first " + key.encode())
        return won and self._there(key) == b"first " + key.encode()

    def upload(self) -> bool:
        storage.put_file(self.file, f"{self.uri}/out/large")
        return self._there("out/large") == self.file.read_bytes()

    def delete(self) -> bool:
        self.client.put_object(Bucket=self.bucket, Key="out/d", Body=b"x")
        storage.delete(f"{self.uri}/out/d")
        return "Contents" not in self.client.list_objects_v2(Bucket=self.bucket, Prefix="out/d")

    def unfinished(self) -> int:
        return len(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))

    def doubled(self) -> int:
        """Keys that no operation meant to write."""
        page = self.client.list_objects_v2(Bucket=self.bucket, Prefix="out/")
        return len({item["Key"] for item in page.get("Contents", [])} - {"out/w", "out/large"})

    def _there(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()


def timed(call: Callable[[], bool]) -> tuple[bool, float]:
    begun = time.perf_counter()
    try:
        good = call()
    except (storage.StorageError, OSError):
        good = False
    return good, time.perf_counter() - begun


def measure(bench: Bench, proxy: FaultyS3, repeat: int, burst: int) -> list[dict[str, object]]:
    rows = []
    for name, (requests, call) in bench.operations.items():
        proxy.inject()
        usual_s = min(timed(call)[1] for _ in range(3))
        for fault in FAULTS:
            fitting = [request for request in requests.split() if Rule(fault).fits(request, "")]
            injected, lost, extra_s = 0, 0, []
            for request in fitting * repeat:
                proxy.inject(Rule(fault, request, times=burst, seconds=SECONDS.get(fault, 1)))
                good, seconds = timed(call)
                injected += sum(proxy.injected.values())
                lost += not good
                extra_s.append(max(0.0, seconds - usual_s))
            if fitting:
                row = {"operation": name, "fault": fault, "injected": injected, "lost": lost}
                row |= {"doubled": bench.doubled(), "unfinished": bench.unfinished()}
                row |= {"extra_s": sum(extra_s) / len(extra_s)}
                rows.append(row)
    return rows


@click.command()
@click.option("--repeat", default=3, show_default=True, help="Times each fault is tried on each request.")
@click.option("--burst", default=2, show_default=True, help="Requests in a row that it breaks each time.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where the rows are written, too.")
def main(repeat: int, burst: int, json_path: Path | None) -> None:
    """Breaks S3 requests on purpose and prints what became of the operations."""
    keys = {"AWS_ACCESS_KEY_ID": os.environ.get("TEST_S3_KEY", "testkey")}
    os.environ |= keys | {"AWS_SECRET_ACCESS_KEY": "testsecret12345", "AWS_DEFAULT_REGION": "us-east-1"}
    given = os.environ.get("TEST_S3_ENDPOINT")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoint = given or stack.enter_context(s3_server.serve())
        proxy = stack.enter_context(FaultyS3(endpoint))
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        rows = measure(Bench(endpoint, folder), proxy, repeat, burst)
    click.echo(
        "| fault | injected | lost | doubled | unfinished uploads | extra s a burst (worst operation) |"
    )
    click.echo("|---|---|---|---|---|---|")
    for fault in FAULTS:
        these = [row for row in rows if row["fault"] == fault]
        total = {name: sum(row[name] for row in these) for name in ("injected", "lost")}
        most = {name: max(row[name] for row in these) for name in ("doubled", "unfinished")}
        mean_s = sum(row["extra_s"] for row in these) / len(these)
        worst = max(these, key=lambda row: row["extra_s"])
        click.echo(
            f"| {fault} | {total['injected']} | {total['lost']} | {most['doubled']} | {most['unfinished']} "
            f"| {mean_s:.1f} ({worst['operation']} {worst['extra_s']:.1f}) |"
        )
    if json_path:
        json_path.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
