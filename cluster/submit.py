"""Jobs on a cluster that is there: sent, followed, listed and stopped through Ray's Jobs API (HTTP).

With RAY_AUTH_MODE=token, Ray's client sends the token of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or
~/.ray/auth_token with every request. It travels as it is: only HTTPS and the loopback of this machine are
safe.
"""

import asyncio
import ipaddress
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from cluster.connect import check_answers, environment

SUCCEEDED, FAILED, NOT_STARTED, STOPPED = 0, 1, 2, 130
# The exit codes of `reelmap archive`: these, 3 (some is left) and 4 (another run is at it). Any other is that
# of a shell or of a signal.
KNOWN_CODES = (SUCCEEDED, FAILED, NOT_STARTED, 3, 4, STOPPED)
NOT_FOUND = 127  # of a shell: there is no such command
# Ray kills a stopped job after 3 s if not told otherwise: too soon to write the record and give up the lease.
STOP_WAIT_S = 60
POLL_S = 0.5
AGAIN_S = 2.0  # between attempts to reach the head
AWAY_S = 300  # how long a head may be out of reach while it is followed, or take no jobs after its start
NOT_YET = "No available agent to submit job"  # what Ray answers until its agent runs
# They log uploads and closed connections, beside what we say ourselves.
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class SubmitError(Exception):
    """It could not be done; the message says why and what to do, and holds no secret."""


def check_address(address: str, allow_http: bool) -> str:
    """The address of a Jobs API as it is used. Raises SubmitError for one that would give away the token."""
    url = urlsplit(address.strip())
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if url.scheme not in ("http", "https") or not host:
        raise SubmitError(
            "--address is the address of Ray's dashboard: write http://127.0.0.1:8265 or https://HOST"
        )
    if url.username or url.password or url.query or url.fragment:
        raise SubmitError(
            "--address holds more than host, port and path: a token belongs into RAY_AUTH_TOKEN_PATH"
        )
    if url.scheme == "http" and not is_loopback(host) and not allow_http:
        raise SubmitError(
            f"http://{host} is not encrypted: the token and the config would travel in the clear, and "
            "whoever reads the token can run code on the cluster. Use https://, or forward the port and "
            f"submit to http://127.0.0.1:8265 (ssh -L 8265:127.0.0.1:8265 {host}, or kubectl port-forward), "
            "or allow it with --allow-http on a network that you trust"
        )
    proxies = requests.utils.get_environ_proxies(address)
    if proxies.get(url.scheme) or proxies.get("all"):
        if url.scheme == "http":
            raise SubmitError(
                f"the proxy of HTTP_PROXY would read what is sent to {host}: set NO_PROXY={host}"
            )
    else:
        try:
            check_answers(f"{host}:{port or (443 if url.scheme == 'https' else 80)}")
        except ConnectionError as error:
            raise SubmitError(f"{error}: is the head up, and its dashboard port (8265) forwarded?") from error
    return address.strip().rstrip("/")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may mean another machine tomorrow


