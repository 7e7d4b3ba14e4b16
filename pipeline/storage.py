"""Files of one OUTPUT, on a local disk or an object store: whole or not there, and never a stale list.

On a local disk a file is written under a temporary name and renamed; on an object store one PUT (or a
completed multipart upload) is atomic. Errors are StorageError, in words for whoever runs the job.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mimetypes import guess_type
from pathlib import Path
from typing import BinaryIO

from botocore.exceptions import BotoCoreError, ClientError
from fsspec import AbstractFileSystem

from pipeline.redact import without_login
from stages import tally
from stages.failure import Unavailable
from stages.filesystem import S3_PROTOCOLS, code_of, open_filesystem, protocol_of

TEMPORARY = ".reelmap-tmp-"  # how the name of an unfinished local file starts
_PART_BYTES = 16 << 20  # of a multipart upload; this many times _PARTS_AT_ONCE is held in memory
_PARTS_AT_ONCE = 4

_REASONS = {
    "NoSuchBucket": "the bucket does not exist",
    "InvalidBucketName": "that is not a possible bucket name",
    "InvalidAccessKeyId": "the store does not know the access key: check AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "the credentials in use have no permission for it",
    "AllAccessDisabled": "the store has disabled all access to it",
    "ExpiredToken": "the session token has expired: fetch new credentials",
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "the clock of this machine is wrong by more than the store accepts",
    "PermanentRedirect": "the bucket lies in another region: check AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: check AWS_REGION",
    "QuotaExceeded": "the quota of the store is used up",
    "SlowDown": "the store refuses so many requests, even after waiting: try fewer at once",
    "InternalError": "the store has an error of its own (InternalError), even after waiting",
    "ServiceUnavailable": "the store is not available at the moment",
    "403": "the credentials in use have no permission for it, or are wrong",
    "404": "it does not exist",
    # HEAD has no body that could name a code.
    "500": "the store has an error of its own, even after waiting",
    "503": "the store is not available or refuses so many requests, even after waiting",
}
_BOTO_REASONS = {
    "NoCredentialsError": "no credentials found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret",
    "PartialCredentialsError": "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY one is not set",
    "ProfileNotFound": "the profile named in AWS_PROFILE does not exist",
    "EndpointConnectionError": "the store cannot be reached: check AWS_ENDPOINT_URL and the network",
    "ConnectTimeoutError": "the store cannot be reached: check AWS_ENDPOINT_URL and the network",
    "ReadTimeoutError": "the store does not answer",
    "ParamValidationError": "that is not a possible bucket and key",
    "SSLError": "the certificate of the store is not accepted: check AWS_CA_BUNDLE",
}
_MISSING = ("NoSuchKey", "404")
# Uploads are tidied where the store and the credentials allow it; a run needs neither.
_NOT_LISTED = ("AccessDenied", "403", "NotImplemented", "501", "MethodNotAllowed", "405")
_LOST_RACE = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class StorageError(Unavailable):
    """The storage refused; the message says what to do, and holds no secret. No video is to blame for it."""


class Missing(StorageError):
    """There is nothing at that URI."""


def absolute(uri: str) -> str:
    """The URI as every process can use it: a local path becomes absolute, without `file://`."""
    if protocol_of(uri) == "file":
        return os.path.normpath(open_filesystem(uri)[1])
    return uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`; a part may hold inner slashes, but can never lead out of `uri`.

    Raises ValueError for a part that is empty, absolute, holds `.` or `..`, or a control character.
    """
    for part in parts:
        bad_step = any(step in ("", ".", "..") for step in part.split("/"))
        if bad_step or "\\" in part or re.search(r"[\x00-\x1f\x7f]", part):
            raise ValueError(f"not a safe path below {shown(uri)}: {part!r}")
    return "/".join([uri.rstrip("/"), *parts])


def write_bytes(uri: str, data: bytes) -> None:
    """Writes the whole file or nothing; replaces what was there."""
    with _errors("write", uri) as (filesystem, path):
        if protocol_of(uri) == "file":
            with _renamed_into(Path(path)) as temporary:
                temporary.write_bytes(data)
        elif protocol_of(uri) in S3_PROTOCOLS:
            filesystem.pipe_file(path, data, **_content_type(uri))
        else:
            filesystem.pipe_file(path, data)


