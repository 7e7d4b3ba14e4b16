"""Collects the shards of a video until the last one has come, then lets the whole video go.

in   one row per shard, in any order, perhaps twice; or a row whose `failure` says why it has none
out  one row per video: the arrays of the shards end to end, duration_s, shard_log

Only features, codes and times pass here, some 30 KB per second of video, and nothing is kept of a video
that is done.
"""

import math
from typing import Any

import numpy as np

from stages import tally
from stages.blobs import Blobs
from stages.failure import Dropped, Failed
from stages.loudness import FLOOR_LUFS, STEP_S
from stages.speech import step_at

ARRAYS = ("times_s", "features", "motion", "motion_std", "luma", "cuts_s", "flashes_s")
HEARD = ("loudness", "speech")
BLOBS = ("codes", "thumbnails")
MIN_FRAMES = 2


class Gather:
    def __init__(self, min_coverage: float):
        self.min_coverage = min_coverage
        self._waiting = Waiting()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The whole video if this was its last shard, else None.

        A shard that failed fails its video at once. Raises Failed or Dropped for a video that is too damaged
        or too short.
        """
        whole = self._waiting.add(row)
        tally.level("open_videos", len(self._waiting))
        if whole is None:
            return None
        return row if row["failure"] else merge(whole, self.min_coverage)


class Waiting:
    """Shards of videos, or what stands for them, until one is whole or has failed; then no more of it."""

    def __init__(self) -> None:
        self._shards: dict[str, dict[int, dict[str, Any]]] = {}
        self._closed: set[str] = set()

    def __len__(self) -> int:
        """Videos that are not whole yet."""
        return len(self._shards)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._shards

    def drop(self, video_id: str) -> list[dict[str, Any]]:
        """Those that wait of a video, of which nothing more is wanted."""
        self._closed.add(video_id)
        return list(self._shards.pop(video_id, {}).values())

    def add(self, row: dict[str, Any]) -> list[dict[str, Any]] | None:
        """All shards, in order, with the last one; those that came before one with a `failure`; else None.

        row   video_id, failure, and of a shard without one: shard, shards
        """
        video_id = row["video_id"]
        if video_id in self._closed:
            return None
        shards = self._shards.setdefault(video_id, {})
        if not row["failure"]:
            shards.setdefault(row["shard"], row)
            if len(shards) < row["shards"]:
                return None
        self._closed.add(video_id)
        del self._shards[video_id]
        return [shards[number] for number in sorted(shards)]


def merge(shards: list[dict[str, Any]], min_coverage: float) -> dict[str, Any]:
    """One row for the whole video from the rows of all its shards, in order.

    Raises Failed if less than `min_coverage` of the length in the header could be decoded.
    """
    first = shards[0]
    frames = sum(shard["frames_decoded"] for shard in shards)
    read_s = sum(s["log"]["end_s"] - s["log"]["start_s"] for s in shards if s["frames_decoded"])
    header_s = first["probe"]["duration_s"]
    if first["probe"]["duration_exact"] and read_s < min_coverage * header_s and header_s - read_s > 1:
        raise Failed(
            f"damaged or truncated: {read_s:.1f} s of {header_s:.1f} s can be decoded "
            "(set decode.min_coverage lower to take what there is)"
        )
    if frames < MIN_FRAMES:
        raise Dropped(f"too short for a reel: {frames} frame")
    return (
        {key: first[key] for key in first if key not in {*ARRAYS, *BLOBS, *HEARD, "log", "shard"}}
        | {key: np.concatenate([shard[key] for shard in shards]) for key in ARRAYS}
        | {key: Blobs.joined(shard[key] for shard in shards) for key in BLOBS}
        | {
            "frames_decoded": frames,
            "duration_s": float(np.nanmax([shard["end_of_video_s"] for shard in shards])),
            "loudness": loudness_of(shards),
            "speech": speech_of(shards),
            "shard_log": [shard["log"] for shard in shards],
        }
    )


def loudness_of(shards: list[dict[str, Any]]) -> np.ndarray:
    """LUFS per half second of the video; empty if no shard has sound, silence where only one lacks it."""
    lengths = [round((shard["end_s"] - shard["start_s"]) / STEP_S) for shard in shards[:-1]]
    last_s = shards[-1]["end_of_video_s"] - shards[-1]["start_s"]  # nan where no picture is in it
    lengths.append(math.ceil(max(0.0, last_s) / STEP_S - 1e-6) if math.isfinite(last_s) else 0)
    return end_to_end([shard["loudness"] for shard in shards], lengths, FLOOR_LUFS)


def speech_of(shards: list[dict[str, Any]]) -> np.ndarray:
    """Probability of a voice per step; empty if no shard has sound, 0 where only one lacks it."""
    lengths = [step_at(shard["end_s"]) - step_at(shard["start_s"]) for shard in shards[:-1]]
    return end_to_end([shard["speech"] for shard in shards], [*lengths, len(shards[-1]["speech"])], 0.0)


def end_to_end(parts: list[np.ndarray], lengths: list[int], nothing: float) -> np.ndarray:
    """Even steps of all shards, each brought to its length; empty if no shard has any.

    Sound may end a step before the pictures of its shard: its last one goes on. What lacks more has ended.
    """
    if not any(len(part) for part in parts):
        return np.empty(0, np.float32)
    found = []
    for part, length in zip(parts, lengths, strict=True):
        missing = max(0, length - len(part))
        if len(part) and missing <= 1:
            found.append(np.pad(part[:length], (0, missing), mode="edge"))
        else:
            found.append(np.concatenate([part[:length], np.full(missing, nothing, np.float32)]))
    return np.concatenate(found)
