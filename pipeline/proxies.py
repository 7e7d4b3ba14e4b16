"""The stored proxies of an OUTPUT: sampled frames of its videos as codes, read back without the sources."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from pipeline import storage, tables
from stages.compress import Decompress
from stages.nn.codec import sections
from stages.nn.weights import Bundle, BundleError

FRAMES_AT_ONCE = 64


class ProxyError(ValueError):
    """There is nothing to decode, or not with this bundle; the message says what to do."""


@dataclass(frozen=True)
class Proxies:
    """The codes of one video, in the order of time."""

    video: dict[str, Any]  # its row in `videos`
    times_s: np.ndarray  # float64 [N]
    codes: list[bytes]
    kind: str
    codec_sha256: str
    colour: str  # of the decoded pictures: rgb or hsv

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.codes))


def read_proxies(output: str, video: dict[str, Any], newest: pa.Table | None = None) -> Proxies:
    """Raises ProxyError for a video without proxies."""
    rows = tables.read(output, "proxies", None, {video["video_id"]}, newest)
    if not len(rows):
        raise ProxyError(
            f"no proxies of {storage.shown(video['uri'])} are stored: it was processed with codec.kind=none, "
            "or re-scored from proxies that are elsewhere"
        )
    return Proxies(
        video=video,
        times_s=rows["time_s"].to_numpy(),
        codes=rows["code"].to_pylist(),
        kind=rows["kind"][0].as_py(),
        codec_sha256=rows["codec_sha256"][0].as_py(),
        colour=colour_of(output, video["run_id"]),
    )


def check_codec(proxies: Proxies, bundle: Bundle) -> None:
    """Raises ProxyError unless the bundle's codec made the codes."""
    sha256 = bundle.card("codec")["sha256"]
    if proxies.codec_sha256 != sha256:
        raise ProxyError(
            f"the proxies were made by another codec ({proxies.kind}, weights {proxies.codec_sha256[:12]}) "
            f"than that of {bundle.uri} ({sha256[:12]}): give the bundle that made them with --bundle"
        )


def frames_of(proxies: Proxies, decompress: Decompress) -> Iterator[np.ndarray]:
    """Batches uint8 [N, S, S, 3] of the decoded frames. Raises CodecError for damaged codes."""
    for codes in sections(proxies.codes, FRAMES_AT_ONCE):
        yield decompress(codes)


def rgb(frames: np.ndarray, colour: str) -> np.ndarray:
    if colour == "rgb":
        return frames
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_HSV2RGB) for frame in frames])


def colour_of(output: str, run_id: str) -> str:
    """What decode.colour was in the run that made the proxies, by its record; rgb where that is lost."""
    uri = storage.join(output, "runs", f"{run_id}.json")
    if not storage.exists(uri):
        return "rgb"
    try:
        return json.loads(storage.read_bytes(uri))["settings"]["decode"]["colour"]
    except (ValueError, KeyError, TypeError):
        return "rgb"


def open_decoder(bundle: Bundle) -> Decompress:
    """Raises BundleError without a codec."""
    if "codec" not in bundle.models:
        raise BundleError(f"{bundle.uri} has no codec: give the bundle that made the proxies with --bundle")
    return Decompress(bundle)
