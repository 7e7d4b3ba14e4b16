"""The path of a crop through a shot: hold still, or pan smoothly, or none that does the picture justice.

in   mass     float32 [T, N]  what is seen along the axis at each moment (stages/attention.py)
     kept     [T]             intervals that must not be cut, or None
     window   the crop's share of the axis
out  path     float64 [T]     where the window begins, control points of a cubic B-spline; None: no crop

Still is the rule: a window stands if it shows nearly all that any moving one would. Where it moves, dynamic
programming finds which way to go, and the path is the smoothest one near it: least absolute velocity,
acceleration and jerk (Grundmann et al., CVPR 2011), so that it rests, pans evenly, and eases between the two.
A B-spline lies within its control points, so what bounds their differences bounds its own.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.optimize import linprog

Interval = tuple[float, float]

# Shares of the axis: per second, per second squared.
FASTEST, QUICKEST = 0.35, 0.6
# A still window shows at least so much of what the best moving one does, and cuts what must be kept at no
# more than so many moments.
STILL, STILL_LOST = 0.82, 0.02
# The mass within the window: so much of what chance would leave outside must be inside.
SURE = 0.3
# Moments at which what must be kept is cut, before the crop is given up.
LOST = 0.15
# The mass that a path may give away for the sake of a smoother one.
LEEWAY = 0.08
# In the sums that are made small: of a step squared in dynamic programming; velocity, acceleration and jerk
# in the linear programme, beside the distance from where the path should be.
STEP_COST = 6.0
VELOCITY, ACCELERATION, JERK, ASIDE = 1.0, 4.0, 20.0, 40.0
GRID = 96  # positions that are tried


def frame_shot(
    mass: np.ndarray, kept: Sequence[Interval | None], window: float, step_s: float
) -> np.ndarray | None:
    """The path of a shot whose moments are step_s apart."""
    if too_wide(kept, window) > LOST:
        return None
    places = np.linspace(0, 1 - window, GRID)
    inside = covered(mass, places, window)
    whole = allowed(kept, places, window)
    # What is cut is worth less than anything that is not.
    worth = inside - 1.0 * ~whole
    still = hold(worth, places)
    path = np.full(len(mass), places[still])
    best = inside[np.arange(len(mass)), worth.argmax(1)].mean()
    if inside[:, still].mean() < STILL * best or whole[:, still].mean() < 1 - STILL_LOST:
        low, high = corridor(worth, route(worth, places, step_s), places)
        moving = smooth(low, high, step_s)
        if judged(worth, places, moving) > judged(worth, places, path):
            path = moving
    nearest = np.abs(path[:, None] - places).argmin(1)
    moments = np.arange(len(mass))
    seen = mass.sum(1) > 0
    shown = inside[moments, nearest][seen].mean() if seen.any() else 1.0
    if shown < window + SURE * (1 - window) or (~whole[moments, nearest]).mean() > LOST:
        return None
    return path


def too_wide(kept: Sequence[Interval | None], window: float) -> float:
    """The share of moments at which what must be kept is wider than the window."""
    return float(np.mean([one is not None and one[1] - one[0] > window for one in kept]))


def covered(mass: np.ndarray, places: np.ndarray, window: float) -> np.ndarray:
    """[T, P]: the mass within the window at each place, what is near its edges counting for less."""
    margin = window / 8
    edges = np.linspace(0, 1, mass.shape[1] + 1)
    sums = np.hstack([np.zeros((len(mass), 1)), np.cumsum(mass, axis=1)])

    def up_to(place: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(place, edges, one) for one in sums])

    full = up_to(places + window) - up_to(places)
    # At the edge of the picture itself there is nothing to be missed beyond.
    low = np.where(places <= margin, 0.0, places + margin)
    high = np.where(places + window >= 1 - margin, 1.0, places + window - margin)
    return (full + up_to(high) - up_to(low)) / 2


def allowed(kept: Sequence[Interval | None], places: np.ndarray, window: float) -> np.ndarray:
    """[T, P]: whether the window holds what must be kept; anything does where that is too wide."""
    whole = np.ones((len(kept), len(places)), bool)
    slack = 0.5 * (places[1] - places[0])
    for moment, one in enumerate(kept):
        if one is not None and one[1] - one[0] <= window:
            whole[moment] = (places <= one[0] + slack) & (places + window >= one[1] - slack)
    return whole


def hold(worth: np.ndarray, places: np.ndarray) -> int:
    """The best place to stand; of several as good as it, that in their middle."""
    total = worth.mean(0)
    good = np.flatnonzero(total >= total.max() - 1e-3)
    return int(good[np.abs(good - good.mean()).argmin()])


def judged(worth: np.ndarray, places: np.ndarray, path: np.ndarray) -> float:
    """What a path shows, on the mean of its moments."""
    return float(np.mean([np.interp(x, places, one) for x, one in zip(path, worth, strict=True)]))


def route(worth: np.ndarray, places: np.ndarray, step_s: float) -> np.ndarray:
    """Indices [T] of the places that show most, less the cost of getting there (Viterbi's algorithm)."""
    step = places[:, None] - places
    cost = STEP_COST * (step / step_s) ** 2 * step_s
    cost[np.abs(step) > FASTEST * step_s + (places[1] - places[0])] = np.inf
    total, came_from = worth[0], []
    for now in worth[1:]:
        ways = total[None] - cost
        came_from.append(ways.argmax(1))
        total = ways.max(1) + now
    found = [int(total.argmax())]
    for before in reversed(came_from):
        found.append(int(before[found[-1]]))
    return np.array(found[::-1])


def corridor(worth: np.ndarray, found: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[T], [T]: how far to either side of the found places a window shows nearly as much."""
    low, high = np.empty(len(found)), np.empty(len(found))
    for moment, (place, one) in enumerate(zip(found, worth, strict=True)):
        poor = np.flatnonzero(one < one[place] - LEEWAY)
        before, after = poor[poor < place], poor[poor > place]
        low[moment] = places[before[-1] + 1 if len(before) else 0]
        high[moment] = places[after[0] - 1 if len(after) else len(places) - 1]
    return low, high


def smooth(low: np.ndarray, high: np.ndarray, step_s: float) -> np.ndarray:
    """The smoothest path [T] within the corridor, or as near it as the bounds of movement let it be."""
    count = len(low)
    identity = sparse.identity(count, format="csr")
    orders = [order for order in (1, 2, 3) if count > order]
    slopes, differences = [], identity
    for _ in orders:
        differences = differences[1:] - differences[:-1]
        slopes.append(differences)
    # Unknowns: the path, the absolute value of each difference, and how far aside of the corridor it is.
    sizes = [count, *(one.shape[0] for one in slopes), count]
    weights = [
        w * step_s / step_s**order for w, order in zip((VELOCITY, ACCELERATION, JERK), orders, strict=False)
    ]
    cost = np.concatenate(
        [np.full(n, w) for n, w in zip(sizes, [0.0, *weights, ASIDE * step_s], strict=True)]
    )
    rows, limits = [], []

    def at_most(parts: dict[int, sparse.spmatrix], limit: np.ndarray) -> None:
        rows.append([parts.get(n, sparse.csr_matrix((len(limit), size))) for n, size in enumerate(sizes)])
        limits.append(limit)

    for number, one in enumerate(slopes, 1):
        unit = sparse.identity(one.shape[0], format="csr")
        at_most({0: one, number: -unit}, np.zeros(one.shape[0]))
        at_most({0: -one, number: -unit}, np.zeros(one.shape[0]))
    aside = len(sizes) - 1
    at_most({0: -identity, aside: -identity}, -low)
    at_most({0: identity, aside: -identity}, high)
    fastest = [FASTEST * step_s, QUICKEST * step_s**2, None]
    bounds = [(float(low.min()), float(high.max()))] * count
    bounds += [(0, most) for one, most in zip(slopes, fastest, strict=False) for _ in range(one.shape[0])]
    bounds += [(0, None)] * count
    found = linprog(
        cost, sparse.vstack([sparse.hstack(row) for row in rows]), np.concatenate(limits), bounds=bounds
    )
    path = found.x[:count]
    return np.full(count, path.mean()) if np.ptp(path) < 1e-3 else path


def positions(path: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Where the window begins at moments `at`: 0 is the first control point's, T - 1 the last one's."""
    if np.ptp(path) == 0:
        return np.full(len(at), path[0])
    # One more on either side, in line: the spline begins and ends where the path does.
    padded = np.concatenate([[2 * path[0] - path[1]], path, [2 * path[-1] - path[-2]]])
    return BSpline(np.arange(-3, len(path) + 3), padded, 3)(at)
