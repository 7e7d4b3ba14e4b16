"""Every listed video is one thing: new, changed, to try again, outdated or done; results are kept or not."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from pipeline.backlog import BYTES_PER_S, Backlog, below, compare
from pipeline.library import SCHEMA

SOURCE = "s3://b/lib"
AT = datetime(2026, 5, 1, tzinfo=UTC)


def listed(*names_and_ids: tuple[str, str], size_bytes: int = 3_000_000) -> pa.Table:
    rows = [
        {"uri": f"{SOURCE}/{name}", "etag": "e", "size_bytes": size_bytes, "modified_at": AT, "video_id": id}
        for name, id in names_and_ids
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def results(*rows: tuple[str, str, str, str]) -> pa.Table:
    """Of (video_id, path or URI, settings_key, status)."""
    return pa.Table.from_pylist(
        [
            {
                "video_id": video_id,
                "uri": path if "://" in path else f"{SOURCE}/{path}",
                "settings_key": key,
                "status": status,
                "size_bytes": 3_000_000,
                "duration_s": 10.0 if status == "ok" else None,
            }
            for video_id, path, key, status in rows
        ],
        schema=pa.schema(
            [
                *(pa.field(n, pa.string()) for n in ("video_id", "uri", "settings_key", "status")),
                pa.field("size_bytes", pa.int64()),
                pa.field("duration_s", pa.float64()),
            ]
        ),
    )


def look(listing: pa.Table, made: pa.Table, again: set[str] = frozenset(), wanted=lambda _: True) -> Backlog:
    return compare(listing, made, "now", set(again), SOURCE, wanted)


def ids(rows: list[dict]) -> set[str]:
    return {row["video_id"] for row in rows}


def test_every_listed_video_is_one_thing() -> None:
    listing = listed(*((f"{id}.mp4", id) for id in ("new", "ok", "bad", "old", "oldbad", "olddrop", "asked")))
    listing = pa.concat_tables([listing, listed(("moved.mp4", "second"))])
    made = results(
        ("ok", "ok.mp4", "now", "ok"),
        ("bad", "bad.mp4", "now", "failed"),
        ("old", "old.mp4", "before", "ok"),
        ("oldbad", "oldbad.mp4", "before", "failed"),
        ("olddrop", "olddrop.mp4", "before", "dropped"),
        ("asked", "asked.mp4", "now", "ok"),
        ("first", "moved.mp4", "now", "ok"),
    )
    found = look(listing, made, {"asked"})
    assert ids(found.new) == {"new"}
    assert ids(found.changed) == {"second"}
    assert ids(found.retry) == {"asked", "oldbad"}
    assert ids(found.outdated) == {"old", "olddrop"}
    assert (found.done, found.listed) == (2, 8)
    assert ids(found.due) == {"new", "second", "asked", "oldbad"}
    assert found.listed == found.done + len(found.due) + len(found.outdated)


@pytest.mark.parametrize(("status", "goes"), [("ok", {"first"}), ("failed", set()), ("dropped", set())])
def test_an_older_version_goes_when_the_new_one_has_come_out_well(status: str, goes: set[str]) -> None:
    made = results(("first", "a.mp4", "now", "ok"), ("second", "a.mp4", "now", status))
    assert look(listed(("a.mp4", "second")), made).superseded == goes


def test_sources_that_vanished_are_gone_and_others_are_not() -> None:
    made = results(
        ("a", "a.mp4", "now", "ok"),
        ("gone", "deep/gone.mp4", "now", "failed"),
        ("left out", "raw.mov", "now", "ok"),
        ("elsewhere", "s3://other/lib/x.mp4", "now", "ok"),
        ("beside", "s3://b/library/x.mp4", "now", "ok"),
    )
    found = look(listed(("a.mp4", "a")), made, wanted=lambda path: path.endswith(".mp4"))
    assert found.gone == {"gone": f"{SOURCE}/deep/gone.mp4"}
    assert look(listed(("a.mp4", "a")), made, wanted=None).gone == {}


def test_footage_is_known_or_estimated_from_what_was_read() -> None:
    listing = listed(("a.mp4", "a"), ("b.mp4", "b"), size_bytes=6_000_000)
    made = results(("a", "a.mp4", "before", "ok"))
    found = look(listing, made)
    assert found.outdated[0]["seconds"] == 10.0
    assert found.new[0]["seconds"] == pytest.approx(20.0)  # at 300 kB/s
    assert look(listing, results()).new[0]["seconds"] == pytest.approx(6_000_000 / BYTES_PER_S)


def test_logins_in_the_source_do_not_make_everything_new() -> None:
    assert below("ftp://host/lib/", "ftp://host/lib/a/b.mp4") == "a/b.mp4"
    listing = listed(("a.mp4", "second")).to_pylist()
    listing[0]["uri"] = "ftp://me:secret@host/a.mp4"
    made = results(("first", "ftp://host/a.mp4", "now", "ok"))
    found = compare(
        pa.Table.from_pylist(listing, schema=SCHEMA),
        made,
        "now",
        set(),
        "ftp://me:secret@host",
        lambda _: True,
    )
    assert (ids(found.changed), found.gone) == ({"second"}, {})
