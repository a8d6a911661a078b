"""How DWARF writes lengths, offsets, numbers and strings, and what reading damaged ones raises."""

from __future__ import annotations

import struct

_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from


class Malformed(Exception):
    """The debug information contradicts itself or ends too early. Never leaves this package."""


# What reading damaged debug information can raise; caught where one unit ends and the next begins.
FAULTS = (
    Malformed,
    IndexError,
    struct.error,
    KeyError,
    ValueError,
    OverflowError,
    TypeError,
    UnicodeError,
    RecursionError,
)


class Budget:
    """Bounds the work that a hostile file can ask for: bytes that may be visited, many times what an honest file needs."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def spend(self, count: int) -> None:
        """Raises Malformed once the file has asked for more than its share."""
        self.left -= count
        if self.left < 0:
            raise Malformed("too much work for its size")


def uleb(data: bytes, at: int) -> tuple[int, int]:
    """Unsigned LEB128 at `at`: (value, next offset). Raises IndexError past the end, Malformed when absurdly long."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value = byte & 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 140:
            raise Malformed("LEB128 without end")


def sleb(data: bytes, at: int) -> tuple[int, int]:
    """Signed LEB128 at `at`: (value, next offset)."""
    value = 0
    shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value - (1 << shift) if byte & 0x40 else value), at
        if shift > 140:
            raise Malformed("LEB128 without end")


def string_at(data: bytes, at: int) -> bytes:
    """The NUL-terminated bytes at `at`, at most 64 KiB. Raises Malformed outside the section."""
    if not 0 <= at < len(data):
        raise Malformed("string outside its section")
    stop = data.find(b"\0", at, at + 65536)
    if stop < 0:
        raise Malformed("string without end")
    return data[at:stop]


def length_at(data: bytes, at: int) -> tuple[int, int, int]:
    """The initial length of a unit, set or program: (length, size of its offsets in bytes, where the length counts from)."""
    length = int(_U32(data, at)[0])
    if length == 0xFFFFFFFF:  # 64-bit DWARF
        return int(_U64(data, at + 4)[0]), 8, at + 12
    return length, 4, at + 4


def offset_at(data: bytes, at: int, size: int) -> int:
    """An offset into a section, of `size` 4 or 8 bytes."""
    return int((_U64 if size == 8 else _U32)(data, at)[0])
