"""What stands at an address, from debug information, reading as little of it as the answer needs. DWARF 2 to 5.

Which unit an address belongs to comes first, then the functions of the one unit, then the body of the one function.
Where units claim the same address the one that came first in the file has it, as with llvm-symbolizer, so that answers can
be compared.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator

from espmon.symbolize.elf import ElfFile
from espmon.symbolize.encoding import FAULTS, Malformed, length_at, offset_at, string_at
from espmon.symbolize.entries import Entries, Function, Unit
from espmon.symbolize.functions import Functions
from espmon.symbolize.lines import LineTable
from espmon.symbolize.qualified import QualifiedNames

FrameTuple = tuple[str | None, str | None, str | None, int | None, int]
"""(function as a person reads it, linkage name, file, line, start of the function; 0 for inlined ones)"""


class DwarfReader:
    """Answers addresses from the debug information of one ELF."""

    def __init__(self, elf: ElfFile) -> None:
        self.elf = elf
        self.entries = Entries(elf)
        self.functions = Functions(self.entries)
        self.names = QualifiedNames(self.entries, self.functions)
        self._line = elf.section(".debug_line")
        self._str = elf.section(".debug_str")
        self._keep = elf.is_mapped
        self._lines: dict[tuple[int, str], LineTable | None] = {}
        self._bad: set[int] = set()
        self._range_lows: list[int] = []
        self._range_units: list[tuple[int, Unit]] = []
        self._read_ranges()

    @property
    def faults(self) -> list[str]:
        """What was damaged, in words."""
        return self.entries.faults

    def _read_ranges(self) -> None:
        """Which unit each address belongs to: .debug_aranges, and the units' own ranges where a unit has no set there.

        A set is read to its end: (0, 0) pairs in its middle are functions that the linker discarded, not its end.
        """
        ends: list[tuple[int, int, int]] = []  # (address, unit, +1 or -1)
        keep = self._keep
        seen = set()
        data = self.elf.section(".debug_aranges")
        at = 0
        try:
            while at + 12 <= len(data):
                start = at
                length, offset_size, at = length_at(data, at)
                end = at + length
                if end > len(data) or length == 0:
                    raise Malformed("set runs past .debug_aranges")
                at += 2
                offset = offset_at(data, at, offset_size)
                at += offset_size
                address_size = data[at]
                at += 2
                if address_size == 4:
                    tuple_start = start + ((at - start) + 7) // 8 * 8
                    body = data[tuple_start : tuple_start + (end - tuple_start) // 8 * 8]
                    used = False
                    for low, size in struct.iter_unpack("<II", body):
                        if size:
                            used = True
                            if keep(low):
                                ends.append((low, offset, 1))
                                ends.append((min(low + size, 1 << 32), offset, -1))
                    # a set with nothing but holes says that the unit was discarded, as long as it is a set of that unit
                    if used or body:
                        seen.add(offset)
                at = end
        except FAULTS as fault:
            self.entries.faults.append(f".debug_aranges: {fault}")
        by_offset = {unit.offset: unit for unit in self.entries.units}
        for unit in self.entries.units:
            if unit.offset in seen:
                continue
            try:
                found = self.entries.open(unit)
                for low, high in self.entries.ranges_of(unit, found):
                    ends.append((low, unit.offset, 1))
                    ends.append((high, unit.offset, -1))
            except FAULTS as fault:
                self._bad.add(unit.offset)
                self.entries.faults.append(f"unit at {unit.offset:#x}: {fault}")
        ends.sort(key=lambda e: e[0])
        lows = self._range_lows
        rows = self._range_units
        active: dict[int, int] = {}
        before = -1
        last = -1
        for address, offset, step in ends:
            if before < address and active:
                if rows and rows[-1][0] == before and last in active:
                    rows[-1] = (address, rows[-1][1])
                else:
                    last = min(active)
                    lows.append(before)
                    rows.append((address, by_offset[last]))
            if offset in by_offset:
                count = active.get(offset, 0) + step
                if count:
                    active[offset] = count
                else:
                    active.pop(offset, None)
            before = address

    def unit_at(self, address: int) -> Unit | None:
        """The compile unit that `address` belongs to."""
        at = bisect_right(self._range_lows, address) - 1
        if at < 0 or address >= self._range_units[at][0]:
            return None
        return self._range_units[at][1]

    def unit_ranges(self) -> Iterator[tuple[int, int, Unit]]:
        """Every (low, high, unit), sorted, not overlapping."""
        for low, (high, unit) in zip(self._range_lows, self._range_units, strict=True):
            yield low, high, unit

    def lines(self, unit: Unit) -> LineTable | None:
        """The unit's line table, or None when it has none that can be read."""
        self.entries.open(unit)
        if unit.stmt_list is None:
            return None
        key = (unit.stmt_list, unit.comp_dir)
        if key not in self._lines:
            table: LineTable | None = None
            try:
                table = LineTable(self._line, unit.stmt_list, unit.comp_dir, self._line_string, self._keep, self.entries.budget)
            except FAULTS as fault:
                self.entries.faults.append(f"line program at {unit.stmt_list:#x}: {fault}")
            self._lines[key] = table
        return self._lines[key]

    def forget_lines(self, unit: Unit) -> None:
        """Lets go of a unit's line table, which is by far the largest thing read."""
        if unit.stmt_list is not None:
            self._lines.pop((unit.stmt_list, unit.comp_dir), None)

    def _line_string(self, section: str, offset: int) -> bytes:
        return string_at(self._str if section == ".debug_str" else self.elf.section(section), offset)

    def frames(self, address: int) -> list[FrameTuple]:
        """What stands at `address`: inlined functions first, then the one they are in. Empty when no unit has it."""
        unit = self.unit_at(address)
        if unit is None or unit.offset in self._bad:
            return []
        try:
            table = self.lines(unit)
            key = table.key_at(address) if table else None
            file = table.file_name(key >> 32) if table and key is not None else None
            line = key & 0xFFFFFFFF if key is not None else 0
            function: Function | None = None
            try:
                function = self.functions.function_at(unit, address)
            except FAULTS as fault:
                self.entries.faults.append(f"unit at {unit.offset:#x}: {fault}")
            out: list[FrameTuple] = []
            if function is not None:
                for origin, call_file, call_line in self.functions.chain(unit, function, address):
                    name, linkage = self.names.safe_name(origin)
                    out.append((name, linkage, file, line or None, 0))
                    file = table.file_name(call_file) if table else None
                    line = call_line
                name, linkage = self.names.safe_name(function.die)
                out.append((name, linkage, file, line or None, _start_of(function, address)))
            elif file is not None:
                out.append((None, None, file, line or None, 0))
            return out
        except FAULTS as fault:
            self._bad.add(unit.offset)
            self.entries.faults.append(f"unit at {unit.offset:#x}: {fault}")
            return []


def _start_of(function: Function, address: int) -> int:
    """Where the function begins, for offsets; a part that was split off (``.cold``) counts from its own beginning."""
    for low, high in function.ranges:
        if low <= address < high:
            return low
    return 0
