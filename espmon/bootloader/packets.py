"""Requests and replies of the serial loader protocol, boot ROM and flasher stub.

Formats from Espressif's public protocol description ("Serial Protocol", esptool documentation), little endian:
request ``00 op len:u16 checksum:u32 payload``, reply ``01 op len:u16 value:u32 body``, the body ending in status bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum


class Op(IntEnum):
    """Command codes."""

    FLASH_BEGIN = 0x02
    FLASH_DATA = 0x03
    FLASH_END = 0x04
    MEM_BEGIN = 0x05
    MEM_END = 0x06
    MEM_DATA = 0x07
    SYNC = 0x08
    WRITE_REG = 0x09
    READ_REG = 0x0A
    SPI_SET_PARAMS = 0x0B
    SPI_ATTACH = 0x0D
    READ_FLASH_SLOW = 0x0E
    CHANGE_BAUDRATE = 0x0F
    FLASH_DEFL_BEGIN = 0x10
    FLASH_DEFL_DATA = 0x11
    FLASH_DEFL_END = 0x12
    SPI_FLASH_MD5 = 0x13
    GET_SECURITY_INFO = 0x14
    ERASE_FLASH = 0xD0
    ERASE_REGION = 0xD1
    READ_FLASH = 0xD2
    RUN_USER_CODE = 0xD3


SYNC_PAYLOAD = b"\x07\x07\x12\x20" + b"\x55" * 32

# What a status means. The ROM's first byte is 1 on failure and the second one of these; the newer stubs send 0xC0..0xCB.
ROM_ERRORS = {
    0x05: "unknown or malformed command",
    0x06: "the command failed",
    0x07: "checksum of the data is wrong",
    0x08: "flash did not take the data",
    0x09: "flash could not be read",
    0x0A: "wrong read length",
    0x0B: "compressed data is damaged",
    0x0C: "checksum of the compressed data is wrong",
    0x0D: "wrong parameter for compressed data",
    0x0E: "wrong RAM size",
    0x0F: "wrong RAM address",
    0x64: "wrong parameter",
    0x65: "wrong format",
    0x66: "too long",
    0x67: "too late",
    0x68: "out of memory",
    0x69: "not supported",
}
STUB_ERRORS = {
    0xC0: "wrong data length",
    0xC1: "checksum of the data is wrong",
    0xC2: "wrong block size",
    0xC3: "unknown command",
    0xC4: "flash operation failed",
    0xC5: "flash could not be unlocked",
    0xC6: "no write was begun",
    0xC7: "compressed data is damaged",
    0xC8: "less data than announced",
    0xC9: "more data than announced",
    0xCA: "flash block failed to program",
    0xCB: "flash block failed to erase",
    0xFF: "not implemented",
}


def checksum(data: bytes) -> int:
    """The protocol's 8-bit checksum: exclusive or of all bytes, seeded with 0xEF. Weak: a digest must follow."""
    # Exclusive or in 8-byte words by way of one big number: folding halves needs log2(n) operations, not n.
    width = 1
    while width < len(data):
        width *= 2
    value = int.from_bytes(data, "little")
    bits = width * 8
    while bits > 8:
        bits //= 2
        value = (value >> bits) ^ (value & ((1 << bits) - 1))
    return value ^ 0xEF


def request(op: int, payload: bytes = b"", check: int = 0) -> bytes:
    """One request packet, not yet framed."""
    return struct.pack("<BBHI", 0, op, len(payload), check) + payload


def words(*values: int) -> bytes:
    """Unsigned 32-bit words, little endian."""
    return struct.pack(f"<{len(values)}I", *values)


def data_request(op: int, block: bytes, sequence: int) -> bytes:
    """A request that carries a block: length, sequence number and two zero words before it, checksum over the block."""
    return request(op, words(len(block), sequence, 0, 0) + block, checksum(block))


@dataclass(frozen=True, slots=True)
class Reply:
    """A well-formed reply: `value` and `body` (status bytes still at its end)."""

    op: int
    value: int
    body: bytes

    def status(self, length: int, status_length: int) -> tuple[bytes, int]:
        """`(data, error)`: the first `length` bytes, and 0 or the error as a number (first byte << 8 | second).

        A body shorter than announced data plus status holds only the status: that is how refusals look.
        """
        if len(self.body) >= length + 2:
            data, rest = self.body[:length], self.body[length:]
        else:
            data, rest = b"", self.body
        if len(rest) < 2:
            return data, 0xFFFF
        return data, rest[0] << 8 | rest[1] if rest[0] else 0


def parse_reply(packet: bytes) -> Reply | None:
    """The packet as a reply; None when it is none (direction, length) and so belongs to somebody's text."""
    if len(packet) < 8 or packet[0] != 1:
        return None
    _, op, length, value = struct.unpack_from("<BBHI", packet)
    if length != len(packet) - 8:
        return None
    return Reply(op, value, packet[8:])


def is_request(packet: bytes) -> bool:
    """True for a packet that is a request: hearing one means that our own bytes come back."""
    return len(packet) >= 8 and packet[0] == 0 and struct.unpack_from("<H", packet, 2)[0] == len(packet) - 8


def error_meaning(error: int) -> str:
    """A status number in words."""
    high, low = error >> 8, error & 0xFF
    if high in STUB_ERRORS:
        return STUB_ERRORS[high]
    return ROM_ERRORS.get(low, f"status 0x{error:04x}")


def op_name(op: int) -> str:
    """The command's name as people know it."""
    try:
        return Op(op).name
    except ValueError:
        return f"command 0x{op:02x}"
