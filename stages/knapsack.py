"""Which clips make the reel: 0/1 knapsack on score x seconds under a length budget.

The summarisation literature's choice, e.g. Gygli et al., ECCV 2014; with diminishing returns for one shot,
and without what looks like a better clip of the reel.
"""

import numpy as np

KNAPSACK_STEPS = 6000
BLOCK = 512  # clips that are compared at once


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
    order = np.argsort(-score, kind="stable")
    like = np.full(len(score), -1)
    kept = np.empty(0, int)
    for first in range(0, len(order), BLOCK):
        block = order[first : first + BLOCK]
        if len(kept):  # the best of those before it that a clip looks like
            near = _near(embedding, shot, block, kept, apart)
            like[block] = np.where(near.any(1), kept[near.argmax(1)], -1)
        new = block[like[block] < 0]
        near = _near(embedding, shot, new, new, apart)
        for place, k in enumerate(new):
            if like[k] < 0:
                later = new[place + 1 :][near[place, place + 1 :]]
                like[later[like[later] < 0]] = k
        kept = np.append(kept, new[like[new] < 0])
    return like


def _near(embedding: np.ndarray, shot: np.ndarray, a: np.ndarray, b: np.ndarray, apart: float) -> np.ndarray:
    """Whether clips a and b look alike though they are of different shots, bool [A, B]."""
    return (1 - embedding[a] @ embedding[b].T < apart) & (shot[a, None] != shot[b])
