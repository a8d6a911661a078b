"""The index: everything that an ELF's debug information says about addresses, as sorted arrays in one mapped file.

Built once per ELF content, in the background; later starts answer from it without reading the ELF's debug information.
Layout, little-endian, everything after the header in 32-bit words but for the strings:

    header   magic, SHA-256 of the ELF, counts, length of the strings, CRC-32 of what follows
    ranges   start of each range; its innermost frame, or 0xffffffff
    frames   function; file; line; the frame it is inlined into, or 0xffffffff      (four columns)
    functions name; linkage name; start (0: inlined)                                (three columns)
    symbols  start; end; linkage name                                               (three columns)
    strings  NUL-terminated UTF-8; offset 0 is the empty one
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import tempfile
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

from espmon.symbolize.dwarf import DwarfReader, FrameTuple
from espmon.symbolize.elf import ElfFile, Symbol
from espmon.symbolize.encoding import FAULTS
from espmon.symbolize.entries import Function, Node, Unit
from espmon.symbolize.lines import LineTable
from espmon.symbolize.ranges import painted

MAGIC = b"ESPMIDX2"
NONE = 0xFFFFFFFF
_HEADER = struct.Struct("<8s32s6I")
# What the cache folder may hold: each build of a firmware leaves an index of 0.3 to 1 MB.
MAX_FILES = 64
_MAX_INLINE = 64


class IndexDamaged(Exception):
    """The index file is not what was written. It is built again."""


class Index:
    """A loaded index. Thread-safe; lookups allocate nothing but their answer."""

    def __init__(self, body: bytes | mmap.mmap, sha256: bytes) -> None:
        """Raises IndexDamaged unless `body` is the whole and unchanged index of the ELF with this hash."""
        if len(body) < _HEADER.size:
            raise IndexDamaged("too short")
        magic, key, ranges, frames, functions, symbols, strings, crc = _HEADER.unpack_from(body)
        words = 2 * ranges + 4 * frames + 3 * functions + 3 * symbols
        if magic != MAGIC or key != sha256 or len(body) != _HEADER.size + 4 * words + strings:
            raise IndexDamaged("another format, another ELF, or cut short")
        view = memoryview(body)
        if zlib.crc32(view[_HEADER.size :]) != crc:
            raise IndexDamaged("changed since it was written")
        numbers = view[_HEADER.size : _HEADER.size + 4 * words]
        column: Sequence[int]
        if sys.byteorder == "little":
            column = numbers.cast("I")
        else:
            swapped = array("I", numbers.tobytes())
            swapped.byteswap()
            column = swapped
        at = 0
        columns: list[Sequence[int]] = []
        for count, width in ((ranges, 2), (frames, 4), (functions, 3), (symbols, 3)):
            for _ in range(width):
                columns.append(column[at : at + count])
                at += count
        self._starts, self._inner = columns[0:2]
        self._function, self._file, self._line, self._outer = columns[2:6]
        self._name, self._linkage, self._start = columns[6:9]
        self._symbol_starts, self._symbol_ends, self._symbol_names = columns[9:12]
        self._strings = bytes(view[_HEADER.size + 4 * words :])
        self._body = body  # keeps the mapping

    def _string(self, at: int) -> str | None:
        return self._strings[at : self._strings.index(b"\0", at)].decode("utf-8", "replace") or None

    def frames(self, address: int) -> list[FrameTuple]:
        """As DwarfReader.frames()."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return []
        frame = self._inner[at]
        out: list[FrameTuple] = []
        while frame != NONE and len(out) < _MAX_INLINE:
            function = self._function[frame]
            out.append((self._string(self._name[function]), self._string(self._linkage[function]), self._string(self._file[frame]), self._line[frame] or None, self._start[function]))
            frame = self._outer[frame]
        return out

    def symbol_at(self, address: int) -> Symbol | None:
        """As SymbolTable.at(), for addresses whose function the debug information does not name."""
        at = bisect_right(self._symbol_starts, address) - 1
        if at < 0 or address >= self._symbol_ends[at]:
            return None
        return Symbol(self._string(self._symbol_names[at]) or "", self._symbol_starts[at], self._symbol_ends[at])


