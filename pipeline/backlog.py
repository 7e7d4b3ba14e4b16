"""What stands between a library and an OUTPUT: what is new, changed, to be tried again, outdated or gone.

Nothing is read here. `results` has `COLUMNS` beside the columns of `tables.current`, `listed` is what
`list_library` gives. A changed file is another video of the same URI: its older results count until the new
version has come out well.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.redact import without_login
from pipeline.schema import FAILED, OK

COLUMNS = ("uri", "size_bytes", "duration_s")
# Of a library of which nothing has been read yet: 8 Mbit/s.
BYTES_PER_S = 1e6

Row = dict[str, Any]


@dataclass(frozen=True)
class Backlog:
    """Rows of the listing, each with `seconds` of footage as far as they are known; and names of results."""

    listed: int
    done: int
    new: list[Row]
    changed: list[Row]
    retry: list[Row]  # asked for again, lost by a run, or failed with other settings
    outdated: list[Row]  # fine, but made with other settings or weights
    superseded: set[str]  # results of an older version of a file whose listed version has come out well
    gone: dict[str, str]  # video_id -> uri of results whose source is not there any more
    known: int  # results of this source, of those that pass the filters

    @property
    def due(self) -> list[Row]:
        """What a run does without being asked twice."""
        return [*self.new, *self.changed, *self.retry]


def compare(
    listed: pa.Table,
    results: pa.Table,
    settings_key: str,
    again: set[str],
    source: str,
    wanted: Callable[[str], bool] | None,
) -> Backlog:
    """again    videos to be made anew whatever their results say
    wanted   whether a path below `source` passes the filters; None: the listing is not all there is, so
             nothing is taken for gone
    """
    rows = results.select(["video_id", "settings_key", "status", *COLUMNS]).to_pylist()
    by_id = {row["video_id"]: row for row in rows}
    known_uris = {row["uri"] for row in rows}
    rate = bytes_per_s(rows)
    kinds: dict[str, list[Row]] = {"new": [], "changed": [], "retry": [], "outdated": [], "done": []}
    well: set[str] = set()
    there: dict[str, str] = {}
    for row in listed.to_pylist():
        uri = without_login(row["uri"])  # as it stands in the tables
        there[uri] = row["video_id"]
        result = by_id.get(row["video_id"])
        kind = kind_of(result, settings_key, again, uri in known_uris)
        seconds = result["duration_s"] if result and result["duration_s"] else row["size_bytes"] / rate
        kinds[kind].append(row | {"seconds": seconds})
        if result and result["status"] == OK:
            well.add(row["video_id"])
    superseded, gone, known = set(), {}, 0
    for row in rows:
        version = there.get(row["uri"])
        path = below(without_login(source), row["uri"])
        mine = path is not None and wanted is not None and wanted(path)
        known += mine
        if version is None:
            if mine:
                gone[row["video_id"]] = row["uri"]
        elif version != row["video_id"] and version in well:
            superseded.add(row["video_id"])
    done = kinds.pop("done")
    return Backlog(len(listed), len(done), **kinds, superseded=superseded, gone=gone, known=known)


def kind_of(result: Row | None, settings_key: str, again: set[str], known_uri: bool) -> str:
    """What a listed video is, by its newest result."""
    if result is None:
        return "changed" if known_uri else "new"
    if result["video_id"] in again:
        return "retry"
    if result["settings_key"] != settings_key:
        return "retry" if result["status"] == FAILED else "outdated"
    return "done"


def bytes_per_s(rows: Iterable[Row]) -> float:
    """Of the footage that was read so far."""
    read = [(row["size_bytes"], row["duration_s"]) for row in rows if row["size_bytes"] and row["duration_s"]]
    seconds = sum(duration for _, duration in read)
    return sum(size for size, _ in read) / seconds if seconds else BYTES_PER_S


def below(source: str, uri: str) -> str | None:
    """The path of a file below the library, None if it lies elsewhere."""
    prefix = source.rstrip("/") + "/"
    return uri.removeprefix(prefix) if uri.startswith(prefix) else None
