"""The text of a schedule is what its scheduler reads back as the very command, whatever the path holds."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from jobs.cli import main
from jobs.schedule import LEFT, NAME, ScheduleError, schedule

ODD = ["/a/night.yaml", "/a b/50%/it's.yaml", '/a/"q"/$HOME/`id`.yaml', "/a/back\\slash;rm -rf.yaml"]


def test_crontab_line_starts_the_command_once_a_night() -> None:
    text = schedule("/a/night.yaml", ("--until=06:00",), "1:05", "crontab", None)
    (line,) = (line for line in text.splitlines() if not line.startswith("#"))
    minute, hour, *rest, command = line.split(" ", 5)
    assert (int(minute), int(hour), rest) == (5, 1, ["*", "*", "*"])
    assert shlex.split(command)[1:] == ["archive", "/a/night.yaml", "--until=06:00"]


@pytest.mark.parametrize("path", ODD)
def test_crontab_keeps_odd_paths(path: str) -> None:
    command = schedule(path, (), "01:00", "crontab", None).splitlines()[1].split(" ", 5)[5]
    assert not re.search(r"(?<!\\)%", command)  # cron would end the command there
    given_to_shell = command.replace(r"\%", "%").replace(shlex.split(command)[0], "printf '%s\\n'", 1)
    said = subprocess.run(["/bin/sh", "-c", given_to_shell], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["archive", path]


@pytest.mark.parametrize("path", ODD)
def test_systemd_keeps_odd_paths(path: str) -> None:
    text = schedule(path, (), "01:00", "systemd", None)
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r'"((?:[^"\\]|\\.)*)"', line)]
    assert [word.replace("%%", "%").replace("$$", "$") for word in words][1:] == ["archive", path]


def units(text: str, folder: Path) -> list[Path]:
    """The two files that the text is meant for."""
    files = []
    for part in re.split(r"^# /etc/systemd/system/", text, flags=re.MULTILINE)[1:]:
        name, content = part.split("\n", 1)
        files.append(folder / name)
        files[-1].write_text(content)
    return files


@pytest.mark.parametrize("path", ODD)
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_both_units(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.schedule.sys.executable", "/bin/true")
    text = schedule(path, (), "01:00", "systemd", None).replace('"/bin/reelmap"', '"/bin/true"')
    files = units(text, tmp_path)
    assert [file.name for file in files] == [f"{NAME}.service", f"{NAME}.timer"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, files)], capture_output=True, text=True
    )
    mine = [line for line in done.stderr.splitlines() if NAME in line]
    assert (done.returncode, mine) == (0, [])


def test_systemd_takes_videos_that_are_left_for_a_success() -> None:
    assert f"SuccessExitStatus={LEFT}\n" in schedule("/a.yaml", (), "01:00", "systemd", None)


def test_cron_job_has_the_fields_of_its_schema() -> None:
    text = schedule("s3://b/jobs/$(X).yaml", ("--max-hours=4",), "23:30", "kubernetes", "registry/reelmap:1")
    made = yaml.safe_load(text)
    assert (made["apiVersion"], made["kind"], made["metadata"]["name"]) == ("batch/v1", "CronJob", NAME)
    spec = made["spec"]
    assert set(spec) == {
        *("schedule", "concurrencyPolicy", "startingDeadlineSeconds", "jobTemplate"),
        *("successfulJobsHistoryLimit", "failedJobsHistoryLimit"),
    }
    assert spec["schedule"] == "30 23 * * *"
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert container["image"] == "registry/reelmap:1"
    assert container["args"] == ["s3://b/jobs/$$(X).yaml", "--max-hours=4"]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert "volumes" not in pod


@pytest.mark.parametrize("path", ODD)
def test_cron_job_takes_a_local_config_from_a_config_map(path: str) -> None:
    text = schedule(path, (), "01:00", "kubernetes", "reelmap")
    command = shlex.split(text.splitlines()[0].removeprefix("# "))
    assert command == ["kubectl", "create", "configmap", NAME, f"--from-file=config.yaml={path}"]
    pod = yaml.safe_load(text)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (volume,), (container,) = pod["volumes"], pod["containers"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert volume["configMap"] == {"name": NAME}
    assert container["args"] == [f"{mount['mountPath']}/config.yaml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/a.yaml", (), "25:00", "crontab", None), "time of day"),
        (("/a.yaml", (), "1", "crontab", None), "time of day"),
        (("/a\n* * * * * id.yaml", (), "01:00", "crontab", None), "does not fit"),
        (("/a.yaml", ("--until=06:00\n",), "01:00", "systemd", None), "does not fit"),
        (("/a.yaml", (), "01:00", "kubernetes", None), "--image is missing"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        schedule(*arguments)


def test_flags_of_the_run_stand_in_the_schedule() -> None:
    flags = ["--until", "06:00", "--reprocess", "--set", "decode.fps=4", "--max-videos", "5"]
    done = CliRunner().invoke(
        main, ["archive", "s3://b/night.yaml", "--install-cron", "--at", "2:00", *flags]
    )
    assert done.exit_code == 0
    command = shlex.split(done.output.splitlines()[1].split(" ", 5)[5])
    assert command[1:] == [
        *("archive", "s3://b/night.yaml", "--until=06:00", "--max-videos=5", "--reprocess"),
        "--set=decode.fps=4",
    ]
    refused = CliRunner().invoke(main, ["archive", "s3://b/x", "--install-cron", "--as", "kubernetes"])
    assert (refused.exit_code, "--image is missing" in refused.output) == (2, True)
