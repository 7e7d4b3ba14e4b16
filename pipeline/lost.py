"""Videos that a run has lost: neither done nor at fault, as far as is known.

What is lost (a node without memory, a store that is away) is tried again by the next run, but not for ever:
a video may be what kills its workers. A good result of an earlier run stays as it is.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from pipeline import tables
from pipeline.publish import Publish
from pipeline.records import records
from pipeline.rows import LISTED, PUBLISHED, to_table
from pipeline.schema import FAILED, OK

RUNS = 3
LOST = "run"  # the stage of such a failure
WORKER_OR_STORAGE = (
    "its worker died, the scratch disk was full, or the storage could not be read or written (see the log)"
)
_PER_PART = 256


def tried_again(output: str, settings_key: str) -> set[str]:
    """The videos whose failure was the run's and not their own, in fewer than RUNS runs."""
    failures = tables.read(output, "failures", ["video_id", "settings_key", "stage"]).to_pylist()
    lost = {
        row["video_id"] for row in failures if row["stage"] == LOST and row["settings_key"] == settings_key
    }
    if not lost:
        return set()
    runs = lost_in_runs(output, settings_key)
    return {video_id for video_id in lost if runs[video_id] < RUNS}


def lost_in_runs(output: str, settings_key: str) -> Counter[str]:
    """In how many runs each video was lost, by the records of runs/."""
    mine = (record for record in records(output) if record.get("settings_key") == settings_key)
    return Counter(video_id for record in mine for video_id in record.get("lost") or ())


def give_up(
    output: str, settings_key: str, publish: Publish, rows: list[dict[str, Any]], why: str
) -> Iterator[dict[str, Any]]:
    """Says of each row that it is lost, and publishes that of those that have no good result."""
    if not rows:
        return
    runs, good = lost_in_runs(output, settings_key), well(output)
    lost = []
    for row in rows:
        times = runs[row["video_id"]] + 1
        what = f"lost in run {times} of {RUNS}" if times < RUNS else f"given up, as lost in {times} runs"
        failure = {"status": FAILED, "stage": LOST, "failed_at": datetime.now(UTC)}
        if row["video_id"] in good:
            said = dict.fromkeys(PUBLISHED.names) | row | failure | {"clips": 0}
            yield said | {"reason": f"lost, its earlier result stays: {why}"}
        else:
            lost.append(row | {"failure": failure | {"reason": f"{what}: {why}"}})
    for start in range(0, len(lost), _PER_PART):
        for batch in publish(to_table(lost[start : start + _PER_PART], LISTED)):
            yield from batch.to_pylist()


def well(output: str) -> set[str]:
    """The videos whose newest result is good, whatever its settings."""
    newest = tables.current(output)
    return set(newest.filter(pc.equal(newest["status"], OK))["video_id"].to_pylist())
