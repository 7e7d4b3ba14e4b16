"""The compress stage: rows in, codes out, and the right words for the wrong bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.compress import CodecSettings, Compress, Decompress
from stages.nn.codec import build_codec, storable
from stages.nn.entropy import CodecError
from stages.nn.weights import Bundle, BundleError, open_bundle, save_model
from tests.stages.nn.test_codec import SMALL, pictures


def bundle(folder: Path, kind: str) -> Bundle:
    torch.manual_seed(0)
    net = build_codec(kind, SMALL[kind])
    net.freeze()
    card = {"kind": kind, "settings": net.settings.model_dump(mode="json"), "trained": {}, "quality": {}}
    save_model(str(folder), "codec", storable(net), card)
    return open_bundle(str(folder))


@pytest.mark.parametrize("kind", SMALL)
def test_every_frame_of_a_row_becomes_a_code_and_keys_decode_alone(tmp_path: Path, kind: str):
    models = bundle(tmp_path, kind)
    row = {"video_id": "v", "frames": pictures(3, 64, 64)}
    out = Compress(CodecSettings(kind=kind, rate=1, key_every=1), models)(row)
    assert out["video_id"] == "v"
    assert len(out["codes"]) == 3
    decode = Decompress(models)
    together = decode(out["codes"])
    assert together.shape == (3, 64, 64, 3)
    assert together.dtype == np.uint8
    last = decode(out["codes"][2:])
    assert np.abs(together[2:].astype(int) - last).max() <= 1


@pytest.mark.filterwarnings("error")
def test_frames_that_may_not_be_written_to_are_read(tmp_path: Path):
    frames = pictures(2, 64, 64)
    frames.flags.writeable = False
    stage = Compress(CodecSettings(rate=0), bundle(tmp_path, "hyperprior"))
    assert len(stage({"frames": frames})["codes"]) == 2


def test_without_a_codec_there_are_no_codes_and_no_bundle_is_needed():
    row = {"frames": pictures(2)}
    none = Bundle(uri="nowhere", models={})
    assert Compress(CodecSettings(kind="none"), none)(row)["codes"] == []


def test_a_row_without_frames_has_no_codes(tmp_path: Path):
    stage = Compress(CodecSettings(), bundle(tmp_path, "hyperprior"))
    assert stage({"frames": np.zeros((0, 64, 64, 3), np.uint8)})["codes"] == []


def test_a_bundle_of_another_kind_says_what_to_set(tmp_path: Path):
    with pytest.raises(BundleError, match=r"set codec\.kind to vqvae"):
        Compress(CodecSettings(kind="hyperprior"), bundle(tmp_path, "vqvae"))


def test_a_rate_that_the_codec_lacks_is_refused_at_the_start(tmp_path: Path):
    with pytest.raises(ValueError, match="rates 0 to 2"):
        Compress(CodecSettings(rate=7), bundle(tmp_path, "hyperprior"))


def test_damaged_weights_are_refused(tmp_path: Path):
    models = bundle(tmp_path, "hyperprior")
    file = tmp_path / "codec.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(BundleError, match="not the file"):
        Decompress(models)


def test_weights_of_other_settings_are_refused(tmp_path: Path):
    models = bundle(tmp_path, "hyperprior")
    state = models.state("codec")
    del state["gain"]
    save_model(str(tmp_path), "codec", state, models.card("codec") | {"requires": ()})
    with pytest.raises(BundleError, match="gain"):
        Decompress(open_bundle(str(tmp_path)))


def test_a_codec_of_an_older_shape_says_what_to_do(tmp_path: Path):
    models = bundle(tmp_path, "hyperprior")
    old = models.card("codec") | {"settings": {"widths": [48, 96], "rates": 4}, "requires": ()}
    save_model(str(tmp_path), "codec", models.state("codec"), old)
    with pytest.raises(BundleError, match="train it anew"):
        Decompress(open_bundle(str(tmp_path)))


def test_codes_of_unlike_sizes_are_not_stacked(tmp_path: Path):
    models = bundle(tmp_path, "hyperprior")
    stage = Compress(CodecSettings(rate=0), models)
    codes = [stage({"frames": pictures(1, 64, width)})["codes"][0] for width in (64, 128)]
    with pytest.raises(CodecError, match="2 different sizes"):
        Decompress(models)(codes)


def test_the_bundle_that_ships_holds_the_default_codec():
    stage = Compress(CodecSettings(), open_bundle())
    frames = pictures(2, 256, 256)
    codes = stage({"frames": frames})["codes"]
    assert max(map(len, codes)) < 0.5 * 256 * 256 / 8
    decoded = Decompress(open_bundle())(codes)
    psnr_db = 10 * np.log10(255**2 / np.square(decoded.astype(float) - frames).mean())
    assert psnr_db > 30
