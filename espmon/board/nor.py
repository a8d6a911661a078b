"""A SPI NOR flash chip: bits are programmed to 0, erasing sets them to 1, and both take time.

Pure: the cells are any mutable byte buffer (a bytearray, a mapped file), times are returned in seconds, not waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SECTOR = 0x1000
HALF_BLOCK = 0x8000
BLOCK = 0x10000
PAGE = 256


class PowerCut(Exception):
    """The supply fails while cells change; what was changed before stays. Caught by the board, never seen outside."""


class Cells(Protocol):
    """What flash cells must be able to do: a bytearray and an mmap both can."""

    def __len__(self) -> int: ...
    def __getitem__(self, where: slice) -> bytes | bytearray: ...
    def __setitem__(self, where: slice, content: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashTimes:
    """Typical times of a W25Q32-class part, in seconds; `chip_per_mib` is what 4 MB boards show (8.7 s per 4 MB)."""

    sector: float = 0.045
    half_block: float = 0.120
    block: float = 0.150
    page: float = 0.0007
    chip_per_mib: float = 2.17
    read_per_mib: float = 0.25  # 20..40 MHz bus, quad or dual


class NorFlash:
    """The flash of a board. `size` is what is really there; `claimed` what its id says (a fake part claims more).

    Addresses beyond the real size alias to it, as they do on fake parts. `writable`: False for a write-protected part
    (commands are accepted and change nothing). `id_override` is for parts that answer nothing (0xFFFFFF) or nonsense.
    """

    def __init__(
        self,
        cells: Cells,
        *,
        maker: int = 0xEF,
        kind: int = 0x40,
        claimed: int | None = None,
        times: FlashTimes | None = None,
        writable: bool = True,
        id_override: int | None = None,
        slow: float = 1.0,
    ) -> None:
        self.cells = cells
        self.size = len(cells)
        self.claimed = claimed or self.size
        self.times = times or FlashTimes()
        self.writable = writable
        self.slow = slow
        self.status = 0
        self.erased_sectors = 0
        self.programmed_bytes = 0
        #: bytes that may still be programmed (erase commands that may still end) before the supply fails; None: no end
        self.budget: int | None = None
        self.erase_budget: int | None = None
        code = max(0, self.claimed.bit_length() - 1)
        if code > 0x19:
            code += 0x20 - 0x1A  # 64 MiB and up
        self.id = maker | kind << 8 | code << 16
        if id_override is not None:
            self.id = id_override

    @property
    def present(self) -> bool:
        """False when the part answers nothing: all reads are FF, nothing can be written."""
        return self.id not in (0xFFFFFF, 0x000000)

    def _pieces(self, address: int, length: int) -> list[tuple[int, int]]:
        """(address, length) of the real cells that an access touches: it wraps at the real size."""
        out = []
        while length > 0:
            address %= self.size
            here = min(length, self.size - address)
            out.append((address, here))
            address += here
            length -= here
        return out

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address`; wraps at the real size. FF when the part is absent."""
        if not self.present:
            return b"\xff" * length
        return b"".join(bytes(self.cells[a : a + n]) for a, n in self._pieces(address, length))

    def program(self, address: int, content: bytes) -> float:
        """Clear bits: each cell becomes old AND new. Returns the seconds that it takes."""
        pages = (address + len(content) - 1) // PAGE - address // PAGE + 1 if content else 0
        if self.present and self.writable:
            at = 0
            for a, n in self._pieces(address, len(content)):
                whole = n
                if self.budget is not None:
                    n = min(n, self.budget)
                    self.budget -= n
                new = content[at : at + n]
                old = bytes(self.cells[a : a + n])
                both = int.from_bytes(old, "little") & int.from_bytes(new, "little")
                self.cells[a : a + n] = both.to_bytes(n, "little")
                at += n
                self.programmed_bytes += n
                if n < whole or self.budget == 0:
                    raise PowerCut
        return pages * self.times.page * self.slow

    def _erase(self, address: int, length: int, seconds: float) -> float:
        address -= address % length
        if self.present and self.writable:
            for a, n in self._pieces(address, min(length, self.size)):
                if self.erase_budget is not None:
                    self.erase_budget -= 1
                    if self.erase_budget <= 0:
                        # half erased: some cells are 1 already, others not yet
                        self.cells[a : a + n // 2] = b"\xff" * (n // 2)
                        raise PowerCut
                self.cells[a : a + n] = b"\xff" * n
            self.erased_sectors += length // SECTOR
        return seconds * self.slow

    def erase_sector(self, address: int) -> float:
        """Set the 4 KiB sector that holds `address` to FF. Returns seconds."""
        return self._erase(address, SECTOR, self.times.sector)

    def erase_half_block(self, address: int) -> float:
        """Set the 32 KiB that hold `address` to FF. Returns seconds."""
        return self._erase(address, HALF_BLOCK, self.times.half_block)

    def erase_block(self, address: int) -> float:
        """Set the 64 KiB block that holds `address` to FF. Returns seconds."""
        return self._erase(address, BLOCK, self.times.block)

    def erase_chip(self) -> float:
        """Set everything to FF. Returns seconds."""
        return self._erase(0, self.size, self.times.chip_per_mib * self.size / 0x100000)

    def read_time(self, length: int) -> float:
        """Seconds that reading `length` bytes occupies the bus."""
        return self.times.read_per_mib * length / 0x100000
