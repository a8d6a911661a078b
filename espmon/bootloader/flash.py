"""Geometry of serial NOR flash: sectors, runs of sectors, sizes from the JEDEC id."""

from __future__ import annotations

from collections.abc import Iterable

SECTOR = 0x1000
BLOCK = 0x10000
BLANK = b"\xff"

# JEDEC ids that mean "nobody answered".
NO_FLASH_IDS = frozenset({0x000000, 0xFFFFFF, 0xFFFF3F})
_ADESTO = 0x1F


def size_of_id(flash_id: int) -> int | None:
    """Bytes that a JEDEC id (`manufacturer | type << 8 | capacity << 16`) stands for; None if it says nothing.

    Capacity is a power of two by convention (0x12 = 256 KiB), 0x20 to 0x22 and 0x32 to 0x3A continue it; Adesto
    counts in the low five bits of the second byte, 0x04 being 512 KiB.
    """
    if flash_id in NO_FLASH_IDS:
        return None
    if flash_id & 0xFF == _ADESTO:
        code = flash_id >> 8 & 0x1F
        return 1 << (code + 15) if 3 <= code <= 10 else None
    code = flash_id >> 16 & 0xFF
    if 0x12 <= code <= 0x1C:
        return 1 << code
    if 0x20 <= code <= 0x22:
        return 1 << (code - 0x20 + 26)
    if 0x32 <= code <= 0x3A:
        return 1 << (code - 0x20)
    return None


def sectors_of(offset: int, size: int) -> range:
    """Addresses of the sectors that `[offset, offset + size)` touches."""
    if size <= 0:
        return range(0)
    first = offset // SECTOR * SECTOR
    return range(first, -(-(offset + size) // SECTOR) * SECTOR, SECTOR)


def runs(sectors: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted sector addresses as `(offset, size)` of neighbouring ones joined."""
    out: list[tuple[int, int]] = []
    for sector in sorted(sectors):
        if out and sum(out[-1]) == sector:
            out[-1] = (out[-1][0], out[-1][1] + SECTOR)
        else:
            out.append((sector, SECTOR))
    return out


def round_up(value: int, unit: int) -> int:
    """The next multiple of `unit`, `value` itself included."""
    return -(-value // unit) * unit
