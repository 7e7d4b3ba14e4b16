"""Opens a source for libav: known containers only, no bytes but its own, one clock.

libav follows playlists, concat scripts and URLs found inside a file if it may, so both the demuxers
and the protocols are whitelisted. Time is PTS x time base, from the start of the presentation.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.stream import Discard
from botocore.exceptions import BotoCoreError, ClientError
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile
from pydantic import Field

from stages import tally
from stages.blocks import BLOCK_BYTES, Blocks, SharedCache
from stages.failure import Dropped, Failed, Unavailable
from stages.filesystem import code_of, open_filesystem, protocol_of
from stages.settings import Settings
from stages.watchdog import beat

# Demuxers that read one file and nothing else: no hls, dash, concat, image2 or device input.
DEMUXERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpegtsraw,mpeg,mpegvideo,flv,asf,ogg,mxf,h264,hevc,vvc,av1,obu,"
    "ivf,gif,dv,nut,wtv,rm,m4v,h263,h261,mjpeg,yuv4mpegpipe,gxf,nuv,dnxhd,bink,smk,swf,roq,apng,"
    "vc1,vc1test,dirac,cavsvideo,avs2,avs3,evc,apv,live_flv,asf_o,ivr,nsv,pva,ty,lxf,dhav,kux,smjpeg,"
    "4xm,bethsoftvid,bfi,dfa,ea,film_cpk,flic,idcin,ipmovie,mm,mvi,rl2,rpl,siff,smush,thp,vmd,wc3movie,"
    "wsvqa,xmv,yop,mp3,aac,ac3,eac3,flac,wav,opus,aiff,w64,caf,amr,tta,wv,ape,dts"
)
# What PyAV raises for bytes that are not what they claim: its own errors, UnicodeDecodeError for tags,
# EOFError at open. Trouble of the storage is none of these.
LIBAV_ERRORS = (av.error.FFmpegError, UnicodeDecodeError, EOFError)
# A decoder is given a little more than the header may say: coded pictures are padded to whole blocks.
PADDING_PIXELS = 1 << 20
READ_AHEAD_BYTES = 4 << 20
LOCAL = "file:"  # libav's protocol
GONE = "it is no longer there"
FORBIDDEN = "there is no permission to read it"
CHANGED = "it has changed since it was listed: the next run takes the new version"
# Refusals of a reader that say nothing of what is read.
_OUR_KEYS = (
    "ExpiredToken",
    "InvalidToken",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
)


_kept: ContextVar[Blocks | None] = ContextVar("kept blocks", default=None)


class LimitSettings(Settings):
    """Refuse a source beyond these before a frame of it is decoded."""

    max_pixels: int = 8192 * 8192
    max_streams: int = 64
    max_duration_s: float = 48 * 3600.0
    open_timeout_s: float = 30.0
    read_timeout_s: float = 60.0
    shard_timeout_s: float = 1800.0
    # Native code that hangs ends with its process when no packet or frame comes for so long.
    stall_timeout_s: float = Field(600.0, gt=0)
    # What probing or decoding one shard may take beyond what its process has. 8K needs about 1 GiB.
    max_memory_bytes: int = Field(4 << 30, ge=64 << 20)


@dataclass
class Source:
    """An open source: its first video stream, its first audio stream if any, and the clock."""

    container: av.container.InputContainer
    video: av.VideoStream
    audio: av.AudioStream | None
    origin: Fraction  # presentation start, seconds on the stream clock

    def seconds(self, item: av.Packet | av.VideoFrame | av.AudioFrame) -> float:
        """Presentation time of a packet or frame, in seconds from the start of the presentation."""
        base, origin = item.time_base, self.origin
        # The same as with fractions, rounded once, in a fifth of the time: it is asked for every packet.
        numerator = item.pts * base.numerator * origin.denominator - origin.numerator * base.denominator
        return numerator / (base.denominator * origin.denominator)

    def ticks(self, seconds: float, stream: av.VideoStream | av.AudioStream) -> int:
        """The PTS on `stream`'s clock at `seconds` from the start of the presentation."""
        return round((Fraction(seconds) + self.origin) / stream.time_base)

    def packets(self, *streams: av.VideoStream | av.AudioStream) -> Iterator[av.Packet]:
        """The packets of these streams from where the source stands to its end, and then empty ones."""
        size, local = 0, self.container.name.startswith(LOCAL)
        try:
            # A loop: a generator of PyAV that has ended lets StopIteration out of `yield from`.
            for packet in self.container.demux(*streams):
                beat()
                size += packet.size
                yield packet
        except IndexError:
            # A stream that began on the way is unknown to PyAV, which trips over it at the very end.
            return
        finally:
            if local:  # what a store gives is counted where it is asked
                tally.count("read_bytes", size)

    def only(self, wanted: av.VideoStream | av.AudioStream) -> None:
        """Leaves the bytes of all other streams unread where their container says what is whose."""
        for stream in self.container.streams:
            stream.discard = Discard.default if stream is wanted else Discard.all

    def seek(self, seconds: float) -> None:
        """To the last video keyframe at or before `seconds`; a source that cannot seek stays put."""
        try:
            self.container.seek(self.ticks(seconds, self.video), stream=self.video, backward=True)
        except LIBAV_ERRORS:
            # No index and no way to make one (a raw stream): the reader goes on from the start.
            self.container.seek(0)


