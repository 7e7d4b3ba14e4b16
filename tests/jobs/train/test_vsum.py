"""What the features tell is learnt, test videos stay unseen until the end, and new videos can be scored."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from jobs.train.run import LoopSettings, Run, TrainingError
from jobs.train.vsum import VsumSettings, hold_out, ranking, train_vsum
from stages.features import FeatureSettings
from stages.nn.scorer import Kind
from stages.nn.weights import open_bundle, save_model
from stages.score import Score, ScoreSettings
from tests.vsum_file import write_splits, write_vsum

WIDTH = 1024


class Train(LoopSettings):
    kind: Kind = "lstm"
    steps: int = 30
    threads: int = 1
    vsum: VsumSettings = VsumSettings(
        random_draws=3, validate_every=10, batch=4, hidden=12, learning_rate=1e-2
    )


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A feature file of 10 videos and 2 splits of it."""
    folder = tmp_path_factory.mktemp("vsum")
    write_splits(folder / "splits.json", write_vsum(folder / "features.h5"))
    return str(folder / "features.h5"), str(folder / "splits.json")


@pytest.fixture(scope="module")
def trained(made_up: tuple[str, str], tmp_path_factory: pytest.TempPathFactory):
    return train_vsum(Train(), Run(Train(), tmp_path_factory.mktemp("run")), *made_up)


def test_on_held_out_videos_it_beats_chance_and_is_as_good_as_a_person(trained):
    mean = trained[1]["quality"]["mean"]
    assert abs(mean["random"]["tau"]) < 0.1
    assert mean["scorer"]["tau"] > mean["random"]["tau"] + 0.3
    assert mean["scorer"]["rho"] > mean["random"]["rho"] + 0.3
    # 5 test videos of 80 steps: their best 15 % are a few segments, and F1 is coarse.
    assert mean["scorer"]["f1"] > mean["random"]["f1"]
    assert mean["scorer"]["tau"] > 0.8 * mean["human"]["tau"]


def test_every_split_says_when_it_was_best_and_what_it_is_worth(trained):
    for split in trained[1]["quality"]["splits"]:
        assert split["test_videos"] == 5
        assert split["best_step"] in (10, 20, 30)
        assert {"scorer", "random", "human", "val_tau"} < set(split)


def test_what_people_said_of_test_videos_never_reaches_the_scorers_of_their_split(
    made_up: tuple[str, str], tmp_path: Path
):
    """With other labels on the first split's test videos, its scorer still gives the same scores."""
    seen = []
    for spoilt in (False, True):
        file = tmp_path / f"spoilt_{spoilt}.h5"
        file.write_bytes(Path(made_up[0]).read_bytes())
        if spoilt:
            with h5py.File(file, "a") as opened:
                for i in (1, 3, 5, 7, 9):  # see write_splits: every second video is of the first test
                    for name in ("gtscore", "user_scores", "user_summary"):
                        values = opened[f"video_{i}"][name]
                        values[...] = values[()].max() - values[()]
        settings = Train(steps=10)
        run = Run(settings, tmp_path / f"run_{spoilt}")
        state, card = train_vsum(settings, run, str(file), made_up[1])
        seen.append((run.checkpoints.read().states["nets"], card["quality"]["splits"], state))
    (plain, quality, shipped), (other, spoilt_quality, spoilt_shipped) = seen
    of_first = [name for name in plain if name.startswith(("nets.0.", "best.0."))]
    assert len(of_first) > 20
    for name in of_first:
        assert torch.equal(plain[name], other[name]), name
    assert any(not torch.equal(plain[name], other[name]) for name in plain if name.startswith("nets.1."))
    # The labels did change: the same scores are worth as little as they were worth much.
    assert quality[0]["val_tau"] == spoilt_quality[0]["val_tau"]
    assert quality[0]["scorer"]["rho"] == pytest.approx(-spoilt_quality[0]["scorer"]["rho"], abs=1e-3)
    assert not all(torch.equal(shipped[name], spoilt_shipped[name]) for name in shipped)


