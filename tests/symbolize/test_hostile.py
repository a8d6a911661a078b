"""ELF files made to be slow: small, well-formed enough, and quadratic for a reader that keeps no account of its work.

There is no clock here: without the bounds each case takes minutes and runs into the suite's own time limit.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from espmon.symbolize import Symbolizer, index
from espmon.symbolize.elf import ElfFile

BASE = 0x42000000
MANY = 6000
Sections = dict[str, tuple[int, int, int, bytes]]


def elf(sections: Sections) -> bytes:
    """A RISC-V ELF of these sections: name -> (type, flags, address, content)."""
    names = b"\0"
    places = {}
    for name in (*sections, ".shstrtab"):
        places[name] = len(names)
        names += name.encode() + b"\0"
    body = bytearray(52)
    headers = [(0,) * 10]
    for name, (kind, flags, address, content) in {**sections, ".shstrtab": (3, 0, 0, names)}.items():
        headers.append((places[name], kind, flags, address, len(body), len(content), 0, 0, 1, 0))
        body += content
    table = len(body)
    for header in headers:
        body += struct.pack("<10I", *header)
    struct.pack_into("<16sHHIIIIIHHHHHH", body, 0, b"\x7fELF\1\1\1", 2, 243, 1, BASE, 0, table, 0, 52, 0, 0, 40, len(headers), len(headers) - 1)
    return bytes(body)


def unit(body: bytes, abbrev: int = 0) -> bytes:
    inner = struct.pack("<HIB", 4, abbrev, 4) + body
    return struct.pack("<I", len(inner)) + inner


def line_program(opcodes: bytes) -> bytes:
    header = b"\1\1\1\xfb\x0e\x0d" + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]) + b"\0a.c\0\0\0\0\0"
    body = struct.pack("<HI", 4, len(header)) + header + opcodes
    return struct.pack("<I", len(body)) + body


# 1 unit: stmt_list, low_pc, high_pc; 2 function: ranges; 3 function with children; 4 inlined: ranges, origin; 5 namespace;
# 6 function: origin; 7 function: name (strp)
ABBREVS = (
    b"\x01\x11\x01\x10\x17\x11\x01\x12\x06\0\0\x02\x2e\0\x55\x17\0\0\x03\x2e\x01\x11\x01\x12\x06\0\0"
    b"\x04\x1d\x01\x55\x17\x31\x13\0\0\x05\x39\x01\x01\x13\0\0\x06\x2e\0\x31\x13\x11\x01\x12\x06\0\0\x07\x2e\0\x03\x0e\x11\x01\x12\x06\0\0\0"
)
UNIT = b"\x01" + struct.pack("<III", 0, BASE, 0x10000)
RANGES = b"".join(struct.pack("<II", i * 2, i * 2 + 1) for i in range(1, MANY)) + bytes(8)
WHOLE = b"\0\5\2" + struct.pack("<I", BASE) + b"\x13" * (MANY * 50) + b"\0\1\1"


def one_unit(dies: bytes) -> bytes:
    return unit(UNIT + dies)


def many_units(stmt_list: int, abbrev: int) -> bytes:
    return b"".join(unit(b"\x01" + struct.pack("<III", stmt_list * i, BASE + i, 2) + b"\0", abbrev * i) for i in range(MANY))


CASES: dict[str, dict[str, bytes]] = {
    "many functions share one long range list": {".debug_info": one_unit((b"\x02" + bytes(4)) * MANY + b"\0"), ".debug_ranges": RANGES},
    "inlined calls nested without end": {
        ".debug_info": one_unit(b"\x03" + struct.pack("<II", BASE, 0x10000) + (b"\x04" + bytes(8)) * MANY),
        ".debug_ranges": RANGES,
    },
    "namespaces nested without end": {".debug_info": one_unit((b"\x05" + struct.pack("<I", 11)) * MANY)},
    "all units share one line program": {".debug_info": many_units(0, 0), ".debug_line": line_program(WHOLE)},
    "line programs overlap": {".debug_info": many_units(4, 0), ".debug_line": struct.pack("<I", 0x000D0004) * MANY * 10},
    "abbreviations overlap": {".debug_info": many_units(0, 11), ".debug_abbrev": ABBREVS[:11] * MANY * 5},
    "origins in a chain": {
        ".debug_info": one_unit(b"".join(b"\x06" + struct.pack("<III", 11 + 13 * i, BASE + i, 1) for i in range(1, MANY)) + b"\0"),
    },
    "an origin that is itself": {".debug_info": one_unit(b"\x06" + struct.pack("<III", 24, BASE, 0x10000) + b"\0")},
    "long names": {
        ".debug_info": one_unit(b"".join(b"\x07" + struct.pack("<III", i, BASE + i, 1) for i in range(MANY)) + b"\0"),
        ".debug_str": b"x" * 65000 + b"\0",
    },
    "a file table of nothing": {
        ".debug_info": one_unit(b"\0"),
        ".debug_line": struct.pack("<IHBBI", 60, 5, 4, 0, 44) + b"\1\1\1\xfb\x0e\x0d" + bytes(12) + b"\1\1\x19\xff\xff\xff\xff\x7f" + bytes(40),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_work_is_bounded(tmp_path: Path, name: str) -> None:
    sections: Sections = {".text": (1, 6, BASE, bytes(0x10000)), ".debug_abbrev": (1, 0, 0, ABBREVS)}
    sections.update({section: (1, 0, 0, content) for section, content in CASES[name].items()})
    path = tmp_path / "hostile.elf"
    path.write_bytes(elf(sections))
    symbolizer = Symbolizer([path])
    for address in range(BASE, BASE + 200, 10):
        for frame in symbolizer.lookup(address):
            assert frame.function is None or len(frame.function) < 70_000
    assert symbolizer.problems == []
    opened = ElfFile.open(path)
    loaded = index.Index(index.build(opened), bytes.fromhex(opened.sha256))
    loaded.frames(BASE)
