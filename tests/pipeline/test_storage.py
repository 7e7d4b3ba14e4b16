import multiprocessing
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import storage
from stages.s3 import Store


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3").uri + "/out"


def test_written_bytes_are_read_back_and_replaced(output):
    uri = storage.join(output, "a", "b.bin")
    for data in (b"first, and longer", b"second", b""):
        storage.write_bytes(uri, data)
        assert storage.read_bytes(uri) == data


def test_list_is_fresh_sorted_and_flat(output):
    folder = storage.join(output, "runs")
    assert storage.list_files(folder, ".json") == []
    for name in ("b.json", "a.json", "note.txt", "deeper/c.json", ".hidden.json"):
        storage.write_bytes(storage.join(folder, name), b"x")
        storage.list_files(folder)
    assert storage.list_files(folder, ".json") == ["a.json", "b.json"]
    storage.delete(storage.join(folder, "a.json"))
    assert storage.list_files(folder) == ["b.json", "note.txt"]


def test_list_of_a_folder_leaves_out_neighbours_with_the_same_beginning(output):
    storage.write_bytes(storage.join(output, "videos", "a.parquet"), b"x")
    storage.write_bytes(storage.join(output, "videos-old", "b.parquet"), b"x")
    assert storage.list_files(storage.join(output, "videos")) == ["a.parquet"]


def test_delete_is_no_error_when_nothing_is_there(output):
    uri = storage.join(output, "x")
    storage.write_bytes(uri, b"x")
    assert storage.exists(uri)
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    with pytest.raises(storage.Missing, match="does not exist"):
        storage.read_bytes(uri)


