"""The stub's protocol: frames, commands, statuses. The numbers are core.h's; docs/design/stub.md explains them.

A frame is ``op:u8 tag:u8 argument:u16 body crc:u32``, little endian, the CRC being CRC-32 (:func:`zlib.crc32`) of all
before it. Frames are stuffed by COBS and end with a zero byte, so a zero never occurs inside and costs are constant:
one byte in 254, where SLIP doubles every 0xC0 and 0xDB.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

VERSION = 1
WINDOW = 16384
MAP_DIGESTS = 64
LARGEST_BODY = 4096
FUSES = 0x3FF00050
# Nothing that the stub sends is longer than this on the wire: head, body, CRC, one stuffing byte in 254, the zero.
LONGEST = 8 + LARGEST_BODY + LARGEST_BODY // 254 + 3


class Op(IntEnum):
    """First byte of a frame; an answer has :data:`REPLY` set, the last three only come from the stub."""

    HELLO = 0x01
    MAP = 0x02
    WRITE = 0x03
    DATA = 0x04
    POLL = 0x05
    READ = 0x06
    DIGEST = 0x07
    ERASE = 0x08
    RATE = 0x09
    UNLOCK = 0x0A
    LEAVE = 0x0B
    NAK = 0x90
    SECTOR = 0x91
    END = 0x92


REPLY = 0x80


class Status(IntEnum):
    """Argument of an answer."""

    OK = 0
    COMMAND = 1
    RANGE = 2
    NO_CHIP = 3
    PROTECTED = 4
    TIMEOUT = 5
    DEFLATE = 6
    SILENCE = 7
    ABORTED = 8
    VERIFY = 9
    NO_BOOT = 10
    NONE = 11
    ACTIVE = 12


MEANINGS: Mapping[int, str] = {
    Status.COMMAND: "the stub does not know this command",
    Status.RANGE: "not whole sectors, or beyond the end of the flash",
    Status.NO_CHIP: "the flash chip does not answer, or its size is unknown",
    Status.PROTECTED: "the flash chip is write-protected",
    Status.TIMEOUT: "the flash chip stays busy",
    Status.DEFLATE: "the compressed data is invalid",
    Status.SILENCE: "the stub waited too long for data",
    Status.ABORTED: "another command came in between",
    Status.VERIFY: "the flash chip reads back something else",
    Status.NO_BOOT: "this boot ROM is not known well enough to start the application from the stub",
}

SECTOR_SAME = 1
SECTOR_ERASED = 2
SECTOR_MISMATCH = 4

WRITE_DEFLATE = 1
LEAVE_RETURN, LEAVE_RESET, LEAVE_BOOT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame without its CRC."""

    op: int
    tag: int
    argument: int
    body: bytes = b""


def stuff(content: bytes) -> bytes:
    """COBS: no zero is left. Each group is its length + 1 and up to 254 bytes; a zero follows all but full groups."""
    out: list[bytes] = []
    for run in content.split(b"\0"):
        while len(run) >= 254:
            out.append(b"\xff" + run[:254])
            run = run[254:]
        out.append(bytes((len(run) + 1,)) + run)
    return b"".join(out)


def unstuff(content: bytes) -> bytes | None:
    """The inverse of :func:`stuff`; None when the groups do not end with the frame."""
    out: list[bytes] = []
    at, end = 0, len(content)
    while at < end:
        code = content[at]
        if code == 0 or at + code > end:
            return None
        out.append(content[at + 1 : at + code])
        at += code
        if code != 255 and at < end:
            out.append(b"\0")
    return b"".join(out)


def encode(op: int, tag: int, argument: int = 0, body: bytes = b"") -> bytes:
    """One frame as it goes over the wire, its ending zero included."""
    plain = struct.pack("<BBH", op, tag, argument) + body
    return stuff(plain + struct.pack("<I", zlib.crc32(plain))) + b"\0"


def decode(stuffed: bytes) -> Frame | None:
    """One frame from what stood between two zeros; None when it is damaged or no frame at all."""
    plain = unstuff(stuffed)
    if plain is None or len(plain) < 8 or zlib.crc32(plain[:-4]) != int.from_bytes(plain[-4:], "little"):
        return None
    op, tag, argument = struct.unpack_from("<BBH", plain)
    return Frame(op, tag, argument, plain[4:-4])


class FrameReader:
    """Cuts a stream into frames. What cannot be one is returned as stray bytes, for the log and for boot texts."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def pending(self) -> int:
        """Bytes of a frame that has not ended yet."""
        return len(self._rest)

    def feed(self, data: bytes) -> tuple[bytes, list[Frame]]:
        """`(stray bytes, frames)`."""
        *whole, self._rest = (self._rest + data).split(b"\0")
        stray: list[bytes] = []
        frames: list[Frame] = []
        for stuffed in whole:
            frame = decode(stuffed)
            if frame is not None:
                frames.append(frame)
            elif stuffed:
                stray.append(stuffed)
        if len(self._rest) > LONGEST:
            stray.append(self._rest)
            self._rest = b""
        return b"".join(stray), frames

    def flush(self) -> bytes:
        """Give up the frame under way; its bytes."""
        rest, self._rest = self._rest, b""
        return rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the stub says of itself and the chip.

    `window`: bytes of data frames that may be under way. `divider`: of its UART. `flash_id`: 0 when no chip answers.
    `status`: status byte 1. `flash_size`: bytes, 0 when the id says none. `damaged`, `lost`,
    `overruns`, `framing`: received frames with a wrong CRC; bytes that found the ring full, the UART's own buffer full,
    or no stop bit. `can_boot`: this ROM lets the stub start the application itself. `fuses`: the words at
    :data:`FUSES`, which hold the MAC address and the package.
    """

    version: int
    window: int
    divider: int
    flash_id: int
    status: int
    flash_size: int
    damaged: int
    lost: int
    overruns: int
    framing: int
    can_boot: bool
    fuses: tuple[int, ...] = ()

    @property
    def protected(self) -> bool:
        """Block protection bits are set in status byte 1 (bits 2 to 6 on all makers' chips seen on ESP8266 boards)."""
        return bool(self.status & 0x7C)


def parse_hello(frame: Frame) -> Hello | None:
    """The stub's answer to HELLO; None when it is none."""
    if frame.op != Op.HELLO | REPLY or len(frame.body) != 56:
        return None
    window, divider, status, can_boot, flash_id, size, damaged, lost, overruns, framing, *fuses = struct.unpack(
        "<14I", frame.body
    )
    return Hello(
        version=frame.argument,
        window=window,
        divider=divider,
        flash_id=flash_id,
        status=status,
        flash_size=size,
        damaged=damaged,
        lost=lost,
        overruns=overruns,
        framing=framing,
        can_boot=bool(can_boot),
        fuses=tuple(fuses),
    )
