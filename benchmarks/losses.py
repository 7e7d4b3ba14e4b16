"""What an OUTPUT holds after faults, beside that of an undisturbed run: rows that are missing or doubled,
healthy videos that ended as failures, files that no table knows."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import schema, tables


@dataclass
class Tally:
    fault: str
    injected: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    put_off: int = 0  # videos that the command left to the next one, and said so
    lost_rows: int = 0
    doubled_rows: int = 0
    innocents: int = 0  # healthy videos that ended as failures
    leftovers: int = 0  # files that no table knows
    unpunished: int = 0  # poisons that did not end as failures
    extra_s: float = 0.0  # over undisturbed runs, all together


@dataclass(frozen=True)
class Undisturbed:
    rows: dict[tuple[str, str], int]  # (table, name of the video) -> rows
    seconds: float


def rows_of(output: Path) -> dict[tuple[str, str], int]:
    """How many rows each video has in each table, superseded or doubled ones included."""
    names: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for table in reversed(schema.TABLES):  # `videos` first: it has the names
        for part in (output / table).glob("*.parquet"):
            columns = ["video_id", "uri"] if table == "videos" else ["video_id"]
            for row in tables.pq.read_table(part, columns=columns).to_pylist():
                if "uri" in row:
                    names[row["video_id"]] = Path(row["uri"]).name
                counts[table, names.get(row["video_id"], "?")] += 1
    return dict(counts)


def judge(tally: Tally, output: Path, whole: Undisturbed, poisons: set[str] = frozenset()) -> None:
    """Compares an OUTPUT with that of an undisturbed run."""
    rows = rows_of(output)
    for key in rows.keys() | whole.rows.keys():
        table, name = key
        if name in poisons:
            continue
        if table == "failures":
            tally.innocents += rows.get(key, 0) > 0
            continue
        difference = rows.get(key, 0) - whole.rows.get(key, 0)
        tally.lost_rows += max(0, -difference)
        tally.doubled_rows += max(0, difference)
    tally.unpunished += sum(("failures", name) not in rows for name in poisons)
    videos = tables.read(str(output), "videos").to_pylist()
    known = {row["video_id"] for row in videos if row["status"] == "ok"}
    parts = {part.name for part in (output / "videos").glob("*.parquet")}
    for path in output.rglob("*"):
        below = path.relative_to(output)
        hidden = path.is_file() and path.name.startswith(".")
        orphan = path.suffix == ".parquet" and path.name not in parts
        stray = below.parts[0] == "media" and len(below.parts) == 2 and path.name not in known
        tally.leftovers += hidden or orphan or stray


def shown(tally: Tally) -> Tally:
    print(
        f"{tally.fault:8s} {tally.injected:4d} injected in {tally.runs:3d} runs: put off {tally.put_off}, "
        f"lost {tally.lost_rows}, doubled {tally.doubled_rows}, innocents {tally.innocents}, "
        f"leftovers {tally.leftovers}, unpunished {tally.unpunished}, "
        f"extra {tally.extra_s / max(1, tally.injected):.1f} s each {dict(tally.kinds) or ''}",
        flush=True,
    )
    return tally