class _Builder:
    """Collects ranges, frames, functions and strings, each once."""

    def __init__(self, reader: DwarfReader) -> None:
        self.reader = reader
        self.starts = array("I")
        self.inner = array("I")
        self.frames: dict[tuple[int, int, int, int], int] = {}
        self.functions: dict[tuple[int, int, int], int] = {(0, 0, 0): 0}
        self.strings: dict[str, int] = {"": 0}
        self.pool = bytearray(b"\0")
        self.covered: list[tuple[int, int]] = []  # where the debug information names the function

    def string(self, text: str | None) -> int:
        if not text:
            return 0
        at = self.strings.get(text)
        if at is None:
            at = len(self.pool)
            self.strings[text] = at
            self.pool += text.encode("utf-8", "replace") + b"\0"
        return at

    def function(self, name: str | None, linkage: str | None, start: int) -> int:
        key = (self.string(name), self.string(linkage), start)
        return self.functions.setdefault(key, len(self.functions))

    def frame(self, function: int, file: int, line: int, outer: int) -> int:
        key = (function, file, line if 0 < line < 1 << 31 else 0, outer)
        return self.frames.setdefault(key, len(self.frames))

    def range(self, start: int, frame: int) -> None:
        if self.inner and self.inner[-1] == frame:
            return
        if self.starts and self.starts[-1] == start:
            self.inner[-1] = frame
            return
        self.starts.append(start)
        self.inner.append(frame)

    def unit(self, unit: Unit, segments: list[tuple[int, int]], symbols: Sequence[int]) -> list[tuple[int, int, int]]:
        """(start, end, innermost frame) of one unit within `segments`, sorted."""
        reader = self.reader
        table = reader.lines(unit)
        functions = self._functions(unit, segments, table, symbols)
        rows = _rows(table)
        files: dict[int, int] = {}
        out: list[tuple[int, int, int]] = []
        paint_starts = [paint[0] for paint in functions]
        row_starts = [row[0] for row in rows]
        for low, high in segments:
            at = bisect_right(row_starts, low) - 1
            paint = bisect_right(paint_starts, low) - 1
            place = low
            while place < high:
                # the row and the function that hold at `place`, and where the first of them ends
                stop = high
                key = -1
                if at >= 0 and rows[at][1] > place:
                    key = rows[at][2]
                    stop = min(stop, rows[at][1])
                elif at + 1 < len(rows):
                    stop = min(stop, rows[at + 1][0])
                function, outer, named = 0, NONE, False
                if paint >= 0 and functions[paint][1] > place:
                    _, end, function, outer = functions[paint]
                    named = True
                    stop = min(stop, end)
                elif paint + 1 < len(functions):
                    stop = min(stop, functions[paint + 1][0])
                file = 0
                line = 0
                if key >= 0 and table is not None:
                    number = key >> 32
                    if number not in files:
                        files[number] = self.string(table.file_name(number))
                    file = files[number]
                    line = key & 0xFFFFFFFF
                if named or file:
                    out.append((place, stop, self.frame(function, file, line, outer)))
                place = stop
                while at + 1 < len(rows) and row_starts[at + 1] <= place:
                    at += 1
                while paint + 1 < len(functions) and paint_starts[paint + 1] <= place:
                    paint += 1
        return out

    def _functions(self, unit: Unit, segments: list[tuple[int, int]], table: LineTable | None, symbols: Sequence[int]) -> list[tuple[int, int, int, int]]:
        """(start, end, function, outer frame): what is innermost where, by the rule that the later DIE wins."""
        reader = self.reader
        try:
            functions = reader.functions.of(unit)
        except FAULTS as fault:
            reader.faults.append(f"unit at {unit.offset:#x}: {fault}")
            return []
        if not unit.functions_all and _uncovered(functions, segments, symbols):
            functions = reader.functions.all_of(unit)
        spans: list[tuple[int, int, int, int]] = []
        for function in functions:
            name, linkage = reader.names.safe_name(function.die)
            for low, high in function.ranges:
                start = low
                spans.append((low, high, self.function(name, linkage, start), NONE))
            try:
                nodes = reader.functions.body(unit, function)
            except FAULTS as fault:
                reader.faults.append(f"function at {function.die:#x}: {fault}")
                continue
            # the frame of the caller, as seen from each node: it depends on which range of the function a node lies in
            outers: dict[tuple[int, int], int] = {}
            for index, (ranges, origin, _, _, _) in enumerate(nodes):
                if not ranges:
                    continue
                name_, linkage_ = reader.names.safe_name(origin)
                inlined = self.function(name_, linkage_, 0)
                for low, high in ranges:
                    spans.append((low, high, inlined, self._outer(function, nodes, index, low, table, outers, name, linkage)))
        out: list[tuple[int, int, int, int]] = []
        for low, high, which in painted((low, high) for low, high, _, _ in spans):
            _, _, inner, outer = spans[which]
            if out and out[-1][1:] == (low, inner, outer):
                out[-1] = (out[-1][0], high, inner, outer)
            else:
                out.append((low, high, inner, outer))
        return out

    def _outer(self, function: Function, nodes: list[Node], index: int, address: int, table: LineTable | None, known: dict[tuple[int, int], int], name: str | None, linkage: str | None) -> int:
        start = next((low for low, high in function.ranges if low <= address < high), 0)
        key = (index, start)
        if key in known:
            return known[key]
        _, _, parent, call_file, call_line = nodes[index]
        file = self.string(table.file_name(call_file)) if table is not None else 0
        if parent < 0:
            outer = self.frame(self.function(name, linkage, start), file, call_line, NONE)
        else:
            above = self._outer(function, nodes, parent, address, table, known, name, linkage)
            name_, linkage_ = self.reader.names.safe_name(nodes[parent][1])
            outer = self.frame(self.function(name_, linkage_, 0), file, call_line, above)
        known[key] = outer
        return outer


