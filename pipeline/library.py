"""Lists a video library: one row per file, in the same order every time.

uri          string   opens again through `stages.filesystem.open_filesystem`
etag         string   of the object store; "" where there is none
size_bytes   int64
modified_at  timestamp[us, UTC], null where unknown
video_id     string   hash of uri, etag (or time of modification) and size: a changed file is a new video
"""

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError
from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

from pipeline.schema import TIMESTAMP
from pipeline.storage import absolute, reason, shown
from stages.filesystem import S3_PROTOCOLS, open_filesystem, protocol_of
from stages.settings import Settings

log = logging.getLogger("reelmap")

# Left out on purpose: gif (pictures, mostly) and audio files.
VIDEO_EXTENSIONS = (
    *("mp4", "m4v", "mov", "qt", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "m2v", "vob"),
    *("flv", "f4v", "wmv", "asf", "ogv", "mxf", "3gp", "3g2", "dv", "y4m"),
)

_PAGE_KEYS = 1000  # the most that S3 gives at once

SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False, metadata={"unit": "bytes"}),
        pa.field("modified_at", TIMESTAMP),
        pa.field("video_id", pa.string(), nullable=False),
    ]
)


class LibrarySettings(Settings):
    """Which files of the library are videos to be worked on.

    Globs match in any case (cameras write .MP4). One without a slash is matched against the file name at any
    depth (`*_proxy.mp4`), one with a slash against the path below the library (`2024/**/*.mov`).
    """

    extensions: tuple[str, ...] = VIDEO_EXTENSIONS  # without the dot, in any case
    include: tuple[str, ...] = ()  # empty: all
    exclude: tuple[str, ...] = ()
    limit: int | None = None  # the first so many, by URI


class LibraryError(Exception):
    """The library cannot be listed; the message says why, in words for the operator."""


class Listing(NamedTuple):
    videos: pa.Table
    skipped: tuple[str, ...]  # what could not be looked at, below the library: nothing is known of it


class Entry(NamedTuple):
    path: str  # below the library
    uri: str
    etag: str
    size_bytes: int
    modified: str | int | None  # what the id is made of when there is no etag
    modified_us: int | None  # microseconds since 1970


def list_library(
    uri: str, settings: LibrarySettings = LibrarySettings(), output: str | None = None
) -> pa.Table:
    """The videos below `uri`, see `look_through`; what could not be looked at is left out."""
    return look_through(uri, settings, output).videos


def look_through(
    uri: str, settings: LibrarySettings = LibrarySettings(), output: str | None = None
) -> Listing:
    """The videos below `uri`, or the one file that `uri` names, sorted by URI; and what was skipped.

    Reels that were made before, under `output`/media/, are no videos of the library.
    Hidden files and folders are skipped, symbolic links are followed once. An empty table means that
    nothing matched. Raises LibraryError when the library is not there or may not be read.
    """
    uri = absolute(uri)
    wanted = filter_of(settings)
    skipped: list[str] = []
    reels = absolute(output) + "/media/" if output else None
    try:
        entries = [
            entry
            for entry in _entries(uri, skipped)
            if (not entry.path or wanted(entry.path)) and not (reels and entry.uri.startswith(reels))
        ]
    except (OSError, ValueError, ImportError, BotoCoreError, ClientError) as error:
        raise LibraryError(f"cannot list {shown(uri)}: {reason(error)}") from error
    entries.sort(key=lambda entry: entry.uri)
    rows = [
        {
            "uri": entry.uri,
            "etag": entry.etag,
            "size_bytes": entry.size_bytes,
            "modified_at": entry.modified_us,
            "video_id": video_id(entry.uri, entry.etag or entry.modified, entry.size_bytes),
        }
        for entry in entries[: settings.limit]
    ]
    return Listing(pa.Table.from_pylist(rows, schema=SCHEMA), tuple(skipped))


def video_id(uri: str, version: str | int | None, size_bytes: int) -> str:
    """24 hex digits that name this version of the file; safe in paths."""
    return hashlib.sha256(json.dumps([uri, version, size_bytes]).encode()).hexdigest()[:24]


def id_of(uri: str) -> str:
    """The video_id that the file at `uri` has now. Raises LibraryError when it cannot be looked at."""
    try:
        entry = next((entry for entry in _entries(uri, []) if not entry.path), None)
    except (OSError, ValueError, ImportError, BotoCoreError, ClientError) as error:
        raise LibraryError(f"cannot look at {shown(uri)}: {reason(error)}") from error
    if entry is None:
        raise LibraryError(f"cannot look at {shown(uri)}: it does not exist")
    return video_id(entry.uri, entry.etag or entry.modified, entry.size_bytes)


def filter_of(settings: LibrarySettings) -> Callable[[str], bool]:
    """Whether a path below the library is that of a video to be worked on."""
    extensions = {extension.lower().lstrip(".") for extension in settings.extensions}
    passes = passing(settings)

    def wanted(path: str) -> bool:
        steps = path.split("/")
        if any(step.startswith(".") for step in steps):
            return False
        stem, dot, extension = steps[-1].rpartition(".")
        return bool(stem and dot and extension.lower() in extensions) and passes(path)

    return wanted


