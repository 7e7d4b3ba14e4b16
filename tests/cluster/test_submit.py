"""Jobs on a cluster: what is refused before anything is sent, how a job is followed, and how it ends here."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from ray.job_submission import JobStatus

from cluster import submit
from cluster.submit import SubmitError, check_address, check_id, check_token_file, exit_code, follow
from pipeline import tables
from stages.s3 import Store
from tests import s3 as s3_server
from tests.cluster import namespaces, raylets
from tests.conftest import Bucket
from tests.media import make_video
from tests.secrets import found_in

TOKEN = "the-token-of-this-cluster-0123456789"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "AGAIN_S", 0.01)
    monkeypatch.setattr(submit, "POLL_S", 0.01)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def port() -> Iterator[int]:
    """Of something on loopback that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_this_machine_is_talked_to_without_encryption(port: int) -> None:
    assert check_address(f"http://127.0.0.1:{port}/", allow_http=False) == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "host", ["10.0.0.7", "head", "127.0.0.1.example.com", "[2001:db8::1]", "0.0.0.0", "localhost.localdomain"]
)
def test_plain_http_to_another_machine_is_refused_with_its_reason(host: str) -> None:
    with pytest.raises(SubmitError, match=r"token and the config would travel in the clear.*--allow-http"):
        check_address(f"http://{host}:8265", allow_http=False)


def test_plain_http_is_taken_when_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "check_answers", lambda _: None)
    assert check_address("http://10.0.0.7:8265", allow_http=True) == "http://10.0.0.7:8265"
    assert check_address("https://head.example.com", allow_http=False) == "https://head.example.com"


def test_a_proxy_that_would_read_the_token_is_refused(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.com:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(SubmitError, match=r"set NO_PROXY=127.0.0.1"):
        check_address(f"http://127.0.0.1:{port}", allow_http=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    check_address(f"http://127.0.0.1:{port}", allow_http=False)


@pytest.mark.parametrize(
    "address", ["head:8265", "ray://head:10001", "auto", "", "http://", "http://h:port", "ftp://h"]
)
def test_an_address_that_is_none_of_a_jobs_api_is_said(address: str) -> None:
    with pytest.raises(SubmitError, match=r"write http://127.0.0.1:8265"):
        check_address(address, allow_http=True)


def test_a_secret_in_the_address_is_not_repeated() -> None:
    with pytest.raises(SubmitError) as raised:
        check_address("https://me:hunter2hunter2@head", allow_http=False)
    assert "hunter2" not in str(raised.value)


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(SubmitError, match=r"no Ray cluster answers at 127.0.0.1:1"):
        check_address("http://127.0.0.1:1", allow_http=False)


def test_a_token_that_cannot_be_read_is_said_before_ray_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(SubmitError, match=r"RAY_AUTH_TOKEN_PATH.*No such file"):
        check_token_file()
    (tmp_path / "token").write_text("\n")
    with pytest.raises(SubmitError, match="it is empty"):
        check_token_file()
    (tmp_path / "token").write_text(TOKEN)
    check_token_file()


@pytest.mark.parametrize("bad", ["", "../jobs", "a/b", "a?b", "-x", "a b"])
def test_an_id_is_no_path(bad: str) -> None:
    with pytest.raises(SubmitError):
        check_id(bad)
    assert check_id(submit.new_submission_id()).startswith("reelmap-20")


def ended(status: JobStatus, code: int | None = None, error: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(status=status, driver_exit_code=code, error_type=error)


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (ended(JobStatus.SUCCEEDED, 0), 0),
        (ended(JobStatus.FAILED, 1), 1),
        (ended(JobStatus.FAILED, 2), 2),
        (ended(JobStatus.FAILED, 3), 3),
        (ended(JobStatus.FAILED, 130), 130),
        (ended(JobStatus.STOPPED), 130),
        (ended(JobStatus.FAILED, 127), 2),  # the shell found no reelmap
        (ended(JobStatus.FAILED, -9), 1),
        (ended(JobStatus.FAILED, None, "RUNTIME_ENV_SETUP_FAILURE"), 2),
        (ended(JobStatus.FAILED, None, "JOB_SUPERVISOR_ACTOR_DIED"), 1),
    ],
)
def test_what_the_job_ends_with_is_what_the_command_ends_with(job: SimpleNamespace, code: int) -> None:
    assert exit_code(job) == code


class Head:
    """A Jobs API whose connections break: each attempt gives the log from its start, up to a point."""

    LOG = "one\ntwo\nthree\n"

    def __init__(self, *lengths: int | None):
        self.lengths = list(lengths)  # None: all of it, and then the job has ended

    def get_address(self) -> str:
        return "http://127.0.0.1:1"

    def get_job_info(self, _: str) -> SimpleNamespace:
        return ended(JobStatus.RUNNING if self.lengths else JobStatus.SUCCEEDED, 0)

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        length = self.lengths.pop(0) if self.lengths else None
        yield self.LOG[:length]
        if length is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly")


@pytest.mark.parametrize("lengths", [(), (None,), (0, None), (5, 9, None), (9, 5, 14, None)])
def test_every_line_is_shown_once_whatever_happens_to_the_connection(lengths: tuple) -> None:
    shown: list[str] = []
    job = follow(Head(*lengths), "reelmap-x", shown.append)
    assert "".join(shown) == Head.LOG
    assert job.status == JobStatus.SUCCEEDED


def test_a_log_that_was_followed_for_long_and_is_cut_goes_on_while_the_head_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submit, "AWAY_S", 0.05)
    head = Head(5, 9, None)

    async def slow(_: str) -> AsyncIterator[str]:
        await asyncio.sleep(0.1)
        async for text in Head.tail_job_logs(head, _):
            yield text

    monkeypatch.setattr(head, "tail_job_logs", slow)
    assert follow(head, "reelmap-x", lambda _: None).status == JobStatus.SUCCEEDED


