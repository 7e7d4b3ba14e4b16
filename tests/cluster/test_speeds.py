"""Speeds: what a file says is what is planned with, and one that does not fit this cluster is not taken."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import speeds
from cluster.plan import plan_for
from cluster.resources import machine
from cluster.speeds import CPU, GPU, SHIPPED, STAGES, Cost, SpeedsError, find, read, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "config/reelmap/speeds.yaml"
    monkeypatch.setattr(speeds, "default_file", lambda: file)
    return file


@pytest.mark.parametrize("made", [CPU, GPU])
def test_what_is_written_is_read_again(made: speeds.Speeds, home: Path) -> None:
    write(made, home)
    assert read(str(home)) == made


def test_json_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "speeds.json"
    file.write_text(json.dumps(CPU.model_dump(mode="json")))
    assert read(str(file)) == CPU


def test_a_file_that_was_asked_for_goes_before_what_was_tuned_and_that_before_what_is_shipped(
    home: Path, tmp_path: Path
) -> None:
    found, source = find(None, 0, local=True)
    assert found == CPU
    assert "shipped" in source
    assert "reelmap tune" in source
    write(CPU.model_copy(update={"machine": "tuned"}), home)
    found, source = find(None, 0, local=True)
    assert found.machine == "tuned"
    assert str(home) in source
    asked = tmp_path / "asked.yaml"
    write(CPU.model_copy(update={"machine": "asked"}), asked)
    found, source = find(str(asked), 0, local=True)
    assert found.machine == "asked"
    assert str(asked) in source


def test_what_was_tuned_without_a_gpu_is_not_taken_for_a_cluster_with_gpus(home: Path) -> None:
    write(CPU.model_copy(update={"machine": "tuned"}), home)
    assert find(None, 2, local=True)[0] == GPU


def test_what_was_tuned_on_this_machine_is_not_taken_for_a_cluster(home: Path) -> None:
    write(CPU.model_copy(update={"machine": "tuned"}), home)
    assert find(None, 0, local=False)[0] == CPU
    assert find(str(home), 0, local=False)[0].machine == "tuned"  # it was asked for


@pytest.mark.parametrize(
    "content", ["", "nonsense", "{decode: 3}", "[1, 2]", "a: [", "\x00", '{"machine": "a", "shard_s": 0}']
)
def test_what_is_no_speeds_file_is_told_with_what_to_do(content: str, tmp_path: Path) -> None:
    file = tmp_path / "speeds.yaml"
    file.write_text(content)
    with pytest.raises(SpeedsError, match=r"holds no speeds .*reelmap tune"):
        read(str(file))
    with pytest.raises(SpeedsError, match=r"absent.yaml: No such file.*reelmap tune"):
        read(str(tmp_path / "absent.yaml"))


@given(st.floats(0.001, 100), st.floats(0, 10), st.integers(1, 16))
def test_more_threads_are_never_slower_and_never_more_than_as_many_times_faster(
    cpu_s: float, wait_s: float, threads: int
) -> None:
    cost = Cost(cpu_s=cpu_s, wait_s=wait_s)
    assert cost.wall_s(threads) <= cost.wall_s(1) == pytest.approx(cpu_s + wait_s)
    assert cost.wall_s(threads) >= cpu_s / threads
    assert cost.cores(threads) <= threads


def test_shards_of_another_length_cost_in_proportion_and_videos_what_they_did() -> None:
    half = CPU.for_shards(CPU.shard_s / 2)
    assert half.decode.cpu_s == pytest.approx(CPU.decode.cpu_s / 2)
    assert half.render == CPU.render
    for name in STAGES:
        before = CPU.pieces(name, 600) * CPU.cost(name).cpu_s
        assert half.pieces(name, 600) * half.cost(name).cpu_s == pytest.approx(before)


def test_speeds_that_were_measured_change_the_plan() -> None:
    slow_render = CPU.model_copy(update={"render": Cost(cpu_s=10 * CPU.render.cpu_s)})
    shipped, tuned = (plan_for(machine(32), made, 10**4) for made in (SHIPPED["cpu"], slow_render))
    assert tuned.render > shipped.render
    assert tuned.look < shipped.look