@pytest.mark.parametrize("size", [0, 1000, 40 << 20])  # the last one goes to S3 in parts
def test_put_file_copies_whole_files(output, tmp_path, size):
    source = tmp_path / "reel.mp4"
    source.write_bytes(bytes(range(256)) * (size // 256) + b"\0" * (size % 256))
    uri = storage.join(output, "media", "id", "reel.mp4")
    storage.put_file(source, uri)
    assert storage.read_bytes(uri) == source.read_bytes()
    assert source.exists()


def test_put_file_without_source_says_so(output, tmp_path):
    with pytest.raises(storage.StorageError, match=r"no file .*gone\.mp4"):
        storage.put_file(tmp_path / "gone.mp4", storage.join(output, "x"))


def test_create_exclusive_has_one_winner(output):
    uri = storage.join(output, "lease")
    results = {}

    def race(number: int) -> None:
        results[number] = storage.create_exclusive(uri, f"holder {number}".encode())

    racers = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    winners = [number for number, won in results.items() if won]
    assert len(winners) == 1
    assert storage.read_bytes(uri) == f"holder {winners[0]}".encode()


def test_create_exclusive_tried_again_by_its_winner_stays_won(output):
    uri = storage.join(output, "lease")
    assert storage.create_exclusive(uri, b"me")
    assert storage.create_exclusive(uri, b"me")
    assert not storage.create_exclusive(uri, b"you")


def test_check_writable_leaves_nothing_behind(output, tmp_path):
    storage.check_writable(output)
    assert storage.list_files(output) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "part", ["..", "a/../b", "/etc/passwd", "", "a//b", ".", "a\0b", "a\nb", "a\\b", "a/"]
)
def test_join_refuses_paths_that_lead_elsewhere(part):
    with pytest.raises(ValueError, match="not a safe path"):
        storage.join("/out", part)


def test_join_keeps_the_base_and_inner_slashes():
    assert storage.join("s3://b/p/", "media", "id/reel.mp4") == "s3://b/p/media/id/reel.mp4"


def test_absolute_makes_local_paths_independent_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("out/") == str(tmp_path / "out")
    assert storage.absolute("file://out/../x") == str(tmp_path / "x")
    assert storage.absolute("s3://bucket/prefix/") == "s3://bucket/prefix"


def test_a_colon_chain_in_a_name_opens_no_other_filesystem(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    uri = str(tmp_path / f"x::file:{tmp_path}/secret")
    with pytest.raises(storage.Missing):
        storage.read_bytes(uri)


def _write_for_ever(uri: str, started) -> None:
    number = 0
    while True:
        storage.write_bytes(uri, bytes([number % 251]) * 3_000_000)
        started.set()
        number += 1


def test_a_writer_killed_half_way_leaves_a_whole_file_and_litter_that_sweep_removes(tmp_path):
    uri = str(tmp_path / "x.bin")
    context = multiprocessing.get_context("fork")
    for _ in range(4):
        started = context.Event()
        writer = context.Process(target=_write_for_ever, args=(uri, started))
        writer.start()
        assert started.wait(20)
        writer.kill()
        writer.join()
        data = storage.read_bytes(uri)
        assert len(data) == 3_000_000
        assert len(set(data)) == 1
        assert storage.list_files(str(tmp_path)) == ["x.bin"]
    (tmp_path / f"{storage.TEMPORARY}0").write_bytes(b"half")
    litter = len(list(tmp_path.iterdir())) - 1
    assert storage.sweep_temporary(str(tmp_path)) == litter >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_errors_name_the_missing_bucket_and_the_way_out(s3):
    with pytest.raises(storage.StorageError, match="the bucket does not exist"):
        storage.check_writable("s3://no-such-bucket-here/out")
    with pytest.raises(storage.StorageError, match="the bucket does not exist"):
        storage.list_files("s3://no-such-bucket-here/out")


def test_missing_credentials_are_named(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    Store.clear_instance_cache()
    with pytest.raises(storage.StorageError, match="no credentials found: set AWS_PROFILE"):
        storage.check_writable(s3.uri)


def test_unknown_protocols_and_read_only_places_are_storage_errors(tmp_path):
    with pytest.raises(storage.StorageError, match="not supported here"):
        storage.check_writable("gopher://x/y")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(storage.StorageError, match="Not a directory"):
        storage.check_writable(str(tmp_path / "file" / "below"))
    with pytest.raises(storage.StorageError, match="is a file: give a folder"):
        storage.check_writable(str(tmp_path / "file"))


class _Refusal(BaseHTTPRequestHandler):
    """A store that answers every request with one error and quotes what it was sent."""

    code, status, seen = "AccessDenied", 403, 0
    protocol_version = "HTTP/1.1"  # botocore waits for 100-continue

    def _answer(self) -> None:
        type(self).seen += 1
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        quoted = self.headers.get("Authorization", "")
        body = f"<Error><Code>{self.code}</Code><Message>{quoted} testsecret12345</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def refusing(s3, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    Store.clear_instance_cache()
    _Refusal.seen = 0
    yield _Refusal
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("AccessDenied", 403, "no permission"),
        ("InvalidAccessKeyId", 403, "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", 400, "expired"),
        ("SomethingNew", 418, "answered SomethingNew"),
    ],
)
def test_refusals_are_told_in_words_without_secrets(refusing, monkeypatch, code, status, words):
    monkeypatch.setattr(refusing, "code", code)
    monkeypatch.setattr(refusing, "status", status)
    with pytest.raises(storage.StorageError, match=words) as refusal:
        storage.write_bytes("s3://bucket/key", b"x")
    assert "testsecret" not in str(refusal.value)
    assert "Credential" not in str(refusal.value)
    assert refusing.seen == 1  # waiting does not help against a refusal


def test_a_busy_store_is_asked_again(refusing, monkeypatch):
    monkeypatch.setattr(refusing, "code", "SlowDown")
    monkeypatch.setattr(refusing, "status", 503)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # the operator decides; also, the test should end
    Store.clear_instance_cache()
    with pytest.raises(storage.StorageError, match="fewer at once"):
        storage.write_bytes("s3://bucket/key", b"x")
    assert refusing.seen == 2


def test_shown_hides_user_and_password():
    assert storage.shown("ftp://user:pass@host/x\ny") == "ftp://host/x\\ny"
    assert storage.shown("ftp://u:p@ss@host/x") == "ftp://host/x"
    assert storage.shown("s3://bucket/key@2x.mp4") == "s3://bucket/key@2x.mp4"
    assert storage.shown("s3://bucket/why?.mp4") == "s3://bucket/why?.mp4"
    assert storage.shown("/library/a@b?c.mp4") == "/library/a@b?c.mp4"


@pytest.mark.parametrize("query", ["?X-Amz-Signature=secret", "?a=b/c&sig=secret\n", "#token=secret"])
def test_shown_hides_what_a_link_is_signed_with(query):
    assert storage.shown(f"https://user:pass@host/a.mp4{query}") == "https://host/a.mp4?…"


def test_open_input_reads_only_what_is_asked_for(output):
    uri = storage.join(output, "big.bin")
    storage.write_bytes(uri, b"\0" * 30_000_000 + b"end")
    tracemalloc.start()
    with storage.open_input(uri) as file:
        file.seek(-3, 2)
        assert file.read() == b"end"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_walk_finds_every_file_and_its_size(output):
    assert list(storage.walk(output)) == []
    names = ["a", "deep/er/b c", ".hidden", f"x/{storage.TEMPORARY}1"]
    for name in names:
        storage.write_bytes(f"{output}/{name}", name.encode())
    storage.write_bytes(f"{output}-other/z", b"z")
    assert sorted(storage.walk(output)) == sorted((name, len(name)) for name in names)


def test_empty_folders_go_and_those_with_files_stay(tmp_path):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    storage.write_bytes(f"{tmp_path}/full/a", b"a")
    storage.remove_empty_folders(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_fetch_copies_a_file_and_says_when_there_is_none(output, tmp_path):
    storage.write_bytes(f"{output}/a", b"data")
    storage.fetch(f"{output}/a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"data"
    with pytest.raises(storage.Missing):
        storage.fetch(f"{output}/b", tmp_path / "copy")