def put_file(local: Path, uri: str) -> None:
    """Copies a local file to `uri`, whole or not at all; large ones go to S3 in parts."""
    if not local.is_file():
        raise StorageError(f"cannot write {shown(uri)}: there is no file {local} to be copied")
    with _errors("write", uri) as (filesystem, path):
        if protocol_of(uri) == "file":
            with _renamed_into(Path(path)) as temporary:
                shutil.copyfile(local, temporary)
        elif protocol_of(uri) in S3_PROTOCOLS:
            filesystem.put_file(
                str(local),
                path,
                chunksize=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
                **_content_type(uri),
            )
        else:
            filesystem.put_file(str(local), path)


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises Missing when there is none."""
    with _errors("read", uri) as (filesystem, path):
        return filesystem.cat_file(path)


@contextmanager
def open_input(uri: str) -> Iterator[BinaryIO]:
    """The file to be read in pieces: each read of an object is one ranged GET, nothing is read ahead."""
    with _errors("read", uri) as (filesystem, path):
        kind = {} if protocol_of(uri) == "file" else {"cache_type": "none"}
        with filesystem.open(path, "rb", **kind) as file:
            yield file


def exists(uri: str) -> bool:
    with _errors("look at", uri) as (filesystem, path):
        try:
            filesystem.info(path)
        except FileNotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise
            return False
        return True


def list_files(uri: str, suffix: str = "") -> list[str]:
    """Names of the files directly in the folder, sorted; [] for a folder that is not there.

    Hidden and unfinished files are left out. The list is always asked for anew.
    """
    with _errors("list", uri) as (filesystem, path):
        if protocol_of(uri) == "file":
            folder = Path(path)
            names = [entry.name for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
        else:
            filesystem.invalidate_cache(path)
            root = path.rstrip("/") + "/"
            try:
                found = filesystem.find(path)
            except FileNotFoundError as error:
                if code_of(error) == "NoSuchBucket":
                    raise
                found = []
            below = (name.lstrip("/").removeprefix(root.lstrip("/")) for name in found)
            names = [name for name in below if name and "/" not in name]
    return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))


def delete(uri: str) -> None:
    """Removes one file; it is no error when there is none."""
    with _errors("delete", uri) as (filesystem, path):
        try:
            filesystem.rm_file(path)
        except FileNotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise


def create_exclusive(uri: str, data: bytes) -> bool:
    """Writes `data` if nothing is at `uri`; False when somebody else's bytes are there.

    `data` must name its writer (hold something unique): a PUT that was answered late and tried again finds
    its own bytes, and a store that ignores If-None-Match is noticed when the bytes are read back. Such a
    store can still let a later writer win: read the file again before relying on it for long.
    """
    with _errors("create", uri) as (filesystem, path):
        try:
            if protocol_of(uri) == "file":
                _link_exclusive(Path(path), data)
            elif protocol_of(uri) in S3_PROTOCOLS:
                filesystem.pipe_file(path, data, mode="create")
            elif not filesystem.exists(path):
                filesystem.pipe_file(path, data)
        except OSError as error:
            if not isinstance(error, FileExistsError) and code_of(error) not in _LOST_RACE:
                raise
    try:
        return read_bytes(uri) == data
    except Missing:
        return False  # the other one has just given it up


def check_folder(uri: str) -> None:
    """Raises StorageError where a local path is not, and cannot become, a folder."""
    if protocol_of(uri) == "file" and Path(uri).is_file():
        raise StorageError(f"{shown(uri)} is a file: give a folder")


def check_writable(uri: str) -> None:
    """Writes, reads and deletes a small file in the folder, so that a run fails at its start."""
    check_folder(uri)
    probe = join(uri, f".reelmap-check-{secrets.token_hex(8)}")
    write_bytes(probe, b"reelmap")
    try:
        if read_bytes(probe) != b"reelmap":
            raise StorageError(f"{shown(uri)} does not give back what was written")
    finally:
        delete(probe)


def sweep_temporary(uri: str) -> int:
    """Removes what killed writers left in an OUTPUT; returns how many.

    On a local disk these are unfinished files, on S3 unfinished uploads, which are paid for but not listed.
    No one may be writing there.
    """
    with _errors("clean", uri) as (filesystem, path):
        if protocol_of(uri) in S3_PROTOCOLS:
            return _abort_uploads(filesystem, path)
        if protocol_of(uri) != "file":
            return 0
        left = [found for found in Path(path).rglob(f"{TEMPORARY}*") if found.is_file()]
        for temporary in left:
            temporary.unlink(missing_ok=True)
    return len(left)


def _abort_uploads(filesystem: AbstractFileSystem, path: str) -> int:
    bucket, _, prefix = path.rstrip("/").partition("/")
    aborted, more = 0, {}
    while True:
        try:
            page = filesystem.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", **more
            )
        except OSError as error:
            if code_of(error) in _NOT_LISTED:
                return aborted
            raise
        for upload in page.get("Uploads", []):
            with suppress(FileNotFoundError):  # it ended by itself
                filesystem.call_s3(
                    "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
                aborted += 1
        if not page.get("IsTruncated"):
            return aborted
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}


def shown(uri: str) -> str:
    """The URI for messages: without user, password or signed query, control characters made visible."""
    uri = without_login(uri, "?…")
    return re.sub(r"[\x00-\x1f\x7f]", lambda match: repr(match[0])[1:-1], uri)


def reason(error: BaseException) -> str:
    """Why the storage refused, in words; text of the server is left out, as it may quote what was sent."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for link in chain:
        if isinstance(link, BotoCoreError):
            return _BOTO_REASONS.get(type(link).__name__, f"the store cannot be used ({type(link).__name__})")
    if code := code_of(error):
        return _REASONS.get(code, f"the store answered {code}")
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if isinstance(error, PermissionError):
        return "this user has no permission for it"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, (ValueError, ImportError)):
        return "that kind of storage is not supported here"
    return type(error).__name__


