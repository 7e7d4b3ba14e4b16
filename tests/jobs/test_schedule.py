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
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/dev/shm", "/tmp"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_cron_job_has_room_for_a_local_ray() -> None:
    text = schedule("s3://b/night.yaml", (), "01:00", "kubernetes", "reelmap")
    pod = yaml.safe_load(text)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    where = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    kinds = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    assert kinds[where["/dev/shm"]]["medium"] == "Memory"
    shared, memory = (
        int(text.removesuffix("Gi"))
        for text in (kinds[where["/dev/shm"]]["sizeLimit"], container["resources"]["limits"]["memory"])
    )
    assert 1 <= shared <= memory / 2
    assert "medium" not in kinds[where["/tmp"]]
    assert int(container["resources"]["limits"]["cpu"]) >= int(container["resources"]["requests"]["cpu"])


@pytest.mark.parametrize("path", ODD)
def test_cron_job_takes_a_local_config_from_a_config_map(path: str) -> None:
    text = schedule(path, (), "01:00", "kubernetes", "reelmap")
    command = shlex.split(text.splitlines()[0].removeprefix("# "))
    assert command == ["kubectl", "create", "configmap", NAME, f"--from-file=config.yaml={path}"]
    pod = yaml.safe_load(text)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (volume,) = (volume for volume in pod["volumes"] if "configMap" in volume)
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == volume["name"])
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


@pytest.fixture
def night(tmp_path: Path) -> str:
    (tmp_path / "night.yaml").write_text("source: library\noutput: out\n")
    return str(tmp_path / "night.yaml")


def test_flags_of_the_run_stand_in_the_schedule(night: str) -> None:
    flags = ["--until", "06:00", "--reprocess", "--set", "decode.fps=4", "--max-videos", "5"]
    done = CliRunner().invoke(main, ["archive", night, "--install-cron", "--at", "2:00", *flags])
    assert done.exit_code == 0
    command = shlex.split(done.output.splitlines()[1].split(" ", 5)[5])
    assert command[1:] == [
        *("archive", night, "--until=06:00", "--max-videos=5", "--reprocess"),
        "--set=decode.fps=4",
    ]
    refused = CliRunner().invoke(main, ["archive", night, "--install-cron", "--as", "kubernetes"])
    assert (refused.exit_code, "--image is missing" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--until", "6 o'clock"], "not a time"),
        (["--until", "2020-01-01T06:00Z"], "is past"),
        (["--set", "decode.speed=4"], "speed"),
    ],
)
def test_what_would_fail_at_night_is_not_scheduled(flags: list[str], words: str, night: str) -> None:
    done = CliRunner().invoke(main, ["archive", night, "--install-cron", *flags])
    assert (done.exit_code, words in done.output) == (2, True)
    missing = CliRunner().invoke(main, ["archive", f"{night}.old", "--install-cron"])
    assert (missing.exit_code, "night.yaml.old" in missing.output) == (2, True)


def test_places_in_the_schedule_do_not_depend_on_the_folder(
    night: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = ["--set", "output=new", "--set", "source=s3://b/lib", "--set", "decode.fps=4"]
    done = CliRunner().invoke(main, ["archive", "night.yaml", "--install-cron", *places])
    command = shlex.split(done.output.splitlines()[1].split(" ", 5)[5])
    assert command[2:] == [
        night,
        f"--set=output={tmp_path}/new",
        "--set=source=s3://b/lib",
        "--set=decode.fps=4",
    ]
