"""Files that are no good: a plain reason each, never an exception out of lookup() or explain(), and never for good."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from espmon.errors import ElfUnusable
from espmon.events import Address, BacktraceEntry, Crash, StackDump
from espmon.symbolize import Symbolizer
from espmon.symbolize.elf import ElfFile, clean
from espmon.symbolize.program import Program
from tests.symbolize.fixtures import elf

GOOD = elf("lx106-dw4-Os")
BODY = GOOD.read_bytes()
MAIN = next(symbol.address for symbol in map(ElfFile.open(GOOD).symbols.__getitem__, range(len(ElfFile.open(GOOD).symbols))) if symbol.name == "app_main")
CRASH = Crash(
    kind="exception",
    chip="esp8266",
    registers={"epc1": Address(MAIN)},
    backtraces=(),
    stacks=(StackDump(words=((0x3FFFFF00, MAIN), (0x3FFFFF04, 0)), code_words=(Address(MAIN),)),),
)


def patched(*changes: tuple[int, str, int]) -> bytes:
    body = bytearray(BODY)
    for at, form, value in changes:
        struct.pack_into("<" + form, body, at, value)
    return bytes(body)


def without_symbols_and_lines() -> bytes:
    """What `strip` leaves: the section headers of symbols and debug information are empty."""
    body = bytearray(BODY)
    shoff = struct.unpack_from("<I", body, 32)[0]
    for number, section in enumerate(ElfFile.open(GOOD).sections):
        if section.kind == 2 or section.name.startswith(".debug"):
            struct.pack_into("<I", body, shoff + 40 * number + 4, 0)
            struct.pack_into("<I", body, shoff + 40 * number + 20, 0)
    return bytes(body)


CASES = {
    "empty": (b"", "empty"),
    "text": (b"int main() {}\n", "not an ELF"),
    "image": (b"\xe9\x03\x02\x20" + bytes(100), ".bin"),
    "header cut": (BODY[:40], "truncated"),
    "half": (BODY[: len(BODY) // 2], "truncated or damaged"),
    "last byte missing": (BODY[:-1], "truncated or damaged"),
    "64 bit": (patched((4, "B", 2)), "32-bit"),
    "big-endian": (patched((5, "B", 2)), "little-endian"),
    "x86": (patched((18, "H", 3)), "x86"),
    "Arm": (patched((18, "H", 40)), "Arm"),
    "object file": (patched((16, "H", 1)), "linked"),
    "no sections": (patched((32, "I", 0)), "stripped"),
    "sections outside": (patched((32, "I", 0x7FFFFFFF)), "truncated or damaged"),
    "stripped": (without_symbols_and_lines(), "stripped"),
}


@pytest.mark.parametrize("name", CASES)
def test_reasons_are_plain(tmp_path: Path, name: str) -> None:
    body, expected = CASES[name]
    path = tmp_path / "firmware.elf"
    path.write_bytes(body)
    symbolizer = Symbolizer([path])
    assert symbolizer.lookup(MAIN) == ()
    explained = symbolizer.explain(CRASH)
    assert [frame.function for frame in explained.frames] == [None]
    assert explained.elf is None
    (problem,) = symbolizer.problems
    assert expected in problem.reason
    assert problem.hint
    assert problem.exit_status == 4


def test_missing_folder_and_odd_paths(tmp_path: Path) -> None:
    symbolizer = Symbolizer([tmp_path / "none.elf", tmp_path, "nul\0byte.elf"])
    assert symbolizer.lookup(MAIN) == ()
    assert [problem.reason.split(" (")[0] for problem in symbolizer.problems] == ["no such file", "is not a regular file", "cannot be read"]


def test_a_new_build_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "firmware.elf"
    path.write_bytes(BODY[:2000])  # a linker at work
    symbolizer = Symbolizer([path])
    assert symbolizer.explain(CRASH).frames[0].function is None
    assert symbolizer.problems
    path.write_bytes(BODY)
    first = symbolizer.explain(CRASH)
    assert first.frames[0].function == "app_main"
    assert not symbolizer.problems
    other = elf("lx106-dw4-O2")
    new = tmp_path / "new"
    new.write_bytes(other.read_bytes())
    os.replace(new, path)
    second = symbolizer.explain(CRASH)
    assert second.elf is not None
    assert first.elf is not None
    assert second.elf.sha256 != first.elf.sha256
    assert second.frames == Symbolizer([other]).explain(CRASH).frames
    path.unlink()
    third = symbolizer.explain(CRASH)
    assert third.frames == second.frames  # the board runs on
    assert [problem.reason for problem in symbolizer.problems] == ["no such file; what was read before stays in use"]
    path.write_bytes(BODY[:2000])
    assert symbolizer.explain(CRASH).frames == second.frames
    path.write_bytes(BODY)
    assert symbolizer.explain(CRASH).frames == first.frames


def test_the_same_size_and_name_but_new_content_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "firmware.elf"
    path.write_bytes(BODY)
    symbolizer = Symbolizer([path])
    one = symbolizer.explain(CRASH)
    changed = bytearray(BODY)
    changed[-1] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(1, 1))
    two = symbolizer.explain(CRASH)
    assert one.elf is not None
    assert two.elf is not None
    assert one.elf.sha256 != two.elf.sha256


def test_the_right_elf_of_several_answers() -> None:
    application, other = elf("rv32-dw5-Os"), elf("lx106-dw5-Os")
    symbolizer = Symbolizer([other, application])
    for path in (application, other):
        alone = Symbolizer([path])
        address = ElfFile.open(path).symbols[10].address
        assert symbolizer.lookup(address) == alone.lookup(address) != ()
    address = ElfFile.open(application).symbols[10].address
    crash = symbolizer.explain(Crash(kind="panic", chip="esp32c3", backtraces=((BacktraceEntry(pc=Address(address)),),)))
    assert crash.elf is not None
    assert crash.elf.path == str(application)


def test_a_printed_hash_chooses_between_elfs_at_the_same_addresses() -> None:
    one, two = elf("lx106-dw4-Os"), elf("lx106-dw5-O2")
    address = Address(ElfFile.open(one).symbols[12].address)
    trace = ((BacktraceEntry(pc=address),),)
    for path in (one, two):
        crash = Symbolizer([one, two]).explain(Crash(kind="panic", backtraces=trace, elf_sha256=ElfFile.open(path).sha256[:16]))
        assert crash.elf is not None
        assert (crash.elf.path, crash.elf.match) == (str(path), "verified")
        expected = Symbolizer([path]).lookup(address)
        assert [(f.function, f.line) for f in crash.frames] == [(f.function, f.line) for f in expected]


def test_names_out_of_an_elf_cannot_move_a_cursor(tmp_path: Path) -> None:
    assert clean(b"a\x1b[2Jb\x00\x9b\xe2\x80\xaec") == "a\ufffd[2Jb\ufffd\ufffd\ufffdc"
    path = tmp_path / "evil.elf"
    path.write_bytes(BODY.replace(b"app_main", b"a\x1b[2Jain").replace(b"/firmware", b"/f\x1b]0;are"))
    frames = Symbolizer([path]).lookup(MAIN)
    text = "".join(f"{frame.function}{frame.file}{frame.symbol}" for frame in frames)
    assert "2Jain" in text
    assert "]0;are" in text
    assert text.isprintable()


def test_symbols_without_lines_are_first_class() -> None:
    opened = ElfFile.open(GOOD)
    symbol = next(s for s in map(opened.symbols.__getitem__, range(len(opened.symbols))) if s.name == "blob_scramble")
    (frame,) = Symbolizer([GOOD]).lookup(symbol.address + 5)
    assert (frame.function, frame.file, frame.line, frame.offset, frame.module) == ("blob_scramble", None, None, 5, "app")


def test_beyond_a_function_is_not_that_function() -> None:
    opened = ElfFile.open(GOOD)
    for at in range(len(opened.symbols)):
        symbol = opened.symbols[at]
        following = opened.symbols[at + 1].address if at + 1 < len(opened.symbols) else 1 << 32
        for address in range(symbol.end, min(following, symbol.end + 64)):
            assert opened.symbols.at(address) is None


def test_problem_is_an_espmon_error() -> None:
    with pytest.raises(ElfUnusable, match="no such file"):
        ElfFile.open("/nonexistent/firmware.elf")


@pytest.mark.parametrize(("name", "chip"), [("lx106-dw4-Os", "esp8266"), ("rv32-dw4-O2", None)])
def test_the_chip_is_known_from_the_code_where_only_one_fits(name: str, chip: str | None) -> None:
    program = Program(elf(name))
    program.refresh(now=True)
    assert program.chip == chip
    rom = Symbolizer([elf(name)]).lookup(0x4000BF50)
    assert [frame.function for frame in rom] == (["strlen"] if chip == "esp8266" else [])