def test_it_scores_new_videos_with_googlenet_features(trained, tmp_path: Path):
    state, card = trained
    save_model(str(tmp_path), "scorer", state, card)
    bundle = open_bundle(str(tmp_path))
    score = Score(ScoreSettings(kind="lstm"), bundle, FeatureSettings(kind="googlenet", weights="official"))
    rng = np.random.default_rng(0)
    row = {
        "times_s": np.arange(50) / 2,
        "cuts_s": np.array([7.0, 15.0]),
        "features": rng.normal(size=(50, WIDTH)).astype(np.float16),
        "motion": rng.random(50).astype(np.float32),
        "motion_std": rng.random(50).astype(np.float32),
        "loudness": np.full(50, -20, np.float32),
    }
    out = score(row)["importance"]
    assert len(out) == 50
    assert np.ptp(out) > 0
    # It saw neither motion nor sound in training, so neither may matter.
    deaf = score(
        row
        | {
            "motion": np.zeros(50, np.float32),
            "motion_std": np.zeros(50, np.float32),
            "loudness": np.empty(0, np.float32),
        }
    )
    np.testing.assert_array_equal(deaf["importance"], out)


def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(
    made_up: tuple[str, str], trained, tmp_path: Path
):
    class CutOff(Exception):
        pass

    class Falling(Run):
        def log(self, **values):
            if values.get("step") == 20:
                raise CutOff

    settings = Train(save_every_s=0)
    with pytest.raises(CutOff):
        train_vsum(settings, Falling(settings, tmp_path), *made_up)
    state, card = train_vsum(settings, Run(settings, tmp_path), *made_up)
    assert card["quality"] == trained[1]["quality"]
    for name, tensor in state.items():
        assert torch.equal(tensor, trained[0][name]), name


@pytest.mark.parametrize("kind", ["gru", "rnn"])
def test_other_cells_train_on_a_file_without_scores(kind: str, tmp_path: Path):
    names = write_vsum(tmp_path / "made_summe.h5", videos=6, users=3, scores=False)
    write_splits(tmp_path / "splits.json", names)
    settings = Train(kind=kind, steps=2)
    run = Run(settings, tmp_path / "run")
    _, card = train_vsum(settings, run, str(tmp_path / "made_summe.h5"), str(tmp_path / "splits.json"))
    assert card["kind"] == kind
    assert card["quality"]["tau_and_rho"] == "against the mean of people's summaries"
    assert card["quality"]["f1"] == "against people's summaries, max"


def test_what_the_command_lacks_is_said(made_up: tuple[str, str], tmp_path: Path):
    run = Run(Train(), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"give --splits FILE.json"):
        train_vsum(Train(), run, made_up[0], "")
    write_vsum(tmp_path / "narrow.h5", width=16)
    with pytest.raises(TrainingError, match="are 16 wide, those of googlenet are 1024"):
        train_vsum(Train(), run, str(tmp_path / "narrow.h5"), made_up[1])


def test_a_part_of_each_training_split_validates_and_does_not_train():
    keys = tuple(f"video_{i}" for i in range(40))
    fold = hold_out(keys, 0.2, np.random.default_rng(0))
    assert (len(fold.train), len(fold.validate)) == (32, 8)
    assert sorted(fold.train + fold.validate) == sorted(keys)
    assert fold == hold_out(keys, 0.2, np.random.default_rng(0))
    assert len(hold_out(keys[:2], 0.2, np.random.default_rng(0)).train) == 1


def test_ranking_sees_real_steps_in_the_order_of_their_targets():
    torch.manual_seed(0)
    target = torch.tensor([[0.0, 0.5, 1.0, 9.0]])
    length = torch.tensor([3])
    right, wrong = torch.tensor([[-4.0, 0.0, 4.0, -99.0]]), torch.tensor([[4.0, 0.0, -4.0, 99.0]])
    assert ranking(right, target, length) < 0.1 < 4 < ranking(wrong, target, length)
    assert ranking(right, torch.zeros(1, 4), length) == 0
