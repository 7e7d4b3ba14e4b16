"""What a run says while it runs: counts add up, and the time left goes down to nothing."""

import io
import re
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from cluster.metrics import Work
from pipeline import progress
from pipeline.progress import (
    Counts,
    Display,
    Reporter,
    StageCount,
    Totals,
    Watched,
    clock,
    measure,
    share_done,
)

SHARD = {"failure": None, "probe": {"duration_s": 100.0}, "start_s": 60.0, "end_s": 120.0}
FAILURE = {"status": "failed", "stage": "decode", "reason": "the file ends after 3 of 12 s"}


class Told:
    """Metrics that only keep what waits."""

    def __init__(self, run_id: str):
        self.waiting: dict[str, int] = {}
        self.wait = self.waiting.__setitem__
        self.add = self.plan = self.publish = lambda *_: None


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock))
    return clock


def display(counts: Counts, totals: Totals) -> Display:
    shown = Display(counts, None, Console(file=io.StringIO(), width=100))
    shown.totals = totals
    return shown


def seconds(text: str) -> int:
    """Of "1:02:03 left" at the end of a line."""
    parts = re.search(r"([\d:]+) left$", text)[1].split(":")
    return sum(int(part) * 60**place for place, part in enumerate(reversed(parts)))


def test_times_have_hours_only_where_there_are_some() -> None:
    assert [clock(s) for s in (0, 9.4, 59.6, 3599.4, 3600, 90061)] == [
        "0:00",
        "0:09",
        "1:00",
        "59:59",
        "1:00:00",
        "25:01:01",
    ]


@pytest.mark.parametrize(
    ("stage", "row", "footage_s"),
    [
        ("probe", SHARD, 100.0),
        ("decode", SHARD, 40.0),  # the last shard ends where the video does
        ("decode", SHARD | {"start_s": 0.0, "end_s": 60.0}, 60.0),
        ("decode", SHARD | {"start_s": 110.0}, 0.0),
        ("probe", SHARD | {"probe": {"duration_s": None}}, 0.0),
        ("look", SHARD, 0.0),  # the same footage is not counted twice
        ("probe", {"failure": FAILURE}, 0.0),
        ("probe", {"failure": None}, 0.0),  # set aside or put off before its header was read
        ("decode", SHARD | {"failure": FAILURE}, 0.0),
    ],
)
def test_only_footage_that_was_read_is_counted(stage: str, row: dict, footage_s: float) -> None:
    work = Work(stage)
    measure(work, {"frames_decoded": 30, "times_s": [0.0, 0.5]} | row)
    assert work.footage_s == footage_s
    assert work.frames_decoded == (30 if stage == "decode" and row["failure"] is None else 0)


def test_a_video_of_many_shards_is_so_long_once() -> None:
    work = Work("probe")
    for _ in range(3):
        measure(work, SHARD)
    assert work.footage_s == 100.0


def test_the_meter_sums_what_all_workers_say(ray_local: None) -> None:
    meter = progress.open_meter("run-1")
    reporters = [Reporter(meter), Reporter(meter)]
    for reporter in reporters:
        reporter.add(Work("probe", 1, 2, wall_s=0.5, cpu_s=0.25, footage_s=100.0))
        reporter.add(
            Work("decode", 1, 1, 4.0, 3.0, footage_s=40.0, counts={"read_bytes": 7, "storage_retries": 1})
        )
    reporters[0].add(Work("decode", 1, 0, wall_s=1.0, cpu_s=0.5, failed="failed"))
    reporters[1].add(Work("decode", 1, 0, put_off="storage"))
    totals = display_of(meter).read()
    assert (totals.probed, totals.probed_s, totals.decoded_s) == (2, 200.0, 80.0)
    assert totals.stages["probe"] == StageCount(rows=2, rows_out=4, wall_s=1.0, cpu_s=0.5)
    assert totals.stages["decode"] == StageCount(
        rows=4,
        rows_out=2,
        wall_s=9.0,
        cpu_s=6.5,
        failures=1,
        put_off=1,
        read_bytes=14,
        storage_retries=2,
    )


def test_what_has_left_one_stage_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "Metrics", Told)
    meter = Watched("run-1")
    meter.begin(("probe", "decode", "publish"), 2)
    assert meter.metrics.waiting == {"probe": 2, "decode": 0, "publish": 0}
    meter.add(Work("probe", rows_in=1, rows_out=3))
    meter.add(Work("decode", rows_in=1, rows_out=1))
    meter.add(Work("decode", rows_in=1, rows_out=0, failed="failed"))
    assert meter.metrics.waiting == {"probe": 1, "decode": 1, "publish": 1}
    for _ in range(2):  # its worker died before it could say that it was done
        meter.add(Work("publish", rows_in=1, rows_out=1))
    assert meter.metrics.waiting["publish"] == 0
    meter.begin(("probe", "decode", "publish"), 1)
    assert meter.metrics.waiting == {"probe": 1, "decode": 0, "publish": 0}


