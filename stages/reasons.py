"""Why each clip is in the reel or not, in words."""

import numpy as np

# Darker clips are fades and blanks, whatever the network says of them.
BLACK_LUMA = 0.03
GOOD_IN_SUM = "good in the sum of its parts"
# Parts without a share of their own in the score; the learned importance knows them.
WORDS = {"motion": "much motion", "loudness_lufs": "loud"}


def explain(clips: list[dict], chosen: set[int], like: dict[int, int] | None = None) -> None:
    """Sets `chosen`, `rank` (1 is the best) and `why` on every clip; `like`: clips that look like others."""
    order = np.argsort([-clip["score"] for clip in clips], kind="stable")
    for place, k in enumerate(order):
        clips[k] |= {"rank": place + 1, "chosen": clips[k]["clip"] in chosen}
    parts = {
        part: np.array([np.nan if clip[part] is None else clip[part] for clip in clips])
        for part in ("importance", "novelty", *WORDS)
    }
    best = {clips[k]["shot"]: clips[k]["rank"] for k in order[::-1] if clips[k]["chosen"]}
    last = max(best.values(), default=0)
    for k, clip in enumerate(clips):
        if clip["luma"] < BLACK_LUMA:
            clip["why"] = "black picture"
            continue
        reasons = strengths(parts, k) or ([GOOD_IN_SUM] if clip["chosen"] else [])
        clip["why"] = f"ranked {clip['rank']} of {len(clips)}" + (
            f": {', '.join(reasons)}" if reasons else ""
        )
        if clip["chosen"]:
            continue
        twin = (like or {}).get(clip["clip"])
        if twin in chosen:
            clip["why"] += f"; like clip {twin}, which is in the reel"
        elif clip["rank"] > last:
            clip["why"] += "; better ones fill the reel"
        elif best.get(clip["shot"], clip["rank"]) < clip["rank"]:
            clip["why"] += "; a better piece of its shot is in the reel"
        else:
            clip["why"] += "; others fit the length better"


def strengths(parts: dict[str, np.ndarray], k: int) -> list[str]:
    """In which parts [K] clip k is among the highest quarter of its video, in words."""
    found = []
    for part, values in parts.items():
        known = values[np.isfinite(values)]
        if not len(known) or not values[k] > np.quantile(known, 0.75):
            continue
        if part == "importance":
            # Without a trained scorer the importance is the novelty, and nothing was learned.
            if not np.array_equal(values, parts["novelty"]):
                top = np.ceil(100 * np.mean(known >= values[k]))
                found.append(f"learned importance {values[k]:.2f} (top {top:.0f} %)")
        else:
            found.append(WORDS.get(part, f"novel {values[k]:.2f}"))
    return found
