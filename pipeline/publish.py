"""Finished videos -> media and one Parquet part per batch, `videos/` last: then they are done."""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import redact, schema, storage, tables
from pipeline.rows import PUBLISHED, from_table, to_table, whole
from stages.blobs import Blobs

MEDIA = "media"


def upload(output: str, row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Copies the files of a rendered reel to a folder of OUTPUT; returns the reel, with URI and checksum."""
    reel = row["files"]["reel.mp4"]
    for name, file in row["files"].items():
        if name != "reel.mp4":
            storage.put_file(file, storage.join(output, folder, name))
    storage.put_file(reel, storage.join(output, folder, "reel.mp4"))
    return row["reel"] | {
        "uri": f"{folder}/reel.mp4",
        "size_bytes": reel.stat().st_size,
        "sha256": _sha256(reel),
        "files": sorted(f"{folder}/{name}" for name in row["files"] if name != "reel.mp4"),
    }


class Publish:
    """Writes the rows of a batch as one part of `output`; one short row each says what was published."""

    def __init__(
        self,
        output: str,
        run_id: str,
        settings_key: str,
        codec: tuple[str, str],
        width: int,
        after: dict[str, datetime] | None = None,
    ):
        self.output, self.run_id, self.settings_key = output, run_id, settings_key
        self.after = after or {}  # video_id -> when its last result was published, by whatever clock
        self.codec_kind, self.codec_sha256 = codec
        self.width = width

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        # A shard that was lost and decoded again must not make a video stand twice in a part.
        rows = list({row["video_id"]: _clean(row) for row in _rows(batch)}.values())
        if not rows:
            return
        part = tables.part_name([row["video_id"] for row in rows], self.settings_key)
        tables.write_part(self.output, part, self.tables(rows))
        yield to_table([_published(row) for row in rows], PUBLISHED)

    def tables(self, rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
        """Every table of a part."""
        fine = [row for row in rows if not row["failure"]]
        clips = schema.clips_schema(self.width)
        return {
            "videos": to_table([self._video(row) for row in rows], schema.VIDEOS),
            "clips": pa.concat_tables([clips.empty_table(), *(_clips(row, clips) for row in fine)]),
            "proxies": pa.concat_tables([schema.PROXIES.empty_table(), *map(self._codes, fine)]),
            # Videos that were scored again from their proxies have no reel.
            "reels": to_table([_reel(row) for row in fine if row.get("reel")], schema.REELS),
            "failures": to_table(
                [_key(row) | {"uri": row["uri"]} | row["failure"] for row in rows if row["failure"]],
                schema.FAILURES,
            ),
        }

    def _video(self, row: dict[str, Any]) -> dict[str, Any]:
        facts = row.get("probe") or {}
        video = {name: row.get(name) for name in ("uri", "etag", "size_bytes", "modified_at", "shard_log")}
        video |= {name: facts.get(name) for name in schema.VIDEOS.names if name in facts}
        video |= {
            "run_id": self.run_id,
            "published_at": tables.stamp(self.after.get(row["video_id"])),
            "status": schema.OK,
        }
        if row["failure"]:
            return _key(row) | video | {"status": row["failure"]["status"]}
        clips = row["clips"]
        return (
            _key(row)
            | video
            | {
                "duration_s": row["duration_s"],
                "frames": row["frames_decoded"],
                "samples": len(row["times_s"]),
                "shots": 1 + pc.max(clips.field("shot")).as_py(),
                "clips": len(clips),
                "chosen": pc.sum(clips.field("chosen")).as_py(),
                "times_s": row["times_s"],
                "importance": row["importance"],
                "motion": row["motion"],
                "motion_std": row["motion_std"],
                "luma": row["luma"],
                "loudness_lufs": row["loudness"],
                "speech": row["speech"],
                "cuts_s": row["cuts_s"],
                "flashes_s": row["flashes_s"],
            }
        )

    def _codes(self, row: dict[str, Any]) -> pa.Table:
        """By columns: a long video has a hundred thousand."""
        codes = Blobs.joined([row["codes"]]).whole()
        count = len(codes)
        columns = {"sample": np.arange(count), "time_s": row["times_s"][:count], "code": codes}
        codec = {"kind": self.codec_kind, "codec_sha256": self.codec_sha256}
        return _under(_key(row) | codec, columns, count, schema.PROXIES)


def _rows(batch: pa.Table) -> Iterator[dict[str, Any]]:
    """The clips of each stay an array: a long video has thousands, with a vector and pictures each."""
    if "clips" not in batch.column_names:  # lost videos
        yield from (row | {"clips": None} for row in from_table(batch))
        return
    clips = whole(batch["clips"])
    for number, row in enumerate(from_table(batch.drop_columns("clips"))):
        yield row | {"clips": clips[number].values}


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    """Errors quote what they were about: a URI with a password, or an answer of the store with our keys."""
    row = row | {"uri": redact.without_login(row["uri"])}
    if failure := row["failure"]:
        texts = {
            name: redact.without_secrets(failure[name]) for name in ("reason", "trace") if failure.get(name)
        }
        row["failure"] = failure | texts
    return row


def _key(row: dict[str, Any]) -> dict[str, Any]:
    return {"video_id": row["video_id"], "settings_key": row["settings_key"]}


def _clips(row: dict[str, Any], wanted: pa.Schema) -> pa.Table:
    clips = row["clips"]
    columns = dict(zip(clips.type.names, clips.flatten(), strict=True))
    return _under(_key(row), columns, len(clips), wanted)


def _under(same: dict[str, str], columns: dict[str, Any], count: int, wanted: pa.Schema) -> pa.Table:
    """A table of `count` rows, each of which says `same` beside its own."""
    columns = columns | {name: pa.repeat(pa.scalar(value), count) for name, value in same.items()}
    return pa.table([columns[name] for name in wanted.names], wanted.names).cast(wanted)


def _reel(row: dict[str, Any]) -> dict[str, Any]:
    return _key(row) | row["reel"] | {"target_s": row["target_s"], "edits": row["edits"]}


def _published(row: dict[str, Any]) -> dict[str, Any]:
    failure = row["failure"] or {}
    return {
        "video_id": row["video_id"],
        "uri": row["uri"],
        "status": failure.get("status", schema.OK),
        "stage": failure.get("stage"),
        "reason": failure.get("reason"),
        "duration_s": row.get("duration_s"),
        "clips": len(row["clips"] or ()),
        "reel_s": row["reel"]["duration_s"] if row.get("reel") else None,
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
