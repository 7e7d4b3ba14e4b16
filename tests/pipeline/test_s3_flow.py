"""The same command from S3 to S3, in processes of its own, and no secret in anything that it writes."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline import tables
from tests.media import make_empty, make_video
from tests.secrets import found_in


def test_from_s3_to_s3_and_again(tmp_path: Path, bundle: str, s3: object) -> None:
    client = s3.client()
    for number, name in enumerate(("a b#1.mp4", "deep/ünï.mkv", "silent.mp4")):
        audio = None if name == "silent.mp4" else "beeps"
        file = make_video(tmp_path / f"{number}{Path(name).suffix}", seconds=5, shots=2, audio=audio).path
        client.upload_file(str(file), s3.name, f"in/{name}")
    client.upload_file(str(make_empty(tmp_path / "empty.mp4")), s3.name, "in/empty.mp4")

    first = command(s3, bundle)
    assert first.returncode == 1, first.stderr
    output = f"{s3.uri}/out"
    videos = tables.read(output, "videos").to_pylist()
    assert sorted(video["status"] for video in videos) == ["failed", "ok", "ok", "ok"]
    reels = tables.read(output, "reels").to_pylist()
    for reel in reels:
        head = client.head_object(Bucket=s3.name, Key=f"out/{reel['uri']}")
        assert head["ContentLength"] == reel["size_bytes"]
        assert reel["duration_s"] == 3.0

    before = keys(client, s3.name)
    second = command(s3, bundle)
    assert second.returncode == 1
    assert "nothing to do" in second.stderr
    assert keys(client, s3.name) == before

    looked = command(s3, bundle, "verify")
    assert (looked.returncode, looked.stdout.splitlines()[-1][-14:]) == (0, "no differences")
    secrets = [s3.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    said = "".join(done.stdout + done.stderr for done in (first, second, looked))
    assert [secret for secret in secrets if secret in said] == []
    assert found_in(output, secrets) == []


def test_wrong_bucket_is_said_in_words(bundle: str, s3: object) -> None:
    done = command(s3, bundle, library="s3://no-such-bucket-of-ours/in")
    assert done.returncode == 2
    assert "the bucket does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def command(
    s3: object, bundle: str, name: str = "highlights", library: str | None = None
) -> subprocess.CompletedProcess[str]:
    arguments = [f"{s3.uri}/out"]
    if name == "highlights":
        arguments = [library or f"{s3.uri}/in", *arguments, "--target", "3s", "--bundle", bundle]
        arguments += ["--set", "cut.apart=0"]  # to an untrained network all shots look alike
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", name, *arguments],
        env=os.environ | s3.env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def keys(client: object, bucket: str) -> dict[str, str]:
    """Every object with its checksum; the report's index is written anew each time."""
    found = client.list_objects_v2(Bucket=bucket)["Contents"]
    return {item["Key"]: item["ETag"] for item in found if "/report/" not in item["Key"]}
