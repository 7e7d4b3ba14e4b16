"""Byte strings of a whole video, one for each sample: JPEGs and codes, left where they lie.

Of ten hours they are half a gigabyte, of which a few thousand clips' pictures are ever looked at: as lists of
`bytes`, all would be copied wherever the row goes.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import pyarrow as pa

TYPE = pa.large_binary()


@dataclass(frozen=True)
class Part:
    """So many byte strings, of which `load` opens the array: from memory, or from a file."""

    count: int
    load: Callable[[], pa.LargeBinaryArray]

    @classmethod
    def of(cls, array: pa.LargeBinaryArray) -> "Part":
        return cls(len(array), partial(_itself, array))


class Blobs(Sequence[bytes]):
    """A sequence of byte strings; what is taken out of it is a copy, and one part at a time is held open."""

    def __init__(self, parts: Iterable[Part]):
        self.parts = list(parts)
        self._starts = list(accumulate((part.count for part in self.parts), initial=0))
        self._open: tuple[int, pa.LargeBinaryArray] | None = None

    @classmethod
    def joined(cls, sequences: Iterable[Sequence[bytes]]) -> "Blobs":
        """The sequences end to end; those that are blobs already are not copied."""
        return cls(part for sequence in sequences for part in _parts(sequence))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        number = bisect_right(self._starts, index) - 1
        if self._open is None or self._open[0] != number:
            self._open = number, self.parts[number].load()
        return self._open[1][index - self._starts[number]].as_py()

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": None}  # a part that is open is another one's memory

    def whole(self) -> pa.LargeBinaryArray:
        """As one array: in place where it is one already."""
        arrays = [part.load() for part in self.parts]
        return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays or [pa.array([], TYPE)])


def _parts(sequence: Sequence[bytes]) -> list[Part]:
    return sequence.parts if isinstance(sequence, Blobs) else [Part.of(pa.array(list(sequence), TYPE))]


def _itself(array: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    return array
