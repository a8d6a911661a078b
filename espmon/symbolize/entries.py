"""The entries (DIEs) of `.debug_info`: units, attributes, strings, addresses and ranges. DWARF 2 to 5."""

from __future__ import annotations

import struct
from bisect import bisect_right

from espmon.symbolize.abbrev import (
    AT_ADDR_BASE,
    AT_COMP_DIR,
    AT_HIGH_PC,
    AT_LOW_PC,
    AT_RANGES,
    AT_RNGLISTS_BASE,
    AT_STMT_LIST,
    AT_STR_OFFSETS_BASE,
    FORM_IMPLICIT_CONST,
    ULEB_FORMS,
    Abbrev,
    size_of,
)
from espmon.symbolize.elf import ElfFile, clean
from espmon.symbolize.encoding import FAULTS, Budget, Malformed, length_at, offset_at, sleb, string_at, uleb

_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from

_ADDRX_FORMS = frozenset((0x1B, 0x29, 0x2A, 0x2B, 0x2C, 0x1F01))  # addresses by their index in .debug_addr
_STRX_FORMS = frozenset((0x1A, 0x25, 0x26, 0x27, 0x28, 0x1F02))  # strings by their index in .debug_str_offsets

_MAX_RANGES = 4096  # of one function; the largest seen in real firmware has 30


Node = tuple[tuple[tuple[int, int], ...], int | None, int, int, int]
"""An inlined call: (ranges, origin DIE or None, parent node or -1, call file, call line)."""


class Function:
    """A concrete function: `die` its offset, `ranges` its code, `nodes` (when read) what is inlined into it."""

    __slots__ = ("after", "body", "die", "nodes", "ranges")

    def __init__(self, die: int, ranges: tuple[tuple[int, int], ...], body: int, after: int) -> None:
        self.die = die
        self.ranges = ranges
        self.body = body  # offset of the first child, 0 when there is none
        self.after = after  # where the siblings go on, 0 when unknown
        self.nodes: list[Node] | None = None


class Unit:
    """One compile unit."""

    __slots__ = (
        "abbrev_offset", "abbrev_table", "addr_base", "address_size", "attributes", "base", "comp_dir", "die", "end", "functions", "functions_all",
        "offset", "offset_size", "painted", "rnglists_base", "scope_starts", "scopes", "stmt_list", "str_offsets_base", "version",
    )  # fmt: skip

    def __init__(
        self, offset: int, end: int, version: int, offset_size: int, address_size: int, die: int, abbrev_offset: int
    ) -> None:
        self.offset = offset
        self.end = end
        self.version = version
        self.offset_size = offset_size
        self.address_size = address_size
        self.die = die
        self.abbrev_offset = abbrev_offset
        self.abbrev_table: dict[int, Abbrev] | None = None
        self.attributes: dict[int, tuple[int, int]] | None = None  # of the unit's own DIE: attribute -> (form, value)
        self.base = 0
        self.comp_dir = ""
        self.stmt_list: int | None = None
        self.addr_base = 8
        self.str_offsets_base = 8
        self.rnglists_base = 12
        self.functions: list[Function] | None = None
        self.functions_all = False
        # by address: starts; (end, function)
        self.painted: tuple[list[int], list[tuple[int, Function]]] | None = None
        self.scopes: list[tuple[int, int, int]] | None = None
        self.scope_starts: list[int] = []


