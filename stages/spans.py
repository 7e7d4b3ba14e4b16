"""Where clips begin and end in their source: shots, pieces of them, and lengths that add up to a target.

A clip keeps to its shot. Shots are divided evenly, or in the pauses where somebody speaks; what is too long
for the reel is trimmed evenly, and then moved a little to where a cut stands well.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from stages.pauses import NO_PAUSE, Edges
from stages.reasons import BLACK_LUMA

# Of a clip, the most that a transition at either end takes: less than half of it is under effects.
OVERLAP = 0.25
# Steps that a talking shot is divided by, and that edges move by: under the length of a pause.
DIVIDE_S, SETTLE_S = 0.1, 0.04
# How far an edge moves for a pause, and how far the lengths before it may be off while others make up for it.
REACH_S, OWED_S = 4.0, 8.0
# What a piece of twice or half the usual length costs, and the first second that an edge moves, in words.
UNEVEN, MOVED = 0.2, 0.01
# What a cut inside a word takes from the worth of a clip.
BROKEN = 0.15


def segment(
    cuts_s: np.ndarray,
    start_s: float,
    end_s: float,
    min_s: float,
    max_s: float,
    longest_s: float = 0.0,
    edges: Edges = Edges(),
) -> list[tuple[int, float, float]]:
    """Clips as (shot, start_s, end_s): shots, split evenly where longer than max_s.

    A shot shorter than min_s joins the one after it (the last: the one before). Where somebody speaks it is
    split in pauses, into pieces of about max_s and of at most longest_s.
    """
    inside = cuts_s[(cuts_s > start_s) & (cuts_s < end_s)]
    bounds = [start_s]
    for cut in inside:
        if cut - bounds[-1] >= min_s:
            bounds.append(float(cut))
    if len(bounds) > 1 and end_s - bounds[-1] < min_s:
        bounds.pop()
    bounds.append(end_s)
    clips = []
    for shot, (low, high) in enumerate(itertools.pairwise(bounds)):
        pieces = min(np.ceil((high - low) / max_s - 1e-9), np.floor((high - low) / min_s))
        if pieces > 1 and edges.talk_in(low, high):
            inner = divide(low, high, min_s, max_s, max(longest_s, max_s), edges)
        else:
            inner = np.linspace(low, high, max(1, int(pieces)) + 1)
        clips += [(shot, float(a), float(b)) for a, b in itertools.pairwise(inner)]
    return clips


def divide(
    low_s: float, high_s: float, min_s: float, usual_s: float, longest_s: float, edges: Edges
) -> np.ndarray:
    """Bounds of pieces of about `usual_s` that end where one clip may end and another begin."""
    count = int((high_s - low_s) / DIVIDE_S)
    times = low_s + np.arange(count + 1) * (high_s - low_s) / count
    step_s = times[1] - times[0]
    cost = edges.leaving(times) + edges.entering(times)
    cost[[0, -1]] = 0.0
    # The shortest piece more than the longest: what is left at the end can always be a piece.
    shortest, longest = int(np.ceil(min_s / step_s - 1e-6)), int((longest_s + min_s) / step_s)
    lengths = np.arange(shortest, max(longest, 2 * shortest) + 1)
    # Half the usual length is as bad as twice.
    uneven = UNEVEN * np.log2(lengths * step_s / usual_s) ** 2
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    came_from = np.zeros(count + 1, int)
    for at in range(shortest, count + 1):
        fitting_lengths = lengths[: np.searchsorted(lengths, at, side="right")]
        ways = best[at - fitting_lengths] + uneven[: len(fitting_lengths)]
        way = int(np.argmin(ways))
        best[at], came_from[at] = ways[way] + cost[at], at - fitting_lengths[way]
    if not np.isfinite(best[-1]):
        return np.array([low_s, high_s])
    bounds = [count]
    while bounds[-1]:
        bounds.append(came_from[bounds[-1]])
    return np.append(times[bounds[:0:-1]], high_s)


def cut_well(start_s: float, end_s: float, min_s: float, edges: Edges) -> float:
    """What is left, 0 to 1, of the worth of a clip that can only be cut inside words, at one end or both."""
    if not edges.talk_in(start_s, end_s):
        return 1.0
    room_s = max(0.0, min(end_s - start_s - min_s, REACH_S))
    moves_s = np.arange(0.0, room_s + 1e-9, SETTLE_S)
    costs = edges.entering(start_s + moves_s).min(), edges.leaving(end_s - moves_s).min()
    return 1.0 - BROKEN * sum(cost for cost in costs if cost > NO_PAUSE)


def lit(times: np.ndarray, luma: np.ndarray, start_s: float, end_s: float, least_s: float) -> tuple:
    """The span without black samples at its ends, as fades leave them; whole if that were under least_s.

    A cut stands somewhere inside a fade, so without this a reel flashes black between its clips.
    """
    first, last = np.searchsorted(times, [start_s - 1e-6, end_s - 1e-6])
    shown = first + np.flatnonzero(luma[first:last] >= BLACK_LUMA)
    if not len(shown):
        return start_s, end_s
    start = start_s if shown[0] == first else float(times[shown[0]])
    end = end_s if shown[-1] == last - 1 else float(times[shown[-1] + 1])
    return (start, end) if end - start >= least_s else (start_s, end_s)


def fitting(wanted_s: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Overlaps [K] with the clip before, so short that every clip [K, 2] stands clean for a good part."""
    lengths = spans[:, 1] - spans[:, 0]
    return np.append(0.0, np.minimum(wanted_s[1:], OVERLAP * np.minimum(lengths[1:], lengths[:-1])))


