"""compose.yaml: as the Compose specification says, no start without secrets, nothing open to the network."""

import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
from botocore.session import Session
from jsonschema import ValidationError

from tests.deploy.manifests import DEPLOY, Tree, changed, check_against, read
from tests.deploy.policy import python_fault, versions

FILE = DEPLOY / "compose.yaml"
OURS = ("buckets", "head", "worker")
DASHBOARD = 8265


def compose() -> Tree:
    return read(FILE)[0]


def faults(tree: Tree) -> list[str]:
    wrong = versions(tree)
    for name, service in tree["services"].items():
        if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service["security_opt"]:
            wrong.append(f"{name}: has rights that it does not need")
        if service.get("read_only") is not True:
            wrong.append(f"{name}: may write to its root")
        if service.get("user", "0").partition(":")[0] == "0":
            wrong.append(f"{name}: runs as root")
        wrong += [
            f"{name}: {key}" for key in ("privileged", "cap_add", "network_mode", "pid") if key in service
        ]
        wrong += [
            f"{name}: {port} is open to the network"
            for port in service.get("ports", [])
            if not port.startswith("127.0.0.1:")
        ]
        if not any(
            place.startswith("/tmp") for place in service.get("tmpfs", []) + service.get("volumes", [])
        ):
            wrong.append(f"{name}: no place for scratch")
        for key, value in service.get("environment", {}).items():
            if ("SECRET" in key or "ACCESS_KEY" in key) and not re.fullmatch(r"\$\{\w+:\?.+\}", str(value)):
                wrong.append(f"{name}: {key} is written down, or may be empty")
        for other in service.get("depends_on", {}):
            if service["depends_on"][other]["condition"] == "service_healthy":
                wrong += [f"{other}: no healthcheck"] * ("healthcheck" not in tree["services"][other])
    for name in OURS:
        environment = tree["services"][name]["environment"]
        if (
            environment.get("RAY_AUTH_MODE") != "token"
            or "ray_token" not in tree["services"][name]["secrets"]
        ):
            wrong.append(f"{name}: Ray without a token")
    if ":?" not in tree["secrets"]["ray_token"]["file"]:
        wrong.append("ray_token: may be empty")
    if "--num-cpus=0" not in tree["services"]["head"]["command"]:
        wrong.append("work may run on the head")
    if f"127.0.0.1:{DASHBOARD}:{DASHBOARD}" not in tree["services"]["head"]["ports"]:
        wrong.append("the Jobs API cannot be reached from this machine")
    gcs = next(part for part in tree["services"]["head"]["command"] if part.startswith("--port="))
    if f"--address=head:{gcs.removeprefix('--port=')}" not in tree["services"]["worker"]["command"]:
        wrong.append("workers look for the head elsewhere")
    return wrong


def test_compose_file_is_as_its_schema_says_and_keeps_the_rules() -> None:
    check_against("compose.json", compose())
    assert faults(compose()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("services/head/comand", "ray start"),
        ("services/s3/healthcheck/intervall", "5s"),
        ("services/worker/depends_on/head/condition", "healthy"),
        ("services/worker/deploy/replicas", "two"),
        ("services/head/shm_size", "2 gigabytes"),
        ("services/head/restart", "sometimes"),
        ("services/head/image", None),
        ("secret", {}),
    ],
)
def test_slip_is_found(path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        check_against("compose.json", changed(compose(), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("services/head/ports/0", "8265:8265"),
        ("services/s3/ports/0", "0.0.0.0:8333:8333"),
        ("services/worker/read_only", False),
        ("services/worker/privileged", True),
        ("services/worker/volumes/0", "scratch:/work"),
        ("services/s3/user", None),
        ("services/head/cap_drop", ["NET_RAW"]),
        ("services/head/image", "reelmap:0.0.9-cpu"),
        ("services/s3/image", "docker.io/chrislusf/seaweedfs:latest"),
        ("services/s3/healthcheck", None),
        ("services/head/environment/RAY_AUTH_MODE", "disabled"),
        ("services/head/environment/AWS_SECRET_ACCESS_KEY", "example"),
        ("services/head/environment/AWS_ACCESS_KEY_ID", "${AWS_ACCESS_KEY_ID}"),
        ("services/head/command/4", "--num-cpus=4"),
        ("services/worker/command/2", "--address=head:6380"),
        ("secrets/ray_token/file", "./ray-token"),
    ],
)
def test_breach_is_found(path: str, value: Any) -> None:
    assert faults(changed(compose(), path, value))


def test_example_of_the_settings_names_every_variable_and_no_value_of_a_secret() -> None:
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(re.findall(r"\$\{(\w+)", FILE.read_text())) == set(example)
    needed = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    assert needed == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_TOKEN_FILE"}
    assert {example[name] for name in needed} == {""}
    assert {".env", "ray-token"} <= set((DEPLOY / ".gitignore").read_text().split())


def test_programs_in_it_parse() -> None:
    services = compose()["services"]
    programs = [
        services["buckets"]["command"][-1],
        *(services[name]["healthcheck"]["test"][-1] for name in ("head", "worker")),
    ]
    assert [python_fault(program) for program in programs] == ["", "", ""]
    assert python_fault("import urllib.request as")


def test_program_makes_the_buckets_once(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ENDPOINT_URL", s3_endpoint), ("AWS_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    program = compose()["services"]["buckets"]["command"][-1]
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    there = {bucket["Name"] for bucket in Session().create_client("s3").list_buckets()["Buckets"]}
    assert {"library", "reels"} <= there


def test_docker_compose_reads_it(tmp_path: Any) -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("there is no docker compose here")
    config = [docker, "compose", "--file", str(FILE), "--env-file"]
    empty = subprocess.run([*config, str(DEPLOY / ".env.example"), "config", "--quiet"], capture_output=True)
    assert empty.returncode, "it would start without keys"
    filled = tmp_path / "env"
    filled.write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\nRAY_TOKEN_FILE=/dev/null\n")
    subprocess.run([*config, str(filled), "config", "--quiet"], check=True)