def _uncovered(functions: list[Function], segments: list[tuple[int, int]], starts: Sequence[int]) -> bool:
    """True when a function symbol begins in a place of the unit that none of `functions` covers."""
    covered = sorted(span for function in functions for span in function.ranges)
    lows = [low for low, _ in covered]
    for low, high in segments:
        for at in range(bisect_left(starts, low), bisect_left(starts, high)):
            inside = bisect_right(lows, starts[at]) - 1
            if inside < 0 or covered[inside][1] <= starts[at]:
                return True
    return False


def _rows(table: LineTable | None) -> list[tuple[int, int, int]]:
    """(start, end, key) of a line table's rows, sorted, without overlap, neighbours with the same key joined."""
    out: list[tuple[int, int, int]] = []
    if table is None:
        return out
    before = 0
    for low, high, addresses, keys in table.sequences:
        first = max(low, before)  # see LineTable.key_at: an address belongs to the first sequence that ends after it
        before = max(before, high)
        if first >= high:
            continue
        begin = first
        current = -1
        for address, key in zip(addresses, keys, strict=True):
            if address <= begin:
                if current < 0 or address >= low:
                    current = key
                continue
            if key != current:
                if address >= high:
                    break
                if current >= 0:
                    out.append((begin, address, current))
                begin = address
                current = key
        if current >= 0 and begin < high:
            out.append((begin, high, current))
    return out


