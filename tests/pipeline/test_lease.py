"""Two runs never write to one OUTPUT; a dead one does not keep it."""

import json
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import lease as module
from pipeline import storage
from pipeline.lease import DEAD_AFTER_S, Busy, Lost, lease
from stages.s3 import RETRY

# Of a holder in another place, whose process number says nothing here.
SILENT = {"holder": "x", "run_id": "r", "host": "elsewhere", "pid": 1, "born": "1", "renewals": 3}


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3").uri


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


def test_silent_holder_elsewhere_is_taken_for_dead_after_a_while(output: str) -> None:
    put(output, SILENT)
    with lease(output, "mine", renew_s=0.5, dead_after_s=0.5):
        assert there(output)["run_id"] == "mine"


def test_rubbish_does_not_keep_the_output(tmp_path: Path) -> None:
    storage.write_bytes(f"{tmp_path}/runs/.lease", b"[1]")
    with lease(str(tmp_path), "mine", renew_s=0.2, dead_after_s=0.3):
        assert there(str(tmp_path))["run_id"] == "mine"


@pytest.mark.parametrize("other", ["host", "boot", "pid_namespace"])
def test_process_number_of_another_world_proves_no_death(other: str, tmp_path: Path) -> None:
    here = module._here() | {"holder": "x", "run_id": "r", "pid": 2**22 + 1, "born": "1"}
    assert module._is_dead_here(here)
    assert not module._is_dead_here(here | {other: "another"})
    del here[other]
    assert not module._is_dead_here(here)


def test_of_many_takers_of_a_dead_lease_one_gets_it(output: str) -> None:
    put(output, SILENT)
    started, ended = threading.Barrier(8), threading.Barrier(8)
    held, busy = [], []

    def take(number: int) -> None:
        started.wait()
        try:
            with lease(output, str(number), renew_s=1.0, dead_after_s=1.0):
                held.append(str(number))
                ended.wait(30)
        except Busy:
            busy.append(number)
            ended.wait(30)

    takers = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert len(held) == 1
    assert len(busy) == 7


def test_a_living_lease_is_not_removed_for_a_dead_one(output: str) -> None:
    dead = json.dumps(SILENT).encode()
    put(output, SILENT | {"holder": "y"})
    assert not module._remove(f"{output}/runs/.lease", dead)
    assert there(output)["holder"] == "y"


def test_a_living_lease_that_comes_between_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = json.dumps(SILENT).encode()
    put(str(tmp_path), SILENT | {"holder": "y"})
    monkeypatch.setattr(module, "_look", lambda _: dead)
    assert not module._remove(f"{tmp_path}/runs/.lease", dead)
    assert there(str(tmp_path))["holder"] == "y"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".lease"]


def test_store_that_fails_once_does_not_end_the_renewals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failures = storage.write_bytes, []

    def failing(uri: str, data: bytes) -> None:
        if len(failures) < 2:
            failures.append(uri)
            raise storage.StorageError("the store does not answer")
        write(uri, data)

    with lease(str(tmp_path), "mine", renew_s=0.05) as held:
        monkeypatch.setattr(storage, "write_bytes", failing)
        deadline = time.monotonic() + 10
        while there(str(tmp_path))["renewals"] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        held.check()
    assert len(failures) == 2


def test_holder_that_was_taken_for_dead_is_stopped_and_leaves_the_lease_alone(output: str) -> None:
    def work() -> None:
        with lease(output, "mine", renew_s=0.1):
            put(output, SILENT)
            threading.Event().wait(20)
            raise AssertionError("nobody stopped it")

    with pytest.raises(Lost, match=r"run r on elsewhere .* has taken this OUTPUT over"):
        work()
    assert there(output) == SILENT


def test_lease_that_somebody_deleted_is_written_again(tmp_path: Path) -> None:
    with lease(str(tmp_path), "mine", renew_s=0.05) as held:
        (tmp_path / "runs" / ".lease").unlink()
        deadline = time.monotonic() + 10
        while not (tmp_path / "runs" / ".lease").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        held.check()


@pytest.mark.parametrize("clock", [0, 4_000_000_000], ids=["1970", "2096"])
def test_clocks_that_are_off_kill_nobody_and_keep_no_dead_one_alive(clock: int, tmp_path: Path) -> None:
    path = tmp_path / "runs" / ".lease"
    process = start_holder(tmp_path, 30)
    stop = threading.Event()

    def turn_back() -> None:
        while not stop.wait(0.01):
            with suppress(FileNotFoundError):
                os.utime(path, (clock, clock))

    thread = threading.Thread(target=turn_back)
    thread.start()
    try:
        with pytest.raises(Busy), lease(str(tmp_path), "mine", dead_after_s=2.0):
            pass
    finally:
        stop.set()
        thread.join()
        process.kill()
        process.join()
    put(str(tmp_path), SILENT)
    os.utime(path, (clock, clock))
    with lease(str(tmp_path), "mine", renew_s=0.2, dead_after_s=0.3):
        assert there(str(tmp_path))["run_id"] == "mine"


def test_suspended_holder_loses_the_output_and_stops_when_it_wakes(tmp_path: Path) -> None:
    process = start_holder(tmp_path, 60)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        with lease(str(tmp_path), "mine", renew_s=0.2, dead_after_s=0.5) as held:
            os.kill(process.pid, signal.SIGCONT)
            process.join(20)
            assert process.exitcode == 1  # it ended with Lost, long before its time
            held.check()
            assert there(str(tmp_path))["run_id"] == "mine"
    finally:
        process.kill()
        process.join()


def put(output: str, holder: dict) -> None:
    storage.write_bytes(f"{output}/runs/.lease", json.dumps(holder).encode())


def there(output: str) -> dict:
    return json.loads(storage.read_bytes(f"{output}/runs/.lease"))


def test_holder_outlives_the_longest_request_of_a_renewal() -> None:
    assert RETRY.seconds + RETRY.read_timeout_s < DEAD_AFTER_S


def test_lease_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with lease(str(tmp_path), "mine"):
            assert (tmp_path / "runs" / ".lease").exists()
    assert not (tmp_path / "runs" / ".lease").exists()
