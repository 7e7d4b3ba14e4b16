"""Known fake credentials go into a run everywhere that they can, and come out nowhere.

Ray is left out: test_s3_flow.py looks at a whole run.
"""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pyarrow as pa
import pytest
from click.testing import CliRunner
from rich.console import Console

from cluster.plan import make_plan
from jobs import highlights as job
from jobs.cli import main
from jobs.highlights import COULD_NOT_START, Options, highlights
from pipeline import redact, run, tables
from pipeline.config import Settings
from pipeline.library import list_library
from pipeline.progress import Totals
from pipeline.publish import Publish
from pipeline.steps import Pass
from stages.nn.weights import open_bundle
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up
from tests.secrets import found_in

ENV = {
    "AWS_ACCESS_KEY_ID": "AKIAFAKEFAKEFAKE0001",
    "AWS_SECRET_ACCESS_KEY": "fakeSecretKey/abc+defGHIJKLMNOPQ",
    "AWS_SESSION_TOKEN": "FakeSessionToken//////////wEaCXVzLWVhc3Q=",
}
PASSWORD, SIGNATURE = "hunter2-hunter2", "fakesignature0123456789"
SECRETS = (*ENV.values(), PASSWORD, SIGNATURE)
SIGNED = f"?X-Amz-Credential={ENV['AWS_ACCESS_KEY_ID']}&X-Amz-Signature={SIGNATURE}"


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


def failing(todo: pa.Table, publish: Publish) -> Iterator[pa.Table]:
    """Every video fails, with words and a trace that quote what they can."""
    for row in todo.to_pylist():
        quoted = f"{row['uri']}{SIGNED}: {' '.join(ENV.values())}"
        row["failure"] = {
            "status": "failed",
            "stage": "probe",
            "reason": f"ClientError: cannot GET https://u:{PASSWORD}@host/x{SIGNED} {quoted}",
            "trace": f"Traceback ...\n  get('{quoted}')\n",
            "failed_at": datetime.now(UTC),
        }
        yield from publish(pa.Table.from_pylist([row], todo.schema))


def test_no_secret_is_in_tables_log_pages_or_records(
    credentials: None, tmp_path: Path, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(one_pass: Pass) -> SimpleNamespace:
        return SimpleNamespace(iter_batches=lambda **_: failing(one_pass.todo, one_pass.publish))

    monkeypatch.setattr("pipeline.flow.build", build)
    monkeypatch.setattr(
        run, "open_witness", lambda _: SimpleNamespace(suspects=lambda _: set(), try_alone=lambda: None)
    )
    monkeypatch.setattr(run, "open_meter", lambda _: MagicMock())
    monkeypatch.setattr(run.Display, "read", lambda _: Totals())
    (tmp_path / "library").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "library" / name).write_text(name)
    listed = list_library(str(tmp_path / "library"))
    uris = [f"https://u:{PASSWORD}@host/a.mp4{SIGNED}", f"ftp://u:{PASSWORD}@host/b.mp4"]
    listed = listed.set_column(0, listed.schema.field("uri"), pa.array(uris))
    output, log = str(tmp_path / "out"), io.StringIO()
    settings = Settings(bundle=f"https://u:{PASSWORD}@host/bundle{SIGNED}")
    weights = open_bundle(bundle)
    made = run.make_job(f"https://u:{PASSWORD}@host/{SIGNED}", output, settings, weights, listed)
    ok = made_up(result("ok", uri=f"s3://u:{PASSWORD}@library/ok.mp4"))
    ok["videos"] = publish_like(ok["videos"])
    tables.write_part(output, part_of(ok), ok)

    outcome = run.run(made, "run-1", make_plan(2, 0, 2), Console(file=log, width=10_000))
    job.finish(made, outcome, lambda text: log.write(text + "\n"))
    for command in (["failures"], ["verify"], ["verify", "--repair"]):
        done = CliRunner().invoke(main, [command[0], output, *command[1:]])
        assert done.exit_code in (0, 1)
        log.write(done.output)
    assert len(tables.read(output, "failures")) == 2
    assert "2 failed of 2 videos" in log.getvalue()
    assert (tmp_path / "out/report/index.html").exists()
    assert (tmp_path / "out/runs/run-1.json").exists()
    assert found_in(output, SECRETS) == []
    assert [secret for secret in SECRETS if secret in log.getvalue()] == []


