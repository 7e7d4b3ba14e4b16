"""`reelmap search OUTPUT QUERY`: clips that look like a picture or another clip: lines, JSON or a page."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.models import open_models
from pipeline import storage, tables
from pipeline.report import render_search
from pipeline.search import (
    PICTURES,
    Found,
    Query,
    Searched,
    SearchError,
    clip_query,
    look,
    parse_where,
    picture_query,
    search,
)
from pipeline.videos import VideoError
from pipeline.wording import several, tenths
from stages.filesystem import protocol_of
from stages.nn.weights import BundleError

DONE, COULD_NOT, INTERRUPTED = 0, 2, 130


@dataclass(frozen=True)
class Options:
    output: str
    query: str
    top: int = 20
    all_of_a_shot: bool = False
    where: str | None = None
    as_json: bool = False
    page: str | None = None
    bundle: str | None = None


def find(options: Options, say: Callable[[str], None], warn: Callable[[str], None]) -> int:
    """Exit code: 0 looked, whether or not something was found, 2 could not look, 130 interrupted."""
    output = storage.absolute(options.output)
    try:
        known = look(output)
        where, columns = parse_where(options.where) if options.where else (None, ())
        query = query_of(known, options)
        found = search(known, query, options.top, not options.all_of_a_shot, where, columns)
        hits = described(known, found)
        for why, clips in found.others.items():
            warn(f"{several(clips, 'clip')} left out, which cannot be compared: they have {why}")
        if options.as_json:
            say(json.dumps([{name: hit[name] for name in JSON} for hit in hits]))
        else:
            say_hits(hits, found, say)
        if options.page:
            page = storage.absolute(options.page)
            write_page(page, output, options.query, query, hits, found)
            warn(f"page: {storage.shown(page)}")
    except (SearchError, VideoError, BundleError, storage.StorageError) as error:
        warn(f"reelmap: {error}")
        return COULD_NOT
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


JSON = ("score", "video_id", "uri", "clip", "shot", "start_s", "end_s")


def query_of(known: Searched, options: Options) -> Query:
    """A file is a picture by its name; all else must be a clip."""
    if options.query.lower().endswith(PICTURES):
        return picture_query(known, options.query, open_models(options.bundle))
    return clip_query(known, options.query)


def described(known: Searched, found: Found) -> list[dict[str, Any]]:
    """The hits with the URI of their video and their thumbnail; none that a run has replaced since."""
    ids = {hit.video_id for hit in found.hits}
    uris = known.uris()
    wanted = {(hit.video_id, hit.clip) for hit in found.hits}
    pictures = {}
    for piece in tables.stream(known.output, "clips", ["clip", "thumbnail"], ids, known.newest):
        keys = zip(piece["video_id"].to_pylist(), piece["clip"].to_pylist(), strict=True)
        for place, key in enumerate(keys):
            if key in wanted:
                pictures[key] = piece["thumbnail"][place].as_py()
    return [
        vars(hit) | {"uri": uris[hit.video_id], "thumbnail": pictures[hit.video_id, hit.clip]}
        for hit in found.hits
        if (hit.video_id, hit.clip) in pictures
    ]


def say_hits(hits: list[dict[str, Any]], found: Found, say: Callable[[str], None]) -> None:
    for hit in hits:
        span = f"{tenths(hit['start_s'])} - {tenths(hit['end_s'])}"
        say(f"{hit['score']:.3f}  {span:>17}  {storage.shown(hit['uri'])}:{hit['clip']}")
    say(f"the most alike of {found.clips:,} clips" if hits else f"nothing among {found.clips:,} clips")


def write_page(
    page: str, output: str, text: str, query: Query, hits: list[dict[str, Any]], found: Found
) -> None:
    """Plain HTML without a server; clips lead to the pages of their videos where these can be reached."""
    report = _way(page, storage.join(output, "report"))
    content = render_search(storage.shown(text), query.thumbnail, hits, found.clips, report)
    storage.write_bytes(page, content.encode())


def _way(page: str, folder: str) -> str | None:
    """How a page names a folder: relative, if both lie on this machine's disks or in one store."""
    if protocol_of(page) != protocol_of(folder):
        return None
    beside = page.rpartition("/")[0]
    one_place = protocol_of(page) == "file" or page.split("/")[2] == folder.split("/")[2]
    return os.path.relpath(folder, beside) if one_place else None
