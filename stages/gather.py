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
from stages.failure import Dropped, Failed
from stages.loudness import FLOOR_LUFS, STEP_S
from stages.speech import step_at

ARRAYS = ("times_s", "features", "motion", "motion_std", "luma", "cuts_s", "flashes_s")
HEARD = ("loudness", "speech")
LISTS = ("codes", "thumbnails")
MIN_FRAMES = 2


class Gather:
    def __init__(self, min_coverage: float):
        self.min_coverage = min_coverage
        self._waiting: dict[str, dict[int, dict[str, Any]]] = {}
        self._closed: set[str] = set()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The whole video if this was its last shard, else None.

        A shard that failed fails its video at once. Raises Failed or Dropped for a video that is too damaged
        or too short.
        """
        video_id = row["video_id"]
        if video_id in self._closed:
            return None
        if row["failure"]:
            self._close(video_id)
            return row
        shards = self._waiting.setdefault(video_id, {})
        shards.setdefault(row["shard"], row)
        tally.level("open_videos", len(self._waiting))
        if len(shards) < row["shards"]:
            return None
        self._close(video_id)
        return merge([shards[number] for number in sorted(shards)], self.min_coverage)

    def _close(self, video_id: str) -> None:
        self._waiting.pop(video_id, None)
        self._closed.add(video_id)
        tally.level("open_videos", len(self._waiting))


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
        {key: first[key] for key in first if key not in {*ARRAYS, *LISTS, *HEARD, "log", "shard"}}
        | {key: np.concatenate([shard[key] for shard in shards]) for key in ARRAYS}
        | {key: [item for shard in shards for item in shard[key]] for key in LISTS}
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
