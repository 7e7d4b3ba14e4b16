"""What Prometheus finds on the page of Ray's metrics agent during a run, and what the run logs meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import metrics
from cluster.metrics import COUNTERS, GAUGES, Metrics, Work
from pipeline.records import records
from tests.conftest import Bucket
from tests.deploy.test_dashboard import every_query
from tests.faulty_s3 import INTERNAL, SLOW_DOWN, FaultyS3, Rule
from tests.media import make_empty, make_video
from tests.promql import OF_THE_SCRAPE, asked, of_legend

ATTEMPTS = 3  # of a request
OF_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used"}  # there is none here


class Ledger:
    """Stands for the metrics of Ray, and keeps what is recorded: (name, tags without the run, value)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, str], float]] = []

    def metric(self, name: str, about: str, *more: object) -> "Entry":
        return Entry(self, name, more[-1])


class Entry:
    def __init__(self, ledger: Ledger, name: str, labels: tuple[str, ...]):
        self.ledger, self.name, self.labels = ledger, name, labels

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0  # or Ray raises
        assert set(tags) == set(self.labels)
        self.ledger.rows.append((self.name, {k: v for k, v in tags.items() if k != "run"}, value))

    set = observe = inc


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    made = Ledger()
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, name, made.metric)
    return made


def test_a_row_is_counted_with_the_labels_that_are_declared(ledger: Ledger) -> None:
    counted = {"read_bytes": 9, "written_bytes": 0, "storage_retries": 2}
    work = Work("decode", 1, 1, 4.0, 3.0, 60.0, 1800, 120, counts=counted, levels={"batch_frames": 16.0})
    Metrics("run-1").add(work)
    decode = {"stage": "decode"}
    assert ledger.rows == [
        ("reelmap_rows_in_total", decode, 1),
        ("reelmap_rows_out_total", decode, 1),
        ("reelmap_footage_seconds_total", decode, 60.0),
        ("reelmap_frames_decoded_total", decode, 1800),
        ("reelmap_frames_sampled_total", decode, 120),
        ("reelmap_stage_wall_seconds_total", decode, 4.0),
        ("reelmap_stage_cpu_seconds_total", decode, 3.0),
        ("reelmap_read_bytes_total", decode, 9),
        ("reelmap_storage_retries_total", decode, 2),
        ("reelmap_row_seconds", decode, 4.0),
        ("reelmap_batch_frames", decode, 16.0),
    ]


def test_a_row_that_was_put_off_is_no_measure_of_how_long_a_row_takes(ledger: Ledger) -> None:
    Metrics("run-1").add(Work("probe", 1, wall_s=120.0, put_off="storage"))
    names = [name for name, _, _ in ledger.rows]
    assert "reelmap_row_seconds" not in names
    assert ledger.rows[-1] == ("reelmap_put_off_total", {"stage": "probe", "kind": "storage"}, 1)


def test_failed_videos_add_no_footage(ledger: Ledger) -> None:
    Metrics("run-1").publish("failed", "decode", 0.0, 0.0, 0)
    assert ledger.rows == [("reelmap_videos_total", {"status": "failed", "stage": "decode"}, 1)]


