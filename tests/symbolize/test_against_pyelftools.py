"""The two fast readers against pyelftools' own decoder, on the committed fixtures: every row, every function, every inlined call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from espmon.symbolize.dwarf import DwarfReader
from espmon.symbolize.elf import ElfFile
from tests.symbolize.fixtures import ELFS


@pytest.mark.parametrize("path", ELFS, ids=lambda path: path.stem)
def test_every_row_of_every_line_program(path: Path) -> None:
    reader = DwarfReader(ElfFile.open(path))
    rows = 0
    with path.open("rb") as stream:
        dwarf = ELFFile(stream).get_dwarf_info()
        for theirs in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(theirs)
            unit = reader.entries.unit_of(theirs.cu_die_offset)
            table = reader.lines(unit)
            if program is None:
                assert table is None
                continue
            assert table is not None
            # (address, file, line) of each sequence; of rows at one address the last stands, the end stands for nothing
            sequence: list[Any] = []
            for entry in program.get_entries():
                state = entry.state
                if state is None:
                    continue
                if not state.end_sequence:
                    sequence.append(state)
                    continue
                if sequence and reader.elf.is_mapped(sequence[0].address) and sequence[0].address < state.address:
                    last = {row.address: (row.file, row.line) for row in sequence if row.address < state.address}
                    for address, expected in last.items():
                        key = table.key_at(address)
                        assert key is not None
                        assert (key >> 32, key & 0xFFFFFFFF) == expected, hex(address)
                        rows += 1
                sequence = []
    assert rows > 300


def ranges_of(dwarf: Any, die: Any) -> list[tuple[int, int]]:
    attributes = die.attributes
    if "DW_AT_ranges" in attributes:
        low_pc = die.cu.get_top_DIE().attributes.get("DW_AT_low_pc")
        base = low_pc.value if low_pc else 0
        out = []
        for entry in dwarf.range_lists().get_range_list_at_offset(attributes["DW_AT_ranges"].value, die.cu):
            if hasattr(entry, "base_address"):
                base = entry.base_address
                continue
            offset = 0 if getattr(entry, "is_absolute", False) else base
            out.append((entry.begin_offset + offset, entry.end_offset + offset))
        return out
    if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
        low = attributes["DW_AT_low_pc"].value
        high = attributes["DW_AT_high_pc"]
        return [(low, high.value if high.form == "DW_FORM_addr" else low + high.value)]
    return []


@pytest.mark.parametrize("path", ELFS, ids=lambda path: path.stem)
def test_every_function_and_every_inlined_call(path: Path) -> None:
    reader = DwarfReader(ElfFile.open(path))
    mapped = reader.elf.is_mapped
    functions: dict[int, list[tuple[int, int]]] = {}
    inlined: dict[tuple[int, int], int] = {}
    with path.open("rb") as stream:
        dwarf = ELFFile(stream).get_dwarf_info()
        for unit in dwarf.iter_CUs():
            for die in unit.iter_DIEs():
                if die.tag in ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine"):
                    ranges = [span for span in ranges_of(dwarf, die) if span[0] < span[1] and mapped(span[0])]
                    if not ranges:
                        continue
                    if die.tag == "DW_TAG_subprogram":
                        functions[die.offset] = ranges
                    else:
                        origin = die.get_DIE_from_attribute("DW_AT_abstract_origin").offset
                        key = (origin, die.attributes["DW_AT_call_line"].value)
                        inlined[key] = inlined.get(key, 0) + 1
    ours: dict[int, list[tuple[int, int]]] = {}
    calls: dict[tuple[int, int], int] = {}
    for mine in reader.entries.units:
        for function in reader.functions.all_of(mine):
            ours[function.die] = list(function.ranges)
            for ranges_, origin_, _, _, line in reader.functions.body(mine, function):
                if ranges_ and origin_ is not None:
                    calls[origin_, line] = calls.get((origin_, line), 0) + 1
    assert ours == functions
    assert calls == inlined
    assert reader.faults == []
    assert len(functions) > 30
    assert sum(inlined.values()) > 15
