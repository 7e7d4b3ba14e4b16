"""Hostile files: nothing but their own bytes is ever read, and what they claim costs next to nothing."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from stages.container import LIBAV_ERRORS, LimitSettings, Source, open_source
from stages.decode import DecodeSettings, decode
from stages.failure import Dropped, Failed
from stages.probe import probe
from stages.watchdog import bounded
from tests.media import make_video
from tests.mkv import element, float_element, integer, matroska, track

SECRET = "a-line-of-a-secret-file"
MEMORY_BYTES = 512 << 20


class Canary:
    """Counts who connects to it."""

    def __init__(self) -> None:
        self.visits = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                visitor, _ = self.server.accept()
                self.visits += 1
                visitor.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    bird = Canary()
    yield bird
    bird.server.close()


def hls(target: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n".encode()


def hls_key(target: str) -> bytes:
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXT-X-MAP:URI="{target}"\n'
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n{key}#EXTINF:5,\nx.ts\n#EXT-X-ENDLIST\n".encode()


def concat(target: str) -> bytes:
    return f"ffconcat version 1.0\nfile '{target}'\n".encode()


def dash(target: str) -> bytes:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="0" '
        f'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ).encode()


def sdp(target: str) -> bytes:
    host, _, port = target.split("://")[-1].split("/")[0].partition(":")
    return (
        f"v=0\r\no=- 0 0 IN IP4 {host}\r\ns=x\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"a=control:rtsp://{host}:{port}/x\r\nm=video {port or 5004} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    ).encode()


def smooth(target: str) -> bytes:
    stream = f'<StreamIndex Url="{target}"/>'
    return f'<SmoothStreamingMedia MajorVersion="2">{stream}</SmoothStreamingMedia>'.encode()


def asx(target: str) -> bytes:
    return f'<ASX version="3.0"><Entry><Ref href="{target}"/></Entry></ASX>'.encode()


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def reference_movie(target: str) -> bytes:
    """QuickTime's movie of references to other movies."""
    data = struct.pack(">I4sI", 0, b"url ", len(target) + 1) + target.encode() + b"\0"
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", box(b"rmra", box(b"rmda", box(b"rdrf", data))))


