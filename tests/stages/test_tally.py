"""Bytes and retries are counted where they happen, for local files and for a store."""

from pathlib import Path

import pytest

from pipeline import storage
from stages import tally
from stages.container import open_source
from tests.conftest import Bucket
from tests.faulty_s3 import CUT_GET, SLOW_DOWN, FaultyS3, Rule
from tests.media import make_video


def since(before: dict[tally.Count, int]) -> dict[tally.Count, int]:
    return {name: value - before[name] for name, value in tally.counts().items()}


def test_a_local_source_is_counted_by_its_packets_also_when_its_end_is_not_read(tmp_path: Path) -> None:
    file = make_video(tmp_path / "a.mp4", seconds=2).path
    sizes, before = [], tally.counts()
    with open_source(str(file)) as source:
        sizes += [packet.size for packet in source.packets(source.video)]
    assert since(before)["read_bytes"] == sum(sizes) > 0
    before = tally.counts()
    with open_source(str(file)) as source:
        packets = source.packets(source.video)
        first = [next(packets).size for _ in range(3)]
        packets.close()
    assert since(before)["read_bytes"] == sum(first)


def test_a_local_output_is_counted_by_its_files(tmp_path: Path) -> None:
    before = tally.counts()
    storage.write_bytes(str(tmp_path / "out" / "a"), b"12345")
    storage.put_file(tmp_path / "out" / "a", str(tmp_path / "out" / "b"))
    assert since(before)["written_bytes"] == 10


def test_a_store_is_counted_by_what_arrived_whole_and_by_what_was_asked_again(
    s3: Bucket, faulty: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.inject(Rule(SLOW_DOWN, "put", times=2), Rule(CUT_GET, "get", times=1))
    before = tally.counts()
    storage.write_bytes(f"{s3.uri}/a", bytes(1000))
    assert storage.read_bytes(f"{s3.uri}/a") == bytes(1000)
    assert since(before) == {"read_bytes": 1000, "written_bytes": 1000, "storage_retries": 3}
    large = tmp_path / "large"
    monkeypatch.setattr(storage, "_PART_BYTES", 5 << 20)
    large.write_bytes(bytes(11 << 20))
    before = tally.counts()
    storage.put_file(large, f"{s3.uri}/large")
    assert since(before)["written_bytes"] == 11 << 20
