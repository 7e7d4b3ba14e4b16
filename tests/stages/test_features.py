from pathlib import Path

import numpy as np
import pytest
import torch

from stages.features import ExtractFeatures, FeatureSettings
from stages.nn import cnn
from stages.nn.weights import Bundle, open_bundle, save_model

COMPACT = {"arch": "resnet18", "without": ["layer3", "layer4"], "width": 128, "input_size": 64}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    state = cnn.compact(**COMPACT).trunk.state_dict()
    save_model(str(folder), "features", state, {"kind": "compact", "settings": COMPACT})
    return open_bundle(str(folder))


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 80, 80, 3), dtype=np.uint8)


def test_a_call_adds_one_half_float_vector_per_frame_and_nothing_else(bundle: Bundle, frames: np.ndarray):
    row = {"video_id": "a", "frames": frames, "motion": np.zeros(7)}
    out = ExtractFeatures(FeatureSettings(), bundle)(row)
    assert out.keys() - row.keys() == {"features"}
    assert out["frames"] is frames
    assert out["features"].shape == (7, 128)
    assert out["features"].dtype == np.float16


def test_micro_batches_do_not_change_the_vectors(bundle: Bundle, frames: np.ndarray):
    small = ExtractFeatures(FeatureSettings(batch=2), bundle)({"frames": frames})["features"]
    whole = ExtractFeatures(FeatureSettings(batch=64), bundle)({"frames": frames})["features"]
    np.testing.assert_allclose(small.astype(np.float32), whole.astype(np.float32), rtol=5e-3, atol=1e-3)
    assert np.ptp(whole, axis=0).max() > 0.01  # frames differ, so an order mixed up would show


def test_a_full_gpu_costs_time_and_no_frames(
    bundle: Bundle, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    extract = ExtractFeatures(FeatureSettings(batch=4), bundle)
    whole, forward = extract({"frames": frames})["features"], extract.net.forward

    def full(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(x)

    monkeypatch.setattr(extract.net, "forward", full)
    assert np.array_equal(extract({"frames": frames})["features"].shape, whole.shape)
    np.testing.assert_allclose(extract({"frames": frames})["features"], whole, rtol=5e-3, atol=1e-3)


def test_half_precision_is_near_and_is_not_the_same(bundle: Bundle, frames: np.ndarray):
    whole, half = (
        ExtractFeatures(FeatureSettings(precision=precision), bundle)({"frames": frames})["features"]
        for precision in ("fp32", "bf16")
    )
    a, b = (vectors.astype(np.float32) for vectors in (whole, half))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999
    assert not np.array_equal(whole, half)


def test_a_shard_without_frames_has_no_vectors(bundle: Bundle):
    out = ExtractFeatures(FeatureSettings(), bundle)({"frames": np.empty((0, 256, 256, 3), np.uint8)})
    assert out["features"].shape == (0, 128)
    assert out["features"].dtype == np.float16


def test_read_only_frames_are_taken(bundle: Bundle, frames: np.ndarray):
    # So they come out of Arrow blocks.
    frames.flags.writeable = False
    assert ExtractFeatures(FeatureSettings(), bundle)({"frames": frames})["features"].shape == (7, 128)


def test_vectors_beyond_half_floats_stay_finite(bundle: Bundle, frames: np.ndarray):
    extract = ExtractFeatures(FeatureSettings(), bundle)
    with torch.no_grad():
        for weights in extract.net.trunk.layer2.parameters():
            weights *= 1e6
    assert np.isfinite(extract({"frames": frames})["features"]).all()
