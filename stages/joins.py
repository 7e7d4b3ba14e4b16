"""In which order the clips of a reel come, and where its sound is cut beside its picture."""

import numpy as np

from stages.pauses import Edges
from stages.spans import OVERLAP

# Of a join, who speaks so near to it on either side is heard over it.
NEAR_S = 1.0
TRY_S = 0.02
# A sound cut beside the picture's is worth it from here on, in words; a shorter lead nobody notices.
WORTH, LEAST_LEAD_S = 0.3, 0.08


def takes(clips: list[dict], edges: Edges) -> list[list[dict]]:
    """Clips in time order, those together that go on where the one before ends, in picture or in speech."""
    found: list[list[dict]] = []
    for clip in clips:
        if found and goes_on(found[-1][-1], clip, edges):
            found[-1].append(clip)
        else:
            found.append([clip])
    return found


def goes_on(before: dict, clip: dict, edges: Edges) -> bool:
    """Whether a clip is the rest of the one before: of its shot, or of what is being said."""
    at_s = clip["start_s"]
    return touches(before, clip) and (before["shot"] == clip["shot"] or edges.talk_in(at_s, at_s))


def touches(before: dict, clip: dict) -> bool:
    """Whether a clip begins where the one before ends, in the same video: those of many name theirs."""
    same = before.get("video_id") == clip.get("video_id")
    return same and bool(np.isclose(before["end_s"], clip["start_s"]))


def ordered(clips: list[dict], edges: Edges, best_first: bool) -> list[dict]:
    """Clips (in time order) as the reel shows them: whole takes, perhaps the one with the best clip first."""
    found = takes(clips, edges)
    if best_first:
        found.sort(key=lambda take: -max(clip["score"] for clip in take))
    return [clip for take in found for clip in take]


def led_in(
    sounds: np.ndarray, bounds: np.ndarray, shots: np.ndarray, least_s: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pictures [K, 2] to sounds that may begin before their clips do, and by how much each sound leads [K].

    sounds  [K, 2]  start and end of each clip's sound in the source, in reel order
    bounds  [K, 2]  of each clip; a sound before them is heard over the picture of the clip before
    shots   [K, 2]  which the picture must not leave
    None if a picture would leave its shot for that, show what another shows, or be shorter than least_s.
    """
    leads = np.maximum(0.0, bounds[:, 0] - sounds[:, 0])
    pictures = sounds.copy()
    pictures[:, 0] += leads
    for k in np.flatnonzero(leads):
        if k == 0 or _free(pictures, k - 1, pictures[k - 1, 1], shots[k - 1, 1]) < leads[k]:
            return None
        if pictures[k, 1] - pictures[k, 0] < least_s:
            return None
        pictures[k - 1, 1] += leads[k]
    return pictures, leads


def lead_sound(
    spans: np.ndarray, shots: np.ndarray, hard: np.ndarray, edges: Edges, most_s: float, least_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Spans [K, 2] and by how much the sound of each clip [K] comes before its picture, seconds.

    spans   [K, 2]  start and end of each clip's picture in the source, in reel order
    shots   [K, 2]  which the picture must not leave
    hard    [K]     whether a plain cut, and not the same take, leads into a clip
    Below 0 the sound of the clip before trails instead. The sound is cut in a pause: if the picture is not,
    the sound moves; if it is, the picture moves on over the first words, or back over the last. Lengths add
    up to the same.
    """
    spans, leads = spans.copy(), np.zeros(len(spans))
    for k in np.flatnonzero(hard):
        out_s, in_s = spans[k - 1, 1], spans[k, 0]
        if not (edges.talk_in(out_s - NEAR_S, out_s) and edges.talk_in(in_s, in_s + NEAR_S)):
            continue
        lengths = spans[k - 1 : k + 1, 1] - spans[k - 1 : k + 1, 0]
        most = min(most_s, OVERLAP * float(lengths.min()))
        tries = TRY_S * np.arange(-int(most / TRY_S), int(most / TRY_S) + 1)
        cost = edges.leaving(out_s - tries) + edges.entering(in_s - tries) + 0.1 * np.abs(tries)
        if cost[len(tries) // 2] - cost.min() > WORTH:
            leads[k] = tries[np.argmin(cost)]
            continue
        ahead = min(most, _free(spans, k - 1, out_s, shots[k - 1, 1]), lengths[1] - least_s)
        back = min(most, _free(spans, k, in_s, shots[k, 0]), lengths[0] - least_s)
        move_s = ahead if ahead >= min(back, LEAST_LEAD_S) else -back
        moved = np.array([out_s + move_s]), np.array([in_s + move_s])
        if abs(move_s) >= LEAST_LEAD_S and not edges.flash_at(np.concatenate(moved)).any():
            spans[k - 1, 1], spans[k, 0] = out_s + move_s, in_s + move_s
            leads[k] = move_s
    return spans, leads


def _free(spans: np.ndarray, k: int, from_s: float, to_s: float) -> float:
    """Seconds from an end of clip k to that of its shot which no other clip shows."""
    others = np.delete(spans, k, axis=0)
    if to_s >= from_s:
        limits = others[others[:, 0] >= from_s - 1e-6, 0]
        return max(0.0, float(np.append(limits, to_s).min()) - from_s)
    limits = others[others[:, 1] <= from_s + 1e-6, 1]
    return max(0.0, from_s - float(np.append(limits, to_s).max()))
