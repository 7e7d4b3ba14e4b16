"""Fixtures that more than one folder of tests needs."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest

from cluster.connect import connection
from stages.s3 import RetrySettings, Store
from tests import s3 as s3_server
from tests.bundles import make_bundle
from tests.faulty_s3 import FaultyS3


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket; `env` holds what reaches it, and is set in this process while the test runs."""

    uri: str
    name: str
    env: dict[str, str]

    def client(self):
        return boto3.client("s3", endpoint_url=self.env["AWS_ENDPOINT_URL"])


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that fail on purpose are tried as often as ever, in shorter order."""
    monkeypatch.setattr("stages.s3.RETRY", RetrySettings(first_wait_s=0.02, longest_wait_s=0.1))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """TEST_S3_ENDPOINT=http://... runs the tests on a server that is there, see tests/s3_rgw.py."""
    if endpoint := os.environ.get("TEST_S3_ENDPOINT"):
        yield endpoint
        return
    with s3_server.serve() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    env = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": os.environ.get("TEST_S3_KEY", "testkey"),
        "AWS_SECRET_ACCESS_KEY": "testsecret12345",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1",
    }
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # s3fs keeps its clients by arguments, not by environment.
    Store.clear_instance_cache()
    name = f"test-{secrets.token_hex(6)}"
    bucket = Bucket(f"s3://{name}", name, env)
    bucket.client().create_bucket(Bucket=name)
    yield bucket
    Store.clear_instance_cache()


@pytest.fixture
def faulty(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A proxy that breaks requests on their way to the bucket; those of `s3.client()` go straight."""
    monkeypatch.setattr(
        "stages.s3.RETRY", RetrySettings(first_wait_s=0.02, longest_wait_s=0.1, read_timeout_s=0.5)
    )
    with FaultyS3(s3.env["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        Store.clear_instance_cache()
        yield proxy


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local Ray for all tests that need one, started as a run on this machine starts it."""
    with connection(None):
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A whole bundle of untrained networks."""
    return make_bundle(str(tmp_path_factory.mktemp("bundle")))
