"""Blocks of remote files, kept for when they are opened again: one budget for all, the oldest go first.

What reads span after span of many sources holds as much as what reads those of one.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

from fsspec.caching import BaseCache

BLOCK_BYTES = 512 << 10
BLOCKS_KEPT = 128  # 64 MiB

Version = tuple[str, str]  # path, ETag


class Blocks:
    """At most so many blocks, by the version of the file that they are of and their number."""

    def __init__(self, most: int = BLOCKS_KEPT):
        self.most = most
        self._held: OrderedDict[tuple[Version, int], bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, version: Version, number: int, fetch: Callable[[], bytes]) -> bytes:
        key = version, number
        if key not in self._held:
            self._held[key] = fetch()
        self._held.move_to_end(key)
        if len(self._held) > self.most:
            self._held.popitem(last=False)
        return self._held[key]


class SharedCache(BaseCache):
    """What fsspec asks of an open file's cache, answered from shared blocks."""

    name: ClassVar[str] = "shared"

    def __init__(self, fetcher: Callable[[int, int], bytes], size: int, version: Version, blocks: Blocks):
        super().__init__(BLOCK_BYTES, fetcher, size)
        self.version, self.blocks = version, blocks

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start, stop = start or 0, self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        first = start // BLOCK_BYTES
        parts = [self._block(number) for number in range(first, (stop - 1) // BLOCK_BYTES + 1)]
        return b"".join(parts)[start - first * BLOCK_BYTES : stop - first * BLOCK_BYTES]

    def _block(self, number: int) -> bytes:
        begin = number * BLOCK_BYTES
        end = min(begin + BLOCK_BYTES, self.size)
        return self.blocks.get(self.version, number, lambda: self.fetcher(begin, end))
