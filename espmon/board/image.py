"""What the boot ROM makes of an image in flash: its segments, its checksum, and the text it prints about them.

Pure. Formats: `E9 | segments | mode | size, speed | entry`, on the ESP32 family 16 more bytes, then the segments, the
XOR of their content with 0xEF at the end of a 16-byte line, and on the ESP32 family a SHA-256 when the header says so.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from espmon.board.nor import NorFlash
from espmon.board.silicon import Silicon

MAGIC = 0xE9
SEED = 0xEF  # of the checksum
SEGMENT_LIMIT = 1 << 20  # no segment that a ROM loads is longer
MODES = ("qio", "qout", "dio", "dout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One loaded segment: where it goes, what it is, and its place in flash."""

    address: int
    content: bytes
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as the ROM reads it. `fault` is None when it may run; else what is wrong with it."""

    entry: int
    mode: str
    size_code: int
    segments: tuple[Segment, ...]
    checksum: int
    stored: int
    first_word: int
    fault: str | None
    end: int = 0


def read_image(flash: NorFlash, silicon: Silicon, offset: int | None = None) -> Image:
    """Read the image at `offset` (default: where this ROM looks) as the ROM does. Never raises."""
    at = silicon.chip.boot_offset if offset is None else offset
    extended = silicon.chip.image_chip_id is not None
    header = flash.read(at, 24 if extended else 8)
    magic, count, mode, size_speed, entry = struct.unpack_from("<BBBBI", header)
    word = int.from_bytes(header[:4], "little")
    mode_name = MODES[mode & 3]

    def bad(fault: str, segments: tuple[Segment, ...] = (), checksum: int = SEED, stored: int = 0) -> Image:
        return Image(
            entry=entry, mode=mode_name, size_code=size_speed >> 4, segments=segments, checksum=checksum,
            stored=stored, first_word=word, fault=fault,
        )  # fmt: skip

    if magic != MAGIC:
        return bad("magic")
    if not 0 < count <= 16:
        return bad("segments")
    if extended and int.from_bytes(header[12:14], "little") not in (silicon.chip.image_chip_id, 0xFFFF):
        return bad("chip")
    position = at + len(header)
    segments: list[Segment] = []
    checksum = SEED
    for _ in range(count):
        address, length = struct.unpack("<II", flash.read(position, 8))
        if length > SEGMENT_LIMIT or length & 3:
            return bad("segment", (*segments, Segment(address=address, content=b"", offset=position)))
        content = flash.read(position + 8, length)
        folded = 0
        # XOR of all bytes: fold the number in halves
        number, width = int.from_bytes(content, "little"), max(1, len(content))
        while width > 1:
            half = (width + 1) // 2
            number = (number >> (8 * half)) ^ (number & ((1 << (8 * half)) - 1))
            width = half
        folded = number
        checksum ^= folded
        segments.append(Segment(address=address, content=content, offset=position))
        position += 8 + length
    # the checksum is the last byte of a 16-byte line; lines count from the image's start
    end = position + (15 - (position - at) % 16) + 1
    stored = flash.read(end - 1, 1)[0]
    image = Image(
        entry=entry, mode=mode_name, size_code=size_speed >> 4, segments=tuple(segments), checksum=checksum, stored=stored,
        first_word=word, fault=None if stored == checksum else "checksum", end=end,
    )  # fmt: skip
    if image.fault is None and extended and header[23] == 1:
        digest = flash.read(end, 32)
        if hashlib.sha256(flash.read(at, end - at)).digest() != digest:
            return bad("hash", image.segments, checksum, stored)
    return image


def image_digest(flash: NorFlash, silicon: Silicon) -> bytes:
    """SHA-256 of the bytes of the image at the boot offset; of the first sector when there is no image."""
    at = silicon.chip.boot_offset
    image = read_image(flash, silicon)
    return hashlib.sha256(flash.read(at, max(image.end - at, 0x1000))).digest()


def esp8266_load_text(image: Image) -> str:
    """The lines that the ESP8266 ROM prints while it loads `image`: it reads flash in lines of 16 bytes."""
    out = []
    position = 8
    checksum = SEED
    for segment in image.segments:
        if position % 16 > 8:
            out.append("ho 0 tail 12 room 4\r\n")
        position += 8
        room = 16 - position % 16
        if not segment.content:
            length = int.from_bytes(b"\xff\xff\xff\xff", "little", signed=True)
            out.append(f"load 0x{segment.address:08x}, len {length}, room {room} \r\n")
            return "".join(out)
        out.append(f"load 0x{segment.address:08x}, len {len(segment.content)}, room {room} \r\n")
        for byte in segment.content:
            checksum ^= byte
        out.append(f"tail {(len(segment.content) - room) % 16}\r\nchksum 0x{checksum:02x}\r\n")
        position += len(segment.content)
    out.append(f"csum 0x{checksum:02x}\r\n")
    return "".join(out)
