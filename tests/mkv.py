"""Matroska files by hand, so that they can say what no muxer would write (RFC 9559: EBML elements)."""

import struct
from collections.abc import Sequence


def element(number: int, data: bytes, claimed: int | None = None) -> bytes:
    """An element; `claimed` is the length that its header gives if that is not the true one."""
    length = len(data) if claimed is None else claimed
    return (
        number.to_bytes((number.bit_length() + 7) // 8, "big") + (length | 1 << 56).to_bytes(8, "big") + data
    )


def integer(number: int, value: int) -> bytes:
    data = _bytes(value)
    return _bytes(number) + bytes([0x80 | len(data)]) + data


def float_element(number: int, value: float) -> bytes:
    return _bytes(number) + b"\x88" + struct.pack(">d", value)


def _bytes(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def track(number: int, width: int, height: int) -> bytes:
    picture = element(0xE0, integer(0xB0, width) + integer(0xBA, height))
    codec = element(0x86, b"V_MJPEG")
    return element(0xAE, integer(0xD7, number) + integer(0x73C5, number) + integer(0x83, 1) + codec + picture)


def matroska(
    tracks: Sequence[bytes], duration_s: float = 5.0, attachments: Sequence[tuple[bytes, int]] = ()
) -> bytes:
    """A file with one frame that is none. attachments: (bytes, claimed length)."""
    head = element(0x1A45DFA3, element(0x4282, b"matroska") + integer(0x4287, 4) + integer(0x4285, 2))
    info = element(0x1549A966, integer(0x2AD7B1, 1_000_000) + float_element(0x4489, 1000 * duration_s))
    files = [
        element(
            0x61A7,
            element(0x466E, b"x.bin")
            + element(0x4660, b"font/ttf")
            + integer(0x46AE, n + 1)
            + element(0x465C, data, claimed),
        )
        for n, (data, claimed) in enumerate(attachments)
    ]
    attached = element(0x1941A469, b"".join(files)) if files else b""
    cluster = element(0x1F43B675, integer(0xE7, 0) + element(0xA3, b"\x81\0\0\x80" + b"no frame"))
    return head + element(0x18538067, info + element(0x1654AE6B, b"".join(tracks)) + attached + cluster)
