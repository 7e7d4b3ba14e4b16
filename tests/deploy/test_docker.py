"""The Dockerfile: who runs, what comes in, and that nothing floats."""

import re
import shutil
import subprocess
import tomllib

import pytest

from tests.deploy.manifests import DEPLOY, ROOT, VERSION

FILE = DEPLOY / "docker" / "Dockerfile"
FINAL = ("cpu", "cuda", "launcher")


def stages(text: str) -> dict[str, list[str]]:
    """The instructions of each stage by its name, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in filter(None, (" ".join(line.split()) for line in joined.splitlines())):
        if start := re.match(r"FROM \S+ AS (\S+)$", line):
            name = start[1]
            found[name] = []
        found[name].append(line)
    return found


def faults(text: str) -> list[str]:
    wrong, parts = [], stages(text)
    for name in FINAL:
        users = [line for line in parts.get(name, []) if line.startswith("USER ")]
        if not users or not re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", users[-1]):
            wrong.append(f"{name}: no fixed user by number, which Kubernetes could tell from root")
        if parts.get(name) and not parts[name][-1].startswith("USER "):
            wrong.append(f"{name}: something comes after USER")
    images = re.findall(r"^ARG \w*IMAGE=(\S+)", text, re.MULTILINE)
    for image in images + re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        ours = image in parts or image.startswith("${")
        if not ours and not re.search(r":\d+\.\d+\.\d+[\w.-]*(@sha256:\w+)?$", image):
            wrong.append(f"{image}: floats")
    for line in (line for lines in parts.values() for line in lines):
        if re.match(r"ADD\b|.*\b(curl|wget)\b", line):
            wrong.append(f"fetched without a check: {line}")
        if "pip install" in line and "-c constraints.txt" not in line and "--no-deps --target" not in line:
            wrong.append(f"not held to the constraints: {line}")
        if (
            "pip install" in line
            and re.search(r"\btorch\b", line)
            and not re.search(r"\btorchvision\b", line)
        ):
            wrong.append(f"torch without its torchvision: {line}")
        if re.match(r"(ARG|ENV)\b.*(SECRET|TOKEN|PASSWORD|ACCESS_KEY)", line):
            wrong.append(f"a secret would stay in the image: {line}")
        if "apt-get install" in line and "--no-install-recommends" not in line:
            wrong.append(f"more than asked for: {line}")
    if f'version="{VERSION}"' not in text:
        wrong.append(f"the label is not {VERSION}")
    if "RAY_AUTH_MODE=token" not in text:
        wrong.append("Ray would start without a token")
    return wrong


def test_dockerfile_keeps_the_rules() -> None:
    assert faults(FILE.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("USER 1000:1000", "USER reelmap"),
        ("USER 1000:1000", "USER 0:0"),
        ("USER 1000:1000\n\nFROM runtime AS cuda", "\nFROM runtime AS cuda"),
        ("python:3.11.14-slim-bookworm", "python:latest"),
        ("python:3.11.14-slim-bookworm", "python:3-slim"),
        ("-c constraints.txt -r requirements.txt", "-r requirements.txt"),
        ("torch torchvision", "torch"),
        ("COPY README.md ./", "ADD https://example.com/README.md ./"),
        ("ARG TORCH_CPU_INDEX", "ARG INDEX_PASSWORD=\nARG TORCH_CPU_INDEX"),
        (f'version="{VERSION}"', 'version="0"'),
        ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        ("--no-install-recommends libgl1", "libgl1"),
    ],
)
def test_breach_is_found(old: str, new: str) -> None:
    text = FILE.read_text()
    assert old in text
    assert faults(text.replace(old, new))


def test_python_of_the_image_is_one_that_the_product_supports() -> None:
    image = re.search(r"python:(\d+)\.(\d+)", FILE.read_text())
    least = re.search(r">=(\d+)\.(\d+)", (ROOT / "pyproject.toml").read_text())
    assert (int(image[1]), int(image[2])) >= (int(least[1]), int(least[2]))


def test_image_holds_every_package_of_the_product_and_the_builder_sees_nothing_else() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name.split(".")[0] for name in tool["packages"]}
    copied = {line.split()[1] for line in stages(FILE.read_text())["reelmap"] if line.startswith("COPY ")}
    assert copied == packages | {"README.md"}
    lines = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().split("\n")
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied | {
        "pyproject.toml",
        "constraints.txt",
    }


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint")
    if not hadolint:
        pytest.skip("there is no hadolint here")
    subprocess.run([hadolint, "--config", str(FILE.with_name(".hadolint.yaml")), str(FILE)], check=True)
