"""The videos of an OUTPUT by the names that people give them."""

from typing import Any

import pyarrow as pa

from pipeline import schema, storage, tables

SHOWN = 5  # of the videos that a name may mean


class VideoError(ValueError):
    """There is no such video, or there are several; the message says so in words."""


class Videos:
    """Of several versions of a file the newest result counts."""

    def __init__(self, output: str, newest: pa.Table | None = None):
        columns = ["video_id", "uri", "status", "duration_s", "width", "height", "run_id", "published_at"]
        rows = tables.read(output, "videos", columns, newest=newest).sort_by("published_at").to_pylist()
        if not rows:
            raise VideoError(f"there are no results of reelmap in {storage.shown(output)}")
        self.by_id: dict[str, dict[str, Any]] = {row["video_id"]: row for row in rows}
        self.by_uri: dict[str, dict[str, Any]] = {row["uri"]: row for row in rows}
        self.by_name: dict[str, list[str]] = {}
        for uri in self.by_uri:
            self.by_name.setdefault(uri.rsplit("/", 1)[-1], []).append(uri)

    def find(self, name: str) -> dict[str, Any]:
        """The row of a processed video by its id, its URI, or as much of the end of that as only one has."""
        row = self.by_id.get(name) or self.by_uri.get(name) or self.by_uri[self._ending_in(name)]
        if row["status"] != schema.OK:
            raise VideoError(f"{name} has no clips: it was {row['status']}")
        return row

    def _ending_in(self, name: str) -> str:
        tail = name.removeprefix("./")
        found = [uri for uri in self.by_name.get(tail.rsplit("/", 1)[-1], []) if uri.endswith(f"/{tail}")]
        if not found:
            raise VideoError(f"no video is called {name or '(nothing)'}: `reelmap report` lists them")
        if len(found) > 1:
            some = ", ".join(storage.shown(uri) for uri in sorted(found)[:SHOWN])
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise VideoError(
                f"{name} may be any of {len(found)} videos ({some}{more}): write more of its path"
            )
        return found[0]