def trim(spans: np.ndarray, joined: np.ndarray, excess_s: float, min_s: float) -> np.ndarray:
    """Shorten clips by `excess_s` in all, each in proportion to what it has over min_s.

    spans   [K, 2]  start and end, seconds
    joined  [K]     whether a clip goes on where the one before it ends: that seam must stay closed
    """
    spans = spans.copy()
    if excess_s <= 0:
        return spans
    slack = np.maximum(spans[:, 1] - spans[:, 0] - min_s, 0)
    followed = np.append(joined[1:], False)
    slack[joined & followed] = 0  # inside a run, neither end may move
    share = min(1.0, excess_s / slack.sum()) if slack.sum() > 0 else 0.0
    cut = slack * share
    at_start = np.where(joined, 0.0, np.where(followed, 1.0, 0.5))
    spans[:, 0] += cut * at_start
    spans[:, 1] -= cut * (1 - at_start)
    return spans


def settle(
    spans: np.ndarray,
    bounds: np.ndarray,
    joined: np.ndarray,
    overlaps: np.ndarray,
    least: np.ndarray,
    edges: Edges,
) -> np.ndarray:
    """Spans of the same length in all, whose outer ends have moved to where a cut stands well.

    spans     [K, 2]  start and end of each clip, seconds
    bounds    [K, 2]  which it must not leave
    joined    [K]     whether a clip goes on where the one before it ends: such seams stay
    overlaps  [K]     under the transition into each clip
    least     [K]     lengths that are kept
    Returns the best of all ways on a grid of SETTLE_S: runs of clips one after another, each with the
    cheapest ends for every change of its length, by what the lengths before it owe or have over.
    """
    if not len(edges.starts_s) and not len(edges.flashes_s):
        return spans  # nothing to heed
    runs = np.split(np.arange(len(spans)), np.flatnonzero(~joined)[1:])
    faded = np.append(overlaps, 0.0)
    owed = round(OWED_S / SETTLE_S)
    best = np.full(2 * owed + 1, np.inf)  # by the change of all lengths so far, -owed to owed
    best[owed] = 0.0
    ways, choices = [], []
    for run in runs:
        way = _ways(spans[run], bounds[run], least[run], (faded[run[0]], faded[run[-1] + 1]), edges)
        cost, choice = np.full(len(best), np.inf), np.zeros(len(best), int)
        for index, change in enumerate(way.changes):
            first, end = max(0, -change), len(best) - max(0, change)
            sums = best[first:end] + way.costs[index]
            part = slice(first + change, end + change)
            better = sums < cost[part]
            cost[part] = np.where(better, sums, cost[part])
            choice[part] = np.where(better, index, choice[part])
        best = cost
        ways.append(way)
        choices.append(choice)
    settled = spans.copy()
    state = owed
    for run, way, choice in zip(reversed(runs), reversed(ways), reversed(choices), strict=True):
        index = choice[state]
        settled[run[0], 0] += way.starts[index] * SETTLE_S
        settled[run[-1], 1] += (way.starts[index] + way.changes[index]) * SETTLE_S
        state -= way.changes[index]
    return settled


@dataclass(frozen=True)
class _Ways:
    """Changes of a run's length in steps, the least cost of each, and the move of the start for it."""

    changes: np.ndarray
    costs: np.ndarray
    starts: np.ndarray


def _ways(
    spans: np.ndarray, bounds: np.ndarray, least: np.ndarray, faded: tuple[float, float], edges: Edges
) -> _Ways:
    (start_s, first_end_s), (last_start_s, end_s) = spans[0], spans[-1]
    alone = len(spans) == 1
    starts = _moves(bounds[0, 0] - start_s, (bounds[0, 1] if alone else first_end_s - least[0]) - start_s)
    ends = _moves((bounds[-1, 0] if alone else last_start_s + least[-1]) - end_s, bounds[-1, 1] - end_s)
    entering = edges.entering(start_s + starts * SETTLE_S, faded[0]) + MOVED * (starts * SETTLE_S) ** 2
    leaving = edges.leaving(end_s + ends * SETTLE_S, faded[1]) + MOVED * (ends * SETTLE_S) ** 2
    changes = np.arange(ends[0] - starts[-1], ends[-1] - starts[0] + 1)
    costs, moved = np.full(len(changes), np.inf), np.zeros(len(changes), int)
    for start, price in zip(starts, entering, strict=True):
        sums = price + leaving
        part = slice(ends[0] - start - changes[0], ends[-1] - start - changes[0] + 1)
        better = sums < costs[part]
        costs[part] = np.where(better, sums, costs[part])
        moved[part] = np.where(better, start, moved[part])
    long_enough = np.ones(len(changes), bool)
    if alone:
        length_s = end_s - start_s
        long_enough = length_s + changes * SETTLE_S >= min(least[0], length_s) - 1e-9
    possible = long_enough & np.isfinite(costs)
    return _Ways(changes[possible], costs[possible], moved[possible])


def _moves(low_s: float, high_s: float) -> np.ndarray:
    """Steps within these seconds and REACH_S to either side; no move is always among them."""
    low = min(0, int(np.ceil(max(low_s, -REACH_S) / SETTLE_S - 1e-9)))
    high = max(0, int(np.floor(min(high_s, REACH_S) / SETTLE_S + 1e-9)))
    return np.arange(low, high + 1)