class Entries:
    """The units of one ELF's `.debug_info` and the fields of their DIEs; its methods raise any of FAULTS.

    `faults`: what was damaged, in words. `budget`: the work that this file may still ask for.
    """

    def __init__(self, elf: ElfFile) -> None:
        self.elf = elf
        self.info = elf.section(".debug_info")
        self._abbrev = elf.section(".debug_abbrev")
        self._str = elf.section(".debug_str")
        self._ranges = elf.section(".debug_ranges")
        self._rnglists = elf.section(".debug_rnglists")
        self._keep = elf.is_mapped
        self.faults: list[str] = []
        lines = len(elf.section(".debug_line"))
        size = len(self.info) + lines + len(self._abbrev) + len(self._ranges) + len(self._rnglists)
        # an honest file is visited about twice (index, then bodies); 8x and a megabyte are room enough
        self.budget = Budget(8 * size + (1 << 20))
        self._abbrev_cache: dict[tuple[int, int, int, int], dict[int, Abbrev]] = {}
        self._compiled: dict[tuple[int, bool, tuple[tuple[int, int, int], ...], int, int, int], Abbrev] = {}
        self.units: list[Unit] = []
        self._unit_starts: list[int] = []
        self._read_unit_headers()

    def _read_unit_headers(self) -> None:
        info = self.info
        at = 0
        try:
            while at < len(info):
                start = at
                length, offset_size, at = length_at(info, at)
                end = at + length
                if length == 0 or end > len(info):
                    raise Malformed(f"unit at {start:#x} runs past .debug_info")
                version = _U16(info, at)[0]
                at += 2
                if version >= 5:
                    kind = info[at]
                    address_size = info[at + 1]
                    at += 2
                    abbrev = offset_at(info, at, offset_size)
                    at += offset_size
                    if kind in (2, 6):  # type units: signature and offset
                        at += 8 + offset_size
                    elif kind in (4, 5):  # skeleton and split units: the unit's id
                        at += 8
                else:
                    abbrev = offset_at(info, at, offset_size)
                    at += offset_size
                    address_size = info[at]
                    at += 1
                if 2 <= version <= 5 and address_size in (4, 8):
                    self.units.append(Unit(start, end, version, offset_size, address_size, at, abbrev))
                at = end
        except FAULTS as fault:
            self.faults.append(f".debug_info: {fault}")
        self._unit_starts = [unit.offset for unit in self.units]

    def unit_of(self, offset: int) -> Unit:
        """The unit that the DIE at `offset` of .debug_info lies in. Raises Malformed."""
        at = bisect_right(self._unit_starts, offset) - 1
        if at < 0 or not self.units[at].die <= offset < self.units[at].end:
            raise Malformed("reference outside every unit")
        return self.units[at]

    def abbrevs(self, unit: Unit) -> dict[int, Abbrev]:
        if unit.abbrev_table is not None:
            return unit.abbrev_table
        offset = unit.abbrev_offset
        offset_size = unit.offset_size
        address_size = unit.address_size
        version = unit.version
        key = (offset, offset_size, address_size, version)
        table = self._abbrev_cache.get(key)
        if table is not None:
            unit.abbrev_table = table
            return table
        data = self._abbrev
        self.budget.spend(0)
        table = {}
        at = offset
        compiled = self._compiled
        try:
            while True:
                code = data[at]
                at += 1
                if code >= 0x80:
                    code, at = uleb(data, at - 1)
                if code == 0:
                    break
                tag = data[at]
                at += 1
                if tag >= 0x80:
                    tag, at = uleb(data, at - 1)
                children = data[at] != 0
                at += 1
                attributes = []
                while True:
                    attribute = data[at]
                    at += 1
                    if attribute >= 0x80:
                        attribute, at = uleb(data, at - 1)
                    form = data[at]
                    at += 1
                    if form >= 0x80:
                        form, at = uleb(data, at - 1)
                    value = 0
                    if form == FORM_IMPLICIT_CONST:
                        value, at = sleb(data, at)
                    if attribute == 0 and form == 0:
                        break
                    attributes.append((attribute, form, value))
                # most units of a program declare the same ones
                declared = (tag, children, tuple(attributes), offset_size, address_size, version)
                abbrev = compiled.get(declared)
                if abbrev is None:
                    abbrev = compiled[declared] = Abbrev(*declared)
                table[code] = abbrev
        finally:
            self.budget.spend(at - offset)
        self._abbrev_cache[key] = table
        unit.abbrev_table = table
        return table

    def open(self, unit: Unit) -> dict[int, tuple[int, int]]:
        """Reads the unit's own DIE once; returns its attributes (form, value)."""
        if unit.attributes is not None:
            return unit.attributes
        code, at = uleb(self.info, unit.die)
        abbrev = self.abbrevs(unit)[code]
        found, _ = self.attributes(unit, abbrev, at)
        unit.attributes = found
        for attribute, name in (
            (AT_ADDR_BASE, "addr_base"),
            (AT_STR_OFFSETS_BASE, "str_offsets_base"),
            (AT_RNGLISTS_BASE, "rnglists_base"),
        ):
            if attribute in found:
                setattr(unit, name, found[attribute][1])
        if AT_LOW_PC in found:
            unit.base = self.address(unit, *found[AT_LOW_PC])
        if AT_STMT_LIST in found:
            unit.stmt_list = found[AT_STMT_LIST][1]
        if AT_COMP_DIR in found:
            unit.comp_dir = clean(self.string(unit, *found[AT_COMP_DIR]))
        return found

    def skip(self, abbrev: Abbrev, unit: Unit, at: int) -> int:
        """Where the attributes that begin at `at` end."""
        if abbrev.size >= 0:
            return at + abbrev.size
        data = self.info
        for step in abbrev.steps:
            if step >= 0:
                at += step
            else:
                form = ~step
                if form == 0x18 or form == 0x09:  # exprloc, block
                    size = data[at]
                    at += 1
                    if size >= 0x80:
                        size, at = uleb(data, at - 1)
                    at += size
                elif form in ULEB_FORMS:
                    while data[at] >= 0x80:
                        at += 1
                    at += 1
                elif form == 0x08:  # string
                    stop = data.find(b"\0", at, unit.end)
                    if stop < 0:
                        raise Malformed("string without end")
                    at = stop + 1
                else:
                    at = self._skip_form(unit, form, at)
        return at

    def _skip_form(self, unit: Unit, form: int, at: int) -> int:
        data = self.info
        size = size_of(form, unit.offset_size, unit.address_size, unit.version)
        if size is not None:
            return at + size
        if form in ULEB_FORMS:
            return uleb(data, at)[1]
        if form == 0x18 or form == 0x09:
            size, at = uleb(data, at)
            return at + size
        if form == 0x08:
            return at + len(string_at(data, at)) + 1
        if form == 0x0A:  # block1
            return at + 1 + data[at]
        if form == 0x03:  # block2
            return at + 2 + int(_U16(data, at)[0])
        if form == 0x04:  # block4
            return at + 4 + int(_U32(data, at)[0])
        if form == 0x16:  # indirect
            form, at = uleb(data, at)
            if form in (0x16, FORM_IMPLICIT_CONST):
                raise Malformed("indirect form of no size")
            return self._skip_form(unit, form, at)
        raise Malformed(f"unknown form {form:#x}")

    def attributes(self, unit: Unit, abbrev: Abbrev, at: int) -> tuple[dict[int, tuple[int, int]], int]:
        """The attributes this package needs, as attribute -> (form, value), and where they end.

        A string's value is where it lies; a reference's is absolute in .debug_info.
        """
        data = self.info
        found: dict[int, tuple[int, int]] = {}
        for attribute, form, implicit, size in abbrev.attributes:
            if attribute == 0:
                at = at + size if size >= 0 else self._skip_form(unit, form, at)
                continue
            if form == 0x16:
                form, at = uleb(data, at)
                if form in (0x16, FORM_IMPLICIT_CONST):
                    raise Malformed("indirect form of no size")
            if form == 0x13 or form == 0x06 or (form == 0x01 and unit.address_size == 4):
                value = _U32(data, at)[0]
                at += 4
            elif form == 0x0B or form == 0x11 or form == 0x0C or form == 0x25 or form == 0x29:
                value = data[at]
                at += 1
            elif form == 0x05 or form == 0x12 or form == 0x26 or form == 0x2A:
                value = _U16(data, at)[0]
                at += 2
            elif form in (0x0E, 0x17, 0x1F) or (form == 0x10 and unit.version > 2):
                value = (_U64 if unit.offset_size == 8 else _U32)(data, at)[0]
                at += unit.offset_size
            elif form in (0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02):
                value, at = uleb(data, at)
            elif form == 0x0D:
                value, at = sleb(data, at)
            elif form == 0x08:
                value = at
                at += len(string_at(data, at)) + 1
            elif form == FORM_IMPLICIT_CONST:
                value = implicit
            elif form == 0x19:
                value = 1
            elif form == 0x28 or form == 0x2C:
                value = _U32(data, at)[0]
                at += 4
            elif form == 0x27 or form == 0x2B:
                value = data[at] | data[at + 1] << 8 | data[at + 2] << 16
                at += 3
            elif form == 0x07 or form == 0x14 or form == 0x01:
                value = _U64(data, at)[0]
                at += 8
            elif form == 0x10:
                value = (_U32 if unit.address_size == 4 else _U64)(data, at)[0]
                at += unit.address_size
            else:
                at = self._skip_form(unit, form, at)
                continue
            if 0x11 <= form <= 0x15:
                value += unit.offset
            found[attribute] = (form, value)
        if at > unit.end:
            raise Malformed("DIE runs past its unit")
        return found, at

    def string(self, unit: Unit, form: int, value: int) -> bytes:
        if form == 0x08:
            return string_at(self.info, value)
        if form == 0x0E:
            return string_at(self._str, value)
        if form == 0x1F:
            return string_at(self.elf.section(".debug_line_str"), value)
        if form in _STRX_FORMS:
            offsets = self.elf.section(".debug_str_offsets")
            at = unit.str_offsets_base + value * unit.offset_size
            return string_at(self._str, offset_at(offsets, at, unit.offset_size))
        raise Malformed(f"form {form:#x} is no string")

    def address(self, unit: Unit, form: int, value: int) -> int:
        if form in _ADDRX_FORMS:
            return int(_U32(self.elf.section(".debug_addr"), unit.addr_base + value * unit.address_size)[0])
        return value

    def ranges_of(self, unit: Unit, found: dict[int, tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """The code of a DIE, discarded functions (address 0) left out."""
        keep = self._keep
        if AT_RANGES in found:
            form, value = found[AT_RANGES]
            pairs = self._rnglist(unit, form, value) if unit.version >= 5 else self._range_list(unit, value)
            return tuple((low, high) for low, high in pairs if low < high and keep(low))
        if AT_LOW_PC not in found or AT_HIGH_PC not in found:
            return ()
        low = self.address(unit, *found[AT_LOW_PC])
        form, value = found[AT_HIGH_PC]
        high = self.address(unit, form, value) if form == 0x01 or form in _ADDRX_FORMS else low + value
        return ((low, high),) if low < high <= 1 << 32 and keep(low) else ()

    def _range_list(self, unit: Unit, at: int) -> list[tuple[int, int]]:
        """A list of .debug_ranges (DWARF 2 to 4)."""
        data = self._ranges
        base = unit.base
        out: list[tuple[int, int]] = []
        try:
            for _ in range(_MAX_RANGES):
                low = _U32(data, at)[0]
                high = _U32(data, at + 4)[0]
                at += 8
                if low == 0 and high == 0:
                    break
                if low == 0xFFFFFFFF:
                    base = high
                elif low < high:
                    out.append((low + base, high + base))
        finally:
            self.budget.spend(8 * len(out))
        return out

    def _rnglist(self, unit: Unit, form: int, value: int) -> list[tuple[int, int]]:
        """A list of .debug_rnglists (DWARF 5)."""
        data = self._rnglists
        at = value
        if form == 0x23:  # rnglistx: an index into the offsets behind the header
            base_at = unit.rnglists_base
            at = base_at + offset_at(data, base_at + value * unit.offset_size, unit.offset_size)
        base = unit.base
        out: list[tuple[int, int]] = []
        begin = at
        try:
            for _ in range(_MAX_RANGES):
                kind = data[at]
                at += 1
                if kind == 0:
                    break
                if kind == 4:  # offset_pair
                    low, at = uleb(data, at)
                    high, at = uleb(data, at)
                    out.append((low + base, high + base))
                elif kind == 7:  # start_length
                    low = _U32(data, at)[0]
                    size, at = uleb(data, at + 4)
                    out.append((low, low + size))
                elif kind == 6:  # start_end
                    out.append((_U32(data, at)[0], _U32(data, at + 4)[0]))
                    at += 8
                elif kind == 5:  # base_address
                    base = _U32(data, at)[0]
                    at += 4
                elif kind in (1, 2, 3):  # base_addressx, startx_endx, startx_length
                    first, at = uleb(data, at)
                    first = self.address(unit, 0x1B, first)
                    if kind == 1:
                        base = first
                        continue
                    second, at = uleb(data, at)
                    out.append((first, self.address(unit, 0x1B, second) if kind == 2 else first + second))
                else:
                    raise Malformed(f"range list entry {kind}")
        finally:
            self.budget.spend(at - begin)
        return out

    def past(self, abbrev: Abbrev, unit: Unit, at: int) -> int:
        """Where the siblings go on of a DIE whose attributes begin at `at`: its children are jumped over."""
        if not abbrev.children:
            return self.skip(abbrev, unit, at)
        return self.after(abbrev, unit, at) or self.end_of_children(unit, self.skip(abbrev, unit, at))

    def after(self, abbrev: Abbrev, unit: Unit, at: int) -> int:
        """Where the DIE's sibling stands (DW_AT_sibling), or 0. A reference backwards or out of the unit raises."""
        if abbrev.sibling_at is None:
            return 0
        distance, size = abbrev.sibling_at
        place = at + distance
        data = self.info
        if size == 4:
            after = unit.offset + _U32(data, place)[0]
        elif size == 2:
            after = unit.offset + _U16(data, place)[0]
        else:
            after = unit.offset + data[place]
        if not at < after <= unit.end:
            raise Malformed("sibling reference out of place")
        return int(after)

    def end_of_children(self, unit: Unit, at: int) -> int:
        """Where the siblings go on of a DIE whose first child stands at `at`."""
        data = self.info
        abbrevs = self.abbrevs(unit)
        end = unit.end
        begin = at
        depth = 1
        try:
            while at < end:
                start = at
                code = data[at]
                at += 1
                if code >= 0x80:
                    code, at = uleb(data, start)
                elif code == 0:
                    depth -= 1
                    if depth == 0:
                        break
                    continue
                abbrev = abbrevs[code]
                if abbrev.children:
                    after = self.after(abbrev, unit, at)
                    if after:
                        at = after
                        continue
                    depth += 1
                at = at + abbrev.size if abbrev.size >= 0 else self.skip(abbrev, unit, at)
        finally:
            self.budget.spend(at - begin)
        return at
