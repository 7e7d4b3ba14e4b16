"""Two runs never write to one OUTPUT; a dead one does not keep it."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.lease import Busy, lease


def hold(output: str, seconds: float) -> None:
    with lease(output, "other", renew_s=0.1):
        Path(output, "held").touch()
        time.sleep(seconds)


def start_holder(output: Path, seconds: float) -> multiprocessing.Process:
    process = multiprocessing.get_context("spawn").Process(
        target=hold, args=(str(output), seconds), daemon=True
    )
    process.start()
    while not (output / "held").exists():
        time.sleep(0.02)
    return process


def test_second_run_stops_and_says_who_holds_the_output(tmp_path: Path) -> None:
    process = start_holder(tmp_path, 30)
    try:
        with (
            pytest.raises(Busy, match=f"run other on .* \\(process {process.pid}\\)"),
            lease(str(tmp_path), "mine"),
        ):
            pass
    finally:
        process.kill()
        process.join()


def test_killed_holder_of_this_host_is_known_to_be_dead_at_once(tmp_path: Path) -> None:
    process = start_holder(tmp_path, 30)
    process.kill()
    process.join()
    began = time.monotonic()
    with lease(str(tmp_path), "mine"):
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("uri", ["local", "s3"])
def test_silent_holder_elsewhere_is_taken_for_dead_after_a_while(
    uri: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    output = str(tmp_path) if uri == "local" else request.getfixturevalue("s3").uri
    silent = {"holder": "x", "run_id": "r", "host": "elsewhere", "pid": 1, "born": "1", "renewals": 3}
    storage.write_bytes(f"{output}/runs/.lease", json.dumps(silent).encode())
    with lease(output, "mine", dead_after_s=0.5):
        assert json.loads(storage.read_bytes(f"{output}/runs/.lease"))["run_id"] == "mine"


def test_lease_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with lease(str(tmp_path), "mine"):
            assert (tmp_path / "runs" / ".lease").exists()
    assert not (tmp_path / "runs" / ".lease").exists()
