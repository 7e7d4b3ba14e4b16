"""`reelmap archive --install-cron`: the text that has a scheduler start the archive every night.

It is printed, never installed. One run at a time is OUTPUT's lease, so a night that is still on does no harm;
a schedule that knows how to wait for it does so all the same.
"""

import re
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from jobs.job_file import load_job_file, places
from pipeline import storage
from pipeline.budget import deadline
from stages.filesystem import protocol_of

LEFT = 3  # exit code of `reelmap archive` when some videos are left for the next time
NAME = "reelmap-archive"
CONFIG_MOUNT = "/etc/reelmap"
# Of a pod. Ray keeps its objects in /dev/shm, of which a container has 64 MiB unless it is told otherwise;
# what is in there counts as memory. Reels are made in /tmp, and what Ray cannot hold goes there.
CPUS, MEMORY_GIB, SHARED_GIB, DISK_GIB = 8, 16, 4, 40


class ScheduleError(ValueError):
    """It cannot be scheduled like that; the message says what to change."""


def check(config: str, assignments: tuple[str, ...], flags: dict[str, Any]) -> None:
    """Raises ScheduleError for what would fail every night: a job that is wrong, or a time that is past."""
    try:
        deadline(load_job_file(config, assignments, flags).archive, datetime.now(UTC))
    except (ValueError, storage.StorageError) as error:
        raise ScheduleError(str(error)) from error


def rooted(assignments: tuple[str, ...]) -> tuple[str, ...]:
    """Places given with --set start at the current folder, and a scheduler has another one."""
    pairs = (assignment.partition("=") for assignment in assignments)
    return tuple(
        f"{name}={storage.absolute(value)}" if places({name: value}) else name + sign + value
        for name, sign, value in pairs
    )


def schedule(config: str, arguments: tuple[str, ...], at: str, kind: str, image: str | None) -> str:
    """The text for `kind`; `at` is a time of day (01:00), of the machine that runs the schedule.

    arguments   more of `reelmap archive`, such as --until=06:00

    Raises ScheduleError.
    """
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", at)
    if not match:
        raise ScheduleError(f"{at!r} is not a time of day: write it as 01:00")
    hour, minute = int(match[1]), int(match[2])
    for word in (config, *arguments):
        if re.search(r"[\x00-\x1f\x7f]", word):
            raise ScheduleError(f"{word!r}: a schedule is lines of text, and this does not fit into one")
    if kind == "kubernetes":
        if not image:
            raise ScheduleError("--image is missing: which image holds reelmap?")
        return kubernetes(config, arguments, hour, minute, image)
    if protocol_of(config) == "file":
        config = str(Path(config).absolute())  # a scheduler starts in a folder of its own
    command = [str(Path(sys.executable).with_name("reelmap")), "archive", config, *arguments]
    return crontab(command, hour, minute) if kind == "crontab" else systemd(command, hour, minute)


def crontab(command: list[str], hour: int, minute: int) -> str:
    """One line for `crontab -e`, see crontab(5): in it `%` ends the command unless it is escaped."""
    line = shlex.join(command).replace("%", r"\%")
    return f"# reelmap, every night; cron mails what it says\n{minute} {hour} * * * {line}\n"


def systemd(command: list[str], hour: int, minute: int) -> str:
    """A service and a timer, see systemd.service(5) and systemd.timer(5), for two files."""
    line = " ".join(map(_systemd_word, command))
    return f"""\
# /etc/systemd/system/{NAME}.service
[Unit]
Description=reelmap: new and changed videos of the archive
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={line}
# Some videos are left for the next night: that is what a deadline is for.
SuccessExitStatus={LEFT}
# As Ctrl-C: what is finished stays, Ray is stopped.
KillSignal=SIGINT
TimeoutStopSec=120
Nice=10

# /etc/systemd/system/{NAME}.timer
# systemctl daemon-reload && systemctl enable --now {NAME}.timer
[Unit]
Description=reelmap every night

[Timer]
OnCalendar=*-*-* {hour:02}:{minute:02}:00
Persistent=true

[Install]
WantedBy=timers.target
"""


def _systemd_word(word: str) -> str:
    """One argument of ExecStart: quoted, with specifiers (%) and variables ($) as plain characters."""
    word = word.replace("\\", r"\\").replace('"', r"\"").replace("%", "%%").replace("$", "$$")
    return f'"{word}"'


def kubernetes(config: str, arguments: tuple[str, ...], hour: int, minute: int, image: str) -> str:
    """A CronJob of batch/v1. A config that is a local file comes from a ConfigMap of the same name."""
    container: dict[str, Any] = {
        "name": NAME,
        "image": image,
        "command": ["reelmap", "archive"],
        "args": [_plain(config), *map(_plain, arguments)],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "10Gi"},
            "limits": {"cpu": str(CPUS), "memory": f"{MEMORY_GIB}Gi"},
        },
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    volumes: list[dict[str, Any]] = [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{SHARED_GIB}Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{DISK_GIB}Gi"}},
    ]
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": volumes,
    }
    notes = [
        "# Keys of the store: give the pod a service account or a Secret; none are written here.",
        f"# Exit code {LEFT} (videos are left for the next night) shows as a failed job.",
    ]
    if protocol_of(config) == "file":
        container["args"] = [f"{CONFIG_MOUNT}/config.yaml", *map(_plain, arguments)]
        container["volumeMounts"].append({"name": "config", "mountPath": CONFIG_MOUNT, "readOnly": True})
        volumes.append({"name": "config", "configMap": {"name": NAME}})
        file = shlex.quote(f"--from-file=config.yaml={Path(config).absolute()}")
        notes.insert(0, f"# kubectl create configmap {NAME} {file}")
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": NAME},
        "spec": {
            "schedule": f"{minute} {hour} * * *",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 7,
            "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}},
        },
    }
    return "\n".join([*notes, yaml.safe_dump(manifest, sort_keys=False)])


def _plain(argument: str) -> str:
    """Kubernetes takes `$(NAME)` for a variable."""
    return argument.replace("$(", "$$(")
