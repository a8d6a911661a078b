"""The ELF file itself: identity, sections, symbols.

The header, section table and symbol table of ELF32 are three fixed-size records; reading them with :mod:`struct` takes a
tenth of the time that importing a general ELF library does, and that time is most of what the first answer costs.
Numbers are those of the System V ABI's ELF chapters. Nothing here trusts an offset or a size of the file.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from espmon.errors import ElfUnusable

EM_XTENSA = 94
EM_RISCV = 243
# e_machine of the architectures that people mistake for theirs most often, for the message
_OTHER_MACHINES = {
    3: "x86 (32 bit)",
    8: "MIPS",
    20: "PowerPC",
    40: "Arm",
    62: "x86-64 (this computer?)",
    83: "AVR",
    183: "Arm 64 bit",
}

SHT_PROGBITS = 1
SHT_SYMTAB = 2
SHT_NOBITS = 8
_SHN_ABS = 0xFFF1
SHF_ALLOC = 2
SHF_EXECINSTR = 4
SHF_COMPRESSED = 0x800
ELFCOMPRESS_ZLIB = b"\x01\0\0\0"

# ELF files with full debug information are 1 to 40 MB; this only keeps a wrong file from filling the memory.
MAX_ELF_BYTES = 512 << 20
# An inflated debug section may not be larger than this.
MAX_SECTION_BYTES = 512 << 20

# Linker scripts mark where regions begin and end: _text_start, _etext, _flash_cache_start. They end a function, and are none.
_MARKER = re.compile(rb"_\w+_(?:start|end)$|__?(?:s|e|start_|end_)(?:text|data|bss|rodata)$|_(?:edata|etext|stext|end|heap_\w+)$")

_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_SECTION = struct.Struct("<10I")
_SYMBOL = struct.Struct("<IIIBBH")

_HINT_BUILD = "Give the .elf file that the build of exactly this firmware wrote (not the .bin)."


@dataclass(frozen=True, slots=True)
class Section:
    """One section: `address` and `size` in memory, `offset` and `stored` (bytes) in the file."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    stored: int
    size: int
    link: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells cheaply that a file was replaced: size in bytes, modification time in ns, inode (0 on some systems)."""

    size: int
    mtime_ns: int
    inode: int


def stamp_of(path: Path) -> Stamp:
    """The stamp of the file at `path`. Raises OSError."""
    status = os.stat(path)
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def clean(text: bytes | str, limit: int = 4096) -> str:
    """A name or path out of an ELF as harmless text: no control characters, no bidirectional overrides, bounded.

    An ELF is a file like any other that somebody sends: a name in it must not move a terminal's cursor.
    """
    if isinstance(text, bytes):
        text = text[:limit].decode("utf-8", "replace")
    if text.isascii() and text.isprintable():
        return text[:limit]
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:limit])


class ElfFile:
    """One ELF32 file for Xtensa or RISC-V, held in memory as it was when it was read.

    The file is read whole: a mapped file that a linker truncates under us would end the process (SIGBUS).
    """

    def __init__(self, path: Path, data: bytes, stamp: Stamp | None = None) -> None:
        """Reads headers only. Raises ElfUnusable with a plain reason."""
        self.path = path
        self.data = data
        self.stamp = stamp
        self._sha256: str | None = None
        self._symbols: SymbolTable | None = None
        self._inflated: dict[str, bytes] = {}
        self._kept: dict[str, bytes] = {}
        self._kept_raw: dict[int, bytes] = {}
        self._read_headers()

    @classmethod
    def open(cls, path: str | Path) -> ElfFile:
        """Reads the file at `path`. Raises ElfUnusable: missing, no permission, no ELF, foreign, truncated, changing."""
        where = Path(path)
        shown = clean(str(path))
        try:
            before = stamp_of(where)
            if not where.is_file():
                raise ElfUnusable(shown, "is not a regular file", _HINT_BUILD)
            if before.size > MAX_ELF_BYTES:
                raise ElfUnusable(shown, f"is larger than {MAX_ELF_BYTES >> 20} MB", _HINT_BUILD)
            with where.open("rb") as stream:
                data = stream.read(MAX_ELF_BYTES + 1)
        except FileNotFoundError:
            raise ElfUnusable(shown, "no such file", "Check the path; build the firmware first.") from None
        except (OSError, ValueError) as error:
            raise ElfUnusable(
                shown,
                f"cannot be read ({getattr(error, 'strerror', None) or error})",
                "Check the path and its permissions.",
            ) from None
        return cls(where, data, before)

    def _unusable(self, reason: str, hint: str | None = _HINT_BUILD) -> ElfUnusable:
        return ElfUnusable(clean(str(self.path)), reason, hint)

    def _read_headers(self) -> None:
        data = self.data
        if not data:
            raise self._unusable("is empty", "The build may still be writing it; it is read again when it changes.")
        if data[:4] != b"\x7fELF":
            hint = _HINT_BUILD
            if data[:1] == b"\xe9":
                raise self._unusable("is a firmware image (.bin), not an ELF file", hint)
            raise self._unusable("is not an ELF file", hint)
        if len(data) < _HEADER.size:
            raise self._unusable("is truncated in its header")
        if data[4] != 1 or data[5] != 1:
            raise self._unusable("is not a 32-bit little-endian ELF file, so it is not for an ESP chip")
        _, kind, machine, _, entry, _, shoff, _, _, _, _, shentsize, shnum, shstrndx = _HEADER.unpack_from(data)
        if machine == EM_XTENSA:
            self.arch = "xtensa"
        elif machine == EM_RISCV:
            self.arch = "riscv"
        else:
            raise self._unusable(
                f"is for {_OTHER_MACHINES.get(machine, f'another processor (ELF machine {machine})')}, not for Xtensa or RISC-V"
            )
        if kind != 2:
            raise self._unusable("is not a linked program (an object file or a library?)")
        self.entry = entry
        if shoff == 0:
            raise self._unusable("is stripped: it has no section table")
        if shentsize < _SECTION.size or shoff + shentsize > len(data):
            raise self._unusable("is truncated or damaged: its section table lies outside the file")
        if shnum == 0:  # more than 0xfeff sections: the count stands in the first entry
            shnum = _SECTION.unpack_from(data, shoff)[5]
        if shstrndx == 0xFFFF:
            shstrndx = _SECTION.unpack_from(data, shoff)[6]
        if shnum == 0 or shoff + shnum * shentsize > len(data):
            raise self._unusable("is truncated or damaged: its section table lies outside the file")
        raw = [_SECTION.unpack_from(data, shoff + i * shentsize) for i in range(shnum)]
        names = raw[shstrndx] if shstrndx < shnum else None
        sections: list[Section] = []
        for name_at, sh_type, flags, address, offset, size, link, _, _, _ in raw:
            name = ""
            if names is not None and name_at < names[5]:
                start = names[4] + name_at
                stop = data.find(b"\0", start, start + 256)
                name = clean(data[start : stop if stop >= 0 else start])
            stored = 0 if sh_type == SHT_NOBITS else max(0, min(size, len(data) - offset))
            sections.append(Section(name, sh_type, flags, address, offset, stored, size, link))
        self.sections = sections
        self._by_name = {s.name: s for s in reversed(sections)}
        # where code and data of the running program can lie; addresses elsewhere belong to discarded code
        mapped = sorted(
            (s.address, min(s.address + s.size, 1 << 32)) for s in sections if s.flags & SHF_ALLOC and s.size and s.kind
        )
        merged: list[tuple[int, int]] = []
        for low, high in mapped:
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        self.mapped = merged
        self._mapped_lows = [low for low, _ in merged]
        self.code = sorted(
            (s.address, s.address + s.stored, s.offset)
            for s in sections
            if s.flags & SHF_ALLOC and s.flags & SHF_EXECINSTR and s.stored and s.kind == SHT_PROGBITS
        )
        self._bodies = [memoryview(data)[offset : offset + high - low] for low, high, offset in self.code]
        self._code_lows = [low for low, _, _ in self.code]
        # Notes may be missing from old ELF files; a truncated file lacks its end, where the debug sections and the
        # section table lie, so that case has been told above already.
        self.truncated = any(s.stored < s.size for s in sections if s.kind not in (0, SHT_NOBITS))

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, lower-case hex: what ESP-IDF prints as ``ELF file SHA256``."""
        if self._sha256 is None:
            self._sha256 = hashlib.sha256(self.data).hexdigest()
        return self._sha256

    def is_mapped(self, address: int) -> bool:
        """True when the program has anything at `address`."""
        at = bisect_right(self._mapped_lows, address) - 1
        return at >= 0 and address < self.mapped[at][1]

    def is_code(self, address: int) -> bool:
        """True when `address` lies in an executable section."""
        at = bisect_right(self._code_lows, address) - 1
        return at >= 0 and address < self.code[at][1]

    def read(self, address: int, count: int) -> bytes:
        """Up to `count` bytes of code at `address`; fewer or none where the ELF has none."""
        at = bisect_right(self._code_lows, address) - 1
        if at < 0 or address >= self.code[at][1]:
            return b""
        start = address - self.code[at][0]
        return bytes(self._bodies[at][start : start + count])

    def release_debug_sections(self) -> None:
        """Lets go of the file's bytes but for code, call frame information and function symbols, for which it is asked on."""
        for name in (".debug_frame", ".eh_frame"):
            self._kept[name] = self.section(name)
        for section in self.sections:
            if section.kind == SHT_SYMTAB and section.link < len(self.sections):
                for each in (section, self.sections[section.link]):
                    self._kept_raw[each.offset] = self.raw(each)
        _ = self.sha256
        self._bodies = [memoryview(bytes(body)) for body in self._bodies]
        self.data = b""
        self._inflated.clear()

    def raw(self, section: Section) -> bytes:
        """The bytes of a section as they stand in the file; after release_debug_sections() only symbol tables have any."""
        if section.offset in self._kept_raw:
            return self._kept_raw[section.offset]
        return self.data[section.offset : section.offset + section.stored]

    def section(self, name: str) -> bytes:
        """The bytes of a section, inflated if it is compressed; empty when it is missing or damaged."""
        if name in self._kept:
            return self._kept[name]
        section = self._by_name.get(name)
        if section is None or section.kind == SHT_NOBITS:
            zname = "." + "z" + name[1:]  # old GNU form: .zdebug_info, "ZLIB" and a big-endian size before the stream
            old = self._by_name.get(zname)
            if old is not None and zname not in self._inflated:
                body = self.data[old.offset : old.offset + old.stored]
                self._inflated[zname] = _inflate(body[12:]) if body[:4] == b"ZLIB" else b""
            return self._inflated.get(zname, b"")
        if section.flags & SHF_COMPRESSED:
            if name not in self._inflated:
                body = self.data[section.offset : section.offset + section.stored]
                zlib_stream = len(body) > 12 and body[:4] == ELFCOMPRESS_ZLIB
                self._inflated[name] = _inflate(body[12:]) if zlib_stream else b""
            return self._inflated[name]
        return self.data[section.offset : section.offset + section.stored]

    def is_inflatable(self, name: str) -> bool:
        """False when the section is compressed in a way that is not read here (zstd)."""
        section = self._by_name.get(name)
        if section is None or not section.flags & SHF_COMPRESSED:
            return True
        return self.data[section.offset : section.offset + 4] == ELFCOMPRESS_ZLIB

    def has_section(self, name: str) -> bool:
        """True when the ELF has a non-empty section of this name."""
        section = self._by_name.get(name)
        return section is not None and section.stored > 0

    @property
    def is_windowed(self) -> bool:
        """True for Xtensa code of the windowed ABI (ESP32 and later): its functions begin with ENTRY. ESP8266: call0."""
        symbols = self.symbols
        step = max(1, len(symbols) // 64)
        sampled = range(0, len(symbols), step)
        entries = sum(1 for at in sampled if self.read(symbols[at].address, 1) == b"\x36")
        return self.arch == "xtensa" and entries * 4 > len(sampled)

    @property
    def symbols(self) -> SymbolTable:
        """Function symbols, read at first use."""
        if self._symbols is None:
            self._symbols = SymbolTable(self)
        return self._symbols


def _inflate(stream: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(stream, MAX_SECTION_BYTES)
    except zlib.error:
        return b""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function symbol: its linkage (mangled) name and where it lies, `end` exclusive."""

    name: str
    address: int
    end: int


class SymbolTable:
    """Function symbols by address. A symbol without a size ends where the next one, or its section, does."""

    def __init__(self, elf: ElfFile) -> None:
        section = next((s for s in elf.sections if s.kind == SHT_SYMTAB), None)
        self.starts: list[int] = []
        self._rows: list[tuple[int, int, int]] = []  # (address, end, offset of the name)
        self._strings = b""
        # (address, offset of the name): addresses that a linker script gave, among them those of the ROM's functions
        self.absolute: list[tuple[int, int]] = []
        if section is None or section.link >= len(elf.sections):
            return
        strings = elf.sections[section.link]
        self._strings = elf.raw(strings)
        body = elf.raw(section)
        body = body[: len(body) // _SYMBOL.size * _SYMBOL.size]
        code = {i for i, s in enumerate(elf.sections) if s.flags & SHF_ALLOC and s.flags & SHF_EXECINSTR}
        # (address, rank, order, size, name): of several at one address the best rank stands; see _rank
        found = []
        order = 0
        for name, value, size, info, _, shndx in _SYMBOL.iter_unpack(body):
            kind = info & 15
            if shndx == _SHN_ABS:
                self.absolute.append((value, name))
            elif kind in (2, 10) or (kind == 0 and shndx in code and name):  # STT_FUNC, STT_GNU_IFUNC; labels of assembly
                if shndx == 0 or shndx >= 0xFF00:
                    continue  # undefined, or in no section
                found.append((value, _rank(kind, info >> 4, size), order, size, name, shndx))
                order += 1
        found.sort()
        strings_ = self._strings
        rows = self._rows
        last = -1
        sized_until = 0
        for value, _, _, size, name, shndx in found:
            if value == last and not (rows and rows[-1][1] == value):
                continue
            marker = False
            if size == 0:
                if value < sized_until:
                    continue  # a label inside a function
                first = strings_[name : name + 2]
                if first in (b"$x", b"$d", b".L") or not first:
                    continue  # mapping symbols and local labels name no function
                stop = strings_.find(b"\0", name, name + 64)
                marker = stop > 0 and _MARKER.match(strings_, name, stop) is not None
            section_end = elf.sections[shndx].address + elf.sections[shndx].size if shndx < len(elf.sections) else value
            end = value if marker else value + size if size else section_end
            if rows and rows[-1][1] > value:
                rows[-1] = (rows[-1][0], value, rows[-1][2])
            if value == last:
                rows.pop()  # a marker at the same place
            rows.append((value, min(end, section_end) if section_end > value else end, name))
            last = value
            if size:
                sized_until = max(sized_until, value + size)
        self.starts = [row[0] for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, address: int) -> Symbol | None:
        """The function that `address` lies in, or None: never merely the nearest before it."""
        at = bisect_right(self.starts, address) - 1
        if at < 0 or address >= self._rows[at][1]:
            return None
        return self[at]

    def __getitem__(self, at: int) -> Symbol:
        start, end, name = self._rows[at]
        return Symbol(self.name(name), start, end)

    def name(self, offset: int) -> str:
        """The name at `offset` of the string table."""
        stop = self._strings.find(b"\0", offset, offset + 4096)
        return clean(self._strings[offset : stop if stop >= 0 else offset + 4096])


def _rank(kind: int, binding: int, size: int) -> int:
    """Which of several symbols at one address names it: functions before labels, sized first, global, weak, local."""
    return (0 if kind else 4) + (0 if size else 2) + (1 if binding == 0 else 0)
