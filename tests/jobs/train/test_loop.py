"""Training goes on where it stopped, and its result lands in a bundle that stays whole."""

from pathlib import Path

import pytest
import torch
from torch import nn

from jobs.train.loop import LoopSettings, Run, TrainingError, flatten, run_training, unflatten


def practise(run: Run, stop_at: int = 10**9) -> nn.Linear:
    """Ten steps of a tiny regression, left with an exception at `stop_at`."""
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    optimiser = torch.optim.AdamW(net.parameters(), 0.1)
    for step in run.steps(net=net, optimiser=optimiser):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.full((4, 3), float(step))
        loss = (net(x) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


def settings(**values: object) -> LoopSettings:
    return LoopSettings(**{"minutes": 5, "max_steps": 10, "save_every_s": 0.0, **values})


def test_a_training_that_was_killed_ends_with_the_same_weights(tmp_path: Path):
    whole = practise(Run(settings(), tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        practise(Run(settings(), tmp_path / "killed"), stop_at=6)
    run = Run(settings(), tmp_path / "killed")
    resumed = practise(run)
    assert run.step == 10
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict())


def test_time_spent_before_the_kill_counts(tmp_path: Path):
    run = Run(settings(), tmp_path)
    run.started_s -= 120
    with pytest.raises(KeyboardInterrupt):
        practise(run, stop_at=3)
    run = Run(settings(), tmp_path)
    practise(run)
    assert 120 <= run.elapsed_s < 180


def test_other_settings_do_not_go_on_from_this_checkpoint(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        practise(Run(settings(), tmp_path), stop_at=6)
    run = Run(settings(seed=1), tmp_path)
    assert next(run.steps()) == 0


def test_a_nested_state_survives_as_json_and_tensors():
    state = {
        "state": {0: {"step": torch.tensor(3.0), "exp": torch.ones(2)}},
        "groups": [{"lr": 0.1, "on": None}],
    }
    tensors: dict[str, torch.Tensor] = {}
    back = unflatten(flatten(state, tensors), tensors)
    assert back["groups"] == state["groups"]
    assert torch.equal(back["state"][0]["exp"], torch.ones(2))
    assert len(tensors) == 2


def test_progress_is_the_larger_of_time_and_steps(tmp_path: Path):
    run = Run(settings(minutes=1, max_steps=4), tmp_path)
    run.step = 1
    assert run.progress == pytest.approx(0.25)
    run.started_s -= 45
    assert run.progress == pytest.approx(0.75, abs=0.02)


def test_missing_data_is_named(tmp_path: Path):
    with pytest.raises(TrainingError, match="has no tiny_imagenet"):
        run_training("features", str(tmp_path), str(tmp_path / "out"), folder=str(tmp_path / "cache"))


def test_an_unknown_model_is_named(tmp_path: Path):
    with pytest.raises(TrainingError, match="no model is called dreams"):
        run_training("dreams", str(tmp_path), str(tmp_path / "out"))
