"""The command line: every flag lands where it should, and what cannot be meant is a usage error."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from jobs import cli, demo, demo_run
from jobs.commands import teach
from jobs.highlights import COULD_NOT_START, DONE, INTERRUPTED, SOME_FAILED, Options
from jobs.train.loop import TrainingError, main
from pipeline import tables
from pipeline.config import ConfigError, Settings, load_settings
from stages.nn.weights import MODELS
from tests.pipeline import made_up

USAGE = 2


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The highlight jobs that were started; none of them does anything."""
    started: list[Options] = []
    monkeypatch.setattr("jobs.highlights.highlights", lambda options: started.append(options) or DONE)
    return started


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    started: list[tuple] = []
    monkeypatch.setattr(
        "jobs.train.loop.run_training", lambda *arguments: started.append(arguments) or {"auc": 0.5}
    )
    return started


def settings_of(options: Options) -> Settings:
    return load_settings(options.config, dict(options.flags), options.assignments)


def test_without_flags_a_run_has_the_default_settings(jobs: list[Options]) -> None:
    assert run("highlights", "lib", "out").exit_code == DONE
    assert jobs == [Options("lib", "out")]
    assert settings_of(jobs[0]) == Settings()


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["--target", "15%"], "cut.target", "15%"),
        (["--min-clip", "2"], "cut.min_clip_s", 2.0),
        (["--max-clip", "7.5"], "cut.max_clip_s", 7.5),
        (["--clips"], "render.clips", True),
        (["--transitions", "whip"], "effects.transitions", ("whip",)),
        (["--transitions", "whip, spin"], "effects.transitions", ("whip", "spin")),
        (["--transitions", "dissolve"], "effects.transitions", ("dissolve",)),
        (["--transitions", "cut"], "effects.kind", "none"),
        (["--include", "*.mp4", "--include", "*.mkv"], "library.include", ("*.mp4", "*.mkv")),
        (["--exclude", "raw/*"], "library.exclude", ("raw/*",)),
        (["--limit", "3"], "library.limit", 3),
        (["--bundle", "s3://b/models"], "bundle", "s3://b/models"),
        (["--set", "decode.fps=4"], "decode.fps", 4.0),
    ],
)
def test_every_flag_is_its_setting_and_changes_no_other(
    jobs: list[Options], arguments: list[str], path: str, value: object
) -> None:
    outcome = run("highlights", "lib", "out", *arguments)
    assert outcome.exit_code == DONE, outcome.output
    flat = flatten(settings_of(jobs[0]))
    assert flat[path] == value
    assert {name for name, default in flatten(Settings()).items() if flat[name] != default} == {path}


