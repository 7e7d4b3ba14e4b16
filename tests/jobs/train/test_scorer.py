"""Timelines are labelled truly and give nothing away, and the training finds what is in them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.train.loop import Run, TrainingError, run_training
from jobs.train.scorer import Train, begin, fit, fixed, measure, ranking_loss
from jobs.train.timelines import Clip, Timeline, compose, hold_out, library, read_clip, split, stills, walk
from stages.features import ExtractFeatures, FeatureSettings
from stages.nn import cnn
from stages.nn.weights import open_bundle, save_model
from stages.score import Score, ScoreSettings
from tests.media import make_video

WIDTH = 24


def made_up(count: int = 40, telling: float = 0.0) -> list[Clip]:
    """Clips of random vectors; `telling` moves those of action in one direction."""
    rng = np.random.default_rng(3)
    tell = rng.normal(size=WIDTH)
    clips = []
    for i in range(count):
        action, samples = i % 2 == 0, int(rng.integers(6, 28))
        look = rng.normal(size=WIDTH) + (telling * tell if action else 0)
        clips.append(
            Clip(
                name=f"{i}.mp4",
                group=f"{'class' if action else 'dull'}{i // 4}",
                action=action,
                features=(look + 0.3 * rng.normal(size=(samples, WIDTH))).astype(np.float16),
                motion=rng.random(samples).astype(np.float32) / 20,
                motion_std=rng.random(samples).astype(np.float32) / 100,
                loudness=rng.normal(-50 if action else -10, 3, samples).astype(np.float32)
                if i % 3
                else np.empty(0, np.float32),
                shot=np.zeros(samples, int),
                sha256=f"{i:016x}",
            )
        )
    return clips


def sources(clips: list[Clip], timeline: Timeline) -> list[Clip]:
    """The clip that each sample was taken from: the one whose vector is nearest."""
    rows = [(row, clip) for clip in clips for row in clip.features.astype(np.float32)]
    every = np.stack([row for row, _ in rows])
    apart = ((every[None] - timeline.features[:, None].astype(np.float32)) ** 2).sum(-1)
    return [rows[i][1] for i in apart.argmin(1)]


def test_no_class_and_no_dull_recording_is_in_two_parts():
    parts = split(made_up(80), np.random.default_rng(0))
    names = [{c.unit for c in clips} for clips in parts.values()]
    assert sum(len(n) for n in names) == len(set.union(*names))
    for clips in parts.values():
        assert {clip.action for clip in clips} == {True, False}


def test_the_label_is_true_where_action_is_and_only_there():
    clips = made_up()
    for seed in range(20):
        timeline = compose(clips, 160, np.random.default_rng(seed))
        assert [clip.action for clip in sources(clips, timeline)] == timeline.label.tolist()
        assert len(timeline.motion) == len(timeline.label) == 160
        assert len(timeline.loudness) in (0, 160)


def test_timelines_hold_action_in_dull_hosts_and_the_reverse():
    shares = [compose(made_up(), 400, np.random.default_rng(seed)).label.mean() for seed in range(40)]
    assert 0.3 < np.mean(np.array(shares) > 0.5) < 0.7


def test_many_seams_join_two_sources_of_the_same_kind():
    clips = made_up()
    same = different = 0
    for seed in range(20):
        timeline = compose(clips, 400, np.random.default_rng(seed))
        names = np.array([clip.name for clip in sources(clips, timeline)])
        seams = names[1:] != names[:-1]
        change = timeline.label[1:] != timeline.label[:-1]
        same += int((seams & ~change).sum())
        different += int((seams & change).sum())
    assert same > 0.2 * different > 0


def test_the_level_of_the_sound_says_nothing():
    # The action clips were recorded 40 dB softer than the dull ones.
    heard = [
        t for t in (compose(made_up(), 400, np.random.default_rng(s)) for s in range(60)) if len(t.loudness)
    ]
    loud = np.concatenate([t.loudness for t in heard])
    label = np.concatenate([t.label for t in heard])
    assert abs(loud[label].mean() - loud[~label].mean()) < 1.5


def test_a_short_clip_is_walked_to_and_fro_without_a_jump():
    for seed in range(10):
        index = walk(5, 40, np.random.default_rng(seed))
        assert set(index.tolist()) == set(range(5))
        assert np.abs(np.diff(index)).max() == 1


def test_ranking_loss_falls_as_action_rises_above_dull():
    label = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    right, wrong = torch.tensor([[3.0, 3.0, -3.0, -3.0]]), torch.tensor([[-3.0, -3.0, 3.0, 3.0]])
    assert ranking_loss(right, label) < 0.01 < 5 < ranking_loss(wrong, label)
    assert ranking_loss(right, torch.ones(1, 4)) == 0


def test_training_finds_what_tells_action_in_classes_it_never_saw(tmp_path: Path):
    parts = split(made_up(60, telling=2.0), np.random.default_rng(0))
    settings = Train(steps=100, batch=3, projection=4, weight_decay=0.1)
    run = Run(settings, tmp_path)
    net = begin(settings, run, WIDTH)
    val, test = (fixed(settings, parts[name], 12) for name in ("val", "test"))
    fit(settings, run, net, parts["train"], val)
    quality = measure(net, test)
    assert quality["map"] > 0.8
    assert quality["map"] > quality["motion_map"] + 0.1
    assert quality["map"] > quality["random_map"] + 0.1


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of action and three dull recordings, 2 s each, and a film of two shots."""
    for i in range(3):
        for path in (f"action/class{i}", "dull"):
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
        make_video(tmp_path / f"action/class{i}/a.mp4", seconds=2.5, fps=10, shots=1)
        make_video(tmp_path / f"dull/d{i}.mp4", seconds=2.5, fps=10, audio=None)
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos/film.mp4", seconds=6, fps=10, shots=2)
    return tmp_path


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    torch.manual_seed(0)
    shape = {"arch": "resnet18", "without": ["layer3", "layer4"], "width": 128, "input_size": 64}
    state = cnn.compact(**shape).trunk.state_dict()
    save_model(str(tmp_path / "bundle"), "features", state, {"kind": "compact", "settings": shape})
    return str(tmp_path / "bundle")


