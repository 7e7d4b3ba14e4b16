import os
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from pipeline.library import LibraryError, LibrarySettings, list_library
from stages.filesystem import open_filesystem
from tests.faulty_s3 import CUT_GET, RESET, SLOW_DOWN, Rule

ODD_NAMES = (
    "übung/sommer 🏄.mp4",
    "with space.mp4",
    "hash#1.mp4",
    "question?x=1&y.mp4",
    "per%20cent%.mp4",
    "new\nline.mp4",
    "<script>alert(1)</script>.mp4",
    "semi;colon'quote\".mp4",
    "chain::file.mp4",
    "[brackets]*.mp4",
    "UPPER.MP4",
)


def fill(root: Path, names: tuple[str, ...] | list[str]) -> str:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return str(root)


def paths(root: str, settings: LibrarySettings = LibrarySettings()) -> list[str]:
    return [uri.removeprefix(root + "/") for uri in list_library(root, settings)["uri"].to_pylist()]


def read_back(uri: str) -> bytes:
    filesystem, path = open_filesystem(uri)
    with filesystem.open(path, "rb") as file:
        return file.read()


def test_odd_names_open_again_locally(tmp_path):
    root = fill(tmp_path, ODD_NAMES)
    table = list_library(root)
    assert sorted(paths(root)) == sorted(ODD_NAMES)
    for uri, size in zip(table["uri"].to_pylist(), table["size_bytes"].to_pylist(), strict=True):
        data = read_back(uri)
        assert data.decode() == uri.removeprefix(root + "/")
        assert len(data) == size


def test_odd_names_open_again_on_s3(s3, caplog):
    names = {
        *ODD_NAMES,
        *("double//slash.mp4", "/leading.mp4", "plus+and space.mp4", "two..dots.mp4", "back\\slash.mp4"),
        *(
            "e\u0301 is not \u00e9.mp4",
            "\u00e9.mp4",
            "tab\t.mp4",
            "%2e%2e/f.mp4",
            " leading.mp4",
            "x" * 1000 + ".mp4",
        ),
    }
    # What cannot be asked for by its own name is left out with a reason.
    refused = {"a?versionId=b.mp4", "a/../b.mp4", "../../c.mp4", "d/./e.mp4"}
    put = set()
    for name in (*names, *refused, "folder.mp4/"):
        try:
            s3.client().put_object(Bucket=s3.name, Key=f"lib/{name}", Body=name.encode())
        except ClientError:
            assert name == "new\nline.mp4"  # moto takes no line breaks, Ceph does
        else:
            put.add(name)
    table = list_library(f"{s3.uri}/lib")
    found = [uri.removeprefix(f"{s3.uri}/lib/") for uri in table["uri"].to_pylist()]
    assert sorted(found) == sorted(names & put)
    assert [read_back(uri).decode() for uri in table["uri"].to_pylist()] == found
    assert all(table["etag"].to_pylist())
    assert len(set(table["video_id"].to_pylist())) == len(found)
    for name in refused & put:
        assert f"/lib/{name}: " in caplog.text


def test_more_keys_than_one_page_in_order(s3, monkeypatch):
    monkeypatch.setattr("pipeline.library._PAGE_KEYS", 7)
    client = s3.client()
    names = [f"lib/{number % 3}/{number:05d}.mp4" for number in range(30)]
    for name in names:
        client.put_object(Bucket=s3.name, Key=name, Body=b"")
    found = list_library(s3.uri)["uri"].to_pylist()
    assert found == sorted(f"{s3.uri}/{name}" for name in names)


def test_trouble_between_two_pages_loses_no_key(s3, faulty, monkeypatch):
    monkeypatch.setattr("pipeline.library._PAGE_KEYS", 5)
    for number in range(23):
        s3.client().put_object(Bucket=s3.name, Key=f"lib/{number:02d}.mp4", Body=b"")
    for fault in (SLOW_DOWN, RESET, CUT_GET):
        faulty.inject(Rule(fault, "list", skip=2, times=2))
        assert len(list_library(f"{s3.uri}/lib")) == 23
        assert faulty.injected[fault] == 2


def test_a_neighbour_with_the_same_beginning_is_not_listed(s3):
    for key in ("lib/a.mp4", "lib-old/b.mp4", "libc.mp4"):
        s3.client().put_object(Bucket=s3.name, Key=key, Body=b"")
    assert list_library(f"{s3.uri}/lib")["uri"].to_pylist() == [f"{s3.uri}/lib/a.mp4"]


def test_only_videos_and_nothing_hidden(tmp_path):
    root = fill(
        tmp_path,
        [
            "a.mp4",
            "b.MKV",
            "c.txt",
            "d",
            ".e.mp4",
            "._a.mp4",
            ".git/f.mp4",
            "g/.h/i.mp4",
            "j.mp4.part",
            ".mp4",
        ],
    )
    assert paths(root) == ["a.mp4", "b.MKV"]


