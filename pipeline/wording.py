"""Times, sizes and curves as a person reads them."""

import numpy as np

NOTHING = "\N{EN DASH}"


def curve(
    times_s: list[float] | None, scores: list[float] | None, duration_s: float | None, points: int
) -> str | None:
    """An SVG path of the scores over time in a box of 1000 × 100, at most `points` long; None without scores.

    A long video is averaged in equal spans, as a curve of every sample would be a solid block.
    """
    if not times_s or not scores:
        return None
    times, values = np.asarray(times_s), np.clip(np.nan_to_num(np.asarray(scores)), 0.0, 1.0)
    if len(times) > points:
        edges = np.linspace(0, len(times), points + 1).astype(int)[:-1]
        counts = np.diff(np.append(edges, len(times)))
        times, values = np.add.reduceat(times, edges) / counts, np.add.reduceat(values, edges) / counts
    x = 1000 * times / (duration_s or times[-1] or 1.0)
    y = 100 - 100 * values
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def ticks(duration_s: float, most: int = 8) -> list[tuple[float, str]]:
    """Marks of the time axis as (per cent, label), at round times, at most `most` steps."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
    step = next((step for step in steps if duration_s / step <= most), 28800)
    return [(100 * at / duration_s, clock(at)) for at in range(0, int(duration_s) + 1, step)]


def clock(seconds: float | None) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def tenths(seconds: float | None) -> str:
    """m:ss.t, for the ends of a clip."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds * 10), 600)
    return f"{minutes}:{rest // 10:02d}.{rest % 10}"


def size(size_bytes: int | None) -> str | None:
    if size_bytes is None:
        return None
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= one:
            return f"{size_bytes / one:.3g} {unit}"
    return f"{size_bytes} bytes"


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def number(value: float | None, digits: int = 2) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def several(number: int, what: str) -> str:
    """A count in words: no files, 1 file, 2 files."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
