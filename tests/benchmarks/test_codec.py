"""The codec's benchmark: any folder of pictures, whole sizes, and what cannot be measured is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from benchmarks import codec as benchmark
from jobs.train import rate_distortion
from tests.stages.nn.test_codec import pictures
from tests.stages.test_compress import bundle


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few qualities, and the affinity of the tests' process as it was."""
    monkeypatch.setattr(benchmark, "one_core", lambda: None)
    for module in (benchmark, rate_distortion):
        monkeypatch.setattr(module, "QUALITIES", {"jpeg": (20, 80), "webp": (20, 80)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of three formats and sizes, and three files that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "deep/er").mkdir(parents=True)
    for name, size in (("a.png", (180, 200)), ("deep/b.JPG", (50, 71)), ("deep/er/c.webp", (64, 64))):
        Image.fromarray(pictures(1, *size)[0]).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    Image.fromarray(np.zeros((8, 300, 3), np.uint8)).save(folder / "thin.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run(folder: Path, models: str, *more: str | Path) -> Result:
    return CliRunner().invoke(
        benchmark.main, ["--data", str(folder), "--bundle", models, *map(str, more)], catch_exceptions=False
    )


def test_the_results_have_the_layout_that_curves_are_laid_over_with(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    result = run(folder, bundle(tmp_path / "bundle", "hyperprior").uri, "--json", file)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert {"name", "description", "results", "bd_rate"} <= set(found)
    names = {"bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time"}
    assert set(found["results"]) == names
    assert {len(values) for values in found["results"].values()} == {3}
    assert set(found["bd_rate"]) == set(found["others"]) == {"jpeg", "webp"}
    assert set(found["others"]["jpeg"]["results"]) == names
    assert set(found["pictures"]) == {"a.png", "deep/b.JPG", "deep/er/c.webp"}
    assert found["pictures"]["a.png"]["width"] == 200
    bpp = [found["pictures"][name]["ours"]["bpp"][0] for name in found["pictures"]]
    assert found["results"]["bpp"][0] == pytest.approx(np.mean(bpp))
    # Too small for MS-SSIM, which JSON has no number for.
    assert found["pictures"]["deep/b.JPG"]["ours"]["ms-ssim-rgb"] == [None] * 3


def test_what_is_no_picture_is_listed_and_left_out(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    result = run(folder, bundle(tmp_path / "bundle", "hyperprior").uri, "--json", file)
    assert set(json.loads(file.read_text())["left_out"]) == {"broken.jpg", "thin.png"}
    assert "left out: broken.jpg: cannot be read" in result.output


def test_a_limit_takes_pictures_from_the_whole_folder(folder: Path) -> None:
    assert [path.name for path in benchmark.chosen(folder, None)] == [
        "a.png",
        "broken.jpg",
        "b.JPG",
        "c.webp",
        "thin.png",
    ]
    assert [path.name for path in benchmark.chosen(folder, 2)] == ["a.png", "b.JPG"]


def test_a_folder_without_pictures_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", bundle(tmp_path / "bundle", "hyperprior").uri)
    assert result.exit_code == 1
    assert ".jpg" in result.output


def test_a_picture_stands_as_its_camera_says(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # rotate by 90 degrees to show
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.jpg", exif=turned)
    assert benchmark.read(tmp_path / "a.jpg").shape == (60, 40, 3)
