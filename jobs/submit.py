"""`reelmap submit CONFIG.yaml --address URL`: the archive run of a config as a job on a cluster.

What is sent is the config and, with --working-dir, the code; nothing of this machine's environment goes
along unless it is named. jobs, logs and stop look after what was sent.
"""

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.job_submission import JobDetails, JobStatus

from cluster import submit as jobs_api
from cluster.submit import SubmitError, exit_code
from pipeline import storage
from pipeline.redact import without_secrets
from pipeline.wording import clock

if TYPE_CHECKING:  # it imports every setting there is, and torch with them: nothing for a list of jobs
    from jobs.job_file import JobFile

DONE, COULD_NOT, INTERRUPTED = 0, 2, 130
# Values of these are for nobody's eyes: they are taken from the environment, never from a command line.
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|ACCESS_KEY|API_KEY", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of a working tree: what nobody needs on a cluster, and what is too large to be sent.
EXCLUDES = ("*.mp4", "*.mov", "*.mkv", "*.egg-info", ".pytest_cache", ".ruff_cache", "node_modules")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    config: str
    address: str
    follow: bool = False
    allow_http: bool = False
    working_dir: str | None = None  # code to run instead of what is installed on the cluster
    excludes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # NAME, or NAME=VALUE
    pip: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()  # of `reelmap archive`


def submit(options: Options, say: Say, write: Say) -> int:
    """0 sent (with `follow`: what the job ended with), 2 not sent, 130 no longer followed."""
    from pipeline.config import ConfigError

    try:
        job = check(options)
        variables = environment(options.env)
        with parcel(options) as (folder, config):
            client = jobs_api.connect(options.address, options.allow_http)
            submission_id = jobs_api.send(
                client,
                entrypoint(options, config),
                runtime_env(options, folder, variables),
                {"source": storage.shown(job.source), "output": storage.shown(job.output)},
            )
        say(f"submitted {submission_id}: {storage.shown(job.source)} -> {storage.shown(job.output)}")
        for name in variables:
            if _SECRET.search(name):
                say(
                    f"{name} went along: whoever may use the Jobs API of this cluster can read it. A role or "
                    "a mounted secret of the nodes needs no copy"
                )
        return (
            attend(client, submission_id, options, say, write)
            if options.follow
            else advise(options, submission_id, say)
        )
    except (SubmitError, ConfigError, storage.StorageError) as error:
        say(f"reelmap: {without_secrets(str(error))}")
        return COULD_NOT


def check(options: Options) -> "JobFile":
    """The job, when its config can be understood on another machine. Raises ConfigError, SubmitError."""
    from jobs.job_file import below, load_job_file, places
    from pipeline.config import parse

    job = load_job_file(options.config)
    tree = parse(storage.read_bytes(storage.absolute(options.config)), options.config)
    for name, place in places(tree).items():
        if below("/elsewhere/job.yaml", place) != place:
            raise SubmitError(
                f"{name}: {place} starts at the folder of the config, which is another one on the cluster: "
                "write the whole path, or s3://bucket/prefix"
            )
    speeds = job.settings.pools.speeds
    if speeds and not Path(speeds).is_absolute() and not in_tree(options, speeds):
        raise SubmitError(
            f"pools.speeds: {speeds} is a file of this machine: write the whole path that it has on the "
            "head, or send it along (--working-dir)"
        )
    return job


def in_tree(options: Options, file: str) -> bool:
    """Whether the file is sent along: a job starts in the folder that was sent."""
    return options.working_dir is not None and Path(options.working_dir, file).is_file()


def environment(wanted: tuple[str, ...]) -> dict[str, str]:
    """The variables for the job: NAME as it is here, NAME=VALUE as given. Raises SubmitError."""
    found = {}
    for item in wanted:
        name, given, value = item.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise SubmitError("--env: write NAME, for what is set here, or NAME=VALUE")
        if given and _SECRET.search(name):
            raise SubmitError(
                f"--env {name}=…: others can read what is on a command line: write --env {name}, which "
                "takes it from this environment"
            )
        if not given and name not in os.environ:
            raise SubmitError(f"--env {name}: it is not set here")
        found[name] = value if given else os.environ[name]
    return found


@contextmanager
def parcel(options: Options) -> Iterator[tuple[str, str]]:
    """The folder to be sent, and the name of the config in it."""
    if options.working_dir is None:
        with tempfile.TemporaryDirectory(prefix="reelmap-submit-") as folder:
            name = options.config.rstrip("/").rsplit("/", 1)[-1]
            Path(folder, name).write_bytes(storage.read_bytes(storage.absolute(options.config)))
            yield folder, name
        return
    root, config = Path(options.working_dir).resolve(), Path(options.config).resolve()
    if not (root / "jobs" / "cli.py").is_file():
        raise SubmitError(f"{root} is no working tree of reelmap: it has no jobs/cli.py")
    if not config.is_relative_to(root):
        raise SubmitError(f"{config.name} lies outside of {root}, and would stay here: copy it there")
    if ignored(root, config):
        raise SubmitError(f"{config.name} is ignored by git, and what is ignored is not sent: rename it")
    yield str(root), config.relative_to(root).as_posix()


