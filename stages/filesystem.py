"""The fsspec filesystem of a URI, and the one place that says how object stores are talked to.

fsspec's own `url_to_fs` reads `::` in a URI as a chain of filesystems. Object keys are data: a key named
`x::http://host/y.mp4` must not send us to another host, so only the first protocol of a URI counts here.
Keys, endpoint and region come from the standard AWS environment variables and profiles.
"""

import os
import re
from pathlib import Path

import fsspec
from fsspec import AbstractFileSystem

S3_PROTOCOLS = ("s3", "s3a")
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# A store that answers nothing is given up after attempts x attempts x time-out = 6 minutes.
_READ_TIMEOUT_S = 30  # s3fs gives up after 15 s, too soon for a busy store
_CONNECT_TIMEOUT_S = 10
_REQUEST_ATTEMPTS = 4  # by botocore
_CALL_ATTEMPTS = 3  # by s3fs, around botocore: a connection torn while the body is read


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
        filesystem = fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=_s3_config())
        filesystem.retries = _CALL_ATTEMPTS
        return filesystem, uri.split("://", 1)[1]
    kind = fsspec.get_filesystem_class(protocol)
    filesystem = fsspec.filesystem(protocol, **kind._get_kwargs_from_urls(uri))
    return filesystem, kind._strip_protocol(uri)


def _s3_config() -> dict:
    """Time-outs and retries of botocore.

    Its default (legacy, 5 attempts) does not slow down when the store asks for it. Whoever sets
    AWS_RETRY_MODE or AWS_MAX_ATTEMPTS decides instead.
    """
    config = {"connect_timeout": _CONNECT_TIMEOUT_S, "read_timeout": _READ_TIMEOUT_S}
    if not os.environ.get("AWS_RETRY_MODE") and not os.environ.get("AWS_MAX_ATTEMPTS"):
        config["retries"] = {"mode": "adaptive", "total_max_attempts": _REQUEST_ATTEMPTS}
    return config
