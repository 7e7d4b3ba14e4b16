"""The pages a person looks at: report/index.html and one page per video, plain files without a server.

Nothing on a page comes from elsewhere: styles and scripts are inline, thumbnails are data: URIs, reels and
posters are relative paths into media/. Names of files and reasons of failures are data and are escaped.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from statistics import median
from typing import Any
from urllib.parse import quote

import jinja2
import pyarrow as pa
from markupsafe import Markup

from pipeline import cuts, schema, storage, tables
from pipeline.wording import clock, curve, hours, number, size, tenths, ticks

REPORT = "report"
_TELLS_OF = "cuts.json"  # below it: up to which time its pages tell of all cuts
_CARDS = (
    240  # newest videos with a picture on the index; all others are plain rows, so that 10,000 load at once
)
_PICTURES = 240  # clips with a thumbnail on a video page; the other clips are plain rows
_POINTS = 600  # of a score curve
_SPARK_POINTS = 60
_VIDEOS_AT_ONCE = 32  # whose thumbnails and pages are held in memory
_WRITERS = 8
_RUNS = 5
_QUIET_LUFS, _LOUD_LUFS = -50.0, -10.0  # ends of the loudness bar
_INDEX_COLUMNS = ["video_id", "uri", "status", "duration_s", "clips", "chosen", "shots", "published_at"]

# What lies beside a reel, in the order in which it is of use to most; other files are listed after these.
_BESIDE = {
    "reel.otio": "timeline for editing programs (OpenTimelineIO); reelmap export makes EDL and FCPXML of it",
    "storyboard.jpg": "a picture of every clip in the reel",
    "poster.jpg": "a frame of the best clip",
    "grade.cube": "the grade of the best clip, for any editing program",
    "thumbnails.vtt": "previews for players (WebVTT), in thumbnails.jpg",
    "thumbnails.jpg": "the pictures of thumbnails.vtt",
}

_STATUSES = (schema.OK, schema.DROPPED, schema.FAILED)

Row = dict[str, Any]


def write_report(output_uri: str, video_ids: set[str] | None = None, known: cuts.Known | None = None) -> str:
    """Writes the index and the pages of `video_ids` (None: of all videos); returns the URI of the index.

    Pages that are older than a cut of their video are written, too: a killed recut left them.
    """
    newest, known = tables.current(output_uri), known or cuts.Known(output_uri)
    by_part = newest.sort_by([("part", "ascending"), ("video_id", "ascending")])["video_id"].to_pylist()
    chosen = None if video_ids is None else video_ids | behind(known)
    wanted = [video_id for video_id in by_part if chosen is None or video_id in chosen]
    for some in _batches(wanted, _VIDEOS_AT_ONCE):
        _write_pages(output_uri, set(some), newest, known)
    index = storage.join(output_uri, REPORT, "index.html")
    library = known.whole({cuts.LIBRARY})
    storage.write_bytes(index, _index(output_uri, newest, library).encode())
    if known.newest_at:
        note = json.dumps({"made_at": known.newest_at.isoformat()})
        storage.write_bytes(storage.join(output_uri, REPORT, _TELLS_OF), note.encode())
    return index


def behind(known: cuts.Known) -> set[str]:
    """The videos with cuts that their pages do not tell of, and cuts.LIBRARY if the index does not."""
    try:
        note = json.loads(storage.read_bytes(storage.join(known.output, REPORT, _TELLS_OF)))
        told = datetime.fromisoformat(note["made_at"])
    except (storage.Missing, ValueError, TypeError, KeyError):
        told = None
    return known.since(told)


def without_page(output: str) -> set[str]:
    """The videos that have no page, such as those of a run that was killed before its report."""
    pages = storage.list_files(storage.join(output, REPORT), ".html")
    there = {name.removesuffix(".html") for name in pages}
    return set(tables.current(output)["video_id"].to_pylist()) - there


def _batches(items: list[str], size: int) -> Iterable[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _write_pages(output: str, video_ids: set[str], newest: pa.Table, known: cuts.Known) -> None:
    def rows(table: tables.Table, columns: list[str] | None = None) -> list[Row]:
        return tables.read(output, table, columns, video_ids, newest).to_pylist()

    clip_columns = [name for name in schema.clips_schema(0).names if name != "embedding"]
    clips = defaultdict(list)
    for clip in rows("clips", clip_columns):
        clips[clip["video_id"]].append(clip)
    others = defaultdict(list)
    for cut in known.whole(video_ids):
        others[cut["video_id"]].append(cut)
    reels = {reel["video_id"]: reel for reel in rows("reels")}
    failures = {failure["video_id"]: failure for failure in rows("failures")}
    with ThreadPoolExecutor(_WRITERS) as pool:
        written = []
        for video in rows("videos"):
            video_id = video["video_id"]
            page = render_video(
                video, clips[video_id], reels.get(video_id), failures.get(video_id), others[video_id]
            )
            target = storage.join(output, REPORT, f"{video_id}.html")
            written.append(pool.submit(storage.write_bytes, target, page.encode()))
        for writing in written:
            writing.result()


def render_video(
    video: Row, clips: list[Row], reel: Row | None, failure: Row | None, others: Sequence[Row] = ()
) -> str:
    """The page of one video, from its rows in the tables."""
    duration_s = video["duration_s"] or max((clip["end_s"] for clip in clips), default=0.0) or 1.0
    edits = {edit["clip"]: edit for edit in (reel or {}).get("edits") or []}
    fastest = max((clip["motion"] or 0.0 for clip in clips), default=0.0)
    middle = [_middle(values) for values in zip(*(_parts(clip, fastest) for clip in clips), strict=True)]
    best = sorted(clips, key=lambda clip: (not clip["chosen"], -(clip["score"] or 0.0)))
    shown = [_clip(clip, edits.get(clip["clip"]), fastest, middle, duration_s) for clip in clips]
    pictured = {clip["clip"] for clip in best[:_PICTURES]}
    return _page(
        "video.html",
        "video.js",
        video=video,
        name=_name(video["uri"]),
        reel=_reel(reel),
        beside=[_cut(row) for row in others],
        clips=shown,
        cards=[clip for clip in shown if clip["clip"] in pictured],
        others=[clip for clip in shown if clip["clip"] not in pictured],
        failure=failure,
        facts=_facts(video),
        duration_s=duration_s,
        curve=curve(video["times_s"], video["importance"], duration_s, _POINTS),
        cuts=[100 * cut / duration_s for cut in video["cuts_s"] or []],
        ticks=ticks(duration_s),
    )


def render_search(
    query: str, thumbnail: bytes | None, hits: list[Row], clips: int, report: str | None
) -> str:
    """The page of a search: hits (of jobs/search.py) with their pictures.

    report   how the page names the folder of the report; None where it cannot
    """
    shown = [hit | {"picture": _data_uri(hit["thumbnail"]), "name": _name(hit["uri"])} for hit in hits]
    way = quote(report) if report else None
    return _page(
        "search.html",
        query=query,
        picture=_data_uri(thumbnail),
        hits=shown,
        clips=clips,
        report=way,
    )


def _index(output: str, newest: pa.Table, library: list[Row]) -> str:
    videos = tables.read(output, "videos", _INDEX_COLUMNS, newest=newest).to_pylist()
    videos.sort(key=lambda video: (video["published_at"], video["video_id"]), reverse=True)
    failures = {
        failure["video_id"]: failure
        for failure in tables.read(
            output, "failures", ["video_id", "stage", "reason"], newest=newest
        ).to_pylist()
    }
    reel_columns = ["video_id", "uri", "duration_s", "files"]
    reels = {
        reel["video_id"]: reel
        for reel in tables.read(output, "reels", reel_columns, newest=newest).to_pylist()
    }
    first = {video["video_id"] for video in videos[:_CARDS]}
    curves = tables.read(output, "videos", ["video_id", "times_s", "importance"], first, newest)
    sparks = {
        row["video_id"]: curve(row["times_s"], row["importance"], None, _SPARK_POINTS)
        for row in curves.to_pylist()
    }
    for video in videos:
        video["name"] = _name(video["uri"])
        video["failure"] = failures.get(video["video_id"])
        video["reel"] = _reel(reels.get(video["video_id"]))
        video["spark"] = sparks.get(video["video_id"])
    counts = {status: sum(video["status"] == status for video in videos) for status in _STATUSES}
    return _page(
        "index.html",
        "index.js",
        output=storage.shown(output),
        cards=videos[:_CARDS],
        rows=videos[_CARDS:],
        counts=counts,
        video_s=sum(video["duration_s"] or 0.0 for video in videos),
        clips=sum(video["clips"] or 0 for video in videos),
        chosen=sum(video["chosen"] or 0 for video in videos),
        reel_s=sum(reel["duration_s"] or 0.0 for reel in reels.values()),
        reels=len(reels),
        library=[_cut(row) for row in library],
        runs=_runs(output),
    )


def _runs(output: str) -> list[Row]:
    """The latest records of runs/, newest first; one that cannot be read is left out."""
    runs = []
    folder = storage.join(output, "runs")
    for name in reversed(storage.list_files(folder, ".json")):
        try:
            record = json.loads(storage.read_bytes(storage.join(folder, name)))
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("started_at"):
            fields = ("started_at", "state", "video_s", "wall_s", "video_hours_per_hour")
            counts = {status: (record.get("counts") or {}).get(status, 0) for status in _STATUSES}
            runs.append({field: record.get(field) for field in fields} | {"counts": counts})
        if len(runs) == _RUNS:
            break
    return runs


def _clip(clip: Row, edit: Row | None, fastest: float, middle: list[float | None], duration_s: float) -> Row:
    loudness = clip["loudness_lufs"]
    texts = {
        "importance": number(clip["importance"]),
        "novelty": number(clip["novelty"]),
        "motion": number(clip["motion"], 3),
        "loudness": "no sound" if loudness is None else f"{loudness:.0f} LUFS",
    }
    lengths = _parts(clip, fastest)
    return clip | {
        "left": 100 * clip["start_s"] / duration_s,
        "width": 100 * (clip["end_s"] - clip["start_s"]) / duration_s,
        "edit": edit,
        "picture": _data_uri(clip["thumbnail"]),
        "overlay": _data_uri(clip["saliency"]),
        "bars": [
            (part, length or 0.0, mark, text)
            for (part, text), length, mark in zip(texts.items(), lengths, middle, strict=True)
        ],
    }


def _parts(clip: Row, fastest: float) -> list[float | None]:
    """Lengths of a clip's bars in per cent: importance, novelty, motion, loudness; None where not known.

    Motion is compared with the liveliest clip of the video: its absolute values are all small.
    """
    loudness = clip["loudness_lufs"]
    return [
        _share(clip["importance"]),
        _share(clip["novelty"]),
        _share((clip["motion"] or 0.0) / fastest if fastest else 0.0),
        None if loudness is None else _share((loudness - _QUIET_LUFS) / (_LOUD_LUFS - _QUIET_LUFS)),
    ]


def _middle(lengths: Iterable[float | None]) -> float | None:
    known = [length for length in lengths if length is not None]
    return median(known) if known else None


def _reel(reel: Row | None) -> Row | None:
    if reel is None:
        return None
    files = {file.rsplit("/", 1)[-1]: _relative(file) for file in reel["files"] or [] if file != reel["uri"]}
    return reel | {
        "href": _relative(reel["uri"]),
        "poster": files.get("poster.jpg"),
        "storyboard": files.get("storyboard.jpg"),
        "links": [(name, files[name], words) for name, words in _BESIDE.items() if name in files],
        "more": [(name, href) for name, href in files.items() if name not in _BESIDE],
    }


def _cut(row: Row) -> Row:
    """A cut for a page: what can be played, or why there is nothing."""
    if row["status"] != schema.OK:
        return row | {"href": None, "poster": None, "links": [], "more": [], "sources": 0}
    edits = [edit | {"source": _name(edit["uri"])} for edit in row["edits"] or []]
    sources = len({edit["video_id"] for edit in edits})
    return _reel(row | {"edits": edits}) | {"sources": sources}


def _relative(uri: str) -> str:
    """How a page in report/ names a file of OUTPUT."""
    return "../" + quote(storage.join("", uri).lstrip("/"))


def _data_uri(jpeg: bytes | None) -> str | None:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() if jpeg else None


def _facts(video: Row) -> list[tuple[str, str]]:
    """What is known of the source, in words."""
    facts: list[tuple[str, str | None]] = [
        ("Source", storage.shown(video["uri"])),
        ("Length", clock(video["duration_s"]) if video["duration_s"] else None),
        ("Picture", f"{video['width']} x {video['height']}" if video["width"] else None),
        ("Rotation", f"{video['rotation']}°" if video["rotation"] else None),
        (
            "Pixel shape",
            None if video["sample_aspect_ratio"] in (None, "1:1") else video["sample_aspect_ratio"],
        ),
        (
            "Frame rate",
            f"{video['fps']:.4g} fps{' (variable)' if video['variable_rate'] else ''}"
            if video["fps"]
            else None,
        ),
        ("Video", " · ".join(filter(None, (video["video_codec"], video["pixel_format"]))) or None),
        ("Audio", _audio(video)),
        ("Container", video["container"]),
        ("Size", size(video["size_bytes"])),
        ("Shots", str(video["shots"]) if video["shots"] is not None else None),
        (
            "Frames looked at",
            f"{video['samples']:,} of {video['frames']:,}" if video["samples"] and video["frames"] else None,
        ),
        ("Processed", f"{video['published_at']:%Y-%m-%d %H:%M} UTC"),
    ]
    return [(name, text) for name, text in facts if text]


def _audio(video: Row) -> str | None:
    if not video["audio_codec"]:
        return "none" if video["video_codec"] else None
    rate = f"{video['audio_rate'] / 1000:g} kHz" if video["audio_rate"] else None
    channels = {1: "mono", 2: "stereo"}.get(video["audio_channels"], f"{video['audio_channels']} channels")
    return " · ".join(filter(None, (video["audio_codec"], rate, channels)))


def _share(value: float | None) -> float:
    """Length of a bar, in per cent."""
    return 100 * min(1.0, max(0.0, value)) if value is not None else 0.0


def _name(uri: str) -> str:
    return storage.shown(uri).rstrip("/").rsplit("/", 1)[-1] or storage.shown(uri)


_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"clock": clock, "tenths": tenths, "size": size, "hours": hours, "number": number}


def _page(template: str, script_name: str | None = None, **values: Any) -> str:
    script = _source(script_name) if script_name else None
    # Only our own script may run, if any, whatever a file name should manage to put into the page.
    allowed = "none"
    if script:
        allowed = f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
    return _templates.get_template(template).render(
        allowed_script=allowed,
        script=Markup(script) if script else None,
        style=Markup(_source("style.css")),
        **values,
    )


def _source(name: str) -> str:
    return _templates.loader.get_source(_templates, name)[0]