def display_of(meter: object) -> Display:
    return Display(Counts(total=2, size_bytes=0), meter, Console(file=io.StringIO()))


def test_ok_dropped_and_failed_are_finished() -> None:
    counts = Counts(total=9, size_bytes=1, ok=3, dropped=2, failed=1)
    assert counts.finished == 6


def test_hours_per_hour_are_of_published_footage(now: Clock) -> None:
    counts = Counts(total=2, size_bytes=0, started=now())
    assert counts.hours_per_hour == 0.0
    now.now, counts.video_s = 1800.0, 7200.0
    assert counts.hours_per_hour == pytest.approx(4.0)


def test_the_line_says_what_is_done_how_fast_and_what_is_left(now: Clock) -> None:
    counts = Counts(total=4, size_bytes=0, ok=1, dropped=1, clips=12, video_s=100.0, started=now())
    totals = Totals(probed_s=400.0, probed=4, decoded_s=300.0)
    now.now = 150.0
    # Decoded: 3/4. Published: 1/4, and 1/4 dropped. Done: 5/8 after 150 s.
    assert display(counts, totals).line() == (
        "2/4 videos, 5:00 decoded, 12 clips, 1 failed or dropped, 2.0 x real time, 1:30 left"
    )


def test_a_run_that_decodes_nothing_counts_videos(now: Clock) -> None:
    counts = Counts(total=4, size_bytes=0, decodes=False, ok=1, clips=12, video_s=100.0, started=now())
    now.now = 50.0
    assert display(counts, Totals()).line() == (
        "1/4 videos, 12 clips, 0 failed or dropped, 2.0 x real time, 2:30 left"
    )


def test_the_table_has_a_line_of_failures_only_where_there_are_some() -> None:
    def text(counts: Counts) -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(display(counts, Totals()).table())
        return console.file.getvalue()

    assert "failed" not in text(Counts(total=3, size_bytes=0, ok=1))
    assert re.search(r"failed +2 +1 dropped", text(Counts(total=3, size_bytes=0, failed=2, dropped=1)))


def test_before_any_footage_is_known_no_time_is_promised() -> None:
    counts = Counts(total=4, size_bytes=0)
    assert display(counts, Totals()).line().endswith("unknown time left")
    assert display(counts, Totals(probed=1)).line().endswith("unknown time left")


@pytest.mark.parametrize("fails", [(), (2,), (0, 3, 9), range(10)])
def test_at_a_steady_speed_the_time_left_goes_down_to_nothing(now: Clock, fails: tuple[int, ...]) -> None:
    """Ten videos of 60 s, decoded in 5 s each and published 5 s later; a failed one takes as long."""
    counts, totals = Counts(total=10, size_bytes=0, started=now()), Totals(probed_s=600.0, probed=10)
    left = []
    for video in range(10):
        now.now += 10.0
        if video in fails:
            counts.failed += 1
        else:
            totals.decoded_s += 60.0
            counts.ok, counts.video_s = counts.ok + 1, counts.video_s + 60.0
        left.append(seconds(display(counts, totals).line()))
    assert left == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]


def test_decoded_footage_is_half_of_the_work() -> None:
    counts, totals = Counts(total=2, size_bytes=0), Totals(probed_s=60.0, probed=1)
    for decoded_s, video_s, done in ((30.0, 0.0, 0.125), (120.0, 0.0, 0.5), (120.0, 60.0, 0.75)):
        totals.decoded_s, counts.video_s = decoded_s, video_s
        assert share_done(counts, totals) == pytest.approx(done)


def test_the_share_done_never_goes_back_and_is_whole_only_at_the_end() -> None:
    """Decoded again after a worker died, footage counts twice; lengths of headers may be wrong."""
    counts, totals = Counts(total=3, size_bytes=0), Totals(probed_s=30.0, probed=3)
    shares = [share_done(counts, totals)]
    for decoded_s, video_s, finished in ((10, 0, 0), (40, 0, 0), (55, 40, 1), (55, 60, 2), (55, 90, 3)):
        totals.decoded_s, counts.video_s, counts.ok = decoded_s, video_s, finished
        shares.append(share_done(counts, totals))
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-2] < 1
    assert shares[-1] == 1


def test_elsewhere_than_on_a_terminal_a_line_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.01)
    shown = display(Counts(total=2, size_bytes=0), Totals())
    monkeypatch.setattr(shown, "read", lambda: shown.totals)
    with shown:
        for _ in range(500):
            time.sleep(0.01)
            if shown.console.file.getvalue().count("\n") >= 2:
                break
        shown.message("[1/2] a [b] name.mp4: ok")
    lines = shown.console.file.getvalue().splitlines()
    assert lines[0].startswith("0/2 videos, 0:00 decoded")
    assert "[1/2] a [b] name.mp4: ok" in lines
