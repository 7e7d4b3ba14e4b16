"""Fixtures that more than one folder of tests needs."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest
from s3fs import S3FileSystem

from cluster.connect import connection
from tests import s3 as s3_server
from tests.bundles import make_bundle


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket; `env` holds what reaches it, and is set in this process while the test runs."""

    uri: str
    name: str
    env: dict[str, str]

    def client(self):
        return boto3.client("s3")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """TEST_S3_ENDPOINT=http://... runs the tests on a server that is there already, with the keys below."""
    if endpoint := os.environ.get("TEST_S3_ENDPOINT"):
        yield endpoint
        return
    with s3_server.serve() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    env = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "testkey",
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
    S3FileSystem.clear_instance_cache()
    name = f"test-{secrets.token_hex(6)}"
    bucket = Bucket(f"s3://{name}", name, env)
    bucket.client().create_bucket(Bucket=name)
    yield bucket
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local Ray for all tests that need one, started as a run on this machine starts it."""
    with connection(None):
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A whole bundle of untrained networks."""
    return make_bundle(str(tmp_path_factory.mktemp("bundle")))
