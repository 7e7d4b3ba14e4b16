import os
import time
from pathlib import Path

import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, SSLError

from pipeline import storage
from pipeline.library import list_library
from stages import tally
from stages.audio import read_samples
from stages.container import keeping_blocks, open_source
from stages.failure import Failed, Unavailable
from stages.filesystem import open_filesystem
from stages.s3 import RETRY, RetrySettings, etag_of_parts, pause_s
from tests import faulty_s3
from tests.conftest import Bucket
from tests.faulty_s3 import (
    CUT_GET,
    CUT_PUT,
    ERROR_200,
    FAULTS,
    INTERNAL,
    LOST_ANSWER,
    OPERATIONS,
    RESET,
    SILENT,
    SLOW_DOWN,
    STALL_GET,
    FaultyS3,
    Rule,
)
from tests.media import make_video

PARTS = 33 << 20  # goes up in three parts


def answer(code: str, status: int, **headers: str) -> ClientError:
    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": meta}, "PutObject")


def uploads(s3: Bucket) -> list[str]:
    return [upload["Key"] for upload in s3.client().list_multipart_uploads(Bucket=s3.name).get("Uploads", [])]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_operation_outlives_a_burst_of(fault: str, s3: Bucket, faulty: FaultyS3) -> None:
    data = os.urandom(300_000)
    uri = f"{s3.uri}/in/a.mp4"
    seconds = 0.7 if fault in (SILENT, STALL_GET) else 0.1
    times = 1 if fault in (SILENT, STALL_GET) else 2
    rules = [Rule(fault, operation, times=times, seconds=seconds) for operation in OPERATIONS]
    faulty.inject(*rules)
    assert storage.create_exclusive(uri, data)
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == data
    assert storage.list_files(f"{s3.uri}/in") == ["a.mp4"]
    faulty.inject(*rules)
    filesystem, path = open_filesystem(uri)
    with filesystem.open(path, "rb", cache_type="none") as file:
        file.seek(1000)
        assert file.read(200_000) == data[1000:201_000]
    assert list_library(f"{s3.uri}/in")["size_bytes"].to_pylist() == [len(data)]
    storage.write_bytes(uri, data[::-1])
    assert storage.read_bytes(uri) == data[::-1]
    storage.delete(uri)
    broken = {operation for _, operation in faulty.breakdown}
    assert not storage.exists(uri)
    possible = {
        operation for operation in ("list", "head", "get", "put", "delete") if Rule(fault).fits(operation, "")
    }
    assert broken == possible


@pytest.mark.parametrize("fault", [SLOW_DOWN, RESET, CUT_PUT, LOST_ANSWER, ERROR_200])
def test_an_upload_in_parts_is_whole_after(fault: str, s3: Bucket, faulty: FaultyS3, tmp_path: Path) -> None:
    reel = tmp_path / "reel.mp4"
    reel.write_bytes(os.urandom(PARTS))
    operations = ("start", "part", "complete")
    faulty.inject(*(Rule(fault, operation, times=2, seconds=0.1) for operation in operations))
    storage.put_file(reel, f"{s3.uri}/reel.mp4")
    assert faulty.injected[fault] >= 2
    faulty.inject()
    assert storage.read_bytes(f"{s3.uri}/reel.mp4") == reel.read_bytes()
    assert uploads(s3) == []


@pytest.mark.parametrize("operation", ["part", "complete"])
def test_an_upload_that_fails_for_good_leaves_nothing(
    operation: str, s3: Bucket, faulty: FaultyS3, tmp_path: Path
) -> None:
    reel = tmp_path / "reel.mp4"
    reel.write_bytes(os.urandom(PARTS))
    faulty.inject(Rule(ERROR_200 if operation == "complete" else INTERNAL, operation))
    with pytest.raises(storage.StorageError, match="InternalError"):
        storage.put_file(reel, f"{s3.uri}/reel.mp4")
    assert uploads(s3) == []
    assert not storage.exists(f"{s3.uri}/reel.mp4")


def test_uploads_of_killed_writers_are_swept_and_those_of_neighbours_stay(s3: Bucket) -> None:
    client = s3.client()
    for key in ("out/media/a.mp4", "out/media/b.mp4", "other/c.mp4"):
        client.create_multipart_upload(Bucket=s3.name, Key=key)
    assert storage.sweep_temporary(f"{s3.uri}/out") == 2
    assert uploads(s3) == ["other/c.mp4"]
    assert storage.sweep_temporary(f"{s3.uri}/out") == 0


