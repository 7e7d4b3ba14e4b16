"""From S3 to S3 through a proxy that breaks a third of all requests: nothing lost, nothing doubled."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline import tables
from tests.conftest import Bucket
from tests.faulty_s3 import FAULTS, SILENT, STALL_GET, FaultyS3, Rule
from tests.media import make_video

SHARE = 0.04  # of the requests that each kind of fault could break


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_through_a_broken_network_ends_as_if_it_were_whole(
    tmp_path: Path, bundle: str, s3: Bucket, faulty: FaultyS3
) -> None:
    client = s3.client()
    for number in range(3):
        video = make_video(tmp_path / f"{number}.mp4", seconds=5, shots=2 + number).path
        client.upload_file(str(video), s3.name, f"in/{number}.mp4")
    seconds = {}
    for output in ("whole", "broken"):
        # A silent request is reset before the client's own patience, 30 s, is at its end.
        rules = [Rule(f, share=SHARE, seconds=3 if f in (SILENT, STALL_GET) else 1) for f in FAULTS]
        faulty.inject(*(rules if output == "broken" else ()))
        begun = time.perf_counter()
        done = run(s3, faulty, bundle, output)
        seconds[output] = time.perf_counter() - begun
        assert done.returncode == 0, done.stderr
    lost, doubled = compared(s3, "whole", "broken")
    print(f"\n{sum(faulty.requests.values())} requests, {sum(faulty.injected.values())} of them broken")
    print(*(f"{times:4d}  {fault}" for fault, times in faulty.injected.most_common()), sep="\n")
    print(f"lost {lost}, doubled {doubled}, {seconds['whole']:.0f} s undisturbed, {seconds['broken']:.0f} s")
    assert (lost, doubled) == (0, 0)
    assert sum(faulty.injected.values()) >= 10
    assert "Uploads" not in client.list_multipart_uploads(Bucket=s3.name)
    for reel in tables.read(f"{s3.uri}/broken", "reels").to_pylist():
        head = client.head_object(Bucket=s3.name, Key=f"broken/{reel['uri']}")
        assert head["ContentLength"] == reel["size_bytes"]


def run(s3: Bucket, proxy: FaultyS3, bundle: str, output: str) -> subprocess.CompletedProcess[str]:
    arguments = [f"{s3.uri}/in", f"{s3.uri}/{output}", "--target", "3s", "--bundle", bundle]
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", "highlights", *arguments],
        env=os.environ | s3.env | {"AWS_ENDPOINT_URL": proxy.endpoint},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def compared(s3: Bucket, whole: str, broken: str) -> tuple[int, int]:
    """Rows of all tables and files of media/ that are missing, or there more than once or too many."""
    found = []
    for output in (whole, broken):
        rows = Counter()
        for name in ("videos", "clips", "proxies", "reels", "failures"):
            for row in tables.read(f"{s3.uri}/{output}", name).to_pylist():
                rows[name, row["video_id"]] += 1
        media = s3.client().list_objects_v2(Bucket=s3.name, Prefix=f"{output}/media/")["Contents"]
        rows.update(("media", item["Key"].removeprefix(output)) for item in media)
        found.append(rows)
    return (found[0] - found[1]).total(), (found[1] - found[0]).total()
