"""Blocks of remote files: the right bytes, each fetched once, and no more held than the budget."""

from stages.blocks import BLOCK_BYTES, Blocks, SharedCache


class File:
    def __init__(self, seed: int, blocks: float):
        self.content = bytes((seed + n) % 251 for n in range(1000)) * int(blocks * BLOCK_BYTES / 1000)
        self.fetched: list[int] = []

    def cache(self, blocks: Blocks, etag: str) -> SharedCache:
        return SharedCache(self.fetch, len(self.content), ("b/k", etag), blocks)

    def fetch(self, start: int, end: int) -> bytes:
        assert end <= len(self.content)
        self.fetched.append(start // BLOCK_BYTES)
        return self.content[start:end]


def test_any_range_is_that_of_the_file_and_no_block_is_fetched_twice() -> None:
    file, blocks = File(1, 3.5), Blocks()
    size = len(file.content)
    for start, end in (
        (0, 10),
        (BLOCK_BYTES - 5, BLOCK_BYTES + 5),
        (5, size),
        (size - 3, size + 9),
        (size, None),
    ):
        assert file.cache(blocks, "1")._fetch(start, end) == file.content[start:end]
    assert sorted(file.fetched) == [0, 1, 2, 3]


def test_another_version_is_another_file() -> None:
    old, new, blocks = File(1, 1.5), File(2, 1.5), Blocks()
    assert old.cache(blocks, "1")._fetch(0, 50) == old.content[:50]
    assert new.cache(blocks, "2")._fetch(0, 50) == new.content[:50]


def test_many_files_hold_no_more_than_one_and_the_oldest_goes_first() -> None:
    blocks = Blocks(most=4)
    files = [File(n, 2) for n in range(5)]
    for number, file in enumerate(files):
        file.cache(blocks, str(number))._fetch(0, None)
        files[0].cache(blocks, "0")._fetch(0, 10)
        assert len(blocks) <= 4
    assert files[0].fetched.count(0) == 1  # in use all the while
    assert files[1].fetched == [0, 1]
    files[1].cache(blocks, "1")._fetch(0, None)
    assert files[1].fetched == [0, 1, 0, 1]
