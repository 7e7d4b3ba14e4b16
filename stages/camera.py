"""The path of a crop through a shot: hold still, or pan smoothly, or none that does the picture justice.

in   mass     float32 [T, N]  what is seen along the axis at each moment (stages/attention.py)
     faces    [T]             intervals that must not be cut, or None; text likewise
     window   the crop's share of the axis
out  path     float64 [T]     where the window begins, control points of a cubic B-spline; None: no crop

Still is the rule: a window stands if it shows nearly all that any moving one would. Where it moves, dynamic
programming finds which way to go, and the path is the smoothest one near it: least absolute velocity,
acceleration and jerk (Grundmann et al., CVPR 2011), so that it rests, pans evenly, and eases between the two.
A B-spline lies within its control points, so what bounds their differences bounds its own.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.optimize import linprog

from stages.attention import Interval

# Shares of the axis: per second, per second squared.
FASTEST, QUICKEST = 0.35, 0.6
# A still window shows at least so much of what the best moving one does, and cuts what must be kept at no
# more than so many moments.
STILL, STILL_LOST = 0.82, 0.02
# The mass within the window: so much of what chance would leave outside must be inside.
SURE = 0.3
# Moments at which what must be kept is cut, before the crop is given up: a share of them, and so many running
# of a face, as one look in error makes them.
LOST, FACE_LOST = 0.15, 2
# What is cut by less than this share of the axis is whole.
EDGE = 0.004
# The mass that a path may give away for the sake of a smoother one.
LEEWAY = 0.08
# In the sums that are made small: of a step squared in dynamic programming; velocity, acceleration and jerk
# in the linear programme, beside the distance from where the path should be.
STEP_COST = 6.0
VELOCITY, ACCELERATION, JERK, ASIDE = 1.0, 4.0, 20.0, 40.0
GRID = 96  # positions that are tried


def frame_shot(
    mass: np.ndarray,
    faces: Sequence[Interval | None],
    text: Sequence[Interval | None],
    window: float,
    step_s: float,
) -> np.ndarray | None:
    """The path of a shot whose moments are step_s apart."""
    places = np.linspace(0, 1 - window, GRID)
    inside = covered(mass, places, window)
    cut = [cut_off(kept, places[None], window) for kept in (faces, text)]
    # What is cut is worth less than anything that is not.
    worth = inside - sum(cut)
    still = hold(worth, places)
    paths = [np.full(len(mass), places[still])]
    best = inside[np.arange(len(mass)), worth.argmax(1)].mean()
    # Of what is wider than the window any place cuts something: that is no reason to move.
    needless = [(one[:, still] & ~one.all(1)).mean() for one in cut]
    if inside[:, still].mean() < STILL * best or max(needless) > STILL_LOST:
        moving = smooth(*corridor(worth, route(worth, places, step_s), places), step_s)
        if moving is not None:
            paths.append(moving)
    shown = [positions(path, np.arange(len(mass))) for path in paths]
    order = np.argsort([-judged(worth, places, at) for at in shown], kind="stable")
    fine = (n for n in order if does_justice(mass, faces, text, shown[n], window))
    return next((paths[n] for n in fine), None)


def does_justice(
    mass: np.ndarray,
    faces: Sequence[Interval | None],
    text: Sequence[Interval | None],
    shown: np.ndarray,
    window: float,
) -> bool:
    """Whether a window that begins at the places `shown` [T] has most of what is seen, and cuts little."""
    no_face, no_text = (cut_off(kept, shown[:, None], window)[:, 0] for kept in (faces, text))
    if (no_face | no_text).mean() > LOST or longest_run(no_face) > FACE_LOST:
        return False
    seen = np.flatnonzero(mass.sum(1) > 0)
    if not len(seen):
        return True
    found = np.concatenate([covered(mass[[n]], shown[[n]], window)[0] for n in seen])
    return float(found.mean()) >= window + SURE * (1 - window)


def longest_run(flags: np.ndarray) -> int:
    """How many moments [T] running are flagged, at most."""
    return max((len(list(run)) for flag, run in itertools.groupby(flags) if flag), default=0)


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


def cut_off(kept: Sequence[Interval | None], at: np.ndarray, window: float) -> np.ndarray:
    """[T, P]: whether a window that begins `at` [T or 1, P] cuts what is to be kept: any, where wider."""
    nothing = (np.inf, -np.inf)
    low, high = np.array([one or nothing for one in kept]).T[..., None]
    return (at > low + EDGE) | (at + window < high - EDGE)


def hold(worth: np.ndarray, places: np.ndarray) -> int:
    """The best place to stand; of several as good as it, that in their middle."""
    total = worth.mean(0)
    good = np.flatnonzero(total >= total.max() - 1e-3)
    return int(good[np.abs(good - good.mean()).argmin()])


def judged(worth: np.ndarray, places: np.ndarray, path: np.ndarray) -> float:
    """What is shown from the places of a path [T], on the mean of its moments."""
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


def smooth(low: np.ndarray, high: np.ndarray, step_s: float) -> np.ndarray | None:
    """The smoothest path [T] within the corridor, or as near it as the bounds of movement let it be.

    None if the solver finds none.
    """
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
    if found.status != 0:  # an iteration limit, or what it takes for numerical trouble
        return None
    path = found.x[:count]
    return np.full(count, path.mean()) if np.ptp(path) < 1e-3 else path


def positions(path: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Where the window begins at moments `at`: 0 is the first control point's, T - 1 the last one's."""
    if np.ptp(path) == 0:
        return np.full(len(at), path[0])
    # One more on either side, in line: the spline begins and ends where the path does.
    padded = np.concatenate([[2 * path[0] - path[1]], path, [2 * path[-1] - path[-2]]])
    return BSpline(np.arange(-3, len(path) + 3), padded, 3)(at)
