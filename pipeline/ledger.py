"""All parts of an OUTPUT read as they are, sound or not, and what each video's newest result has in them."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage, tables
from pipeline.records import records

_THREADS = 4  # each holds a whole part, which may be some 100 MB of proxies
_VIDEOS = [*tables.KEY, "status", "published_at", "uri", "samples", "clips", "chosen"]
_REELS = [*tables.KEY, "uri", "duration_s", "fps", "size_bytes", "sha256", "files"]
_NUMBERS = {"clips": "clip", "proxies": "sample"}  # what tells the rows of one video apart


@dataclass
class Result:
    """The newest result of a video: its row, and what the other tables of its part hold of it."""

    video_id: str
    settings_key: str
    part: str
    name: str
    status: str
    samples: int | None
    clips: int | None
    chosen: int | None
    copies: int  # rows of this video in its part of `videos`
    rows: Counter[str] = field(default_factory=Counter)  # table -> rows
    distinct: Counter[str] = field(default_factory=Counter)  # table -> different numbers among them
    chosen_rows: int = 0
    reels: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None  # the status that `failures` says


@dataclass
class Ledger:
    results: dict[str, Result]  # by video_id
    damaged: dict[str, str]  # path below OUTPUT -> part
    orphans: list[str]  # paths below OUTPUT
    strays: list[tuple[str, str, str]]  # path below OUTPUT, part, a video that the part does not have
    records: dict[str, dict[str, Any]]  # settings_key -> record of a run

    @property
    def unknown(self) -> bool:
        """Are there videos whose rows cannot be read?"""
        return any(path.startswith("videos/") for path in self.damaged)

    def videos_of(self, part: str) -> list[str]:
        return [result.video_id for result in self.results.values() if result.part == part]

    def has_reels(self, settings_key: str) -> bool:
        """Videos that were scored again from their proxies have neither reels nor proxies."""
        if settings_key in self.records:
            return not self.records[settings_key].get("from_proxies")
        return any(
            result.rows["reels"] or result.rows["proxies"]
            for result in self.results.values()
            if result.settings_key == settings_key
        )

    def proxies_of(self, result: Result) -> int | None:
        """How many proxies a video should have; None where that is not known."""
        record = self.records.get(result.settings_key)
        if record is None:  # every run with these settings was killed before it wrote its record
            return result.samples if result.rows["proxies"] else None
        try:
            none = record.get("from_proxies") or record["settings"]["codec"]["kind"] == "none"
        except (KeyError, TypeError):
            return None
        return 0 if none else result.samples


def read_ledger(output: str) -> Ledger:
    """Raises StorageError when the storage does not give something; a damaged file is part of the answer."""
    ledger = Ledger({}, {}, [], [], {})
    for record in records(output):
        if record.get("settings_key"):
            ledger.records[record["settings_key"]] = record

    def read(table: tables.Table, columns: list[str]) -> Callable[[str], tuple[str, pa.Table | None]]:
        def one(part: str) -> tuple[str, pa.Table | None]:
            try:
                found = tables.read_part(output, table, part)
            except tables.Damaged:
                return part, None
            if not set(tables.KEY) <= set(found.column_names):
                return part, None
            for name in columns:
                if name not in found.column_names:  # a part of a version that did not have it yet
                    found = found.append_column(name, pa.nulls(found.num_rows))
            return part, found.select(columns)

        return one

    with ThreadPoolExecutor(_THREADS) as pool:
        known = _read_videos(ledger, pool.map(read("videos", _VIDEOS), tables.list_parts(output, "videos")))
        for table, columns in (
            ("clips", [*tables.KEY, "clip", "chosen"]),
            ("proxies", [*tables.KEY, "sample"]),
            ("reels", _REELS),
            ("failures", [*tables.KEY, "status"]),
        ):
            parts = tables.list_parts(output, table)
            ledger.orphans += [f"{table}/{part}.parquet" for part in parts if part not in known]
            living = [part for part in parts if part in known]
            for part, rows in pool.map(read(table, columns), living):
                if rows is None:
                    ledger.damaged[f"{table}/{part}.parquet"] = part
                else:
                    _add(ledger, table, part, rows, known[part])
    return ledger


def _read_videos(
    ledger: Ledger, parts: Iterable[tuple[str, pa.Table | None]]
) -> dict[str, set[tuple[str, str]]]:
    """The results in `videos`; returns for each part the keys that it may hold rows of."""
    found = []
    for part, rows in parts:
        if rows is None:
            ledger.damaged[f"videos/{part}.parquet"] = part
        else:
            found.append(rows.append_column("part", pa.array([part] * len(rows), pa.string())))
    if not found:
        return {}
    results = pa.concat_tables(found, promote_options="permissive")
    known: dict[str, set[tuple[str, str]]] = {rows["part"][0].as_py(): set() for rows in found if len(rows)}
    copies: Counter[tuple[str, str]] = Counter()
    for row in results.select([*tables.KEY, "part"]).to_pylist():
        known[row["part"]].add((row["video_id"], row["settings_key"]))
        copies[row["part"], row["video_id"]] += 1
    for row in tables.newest_of(results).to_pylist():
        name = storage.shown(row["uri"] or "").rsplit("/", 1)[-1]
        facts = {key: row[key] for key in ("settings_key", "part", "status", "samples", "clips", "chosen")}
        ledger.results[row["video_id"]] = Result(
            video_id=row["video_id"], name=name, copies=copies[row["part"], row["video_id"]], **facts
        )
    return known


def _add(ledger: Ledger, table: str, part: str, rows: pa.Table, known: set[tuple[str, str]]) -> None:
    """Counts the rows of one file for the results that they belong to."""
    number, chosen = _NUMBERS.get(table), table == "clips"
    sums: list[tuple[Any, str]] = [([], "count_all")]
    sums += [(number, "count_distinct")] if number else []
    if chosen:
        rows = rows.set_column(
            3, "chosen", pc.cast(pc.fill_null(rows["chosen"].cast(pa.bool_()), False), pa.int64())
        )
        sums.append(("chosen", "sum"))
    for group in rows.group_by(list(tables.KEY)).aggregate(sums).to_pylist():
        key = group["video_id"], group["settings_key"]
        if key not in known:
            ledger.strays.append((f"{table}/{part}.parquet", part, group["video_id"]))
            continue
        result = ledger.results[group["video_id"]]
        if (result.part, result.settings_key) == (part, group["settings_key"]):
            result.rows[table] += group["count_all"]
            result.distinct[table] += group[f"{number}_count_distinct"] if number else 0
            result.chosen_rows += group["chosen_sum"] if chosen else 0
    if table in ("reels", "failures"):
        for row in rows.to_pylist():
            result = ledger.results.get(row["video_id"])
            if result and (result.part, result.settings_key) == (part, row["settings_key"]):
                if table == "reels":
                    result.reels.append(row)
                else:
                    result.failure = row["status"]
