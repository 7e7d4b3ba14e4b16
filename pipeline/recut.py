"""Another cut of a video that was analysed before: from its rows in the tables, and the spans that it shows.

in   a row of rows.TO_CUT
out  a row of rows.CUT, whose reel lies in storage

Nothing is analysed: what the edit list is made of stands in `videos` and `clips`. What was not kept of every
sample (its vector, its novelty, its picture) is that of the clip which it lies in.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline import cuts, schema, storage, tables
from pipeline.config import Settings
from pipeline.guard import Stage
from pipeline.library import LibraryError, LibrarySettings, id_of, passing
from pipeline.making import make_cut, open_render
from pipeline.publish import upload
from pipeline.recall import MEASURES
from pipeline.rows import FACTS, TO_CUT, to_table
from stages import tally
from stages.container import LimitSettings, keeping_blocks, open_source
from stages.failure import Failed
from stages.probe import describe
from stages.watchdog import unwatched

CLIP_COLUMNS = ["clip", "start_s", "end_s", "novelty", "embedding", "thumbnail"]
CHANGED = "it has changed since it was analysed: `reelmap highlights` takes the new version"


class Recut:
    """Holds the models of a cut. Raises Failed for a video whose rows or source cannot be used."""

    def __init__(self, settings: Settings, output: str):
        self.output, self.limits = output, settings.limits
        self.cut, self.render = make_cut(settings), open_render(settings)
        self.newest = tables.current(output)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        known = self.cut(self.recall(row))
        before = tally.counts()["read_bytes"]
        check_version(row)
        known["probe"] = facts_of(known, self.limits)
        with keeping_blocks(), tempfile.TemporaryDirectory(prefix="reelmap-") as folder:
            made = self.render(known, Path(folder))
            read_bytes = tally.counts()["read_bytes"] - before
            with unwatched():  # the storage has time-outs of its own
                reel = upload(self.output, made, cuts.place_of(row))
        return row | {
            "reel": reel,
            "edits": [named(edit, row, made["clips"], known["stored"]) for edit in made["edits"]],
            "target_s": made["target_s"],
            "read_bytes": read_bytes,
        }

    def recall(self, row: dict[str, Any]) -> dict[str, Any]:
        """What stages/cut.py takes, from the tables."""
        only = {row["video_id"]}
        videos = tables.read(self.output, "videos", None, only, self.newest).to_pylist()
        clips = tables.read(self.output, "clips", CLIP_COLUMNS, only, self.newest)
        if not videos or not len(clips):
            raise Failed("its clips are no longer in the tables")
        (video,) = videos
        if any(video[name] is None for name in MEASURES):
            raise Failed("its motion and loudness were not stored: it was processed by an older version")
        return row | {
            "stored": clips.select(["clip", "start_s", "end_s"]).to_pylist(),
            "facts": {name: video.get(name) for name in FACTS.names},
            "duration_s": video["duration_s"],
            "shard_log": video["shard_log"],
            "loudness": np.array(video["loudness_lufs"], np.float32),
            "cuts_s": np.array(video["cuts_s"], np.float64),
            **samples_of(video, clips),
        }


def samples_of(video: dict[str, Any], clips: pa.Table) -> dict[str, Any]:
    """Every sample of a video, with what only its clips know."""
    times_s = np.array(video["times_s"], np.float64)
    at = np.searchsorted(clips["start_s"].to_numpy(), times_s + 1e-6, side="right") - 1
    at = np.clip(at, 0, len(clips) - 1)
    thumbnails = clips["thumbnail"].to_pylist()
    return {
        "times_s": times_s,
        **{
            name: np.array(video[name], np.float32) for name in ("importance", "motion", "motion_std", "luma")
        },
        # Older tables know nothing of flashes and speech.
        "flashes_s": np.array(video.get("flashes_s") or (), np.float64),
        "speech": np.array(video.get("speech") or (), np.float32),
        "novelty": clips["novelty"].to_numpy().astype(np.float32)[at],
        "features": np.array(clips["embedding"].to_pylist(), np.float32)[at],
        "thumbnails": [thumbnails[place] for place in at],
    }


def check_version(row: dict[str, Any]) -> None:
    """Raises Failed unless the source is the file that was analysed; one with an ETag tells when opened."""
    if row["etag"]:
        return
    try:
        now = id_of(row["uri"])
    except LibraryError as error:
        raise Failed(str(error)) from error
    if now != row["video_id"]:
        raise Failed(CHANGED)


def facts_of(row: dict[str, Any], limits: LimitSettings) -> dict[str, Any]:
    """What the render has to know of the source; of one that an older version analysed, by its header."""
    facts = row["facts"]
    if facts["fps_exact"] and facts["interlaced"] is not None:
        return facts
    with open_source(row["uri"], limits, row["etag"]) as source:
        return describe(source)


def named(
    edit: dict[str, Any], row: dict[str, Any], clips: list[dict[str, Any]], stored: list[dict[str, Any]]
) -> dict[str, Any]:
    """An edit as the table has it: with its source, and the clip of the table `clips` that it shows."""
    middle_s = (edit["source_start_s"] + edit["source_end_s"]) / 2
    nearest = min(stored, key=lambda clip: max(clip["start_s"] - middle_s, middle_s - clip["end_s"]))
    return edit | {"clip": nearest["clip"], "video_id": row["video_id"], "uri": row["uri"]}


def list_results(output: str, library: LibrarySettings) -> list[dict[str, Any]]:
    """The videos of an OUTPUT that have clips, as `current` names them, with what their source was; by URI.

    Of several versions of a file it is the newest, or none if that has no clips. Raises LibraryError if there
    are none at all.
    """
    newest = tables.current(output, ("uri", "etag", "size_bytes", "modified_at", "duration_s"))
    newest = tables.latest_versions(newest)
    rows = newest.filter(pc.equal(newest["status"], schema.OK)).to_pylist()
    if not rows:
        raise LibraryError(f"there are no results of reelmap in {storage.shown(output)}")
    passes = passing(library, of_uris=True)
    return sorted((row for row in rows if passes(row["uri"])), key=lambda row: row["uri"])[: library.limit]


def todo_of(rows: list[dict[str, Any]], name: str, settings_key: str, done: dict[str, str]) -> pa.Table:
    """Those of the videos without a cut of this name, by these settings, from what is known of them now."""
    return to_table(
        [
            row
            | {"name": name, "made_from": row["settings_key"], "settings_key": settings_key, "failure": None}
            for row in rows
            if done.get(row["video_id"]) != row["settings_key"]
        ],
        TO_CUT,
    )


def make_recut(settings: Settings, output: str, threads: int) -> Stage:
    torch.set_num_threads(threads)
    return Recut(settings, output)