def test_a_head_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "AWAY_S", 0.2)
    head, asked = Head(3), []

    def gone(_: str) -> SimpleNamespace:
        asked.append(time.monotonic())
        if len(asked) == 1:
            return ended(JobStatus.RUNNING)
        raise requests.exceptions.ConnectionError("nobody listens")

    monkeypatch.setattr(head, "get_job_info", gone)
    with pytest.raises(SubmitError, match="no Jobs API answers"):
        follow(head, "reelmap-x", lambda _: None)
    assert asked[-1] - asked[0] > submit.AWAY_S
    assert len(asked) > 2


def command(cluster: raylets.Cluster, *arguments: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments, "--address", cluster.address, "--allow-http"],
        env={name: value for name, value in cluster.env.items() if not name.startswith("RAY_AUTH")} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fill(s3: Bucket, bundle: str, folder: Path) -> tuple[list[str], str]:
    """Uploads the videos of TEST_VIDEOS, or some made ones, to in/: their URIs, and settings for them."""
    if there := os.environ.get("TEST_VIDEOS"):
        videos, settings = sorted(Path(there).glob("*.mp4")), "cut: {target: 20s}\n"
    else:
        videos = [make_video(folder / f"{number}.mp4", seconds=5, shots=2).path for number in range(6)]
        settings = f"bundle: {bundle}\ncut: {{target: 3s}}\n"
    for video in videos:
        s3.client().upload_file(str(video), s3.name, f"in/{video.name}")
    return [f"{s3.uri}/in/{video.name}" for video in videos], settings


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["loopback", "namespaces"])
def test_a_submitted_job_publishes_all_though_a_raylet_dies_half_way(
    where: str, s3: Bucket, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = s3.env["AWS_SECRET_ACCESS_KEY"]
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with ExitStack() as stack:
        if where == "loopback":
            cluster = stack.enter_context(raylets.serve(workers=2, cpus=2, head_cpus=2, env=s3.env | auth))
        else:
            if why := namespaces.why_not():
                pytest.skip(why)
            ours, machines = stack.enter_context(namespaces.machines(2))
            endpoint = stack.enter_context(s3_server.serve(ours))
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            Store.clear_instance_cache()
            s3.env["AWS_ENDPOINT_URL"] = endpoint
            s3.client().create_bucket(Bucket=s3.name)
            cluster = stack.enter_context(raylets.head(ours, 2, s3.env | auth))
            for number, machine in enumerate(machines, 1):
                raylets.start_worker(cluster, f"worker{number}", machine.ip, 2, machine.prefix)
        videos, settings = fill(s3, bundle, tmp_path)
        config = tmp_path / "nightly.yaml"
        config.write_text(f"source: {s3.uri}/in\noutput: {s3.uri}/out\n{settings}")
        began = time.monotonic()
        follower = command(cluster, "submit", str(config), "--follow", **auth)
        stack.callback(follower.kill)
        while ok(f"{s3.uri}/out").total() < len(videos) // 3 and follower.poll() is None:
            time.sleep(0.5)
        before = ok(f"{s3.uri}/out").total()
        cluster.kill("worker1")
        out, said = follower.communicate(timeout=1500)
        print(
            f"{where}: killed after {before} of {len(videos)}; {time.monotonic() - began:.0f} s\n{out}{said}"
        )
        assert follower.returncode == 0, out + said
        assert before < len(videos)
        assert f"{len(videos)} ok, 0 dropped, 0 failed" in out
        assert ok(f"{s3.uri}/out") == Counter(videos)

        client = subprocess.run(
            [sys.executable, "-c", DETAILS, cluster.address],
            env=cluster.env | auth,
            capture_output=True,
            text=True,
            check=True,
        )
        (job,) = json.loads(client.stdout)
        assert job["submission_id"] in said
        for text in (client.stdout, out, said):
            assert secret not in text
            assert TOKEN not in text
        assert found_in(f"{s3.uri}/out", [secret, TOKEN]) == []


DETAILS = """
import json, sys
from ray.job_submission import JobSubmissionClient
print(json.dumps([job.dict() for job in JobSubmissionClient(sys.argv[1]).list_jobs() if job.submission_id]))
"""


def ok(output: str) -> Counter[str]:
    """How many published rows each source has."""
    found = tables.current(output)
    if not len(found):
        return Counter()
    return Counter(row["uri"] for row in tables.read(output, "videos").to_pylist() if row["status"] == "ok")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tokens_and_a_job_that_is_stopped(bundle: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        make_video(tmp_path / "in" / f"{number}.mp4", seconds=4, shots=2)
    config = tmp_path / "nightly.yaml"
    places = f"source: {tmp_path}/in\noutput: {tmp_path}/out\nbundle: {bundle}\n"
    config.write_text(places)
    (tmp_path / "token").write_text(TOKEN)
    right = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with raylets.serve(workers=0, head_cpus=8, env=auth) as cluster:

        def run(*arguments: str, **env: str) -> tuple[int, str]:
            process = command(cluster, *arguments, HOME=str(tmp_path), **env)
            out, said = process.communicate(timeout=300)
            return process.returncode, out + said

        assert run("jobs", **right) == (0, "no jobs were submitted to this cluster\n")
        code, said = run("jobs", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="another-token-0123456789")
        assert (code, "does not accept the token" in said, "another" in said) == (2, True, False)
        code, said = run("submit", str(config))
        assert (code, "wants a token: set RAY_AUTH_MODE=token" in said) == (2, True)
        # Ray's own variables do not send the job elsewhere.
        code, said = run("submit", str(config), RAY_ADDRESS="10.255.255.1:6379", **right)
        assert code == 0, said
        submission_id = said.split()[1].rstrip(":")
        assert run("logs", "reelmap-nothing", **right)[0] == 2

        following = command(cluster, "logs", submission_id, "--follow", **right)
        while "2 videos" not in following.stdout.readline():
            assert following.poll() is None
        time.sleep(3)
        code, said = run("stop", submission_id, **right)
        assert (code, "was stopped" in said) == (0, True)
        assert following.wait(60) == 130
        code, said = run("logs", submission_id, **right)
        assert code == 0
        assert "interrupted: what is finished stays" in said or "Running entrypoint" in said
        assert "STOPPED" in run("jobs", **right)[1]
        assert "had ended before" in run("stop", submission_id, **right)[1]
