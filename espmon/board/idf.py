"""ESP-IDF's second-stage boot loader: reads the partition table and the OTA data, checks the application and starts it.

Pure. The ROM started it because an image with its name is where this chip boots from. Its texts and the order of its
attempts are ESP-IDF's (v5): the selected slot, then the ones below it, the factory application, the ones above; when none
is whole it restarts the chip.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from espmon.board.firmware import run_firmware
from espmon.board.image import Image, read_image
from espmon.board.machine import Drain, Machine, Part, Program, Sleep
from espmon.board.nor import SECTOR, NorFlash

NAME = b"2nd stage bootloader"
_TABLE, _ENTRIES, _ENTRY = 0x8000, 95, 32  # IDF documentation: 0xC00 bytes, 32 per entry, the last for the digest
_APP, _DATA = 0, 1
_FACTORY, _OTA_0, _OTA_LAST = 0x00, 0x10, 0x1F
_OTADATA = 0x00
RESTART = 3  # the boot loader restarts the chip: reset reason "by software, of the system"
_CHECK_S = 0.05  # per slot that is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One entry of the partition table."""

    kind: int
    subtype: int
    offset: int
    size: int
    label: str


def is_second_stage(image: Image) -> bool:
    """True for an image that names itself ESP-IDF's boot loader, as the real one does."""
    return any(NAME in segment.content for segment in image.segments)


def partition_table(entries: list[Partition]) -> bytes:
    """The table as it lies in flash, its digest included, FF up to the sector's end."""
    import hashlib

    out = b"".join(
        struct.pack("<HBBII16sI", 0x50AA, e.kind, e.subtype, e.offset, e.size, e.label.encode(), 0) for e in entries
    )
    digest = hashlib.md5(out, usedforsecurity=False).digest()
    return (out + b"\xeb\xeb" + b"\xff" * 14 + digest).ljust(SECTOR, b"\xff")


def read_table(flash: NorFlash) -> list[Partition] | str:
    """The partitions, or what the boot loader says is wrong with the table."""
    import hashlib

    out: list[Partition] = []
    for number in range(_ENTRIES):
        entry = flash.read(_TABLE + number * _ENTRY, _ENTRY)
        magic, kind, subtype, offset, size, label = struct.unpack_from("<HBBII16s", entry)
        if magic == 0xEBEB:
            found = hashlib.md5(flash.read(_TABLE, number * _ENTRY), usedforsecurity=False).digest()
            return out if found == entry[16:] else "Failed to verify partition table"
        if magic == 0xFFFF and number:
            return out
        if magic != 0x50AA:
            return f"partition {number} invalid magic number 0x{magic:x}"
        out.append(
            Partition(kind=kind, subtype=subtype, offset=offset, size=size, label=label.split(b"\0")[0].decode("latin-1"))
        )
    return out


def _selected(flash: NorFlash, table: list[Partition], slots: int) -> int | None:
    """The OTA slot that the OTA data choose; None when they choose none."""
    data = next((p for p in table if p.kind == _DATA and p.subtype == _OTADATA), None)
    if data is None or not slots:
        return None
    best = 0
    for at in (data.offset, data.offset + SECTOR):
        entry = flash.read(at, 32)
        (sequence,), (check,) = struct.unpack_from("<I", entry), struct.unpack_from("<I", entry, 28)
        if sequence not in (0, 0xFFFFFFFF) and zlib.crc32(entry[:4], 0xFFFFFFFF) == check:
            best = max(best, sequence)
    return (best - 1) % slots if best else None


def otadata(sequence: int) -> bytes:
    """One entry of the OTA data: slot `sequence` - 1, modulo their number, is chosen."""
    raw = struct.pack("<I", sequence)
    return raw + b"\xff" * 24 + struct.pack("<I", zlib.crc32(raw, 0xFFFFFFFF))


def second_stage(machine: Machine) -> Program:
    """Runs the boot loader; returns the cause of the next reset."""
    machine.rate = machine.divided(115200.0)

    def log(letter: str, tag: str, text: str) -> Part:
        machine.say(f"{letter} ({int(machine.now * 1000) % 100000}) {tag}: {text}\r\n".encode())
        yield Drain()

    yield from log("I", "boot", "ESP-IDF v5.1.2 " + NAME.decode())
    table = read_table(machine.flash)
    if isinstance(table, str):
        yield from log("E", "flash_parts", table)
        if not table.startswith("Failed"):
            yield from log("E", "boot", "Failed to verify partition table")
        yield from log("E", "boot", "load partition table error!")
        yield Sleep(_CHECK_S)
        return RESTART
    yield from log("I", "boot", "Partition Table:")
    for number, p in enumerate(table):
        yield from log("I", "boot", f"{number:2} {p.label:<16} {p.kind:02x} {p.subtype:02x} {p.offset:08x} {p.size:08x}")
    factory = next((p for p in table if p.kind == _APP and p.subtype == _FACTORY), None)
    slots = [p for p in table if p.kind == _APP and _OTA_0 <= p.subtype <= _OTA_LAST]
    chosen = _selected(machine.flash, table, len(slots))
    first = chosen if chosen is not None else (-1 if factory is not None else 0)
    for index in [*range(first, -2, -1), *range(first + 1, len(slots))]:
        part = factory if index < 0 else slots[index]
        if part is None:
            continue
        yield Sleep(_CHECK_S)
        image = read_image(machine.flash, machine.silicon, part.offset)
        problem = _problem(image, part)
        if problem is None:
            yield from log("I", "boot", f"Loaded app from partition at offset 0x{part.offset:x}")
            return (yield from run_firmware(machine, image))
        yield from log("E", "esp_image", problem)
        name = "Factory app partition" if index < 0 else f"OTA app partition slot {index}"
        yield from log("E", "boot", f"{name} is not bootable")
    yield from log("E", "boot", "No bootable app partitions in the partition table")
    yield Sleep(_CHECK_S)
    return RESTART


def _problem(image: Image, part: Partition) -> str | None:
    if image.fault == "magic":
        return f"image at 0x{part.offset:x} has invalid magic byte (nothing flashed here?)"
    if image.fault == "checksum":
        return f"Checksum failed. Calculated 0x{image.checksum:x} read 0x{image.stored:x}"
    if image.fault == "hash":
        return "Image hash failed - image is corrupt"
    if image.fault is not None:
        return f"invalid segment length 0x{image.first_word:x}"
    if image.end > part.offset + part.size:
        return f"Image length {image.end - part.offset} doesn't fit in partition length {part.size}"
    return None