def publish_like(videos: pa.Table) -> pa.Table:
    """URIs as a publisher writes them."""
    uris = pa.array([redact.without_login(uri) for uri in videos["uri"].to_pylist()])
    return videos.set_column(videos.schema.get_field_index("uri"), videos.schema.field("uri"), uris)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    made = made_up(result("a", uri=f"s3://u:{PASSWORD}@library/a.mp4"))
    tables.write_part(str(tmp_path), part_of(made), made)
    (tmp_path / "log.txt").write_text(f"key {SIGNATURE}")
    (part,) = (tmp_path / "videos").iterdir()
    assert sorted(found_in(str(tmp_path), SECRETS)) == [
        f"log.txt: {SIGNATURE}",
        f"videos/{part.name}: {PASSWORD}",
    ]


@pytest.mark.parametrize("where", ["library", "output", "bundle"])
@pytest.mark.parametrize("protocol", ["https", "ftp", "s3", "nonsense"])
def test_a_place_that_cannot_be_used_is_named_without_its_secrets(
    where: str,
    protocol: str,
    tmp_path: Path,
    bundle: str,
    credentials: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(job, "check_models", lambda *_: None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (tmp_path / "a.mp4").write_text("a")
    login = f"u:{PASSWORD}@"
    uri = f"{protocol}://{login}127.0.0.1:1/x" + (SIGNED if protocol == "https" else "")
    places = {"library": str(tmp_path), "output": str(tmp_path / "out"), "bundle": bundle, where: uri}
    options = Options(places["library"], places["output"], flags=(("bundle", places["bundle"]),))
    assert highlights(options) == COULD_NOT_START
    said = "".join(capfd.readouterr())
    assert "Traceback" not in said
    assert [secret for secret in SECRETS if secret in said] == []


@pytest.mark.parametrize("command", ["search", "proxies", "effect", "recut", "reel"])
@pytest.mark.parametrize("protocol", ["https", "s3", "nonsense"])
def test_a_bundle_that_cannot_be_used_is_named_by_every_command_without_its_secrets(
    command: str, protocol: str, tmp_path: Path, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    made = made_up(result("a"))
    output = str(tmp_path / "out")
    tables.write_part(output, part_of(made), made)
    uri = f"{protocol}://u:{PASSWORD}@127.0.0.1:1/x" + (SIGNED if protocol == "https" else "")
    given = {
        "search": [output, "a.jpg"],
        "proxies": [output, "a.mp4", "--out", str(tmp_path / "frames")],
        "effect": [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), "--effect", "spin"],
        "recut": [output],
        "reel": [output],
    }
    done = CliRunner().invoke(main, [command, *given[command], "--bundle", uri])
    assert (done.exit_code, type(done.exception)) == (COULD_NOT_START, SystemExit)
    assert "127.0.0.1:1/x" in done.output
    assert [secret for secret in SECRETS if secret in done.output] == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("cannot open ftp://u:p@host/a: refused", "cannot open ftp://host/a: refused"),
        ("GET 'https://h/a?X-Amz-Signature=1' gave 403", "GET 'https://h/a?…' gave 403"),
        ("query X-Amz-Signature=1f&x=2", "query X-Amz-Signature=…&x=2"),
        ("s3://bucket/me@home.mp4?x#1 ends early", "s3://bucket/me@home.mp4?x#1 ends early"),
    ],
)
def test_text_loses_what_is_secret_and_nothing_else(text: str, clean: str) -> None:
    assert redact.without_secrets(text) == clean


def test_a_name_in_a_table_is_the_name_in_the_store() -> None:
    for uri in ("s3://bucket/a b@c?d#e\n%2F.mp4", "/lib/u:p@x/a.mp4"):
        assert redact.without_login(uri) == uri
    assert redact.without_login(f"https://u:p@host/a.mp4{SIGNED}") == "https://host/a.mp4"
