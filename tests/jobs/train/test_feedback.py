"""A few labels move the ranking as asked, in other videos too, and leave the rest as it was."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import spearmanr

from jobs import cli
from jobs.train import feedback
from jobs.train.checkpoint import FileCheckpoints, Snapshot
from jobs.train.loop import run_training
from jobs.train.run import Run, TrainingError
from jobs.train.scorer import Train, begin_plain, inputs, measure
from jobs.train.taste import DISLIKED, LIKED, UNLABELLED, Known, Taste, known, ordered, pairs_right
from jobs.train.timelines import Timeline
from pipeline import labels
from pipeline.library import list_library
from pipeline.storage import put_file
from stages.failure import Failed
from stages.nn.scorer import ScorerNet, ScorerShape
from stages.nn.weights import DEFAULT_BUNDLE, open_bundle
from stages.score import SIGNALS
from tests.media import make_video

WIDTH = 32
SHAPE = ScorerShape(features_width=WIDTH, signals=SIGNALS, hidden=8)
ROOM = np.linalg.qr(np.random.default_rng(5).normal(size=(WIDTH, WIDTH)))[0]
WAVES, FACES, REST = ROOM[0], ROOM[1], ROOM[2:]  # what is liked and disliked, and all other looks


@pytest.fixture
def net() -> ScorerNet:
    torch.manual_seed(0)
    net = ScorerNet("lstm", SHAPE)
    begin_plain(net)
    return net.eval()


def timeline(seed: int, taste: bool = True) -> tuple[Timeline, np.ndarray]:
    """20 shots of 6 samples, and of each sample whether it shows waves (1), faces (-1) or neither (0).

    Action (half of the shots, whatever they show) moves more and is rarer than it is not.
    """
    rng = np.random.default_rng(seed)
    shows = rng.permutation([LIKED] * 5 + [DISLIKED] * 5 + [UNLABELLED] * 10)
    action = rng.permutation([True] * 10 + [False] * 10)
    looks = rng.normal(size=(20, len(REST))) @ REST / 4 + np.where(action, 0.2, 1.0)[:, None] * REST[0]
    if taste:
        looks += np.outer(shows == LIKED, WAVES) + np.outer(shows == DISLIKED, FACES)
    features = np.repeat(looks, 6, 0) + 0.05 * rng.normal(size=(120, WIDTH))
    motion = np.repeat(np.where(action, 0.04, 0.02) * rng.lognormal(0, 0.3, 20), 6)
    moved = motion.astype(np.float32)
    made = Timeline(features.astype(np.float16), moved, moved / 5, np.empty(0, np.float32), action.repeat(6))
    return made, shows.repeat(6).astype(np.int8)


def video(net: ScorerNet, seed: int, said: float = 1.0, taste: bool = True) -> Known:
    """A made-up video as the training sees it; `said` is the share of shots that somebody judged."""
    made, shows = timeline(seed, taste)
    features, _, extra, _ = inputs(made)
    unsaid = np.random.default_rng(seed).random(20).repeat(6) > said
    return known(net, features, extra, torch.from_numpy(np.where(unsaid, UNLABELLED, shows).astype(np.int8)))


def action(net: ScorerNet, count: int) -> list[Known]:
    """Composed timelines as the training holds on to them."""
    found = [inputs(timeline(900 + seed, taste=False)[0]) for seed in range(count)]
    return [known(net, features, extra, label.to(torch.int8)) for features, _, extra, label in found]


def teach(
    net: ScorerNet, folder: Path, videos: list[Known], keep: list[Known] | None = None, **values: object
) -> dict:
    settings = Train(**{"steps": 100, "threads": 1, **values})
    run = Run(settings, folder, say=lambda line: None)
    return feedback.fit(settings, run, net, videos, keep or [], "labels")


def right(net: ScorerNet, videos: list[Known]) -> float:
    """Share of pairs in the order asked for, by what `net` says now."""
    return pairs_right(Taste(WIDTH, 1), videos)


def test_the_ranking_changes_as_asked_in_videos_without_labels_too(net: ScorerNet, tmp_path: Path) -> None:
    taught = [video(net, seed, said=0.5) for seed in range(3)]
    before = right(net, [video(net, seed) for seed in range(50, 56)])
    found = teach(net, tmp_path, taught)
    assert "held_out" not in found  # too few videos to measure it
    assert before < 0.6
    assert found["pairs_right"]["before"] < 0.6 < 0.75 < found["pairs_right"]["after"]
    assert right(net, [video(net, seed) for seed in range(50, 56)]) > before + 0.15


def test_four_videos_say_whether_it_holds_for_others(net: ScorerNet, tmp_path: Path) -> None:
    found = teach(net, tmp_path / "a", [video(net, seed) for seed in range(4)])
    assert found["held_out"]["before"] < 0.6 < 0.8 < found["held_out"]["after"]
    # What each is told is not true of the others: it learns its own and says that it is worth nothing.
    torch.manual_seed(1)
    nonsense = [video(net, seed, taste=False) for seed in range(8)]
    found = teach(net, tmp_path / "b", nonsense)
    assert found["pairs_right"]["after"] > found["held_out"]["after"] + 0.1
    assert found["held_out"]["after"] < 0.65


def test_disliked_alone_is_enough(net: ScorerNet, tmp_path: Path) -> None:
    videos = [video(net, seed) for seed in range(3)]
    only = [Known(v.features, v.centre, v.before, v.label.clamp(max=UNLABELLED)) for v in videos]
    teach(net, tmp_path, only)
    assert right(net, [video(net, seed) for seed in range(50, 56)]) > 0.65


def test_what_the_scorer_could_do_it_still_can(net: ScorerNet, tmp_path: Path) -> None:
    test = [inputs(timeline(700 + seed, taste=False)[0]) for seed in range(20)]
    before = measure(net, test)["map"]
    assert before > 0.8
    teach(net, tmp_path, [video(net, seed) for seed in range(3)], action(net, 12))
    assert measure(net, test)["map"] > before - 0.02


def test_videos_that_show_nothing_alike_keep_their_order(net: ScorerNet, tmp_path: Path) -> None:
    others = [video(net, seed, taste=False) for seed in range(60, 66)]
    teach(net, tmp_path, [video(net, seed) for seed in range(3)], action(net, 12))
    for seed, old in zip(range(60, 66), others, strict=True):
        new = video(net, seed, taste=False)
        assert not torch.equal(old.before, new.before)
        assert spearmanr(old.before, new.before).statistic > 0.9


def test_composed_timelines_hold_it_back_where_they_speak(net: ScorerNet, tmp_path: Path) -> None:
    videos, keep = [video(net, seed) for seed in range(3)], [video(net, seed) for seed in range(30, 40)]
    free = teach(net, tmp_path / "free", videos)["pairs_right"]["after"]
    other = ScorerNet("lstm", SHAPE)
    held = teach(other, tmp_path / "held", videos, keep)["pairs_right"]["after"]
    assert held < free - 0.02


def test_only_the_looks_are_learnt_and_what_is_learnt_is_what_the_network_says(
    net: ScorerNet, tmp_path: Path
) -> None:
    old = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    videos = [video(net, seed) for seed in range(2)]
    after = teach(net, tmp_path, videos)["pairs_right"]["after"]
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, old[name])}
    assert changed == {"look.weight"}
    assert right(net, [video(net, seed) for seed in range(2)]) == pytest.approx(after, abs=1e-3)


class Stopped(FileCheckpoints):
    """Ends the training once step 40 is saved, as a kill would."""

    def write(self, snapshot: Snapshot, metrics: dict[str, float]) -> None:
        super().write(snapshot, metrics)
        if snapshot.step == 40:
            raise KeyboardInterrupt


def test_a_stopped_training_ends_with_the_same_bits_unless_the_labels_have_changed(tmp_path: Path) -> None:
    settings, lines, nets = Train(steps=60, threads=1, save_every_s=0), [], []

    def once(name: str, digest: str, kind: type[FileCheckpoints]) -> None:
        torch.manual_seed(0)
        net = ScorerNet("lstm", SHAPE).eval()
        nets.append(net)
        videos = [video(net, seed) for seed in range(4)]
        run = Run(settings, tmp_path, checkpoints=kind(tmp_path / name), say=lines.append)
        feedback.fit(settings, run, net, videos, action(net, 4), digest)

    with pytest.raises(KeyboardInterrupt):
        once("stopped.safetensors", "old", Stopped)
    shutil.copy(tmp_path / "stopped.safetensors", tmp_path / "other.safetensors")
    once("stopped.safetensors", "old", FileCheckpoints)
    assert any("resumed_at=40" in line for line in lines)
    lines.clear()
    once("other.safetensors", "new", FileCheckpoints)
    once("whole.safetensors", "new", FileCheckpoints)
    assert not any("resumed_at" in line for line in lines)
    assert all(torch.equal(net.look.weight, nets[1].look.weight) for net in nets[2:])


def test_samples_take_the_label_of_the_span_that_they_lie_in() -> None:
    spans = [
        {"start_s": 1.0, "end_s": 2.0, "liked": True},
        {"start_s": 2.0, "end_s": 2.5, "liked": False},
        {"start_s": 3.6, "end_s": 3.7, "liked": True},  # between two samples
    ]
    label = feedback.judged(np.arange(9) / 2, spans)
    assert label.tolist() == [0, 0, LIKED, LIKED, DISLIKED, 0, 0, LIKED, 0]


def test_shares_of_known_orders() -> None:
    assert ordered(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert ordered(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 0
    assert ordered(np.array([0.0, 2.0]), np.array([1.0])) == 0.5
    assert ordered(np.array([1.0]), np.array([1.0])) == 0.5


LENGTH_S = 8


@pytest.fixture
def output(tmp_path: Path) -> str:
    """An OUTPUT with labels of three videos; one of them is gone and one has changed since."""
    library = tmp_path / "library"
    library.mkdir()
    for name in ("kept", "gone", "changed"):
        make_video(library / f"{name}.mp4", seconds=LENGTH_S, fps=10, shots=2)
    spans = [
        row | {"start_s": start, "end_s": start + LENGTH_S / 2, "liked": start == 0}
        for row in list_library(str(library)).select(["video_id", "uri"]).to_pylist()
        for start in (0.0, LENGTH_S / 2)
    ]
    labels.write(str(tmp_path / "out"), spans)
    (library / "gone.mp4").unlink()
    make_video(library / "changed.mp4", seconds=LENGTH_S, fps=10, shots=3)
    return str(tmp_path / "out")


def train(output: str, bundle: str, folder: Path) -> dict:
    values = {"labels": output, "steps": 40, "workers": 0, "threads": 1}
    return run_training("scorer", output, str(folder / "taught"), bundle, values, str(folder / "cache"))


def test_from_labels_to_a_bundle(
    output: str, bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = train(output, bundle, tmp_path)
    told = capsys.readouterr().out
    assert "left_out" in told
    assert "gone.mp4" in told
    assert "changed.mp4 why=it is no longer as it was when it was labelled" in told
    asked = card["quality"]["feedback"]["pairs_right"]
    assert asked["after"] > asked["before"] + 0.2
    assert f"as you asked: {100 * asked['after']:.0f} % of the pairs stand in that order" in told
    trained = card["trained"]
    facts = {name: trained["labels"][name] for name in ("videos", "left_out", "liked", "disliked")}
    assert facts == {"videos": 1, "left_out": 2, "liked": 3, "disliked": 3}
    assert trained["data_sha256"].keys() == {"labels"}
    new, old = open_bundle(str(tmp_path / "taught")), open_bundle(bundle)
    assert new.card("scorer")["settings"] == old.card("scorer")["settings"]
    assert new.card("scorer")["requires"] == {"features": old.card("features")["sha256"]}


def test_labels_and_videos_may_lie_in_a_store(s3, bundle: str, tmp_path: Path) -> None:
    made = make_video(tmp_path / "race.mp4", seconds=LENGTH_S, fps=10, shots=2)
    put_file(made.path, f"{s3.uri}/library/race.mp4")
    (row,) = list_library(f"{s3.uri}/library").select(["video_id", "uri"]).to_pylist()
    labels.write(f"{s3.uri}/out", [row | {"start_s": 1.0, "end_s": 3.0, "liked": True}])
    card = train(f"{s3.uri}/out", bundle, tmp_path)
    assert card["trained"]["labels"]["videos"] == 1


def test_it_goes_on_after_itself_and_a_video_is_decoded_once(
    output: str, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(output, bundle, tmp_path)
    monkeypatch.setattr("jobs.train.timelines.read_clip", lambda *arguments: pytest.fail("decoded again"))
    again = train(output, bundle, tmp_path)
    assert again["quality"] == first["quality"]
    assert open_bundle(str(tmp_path / "taught")).card("scorer")["quality"] == first["quality"]


def test_what_is_missing_is_said(
    output: str, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="nothing is labelled"):
        train(str(tmp_path), bundle, tmp_path)

    def broken(*arguments: object) -> None:
        raise Failed("the file ends after 3 of 12 s")

    monkeypatch.setattr("jobs.train.timelines.read_clip", broken)
    with pytest.raises(TrainingError, match="no labelled video could be read"):
        train(output, bundle, tmp_path / "other")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The trainings that were started; none of them does anything."""
    started: list[tuple] = []
    monkeypatch.setattr("jobs.train.loop.run_training", lambda *given: started.append(given) or {})
    return started