def test_a_store_that_stays_broken_is_given_up_in_time_and_words(
    s3: Bucket, faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{s3.uri}/a", b"x")
    monkeypatch.setattr("stages.s3.RETRY", RetrySettings(first_wait_s=0.02, attempts=3))
    for fault, words in (
        (SLOW_DOWN, "refuses so many requests, even after waiting"),
        (RESET, "cannot be reached"),
        (CUT_GET, "reset by peer"),
    ):
        faulty.inject(Rule(fault))
        with pytest.raises(storage.StorageError, match=words):
            storage.read_bytes(f"{s3.uri}/a")
    monkeypatch.setattr("stages.s3.RETRY", RetrySettings(first_wait_s=0.3, attempts=1000, seconds=1.0))
    faulty.inject(Rule(INTERNAL))
    begun = time.monotonic()
    with pytest.raises(storage.StorageError, match="InternalError"):
        storage.write_bytes(f"{s3.uri}/a", b"x")
    assert time.monotonic() - begun < 3


def test_what_will_not_change_is_not_asked_twice(s3: Bucket, faulty: FaultyS3) -> None:
    with pytest.raises(storage.Missing):
        storage.read_bytes(f"{s3.uri}/gone")
    assert max(faulty.requests.values()) <= 2  # s3fs looks whether it is a folder
    for error in (
        answer("AccessDenied", 403),
        answer("PreconditionFailed", 412),
        answer("NotImplemented", 501),
        NoCredentialsError(),
        SSLError(endpoint_url="https://x", error="untrusted"),
    ):
        assert pause_s(error, 1) is None


def test_waits_grow_with_jitter_are_bounded_and_heed_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.s3.RETRY", RETRY)
    unreachable = EndpointConnectionError(endpoint_url="http://x")
    for attempt in range(1, 12):
        waits = [pause_s(unreachable, attempt) for _ in range(300)]
        bound = min(RETRY.first_wait_s * 2 ** (attempt - 1), RETRY.longest_wait_s)
        assert 0 <= min(waits) < bound / 4
        assert bound * 3 / 4 < max(waits) <= bound
    assert 2 <= pause_s(answer("SlowDown", 503, **{"retry-after": "2"}), 1) <= 2 + RETRY.first_wait_s
    assert pause_s(answer("SlowDown", 503, **{"retry-after": "86400"}), 1) < 21
    assert pause_s(answer("SlowDown", 503, **{"retry-after": "-1"}), 1) <= RETRY.first_wait_s


def test_etag_of_parts_is_the_one_of_s3() -> None:
    # Two parts of nothing, by hand: md5(md5(b"") + md5(b"")) and the count.
    empty = "d41d8cd98f00b204e9800998ecf8427e"
    assert etag_of_parts([empty, empty]) == "5873dd45edd01f09c1ef2e7819369e8e-2"
    assert etag_of_parts(["no sum of bytes"]) == ""


def test_a_video_that_changed_after_listing_is_refused_and_listed_again(s3: Bucket, tmp_path: Path) -> None:
    client = s3.client()
    first, second = (make_video(tmp_path / f"{n}.mp4", seconds=1 + n, shots=1).path for n in (1, 2))
    client.upload_file(str(first), s3.name, "lib/a.mp4")
    [old] = list_library(f"{s3.uri}/lib").to_pylist()
    with open_source(old["uri"], etag=old["etag"]) as source:
        assert source.container.duration == 2_000_000
    client.upload_file(str(second), s3.name, "lib/a.mp4")
    with (
        pytest.raises(Failed, match="changed since it was listed"),
        open_source(old["uri"], etag=old["etag"]),
    ):
        pass
    [new] = list_library(f"{s3.uri}/lib").to_pylist()
    assert new["video_id"] != old["video_id"]
    with open_source(new["uri"], etag=new["etag"]) as source:
        assert source.container.duration == 3_000_000


@pytest.mark.parametrize(("event", "words"), [("changes", "changed since"), ("vanishes", "no longer there")])
def test_two_versions_are_never_mixed_when_a_video_is_read_while_it(
    event: str, words: str, s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3.client()
    video = make_video(tmp_path / "a.mkv", seconds=12, shots=3).path
    monkeypatch.setattr("stages.container.READ_AHEAD_BYTES", 1 << 14)
    client.upload_file(str(video), s3.name, "a.mkv")
    opened = open_source(f"{s3.uri}/a.mkv")
    packets = opened.__enter__().container.demux()
    next(packets)
    if event == "changes":
        client.put_object(Bucket=s3.name, Key="a.mkv", Body=b"x" * video.stat().st_size)
    else:
        client.delete_object(Bucket=s3.name, Key="a.mkv")
    with pytest.raises(Failed, match=words):
        list(packets)
    # A reader that takes any error for the end of the video hears of it when it closes.
    with pytest.raises(Failed, match=words):
        opened.__exit__(None, None, None)


def test_trouble_of_the_store_is_no_failure_of_the_video(
    s3: Bucket, faulty: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = make_video(tmp_path / "a.mp4", seconds=1, shots=1).path
    s3.client().upload_file(str(video), s3.name, "a.mp4")
    monkeypatch.setattr("stages.s3.RETRY", RetrySettings(first_wait_s=0.02, attempts=2))
    for fault in (SLOW_DOWN, INTERNAL, RESET, CUT_GET):
        faulty.inject(Rule(fault, "get"))
        with pytest.raises(Unavailable), open_source(f"{s3.uri}/a.mp4"):
            pass


@pytest.mark.parametrize(
    ("code", "verdict"), [("AccessDenied", Failed), ("RequestTimeTooSkewed", Unavailable), ("403", Failed)]
)
def test_refusal_of_a_reader_says_nothing_of_the_video(
    code: str, verdict: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(code: str) -> PermissionError:
        error = PermissionError("refused")
        error.__cause__ = ClientError({"Error": {"Code": code}}, "GetObject")
        return error

    class Refusing:
        def open(self, *_: object, **__: object) -> None:
            raise refused("403")  # of a HEAD, which has no body to say why

        def cat_file(self, *_: object, **__: object) -> None:
            raise refused(code)

    monkeypatch.setattr("stages.container.open_filesystem", lambda uri: (Refusing(), "b/k"))
    with pytest.raises(verdict), open_source("s3://b/k"):
        pass


def test_the_proxy_names_requests_and_its_seed_repeats(s3: Bucket) -> None:
    assert faulty_s3.operation("GET", "/b?list-type=2&prefix=a%2F") == ("list", "a/")
    assert faulty_s3.operation("PUT", "/b/k%20x?partNumber=1&uploadId=u") == ("part", "k x")
    assert faulty_s3.operation("POST", "/b/k?uploads") == ("start", "k")
    assert faulty_s3.operation("POST", "/b/k?uploadId=u") == ("complete", "k")
    drawn = []
    for _ in range(2):
        proxy = FaultyS3(s3.env["AWS_ENDPOINT_URL"], Rule(RESET, "get", share=0.3), seed=7)
        drawn.append([proxy.fault("get", "k") is not None for _ in range(100)])
    assert drawn[0] == drawn[1]
    assert 15 < sum(drawn[0]) < 45


def test_what_is_opened_again_is_read_once_and_a_new_version_anew(s3: Bucket, tmp_path: Path) -> None:
    """Within `keeping_blocks` only: spans of a source are opened one by one."""
    facts = make_video(tmp_path / "a.mp4", seconds=8, size=(640, 360), options={"crf": "4"})
    uri = f"{s3.uri}/a.mp4"

    def read() -> tuple[int, int]:
        before = tally.counts()["read_bytes"]
        with open_source(uri) as source:
            size = sum(packet.size for packet in source.packets(source.video))
        return tally.counts()["read_bytes"] - before, size

    storage.put_file(facts.path, uri)
    whole = facts.path.stat().st_size
    with keeping_blocks():
        first, size = read()
        assert (0, size) == read()
        assert first <= whole
        make_video(facts.path, seconds=8, size=(640, 360), options={"crf": "8"})
        storage.put_file(facts.path, uri)
        again, other = read()
        assert again > 0
        assert other != size
    assert read()[0] > 0


def test_sound_alone_is_read_without_the_bytes_of_the_picture(s3: Bucket, tmp_path: Path) -> None:
    facts = make_video(tmp_path / "a.mov", seconds=0.4, size=(1920, 1080), codec="rawvideo")
    uri = f"{s3.uri}/sound.mov"
    storage.put_file(facts.path, uri)
    read = {}
    for alone in (False, True):
        with keeping_blocks(), open_source(uri) as source:
            if alone:
                source.only(source.audio)
            before = tally.counts()["read_bytes"]
            samples = read_samples(source, 0.0, 19200)
            read[alone] = tally.counts()["read_bytes"] - before
            assert np.abs(samples).max() > 0.1
    assert read[True] < 0.5 * read[False]
