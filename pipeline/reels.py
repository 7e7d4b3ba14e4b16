"""Reels as they lie in storage beside what their rows say: bytes, checksum, decoding, length.

A file that brings the decoder down, or holds it for ever, takes a worker with it and nothing else.
"""

import hashlib
import itertools
import multiprocessing
import signal
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import av

from cluster.machine import cores
from pipeline import storage
from stages.container import LIBAV_ERRORS, Source, open_source, plain
from stages.failure import Dropped, Failed
from stages.filesystem import protocol_of

WORKERS = max(1, min(4, cores() - 1))
_AT_ONCE = 8  # reels handed to each worker before the first answer is waited for
# A reel is far faster decoded than shown, even on a busy core: one that takes longer than this hangs.
_LIMIT_S, _LIMIT_PER_SECOND = 120, 30


@dataclass(frozen=True)
class Reel:
    """What a row of `reels` says of its file."""

    video_id: str
    uri: str  # whole, unlike in the table
    duration_s: float
    fps: float
    size_bytes: int
    sha256: str | None


def examine_all(
    reels: Iterable[Reel], decode: bool, workers: int = WORKERS
) -> Iterator[tuple[Reel, list[str]]]:
    """Each reel with what is wrong with it in words; [] for a sound one. Raises StorageError."""
    waiting = iter(reels)
    pool: ProcessPoolExecutor | None = None
    try:
        while chunk := list(itertools.islice(waiting, workers * _AT_ONCE)):
            pool = pool or _pool(workers)
            futures = [_submit(pool, reel, decode) for reel in chunk]
            whole = True
            for reel, future in zip(chunk, futures, strict=True):
                found = _result(future)
                if found is None:
                    whole, found = False, _alone(reel, decode)
                yield reel, found
            if not whole:
                pool.shutdown()
                pool = None
    finally:
        if pool:
            pool.shutdown(wait=False, cancel_futures=True)


def examine(reel: Reel, decode: bool) -> list[str]:
    """What is wrong with one reel; of a store it is copied first, as it is read twice."""
    with tempfile.TemporaryDirectory(prefix="reelmap-") as folder:
        path = Path(reel.uri)
        try:
            if protocol_of(reel.uri) != "file":
                path = Path(folder) / "reel.mp4"
                storage.fetch(reel.uri, path)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except (storage.Missing, FileNotFoundError):
            return ["is missing"]
        except OSError as error:
            raise storage.StorageError(f"cannot read {reel.uri}: {storage.reason(error)}") from error
        wrong = []
        if (size := path.stat().st_size) != reel.size_bytes:
            wrong.append(f"has {size} bytes instead of {reel.size_bytes}")
        elif reel.sha256 and sha256 != reel.sha256:
            wrong.append("has another checksum than its row")
        return wrong + _look(path, reel, decode)


def _look(path: Path, reel: Reel, decode: bool) -> list[str]:
    signal.alarm(int(_LIMIT_S + _LIMIT_PER_SECOND * reel.duration_s))
    end_s, pictures = 0.0, 0
    try:
        with open_source(str(path)) as source:
            for picture_end_s in _ends(source, decode, 1 / reel.fps):
                end_s, pictures = max(end_s, picture_end_s), pictures + 1
    except (Failed, Dropped) as error:
        return [str(error)]
    except LIBAV_ERRORS as error:
        return [f"does not decode from {end_s:.2f} s on: {plain(error)}"]
    finally:
        signal.alarm(0)
    if abs(end_s - reel.duration_s) > 1 / reel.fps:
        return [f"is {end_s:.2f} s long instead of {reel.duration_s:.2f}"]
    # The rate of a reel is constant; a decoder leaves out what it can make nothing of.
    if abs(pictures - reel.duration_s * reel.fps) > 1:
        return [f"shows {pictures} pictures instead of {reel.duration_s * reel.fps:.0f}"]
    return []


def _ends(source: Source, decode: bool, frame_s: float) -> Iterator[float]:
    """The end of each picture, in the order they are read; damage in pictures or sound is an error."""
    tracks = [source.video, *([source.audio] if source.audio else [])]
    for track in tracks:
        # Otherwise libav mends what is damaged as well as it can, and says nothing.
        track.codec_context.options = {"err_detect": "explode"}
    for packet in source.container.demux(tracks):
        if not decode and packet.pts is None:
            continue
        for item in packet.decode() if decode else [packet]:
            if isinstance(item, av.VideoFrame) or (item is packet and packet.stream is source.video):
                length_s = float(item.duration * item.time_base) if item.duration else frame_s
                yield source.seconds(item) + length_s


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not by fork: the clients of a store have threads.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start)


def _start() -> None:
    # Ctrl-C is for the process that started this one; a hang ends by the default of the alarm.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _submit(pool: ProcessPoolExecutor, reel: Reel, decode: bool) -> Future[list[str]] | None:
    try:
        return pool.submit(examine, reel, decode)
    except BrokenProcessPool:
        return None


def _result(future: Future[list[str]] | None) -> list[str] | None:
    try:
        return future.result() if future else None
    except BrokenProcessPool:
        return None


def _alone(reel: Reel, decode: bool) -> list[str]:
    """Of reels that were in the pool when it broke, the guilty one is that which breaks it again."""
    with _pool(1) as pool:
        found = _result(_submit(pool, reel, decode))
    return ["crashes the decoder, or holds it for ever"] if found is None else found