def test_the_command_teaches_the_default_bundle_and_needs_no_data(trainings: list[tuple]) -> None:
    outcome = CliRunner().invoke(cli.main, ["train", "scorer", "--labels", "/made/out", "--out", "taught"])
    assert outcome.exit_code == 0, outcome.output
    assert trainings[0][:5] == ("scorer", "/made/out", "taught", DEFAULT_BUNDLE, {"labels": "/made/out"})


def test_the_command_holds_on_to_the_data_and_the_bundle_that_are_given(trainings: list[tuple]) -> None:
    arguments = ["--labels", "/made/out", "--out", "taught", "--data", "clips", "--from", "mine"]
    outcome = CliRunner().invoke(cli.main, ["train", "scorer", *arguments])
    assert outcome.exit_code == 0, outcome.output
    assert trainings[0][:5] == ("scorer", "clips", "taught", "mine", {"labels": "/made/out"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["codec", "--labels", "out"], "teaches a scorer"), (["scorer"], "give --data")],
)
def test_what_cannot_be_meant_is_a_usage_error(
    trainings: list[tuple], arguments: list[str], words: str
) -> None:
    outcome = CliRunner().invoke(cli.main, ["train", *arguments, "--out", "taught"])
    assert outcome.exit_code == 2
    assert words in outcome.output
    assert not trainings
