"""Where the seconds of a run went: what `--profile` prints of the record in runs/."""

from typing import Any

from rich.table import Table

from pipeline.progress import StageCount
from pipeline.wording import clock


def seconds_of(stage: StageCount, workers: int, wall_s: float) -> dict[str, Any]:
    """A stage as the record tells it, with what its workers did of `wall_s` beside their work.

    waiting_s   of all workers: for rows, for room behind them, and for their own start; of processes that do
                all stages, those of the others are in it
    """
    waiting_s = max(0.0, workers * wall_s - stage.wall_s - stage.copy_s)
    return vars(stage) | {"workers": workers, "waiting_s": waiting_s}


def profile_table(record: dict[str, Any]) -> Table:
    """A row per stage, under how busy the cores were."""
    cores, wall_s, stages = record["plan"]["cores"], record["wall_s"], record["stages"]
    cpu_s = sum(stage["cpu_s"] for stage in stages.values())
    share = cpu_s / (cores * wall_s) if wall_s else 0.0
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        title=f"{clock(record['start_s'])} until the pools were there, {clock(wall_s)} with them, in which "
        f"{share:.0%} of {cores} cores were at work. Seconds of all workers of a stage together:",
        title_justify="left",
    )
    table.add_column("stage", min_width=8)
    for heading in ("workers", "rows", "CPU s", "wall s", "copying s", "waiting s"):
        table.add_column(heading, justify="right", min_width=8)
    for name, stage in stages.items():
        seconds = (stage[key] for key in ("cpu_s", "wall_s", "copy_s", "waiting_s"))
        counts = (stage["workers"], stage["rows"])
        table.add_row(name, *map(str, counts), *(f"{value:.1f}" for value in seconds))
    return table