def ignored(root: Path, file: Path) -> bool:
    """Whether a .gitignore names the file; Ray leaves such files out."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "check-ignore", "-q", str(file)], check=False, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return False
    return asked.returncode == 0


def entrypoint(options: Options, config: str) -> str:
    """The command that the head runs. It is shown to whoever lists the jobs. Raises SubmitError."""
    # The code that was sent may be the only reelmap there, without a script on the PATH.
    program = ["reelmap"] if options.working_dir is None else ["python", "-m", "jobs.cli"]
    command = shlex.join([*program, "archive", config, *options.arguments])
    if without_secrets(command) != command:
        raise SubmitError("the arguments hold a login or a signature, and everybody can list them")
    return command


def runtime_env(options: Options, folder: str, variables: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {"working_dir": folder, "env_vars": variables}
    if options.working_dir is not None:
        made["excludes"] = [*EXCLUDES, *options.excludes]
    if options.pip:
        made["pip"] = list(options.pip)
    return made


def advise(options: Options, submission_id: str, say: Say) -> int:
    where = f"--address {options.address}" + " --allow-http" * options.allow_http
    say(f"follow it: reelmap logs {submission_id} --follow {where}")
    say(f"stop it:   reelmap stop {submission_id} {where}")
    return DONE


def attend(client: Any, submission_id: str, options: Options, say: Say, write: Say) -> int:
    """Follows the job to its end. Ctrl-C ends the following, and not the job."""
    try:
        job = jobs_api.follow(client, submission_id, write)
    except KeyboardInterrupt:
        say(f"no longer following {submission_id}, which goes on")
        advise(options, submission_id, say)
        return INTERRUPTED
    code = exit_code(job)
    say(f"{submission_id} {ended(job)}")
    return code


def ended(job: JobDetails) -> str:
    """How a job ended, in words."""
    if job.status == JobStatus.SUCCEEDED:
        return "is done"
    if job.status == JobStatus.STOPPED:
        return "was stopped: what is finished stays; submitting it again goes on with what is left"
    if job.driver_exit_code == jobs_api.NOT_FOUND:
        return "could not start: there is no reelmap on the head: use an image that has it, or --working-dir"
    if job.driver_exit_code in jobs_api.KNOWN_CODES:
        return f"ended with exit code {job.driver_exit_code}: its log says why"
    return f"failed: {without_secrets(job.message or str(job.error_type or 'no reason was given'))}"


def list_jobs(address: str, allow_http: bool, say: Say) -> int:
    """One line for each submitted job, the newest last."""
    try:
        found = jobs_api.listed(jobs_api.connect(address, allow_http))
    except SubmitError as error:
        say(f"reelmap: {without_secrets(str(error))}")
        return COULD_NOT
    if not found:
        say("no jobs were submitted to this cluster")
    for job in found:
        begun = datetime.fromtimestamp(job.start_time / 1000).astimezone() if job.start_time else None
        lasted = clock((job.end_time - job.start_time) / 1000) if job.end_time and job.start_time else ""
        what = (job.metadata or {}).get("output", "")
        at = f"{begun:%Y-%m-%d %H:%M}" if begun else ""
        say(
            f"{job.submission_id:32} {job.status.value:9} {at:16} {lasted:>8}  {storage.shown(what)}".rstrip()
        )
    return DONE


def logs(submission_id: str, options: Options, say: Say, write: Say) -> int:
    """The log so far; with `follow` until the end, with the exit code of the job."""
    try:
        jobs_api.check_id(submission_id)
        client = jobs_api.connect(options.address, options.allow_http)
        if options.follow:
            return attend(client, submission_id, options, say, write)
        write(jobs_api.log_of(client, submission_id))
        return DONE
    except SubmitError as error:
        say(f"reelmap: {without_secrets(str(error))}")
        return COULD_NOT


def stop(submission_id: str, address: str, allow_http: bool, say: Say) -> int:
    """0 when it has ended; 1 when it still runs after the time it was given."""
    try:
        jobs_api.check_id(submission_id)
        was_running, job = jobs_api.stop(jobs_api.connect(address, allow_http), submission_id)
    except SubmitError as error:
        say(f"reelmap: {without_secrets(str(error))}")
        return COULD_NOT
    if not job.status.is_terminal():
        say(f"{submission_id} was told to stop, and still runs: see `reelmap logs {submission_id}`")
        return 1
    say(
        f"{submission_id} {ended(job)}"
        if was_running
        else f"{submission_id} had ended before: it {ended(job)}"
    )
    return DONE
