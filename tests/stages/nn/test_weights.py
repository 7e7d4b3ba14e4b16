"""A bundle is read as safetensors and as nothing else, whatever it calls its files."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest

from stages.nn.weights import BundleError, open_bundle


class Canary:
    """Whoever unpickles it leaves a file behind."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.path),)


@pytest.fixture
def copy(bundle: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def describe(folder: Path, **card: str) -> None:
    """Changes what bundle.json says of the features."""
    description = json.loads((folder / "bundle.json").read_text())
    description["models"]["features"] |= card
    for model in description["models"].values():
        model["requires"] = {}
    (folder / "bundle.json").write_text(json.dumps(description))


def test_pickle_under_the_name_of_weights_is_refused_and_not_run(copy: Path, tmp_path: Path) -> None:
    data = pickle.dumps(Canary(str(tmp_path / "ran")))
    (copy / "features.safetensors").write_bytes(data)
    describe(copy, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(BundleError, match=r"features\.safetensors is not a safetensors file"):
        open_bundle(str(copy)).state("features")
    assert not (tmp_path / "ran").exists()
    pickle.loads(data)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "features.pt", "scorer.safetensors"])
def test_weights_lie_in_the_file_that_is_named_after_their_model(file: str, copy: Path) -> None:
    describe(copy, file=file)
    with pytest.raises(BundleError, match=r"not in features\.safetensors"):
        open_bundle(str(copy)).state("features")


def test_weights_that_were_changed_are_refused(copy: Path) -> None:
    path = copy / "features.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="not the file that"):
        open_bundle(str(copy)).state("features")


@pytest.mark.parametrize(
    "text",
    ["[]", "1", "null", '{"format": 2}', "{", '{"format": 1}', '{"format": 1, "models": {"codec": {}}}'],
)
def test_description_of_another_shape_is_refused(text: str, copy: Path) -> None:
    (copy / "bundle.json").write_text(text)
    with pytest.raises(BundleError):
        open_bundle(str(copy))
