"""`reelmap proxies`: every stored frame at its time, in PNGs or a film, or plain words."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from jobs import cli
from pipeline.tables import write_part
from stages.compress import CodecSettings, Compress, Decompress
from stages.nn.weights import open_bundle
from tests.bundles import make_bundle
from tests.pipeline import made_up
from tests.stages.nn.test_codec import pictures

TIMES_S = [0.5, 1.0, 1.533367, 62.25]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, bundle: str) -> Path:
    """An OUTPUT with one video that has proxies, one without, and one that failed."""
    output = tmp_path_factory.mktemp("archive")
    models = open_bundle(bundle)
    good, bare, failed = (
        made_up.result(name, status=status, uri=f"s3://library/{name}.mp4")
        for name, status in (("good", "ok"), ("bare", "ok"), ("failed", "failed"))
    )
    codes = Compress(CodecSettings(rate=3), models)({"frames": pictures(4, 64, 64)})["codes"]
    good["proxies"] = [
        {
            "video_id": "good",
            "settings_key": "k1",
            "sample": i,
            "time_s": time_s,
            "kind": "hyperprior",
            "codec_sha256": models.card("codec")["sha256"],
            "code": code,
        }
        for i, (time_s, code) in enumerate(zip(TIMES_S, codes, strict=True))
    ]
    bare["proxies"] = []
    write_part(str(output), "part", made_up.tables(good, bare, failed))
    return output


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, ["proxies", *map(str, arguments)])


def decoded(bundle: str) -> np.ndarray:
    models = open_bundle(bundle)
    return Decompress(models)(
        Compress(CodecSettings(rate=3), models)({"frames": pictures(4, 64, 64)})["codes"]
    )


def test_pngs_are_named_by_their_time_and_hold_what_was_stored(archive: Path, bundle: str, tmp_path: Path):
    result = run(archive, "good", "--out", tmp_path / "frames", "--bundle", bundle, "--square")
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "frames").iterdir())
    assert [float(file.stem) for file in files] == TIMES_S
    for file, frame in zip(files, decoded(bundle), strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), frame)


def test_pngs_have_the_shape_of_the_video(archive: Path, bundle: str, tmp_path: Path):
    assert run(archive, "good", "--out", tmp_path / "frames", "--bundle", bundle).exit_code == 0
    sizes = {Image.open(file).size for file in (tmp_path / "frames").iterdir()}
    assert sizes == {(round(64 * 1920 / 1080), 64)}


def test_a_film_has_the_times_of_the_frames_and_the_shape_of_the_video(
    archive: Path, bundle: str, tmp_path: Path
):
    file = tmp_path / "proxies.mp4"
    assert run(archive, "good.mp4", "--out", file, "--bundle", bundle).exit_code == 0
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        shape = stream.codec_context.sample_aspect_ratio * stream.width / stream.height
    assert [frame.time for frame in frames] == pytest.approx(TIMES_S, abs=1e-6)
    assert float(shape) == pytest.approx(1920 / 1080, rel=1e-3)
    for frame, pixels in zip(frames, decoded(bundle), strict=True):
        # An untrained network makes noise, and a film halves its colours: compare coarse pixels.
        small = [
            cv2.resize(p, (8, 8), interpolation=cv2.INTER_AREA)
            for p in (frame.to_ndarray(format="rgb24"), pixels)
        ]
        assert np.abs(np.subtract(*small, dtype=int)).mean() < 6


@pytest.mark.parametrize(
    ("video", "words"),
    [("other", "no video is called other"), ("failed", "it was failed"), ("bare", "no proxies of")],
)
def test_a_video_without_proxies_is_named_with_the_reason(
    archive: Path, bundle: str, tmp_path: Path, video: str, words: str
):
    result = run(archive, video, "--out", tmp_path / "frames", "--bundle", bundle)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "frames").exists()


def test_another_bundle_than_that_which_made_the_proxies_is_refused(archive: Path, tmp_path: Path):
    other = make_bundle(str(tmp_path / "other"), seed=1)
    result = run(archive, "good", "--out", tmp_path / "frames", "--bundle", other)
    assert result.exit_code == 2
    assert "made by another codec" in result.output
    assert "--bundle" in result.output


def test_an_empty_output_says_so(tmp_path: Path):
    result = run(tmp_path, "good", "--out", tmp_path / "frames")
    assert result.exit_code == 2
    assert "no results" in result.output
