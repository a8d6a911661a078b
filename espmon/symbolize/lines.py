"""``.debug_line``: from an address to a file and a line, DWARF 2 to 5.

The state machine of DWARF 5, section 6.2, as one loop over bytes with two 256-entry tables for the special opcodes: rows
are most of what a firmware's debug information is, and this loop decides how fast an index is built.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable

from espmon.symbolize.elf import clean
from espmon.symbolize.encoding import Budget, Malformed, length_at, offset_at, sleb, string_at, uleb

_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from


def is_absolute(path: str) -> bool:
    """True for POSIX and Windows absolute paths alike: the ELF may have been built elsewhere."""
    return path[:1] in ("/", "\\") or (len(path) > 2 and path[1] == ":" and path[2] in "/\\" and path[0].isalpha())


def joined(*parts: str) -> str:
    """Path parts with a separator between them where there is none; nothing is normalised, as llvm-symbolizer does."""
    out = ""
    for part in parts:
        if not part:
            continue
        if out and out[-1] not in "/\\":
            out += "/"
        out += part
    return out


LineStrings = Callable[[str, int], bytes]


class LineTable:
    """The rows of one line program.

    `sequences`: (low, high, row addresses, row keys), sorted by `high`; a key is ``file << 32 | line``. Sequences of
    discarded functions (their addresses are 0) are left out by `keep`.
    """

    __slots__ = ("_dirs", "_files", "_highs", "_names", "comp_dir", "rows", "sequences", "version")

    def __init__(
        self,
        section: bytes,
        offset: int,
        comp_dir: str,
        strings: LineStrings,
        keep: Callable[[int], bool],
        budget: Budget,
    ) -> None:
        """Reads the program at `offset` of .debug_line. Raises any of FAULTS; rows read before the fault are lost."""
        self.comp_dir = comp_dir
        self._names: dict[int, str | None] = {}
        self.rows = 0
        length, offset_size, at = length_at(section, offset)
        end = at + length
        if end > len(section):
            raise Malformed("line program runs past its section")
        budget.spend(length)
        version = _U16(section, at)[0]
        at += 2
        if not 2 <= version <= 5:
            raise Malformed(f"line program version {version}")
        self.version = version
        if version >= 5:
            at += 2  # address_size, segment_selector_size
        header_length = offset_at(section, at, offset_size)
        at += offset_size
        program = at + header_length
        if program > end:
            raise Malformed("line program header runs past its end")
        min_length = section[at]
        at += 2 if version >= 4 else 1  # maximum_operations_per_instruction: 1 on these processors
        at += 1  # default_is_stmt
        line_base = section[at]
        if line_base >= 128:
            line_base -= 256
        line_range = section[at + 1]
        opcode_base = section[at + 2]
        at += 3
        lengths = section[at : at + max(0, opcode_base - 1)]
        at += max(0, opcode_base - 1)
        self._dirs: list[str] = []
        self._files: list[tuple[str, int]] = []
        if version >= 5:
            self._read_tables5(section, at, program, offset_size, strings)
        else:
            self._read_tables(section, at, program)
        if line_range == 0:
            raise Malformed("line_range 0")
        self.sequences: list[tuple[int, int, list[int], list[int]]] = []
        self._run(section, program, end, min_length, line_base, line_range, opcode_base, lengths, keep)
        self.sequences.sort(key=lambda s: s[1])
        self._highs = [s[1] for s in self.sequences]

    def _read_tables(self, data: bytes, at: int, stop: int) -> None:
        while data[at]:
            name = string_at(data, at)
            self._dirs.append(clean(name))
            at += len(name) + 1
            if at > stop:
                raise Malformed("directory table runs past the header")
        at += 1
        while data[at]:
            name = string_at(data, at)
            directory, at = uleb(data, at + len(name) + 1)
            _, at = uleb(data, at)
            _, at = uleb(data, at)
            self._files.append((clean(name), directory))
            if at > stop:
                raise Malformed("file table runs past the header")

    def _read_tables5(self, data: bytes, at: int, stop: int, offset_size: int, strings: LineStrings) -> None:
        for table in (0, 1):
            formats = []
            count = data[at]
            at += 1
            for _ in range(count):
                content, at = uleb(data, at)
                form, at = uleb(data, at)
                formats.append((content, form))
            entries, at = uleb(data, at)
            if (entries and not formats) or entries > stop - at:
                raise Malformed("file table larger than its header")
            for _ in range(entries):
                name = ""
                directory = 0
                for content, form in formats:
                    text: bytes | None = None
                    number = 0
                    if form == 0x1F or form == 0x0E:  # line_strp, strp
                        ref = offset_at(data, at, offset_size)
                        at += offset_size
                        if content == 1:
                            text = strings(".debug_line_str" if form == 0x1F else ".debug_str", ref)
                    elif form == 0x08:  # string
                        text = string_at(data, at)
                        at += len(text) + 1
                    elif form == 0x0B:  # data1
                        number = data[at]
                        at += 1
                    elif form == 0x05:  # data2
                        number = _U16(data, at)[0]
                        at += 2
                    elif form == 0x06:  # data4
                        number = _U32(data, at)[0]
                        at += 4
                    elif form == 0x07:  # data8
                        at += 8
                    elif form == 0x0F:  # udata
                        number, at = uleb(data, at)
                    elif form == 0x1E:  # data16, the MD5
                        at += 16
                    elif form == 0x09:  # block
                        size, at = uleb(data, at)
                        at += size
                    else:
                        raise Malformed(f"form {form:#x} in a file table")
                    if content == 1 and text is not None:
                        name = clean(text)
                    elif content == 2:
                        directory = number
                if at > stop:
                    raise Malformed("file table runs past the header")
                if table == 0:
                    self._dirs.append(name)
                else:
                    self._files.append((name, directory))

    def _run(
        self,
        data: bytes,
        at: int,
        end: int,
        min_length: int,
        line_base: int,
        line_range: int,
        opcode_base: int,
        lengths: bytes,
        keep: Callable[[int], bool],
    ) -> None:
        # what each special opcode adds to the address and to the line
        address_step = [0] * 256
        line_step = [0] * 256
        for op in range(opcode_base, 256):
            address_step[op] = (op - opcode_base) // line_range * min_length
            line_step[op] = line_base + (op - opcode_base) % line_range
        const_step = (255 - opcode_base) // line_range * min_length
        first = 1 << 32 | 1  # file 1, line 1
        address = 0
        key = first
        addresses: list[int] = []
        keys: list[int] = []
        add_address = addresses.append
        add_key = keys.append
        while at < end:
            op = data[at]
            at += 1
            if op >= opcode_base:
                address += address_step[op]
                key += line_step[op]
                add_address(address)
                add_key(key)
            elif op == 5:  # set_column: the operand alone, nearly always one byte
                while data[at] >= 0x80:
                    at += 1
                at += 1
            elif op == 3:  # advance_line
                byte = data[at]
                at += 1
                if byte < 0x40:
                    key += byte
                elif byte < 0x80:
                    key += byte - 0x80
                else:
                    step, at = sleb(data, at - 1)
                    key += step
            elif op == 1:  # copy
                add_address(address)
                add_key(key)
            elif op == 6 or op == 7 or op == 10 or op == 11:  # negate_stmt, basic_block, prologue_end, epilogue_begin
                pass
            elif op == 0:  # extended
                size, at = uleb(data, at)
                if size == 0:
                    continue
                sub = data[at]
                if sub == 2:  # set_address
                    address = _U32(data, at + 1)[0]
                elif sub == 1:  # end_sequence
                    if addresses:
                        low = addresses[0]
                        self.rows += len(addresses)
                        if low < address and keep(low):
                            self.sequences.append((low, address, addresses, keys))
                        addresses = []
                        keys = []
                        add_address = addresses.append
                        add_key = keys.append
                    address = 0
                    key = first
                elif sub == 3:  # define_file
                    name = string_at(data, at + 1)
                    directory, _ = uleb(data, at + 2 + len(name))
                    self._files.append((clean(name), directory))
                at += size
            elif op == 9:  # fixed_advance_pc
                address += data[at] | data[at + 1] << 8
                at += 2
            elif op == 2:  # advance_pc
                step, at = uleb(data, at)
                address += step * min_length
            elif op == 4:  # set_file
                file, at = uleb(data, at)
                key = (key & 0xFFFFFFFF) | (file & 0xFFFFF) << 32
            elif op == 8:  # const_add_pc
                address += const_step
            elif op == 12:  # set_isa
                _, at = uleb(data, at)
            else:
                for _ in range(lengths[op - 1]):
                    _, at = uleb(data, at)

    def file_name(self, index: int) -> str | None:
        """The path of file number `index` as given: compilation directory, directory, name. None when there is none."""
        if index in self._names:
            return self._names[index]
        name: str | None = None
        version5 = self.version >= 5
        at = index if version5 else index - 1
        if 0 <= at < len(self._files):
            base, directory = self._files[at]
            if is_absolute(base):
                name = base
            else:
                folder = ""
                if version5:
                    if directory < len(self._dirs):
                        folder = self._dirs[directory]
                elif 0 < directory <= len(self._dirs):
                    folder = self._dirs[directory - 1]
                name = joined("" if is_absolute(folder) else self.comp_dir, folder, base)
        self._names[index] = name or None
        return name or None

    def key_at(self, address: int) -> int | None:
        """``file << 32 | line`` of the row that covers `address`, or None."""
        at = bisect_right(self._highs, address)
        if at == len(self.sequences):
            return None
        low, _, addresses, keys = self.sequences[at]
        if address < low:
            return None
        return keys[max(0, bisect_right(addresses, address) - 1)]
