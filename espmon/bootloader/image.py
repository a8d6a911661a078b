"""Firmware images: the header that the boot ROM reads, the segments, checksum and SHA-256.

From Espressif's public description ("Firmware Image Format"). ``E9`` header: segment count, flash mode, size and clock
nibbles, entry; ESP32 and later add 16 bytes (chip id, revisions, digest flag). The ESP8266's second form starts with
``EA``, holds one segment that runs from flash and then an ``E9`` header of its own. After the segments zeros fill up to
15 modulo 16, one checksum byte follows, then the digest if announced.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from espmon.bootloader.packets import checksum
from espmon.chips import CHIPS, Chip

MAGIC = 0xE9
MAGIC_V2 = 0xEA
_MODES = {0: "qio", 1: "qout", 2: "dio", 3: "dout"}
_KB = 1024
_MB = 1024 * _KB
# Flash size by the upper nibble of the header's fourth byte.
_SIZES_ESP8266 = {
    0: 512 * _KB,
    1: 256 * _KB,
    2: _MB,
    3: 2 * _MB,
    4: 4 * _MB,
    5: 2 * _MB,
    6: 4 * _MB,
    8: 8 * _MB,
    9: 16 * _MB,
}
_SIZES_ESP32 = {n: _MB << n for n in range(8)}
# Where the Arduino core's eboot expects the application: the sector after its own.
EBOOT_APP = 0x1000
# Load addresses of an ESP8266: data RAM, instruction RAM, mapped flash; 0 is the flash segment of the second form.
_ESP8266_LOAD = ((0x3FFE8000, 0x40000000), (0x40100000, 0x40110000), (0x40200000, 0x40400000))


class ImageFault(ValueError):
    """The bytes are no whole image; the message says what is wrong, in plain words."""


@dataclass(frozen=True, slots=True)
class Segment:
    """`size` bytes at `offset` in the file, loaded to `address`."""

    address: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image whose structure is whole. `end`: first byte after it in the file, digest included.

    `chip` is the contract's name, or None when the id in the header is unknown (`chip_id` has it). `checksum_ok` and
    `digest_ok` (None: no digest announced) tell whether its content is.
    """

    magic: int
    chip: str | None
    chip_id: int | None
    mode: str | None
    flash_size: int | None
    frequency_nibble: int
    entry: int
    segments: tuple[Segment, ...]
    end: int
    checksum_ok: bool
    digest_ok: bool | None
    min_revision: int = 0
    max_revision: int = 0xFFFF

    @property
    def fault(self) -> str | None:
        """What is damaged, or None."""
        if not self.checksum_ok:
            return "its checksum is wrong"
        if self.digest_ok is False:
            return "its SHA-256 is wrong"
        return None


def has_header(content: bytes) -> bool:
    """True when the bytes begin as an image does."""
    return len(content) >= 8 and content[0] in (MAGIC, MAGIC_V2) and 0 < content[1] <= 16


def _segments(content: bytes, at: int, count: int) -> tuple[list[Segment], int]:
    out: list[Segment] = []
    for number in range(count):
        if at + 8 > len(content):
            raise ImageFault(f"it ends before segment {number + 1} of {count}")
        address, size = struct.unpack_from("<II", content, at)
        at += 8
        if size > len(content) - at:
            raise ImageFault(
                f"it is cut off: segment {number + 1} of {count} needs {size} bytes, {len(content) - at} are left"
            )
        out.append(Segment(address, at, size))
        at += size
    return out, at


def _sum(content: bytes, segments: list[Segment]) -> int:
    value = 0xEF
    for s in segments:
        value ^= checksum(content[s.offset : s.offset + s.size]) ^ 0xEF
    return value


