"""What scores of a video are worth against what people said of it, with chance and people beside.

τ_b and rho, over all frames: where each person gave scores (TVSum), the mean over people of the correlation
with each one, and for the human line the mean over all pairs of people, as in Otani et al.,
https://arxiv.org/abs/1903.11328 (0.177 and 0.204 on all of TVSum). Where people only made summaries (SumMe),
the correlation with the mean of their summaries, and for the human line each person against the mean of the
others. So the lines of one table are always measured in one way.

F1: segments are chosen by a 0/1 knapsack on their mean score under 15 % of the frames, and compared with what
each person chose: the best of them counts (SumMe) or their mean (TVSum). Human line: each against the others.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from jobs.train.metrics import evaluate_summary, kendall_tau_b, spearman_rho
from jobs.train.vsum_data import Split, Video
from stages.knapsack import choose

SHARE = 0.15
# The finest step of the knapsack in `choose`: at this length per frame it counts whole frames.
FRAME_S = 0.05
OverUsers = Literal["max", "mean"]
Line = dict[str, float]  # tau, rho, f1


def summarise(video: Video, score: np.ndarray) -> np.ndarray:
    """The frames bool [F] that a summary by step scores [T] keeps."""
    of_frame = video.per_frame(score - score.min())
    mean = np.array([of_frame[first : last + 1].mean() for first, last in video.segments])
    seconds = (video.segments[:, 1] + 1 - video.segments[:, 0]) * FRAME_S
    # The field's value of a segment is its mean score, not its score x length.
    chosen = choose(mean / seconds, seconds, int(SHARE * video.frames) * FRAME_S)
    kept = np.zeros(video.frames, bool)
    for first, last in video.segments[chosen]:
        kept[first : last + 1] = True
    return kept


def scored(video: Video, score: np.ndarray, over_users: OverUsers) -> Line:
    """Of step scores [T]."""
    of_frame = video.per_frame(score)
    truths = video.summaries.mean(0, keepdims=True) if video.scores is None else video.scores
    return {
        "tau": float(np.mean([kendall_tau_b(of_frame, truth) for truth in truths])),
        "rho": float(np.mean([spearman_rho(of_frame, truth) for truth in truths])),
        "f1": evaluate_summary(summarise(video, score), video.summaries, over_users),
    }


def by_chance(video: Video, over_users: OverUsers, rng: np.random.Generator, draws: int) -> Line:
    """Mean over random scorings."""
    return mean([scored(video, rng.random(len(video.picks)), over_users) for _ in range(draws)])


def by_people(video: Video, over_users: OverUsers) -> Line:
    """Each person against the others; at least 2 of them."""
    people = range(len(video.summaries))
    others = [np.delete(video.summaries, user, axis=0) for user in people]
    if video.scores is None:
        pairs = [(video.summaries[user], others[user].mean(0)) for user in people]
    else:
        pairs = [(a, b) for i, a in enumerate(video.scores) for b in video.scores[:i]]
    return {
        "tau": float(np.mean([kendall_tau_b(a, b) for a, b in pairs])),
        "rho": float(np.mean([spearman_rho(a, b) for a, b in pairs])),
        "f1": float(np.mean([evaluate_summary(video.summaries[u], others[u], over_users) for u in people])),
    }


def several_people(video: Video) -> bool:
    return min(len(said) for said in (video.summaries, video.scores) if said is not None) > 1


def mean(lines: list[Line]) -> Line:
    return {name: float(np.mean([line[name] for line in lines])) for name in lines[0]}


def cross_validate(
    videos: dict[str, Video],
    splits: list[Split],
    score: Callable[[int, str], np.ndarray],
    over_users: OverUsers,
    draws: int,
    seed: int,
    log: Callable[..., None],
) -> dict[str, Any]:
    """Scorer, chance and people on the test videos of each split, and the mean of the splits.

    score  step scores [T] by the scorer of a split (its number from 0) for a video (its key)
    """
    tested = sorted({key for split in splits for key in split.test})
    chance = {
        key: by_chance(videos[key], over_users, np.random.default_rng((seed, i)), draws)
        for i, key in enumerate(tested)
    }
    people = {key: by_people(videos[key], over_users) for key in tested if several_people(videos[key])}
    rows: list[dict[str, Line]] = []
    for number, split in enumerate(splits):
        lines = {
            "scorer": [scored(videos[key], score(number, key), over_users) for key in split.test],
            "random": [chance[key] for key in split.test],
            "human": [people[key] for key in split.test if key in people],
        }
        rows.append({name: mean(part) for name, part in lines.items() if part})
        log(split=number + 1, test_videos=len(split.test), **spoken(rows[-1]))
    whole = {name: mean([row[name] for row in rows if name in row]) for name in rows[0]}
    log(mean_of_splits=len(splits), **spoken(whole))
    each = any(videos[key].scores is not None for key in tested)
    return {
        "tau_and_rho": "against each person's scores" if each else "against the mean of people's summaries",
        "f1": f"against people's summaries, {over_users}",
        "mean": rounded(whole),
        "splits": [
            {"test_videos": len(split.test), **rounded(row)} for split, row in zip(splits, rows, strict=True)
        ],
    }


def spoken(lines: dict[str, Line]) -> dict[str, str]:
    return {
        who: f"(τ_b {line['tau']:.3f}, rho {line['rho']:.3f}, F1 {line['f1']:.3f})"
        for who, line in lines.items()
    }


def rounded(lines: dict[str, Line]) -> dict[str, Line]:
    return {who: {name: round(value, 4) for name, value in line.items()} for who, line in lines.items()}
