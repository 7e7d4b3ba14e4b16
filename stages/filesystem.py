"""The fsspec filesystem of a URI; how object stores are talked to is said in stages/s3.py.

fsspec's own `url_to_fs` reads `::` in a URI as a chain of filesystems. Object keys are data: a key named
`x::http://host/y.mp4` must not send us to another host, so only the first protocol of a URI counts here.
Keys, endpoint and region come from the standard AWS environment variables and profiles.
"""

import re
from pathlib import Path

import fsspec
from botocore.exceptions import ClientError
from fsspec import AbstractFileSystem

S3_PROTOCOLS = ("s3", "s3a")
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def protocol_of(uri: str) -> str:
    """The protocol of a URI; a path without one is "file"."""
    match = _PROTOCOL.match(uri)
    protocol = match[1].lower() if match else "file"
    return "file" if protocol == "local" else protocol


def open_filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The filesystem of a URI and the path inside it. Instances are cached per process by fsspec.

    Raises ValueError or ImportError for a protocol that fsspec does not know or cannot load.
    """
    protocol = protocol_of(uri)
    if protocol == "file":
        path = re.sub(r"^(file|local)://", "", uri, flags=re.IGNORECASE)
        return fsspec.filesystem("file"), str(Path(path).absolute())
    if protocol in S3_PROTOCOLS:
        from stages.s3 import Store  # its imports take a second, which a local library need not wait

        return Store(), uri.split("://", 1)[1]
    kind = fsspec.get_filesystem_class(protocol)
    filesystem = fsspec.filesystem(protocol, **kind._get_kwargs_from_urls(uri))
    return filesystem, kind._strip_protocol(uri)


def answer_of(error: BaseException | None) -> ClientError | None:
    """What an object store answered, behind the error that it became; None if there was no answer."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    return error


def code_of(error: BaseException | None) -> str:
    """The error code of an object store, "" if it was not an answer of one."""
    answer = answer_of(error)
    return str(answer.response.get("Error", {}).get("Code", "")) if answer else ""


def without_login(uri: str, query: str = "") -> str:
    """The URI without user and password, and with `query` for a signed one; all else stays as it is."""
    uri = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/]*@", r"\1", uri)  # a password may hold an @ itself
    return re.sub(r"^(https?://[^?#]*)[?#].*", rf"\1{query}", uri, flags=re.IGNORECASE | re.DOTALL)