def test_order_and_ids_do_not_depend_on_when_files_were_made(tmp_path):
    root = fill(tmp_path, ["b.mp4", "a/z.mp4", "a.mp4", "a b.mp4", "B.mp4"])
    first = list_library(root)
    assert first["uri"].to_pylist() == sorted(first["uri"].to_pylist())
    assert first.equals(list_library(root))
    assert len(set(first["video_id"].to_pylist())) == 5


def test_a_changed_file_is_a_new_video(tmp_path):
    root = fill(tmp_path, ["a.mp4", "b.mp4"])
    before = list_library(root)["video_id"].to_pylist()
    os.utime(tmp_path / "a.mp4", (1_000_000_000, 1_000_000_000))
    after = list_library(root)["video_id"].to_pylist()
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_globs_match_in_any_case_and_are_relative_to_the_library(tmp_path):
    root = fill(
        tmp_path, ["2024/a.mp4", "2024/deep/b.mp4", "2024/b_proxy.mp4", "x/2024/c.mp4", "D.mp4", "d.mp4"]
    )
    assert paths(root, LibrarySettings(include=("2024/**",))) == [
        "2024/a.mp4",
        "2024/b_proxy.mp4",
        "2024/deep/b.mp4",
    ]
    assert paths(root, LibrarySettings(include=("2024/*",))) == ["2024/a.mp4", "2024/b_proxy.mp4"]
    assert "2024/b_proxy.mp4" not in paths(root, LibrarySettings(exclude=("*_proxy.mp4",)))
    assert paths(root, LibrarySettings(include=("D.*",))) == ["D.mp4", "d.mp4"]
    assert paths(root, LibrarySettings(include=("**/2024/*",), exclude=("2024/*",))) == ["x/2024/c.mp4"]
    with pytest.raises(LibraryError, match="not a glob"):
        list_library(root, LibrarySettings(include=("a**b/c",)))


def test_limit_takes_the_first_by_uri(tmp_path):
    root = fill(tmp_path, ["c.mp4", "a.mp4", "b.mp4"])
    assert paths(root, LibrarySettings(limit=2)) == ["a.mp4", "b.mp4"]


def test_a_library_below_a_hidden_folder_is_listed(tmp_path):
    root = fill(tmp_path / ".cache" / "lib", ["a.mp4"])
    assert paths(root) == ["a.mp4"]


def test_links_are_followed_once_and_loops_end(tmp_path):
    root = fill(tmp_path / "lib", ["a/b.mp4"])
    fill(tmp_path / "elsewhere", ["c.mp4"])
    (tmp_path / "lib" / "a" / "up").symlink_to(tmp_path / "lib")
    (tmp_path / "lib" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lib" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lib" / "broken.mp4").symlink_to(tmp_path / "gone.mp4")
    os.mkfifo(tmp_path / "lib" / "pipe.mp4")
    assert paths(root) == ["a/b.mp4", "again/c.mp4"]


def test_names_that_are_no_text_are_left_out_and_reported(tmp_path, caplog):
    root = fill(tmp_path, ["a.mp4"])
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).write_bytes(b"")
    assert paths(root) == ["a.mp4"]
    assert "not valid UTF-8" in caplog.text


def test_a_single_file_is_a_library_whatever_its_name(tmp_path, s3):
    (tmp_path / "film").write_bytes(b"x")
    assert list_library(str(tmp_path / "film"))["uri"].to_pylist() == [str(tmp_path / "film")]
    s3.client().put_object(Bucket=s3.name, Key="lib/film.bin", Body=b"x")
    assert list_library(f"{s3.uri}/lib/film.bin")["uri"].to_pylist() == [f"{s3.uri}/lib/film.bin"]


@pytest.mark.parametrize("output", ["", "out"])
def test_own_reels_inside_the_library_are_not_listed(tmp_path, output):
    root = fill(tmp_path, ["a.mp4", "mediathek/b.mp4"])
    fill(tmp_path / output, ["media/x/reel.mp4"])
    found = list_library(root, output=str(tmp_path / output))["uri"].to_pylist()
    assert [Path(uri).name for uri in found] == ["a.mp4", "b.mp4"]


def test_nothing_there_is_an_error_and_nothing_matching_is_not(tmp_path, s3):
    with pytest.raises(LibraryError, match="does not exist"):
        list_library(str(tmp_path / "gone"))
    with pytest.raises(LibraryError, match="the bucket does not exist"):
        list_library("s3://no-such-bucket-here/lib")
    with pytest.raises(LibraryError, match="does not exist"):
        list_library(f"{s3.uri}/gone")
    with pytest.raises(LibraryError, match="not supported"):
        list_library("gopher://host/lib")
    assert list_library(str(tmp_path)).num_rows == 0
    assert list_library(s3.uri).num_rows == 0


def test_other_filesystems_are_listed_too():
    filesystem, _ = open_filesystem("memory://")
    filesystem.pipe_file("/test-library/a/b.mp4", b"xyz")
    table = list_library("memory://test-library")
    assert table["size_bytes"].to_pylist() == [3]
    assert read_back(table["uri"][0].as_py()) == b"xyz"
    filesystem.rm("/test-library", recursive=True)
