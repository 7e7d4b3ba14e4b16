from pathlib import Path

import pytest
import torch

from stages.nn.scorer import CELLS, ScorerNet, ScorerShape, load, mean_direction
from stages.nn.weights import BundleError, open_bundle, save_model
from stages.score import SIGNALS

SHAPE = ScorerShape(features_width=16, signals=SIGNALS, projection=8, hidden=12, window=64, margin=24)


def net(kind: str = "lstm", shape: ScorerShape = SHAPE) -> ScorerNet:
    torch.manual_seed(0)
    return ScorerNet(kind, shape).eval()


def video(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(steps, 16, generator=generator).half()
    return features, torch.randn(steps, len(SIGNALS), generator=generator)


@pytest.mark.parametrize("kind", CELLS)
def test_every_sample_is_judged_by_what_comes_before_and_after_it(kind: str):
    features, signals = video(30)
    before = net(kind).score(features, signals)
    signals[20] += 3
    changed = (net(kind).score(features, signals) - before).abs() > 1e-6
    assert changed[18:20].all()  # earlier samples know of it ...
    assert changed[21:23].all()  # ... and later ones


@pytest.mark.parametrize("steps", [0, 1, 63, 64, 65, 300])
def test_every_sample_of_a_video_of_any_length_has_a_logit(steps: int):
    logits = net().score(*video(steps))
    assert logits.shape == (steps,)
    assert logits.isfinite().all()


def test_reading_in_windows_hardly_changes_the_logits():
    features, signals = video(300)
    windowed = net().score(features, signals)
    whole = net(shape=SHAPE.model_copy(update={"window": 4096})).score(features, signals)
    assert (windowed - whole).abs().max() < 0.02 * whole.std()


def test_a_window_costs_memory_by_its_own_length_only(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    scorer = net()
    scorer.cell.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    scorer.score(*video(5000))
    assert max(seen) <= SHAPE.window + 2 * SHAPE.margin


def test_the_scale_of_features_says_nothing():
    features, signals = video(40)
    torch.testing.assert_close(
        net().score(features, signals), net().score(features * 4, signals), rtol=1e-3, atol=1e-4
    )


def test_mean_direction_is_the_same_in_chunks():
    features, _ = video(100)
    torch.testing.assert_close(mean_direction(features, chunk=7), mean_direction(features))


def test_a_scorer_of_another_kind_is_refused(tmp_path: Path):
    card = {"kind": "gru", "settings": {"shape": SHAPE.model_dump(), "rate_hz": 2.0}}
    save_model(str(tmp_path), "scorer", net("gru").state_dict(), card)
    bundle = open_bundle(str(tmp_path))
    assert load(bundle, "gru").shape == SHAPE
    with pytest.raises(BundleError, match=r"of kind gru, not lstm: set score\.kind to gru"):
        load(bundle, "lstm")