@contextmanager
def _errors(verb: str, uri: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    try:
        opened = open_filesystem(uri)
    except (ValueError, ImportError) as error:
        raise StorageError(f"cannot {verb} {shown(uri)}: {reason(error)}") from error
    try:
        yield opened
    except (OSError, BotoCoreError, ClientError, NotImplementedError) as error:
        missing = isinstance(error, FileNotFoundError) and code_of(error) in ("", *_MISSING)
        kind = Missing if missing else StorageError
        raise kind(f"cannot {verb} {shown(uri)}: {reason(error)}") from error


def _content_type(uri: str) -> dict[str, str]:
    # Without it a browser that opens a page from the bucket would offer it for download.
    kind, _ = guess_type(uri.rsplit("/", 1)[-1])
    return {"ContentType": kind} if kind else {}


@contextmanager
def _renamed_into(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        yield temporary
        _sync(temporary)
        tally.count("written_bytes", temporary.stat().st_size)
        temporary.replace(path)
        _sync(path.parent)  # `videos/` must not reach the disk before its twins
    finally:
        temporary.unlink(missing_ok=True)


def _link_exclusive(path: Path, data: bytes) -> None:
    # A link to a finished file, because one opened with O_EXCL is empty for a moment.
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        temporary.write_bytes(data)
        path.hardlink_to(temporary)
    except PermissionError:  # a file system without hard links
        with path.open("xb") as file:
            file.write(data)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def walk(uri: str) -> Iterator[tuple[str, int]]:
    """Every file below the folder, hidden and unfinished ones too, as (path below it, bytes).

    A folder that is not there has none. Of an object store the pages come one by one.
    """
    with _errors("list", uri) as (filesystem, path):
        if protocol_of(uri) == "file":
            for folder, _, names in os.walk(path):
                for file in (Path(folder, name) for name in names):
                    with suppress(FileNotFoundError):  # it went meanwhile
                        yield file.relative_to(path).as_posix(), file.lstat().st_size
        elif protocol_of(uri) in S3_PROTOCOLS:
            bucket, _, prefix = path.partition("/")
            more: dict[str, str] = {}
            while more is not None:
                page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/", **more)
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):  # what consoles make for an empty folder
                        yield item["Key"].removeprefix(f"{prefix}/"), item["Size"]
                token = page.get("NextContinuationToken")
                more = {"ContinuationToken": token} if token else None
        else:
            root = path.rstrip("/") + "/"
            filesystem.invalidate_cache(path)
            for name, item in filesystem.find(path, detail=True).items():
                yield name.lstrip("/").removeprefix(root.lstrip("/")), item["size"]


def fetch(uri: str, local: Path) -> None:
    """Copies a file to a local path, a piece at a time. Raises Missing when there is none."""
    with open_input(uri) as source, local.open("wb") as copy:
        shutil.copyfileobj(source, copy, _PART_BYTES)


def list_temporary(uri: str) -> list[str]:
    """What killed writers left in a local OUTPUT, as paths below it; a store is swept by every run.

    Those in runs/ are left out: whoever holds the lease renews it there.
    """
    if protocol_of(uri) != "file":
        return []
    found = (path for path, _ in walk(uri) if path.rsplit("/", 1)[-1].startswith(TEMPORARY))
    return sorted(path for path in found if not path.startswith("runs/"))


def remove_empty_folders(uri: str) -> None:
    """Below a local folder, and not the folder itself; a store has no folders."""
    if protocol_of(uri) != "file":
        return
    with _errors("clean", uri) as (_, path):
        for folder, _, _ in os.walk(path, topdown=False):
            if folder != path and not any(Path(folder).iterdir()):
                Path(folder).rmdir()