def test_from_videos_to_a_bundle_that_scores(data: Path, bundle: str, tmp_path: Path):
    few = {"steps": 2, "workers": 0, "batch": 2, "test_timelines": 4, "hidden": 8, "kind": "gru"}
    out = str(tmp_path / "trained")
    card = run_training("scorer", str(data), out, bundle, few, str(tmp_path / "cache"))
    assert card["trained"]["steps"] == 2
    assert 0 < card["quality"]["random_map"] < 1
    assert card["quality"]["spread_on_whole_videos"].keys() == {"film"}
    trained = open_bundle(out)
    assert trained.card("scorer")["requires"] == {"features": trained.card("features")["sha256"]}
    row = {
        "times_s": np.arange(9) / 2,
        "cuts_s": np.empty(0),
        "features": np.random.default_rng(0).normal(size=(9, 128)).astype(np.float16),
        "motion": np.zeros(9, np.float32),
        "motion_std": np.zeros(9, np.float32),
        "loudness": np.empty(0, np.float32),
    }
    assert len(Score(ScoreSettings(kind="gru"), trained)(row)["importance"]) == 9


def test_in_a_cross_validation_every_class_is_tested_once_by_what_never_saw_it():
    clips = made_up(60)
    folds = [hold_out(clips, 4, fold, np.random.default_rng(0)) for fold in range(4)]
    assert sorted(clip.name for parts in folds for clip in parts["test"]) == sorted(c.name for c in clips)
    for parts in folds:
        assert not {clip.unit for clip in parts["test"]} & {clip.unit for clip in parts["train"]}
        assert {clip.action for clip in parts["test"]} == {True, False}
    with pytest.raises(TrainingError, match="cannot be divided into 50 folds"):
        hold_out(clips, 50, 0, np.random.default_rng(0))


def test_a_file_is_decoded_once_and_one_that_cannot_be_is_left_out(
    data: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (data / "dull" / "broken.mp4").write_bytes(b"no video at all")
    extract = ExtractFeatures(FeatureSettings(), open_bundle(bundle))
    run = Run(Train(data=str(data)), tmp_path / "cache")
    first = library(run, extract, "key")
    assert len(first) == 6
    (data / "dull" / "broken.mp4").unlink()
    monkeypatch.setattr("jobs.train.timelines.read_clip", lambda *arguments: pytest.fail("decoded again"))
    again = library(run, extract, "key")
    assert [c.name for c in again] == [c.name for c in first]
    np.testing.assert_array_equal(again[0].features, first[0].features)


def test_sound_that_ends_early_leaves_every_sample_with_a_loudness(tmp_path: Path, bundle: str):
    path = tmp_path / "film.mp4"
    noise = np.random.default_rng(0).normal(0, 0.1, (20 * 48000, 2)).astype(np.float32)
    make_video(path, seconds=70, fps=5, shots=1, audio=noise)
    arrays = read_clip(path, ExtractFeatures(FeatureSettings(), open_bundle(bundle)))
    assert len(arrays["loudness"]) == len(arrays["motion"]) == len(arrays["shot"]) == len(arrays["times_s"])
    assert np.median(arrays["loudness"][:30]) > np.median(arrays["loudness"][-30:])


def test_a_photograph_held_still_is_dull_and_hardly_moves(tmp_path: Path, bundle: str):
    (tmp_path / "photos").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photos/a.jpg")
    extract = ExtractFeatures(FeatureSettings(), open_bundle(bundle))
    (clip,) = stills(Run(Train(data=str(tmp_path)), tmp_path / "cache"), extract, 256)
    assert not clip.action
    assert clip.motion.max() < 0.02
    assert (clip.features == clip.features[0]).all()
    assert len(clip.features) == len(clip.motion) == len(clip.shot) >= 8


def test_without_features_it_says_what_to_give(data: Path, tmp_path: Path):
    with pytest.raises(TrainingError, match="give --from BUNDLE"):
        run_training("scorer", str(data), str(tmp_path / "empty"), folder=str(tmp_path / "cache"))


def test_missing_parts_of_the_data_are_named(bundle: str, tmp_path: Path):
    (tmp_path / "half").mkdir()
    with pytest.raises(TrainingError, match="has no action"):
        run_training("scorer", str(tmp_path / "half"), bundle, folder=str(tmp_path / "cache"))
