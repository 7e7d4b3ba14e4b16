"""Byte strings of a whole video, one for each sample: JPEGs and codes, left where they lie.

Of ten hours they are half a gigabyte, of which a few thousand clips' pictures are ever looked at: as lists of
`bytes`, all would be copied wherever the row goes.
"""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

TYPE = pa.large_binary()


class Blobs(Sequence[bytes]):
    """A sequence of byte strings over Arrow's memory; what is taken out of it is a copy."""

    def __init__(self, array: pa.ChunkedArray):
        self.array = array

    @classmethod
    def joined(cls, parts: Iterable[Sequence[bytes]]) -> "Blobs":
        """The parts end to end; those that are blobs already are not copied."""
        return cls(pa.chunked_array([chunk for part in parts for chunk in _chunks(part)], TYPE))

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> bytes:
        return self.array[index].as_py()

    def __iter__(self) -> Iterator[bytes]:
        return (value.as_py() for value in self.array)

    def whole(self) -> pa.LargeBinaryArray:
        """As one array: in place where it is one already."""
        chunks = self.array.chunks
        return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks or [pa.array([], TYPE)])


def _chunks(part: Sequence[bytes]) -> list[pa.Array]:
    return part.array.chunks if isinstance(part, Blobs) else [pa.array(list(part), TYPE)]