@contextmanager
def open_source(uri: str, limits: LimitSettings = LimitSettings(), etag: str = "") -> Iterator[Source]:
    """The source at any fsspec URI, checked against the limits.

    etag   of the version that was listed; "" takes any. One version is read from open to close.
    Raises Failed when it cannot be read, is another version or exceeds a limit, Dropped without video,
    Unavailable when the storage is at fault.
    """
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    with ExitStack() as stack:
        try:
            target, timeout = _target(uri, limits, etag, stack)
            container = av.open(target, options=options, timeout=timeout, metadata_errors="replace")
        except FileNotFoundError as error:
            raise Failed(GONE) from error
        except PermissionError as error:
            raise Failed(FORBIDDEN) from error
        except av.error.ArgumentError as error:  # what libav says of a format outside the whitelist
            raise Failed(
                "its format is not among those that are read (it may be a picture or a playlist)"
            ) from error
        except LIBAV_ERRORS as error:
            raise Failed(f"cannot be opened as video: {plain(error)}") from error
        stack.enter_context(closing(container))
        try:
            yield _check(container, limits)
        finally:
            # To libav the end of what could be read is the end of the video. It is not.
            if isinstance(target, _Remote) and target.failure:
                raise target.failure


def _target(
    uri: str, limits: LimitSettings, etag: str, stack: ExitStack
) -> "tuple[str | _Remote, tuple[float, float] | None]":
    """What libav opens for a URI, and how long it may take to open and to read."""
    filesystem, path = open_filesystem(uri)
    if protocol_of(uri) == "file":
        if Path(path).stat().st_size == 0:
            raise Failed("the file is empty (0 bytes)")
        # "file:" so that a name such as "http:x.mp4" is a name and not a protocol.
        return f"{LOCAL}{Path(path).absolute()}", (limits.open_timeout_s, limits.read_timeout_s)
    return stack.enter_context(closing(_Remote(partial(_open, filesystem, path), etag))), None


@contextmanager
def keeping_blocks() -> Iterator[None]:
    """Within, blocks of what is opened from a store are kept for when it is opened again.

    For spans here and there in a source, each of which is opened for itself, and more than once: what is read
    ahead at each would be many times the source.
    """
    token = _kept.set(Blocks())
    try:
        yield
    finally:
        _kept.reset(token)


def _open(filesystem: AbstractFileSystem, path: str) -> BinaryIO:
    kept = _kept.get()
    try:
        if kept is None:
            return filesystem.open(path, "rb", block_size=READ_AHEAD_BYTES, cache_type="readahead")
        file = filesystem.open(path, "rb", block_size=BLOCK_BYTES, cache_type="none")
        if isinstance(file, AbstractBufferedFile) and file.size:
            version = path, str(file.details.get("ETag"))
            file.cache = SharedCache(file.cache.fetcher, file.size, version, kept)
        return file
    except PermissionError as error:
        if code_of(error) == "403":  # opening asks for the head only, whose refusal says no reason
            filesystem.cat_file(path, start=0, end=1)
        raise


class _Remote:
    """A file of a store, for libav to read: what the store refuses is Unavailable, no damage of the video.

    s3fs reads with If-Match, so that every byte is of the version that was there when it was opened.
    """

    def __init__(self, open_file: Callable[[], BinaryIO], etag: str = ""):
        self.failure: Failed | Unavailable | None = None
        self._file = self._ask(open_file)
        found = str(getattr(self._file, "details", {}).get("ETag") or "").strip('"')
        if etag and found and found != etag:
            self._file.close()
            raise Failed(CHANGED)

    def read(self, size: int) -> bytes:
        if self.failure:  # said once: PyAV keeps one error, and prints those that follow it
            return b""
        return self._ask(lambda: self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._ask(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def _ask(self, call: Callable[[], Any]) -> Any:
        try:
            answer = call()
        except (OSError, BotoCoreError, ClientError) as error:
            self.failure = _verdict(error)
            raise self.failure from error
        beat()
        return answer


def _verdict(error: Exception) -> Failed | Unavailable:
    code = code_of(error)
    if code in ("PreconditionFailed", "412"):
        return Failed(CHANGED)
    if isinstance(error, FileNotFoundError):
        return Failed(GONE)
    if isinstance(error, PermissionError) and code not in _OUR_KEYS:
        return Failed(FORBIDDEN)
    return Unavailable(f"the storage does not give it: {type(error).__name__}")


def _check(container: av.container.InputContainer, limits: LimitSettings) -> Source:
    if len(container.streams) > limits.max_streams:
        raise Failed(f"{len(container.streams)} streams; limits.max_streams is {limits.max_streams}")
    # A cover picture in a music file is a video stream of one still: not a video.
    videos = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not videos:
        raise Dropped("no video stream" + (" (audio only)" if container.streams.audio else ""))
    video = videos[0]
    if video.codec_context is None:
        raise Failed("no decoder for its video codec")
    if not video.width or not video.height:
        raise Failed("the video stream has no picture size")
    if video.width * video.height > limits.max_pixels:
        raise Failed(f"{video.width}x{video.height} pixels; limits.max_pixels is {limits.max_pixels}")
    if container.duration and container.duration / av.time_base > limits.max_duration_s:
        raise Failed(
            f"{container.duration / av.time_base:.0f} s long; limits.max_duration_s is "
            f"{limits.max_duration_s:.0f}"
        )
    # A stream may change its size on the way.
    video.codec_context.options = {"max_pixels": str(limits.max_pixels + PADDING_PIXELS)}
    audios = [s for s in container.streams.audio if s.codec_context is not None and s.rate]
    return Source(
        container=container,
        video=video,
        audio=audios[0] if audios else None,
        origin=Fraction(container.start_time or 0, av.time_base),
    )


def plain(error: BaseException) -> str:
    """One line without the path, which may be a key full of surprises."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]