def build(elf: ElfFile) -> bytes:
    """The index of `elf` as bytes. Damaged units are left out; never raises for what the ELF holds.

    `elf` must still have its debug sections.
    """
    reader = DwarfReader(elf)
    builder = _Builder(reader)
    table = elf.symbols
    by_unit: dict[int, tuple[Unit, list[tuple[int, int]]]] = {}
    for low, high, unit in reader.unit_ranges():
        by_unit.setdefault(unit.offset, (unit, []))[1].append((low, high))
    found: list[tuple[int, int, int]] = []
    for unit, segments in by_unit.values():
        try:
            found += builder.unit(unit, segments, table.starts)
        except FAULTS as fault:
            reader.faults.append(f"unit at {unit.offset:#x}: {fault}")
        # read once, needed no more: what stays is in the builder
        unit.functions = None
        unit.functions_all = False
        unit.painted = None
        reader.forget_lines(unit)
    found.sort()
    names = [key[0] for key in builder.functions]
    functions_of = [key[0] for key in builder.frames]
    outers = [key[3] for key in builder.frames]
    covered: list[tuple[int, int]] = []
    place = 0
    for start, end, frame in found:
        if start > place:
            builder.range(place, NONE)
        builder.range(max(start, place), frame)
        place = max(place, end)
        outermost = frame
        for _ in range(_MAX_INLINE):
            if outers[outermost] == NONE:
                break
            outermost = outers[outermost]
        if names[functions_of[outermost]]:
            if covered and covered[-1][1] == start:
                covered[-1] = (covered[-1][0], end)
            else:
                covered.append((start, end))
    builder.range(place, NONE)
    lows = [low for low, _ in covered]
    symbols: list[tuple[int, int, int]] = []
    for at in range(len(table)):
        symbol = table[at]
        inside = bisect_right(lows, symbol.address) - 1
        if inside < 0 or covered[inside][1] < symbol.end:
            symbols.append((symbol.address, min(symbol.end, NONE), builder.string(symbol.name)))
    columns = [
        builder.starts,
        builder.inner,
        *(array("I", column) for column in (zip(*builder.frames, strict=True) if builder.frames else [()] * 4)),
        *(array("I", column) for column in zip(*builder.functions, strict=True)),
        *(array("I", column) for column in (zip(*symbols, strict=True) if symbols else [()] * 3)),
    ]
    if sys.byteorder == "big":
        for column in columns:
            column.byteswap()
    body = b"".join([*(column.tobytes() for column in columns), bytes(builder.pool)])
    counts = (len(builder.starts), len(builder.frames), len(builder.functions), len(symbols), len(builder.pool))
    return _HEADER.pack(MAGIC, bytes.fromhex(elf.sha256), *counts, zlib.crc32(body)) + body


def default_index_dir() -> Path:
    """Where indexes are kept for this user."""
    from platformdirs import user_cache_path

    return user_cache_path("espmon", appauthor=False) / "index"


def index_path(folder: Path, sha256: str) -> Path:
    """The file that holds the index of the ELF with this hash."""
    return folder / f"{sha256[:40]}.idx"


def load(folder: Path, sha256: str) -> Index | None:
    """The index of the ELF with this hash, or None when there is none or it is damaged (then it is removed)."""
    path = index_path(folder, sha256)
    try:
        with path.open("rb") as stream:
            body = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    try:
        index = Index(body, bytes.fromhex(sha256))
    except (IndexDamaged, ValueError, struct.error):
        with contextlib.suppress(OSError, BufferError):
            body.close()
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the oldest unused ones go first, see _prune
    return index


def store(folder: Path, sha256: str, body: bytes) -> bool:
    """Writes an index so that others see all of it or none. False when the folder cannot be written."""
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as stream:
            temporary = Path(stream.name)
            stream.write(body)
        os.replace(temporary, index_path(folder, sha256))
        _prune(folder)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return False
    return True


def _prune(folder: Path) -> None:
    """Removes the longest unused indexes beyond MAX_FILES, and temporary files that a killed process left."""
    files = []
    for path in folder.iterdir():
        if path.suffix == ".idx" or path.name.startswith(".new-"):
            with contextlib.suppress(OSError):
                files.append((path.stat().st_mtime_ns, path))
    files.sort(reverse=True)
    for _, path in files[MAX_FILES:]:
        with contextlib.suppress(OSError):
            path.unlink()