def passing(settings: LibrarySettings, of_uris: bool = False) -> Callable[[str], bool]:
    """Whether include and exclude let a path below the library through; or a URI.

    Where the library of a URI begins is not known: a glob with a slash may begin at any of its folders.
    """
    include = [_glob(pattern, of_uris) for pattern in settings.include]
    exclude = [_glob(pattern, of_uris) for pattern in settings.exclude]

    def passes(path: str) -> bool:
        wanted = not include or any(match(path) for match in include)
        return wanted and not any(match(path) for match in exclude)

    return passes


def _glob(pattern: str, anywhere: bool) -> Callable[[str], bool]:
    try:
        path = f"**/{pattern}" if anywhere else pattern
        expression = re.compile(glob_translate(path), re.DOTALL | re.IGNORECASE)
    except (ValueError, re.error) as error:
        raise LibraryError(f"not a glob pattern: {pattern!r} ({error})") from error
    if "/" in pattern:
        return lambda path: expression.match(path) is not None
    return lambda path: expression.match(path.rsplit("/", 1)[-1]) is not None


def _entries(uri: str, skipped: list[str]) -> Iterable[Entry]:
    protocol = protocol_of(uri)
    filesystem, path = open_filesystem(uri)
    if protocol == "file":
        return _local(Path(path), skipped)
    if protocol in S3_PROTOCOLS:
        return _s3(filesystem, path)
    return _other(filesystem, protocol, path)


def _local(root: Path, skipped: list[str]) -> Iterator[Entry]:
    if root.is_file():
        yield _local_entry("", str(root), root.stat())
        return
    folders, seen = [(root, "")], set()
    while folders:
        folder, below = folders.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue  # a link to a folder that was listed already, perhaps to one above
            seen.add((status.st_dev, status.st_ino))
            children = sorted(os.scandir(folder), key=lambda child: child.name)
        except OSError as error:
            if folder == root:
                raise
            log.warning("skipped the folder %s: %s", shown(str(folder)), reason(error))
            skipped.append(below.rstrip("/"))
            continue
        deeper = []
        for child in children:
            path = below + child.name
            if not _is_text(path):
                log.warning("skipped %r: its name is not valid UTF-8", os.fsencode(child.path))
                continue
            try:
                status = child.stat()
            except OSError as error:  # a link to what is away, or not to be looked at
                log.warning("skipped %s: %s", shown(child.path), reason(error))
                skipped.append(path)
                continue
            if stat.S_ISDIR(status.st_mode) and not child.name.startswith("."):
                deeper.append((Path(child.path), path + "/"))
            elif stat.S_ISREG(status.st_mode):  # not a pipe or a device
                yield _local_entry(path, child.path, status)
        folders.extend(reversed(deeper))


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _local_entry(path: str, full: str, status: os.stat_result) -> Entry:
    return Entry(path, full, "", status.st_size, status.st_mtime_ns, status.st_mtime_ns // 1000)


def _s3(filesystem: AbstractFileSystem, path: str) -> Iterator[Entry]:
    # Page by page, as `find` of s3fs holds some kilobytes per object for the whole listing.
    bucket, _, prefix = path.partition("/")
    below, found = f"{prefix}/" if prefix else "", False
    more: dict[str, str] = {}
    while True:
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=below, MaxKeys=_PAGE_KEYS, **more)
        for item in page.get("Contents", []):
            found = True
            if why := _unopenable(item["Key"]):
                log.warning("skipped s3://%s/%s: %s", bucket, shown(item["Key"]), why)
                continue
            yield _s3_entry(bucket, item["Key"], item["Key"].removeprefix(below), item["Size"], item)
        if not page.get("IsTruncated"):
            break
        more = {"ContinuationToken": page["NextContinuationToken"]}
    if prefix and not found:
        head = filesystem.call_s3("head_object", Bucket=bucket, Key=prefix)
        yield _s3_entry(bucket, prefix, "", head["ContentLength"], head)


def _unopenable(key: str) -> str:
    """Why a key cannot be asked for by its own name, "" if it can."""
    if "?versionId=" in key:
        return "s3fs takes the end of such a name for a version"
    if any(step in (".", "..") for step in key.split("/")):
        return "HTTP clients resolve . and .. in a name, and would ask for another one"
    return ""


def _s3_entry(bucket: str, key: str, path: str, size_bytes: int, item: dict) -> Entry:
    modified: datetime = item["LastModified"]
    etag = item.get("ETag", "").strip('"')
    return Entry(
        path, f"s3://{bucket}/{key}", etag, size_bytes, modified.isoformat(), _microseconds(modified)
    )


def _other(filesystem: AbstractFileSystem, protocol: str, path: str) -> Iterator[Entry]:
    root = path.rstrip("/")
    found = filesystem.find(path, detail=True)
    if not found and not filesystem.exists(path):
        raise FileNotFoundError(path)
    for name, item in found.items():
        modified = item.get("mtime") or item.get("LastModified") or item.get("created")
        below = name[len(root) :].lstrip("/")
        etag = str(item.get("etag") or item.get("ETag") or "").strip('"')
        yield Entry(
            below, f"{protocol}://{name}", etag, item.get("size") or 0, str(modified), _microseconds(modified)
        )


def _microseconds(modified: datetime | float | None) -> int | None:
    seconds = modified.timestamp() if isinstance(modified, datetime) else modified
    return None if seconds is None else round(seconds * 1e6)
