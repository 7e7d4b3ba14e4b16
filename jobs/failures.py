"""`reelmap failures OUTPUT [--retry]`: what failed or was dropped, and why; plans it again if asked to."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pipeline import again, storage, tables
from pipeline.lease import Busy, Lost, lease

DONE, COULD_NOT_LOOK = 0, 2


def failures(output: str, retry: bool, report: str | None, say: Callable[[str], None]) -> int:
    """Exit code: 0 listed, and planned again if asked to, 2 not."""
    output = storage.absolute(output)
    try:
        if not tables.list_parts(output, "videos"):
            raise storage.StorageError(f"there are no results of reelmap in {storage.shown(output)}")
        with ExitStack() as stack:
            if retry:  # what is listed is what is planned again: no run may come between
                held = stack.enter_context(lease(output, "failures --retry"))
            rows = listed(output)
            for row in rows:
                waits = " (the next run tries it again)" if row["again"] else ""
                say(f"{row['name']}: {row['status']} in {row['stage']}: {row['reason']}{waits}")
            for line in sums(rows):
                say(line)
            if retry and rows:
                held.check()
                again.ask(output, [row["video_id"] for row in rows])
                rows = [row | {"again": True} for row in rows]
                say("planned again: the next `reelmap highlights` takes them")
        if report:
            record = {"output": storage.shown(output), "failures": rows}
            storage.write_bytes(storage.absolute(report), json.dumps(record, indent=1).encode())
    except (storage.StorageError, Busy, Lost) as error:
        say(f"reelmap: {error}")
        return COULD_NOT_LOOK
    return DONE


def listed(output: str) -> list[dict[str, Any]]:
    """The failures that count, by stage and URI."""
    columns = ["video_id", "uri", "status", "stage", "reason", "failed_at"]
    waiting = again.asked(output)
    rows = [
        row
        | {
            "uri": storage.shown(row["uri"]),
            "name": storage.shown(row["uri"]).rsplit("/", 1)[-1],
            "reason": storage.shown(" ".join((row["reason"] or "no reason was noted").split())),
            "failed_at": row["failed_at"].isoformat() if row["failed_at"] else None,
            "again": row["video_id"] in waiting,
        }
        for row in tables.read(output, "failures", columns).to_pylist()
    ]
    return sorted(rows, key=lambda row: (row["stage"] or "", row["uri"]))


def sums(rows: list[dict[str, Any]]) -> list[str]:
    """How many by stage, the most first, then all."""
    if not rows:
        return ["nothing failed and nothing was dropped"]
    counts = Counter((row["stage"], row["status"]) for row in rows)
    lines = [f"{count:6} {status} in {stage}" for (stage, status), count in counts.most_common()]
    return [*lines, f"{len(rows):6} in all"]
