"""Why each clip is in the reel or not, in words."""

import numpy as np

# Darker clips are fades and blanks, whatever the network says of them.
BLACK_LUMA = 0.03
GOOD_IN_SUM = "good in the sum of its parts"
# Parts without a share of their own in the score; the learned importance knows them.
WORDS = {"motion": "much motion", "loudness_lufs": "loud"}


def explain(
    clips: list[dict], chosen: set[int], like: dict[int, int] | None = None, short: bool = False
) -> None:
    """Sets `chosen`, `rank` (1 is the best) and `why` on every clip.

    like   clips that look like others
    short  whether the reel is shorter than asked for
    """
    order = np.argsort([-clip["score"] for clip in clips], kind="stable")
    for place, k in enumerate(order):
        clips[k] |= {"rank": place + 1, "chosen": clips[k]["clip"] in chosen}
    parts = {
        part: np.array([np.nan if clip[part] is None else clip[part] for clip in clips])
        for part in ("importance", "novelty", *WORDS)
    }
    best = {clips[k]["shot"]: clips[k]["rank"] for k in order[::-1] if clips[k]["chosen"]}
    last = max(best.values(), default=0)
    for clip, found in zip(clips, strengths(parts), strict=True):
        if clip["luma"] < BLACK_LUMA:
            clip["why"] = "black picture"
            continue
        reasons = found or ([GOOD_IN_SUM] if clip["chosen"] else [])
        clip["why"] = f"ranked {clip['rank']} of {len(clips)}" + (
            f": {', '.join(reasons)}" if reasons else ""
        )
        if clip["chosen"]:
            continue
        twin = (like or {}).get(clip["clip"])
        if twin in chosen:
            clip["why"] += f"; like clip {twin}, which is in the reel"
            clip["why"] += ": it is rather shorter than asked for" if short else ""
        elif clip["rank"] > last:
            clip["why"] += "; better ones fill the reel"
        elif best.get(clip["shot"], clip["rank"]) < clip["rank"]:
            clip["why"] += "; a better piece of its shot is in the reel"
        else:
            clip["why"] += "; others fit the length better"


def strengths(parts: dict[str, np.ndarray]) -> list[list[str]]:
    """By clip, in which parts [K] it is among the highest quarter of its video, in words."""
    found: list[list[str]] = [[] for _ in parts["novelty"]]
    # Without a trained scorer the importance is the novelty, and nothing was learned.
    learned = not np.array_equal(parts["importance"], parts["novelty"])
    for part, values in parts.items():
        known = np.sort(values[np.isfinite(values)])
        if not len(known) or (part == "importance" and not learned):
            continue
        tops = np.ceil(100 * (len(known) - np.searchsorted(known, values)) / len(known))
        for k in np.flatnonzero(values > np.quantile(known, 0.75)):
            if part == "importance":
                found[k].append(f"learned importance {values[k]:.2f} (top {tops[k]:.0f} %)")
            else:
                found[k].append(WORDS.get(part, f"novel {values[k]:.2f}"))
    return found
