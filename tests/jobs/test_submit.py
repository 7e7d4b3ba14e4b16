"""What is sent to a cluster, and what is not: the config, code that was asked for, named variables."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from ray.job_submission import JobStatus

from cluster import submit as jobs_api
from cluster.submit import SubmitError
from jobs import cli
from jobs.submit import Options, environment, submit

ADDRESS = "http://127.0.0.1:8265"
SECRET = "Xk29secret-of-the-store"


class Api:
    """Stands in for a Jobs API, and keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: dict = {}
        self.files: dict[str, str] = {}

    def get_address(self) -> str:
        return ADDRESS

    def submit_job(self, **job: object) -> str:
        self.sent = job
        folder = Path(job["runtime_env"]["working_dir"])
        if folder.name.startswith("reelmap-submit-"):
            self.files = {file.name: file.read_text() for file in folder.iterdir()}
        return job["submission_id"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    monkeypatch.setattr(jobs_api, "connect", lambda *_: made)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "my nightly.yaml"
    file.write_text("source: s3://me:hunter2hunter2@bucket/in\noutput: s3://bucket/out\ncut: {target: 20s}\n")
    return file


def sent(config: Path, **options: object) -> tuple[int, str]:
    said: list[str] = []
    code = submit(Options(str(config), ADDRESS, **options), said.append, said.append)
    return code, "\n".join(said)


def test_the_config_travels_alone_and_the_command_names_it(api: Api, config: Path) -> None:
    code, said = sent(config, arguments=("--reprocess",))
    assert code == 0
    assert api.sent["entrypoint"] == "reelmap archive 'my nightly.yaml' --reprocess"
    assert api.files == {config.name: config.read_text()}
    assert api.sent["submission_id"] in said
    assert f"reelmap stop {api.sent['submission_id']} --address {ADDRESS}" in said
    assert not Path(api.sent["runtime_env"]["working_dir"]).exists()  # it was for the sending only


def test_no_secret_of_this_machine_or_of_the_config_is_in_what_others_can_list(
    api: Api, config: Path
) -> None:
    _, said = sent(config)
    shown = str(api.sent) + said
    assert SECRET not in shown
    assert "hunter2" not in shown
    assert api.sent["metadata"] == {"source": "s3://bucket/in", "output": "s3://bucket/out"}


def test_a_stopped_job_has_time_to_put_its_things_in_order(api: Api, config: Path) -> None:
    sent(config)
    assert int(api.sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_a_cluster_that_has_just_started_is_waited_for(
    api: Api, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_api, "AGAIN_S", 0.0)
    ids, accept = [], api.submit_job

    def not_yet(**job: object) -> str:
        ids.append(job["submission_id"])
        if len(ids) < 3:
            raise RuntimeError("Request failed with status code 500: No available agent to submit job.")
        return accept(**job)

    monkeypatch.setattr(api, "submit_job", not_yet)
    assert sent(config)[0] == 0
    assert len(ids) == 3
    assert len(set(ids)) == 1  # never two jobs
    monkeypatch.setattr(jobs_api, "AWAY_S", 0.0)
    ids.clear()
    code, said = sent(config)
    assert (code, "the head takes no jobs" in said) == (2, True)


def test_only_named_variables_go_along_and_their_values_are_never_said(api: Api, config: Path) -> None:
    code, said = sent(config, env=("AWS_SECRET_ACCESS_KEY", "AWS_REGION=eu-central-1"))
    variables = api.sent["runtime_env"]["env_vars"]
    assert (code, variables["AWS_SECRET_ACCESS_KEY"], variables["AWS_REGION"]) == (0, SECRET, "eu-central-1")
    assert "AWS_SECRET_ACCESS_KEY went along" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY=abc", "write --env AWS_SECRET_ACCESS_KEY, which takes it"),
        ("NOT_SET_ANYWHERE", "is not set here"),
        ("A B=c", "NAME=VALUE"),
        ("", "NAME=VALUE"),
    ],
)
def test_a_variable_that_cannot_be_sent_is_said(
    monkeypatch: pytest.MonkeyPatch, item: str, words: str
) -> None:
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    with pytest.raises(SubmitError, match=words):
        environment((item,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: s3://b/in\noutput: s3://b/out\ndecode: {fsp: 2}\n", "did you mean decode.fps"),
        ("source: s3://b/in\n", "output is missing"),
        ("source: videos\noutput: s3://b/out\n", "write the whole path"),
        (
            "source: s3://b/in\noutput: s3://b/out\npools: {speeds: speeds.yaml}\n",
            "pools.speeds: speeds.yaml is a file of this machine",
        ),
    ],
)
def test_a_config_that_cannot_work_there_is_not_sent(api: Api, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    code, said = sent(tmp_path / "job.yaml")
    assert (code, words in said, api.sent) == (2, True, {}), said


def test_a_login_in_the_arguments_is_refused(api: Api, config: Path) -> None:
    code, said = sent(config, arguments=("--set", "source=s3://me:hunter2hunter2@bucket/in"))
    assert (code, api.sent, "hunter2" in said) == (2, {}, False)


def tree(folder: Path) -> Path:
    """A working tree, as far as submitting looks at one."""
    (folder / "jobs").mkdir(parents=True)
    (folder / "jobs" / "cli.py").write_text("")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("private*\n")
    return folder


def test_a_working_tree_is_run_as_it_is_sent(api: Api, tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    (root / "deploy").mkdir()
    (root / "deploy" / "job.yaml").write_text(
        "source: s3://b/in\noutput: s3://b/out\npools: {speeds: deploy/speeds.yaml}\n"
    )
    (root / "deploy" / "speeds.yaml").write_text("sent along")
    code, _ = sent(root / "deploy" / "job.yaml", working_dir=str(root), excludes=("data",), pip=("httpx",))
    assert code == 0
    assert api.sent["entrypoint"] == "python -m jobs.cli archive deploy/job.yaml"
    made = api.sent["runtime_env"]
    assert (made["working_dir"], made["pip"], made["excludes"][-1]) == (str(root), ["httpx"], "data")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda root: root.parent / "job.yaml", "lies outside"),
        (lambda root: root / "private.yaml", "ignored by git"),
    ],
)
def test_a_config_that_would_stay_here_is_said(
    api: Api, tmp_path: Path, place: Callable[[Path], Path], words: str
) -> None:
    root = tree(tmp_path / "tree")
    place(root).write_text("source: s3://b/in\noutput: s3://b/out\n")
    code, said = sent(place(root), working_dir=str(root))
    assert (code, words in said, api.sent) == (2, True, {})


