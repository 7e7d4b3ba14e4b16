"""`reelmap status`: counts, who is at work, what died, how long still; from what lies in storage."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.cli import main
from pipeline import again, storage, tables
from pipeline.lease import Holder, holder, lease
from pipeline.ledger import read_ledger
from pipeline.lost import lost_in_runs
from pipeline.state import ARCHIVE_NOTE, read_state
from tests.pipeline.made_up import part_of, result
from tests.pipeline.made_up import tables as made_up

NOW = datetime(2026, 6, 1, 3, tzinfo=UTC)


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Three videos of one key, one of another."""
    rows = [result("a"), result("b", status="failed"), result("c", status="dropped")]
    for made in (made_up(*rows), made_up(result("d", "k0"))):
        tables.write_part(str(tmp_path), part_of(made), made)
    return str(tmp_path)


def write_record(output: str, run_id: str, **facts: object) -> None:
    counts = {"listed": 9, "planned": 8, "ok": 3, "dropped": 1, "failed": 1, "clips": 9}
    known = {
        "run_id": run_id,
        "state": "finished",
        "settings_key": "k1",
        "started_at": (NOW - timedelta(hours=1)).isoformat(),
        "updated_at": NOW.isoformat(),
        "settings": {"codec": {"kind": "vqvae"}},
        "counts": counts,
        "video_s": 7200.0,
        "wall_s": 3600.0,
        "error": None,
        "share_done": 0.5,
    }
    storage.write_bytes(f"{output}/runs/{run_id}.json", json.dumps(known | facts).encode())


def said(output: str, *arguments: str) -> str:
    done = CliRunner().invoke(main, ["status", output, *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_results_are_counted_by_settings_and_status(output: str) -> None:
    write_record(output, "r1")
    state = read_state(output, NOW)
    assert [(made.settings_key, made.ok, made.dropped, made.failed) for made in state.by_settings] == [
        ("k1", 1, 1, 1),
        ("k0", 1, 0, 0),
    ]
    assert state.by_settings[0].video_s == 150.0
    text = said(output)
    assert "settings k1: 3 videos done, 2.5 min of footage: 1 ok, 1 dropped, 1 failed" in text
    assert "no run is on" in text
    assert "speed of past runs: 2.0 video-hours per hour" in text


def test_a_run_that_is_on_says_how_far_it_is_and_how_long_still(output: str) -> None:
    write_record(output, "r1")
    write_record(output, "r2", state="running")
    with lease(output, "r2"):
        state = read_state(output, NOW)
        run = state.running
        assert run is not None
        assert (run.state, run.left, run.left_s) == ("running", 3, 3600.0)
        assert state.held_by is not None
        assert state.held_by.since is not None
        write_record(output, "r2", state="running", updated_at=datetime.now(UTC).isoformat())
        text = said(output)
    assert (
        "5 of 8 videos (3 ok, 1 dropped, 1 failed), 50% of the work, 2.0 video-hours per hour, 1:00:00 left"
        in text
    )
    assert text.count("r2") == 1


def test_a_run_without_its_lease_has_died(output: str) -> None:
    write_record(output, "r2", state="running")
    assert [run.state for run in read_state(output, NOW).runs] == ["died"]
    with lease(output, "r3"):
        state = read_state(output, NOW)
    assert ([run.state for run in state.runs], state.running) == (["died"], None)
    assert "died: 3 ok" in said(output)


@pytest.mark.parametrize(("then", "state"), [("running", "running"), ("finished", "finished")])
def test_a_run_that_begins_or_ends_between_two_looks_has_not_died(
    then: str, state: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease(output, "r2"):
        write_record(output, "r2", state="running")
        looks: list[Holder | None] = []

        def late(output: str) -> Holder | None:
            if not looks:
                looks.append(None)
                return None  # it holds nothing yet
            write_record(output, "r2", state=then)
            return holder(output) if then == "running" else None

        monkeypatch.setattr("pipeline.state.holder", late)
        assert [run.state for run in read_state(output, NOW).runs] == [state]


def test_a_holder_that_was_killed_here_is_dead(output: str) -> None:
    with lease(output, "r2"):
        held = json.loads(storage.read_bytes(f"{output}/runs/.lease"))
    storage.write_bytes(f"{output}/runs/.lease", json.dumps(held | {"born": "1"}).encode())
    write_record(output, "r2", state="running")
    assert [run.state for run in read_state(output, NOW).runs] == ["died"]
    assert "which is dead: the next run takes over" in said(output)


def test_a_run_that_shows_no_life_is_not_called_dead(output: str) -> None:
    write_record(output, "r2", state="running")
    with lease(output, "r2"):
        later = read_state(output, NOW + timedelta(minutes=10))
        assert [run.state for run in later.runs] == ["silent"]
        assert later.running is not None
        assert later.running.left_s is None
        assert "no sign of life since" in said(output)


def test_what_waits_for_the_next_run_is_said(output: str) -> None:
    again.ask(output, ["b"])
    note = {"looked_at": NOW.isoformat(), "source": "s3://b/lib", "listed": 9, "left": 4, "outdated": 2}
    storage.write_bytes(
        f"{output}/{ARCHIVE_NOTE}", json.dumps(note | {"gone": 1, "gone_uris": ["s3://b/lib/x.mp4"]}).encode()
    )
    text = said(output)
    assert "1 video put off" in text
    assert "4 videos left for the next run" in text
    assert "1 source gone, results kept: s3://b/lib/x.mp4" in text


def test_json_says_the_same(output: str) -> None:
    write_record(output, "r1")
    facts = json.loads(said(output, "--json"))
    assert facts["by_settings"][0]["ok"] == 1
    assert (facts["speed"], facts["left"], facts["running"]) == (2.0, 3, None)
    assert facts["runs"][0]["run_id"] == "r1"


def test_watching_ends_when_no_run_is_on(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(output, "r2", state="running", updated_at=datetime.now(UTC).isoformat())
    held = lease(output, "r2")
    held.__enter__()
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        write_record(output, "r2")
        held.__exit__(None, None, None)

    monkeypatch.setattr("jobs.status.time.sleep", sleep)
    text = said(output, "--watch")
    assert len(naps) == 1
    assert text.index("running: r2") < text.index("no run is on")


def test_other_readers_of_records_take_a_running_one_as_it_is(output: str) -> None:
    write_record(output, "r1", lost={"b": "b.mp4"})
    write_record(output, "r2", state="running", lost={"b": "b.mp4"})
    assert lost_in_runs(output, "k1") == {"b": 2}
    ledger = read_ledger(output)
    assert ledger.records["k1"]["run_id"] == "r2"
    assert ledger.proxies_of(ledger.results["a"]) == ledger.results["a"].samples


def test_where_there_is_nothing_nothing_can_be_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert (done.exit_code, "there are no results" in done.output) == (2, True)
