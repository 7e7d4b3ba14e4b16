"""S3 as it is, busy, slow, cut in the middle: the one place that says what is tried again, and how long.

botocore and s3fs each have retries of their own, one around the other: together they try a refused PUT twelve
times, one that fails with 500 four times, and a body that is cut three times without a pause. Both are
switched off here. Every request of a `Store` passes `_call_s3`, a GET with its body read to the end, and is
tried again there: exponential waits with full jitter (Brooker, "Exponential backoff and jitter", AWS 2015).
"""

import asyncio
import errno
import hashlib
import logging
import os
import random
import time
from contextlib import suppress
from io import BytesIO
from typing import Any

from aiohttp import ClientError as HttpError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    SSLError,
)
from botocore.exceptions import ConnectionError as StoreConnectionError
from botocore.parsers import ResponseParserError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from stages import tally
from stages.filesystem import answer_of, code_of
from stages.settings import Settings


class RetrySettings(Settings):
    """How long one request is tried: until the attempts or the seconds are used up."""

    attempts: int = 12  # AWS_MAX_ATTEMPTS, where it is set, counts instead
    seconds: float = 120.0  # no attempt begins later than this after the first
    first_wait_s: float = 0.5  # at most; doubled with each attempt
    longest_wait_s: float = 20.0  # also of what Retry-After asks for
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0  # between two bytes


RETRY = RetrySettings()
SAID_AFTER = 4  # attempts, some seconds: who waits in front of a wrong endpoint should know what for

log = logging.getLogger("reelmap")

# Trouble on the way. A certificate that is not accepted is a ConnectionError too, but will not change.
_ON_THE_WAY = (
    *(StoreConnectionError, HTTPClientError, HttpError, IncompleteReadError, FlexibleChecksumError),
    *(ResponseParserError, TimeoutError, OSError),
)
_PASSING_STATUS = (429, 500, 502, 503, 504)
_PASSING_CODES = (
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"),
    *("RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted"),
    # The body was damaged or cut on its way to the store.
    *("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"),
)


class Store(S3FileSystem):
    """s3fs with our retries in place of its own and of botocore's."""

    retries = 1

    def __init__(self, **options: Any):
        timeouts = {"connect_timeout": RETRY.connect_timeout_s, "read_timeout": RETRY.read_timeout_s}
        once = {"mode": "standard", "total_max_attempts": 1}
        super().__init__(use_listings_cache=False, config_kwargs={"retries": once} | timeouts, **options)

    async def _call_s3(self, method: str, *defaults: dict[str, Any], **kwargs: Any) -> Any:
        given = os.environ.get("AWS_MAX_ATTEMPTS", "")
        attempts = int(given) if given.isdigit() else RETRY.attempts
        begun, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                answer = await self._once(method, *defaults, **kwargs)
                if attempt > 1 and method == "create_multipart_upload":
                    await self._abort_others(answer)
                return answer
            except (OSError, BotoCoreError, ClientError, HttpError, ResponseParserError) as error:
                # The upload is gone because an attempt before this one did complete it.
                again = attempt > 1 and method == "complete_multipart_upload"
                if again and code_of(error) == "NoSuchUpload" and await self._completed(kwargs):
                    return {}
                wait_s = pause_s(error, attempt)
                late = time.monotonic() - begun + (wait_s or 0) > RETRY.seconds
                if code_of(error) in ("PreconditionFailed", "412"):
                    # s3fs looks for these words, but Ceph sends none.
                    raise OSError(errno.EINVAL, "pre-conditions do not hold") from answer_of(error)
                if wait_s is None or attempt >= attempts or late:
                    if isinstance(error, (HttpError, ResponseParserError)):  # of no family that callers know
                        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from error
                    raise
                if attempt == SAID_AFTER:
                    why = code_of(error) or type(error).__name__
                    log.warning("the store does not serve %s (%s): waiting for it", method, why)
                tally.count("storage_retries")
                await asyncio.sleep(wait_s)

    # The blocking twin is bound to the method it wraps, so that it must be made anew.
    call_s3 = sync_wrapper(_call_s3)

    async def _once(self, method: str, *defaults: dict[str, Any], **kwargs: Any) -> Any:
        answer = await super()._call_s3(method, *defaults, **kwargs)
        if method == "get_object":
            body = answer["Body"]
            try:
                answer["Body"] = _Body(await body.read())
            finally:
                body.close()
            tally.count("read_bytes", len(answer["Body"].getbuffer()))
        elif isinstance(sent := kwargs.get("Body"), bytes):  # of an object, or of one part of it
            tally.count("written_bytes", len(sent))
        return answer

    async def _abort_others(self, upload: dict[str, Any]) -> None:
        """Ends the uploads of this key that were begun before, in attempts whose answer was lost."""
        bucket, key = upload["Bucket"], upload["Key"]
        with suppress(OSError):  # it tidies, and must not end an upload that goes well
            page = await self._once("list_multipart_uploads", Bucket=bucket, Prefix=key)
            for other in page.get("Uploads", []):
                if other["Key"] == key and other["UploadId"] != upload["UploadId"]:
                    await self._abort_mpu(bucket, key, other["UploadId"])

    async def _completed(self, upload: dict[str, Any]) -> bool:
        """Whether the object is the one that this upload would have made."""
        try:
            head = await self._call_s3("head_object", Bucket=upload["Bucket"], Key=upload["Key"])
        except (OSError, BotoCoreError):
            return False
        tags = [part["ETag"].strip('"') for part in upload["MultipartUpload"]["Parts"]]
        return head["ETag"].strip('"') == etag_of_parts(tags)


class _Body(BytesIO):
    """The body of a GET that was read to its end, in the shape that s3fs reads it in."""

    async def read(self, size: int = -1) -> bytes:
        return super().read(size)


def pause_s(error: BaseException, attempt: int) -> float | None:
    """Seconds to wait after the n-th attempt (from 1) failed with `error`; None when waiting is no help."""
    answer = answer_of(error)
    if answer is not None:
        status = answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status not in _PASSING_STATUS and code_of(error) not in _PASSING_CODES:
            return None
    elif not isinstance(error, _ON_THE_WAY) or isinstance(error, (SSLError, PermissionError)):
        return None
    most_s = min(RETRY.first_wait_s * 2 ** (attempt - 1), RETRY.longest_wait_s)
    asked_s = min(_retry_after_s(answer), RETRY.longest_wait_s)
    return asked_s + random.uniform(0, most_s)


def etag_of_parts(tags: list[str]) -> str:
    """The ETag that S3 gives an object of parts: MD5 over their MD5 sums, and how many."""
    try:
        digests = b"".join(bytes.fromhex(tag) for tag in tags)
    except ValueError:  # encrypted by a key service, the tag is no sum of the bytes
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(tags)}"


def _retry_after_s(answer: ClientError | None) -> float:
    headers = answer.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}) if answer else {}
    asked = headers.get("retry-after", "")
    return float(asked) if asked.isdigit() else 0.0  # the other form, a date, is not used by S3 stores