def connect(address: str, allow_http: bool = False) -> JobSubmissionClient:
    """Raises SubmitError where there is no Jobs API, or it does not let us in."""
    address = check_address(address, allow_http)
    check_token_file()
    for module in TALKATIVE:
        logging.getLogger(module).setLevel(logging.WARNING)
    # Ray would go to the address of these variables, whatever it is given.
    with in_words(address), environment({"RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None}):
        return JobSubmissionClient(address, verify=os.environ.get("REQUESTS_CA_BUNDLE") or True)


def check_token_file() -> None:
    """Ray ends the whole process, without a word to us, when it cannot read the file of a token."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN") or not path:
        return
    try:
        if Path(path).read_text().strip():
            return
        why = "it is empty"
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
    raise SubmitError(f"cannot read the token in {path} (RAY_AUTH_TOKEN_PATH): {why}")


@contextmanager
def in_words(address: str) -> Iterator[None]:
    """What Ray's client and the libraries below it raise, as SubmitError."""
    host = urlsplit(address).hostname
    try:
        yield
    except AuthenticationError as error:
        raise SubmitError(refused(error.message, host)) from error
    except (requests.exceptions.JSONDecodeError, requests.exceptions.HTTPError, KeyError) as error:
        raise SubmitError(f"what answers at {host} is not Ray's Jobs API: check --address") from error
    except (ConnectionError, requests.exceptions.RequestException, aiohttp.ClientError) as error:
        if isinstance(error, requests.exceptions.SSLError) or isinstance(
            error.__context__, requests.exceptions.SSLError
        ):
            why = "its certificate is not trusted here: set REQUESTS_CA_BUNDLE to that of its authority"
        else:
            why = "is the head up, and its dashboard port (8265) open or forwarded?"
        raise SubmitError(f"no Jobs API answers at {host}: {why}") from error
    except RuntimeError as error:
        if "status code 404" in str(error) or "does not exist" in str(error):
            raise SubmitError(f"there is no such job at {host}: `reelmap jobs` lists them") from error
        raise SubmitError(f"the Jobs API at {host} refused: {first_line(error)}") from error


def refused(message: str, host: str | None) -> str:
    """What to do about a token that is missing (401) or wrong (403)."""
    if message.startswith("Authentication required"):
        return (
            f"{host} wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that holds "
            "it (or RAY_AUTH_TOKEN, or keep it in ~/.ray/auth_token)"
        )
    return (
        f"{host} does not accept the token: it is not the one that the cluster was started with; check "
        "RAY_AUTH_TOKEN, which goes before RAY_AUTH_TOKEN_PATH, which goes before ~/.ray/auth_token"
    )


def new_submission_id() -> str:
    """Sorts by time, and says on a shared cluster whose kind of job it is."""
    return f"reelmap-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def check_id(submission_id: str) -> str:
    """It becomes a part of a path. Raises SubmitError."""
    if not _ID.fullmatch(submission_id):
        raise SubmitError(f"{submission_id!r} is not the id of a job: `reelmap jobs` lists them")
    return submission_id


def send(
    client: JobSubmissionClient,
    entrypoint: str,
    runtime_env: dict[str, Any],
    metadata: dict[str, str],
) -> str:
    """The id of the new job. A cluster that has just started, and takes no jobs yet, is waited for."""
    kept = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
    runtime_env = runtime_env | {"env_vars": kept | runtime_env.get("env_vars", {})}
    submission_id, until = new_submission_id(), time.monotonic() + AWAY_S
    with in_words(client.get_address()):
        while True:
            try:
                return client.submit_job(
                    entrypoint=entrypoint,
                    runtime_env=runtime_env,
                    metadata=metadata,
                    submission_id=submission_id,
                )
            except ValueError as error:  # a working directory that is too large, say
                raise SubmitError(f"the job cannot be sent: {first_line(error)}") from error
            except RuntimeError as error:
                if NOT_YET not in str(error):
                    raise
                if time.monotonic() > until:
                    raise SubmitError(
                        "the head takes no jobs, its agent does not answer: see dashboard_agent.log there. "
                        "If another Ray of that machine has its port, start this one with "
                        "--dashboard-agent-listen-port"
                    ) from error
                time.sleep(AGAIN_S)


def details(client: JobSubmissionClient, submission_id: str) -> JobDetails:
    with in_words(client.get_address()):
        return client.get_job_info(submission_id)


def listed(client: JobSubmissionClient) -> list[JobDetails]:
    """The submitted jobs that the cluster remembers, oldest first."""
    with in_words(client.get_address()):
        found = [job for job in client.list_jobs() if job.submission_id]
    return sorted(found, key=lambda job: job.start_time or 0)


def log_of(client: JobSubmissionClient, submission_id: str) -> str:
    with in_words(client.get_address()):
        return client.get_job_logs(submission_id)


def follow(client: JobSubmissionClient, submission_id: str, write: Callable[[str], None]) -> JobDetails:
    """Writes the log as it grows, until the job has ended; a head that is out of reach is waited for."""
    written, reached = 0, time.monotonic()
    while True:
        try:
            job = details(client, submission_id)
            written = asyncio.run(_tail(client, submission_id, write, written))
            if job.status.is_terminal():  # before the log was read to its end
                return job
            reached = time.monotonic()
            time.sleep(POLL_S)
        except _Broken as error:
            # Of a head that had answered just before: a log that comes for hours is cut in the end.
            written, reached = error.written, time.monotonic()
            time.sleep(AGAIN_S)
        except SubmitError as error:
            if not isinstance(error.__cause__, (ConnectionError, requests.exceptions.ConnectionError)):
                raise
            if time.monotonic() - reached > AWAY_S:
                raise
            time.sleep(AGAIN_S)


class _Broken(Exception):
    """The connection that the log comes over was cut; so much of it was written."""

    def __init__(self, written: int):
        super().__init__(written)
        self.written = written


async def _tail(
    client: JobSubmissionClient, submission_id: str, write: Callable[[str], None], written: int
) -> int:
    """Writes the log after its first `written` characters, as it always comes from its beginning."""
    seen = 0
    try:
        async for text in client.tail_job_logs(submission_id):
            if seen + len(text) > written:
                write(text[max(0, written - seen) :])
            seen += len(text)
            written = max(written, seen)
    except (aiohttp.ClientError, RuntimeError, OSError) as error:
        raise _Broken(written) from error
    return written


def stop(client: JobSubmissionClient, submission_id: str) -> tuple[bool, JobDetails]:
    """Whether it was running, and the job after it has ended, or after the time that it is given."""
    with in_words(client.get_address()):
        was_running = client.stop_job(submission_id)
    until = time.monotonic() + STOP_WAIT_S + 10
    job = details(client, submission_id)
    while not job.status.is_terminal() and time.monotonic() < until:
        time.sleep(AGAIN_S)
        job = details(client, submission_id)
    return was_running, job


def exit_code(job: JobDetails) -> int:
    """What `reelmap archive` ended with on the cluster, as if it had run here."""
    if job.status == JobStatus.SUCCEEDED:
        return SUCCEEDED
    if job.status == JobStatus.STOPPED:
        return STOPPED
    if job.driver_exit_code is None:
        return FAILED if str(job.error_type or "").endswith("DIED") else NOT_STARTED
    if job.driver_exit_code == NOT_FOUND:
        return NOT_STARTED
    return job.driver_exit_code if job.driver_exit_code in KNOWN_CODES else FAILED


def first_line(error: Exception) -> str:
    """The line of an error that says why: of a trace, its last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if "Traceback" in str(error) else " ".join(lines[:1])) if lines else repr(error)
