"""A job file: read from anywhere, its paths start where it lies, and a wrong key is named."""

from pathlib import Path

import pytest

from jobs.job_file import below, load_job_file
from pipeline.config import ConfigError, Settings
from stages.nn.weights import open_bundle
from tests.conftest import Bucket

WHOLE = """
source: videos
output: ../results
bundle: models
archive: {until: "06:00", max_hours: 4, max_videos: 500, order: oldest}
decode: {fps: 2.5}
cut:
"""


def written(folder: Path, text: str) -> str:
    file = folder / "job.yaml"
    file.write_text(text)
    return str(file)


def test_relative_places_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    job = load_job_file(written(tmp_path / "jobs", WHOLE))
    assert (job.source, job.output) == (str(tmp_path / "jobs" / "videos"), str(tmp_path / "results"))
    assert job.settings.bundle == str(tmp_path / "jobs" / "models")
    assert (job.settings.decode.fps, job.archive.until, job.archive.max_videos) == (2.5, "06:00", 500)
    assert type(job.settings) is Settings


def test_what_the_archive_says_does_not_change_the_key(tmp_path: Path, bundle: str) -> None:
    weights = open_bundle(bundle)
    text = "source: a\noutput: b\n"
    key = load_job_file(written(tmp_path, text)).settings.key(weights)
    assert key == Settings().key(weights)
    assert load_job_file(written(tmp_path, text + "archive: {max_hours: 1}")).settings.key(weights) == key


def test_assignments_and_flags_come_last_and_start_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, WHOLE)
    monkeypatch.chdir("/")
    job = load_job_file(file, ("source=elsewhere", "decode.fps=1"), {"archive.order": "smallest"})
    assert (job.source, job.settings.decode.fps, job.archive.order) == ("/elsewhere", 1.0, "smallest")


def test_a_job_file_lies_in_a_bucket(s3: Bucket) -> None:
    s3.client().put_object(Bucket=s3.name, Key="jobs/night.yaml", Body=WHOLE.encode())
    job = load_job_file(f"{s3.uri}/jobs/night.yaml")
    assert (job.source, job.output) == (f"{s3.uri}/jobs/videos", f"{s3.uri}/results")


def test_a_relative_place_cannot_leave_its_bucket() -> None:
    with pytest.raises(ConfigError, match="leads out"):
        below("s3://bucket/jobs/night.yaml", "../../other")
    assert below("s3://bucket/jobs/night.yaml", "..") == "s3://bucket"
    assert below("s3://bucket/night.yaml", "gs://there/x") == "gs://there/x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: a\n", "output is missing"),
        ("source: a\noutput:\n", "output is missing"),
        ("sorce: a\noutput: b\n", "source is missing"),
        ("source: a\noutput: b\narchive: {ordr: newest}\n", r"did you mean archive\.order\?"),
        ("source: a\noutput: b\narchve: {}\n", r"did you mean archive\?"),
        ("source: a\noutput: b\ndecode: {fsp: 2}\n", r"did you mean decode\.fps\?"),
        ("source: a\noutput: b\narchive: {order: best}\n", r"archive\.order"),
        ("source: a\noutput: b\narchive: {until: 22:00}\n", "in quotes"),
        ("source: a\noutput: b\narchive: {zone: Mars/Base}\n", "no time zone"),
        ("source: [a]\noutput: b\n", "source"),
        ("- a\n", r"job\.yaml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_job_file(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_job_file(str(tmp_path / "none.yaml"))


def test_an_iso_time_needs_no_quotes(tmp_path: Path) -> None:
    text = "source: a\noutput: b\narchive: {until: 2026-11-24T06:00:00+01:00}\n"
    assert load_job_file(written(tmp_path, text)).archive.until == "2026-11-24T06:00:00+01:00"


def test_a_preset_lies_below_the_file_and_a_relative_one_beside_it(tmp_path: Path) -> None:
    text = "source: a\noutput: b\ncut: {target: 20s}\n"
    job = load_job_file(written(tmp_path, text + "preset: education\n"))
    assert (job.settings.cut.target, job.settings.effects.kind) == ("20s", "none")
    (tmp_path / "mine.yaml").write_text("cut: {target: 40s, repeat: 0.5}\n")
    job = load_job_file(written(tmp_path, text + "preset: mine.yaml\n"))
    assert (job.settings.cut.target, job.settings.cut.repeat) == ("20s", 0.5)
    job = load_job_file(written(tmp_path, text + "preset: mine.yaml\n"), flags={"preset": "film"})
    assert "dissolve" in job.settings.effects.transitions
    assert job.settings.cut.repeat != 0.5
