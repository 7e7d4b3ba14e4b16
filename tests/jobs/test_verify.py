"""`reelmap verify` and `reelmap failures`: lines, exit codes, what is written, and who may look when."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.cli import main
from pipeline import again, schema, storage, tables
from pipeline.lease import Busy
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A video without media, and two that did not come out."""
    folder = tmp_path / "out"
    rows = result("a"), result("b", status=schema.FAILED), result("c", status=schema.DROPPED)
    made = made_up(*rows)
    tables.write_part(str(folder), part_of(made), made)
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_differences_are_lines_a_file_and_the_exit_code(output: Path, tmp_path: Path) -> None:
    done = run("verify", output, "--quick", "--json", tmp_path / "found.json")
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert "media/a/reel.mp4 (a.mp4): is missing" in lines
    assert lines[-1].startswith("--repair removes")
    assert any(line.startswith("3 videos, no reels, no files") for line in lines)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["checked"]["videos"] == 3
    assert {"media/a/reel.mp4", "media/a/poster.jpg"} <= {line["path"] for line in found["differences"]}


def test_a_sound_output_is_no_difference(tmp_path: Path) -> None:
    made = made_up(result("b", status=schema.FAILED))
    tables.write_part(str(tmp_path), part_of(made), made)
    done = run("verify", tmp_path)
    assert (done.exit_code, "no differences" in done.output) == (0, True)


def test_a_repair_plans_again_what_is_broken(output: Path) -> None:
    done = run("verify", output, "--repair")
    assert done.exit_code == 1
    assert "removed: no files; the next run makes anew: 1 video" in done.output
    assert again.asked(str(output)) == {"a"}
    assert "a repair has been asked for" in run("verify", output).output
    assert not (output / "runs" / ".lease").exists()


@pytest.mark.parametrize("command", [["verify"], ["verify", "--repair"], ["failures", "--retry"]])
def test_an_output_in_use_is_left_alone(
    command: list[str], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise Busy("this OUTPUT is in use by run r1")

    for name in ("jobs.verify.check_free", "jobs.verify.lease", "jobs.failures.lease"):
        monkeypatch.setattr(name, busy)
    before = sorted(output.rglob("*"))
    done = run(command[0], output, *command[1:])
    assert done.exit_code == 2
    assert "in use by run r1" in done.output
    assert sorted(output.rglob("*")) == before


@pytest.mark.parametrize("command", ["verify", "failures"])
def test_where_there_is_nothing_nothing_can_be_said(command: str, tmp_path: Path) -> None:
    done = run(command, tmp_path)
    assert done.exit_code == 2
    assert f"there are no results of reelmap in {tmp_path}" in done.output


def test_failures_are_listed_with_reasons_and_summed_by_stage(output: Path, tmp_path: Path) -> None:
    done = run("failures", output, "--json", tmp_path / "failures.json")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "b.mp4: failed in decode: the file ends after 3 of 12 s"
    assert [line.split() for line in lines[2:]] == [
        ["1", "failed", "in", "decode"],
        ["1", "dropped", "in", "decode"],
        ["2", "in", "all"],
    ]
    (first, _) = json.loads((tmp_path / "failures.json").read_text())["failures"]
    assert (first["video_id"], first["stage"], first["again"]) == ("b", "decode", False)


def test_failures_that_are_planned_again_say_so(output: Path) -> None:
    assert "planned again: the next" in run("failures", output, "--retry").output
    assert again.asked(str(output)) == {"b", "c"}
    assert "the next run tries it again" in run("failures", output).output
    storage.delete(f"{output}/{again.FILE}")
    assert "the next run tries it again" not in run("failures", output).output
