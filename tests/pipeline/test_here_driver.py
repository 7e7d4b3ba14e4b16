"""The driver of a run in processes by itself: answers are made up, and what it makes of them is looked at."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.plan import plan_here
from cluster.resources import machine
from pipeline import here, scratch
from pipeline.config import Settings
from pipeline.guard import failure
from pipeline.processes import Stopped
from pipeline.progress import Meter, Reporter
from pipeline.rows import LISTED, LOOKED, to_table
from pipeline.steps import Pass
from pipeline.suspects import DriverWitness
from stages.failure import Failed, Unavailable


class Publishes:
    """Notes which rows come together."""

    output = "nowhere"

    def __init__(self) -> None:
        self.parts: list[list[dict]] = []

    def __call__(self, batch: pa.Table) -> list[pa.Table]:
        self.parts.append(batch.select(["video_id", "failure"]).to_pylist())
        return [batch]


Answers = Iterator[tuple[dict, dict | Exception]]


def results(
    answers: Callable[..., Answers], sizes: Sequence[int], publish_rows: int, monkeypatch: pytest.MonkeyPatch
) -> list[list[dict]]:
    """What is published, part by part, where `answers` stands for the processes."""
    monkeypatch.setattr(here, "through", answers)
    publish, plan = Publishes(), replace(plan_here(machine(2), 5, 5), publish_rows=publish_rows)
    listed = [{"video_id": str(n), "uri": f"{n}.mp4", "size_bytes": size} for n, size in enumerate(sizes)]
    todo = to_table(listed, LISTED)
    with suppress(Stopped):
        list(here.results(Pass(todo, Settings(), plan, publish, Reporter(Meter()), DriverWitness())))
    return publish.parts


def in_shards(
    videos: Callable[[dict], dict | Exception], shards: Callable[[dict], dict | Exception]
) -> object:
    """Answers of processes: a header has three shards; of the rest says who is asked."""

    def answers(waiting: deque, *_: object, **__: object) -> Answers:
        while waiting:
            asked = waiting.popleft()
            if asked["stages"] == here.HEADER:
                made = [asked["made"][0] | {"shard": number, "shards": 3} for number in range(3)]
                yield asked, {"made": made, "works": [], "failure": None}
            else:
                yield asked, (shards if asked["stages"] == here.SHARD else videos)(asked)

    return answers


def decoded(asked: dict) -> dict:
    (row,) = asked["made"]
    file = scratch.put(row | {"times_s": np.arange(3.0), "thumbnails": [], "codes": [b"x"]}, LOOKED)
    return {"made": [file], "works": [], "failure": None}


def failed(asked: dict) -> dict:
    return {"failure": failure("render", Failed("odd"))}


def test_a_video_of_which_a_shard_is_put_off_keeps_no_files_and_its_other_shards_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked_for: list[tuple[str, int]] = []

    def full_at_1(asked: dict) -> dict | Exception:
        (row,) = asked["made"]
        asked_for.append((row["uri"], row["shard"]))
        return OSError("the scratch disk is full") if row["shard"] == 1 else decoded(asked)

    with caplog.at_level("WARNING"):
        assert results(in_shards(failed, full_at_1), (2, 1), 1, monkeypatch) == []
    assert "put off in decode (disk): 0.mp4" in caplog.text
    assert asked_for == [("0.mp4", 0), ("0.mp4", 1), ("1.mp4", 0), ("1.mp4", 1)]
    assert not list(tmp_path.glob("row-*"))


def test_a_video_that_dies_with_its_scratch_file_gone_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def gone(asked: dict) -> dict:
        asked["made"][0].unlink()
        return failed(asked)

    ((row,),) = results(in_shards(gone, decoded), (1,), 1, monkeypatch)
    assert (row["video_id"], row["failure"]["reason"]) == ("0", "odd")
    assert not list(tmp_path.glob("row-*"))


def test_what_is_finished_is_published_though_the_processes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_then_none(waiting: deque, *_: object, **__: object) -> Answers:
        for _ in range(2):
            asked = waiting.popleft()
            yield asked, failed(asked)
        raise Stopped("no memory")

    (part,) = results(two_then_none, (3, 2, 1), 64, monkeypatch)
    assert [row["video_id"] for row in part] == ["0", "1"]


def test_where_videos_take_long_they_do_not_wait_for_a_full_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(waiting: deque, *_: object, **__: object) -> Answers:
        while waiting:
            now[0] += 0.6 * here.PUBLISH_AFTER_S
            asked = waiting.popleft()
            yield asked, failed(asked)

    now = [0.0]
    monkeypatch.setattr(here.time, "monotonic", lambda: now[0])
    assert [len(part) for part in results(slow, (5, 4, 3, 2, 1), 64, monkeypatch)] == [2, 2, 1]


def test_a_scratch_file_that_cannot_be_read_is_put_off(tmp_path: Path) -> None:
    stages = object.__new__(here.Stages)
    stages.set_threads, stages.works, stages.guards = int, here.Works(), {}
    asked = {"stages": here.VIDEO, "made": [tmp_path / "row-gone.arrow"], "threads": 1}
    with pytest.raises(Unavailable, match="scratch file cannot be read"):
        stages(asked)


def test_the_largest_begin_first_some_share_a_part_and_none_is_left_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []

    def answers(waiting: object, *_: object, **__: object) -> object:
        while waiting:
            asked = waiting.popleft()
            (row,) = asked["made"]
            told = {"status": "failed", "stage": "probe", "reason": f"{row['uri']} is odd"}
            begun.append(row["uri"])
            yield asked, {"failure": told}

    parts = results(answers, (20, 500, 3, 500, 100), 2, monkeypatch)
    assert sorted(row["video_id"] for part in parts for row in part) == list("01234")
    assert [len(part) for part in parts] == [2, 2, 1]
    assert begun == ["1.mp4", "3.mp4", "4.mp4", "0.mp4", "2.mp4"]