@pytest.mark.parametrize("name", [*COUNTERS, *GAUGES])
def test_names_follow_the_conventions_of_prometheus(name: str) -> None:
    assert name.startswith("reelmap_")
    assert name.endswith("_total") == (name in COUNTERS)
    assert not {"ms", "minutes", "hours", "kb", "mb"} & set(name.split("_"))
    _, labels = (COUNTERS | GAUGES)[name]
    assert set(labels) <= {"run", "stage", "status", "kind"}  # never a video: series must stay few


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_can_be_watched(tmp_path: Path, bundle: str, s3: Bucket, faulty: FaultyS3) -> None:
    client = s3.client()
    for name in ("whole", "late"):
        video = make_video(tmp_path / f"{name}.mp4", seconds=5, shots=2).path
        client.upload_file(str(video), s3.name, f"in/{name}.mp4")
    client.upload_file(str(make_empty(tmp_path / "empty.mp4")), s3.name, "in/empty.mp4")
    # One video cannot be read by the driver, which looks at some headers first, and is put off by probe; one
    # picture has to be sent again.
    faulty.inject(
        Rule(INTERNAL, "get", key="in/late", times=2 * ATTEMPTS),
        Rule(SLOW_DOWN, "put", key="poster", times=1),
    )
    result = tmp_path / "watched.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.watched", f"{s3.uri}/in", f"{s3.uri}/out", bundle, str(result)],
        env=os.environ
        | s3.env
        | {"AWS_ENDPOINT_URL": faulty.endpoint, "AWS_MAX_ATTEMPTS": str(ATTEMPTS), "REELMAP_LOG": "json"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 1, done.stderr  # a video has failed
    watched = json.loads(result.read_text())
    (record,) = records(f"{s3.uri}/out")
    the_page_has_what_dashboard_and_alerts_ask_for(watched["series"])
    the_sums_are_those_of_the_record(watched["series"], record)
    every_line_is_an_event(done.stderr.splitlines(), watched["logged"], record["run_id"])
    secrets = [s3.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    assert not [secret for secret in secrets if secret in done.stderr + result.read_text()]


Series = list[tuple[str, dict[str, str], float]]


def the_page_has_what_dashboard_and_alerts_ask_for(series: Series) -> None:
    labels: dict[str, set[str]] = {}
    for name, has, _ in series:
        labels[name] = labels.get(name, set()) | set(has)
    for title, query, legend in every_query():
        for metric, wanted in asked(query).items():
            if metric not in OF_GPUS:
                assert wanted | of_legend(legend) <= labels.get(metric, set()) | OF_THE_SCRAPE, (
                    title,
                    metric,
                )


def the_sums_are_those_of_the_record(series: Series, record: dict) -> None:
    def total(name: str, **labels: str) -> float:
        wanted = labels.items() | {("run", record["run_id"])}
        return sum(value for found, has, value in series if found == name and wanted <= has.items())

    assert total("ray_reelmap_videos_total", status="ok") == record["counts"]["ok"] == 2
    assert total("ray_reelmap_videos_total", status="failed") == record["counts"]["failed"] == 1
    assert total("ray_reelmap_clips_total") == record["counts"]["clips"]
    put_off = total("ray_reelmap_put_off_total", stage="probe", kind="storage")
    assert put_off == record["stages"]["probe"]["put_off"] >= 1
    assert total("ray_reelmap_failures_total", stage="probe", kind="failed") == 1
    assert total("ray_reelmap_planned_videos") == 3
    for stage, said in record["stages"].items():
        for name in ("wall_s", "cpu_s", "read_bytes", "written_bytes", "storage_retries", "rows_out"):
            metric = {"wall_s": "stage_wall_seconds", "cpu_s": "stage_cpu_seconds"}.get(name, name)
            value = total(f"ray_reelmap_{metric}_total", stage=stage)
            # The record is written a moment before the last rows have been counted.
            assert value / 2 <= said[name] <= value + 1e-6, (stage, name)
    # Each worker series would be one more: there is one process that records.
    recorders = {has["WorkerId"] for name, has, _ in series if name.startswith("ray_reelmap_")}
    assert len(recorders) == 1


def every_line_is_an_event(said: list[str], logged: list[str], run_id: str) -> None:
    lines = [line for line in said if line.strip()]
    assert not [line for line in lines if not line.startswith('{"time"')]
    driver = [json.loads(line) for line in lines]
    assert all({"time", "level", "message"} <= set(event) for event in driver)
    messages = [event["message"] for event in driver if event.get("run") == run_id]
    assert messages[0] == "the run begins: 3 of 3 videos to do"
    assert "the run ends: finished" in messages  # before the summary
    assert {event["stage"] for event in driver if "video_id" in event} == {"publish", "probe"}
    workers = [json.loads(line) for line in logged if line.startswith('{"time"')]
    assert {event["run"] for event in workers} == {run_id}
    found = {(event["level"], event["stage"], event["message"].split(":")[0]) for event in workers}
    assert ("WARNING", "probe", "put off") in found
    assert ("WARNING", "probe", "failed") in found
    assert ("INFO", "render", "the storage had to be asked 1 times again") in found
