"""``.debug_info``: compile units, the functions in them, and what is inlined where. DWARF 2 to 5.

Two things make this fast. Nothing is read that the question does not need: a unit's ranges first, then the functions of
the one unit, then the body of the one function. And every abbreviation is compiled once into how far to skip.

Where the same address belongs to several units or functions the choice is the one that llvm-symbolizer makes, so that
answers can be compared: of units the one that came first in the file, of functions and inlined calls the last in tree
order.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from espmon.symbolize.elf import ElfFile, clean
from espmon.symbolize.lines import FAULTS, Budget, LineTable, Malformed, sleb, string_at, uleb
from espmon.symbolize.ranges import painted

_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from

# tags (DWARF 5, section 7.5.3)
TAG_CLASS = 0x02
TAG_ENUM = 0x04
TAG_LEXICAL_BLOCK = 0x0B
TAG_STRUCT = 0x13
TAG_UNION = 0x17
TAG_INLINED = 0x1D
TAG_MODULE = 0x1E
TAG_SUBPROGRAM = 0x2E
TAG_NAMESPACE = 0x39
_SCOPES = frozenset(
    (TAG_CLASS, TAG_ENUM, TAG_STRUCT, TAG_UNION, TAG_MODULE, TAG_SUBPROGRAM, TAG_NAMESPACE, 0x38)
)  # 0x38: interface
_TYPES = frozenset((TAG_CLASS, TAG_STRUCT, TAG_UNION))

# attributes
AT_SIBLING = 0x01
AT_NAME = 0x03
AT_STMT_LIST = 0x10
AT_LOW_PC = 0x11
AT_HIGH_PC = 0x12
AT_COMP_DIR = 0x1B
AT_ABSTRACT_ORIGIN = 0x31
AT_SPECIFICATION = 0x47
AT_RANGES = 0x55
AT_CALL_FILE = 0x58
AT_CALL_LINE = 0x59
AT_LINKAGE_NAME = 0x6E
AT_STR_OFFSETS_BASE = 0x72
AT_ADDR_BASE = 0x73
AT_RNGLISTS_BASE = 0x74
AT_MIPS_LINKAGE_NAME = 0x2007
_WANTED = frozenset((
    AT_NAME, AT_STMT_LIST, AT_LOW_PC, AT_HIGH_PC, AT_COMP_DIR, AT_ABSTRACT_ORIGIN, AT_SPECIFICATION, AT_RANGES, AT_CALL_FILE,
    AT_CALL_LINE, AT_LINKAGE_NAME, AT_STR_OFFSETS_BASE, AT_ADDR_BASE, AT_RNGLISTS_BASE, AT_MIPS_LINKAGE_NAME,
))  # fmt: skip

# forms whose size does not depend on the content; -1 stands for the unit's offset size, -2 for its address size
_FIXED = {
    0x01: -2, 0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x0E: -1, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8, 0x17: -1, 0x19: 0,
    0x1C: 4, 0x1D: -1, 0x1E: 16, 0x1F: -1, 0x20: 8, 0x21: 0, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4, 0x29: 1, 0x2A: 2,
    0x2B: 3, 0x2C: 4, 0x1F20: -1, 0x1F21: -1,
}  # fmt: skip
_ULEB_FORMS = frozenset((0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02))
FORM_IMPLICIT_CONST = 0x21

# what a walk does with a DIE
_LEAF = 0  # skip it
_TREE = 1  # skip it and its children
_SCOPE = 2  # namespace, class: remember where it lies; children skipped
_NAMESPACE = 3  # walk into it
_FUNCTION = 4  # a subprogram with code
_INLINED = 5
_BLOCK = 6  # lexical block and the like: its children belong to the parent

_MAX_NAME = 8192  # characters, scopes included; templates get long, but not that long
_UNNAMED = "{unnamed type}"
_MAX_RANGES = 4096  # of one function; the largest seen in real firmware has 30
_MAX_DEPTH = 256


class Abbrev:
    """One abbreviation, compiled: its tag, what a walk does with it, and how to skip or read its attributes."""

    __slots__ = ("attributes", "children", "kind", "sibling_at", "size", "steps", "tag")

    def __init__(
        self,
        tag: int,
        children: bool,
        attributes: tuple[tuple[int, int, int], ...],
        offset_size: int,
        address_size: int,
        version: int,
    ) -> None:
        self.tag = tag
        self.children = children
        # (attribute or 0 when nobody asks for it, form, implicit value, size or -1); unwanted neighbours of known size joined
        plan: list[tuple[int, int, int, int]] = []
        # steps to skip it: a non-negative number of bytes, or ~form for a form that must be looked at
        steps: list[int] = []
        run = 0
        self.sibling_at: tuple[int, int] | None = None  # (distance from after the code, size)
        names = set()
        for attribute, form, implicit in attributes:
            names.add(attribute)
            size = _size_of(form, offset_size, address_size, version)
            if attribute == AT_SIBLING and not steps and size is not None and 0x11 <= form <= 0x13:
                self.sibling_at = (run, size)
            if size is None:
                if run:
                    steps.append(run)
                    run = 0
                steps.append(~form)
            else:
                run += size
            if attribute in _WANTED:
                plan.append((attribute, form, implicit, -1))
            elif size is not None and plan and plan[-1][3] >= 0:
                plan[-1] = (0, 0, 0, plan[-1][3] + size)
            else:
                plan.append((0, form, 0, -1 if size is None else size))
        self.attributes = plan
        self.size = run if not steps else -1
        if run and steps:
            steps.append(run)
        self.steps = steps
        if tag == TAG_SUBPROGRAM and (AT_LOW_PC in names or AT_RANGES in names):
            self.kind = _FUNCTION
        elif tag == TAG_INLINED:
            self.kind = _INLINED
        elif tag in (TAG_NAMESPACE, TAG_MODULE):
            self.kind = _NAMESPACE if children else _LEAF
        elif not children:
            self.kind = _LEAF
        elif tag in _SCOPES:
            self.kind = _SCOPE
        elif tag in (TAG_LEXICAL_BLOCK, 0x32, 0x25, 0x22):  # try_block, catch_block, with_stmt
            self.kind = _BLOCK
        else:
            self.kind = _TREE


def _size_of(form: int, offset_size: int, address_size: int, version: int) -> int | None:
    if form == 0x10:  # ref_addr: an address in DWARF 2, an offset since
        return address_size if version <= 2 else offset_size
    size = _FIXED.get(form)
    if size == -1:
        return offset_size
    if size == -2:
        return address_size
    return size


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


FrameTuple = tuple[str | None, str | None, str | None, int | None, int]
"""(function as a person reads it, linkage name, file, line, start of the function; 0 for inlined ones)"""


class DwarfReader:
    """Answers addresses from the debug information of one ELF, reading as little of it as each answer needs."""

    def __init__(self, elf: ElfFile) -> None:
        self.elf = elf
        self.info = elf.section(".debug_info")
        self._abbrev = elf.section(".debug_abbrev")
        self._line = elf.section(".debug_line")
        self._str = elf.section(".debug_str")
        self._ranges = elf.section(".debug_ranges")
        self._rnglists = elf.section(".debug_rnglists")
        self._keep = elf.is_mapped
        self.faults: list[str] = []
        size = len(self.info) + len(self._line) + len(self._abbrev) + len(self._ranges) + len(self._rnglists)
        # an honest file is visited about twice (index, then bodies); 8x and a megabyte are room enough
        self.budget = Budget(8 * size + (1 << 20))
        self._abbrev_cache: dict[tuple[int, int, int, int], dict[int, Abbrev]] = {}
        self._compiled: dict[tuple[int, bool, tuple[tuple[int, int, int], ...], int, int, int], Abbrev] = {}
        self._lines: dict[tuple[int, str], LineTable | None] = {}
        self._names: dict[int, tuple[str | None, str | None]] = {}
        self._inner: dict[int, list[tuple[int, int, int]]] = {}
        self._bad: set[int] = set()
        self.units: list[Unit] = []
        self._unit_starts: list[int] = []
        self._read_unit_headers()
        self._range_lows: list[int] = []
        self._range_units: list[tuple[int, Unit]] = []
        self._read_ranges()

    # --- units ------------------------------------------------------------------------------------------------------

    def _read_unit_headers(self) -> None:
        info = self.info
        at = 0
        try:
            while at < len(info):
                start = at
                length = _U32(info, at)[0]
                at += 4
                offset_size = 4
                if length == 0xFFFFFFFF:
                    length = _U64(info, at)[0]
                    at += 8
                    offset_size = 8
                end = at + length
                if length == 0 or end > len(info):
                    raise Malformed(f"unit at {start:#x} runs past .debug_info")
                version = _U16(info, at)[0]
                at += 2
                kind = 1
                if version >= 5:
                    kind = info[at]
                    address_size = info[at + 1]
                    at += 2
                    abbrev = (_U64 if offset_size == 8 else _U32)(info, at)[0]
                    at += offset_size
                    if kind in (2, 6):  # type units: signature and offset
                        at += 8 + offset_size
                    elif kind in (4, 5):  # skeleton and split units: the unit's id
                        at += 8
                else:
                    abbrev = (_U64 if offset_size == 8 else _U32)(info, at)[0]
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

    def _abbrevs(self, unit: Unit) -> dict[int, Abbrev]:
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

    def _open(self, unit: Unit) -> dict[int, tuple[int, int]]:
        """Reads the unit's own DIE once; returns its attributes (form, value)."""
        if unit.attributes is not None:
            return unit.attributes
        code, at = uleb(self.info, unit.die)
        abbrev = self._abbrevs(unit)[code]
        found, _ = self._attributes(unit, abbrev, at)
        unit.attributes = found
        for attribute, name in (
            (AT_ADDR_BASE, "addr_base"),
            (AT_STR_OFFSETS_BASE, "str_offsets_base"),
            (AT_RNGLISTS_BASE, "rnglists_base"),
        ):
            if attribute in found:
                setattr(unit, name, found[attribute][1])
        if AT_LOW_PC in found:
            unit.base = self._address(unit, *found[AT_LOW_PC])
        if AT_STMT_LIST in found:
            unit.stmt_list = found[AT_STMT_LIST][1]
        if AT_COMP_DIR in found:
            unit.comp_dir = clean(self._string(unit, *found[AT_COMP_DIR]))
        return found

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
                length = _U32(data, at)[0]
                at += 4
                wide = length == 0xFFFFFFFF
                if wide:
                    length = _U64(data, at)[0]
                    at += 8
                end = at + length
                if end > len(data) or length == 0:
                    raise Malformed("set runs past .debug_aranges")
                at += 2
                offset = (_U64 if wide else _U32)(data, at)[0]
                at += 8 if wide else 4
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
            self.faults.append(f".debug_aranges: {fault}")
        by_offset = {unit.offset: unit for unit in self.units}
        for unit in self.units:
            if unit.offset in seen:
                continue
            try:
                found = self._open(unit)
                for low, high in self._ranges_of(unit, found):
                    ends.append((low, unit.offset, 1))
                    ends.append((high, unit.offset, -1))
            except FAULTS as fault:
                self._bad.add(unit.offset)
                self.faults.append(f"unit at {unit.offset:#x}: {fault}")
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

    # --- attributes -------------------------------------------------------------------------------------------------

    def _skip(self, abbrev: Abbrev, unit: Unit, at: int) -> int:
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
                elif form in _ULEB_FORMS:
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
        size = _size_of(form, unit.offset_size, unit.address_size, unit.version)
        if size is not None:
            return at + size
        if form in _ULEB_FORMS:
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

    def _attributes(self, unit: Unit, abbrev: Abbrev, at: int) -> tuple[dict[int, tuple[int, int]], int]:
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

    def _string(self, unit: Unit, form: int, value: int) -> bytes:
        if form == 0x08:
            return string_at(self.info, value)
        if form == 0x0E:
            return string_at(self._str, value)
        if form == 0x1F:
            return string_at(self.elf.section(".debug_line_str"), value)
        if form in (0x1A, 0x25, 0x26, 0x27, 0x28, 0x1F02):
            offsets = self.elf.section(".debug_str_offsets")
            at = unit.str_offsets_base + value * unit.offset_size
            return string_at(self._str, (_U64 if unit.offset_size == 8 else _U32)(offsets, at)[0])
        raise Malformed(f"form {form:#x} is no string")

    def _address(self, unit: Unit, form: int, value: int) -> int:
        if form in (0x1B, 0x29, 0x2A, 0x2B, 0x2C, 0x1F01):
            return int(_U32(self.elf.section(".debug_addr"), unit.addr_base + value * unit.address_size)[0])
        return value

    def _ranges_of(self, unit: Unit, found: dict[int, tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """The code of a DIE, discarded functions (address 0) left out."""
        keep = self._keep
        if AT_RANGES in found:
            form, value = found[AT_RANGES]
            pairs = self._rnglist(unit, form, value) if unit.version >= 5 else self._range_list(unit, value)
            return tuple((low, high) for low, high in pairs if low < high and keep(low))
        if AT_LOW_PC not in found or AT_HIGH_PC not in found:
            return ()
        low = self._address(unit, *found[AT_LOW_PC])
        form, value = found[AT_HIGH_PC]
        high = self._address(unit, form, value) if form in (0x01, 0x1B, 0x29, 0x2A, 0x2B, 0x2C, 0x1F01) else low + value
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
            at = (
                unit.rnglists_base
                + (_U64 if unit.offset_size == 8 else _U32)(data, unit.rnglists_base + value * unit.offset_size)[0]
            )
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
                    first = self._address(unit, 0x1B, first)
                    if kind == 1:
                        base = first
                        continue
                    second, at = uleb(data, at)
                    out.append((first, self._address(unit, 0x1B, second) if kind == 2 else first + second))
                else:
                    raise Malformed(f"range list entry {kind}")
        finally:
            self.budget.spend(at - begin)
        return out

    # --- functions --------------------------------------------------------------------------------------------------

    def functions(self, unit: Unit) -> list[Function]:
        """The concrete functions of a unit in tree order, bodies unread. Raises any of FAULTS."""
        if unit.functions is not None:
            return unit.functions
        self._open(unit)
        functions: list[Function] = []
        scopes: list[tuple[int, int, int]] = []
        self._walk(unit, unit.die, unit.end, functions, scopes)
        unit.scopes = scopes
        unit.scope_starts = [start for start, _, _ in scopes]
        unit.functions = functions
        return functions

    def _walk(
        self,
        unit: Unit,
        at: int,
        end: int,
        functions: list[Function],
        scopes: list[tuple[int, int, int]],
    ) -> None:
        """Collects functions and naming scopes below the DIE at `at`, which ends at `end` at the latest.

        Namespaces are walked into, everything else is jumped over. A scope is (start, end, index of the one around it or
        -1), in tree order.
        """
        data = self.info
        abbrevs = self._abbrevs(unit)
        base = unit.offset
        self.budget.spend(min(end, unit.end) - at)
        code, at = uleb(data, at)
        abbrev = abbrevs[code]
        if not abbrev.children:
            return
        at = self._skip(abbrev, unit, at)
        open_: list[int] = []  # indexes into scopes of the namespaces that we are in
        skip = self._skip
        while at < end:
            start = at
            code = data[at]
            at += 1
            if code >= 0x80:
                code, at = uleb(data, start)
            elif code == 0:
                if not open_:
                    return
                index = open_.pop()
                scopes[index] = (scopes[index][0], at, scopes[index][2])
                continue
            abbrev = abbrevs[code]
            kind = abbrev.kind
            if kind == 0:
                at = at + abbrev.size if abbrev.size >= 0 else skip(abbrev, unit, at)
                continue
            if kind == 4:
                found, body = self._attributes(unit, abbrev, at)
                ranges = self._ranges_of(unit, found)
                after = self._after(abbrev, unit, at, base) if abbrev.children else body
                function = Function(start, ranges, body if abbrev.children else 0, after)
                if ranges:
                    functions.append(function)
                if after == 0:
                    after = self._end_of_children(unit, body)
                if abbrev.children:
                    scopes.append((start, after, open_[-1] if open_ else -1))
                at = after
                continue
            if kind == 3:
                if len(open_) > _MAX_DEPTH:
                    raise Malformed("namespaces nested without end")
                scopes.append((start, end, open_[-1] if open_ else -1))
                open_.append(len(scopes) - 1)
                at = skip(abbrev, unit, at)
                continue
            # something with children that need not be looked at now
            if not abbrev.children:
                at = skip(abbrev, unit, at)
                continue
            after = self._after(abbrev, unit, at, base)
            if after == 0:
                after = self._end_of_children(unit, skip(abbrev, unit, at))
            if kind == 2:
                scopes.append((start, after, open_[-1] if open_ else -1))
            at = after

    def _after(self, abbrev: Abbrev, unit: Unit, at: int, base: int) -> int:
        """Where the DIE's sibling stands (DW_AT_sibling), or 0. A reference backwards or out of the unit raises."""
        if abbrev.sibling_at is None:
            return 0
        distance, size = abbrev.sibling_at
        place = at + distance
        data = self.info
        if size == 4:
            after = base + _U32(data, place)[0]
        elif size == 2:
            after = base + _U16(data, place)[0]
        else:
            after = base + data[place]
        if not at < after <= unit.end:
            raise Malformed("sibling reference out of place")
        return int(after)

    def _end_of_children(self, unit: Unit, at: int) -> int:
        """Where the siblings go on of a DIE whose first child stands at `at`."""
        data = self.info
        abbrevs = self._abbrevs(unit)
        base = unit.offset
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
                    after = self._after(abbrev, unit, at, base)
                    if after:
                        at = after
                        continue
                    depth += 1
                at = at + abbrev.size if abbrev.size >= 0 else self._skip(abbrev, unit, at)
        finally:
            self.budget.spend(at - begin)
        return at

    def body(
        self, unit: Unit, function: Function
    ) -> list[Node]:
        """What is inlined into `function`, in tree order. Raises any of FAULTS."""
        if function.nodes is not None:
            return function.nodes
        nodes: list[Node] = []
        if function.body:
            data = self.info
            abbrevs = self._abbrevs(unit)
            base = unit.offset
            end = function.after or unit.end
            at = function.body
            parents = [-1]
            skip = self._skip
            try:
                while at < end:
                    start = at
                    code = data[at]
                    at += 1
                    if code >= 0x80:
                        code, at = uleb(data, start)
                    elif code == 0:
                        parents.pop()
                        if not parents:
                            break
                        continue
                    abbrev = abbrevs[code]
                    kind = abbrev.kind
                    if kind == 0:
                        at = at + abbrev.size if abbrev.size >= 0 else skip(abbrev, unit, at)
                    elif kind == 5:
                        found, at = self._attributes(unit, abbrev, at)
                        origin = found.get(AT_ABSTRACT_ORIGIN)
                        call_file = found.get(AT_CALL_FILE, (0, 0))[1]
                        call_line = found.get(AT_CALL_LINE, (0, 0))[1]
                        nodes.append(
                            (self._ranges_of(unit, found), origin[1] if origin else None, parents[-1], call_file, call_line)
                        )
                        if abbrev.children:
                            parents.append(len(nodes) - 1)
                    elif kind == 6:
                        at = skip(abbrev, unit, at)
                        parents.append(parents[-1])
                    elif abbrev.children:
                        after = self._after(abbrev, unit, at, base)
                        at = after or self._end_of_children(unit, skip(abbrev, unit, at))
                    else:
                        at = skip(abbrev, unit, at)
                    if len(parents) > _MAX_DEPTH:
                        raise Malformed("blocks nested without end")
            finally:
                self.budget.spend(at - function.body)
        function.nodes = nodes
        return nodes

    # --- names ------------------------------------------------------------------------------------------------------

    def name_of(self, die: int) -> tuple[str | None, str | None]:
        """(qualified name, linkage name) of the subprogram at `die`, following where it was declared.

        The qualified name is built from the tree: ``ns::Class<int>::method``.
        """
        known = self._names.get(die)
        if known is not None:
            return known
        name: bytes | None = None
        linkage: bytes | None = None
        place = die
        last = die
        for _ in range(16):
            unit = self.unit_of(place)
            self._open(unit)
            code, at = uleb(self.info, place)
            found, _ = self._attributes(unit, self._abbrevs(unit)[code], at)
            if linkage is None:
                for attribute in (AT_LINKAGE_NAME, AT_MIPS_LINKAGE_NAME):
                    if attribute in found:
                        linkage = self._string(unit, *found[attribute])
                        break
            if name is None and AT_NAME in found:
                name = self._string(unit, *found[AT_NAME])
            last = place
            follow = found.get(AT_SPECIFICATION) or found.get(AT_ABSTRACT_ORIGIN)
            if follow is None or follow[1] == place:
                break
            place = follow[1]
        result: tuple[str | None, str | None]
        if name is None:
            result = (None, clean(linkage) if linkage else None)
        else:
            scope = self._scope_name(last)
            short = clean(name)
            full = (f"{scope}::{short}" if scope else short)[-_MAX_NAME:]
            if full.endswith(_UNNAMED + "::operator()"):  # GCC names no closure types, demanglers write {lambda(int)#1}
                full = full.removesuffix(_UNNAMED + "::operator()") + "{lambda}::operator()"
            result = (full, clean(linkage) if linkage else full)
        self._names[die] = result
        return result

    def _scope_name(self, die: int) -> str:
        """The names of the namespaces, classes and functions around the DIE at `die`, joined by ``::``."""
        unit = self.unit_of(die)
        if unit.scopes is None:
            self.functions(unit)
        scopes = unit.scopes or []
        starts = unit.scope_starts
        parts: list[str] = []
        for _ in range(_MAX_DEPTH):
            # in tree order: what encloses the DIE is the last scope that begins before it, or one around that one
            index = bisect_right(starts, die - 1) - 1
            while index >= 0 and scopes[index][1] <= die:
                index = scopes[index][2]
            if index < 0:
                break
            inner = scopes[index][0]
            chain = []
            while index >= 0:
                chain.append(scopes[index][0])
                index = scopes[index][2]
            parts += [self._short_name(unit, start) for start in reversed(chain)]
            scopes = self._inside(unit, inner)
            starts = [start for start, _, _ in scopes]
        return "::".join(part for part in parts if part)

    def _inside(self, unit: Unit, die: int) -> list[tuple[int, int, int]]:
        """The naming scopes directly below the DIE at `die`; blocks count as part of their function."""
        scopes = self._inner.get(die)
        if scopes is None:
            scopes = []
            self._collect_scopes(unit, die, scopes)
            self._inner[die] = scopes
        return scopes

    def _collect_scopes(self, unit: Unit, die: int, scopes: list[tuple[int, int, int]]) -> None:
        data = self.info
        code, at = uleb(data, die)
        abbrev = self._abbrevs(unit)[code]
        at = self._skip(abbrev, unit, at)
        if not abbrev.children:
            return
        begin = at
        depth = 1
        try:
            while at < unit.end:
                start = at
                code, at = uleb(data, at)
                if code == 0:
                    depth -= 1
                    if depth == 0:
                        break
                    continue
                abbrev = self._abbrevs(unit)[code]
                if not abbrev.children:
                    at = self._skip(abbrev, unit, at)
                    continue
                if abbrev.kind in (_BLOCK, _INLINED):
                    at = self._skip(abbrev, unit, at)
                    depth += 1
                    continue
                after = self._after(abbrev, unit, at, unit.offset) or self._end_of_children(
                    unit, self._skip(abbrev, unit, at)
                )
                if abbrev.tag in _SCOPES:
                    scopes.append((start, after, -1))
                at = after
        finally:
            self.budget.spend(at - begin)

    def _short_name(self, unit: Unit, die: int) -> str:
        code, at = uleb(self.info, die)
        abbrev = self._abbrevs(unit)[code]
        found, _ = self._attributes(unit, abbrev, at)
        if AT_NAME in found:
            return clean(self._string(unit, *found[AT_NAME]))
        origin = found.get(AT_ABSTRACT_ORIGIN) or found.get(AT_SPECIFICATION)
        if origin is not None and origin[1] != die:
            name = self.name_of(origin[1])[0]
            return name.rpartition("::")[2] if name else ""
        if abbrev.tag == TAG_NAMESPACE:
            return "(anonymous namespace)"
        return _UNNAMED if abbrev.tag in _TYPES else ""

    # --- answers ----------------------------------------------------------------------------------------------------

    def lines(self, unit: Unit) -> LineTable | None:
        """The unit's line table, or None when it has none that can be read."""
        self._open(unit)
        if unit.stmt_list is None:
            return None
        key = (unit.stmt_list, unit.comp_dir)
        if key not in self._lines:
            table: LineTable | None = None
            try:
                table = LineTable(self._line, unit.stmt_list, unit.comp_dir, self._line_string, self._keep, self.budget)
            except FAULTS as fault:
                self.faults.append(f"line program at {unit.stmt_list:#x}: {fault}")
            self._lines[key] = table
        return self._lines[key]

    def forget_lines(self, unit: Unit) -> None:
        """Lets go of a unit's line table, which is by far the largest thing read."""
        if unit.stmt_list is not None:
            self._lines.pop((unit.stmt_list, unit.comp_dir), None)

    def _line_string(self, section: str, offset: int) -> bytes:
        return string_at(self._str if section == ".debug_str" else self.elf.section(section), offset)

    def function_at(self, unit: Unit, address: int) -> Function | None:
        """The concrete function that `address` lies in."""
        found = self._painted_at(unit, address)
        if found is None and not unit.functions_all:
            before = len(self.functions(unit))
            if len(self.all_functions(unit)) != before:
                unit.painted = None
                found = self._painted_at(unit, address)
        return found

    def _painted_at(self, unit: Unit, address: int) -> Function | None:
        if unit.painted is None:
            functions = [(low, high, function) for function in self.functions(unit) for low, high in function.ranges]
            spans = painted((low, high) for low, high, _ in functions)
            unit.painted = [start for start, _, _ in spans], [(end, functions[which][2]) for _, end, which in spans]
        starts, rows = unit.painted
        at = bisect_right(starts, address) - 1
        return rows[at][1] if at >= 0 and address < rows[at][0] else None

    def all_functions(self, unit: Unit) -> list[Function]:
        """The unit's functions, those inside of others included: lambdas and methods of local classes.

        They are rare and finding them means visiting every DIE, so that is done only when an address asks for it.
        """
        functions = self.functions(unit)
        if unit.functions_all:
            return functions
        unit.functions_all = True
        known = {function.die for function in functions}
        nested: list[Function] = []
        data = self.info
        abbrevs = self._abbrevs(unit)
        end = unit.end
        at = unit.die
        self.budget.spend(end - at)
        skip = self._skip
        try:
            while at < end:
                start = at
                code = data[at]
                at += 1
                if code == 0:
                    continue
                if code >= 0x80:
                    code, at = uleb(data, start)
                abbrev = abbrevs[code]
                if abbrev.kind != 4:
                    at = at + abbrev.size if abbrev.size >= 0 else skip(abbrev, unit, at)
                    continue
                first = at
                found, at = self._attributes(unit, abbrev, at)
                if start not in known:
                    ranges = self._ranges_of(unit, found)
                    if ranges:
                        nested.append(Function(start, ranges, at if abbrev.children else 0, self._after(abbrev, unit, first, unit.offset)))
        except FAULTS as fault:
            self.faults.append(f"unit at {unit.offset:#x}: {fault}")
        functions.extend(nested)
        return functions

    def chain(self, unit: Unit, function: Function, address: int) -> Iterable[tuple[int | None, int, int]]:
        """(origin DIE, call file, call line) of each inlined call around `address`, innermost first."""
        nodes = self.body(unit, function)
        inner = -1
        for index, node in enumerate(nodes):
            for low, high in node[0]:
                if low <= address < high:
                    inner = index
                    break
        while inner >= 0:
            _, origin, parent, call_file, call_line = nodes[inner]
            yield origin, call_file, call_line
            inner = parent

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
                function = self.function_at(unit, address)
            except FAULTS as fault:
                self.faults.append(f"unit at {unit.offset:#x}: {fault}")
            out: list[FrameTuple] = []
            if function is not None:
                for origin, call_file, call_line in self.chain(unit, function, address):
                    name, linkage = self.safe_name(origin)
                    out.append((name, linkage, file, line or None, 0))
                    file = table.file_name(call_file) if table else None
                    line = call_line
                name, linkage = self.safe_name(function.die)
                out.append((name, linkage, file, line or None, _start_of(function, address)))
            elif file is not None:
                out.append((None, None, file, line or None, 0))
            return out
        except FAULTS as fault:
            self._bad.add(unit.offset)
            self.faults.append(f"unit at {unit.offset:#x}: {fault}")
            return []

    def safe_name(self, die: int | None) -> tuple[str | None, str | None]:
        """name_of(), or (None, None) where the names are damaged."""
        if die is None:
            return None, None
        try:
            return self.name_of(die)
        except FAULTS:
            return None, None


def _start_of(function: Function, address: int) -> int:
    """Where the function begins, for offsets; a part that was split off (``.cold``) counts from its own beginning."""
    for low, high in function.ranges:
        if low <= address < high:
            return low
    return 0
