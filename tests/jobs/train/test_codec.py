"""The training of the codec: where it starts, what it measures, what it writes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from jobs.train import rate_distortion
from jobs.train.codec import Train, loss_of, same_shape, sample, start_linear, video_frames
from jobs.train.loop import run_training
from stages.compress import CodecSettings, Compress, Decompress
from stages.nn.codec import build_codec
from stages.nn.weights import Bundle, open_bundle
from tests.media import make_video
from tests.stages.nn.test_codec import SMALL, pictures
from tests.stages.test_compress import bundle


@pytest.fixture(autouse=True)
def few_qualities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_distortion, "QUALITIES", {"jpeg": (20, 80), "webp": (20, 80)})


def photographs(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures(count, 96, 128)):
        cv2.imwrite(str(folder / f"{i:02}.png"), picture)


@pytest.mark.parametrize("kind", SMALL)
def test_training_starts_as_a_transform_and_its_inverse(kind):
    torch.manual_seed(0)
    net = build_codec(kind, SMALL[kind])
    x = torch.from_numpy(pictures(8, 64, 64)).permute(0, 3, 1, 2) / 255
    start_linear(net, x)
    with torch.no_grad():
        rebuilt = net.synthesis(net.analysis(x))
    # The eight or sixteen strongest of 768 components hold nearly all of a smooth picture.
    assert (rebuilt - x).square().mean() < 0.1 * (x - x.mean()).square().mean()


def test_frames_of_a_video_are_spread_over_it_and_a_broken_file_has_none(tmp_path: Path):
    make_video(tmp_path / "a.mp4", seconds=4.0)
    frames = list(video_frames(tmp_path / "a.mp4", 4))
    assert 4 <= len(frames) <= 5
    assert all(frame.shape[0] == 288 for frame in frames)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1
    (tmp_path / "b.mp4").write_bytes(b"no video")
    assert list(video_frames(tmp_path / "b.mp4", 4)) == []


@pytest.mark.parametrize("kind", ["hyperprior", "vqvae"])
def test_a_training_writes_a_codec_that_the_stage_runs(tmp_path: Path, kind: str):
    photographs(tmp_path / "data" / "photos", 8)
    out = str(tmp_path / "bundle")
    overrides = {
        "kind": kind,
        "videos": "",
        "batch": 2,
        "crop_px": 64,
        "steps": 3,
        "workers": 0,
        "measure_px": 192,
        "bf16": False,
    }
    card = run_training("codec", str(tmp_path / "data"), out, None, overrides, str(tmp_path / "work"))
    assert card["kind"] == kind
    quality = card["quality"]["photos"]
    assert [rate["rate"] for rate in quality["rates"]] == list(range(len(quality["rates"])))
    assert all(rate["bpp"] > 0 and rate["encode_ms"] > 0 for rate in quality["rates"])
    assert set(quality["bd_rate"]) == {"jpeg", "webp"}
    models = open_bundle(out)
    codes = Compress(CodecSettings(kind=kind, rate=1), models)({"frames": pictures(2)})["codes"]
    assert Decompress(models)(codes).shape == (2, 64, 128, 3)
    # A second training goes on from the first one's weights.
    again = str(tmp_path / "again")
    run_training("codec", str(tmp_path / "data"), again, out, overrides, str(tmp_path / "work2"))
    assert open_bundle(again).card("codec")["trained"]["from"] == models.key()


def test_a_batch_has_its_share_of_photographs_however_many_there_are():
    still, moving = [np.zeros((80, 80, 3), np.uint8)], [np.full((80, 80, 3), 255, np.uint8)] * 50
    settings, rng = Train(photo_share=0.75, crop_px=64), np.random.default_rng(0)
    batches = torch.cat([sample(still, moving, 8, settings, rng) for _ in range(50)])
    assert (batches == 0).all((1, 2, 3)).float().mean().item() == pytest.approx(0.75, abs=0.06)
    assert len(sample(still, [], 8, settings, rng)) == 8


def test_no_rate_outweighs_the_others():
    net = build_codec("hyperprior", SMALL["hyperprior"])
    x = torch.from_numpy(pictures(3, 64, 64)).permute(0, 3, 1, 2) / 255

    def called(x, rate):
        # A loss that grows with the square root of lambda.
        noise = torch.linspace(-1, 1, 64) * 0.1 * 2.0 ** (-0.25 * rate[:, None, None, None])
        return x + noise, 64 * 64 * 2.0 ** (0.5 * rate), x.new_zeros(())

    torch.manual_seed(0)
    losses = [loss_of(net, called, x[:1], Train(), half=False)[0].item() for _ in range(20)]
    assert losses == pytest.approx([losses[0]] * 20, rel=1e-4)


def test_only_a_codec_of_the_same_shape_is_gone_on_with(tmp_path: Path):
    start = bundle(tmp_path, "hyperprior")
    assert same_shape(build_codec("hyperprior", SMALL["hyperprior"]), start)
    assert not same_shape(build_codec("hyperprior", {}), start)
    assert not same_shape(build_codec("vqvae", SMALL["vqvae"]), start)
    assert not same_shape(build_codec("vqvae", SMALL["vqvae"]), Bundle("none", {}))
