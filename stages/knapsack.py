"""Which clips make the reel: 0/1 knapsack on score x seconds under a length budget.

The summarisation literature's choice, e.g. Gygli et al., ECCV 2014; with diminishing returns for one shot,
and without what looks like a better clip of the reel.
"""

import numpy as np

KNAPSACK_STEPS = 6000


def choose(score: np.ndarray, seconds: np.ndarray, budget_s: float) -> np.ndarray:
    """Indices of the chosen clips, in time order: 0/1 knapsack on score x seconds.

    score     [K]  in [0, 1]
    seconds   [K]  clip lengths, > 0
    """
    step_s = max(0.05, budget_s / KNAPSACK_STEPS)
    weight = np.maximum(1, np.ceil(seconds / step_s - 1e-9)).astype(int)
    room = max(0, int(budget_s / step_s + 1e-9))
    value = score * seconds
    best = np.zeros(room + 1)
    taken = np.zeros((len(score), room + 1), bool)
    for k in range(len(score)):
        if weight[k] > room:
            continue
        with_k = best[: room + 1 - weight[k]] + value[k]
        taken[k, weight[k] :] = with_k > best[weight[k] :]
        best[weight[k] :] = np.maximum(best[weight[k] :], with_k)
    chosen, left = [], room
    for k in reversed(range(len(score))):
        if taken[k, left]:
            chosen.append(k)
            left -= weight[k]
    return np.array(chosen[::-1], int)


def discounted(score: np.ndarray, shot: np.ndarray, repeat: float) -> np.ndarray:
    """Scores with diminishing returns: the n-th best piece of a shot counts `repeat` to the n-th of its own.

    score  [K]  in [0, 1]
    shot   [K]  number of the shot that a piece belongs to
    """
    order = np.lexsort((-score, shot))
    first = np.searchsorted(shot[order], shot[order])
    result = np.empty(len(score))
    result[order] = score[order] * repeat ** (np.arange(len(score)) - first)
    return result


def likenesses(embedding: np.ndarray, score: np.ndarray, shot: np.ndarray, apart: float) -> np.ndarray:
    """By clip, int [K]: the better clip that it looks like, or -1. What others are told to be like is not.

    embedding  [K, D]  of unit length
    apart              least cosine distance; pieces of one shot are no duplicates, they go on
    """
    like = np.full(len(score), -1)
    kept = np.zeros(len(score), bool)
    for k in np.argsort(-score, kind="stable"):
        if like[k] < 0:
            kept[k] = True
            near = (1 - embedding @ embedding[k] < apart) & (shot != shot[k])
            like[near & ~kept & (like < 0)] = k
    return like
