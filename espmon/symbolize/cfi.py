"""Call frame information: which FDE covers an address is found here, pyelftools reads what it says.

Only the one FDE and its CIE are given to pyelftools, so that the first crash does not wait for thousands of others.
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from typing import Any

from espmon.symbolize.elf import ElfFile
from espmon.symbolize.prologue import FrameRow

_U32 = struct.Struct("<I").unpack_from

# columns of the return address and the stack and frame pointers: Xtensa a0, a1 (call0), a15; RISC-V ra, sp, s0
_COLUMNS = {"xtensa": (0, 1, 15), "riscv": (1, 2, 8)}
# Real entries have a few hundred bytes. Rows hold a copy of every register rule, so work grows with the square of this.
_MAX_ENTRY = 4096


class FrameTable:
    """The FDEs of .debug_frame and .eh_frame by address."""

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf
        self._rows: dict[int, list[dict[Any, Any]] | None] = {}
        found: list[tuple[int, int, str, int, int]] = []  # (low, high, section, FDE, CIE)
        for name in (".debug_frame", ".eh_frame"):
            try:
                self._scan(name, found)
            except (struct.error, IndexError):
                continue  # what was read before the damage stays
        # .debug_frame stands before .eh_frame at the same address
        found.sort(key=lambda row: (row[0], row[2] != ".debug_frame"))
        self._fdes = found
        self._lows = [row[0] for row in found]

    def _scan(self, name: str, found: list[tuple[int, int, str, int, int]]) -> None:
        data = self._elf.section(name)
        eh = name == ".eh_frame"
        base = next((s.address for s in self._elf.sections if s.name == name), 0)
        relative: dict[int, bool | None] = {}  # of each CIE: are addresses relative to where they stand?
        at = 0
        while at + 8 <= len(data):
            start = at
            length = _U32(data, at)[0]
            if length == 0:
                at += 4
                continue
            if length >= 0xFFFFFFF0 or start + 4 + length > len(data):
                return
            reference = _U32(data, at + 4)[0]
            at = start + 4 + length
            if reference == (0 if eh else 0xFFFFFFFF):
                relative[start] = _relative(data[start:at]) if eh else False
                continue
            cie = start + 4 - reference if eh else reference
            mode = relative.get(cie)
            if mode is None or start + 16 > len(data):
                continue
            low, size = struct.unpack_from("<II", data, start + 8)
            if mode:
                low = (low + base + start + 8) & 0xFFFFFFFF
            if size and self._elf.is_code(low):
                found.append((low, low + size, name, start, cie))

    def row_at(self, address: int) -> FrameRow | None:
        """The unwinding row before the instruction at `address`, or None where no FDE says anything usable."""
        at = bisect_right(self._lows, address) - 1
        if at >= 0 and self._lows[at] == (self._fdes[at - 1][0] if at else None):
            at -= 1
        if at < 0 or address >= self._fdes[at][1]:
            return None
        if at not in self._rows:
            self._rows[at] = self._decode(*self._fdes[at])
        table = self._rows[at]
        if not table:
            return None
        ra, sp, frame = _COLUMNS[self._elf.arch]
        chosen = None
        low = self._fdes[at][0]
        first = table[0]["pc"]
        for row in table:
            if row["pc"] - first + low > address:
                break
            chosen = row
        if chosen is None:
            return None
        try:
            rule = chosen["cfa"]
            if rule.reg not in (sp, frame) or rule.offset is None:
                return None
            saved = chosen.get(ra)
            return_at = saved.arg if saved is not None and saved.type == "OFFSET" else None
            frame_rule = chosen.get(frame)
            frame_saved = frame_rule.arg if frame_rule is not None and frame_rule.type == "OFFSET" else None
            return FrameRow(rule.offset, return_at, frame if rule.reg == frame else None, frame_saved)
        except (AttributeError, KeyError, TypeError):
            return None

    def _decode(self, low: int, high: int, name: str, fde: int, cie: int) -> list[dict[Any, Any]] | None:
        data = self._elf.section(name)
        try:
            head = data[cie : cie + 4 + _U32(data, cie)[0]]
            body = bytearray(data[fde : fde + 4 + _U32(data, fde)[0]])
            if len(head) > _MAX_ENTRY or len(body) > _MAX_ENTRY:
                return None
            eh = name == ".eh_frame"
            struct.pack_into("<I", body, 4, len(head) + 4 if eh else 0)
            from elftools.dwarf.callframe import FDE, CallFrameInfo
            from elftools.dwarf.structs import DWARFStructs

            structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=4)
            both = head + bytes(body)
            information = CallFrameInfo(io.BytesIO(both), len(both), 0, structs, for_eh_frame=eh)
            for entry in information.get_entries():
                if isinstance(entry, FDE):
                    table: list[dict[Any, Any]] = entry.get_decoded().table
                    return table
        except Exception:  # noqa: BLE001 - damaged call frame information: the code itself is read instead
            return None
        return None


def _relative(cie: bytes) -> bool | None:
    """Are the addresses of an .eh_frame CIE's FDEs relative to where they stand? None: in a form not handled here."""
    stop = cie.find(b"\0", 9)
    augmentation = cie[9:stop]
    if augmentation == b"":
        return False
    if augmentation[:1] != b"z":
        return None
    at = stop + 1
    for _ in range(3):  # code alignment, data alignment, return address column: one LEB128 each
        while cie[at] & 0x80:
            at += 1
        at += 1
    while cie[at] & 0x80:
        at += 1
    at += 1
    for letter in augmentation[1:]:
        if letter == ord("R"):
            encoding = cie[at]
            return {0x00: False, 0x03: False, 0x10: True, 0x1B: True}.get(encoding)
        if letter == ord("L"):
            at += 1
        elif letter == ord("P"):
            at += 5
    return False