def parse(content: bytes, *, esp8266: bool) -> Image:
    """Read the image at the start of `content`, in the ESP8266's layout or in the later chips'.

    Raises :class:`ImageFault` when it has no header or is cut off. Wrong checksums are told in the result.
    """
    if len(content) < 8 or content[0] not in (MAGIC, MAGIC_V2):
        raise ImageFault("it has no image header")
    magic, count, mode, size_frequency, entry = struct.unpack_from("<BBBBI", content)
    at = 8
    if magic == MAGIC_V2:
        if not esp8266:
            raise ImageFault("its header is the ESP8266's second form")
        flash_part, at = _segments(content, at, 1)
        if at + 8 > len(content) or content[at] != MAGIC:
            raise ImageFault("the second header is missing")
        count = content[at + 1]
        at += 8
    else:
        flash_part = []
    chip_id: int | None = None
    chip: str | None = "esp8266"
    revisions = (0, 0xFFFF)
    hashed = False
    if not esp8266:
        if len(content) < 24:
            raise ImageFault("it ends inside the header")
        chip_id, _, least, most = struct.unpack_from("<HBHH", content, 12)
        revisions = (least, most or 0xFFFF)
        hashed = content[23] == 1
        chip = next((c.name for c in CHIPS.values() if c.image_chip_id == chip_id), None)
        at = 24
    if not 0 < count <= 16:
        raise ImageFault(f"its header announces {count} segments")
    segments, at = _segments(content, at, count)
    if esp8266 and any(s.size and not any(a <= s.address < b for a, b in _ESP8266_LOAD) for s in segments):
        raise ImageFault("a segment has a load address that no ESP8266 has")
    at |= 15
    if at >= len(content):
        raise ImageFault("it ends before its checksum")
    checksum_ok = content[at] == _sum(content, segments)
    at += 1
    digest_ok: bool | None = None
    if hashed:
        if at + 32 > len(content):
            raise ImageFault("it ends before its SHA-256")
        digest_ok = hashlib.sha256(content[:at]).digest() == content[at : at + 32]
        at += 32
    sizes = _SIZES_ESP8266 if esp8266 else _SIZES_ESP32
    return Image(
        magic=magic,
        chip=chip,
        chip_id=chip_id,
        mode=_MODES.get(mode),
        flash_size=sizes.get(size_frequency >> 4),
        frequency_nibble=size_frequency & 15,
        entry=entry,
        segments=tuple(flash_part + segments),
        end=at,
        checksum_ok=checksum_ok,
        digest_ok=digest_ok,
        min_revision=revisions[0],
        max_revision=revisions[1],
    )


def identify(content: bytes, expected: Chip | None = None) -> Image:
    """Read an image whose chip is not certain: the layout of `expected` first, then the other.

    The layout whose checksum is right wins; when neither is, the expected one's result or fault counts.
    """
    first = expected is None or expected.image_chip_id is None
    best: Image | None = None
    fault: ImageFault | None = None
    for esp8266 in (first, not first):
        try:
            found = parse(content, esp8266=esp8266)
        except ImageFault as error:
            fault = fault or error
            continue
        if found.fault is None:
            return found
        best = best or found
    if best is not None:
        return best
    raise fault or ImageFault("it has no image header")


def inner_application(content: bytes) -> Image | None:
    """The application behind an Arduino-style eboot (ESP8266, at 0x1000 of the same file), None if there is none.

    Raises :class:`ImageFault` when one begins there and is cut off.
    """
    inner = content[EBOOT_APP:]
    return parse(inner, esp8266=True) if has_header(inner) else None


def set_flash_mode(content: bytes, mode: str) -> bytes:
    """The image with another flash mode in its header (``qio``, ``qout``, ``dio``, ``dout``), its digest made anew."""
    number = {name: n for n, name in _MODES.items()}[mode]
    changed = content[:2] + bytes([number]) + content[3:]
    image = identify(content)
    if image.digest_ok:
        body = changed[: image.end - 32]
        changed = body + hashlib.sha256(body).digest() + content[image.end :]
    return changed