def test_a_folder_without_reelmap_is_no_working_tree(api: Api, config: Path, tmp_path: Path) -> None:
    code, said = sent(config, working_dir=str(tmp_path))
    assert (code, "no working tree" in said) == (2, True)


def test_ctrl_c_while_following_leaves_the_job_alone_and_says_how_to_stop_it(
    api: Api, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs_api, "follow", interrupted)
    monkeypatch.setattr(jobs_api, "stop", lambda *_: pytest.fail("the job was stopped"))
    code, said = sent(config, follow=True)
    assert code == 130
    assert "goes on" in said
    assert f"reelmap stop {api.sent['submission_id']}" in said


def job(status: JobStatus, code: int | None, message: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        **{"status": status, "driver_exit_code": code, "message": message, "error_type": None},
        **{"submission_id": "reelmap-x", "start_time": 1_700_000_000_000, "end_time": 1_700_000_065_000},
        metadata={"output": "s3://me:hunter2hunter2@bucket/out\x1b[31m"},
    )


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        (job(JobStatus.SUCCEEDED, 0), 0, "is done"),
        (job(JobStatus.FAILED, 1), 1, "exit code 1"),
        (job(JobStatus.FAILED, 127), 2, "there is no reelmap on the head"),
        (job(JobStatus.FAILED, None, "no such package: foo"), 2, "no such package: foo"),
        (job(JobStatus.STOPPED, None), 130, "was stopped"),
    ],
)
def test_following_ends_as_the_job_ends(
    api: Api, config: Path, monkeypatch: pytest.MonkeyPatch, how: SimpleNamespace, code: int, words: str
) -> None:
    monkeypatch.setattr(jobs_api, "follow", lambda *_: how)
    assert sent(config, follow=True)[0] == code
    assert words in sent(config, follow=True)[1]


def test_jobs_are_listed_without_what_a_terminal_or_a_reader_should_not_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_api, "connect", lambda *_: None)
    monkeypatch.setattr(jobs_api, "listed", lambda _: [job(JobStatus.SUCCEEDED, 0)])
    said = CliRunner().invoke(cli.main, ["jobs", "--address", ADDRESS]).output
    assert "reelmap-x" in said
    assert "SUCCEEDED" in said
    assert "1:05" in said
    assert "hunter2" not in said
    assert "\x1b" not in said


def test_plain_http_to_another_machine_sends_nothing(config: Path) -> None:
    done = CliRunner().invoke(cli.main, ["submit", str(config), "--address", "http://10.0.0.7:8265"])
    assert done.exit_code == 2
    assert "in the clear" in done.output


def test_listing_jobs_needs_no_torch() -> None:
    """In a process of its own: this one has imported everything long ago."""
    script = "import sys, jobs.submit; assert not {'torch', 'ray.data', 'av'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
