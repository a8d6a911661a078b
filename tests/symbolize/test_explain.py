"""explain(): frames, their order and origin, the ELF's identity, fingerprints. Real dumps of the demo firmware."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from espmon.events import Address, BacktraceEntry, Crash, FailedAlloc, Reset, StackDump
from espmon.symbolize import Symbolizer
from espmon.symbolize.resources import symbols_dir

DEMO = symbols_dir() / "demo"
ELF = DEMO / "weather.elf"


def crash_from(path: Path) -> Crash:
    """The Arduino-style dump in `path`; read here by hand so that this package is tested without the decoder."""
    text = path.read_text()
    registers = {name: Address(int(value, 16)) for name, value in re.findall(r"(epc[123]|excvaddr|depc)=0x([0-9a-f]+)", text)}
    stacks = []
    for context, sp, end, offset, rows in re.findall(r"ctx: (\w+)\s*\nsp: (\w+) end: (\w+) offset: (\w+)\n((?:[0-9a-f]{8}:.*\n)+)", text):
        words = []
        for row in rows.splitlines():
            at, _, rest = row.partition(":")
            words += [(int(at, 16) + 4 * i, int(word, 16)) for i, word in enumerate(rest.split())]
        code = tuple(Address(word) for _, word in words if 0x40000000 <= word < 0x40300000)
        stacks.append(StackDump(context=context, sp=Address(int(sp, 16)), end=Address(int(end, 16)), offset=int(offset, 16), words=tuple(words), code_words=code))
    failed = re.search(r"last failed alloc call: (\w+)\((\d+)\)", text)
    alloc = FailedAlloc(caller=Address(int(failed[1], 16)), size=int(failed[2])) if failed else None
    return Crash(kind="exception", chip="esp8266", registers=registers, stacks=tuple(stacks), last_failed_alloc=alloc)


# function names, outermost last; what the firmware's sources say must have been open. In divide, load and watchdog a leaf
# crashed: its caller's address is in no word of the dump, and is found through the frame size and the caller's only call
CHAINS = {
    "divide": ["divide", "whole", "__divsi3", "history_mean", "think", "loop", "station", "start_c", "start"],
    "illegal": ["reply", "uplink_command", "think", "loop", "station", "start_c", "start"],
    "load": ["sensor_value", "measured", "line_for", "uplink_send", "loop", "station", "start_c", "start"],
    "store": ["set_offset", "sensors_calibrate", "think", "loop", "station", "start_c", "start"],
    "watchdog": ["gauge_read", "rain_ticks", "measure", "loop", "station", "start_c", "start"],
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_demo_firmwares_dumps_unwind_to_their_start(name: str) -> None:
    crash = Symbolizer([ELF]).explain(crash_from(DEMO / "dumps" / f"{name}.txt"))
    assert [frame.function for frame in crash.frames] == CHAINS[name]
    assert crash.frames[0].origin == "pc"
    assert crash.frames[0].confidence == "certain"
    assert {frame.origin for frame in crash.frames if frame.address != crash.registers["epc1"]} == {"unwound"}
    assert all(frame.file and frame.line and frame.module == "app" for frame in crash.frames)
    assert not crash.frames[-1].inlined
    assert crash.elf is not None
    assert crash.elf.match == "unverified"


def test_a_failed_allocation_is_a_frame_of_its_own() -> None:
    crash = Symbolizer([ELF]).explain(crash_from(DEMO / "dumps" / "memory.txt"))
    assert [frame.function for frame in crash.frames if frame.origin == "alloc"] == ["uplink_keep"]


def test_all_stack_words_lists_what_no_call_precedes_too() -> None:
    crash = crash_from(DEMO / "dumps" / "divide.txt")
    stack = crash.stacks[0]
    stray = Address(0x40201002)
    words = ((stack.words[0][0], int(stray)), *stack.words[1:])
    odd = StackDump(context="cont", sp=stack.sp, end=stack.end, offset=stack.offset, words=words, code_words=(stray, *stack.code_words))
    changed = Crash(kind="exception", chip="esp8266", registers=crash.registers, stacks=(odd,))
    quiet = Symbolizer([ELF]).explain(changed)
    assert stray not in {frame.address for frame in quiet.frames}
    loud = Symbolizer([ELF], all_stack_words=True).explain(changed)
    assert [(f.origin, f.confidence) for f in loud.frames if f.address == stray and not f.inlined] == [("stack", "possible")]
    assert {f.address for f in quiet.frames} <= {f.address for f in loud.frames}


def test_printed_hash_decides_the_match() -> None:
    from espmon.symbolize.elf import ElfFile

    sha = ElfFile.open(ELF).sha256
    trace = ((BacktraceEntry(pc=Address(0x40201685)),),)
    for printed, match, confidence in (
        (sha, "verified", "certain"),
        (sha[:9].upper() + "..", "verified", "certain"),
        ("0123456789abcdef", "mismatch", "possible"),
        ("0000000000000000", "unverified", "certain"),
        (None, "unverified", "certain"),
    ):
        crash = Symbolizer([ELF]).explain(Crash(kind="panic", backtraces=trace, elf_sha256=printed))
        assert crash.elf is not None
        assert crash.elf.match == match
        assert crash.elf.sha256 == sha
        assert {frame.confidence for frame in crash.frames} == {confidence}


def test_fingerprint_is_of_names_not_of_addresses() -> None:
    symbolizer = Symbolizer([ELF])
    one = symbolizer.explain(crash_from(DEMO / "dumps" / "divide.txt"))
    other = symbolizer.explain(crash_from(DEMO / "dumps" / "store.txt"))
    again = symbolizer.explain(crash_from(DEMO / "dumps" / "divide.txt"))
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint
    # without any name, or against the wrong ELF, the decoder's stands
    nameless = Crash(kind="panic", fingerprint="decoder", backtraces=((BacktraceEntry(pc=Address(0x3FFE8000)),),))
    assert symbolizer.explain(nameless).fingerprint == "decoder"
    wrong = Crash(kind="panic", fingerprint="decoder", elf_sha256="feedfeedfeed", backtraces=((BacktraceEntry(pc=Address(0x40201685)),),))
    assert symbolizer.explain(wrong).fingerprint == "decoder"


def test_rom_addresses_have_names_without_any_elf() -> None:
    crash = Symbolizer([]).explain(Crash(kind="exception", chip="esp8266", registers={"epc1": Address(0x4000BF64)}))
    assert [(f.function, f.module, f.origin, f.line) for f in crash.frames] == [("strlen", "rom", "pc", None)]
    assert crash.elf is None


def test_unknown_addresses_stay_null() -> None:
    crash = Symbolizer([ELF]).explain(Crash(kind="panic", backtraces=((BacktraceEntry(pc=Address(0xA5A5A5A5)),),)))
    (frame,) = crash.frames
    assert (frame.function, frame.file, frame.line, frame.module) == (None, None, None, None)


def test_a_reset_with_registers_gets_frames_too() -> None:
    reset = Symbolizer([ELF]).explain(Reset(source="arduino", registers={"epc1": Address(0x40201685)}))
    assert [frame.function for frame in reset.frames] == ["divide", "whole"]