SCRIPTS = (hls, hls_key, concat, dash, sdp, smooth, asx, reference_movie)


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_under_the_name_of_a_video_fetch_nothing(
    script: object, suffix: str, canary: Canary, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    http = f"http://127.0.0.1:{canary.port}/x{suffix}"
    for target in (http, f"file://{secret}", str(secret), secret.name):
        path = tmp_path / f"video{suffix}"
        path.write_bytes(script(target))
        with pytest.raises((Failed, Dropped)) as raised:
            list(probe({"uri": str(path)}, LimitSettings(), 60.0))
        assert SECRET not in str(raised.value)
    assert canary.visits == 0


def test_canary_hears_who_is_less_careful(canary: Canary, tmp_path: Path) -> None:
    path = tmp_path / "video.m3u8"
    path.write_bytes(hls(f"http://127.0.0.1:{canary.port}/x.ts"))
    with pytest.raises(LIBAV_ERRORS):
        av.open(str(path), options={"protocol_whitelist": "file,http,tcp,crypto"}).close()
    assert canary.visits


def test_movie_with_its_media_elsewhere_does_not_lead_there(canary: Canary, tmp_path: Path) -> None:
    """The data reference of a sound MP4 turned into a URL, as QuickTime may have it."""
    whole = make_video(tmp_path / "whole.mov", seconds=1, audio=None).path.read_bytes()
    here = box(b"url ", b"\0\0\0\1")
    assert here in whole
    target = f"http://127.0.0.1:{canary.port}/x.mov".encode() + b"\0"
    there = box(b"url ", b"\0\0\0\0", target)
    data = bytearray(whole.replace(here, there))
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):  # all that hold it have grown
        at = data.rindex(kind, 0, data.index(there)) - 4
        data[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", data, at)[0] + len(there) - len(here))
    path = tmp_path / "elsewhere.mov"
    path.write_bytes(data)
    with suppress(Failed, Dropped):
        list(probe({"uri": str(path)}, LimitSettings(), 60.0))
    assert canary.visits == 0


@pytest.mark.parametrize("name", ["concat:{other}|x.mp4", "http:x.mp4", "subfile,,start,0,end,9,,:x.mp4"])
def test_name_that_looks_like_a_protocol_is_a_name(name: str, tmp_path: Path) -> None:
    other = make_video(tmp_path / "other.mp4", seconds=1).path
    path = tmp_path / name.format(other=other.name)
    path.write_bytes(b"no video")
    with pytest.raises(Failed, match="opened"):
        list(probe({"uri": str(path)}, LimitSettings(), 60.0))


def y4m(size: str) -> bytes:
    return f"YUV4MPEG2 {size} F25:1 Ip A1:1 C420jpeg\nFRAME\n".encode() + bytes(1000)


def ivf(width: int, height: int) -> bytes:
    header = b"DKIF" + struct.pack("<HH4sHHIIIi", 0, 32, b"VP90", width, height, 25, 1, 1, 0)
    return header + struct.pack("<IQ", 8, 0) + b"\x82\x49\x83\x42\0\xff\xff\xff"


CLAIMS = {
    "wide.y4m": y4m("W100000 H100000"),
    "wider.y4m": y4m("W2000000000 H2000000000"),
    "tall.ivf": ivf(65535, 65535),
    "large.mkv": matroska([track(1, 60_000, 60_000)]),
    "streams.mkv": matroska([track(number, 64, 64) for number in range(1, 10_001)]),
    "hundreds.mkv": matroska([track(number, 64, 64) for number in range(1, 501)]),
    "years.mkv": matroska([track(1, 64, 64)], duration_s=10 * 365 * 86400),
    "for_ever.mkv": matroska([track(1, 64, 64)], duration_s=float("inf")),
    "never.mkv": matroska([track(1, 64, 64)], duration_s=float("nan")),
    "attachment.mkv": matroska([track(1, 64, 64)], attachments=[(b"x", 1 << 40)]),
    "attachments.mkv": matroska([track(1, 64, 64)], attachments=[(bytes(1 << 20), 1 << 20)] * 100),
    "nested.mkv": element(0x1A45DFA3, b"") + element(0x18538067, element(0x1549A966, b"\xff") * 10_000),
    "boxes.mp4": box(b"ftyp", b"isom", bytes(4)) + b"".join([box(b"moov")] * 100_000),
    "deep.mp4": box(b"ftyp", b"isom", bytes(4)) + struct.pack(">I4s", 0x7FFFFFFF, b"moov") * 10_000,
    "samples.mp4": box(
        b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", box(b"stsz", bytes(8) + b"\x7f" * 4)))))
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_beyond_all_measure_are_refused_in_no_time_and_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(CLAIMS[name])
    began = time.monotonic()
    with bounded(more_memory_bytes=MEMORY_BYTES), pytest.raises((Failed, Dropped)):
        list(probe({"uri": str(path)}, LimitSettings(), 60.0))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["hundreds.mkv", "years.mkv", "streams.mkv"])
def test_limit_that_was_met_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(CLAIMS[name])
    with pytest.raises(Failed, match=r"limits\.max_"):
        list(probe({"uri": str(path)}, LimitSettings(), 60.0))


def test_sound_video_whose_header_says_ten_years_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "years.mkv", seconds=2).path
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88")  # Duration, eight bytes
    path.write_bytes(data[: at + 3] + struct.pack(">d", 3.2e11) + data[at + 11 :])
    with pytest.raises(Failed, match=r"limits\.max_duration_s"):
        list(probe({"uri": str(path)}, LimitSettings(), 60.0))


def test_stream_that_grows_on_the_way_is_not_decoded_beyond_the_limit(tmp_path: Path) -> None:
    small = make_video(tmp_path / "small.ts", seconds=2, size=(160, 90), audio=None).path
    large = make_video(tmp_path / "large.ts", seconds=1, size=(1600, 900), audio=None, start_s=2.0).path
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    row = {"video_id": "v", "uri": str(path), "failure": None}
    frames = {}
    for pixels in (160 * 90, 1600 * 900):
        limits = LimitSettings(max_pixels=pixels)
        shards = list(probe(row, limits, 60.0))
        frames[pixels] = sum(
            decode(shard, DecodeSettings(size=32), limits)["frames_decoded"] for shard in shards
        )
    assert frames[160 * 90] < 55 < frames[1600 * 900]


def test_index_that_points_beyond_the_end_ends_in_words(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", seconds=2, audio=None).path.read_bytes()
    at = whole.index(b"stco")
    path = tmp_path / "broken.mp4"
    path.write_bytes(whole[: at + 12] + b"\x7f" * 4 + whole[at + 16 :])
    with pytest.raises(Failed, match="decoded"):
        list(probe({"uri": str(path)}, LimitSettings(), 60.0))


def test_matroska_that_is_built_here_is_one(tmp_path: Path) -> None:
    """Or the claims above would be refused for being no Matroska at all."""
    path = tmp_path / "plain.mkv"
    path.write_bytes(matroska([track(1, 64, 48)], duration_s=5.0))
    with open_source(str(path)) as source:
        assert (source.video.width, source.video.height) == (64, 48)
        assert source.container.duration == 5 * av.time_base
    assert integer(0xD7, 300) == b"\xd7\x82\x01\x2c"
    assert float_element(0x4489, 1.0)[:3] == b"\x44\x89\x88"


@pytest.mark.parametrize("error", [IndexError("list index out of range"), None])
def test_end_of_a_source_is_its_end_however_pyav_puts_it(error: Exception | None) -> None:
    """Found by fuzzing: a stream that begins on the way is an IndexError of PyAV at the end."""

    packet = SimpleNamespace(size=3)

    def demux(*_: object) -> Iterator[SimpleNamespace]:
        yield packet
        if error:
            raise error

    source = Source(SimpleNamespace(demux=demux, name="a.ts"), None, None, Fraction(0))
    assert list(source.packets()) == [packet]