def flatten(settings: Settings) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in settings.model_dump().items():
        flat |= (
            {f"{name}.{key}": leaf for key, leaf in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return flat


def test_what_failed_can_be_tried_again(jobs: list[Options]) -> None:
    run("highlights", "lib", "out", "--retry-failed")
    assert jobs == [Options("lib", "out", retry_failed=True)]


def test_address_and_dry_run_are_no_settings(jobs: list[Options]) -> None:
    run("highlights", "lib", "out", "--address", "head:6379", "--dry-run")
    assert jobs == [Options("lib", "out", address="head:6379", dry_run=True)]


def test_a_flag_beats_the_file_and_set_beats_the_flag(jobs: list[Options], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("cut: {target: 30s, min_clip_s: 2, max_clip_s: 8}\neffects: {kind: none}\n")
    flags = ["--target", "20s", "--min-clip", "3", "--transitions", "whip"]
    outcome = run("highlights", "lib", "out", "--config", str(file), *flags, "--set", "cut.target=10s")
    assert outcome.exit_code == DONE, outcome.output
    settings = settings_of(jobs[0])
    assert (settings.cut.target, settings.cut.min_clip_s, settings.cut.max_clip_s) == ("10s", 3.0, 8.0)
    # Asked for by name, effects come back though the file has switched them off.
    assert (settings.effects.kind, settings.effects.transitions) == ("gan", ("whip",))


def test_a_preset_comes_before_the_file_the_flags_and_set(jobs: list[Options], tmp_path: Path) -> None:
    preset, file = tmp_path / "mine.yaml", tmp_path / "run.yaml"
    preset.write_text("cut: {target: 40s, min_clip_s: 2, max_clip_s: 8, repeat: 0.5}\nrender: {crf: 30}\n")
    file.write_text("preset: film\ncut: {min_clip_s: 3, max_clip_s: 9, repeat: 0.6}\n")
    given = ["--preset", str(preset), "--config", str(file), "--max-clip", "10", "--set", "cut.repeat=0.7"]
    outcome = run("highlights", "lib", "out", *given)
    assert outcome.exit_code == DONE, outcome.output
    settings = settings_of(jobs[0])
    cut = settings.cut
    assert (cut.target, cut.min_clip_s, cut.max_clip_s, cut.repeat) == ("40s", 3.0, 10.0, 0.7)
    assert settings.render.crf == 30


def test_presets_are_listed_and_printed_to_be_copied(tmp_path: Path) -> None:
    listed = run("presets")
    assert listed.exit_code == DONE
    assert [line.split()[0] for line in listed.output.splitlines()] == ["ad", "education", "film", "social"]
    printed = run("presets", "social")
    copy = tmp_path / "mine.yaml"
    copy.write_text(printed.output)
    assert load_settings(None, {"preset": str(copy)}, ()) == load_settings(None, {"preset": "social"}, ())
    (tmp_path / "film.mp4").write_bytes(b"\xff\xfe\x00")
    for other in ("holiday", str(tmp_path / "film.mp4"), str(copy)):
        unknown = run("presets", other)
        assert (unknown.exit_code, "education" in unknown.output) == (USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--transitions", "cut,whip"], "cut stands alone"),
        (["--transitions", "whip, cut"], "cut stands alone"),
        (["--transitions", "whip,"], "--transitions"),
        (["--transitions", ""], "--transitions"),
        (["--limit", "0"], "--limit"),
        (["--min-clip", "short"], "--min-clip"),
        (["--config", "there/is/none.yaml"], "none.yaml"),
        (["--targets", "60s"], "--targets"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(jobs: list[Options], arguments: list[str], words: str) -> None:
    outcome = run("highlights", "lib", "out", *arguments)
    assert outcome.exit_code == USAGE
    assert words in outcome.output
    assert not jobs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--transitions", "whip,wipe"], "wipe: there are .*dissolve"),
        (["--preset", "holiday"], "there are ad, education, film, social"),
        (["--target", "soon"], "soon"),
        (["--set", "decode.fsp=4"], "decode.fsp"),
        (["--set", "decode.fps"], "decode.fps"),
    ],
)
def test_a_setting_that_does_not_exist_is_named_by_the_job(
    jobs: list[Options], arguments: list[str], words: str
) -> None:
    run("highlights", "lib", "out", *arguments)
    with pytest.raises(ConfigError, match=words):
        settings_of(jobs[0])


@pytest.mark.parametrize("code", [DONE, SOME_FAILED, COULD_NOT_START, INTERRUPTED])
def test_the_exit_code_is_the_jobs(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr("jobs.highlights.highlights", lambda options: code)
    assert run("highlights", "lib", "out").exit_code == code


def test_a_training_gets_its_arguments_and_prints_its_card(trainings: list[tuple]) -> None:
    outcome = run(
        *["train", "scorer", "--data", "d", "--out", "o", "--from", "b", "--folder", "f"],
        *["--set", "minutes=5", "--set", "features.kind=a=b", "--address", "auto"],
    )
    assert outcome.exit_code == 0, outcome.output
    assert trainings == [("scorer", "d", "o", "b", {"minutes": 5, "features.kind": "a=b"}, "f", "auto")]
    assert json.loads(outcome.output) == {"auc": 0.5}


@pytest.mark.parametrize("assignment", ["minutes", "=5", ""])
def test_a_training_setting_without_a_value_or_a_name_is_a_usage_error(
    trainings: list[tuple], assignment: str
) -> None:
    outcome = run("train", "scorer", "--data", "d", "--out", "o", "--set", assignment)
    assert outcome.exit_code == USAGE
    assert "KEY=VALUE" in outcome.output
    assert not trainings


def test_a_model_that_does_not_exist_is_a_usage_error_and_all_others_are_there() -> None:
    assert run("train", "dreams", "--data", "d", "--out", "o").exit_code == USAGE
    assert teach.MODELS == MODELS


def test_a_training_module_run_by_itself_is_the_same_command(
    trainings: list[tuple], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["features.py", "--data", "d", "--out", "o", "--set", "minutes=5"])
    with pytest.raises(SystemExit) as left:
        main("features")
    assert not left.value.code
    assert trainings == [("features", "d", "o", None, {"minutes": 5}, None, None)]
    monkeypatch.setattr(sys, "argv", ["features.py", "--data", "d", "--out", "o", "--set", "minutes"])
    with pytest.raises(SystemExit) as left:
        main("features")
    assert left.value.code == USAGE
    assert "KEY=VALUE" in capsys.readouterr().err


def test_a_training_that_cannot_start_says_why_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise TrainingError("the data folder d has no action: see --data")

    monkeypatch.setattr("jobs.train.loop.run_training", refuse)
    outcome = run("train", "scorer", "--data", "d", "--out", "o")
    assert outcome.exit_code == 1
    assert outcome.output == "Error: the data folder d has no action: see --data\n"


@pytest.mark.parametrize(
    ("assignment", "words"), [("minutes=soon", "minutes"), ("minuets=5", "minuets"), ("seed.x=1", "seed")]
)
def test_a_wrong_training_setting_is_named(tmp_path: Path, assignment: str, words: str) -> None:
    outcome = run(
        "train", "colour", "--data", str(tmp_path), "--out", str(tmp_path / "o"), "--set", assignment
    )
    assert outcome.exit_code == 1
    assert outcome.output.startswith("Error: ")
    assert words in outcome.output


def test_a_report_of_nothing_says_where_it_looked(tmp_path: Path) -> None:
    outcome = run("report", str(tmp_path / "s3:" / "nowhere"))
    assert "Traceback" not in outcome.output
    assert "nowhere" in outcome.output


def made_demo(monkeypatch: pytest.MonkeyPatch, folder: Path, status: dict[str, str], code: int) -> Result:
    """`reelmap demo` whose run publishes these statuses by file name and ends with this code."""

    def job(options: Options) -> int:
        rows = [
            made_up.result(f"id{number}", uri=f"{options.library}/{name}", status=how)
            for number, (name, how) in enumerate(status.items())
        ]
        made = made_up.tables(*rows)
        tables.write_part(options.output, made_up.part_of(made), made)
        return code

    monkeypatch.setattr(demo, "render_film", lambda film, path, seed: path.write_bytes(b"0" * 100))
    monkeypatch.setattr(demo_run, "highlights", job)
    return run("demo", str(folder))


ENDS = {film.name: "ok" for film in demo.FILMS} | {demo.BROKEN: "failed"}


def test_the_demo_says_what_it_does_and_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = made_demo(monkeypatch, tmp_path, ENDS, SOME_FAILED)
    assert outcome.exit_code == DONE, outcome.output
    reels = tables.read(str(tmp_path / "output"), "reels", ["uri"])["uri"].to_pylist()
    assert len(reels) == len(demo.FILMS)
    for film in demo.FILMS:
        assert f"drawing {film.name}" in outcome.output
        line = next(line for line in outcome.output.splitlines() if line.startswith(f"  {film.name}"))
        path = line.removeprefix(f"  {film.name}").strip()
        assert path in [str(tmp_path / "output" / reel) for reel in reels]
    assert f"  {demo.BROKEN} " in outcome.output
    assert "broken on purpose" in outcome.output
    assert outcome.output.endswith(f"\n  {(tmp_path / 'output/report/index.html').as_uri()}\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({demo.BROKEN: "ok"}, "broken-transfer.mp4 is ok instead of failed"),
        ({"reef-dive.ts": "failed"}, "reef-dive.ts is failed instead of ok"),
        ({"games/ball-practice.mkv": "dropped"}, "games/ball-practice.mkv is dropped instead of ok"),
    ],
)
def test_a_demo_that_ends_otherwise_than_it_should_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], words: str
) -> None:
    outcome = made_demo(monkeypatch, tmp_path, ENDS | change, SOME_FAILED)
    assert outcome.exit_code == 1
    assert words in outcome.output


def test_a_film_that_is_missing_from_the_tables_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {name: how for name, how in ENDS.items() if name != "city-night.mkv"}
    outcome = made_demo(monkeypatch, tmp_path, ends, SOME_FAILED)
    assert outcome.exit_code == 1
    assert "city-night.mkv is missing instead of ok" in outcome.output


@pytest.mark.parametrize("code", [COULD_NOT_START, INTERRUPTED])
def test_a_demo_whose_run_did_not_end_has_the_runs_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    outcome = made_demo(monkeypatch, tmp_path, {demo.BROKEN: "failed"}, code)
    assert outcome.exit_code == code
    assert "report" not in outcome.output


def test_help_and_usage_errors_come_at_once_without_torch_or_ray() -> None:
    """In a process of its own: this one has imported everything long ago."""
    script = """
import sys
from click.testing import CliRunner
from jobs.cli import main

def run(*arguments):
    result = CliRunner().invoke(main, arguments)
    assert "Traceback" not in result.output
    return result.exit_code, result.output

assert run("--help")[0] == 0
for name, command in main.commands.items():
    code, text = run(name, "--help")
    assert code == 0 and "Usage:" in text, text
    assert command.help[:40] in " ".join(text.split()), text
    assert name in run("--help")[1]
assert run("--version")[0] == 0
assert run("highlights", "a", "b", "--transitions", "cut,whip")[0] == 2
assert run("train", "scorer", "--data", "d", "--out", "o", "--set", "minutes")[0] == 2
heavy = {"torch", "ray", "av", "cv2", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_option_of_every_command_is_explained() -> None:
    for name, command in cli.main.commands.items():
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, (name, option.name)


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (["--target", "30s"], {"cut.target": "30s"}),
        (["--preset", "social"], {"preset": "social"}),
        (["--clips"], {"render.clips": True}),
        (["--transitions", "cut"], {"effects.kind": "none"}),
        (["--include", "*.mov", "--limit", "3"], {"library.include": ["*.mov"], "library.limit": 3}),
        (["--bundle", "s3://b/models"], {"bundle": "s3://b/models"}),
    ],
)
def test_every_flag_of_recut_is_its_setting(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], flags: dict[str, object]
) -> None:
    started = []
    monkeypatch.setattr("jobs.recut.recut", lambda options: started.append(options) or DONE)
    outcome = run("recut", "out", "--name", "mine", *arguments)
    assert outcome.exit_code == DONE, outcome.output
    assert (started[0].output, started[0].name, dict(started[0].flags)) == ("out", "mine", flags)


def test_reel_means_videos_by_uri_and_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("jobs.reel.reel", lambda options: started.append(options) or DONE)
    arguments = [
        "--from",
        "s3://cam/2026-11-*",
        "--since",
        "2026-11-01",
        "--target",
        "3m",
        "--per-video",
        "3",
    ]
    outcome = run("reel", "out", *arguments, "--captions", "--order", "best_first")
    assert outcome.exit_code == DONE, outcome.output
    (options,) = started
    assert options.videos.uris == ("s3://cam/2026-11-*",)
    assert f"{options.videos.since:%Y-%m-%d %H:%M}" == "2026-11-01 00:00"
    assert options.videos.since.tzinfo
    assert dict(options.flags) == {
        "cut.target": "3m",
        "reel.per_video": 3,
        "reel.order": "best_first",
        "reel.captions": True,
    }
    assert run("reel", "out", "--since", "last week").exit_code == USAGE


def test_search_is_told_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("jobs.search.find", lambda options, *_: started.append(options) or DONE)
    assert run("search", "out", "a.mp4:3", "--top", "5", "--json", "--where", "score>0.5").exit_code == DONE
    assert vars(started[0]) | {"output": "out", "query": "a.mp4:3", "top": 5, "as_json": True} == vars(
        started[0]
    )
    assert run("search", "out").exit_code == USAGE
