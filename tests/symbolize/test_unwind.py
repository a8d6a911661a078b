"""Unwinding against the truth: fixtures run on an emulated processor that knows which calls are open.

The dump is what boards print: ESP8266 without a0, RISC-V with its registers. Targets (docs/design/symbolize.md): at most
1 % false frames, at most one frame missing from a chain where a0 is not known.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from espmon.events import Address, Crash, StackDump
from espmon.symbolize import Symbolizer
from espmon.symbolize.elf import ElfFile
from espmon.symbolize.unwind import Unwinder, _plain
from tests.symbolize.fixtures import elf
from tests.symbolize.machines import Lx106, Machine, machine

EVERY = 11  # instructions between samples
SAME_RESULT = 0x33D5C009  # what app_main(5) returns on either processor at any optimisation


@dataclass
class Score:
    samples: int = 0
    exact: int = 0
    named: int = 0
    false: int = 0
    true: int = 0
    found: int = 0
    most_missing: int = 0
    worst: list[str] = field(default_factory=list)


def dump(board: Machine) -> tuple[int, int | None, int, int | None]:
    """What the crash text shows: pc, ra, sp, s0."""
    r = board.registers
    return (board.pc, None, r[1], None) if isinstance(board, Lx106) else (board.pc, r[1], r[2], r[8])


def run(path: Path, *, cfi: bool) -> Score:
    board = machine(path)
    unwinder = Unwinder(board.elf, lambda address: 0x40000000 <= address < 0x40010000)
    if not cfi:
        unwinder._frames._fdes = []
        unwinder._frames._lows = []
    score = Score()
    steps = 0
    while True:
        if steps % EVERY == EVERY // 2 and board.calls and board.elf.is_code(board.pc):
            pc, ra, sp, frame_pointer = dump(board)
            calls = unwinder.unwind(pc, ra, sp, board.words(sp), frame_pointer)
            named = [call.address for call in calls if call.confidence != "possible"]
            truth = board.calls[::-1]
            right = sum((Counter(named) & Counter(truth)).values())
            score.samples += 1
            score.exact += named == truth
            score.named += len(named)
            score.false += len(named) - right
            score.true += len(truth)
            score.found += right
            score.most_missing = max(score.most_missing, len(truth) - right)
            if len(named) > right or len(truth) - right > 1:
                score.worst.append(f"{pc:#x}: {[hex(a) for a in named]} is {[hex(a) for a in truth]}")
        before = board.pc
        board.step()
        steps += 1
        if board.pc == before:
            break
    assert board.registers[2 if isinstance(board, Lx106) else 10] == SAME_RESULT
    return score


@pytest.mark.parametrize("cfi", [True, False], ids=["with call frame information", "from the code alone"])
@pytest.mark.parametrize("name", ["lx106-dw2-Os", "lx106-dw4-O2", "lx106-dw3-Og"])
def test_esp8266_without_a0(name: str, cfi: bool) -> None:
    score = run(elf(name), cfi=cfi)
    assert score.samples > 500
    assert score.false <= score.named * 0.01, score.worst[:3]
    assert score.most_missing <= 1, score.worst[:3]
    assert score.found >= score.true * 0.94
    assert score.exact >= score.samples * 0.8


@pytest.mark.parametrize("cfi", [True, False], ids=["with call frame information", "from the code alone"])
@pytest.mark.parametrize("name", ["rv32-dw3-Os", "rv32-dw4-O2", "rv32-dw5-Og"])
def test_riscv_with_registers(name: str, cfi: bool) -> None:
    score = run(elf(name), cfi=cfi)
    assert score.samples > 500
    assert score.false == 0, score.worst[:3]
    assert score.exact >= score.samples * 0.99


def stopped_in(path: Path, function: str, depth: int, behind: int = 16) -> Machine:
    """The processor `behind` bytes or more into `function` (behind its prologue), with at least `depth` calls open."""
    board = machine(path)
    symbols = board.elf.symbols
    wanted = next(s for s in map(symbols.__getitem__, range(len(symbols))) if s.name == function)
    for _ in range(100_000):
        if wanted.address + behind <= board.pc < wanted.end and len(board.calls) >= depth:
            return board
        board.step()
    raise AssertionError(f"{function} never runs")


def test_a_riscv_panic_becomes_frames() -> None:
    path = elf("rv32-dw5-Os")
    board = stopped_in(path, "parse_value", 5)
    pc, ra, sp, frame_pointer = dump(board)
    assert ra is not None
    assert frame_pointer is not None
    words = tuple(board.words(sp).items())
    registers = {"mepc": pc, "ra": ra, "sp": sp, "s0/fp": frame_pointer}
    crash = Crash(
        kind="exception",
        chip="esp32c3",
        registers={name: Address(value) for name, value in registers.items()},
        stacks=(StackDump(sp=Address(sp), words=words),),
    )
    frames = Symbolizer([path]).explain(crash).frames
    assert [f.function for f in frames if not f.inlined][:2] == ["parse_value", "list"]
    assert frames[0].origin == "pc"
    assert [f.function for f in frames if not f.inlined][-2:] == ["app_main", "call_user_start"]
    assert [int(f.address) for f in frames if f.origin in ("return", "unwound") and not f.inlined] == board.calls[::-1]


@pytest.mark.parametrize("name", ["lx106-dw4-Os", "lx106-dw5-O2", "lx106-dw3-Og"])
def test_a_crash_in_the_rom_finds_who_called_it(name: str) -> None:
    """Most null pointers on the ESP8266 crash in the ROM's strlen or memcpy, leaves whose caller is in no word of the dump."""
    path = elf(name)
    board = machine(path)
    assert isinstance(board, Lx106)
    while board.pc != Lx106.DIVIDE:
        board.step()
    sp = board.registers[1]
    words = tuple(board.words(sp).items())
    code = tuple(Address(word) for _, word in words if 0x40000000 <= word < 0x40300000)
    crash = Crash(
        kind="exception",
        chip="esp8266",
        registers={"epc1": Address(board.pc)},
        stacks=(StackDump(context="cont", sp=Address(sp), words=words, code_words=code),),
    )
    frames = Symbolizer([path]).explain(crash).frames
    assert (frames[0].function, frames[0].module, frames[0].origin) == ("__udivsi3", "rom", "pc")
    assert [int(f.address) for f in frames if f.origin == "unwound" and not f.inlined] == board.calls[::-1]


def test_a_jump_to_nowhere_still_shows_who_jumped() -> None:
    path = elf("rv32-dw5-Os")
    board = stopped_in(path, "list", 4, 0x24)
    _, _, sp, frame_pointer = dump(board)
    # as after a call through a null pointer from here: ra holds the call's return address, which some call precedes
    unwinder = Unwinder(board.elf, lambda address: False)
    here = unwinder.function(board.pc)
    assert here is not None
    ra = next(a for a in range(board.pc, here.end, 2) if unwinder.is_return(a))
    calls = unwinder.unwind(0, ra, sp, board.words(sp), frame_pointer)
    assert [call.address for call in calls] == [ra, *board.calls[::-1]]


def test_a_stack_of_nonsense_shows_nothing_likely() -> None:
    board = stopped_in(elf("lx106-dw4-O2"), "parse_value", 4)
    unwinder = Unwinder(board.elf, lambda address: False)
    _, _, sp, _ = dump(board)
    for fill in (0, 0xA5A5A5A5, 0xFFFFFFFF, board.pc):
        calls = unwinder.unwind(board.pc, None, sp, dict.fromkeys(range(sp, sp + 512, 4), fill))
        assert [call for call in calls if call.confidence != "possible"] == []
    assert unwinder.unwind(board.pc, None, sp, {}) == []
    assert unwinder.unwind(None, None, 0, {}) == []


@pytest.mark.parametrize("name", ["rv32-dw5-Os", "rv32-dw4-O2", "lx106-dw4-Os", "lx106-dw5-O2"])
def test_behind_functions_of_the_rom_the_chain_goes_on(name: str) -> None:
    """A ROM function that called back (ets_printf its output function) hides its own frames, not those of its caller."""
    board = stopped_in(elf(name), "ascending", 3, 0)
    symbols = [board.elf.symbols[at] for at in range(len(board.elf.symbols))]
    hidden = [(s.address, s.end) for s in symbols if s.name in ("quick", "sort_numbers")]  # play the ROM
    assert hidden

    def is_rom(address: int) -> bool:
        return any(low <= address < high for low, high in hidden)

    pc, ra, sp, frame_pointer = dump(board)
    calls = Unwinder(board.elf, is_rom).unwind(pc, ra, sp, board.words(sp), frame_pointer)
    truth = board.calls[::-1]
    outside = [address for address in truth if not is_rom(address)]
    found = [call.address for call in calls if call.confidence != "possible"]
    assert [address for address in found if not is_rom(address)] == outside
    assert set(found) <= set(truth)


def test_roots_are_known_mangled_too() -> None:
    assert [_plain(name) for name in ("_ZL12loop_wrapperv", "_Z4loopv", "cont_run", "_ZN3Foo3barEv", "_ZL9loop_taskP11ETSEventTag")] == [
        "loop_wrapper",
        "loop",
        "cont_run",
        "_ZN3Foo3barEv",
        "loop_task",
    ]


def test_a_cycle_in_the_stack_ends() -> None:
    path = elf("lx106-dw4-O2")
    opened = ElfFile.open(path)
    unwinder = Unwinder(opened, lambda address: False)
    code = [a for low, high, _ in opened.code for a in range(low, high) if unwinder.is_return(a)]
    words = {0x3FFFF000 + 4 * i: code[i * 7 % len(code)] for i in range(4000)}
    assert len(unwinder.unwind(code[0], None, 0x3FFFF000, words)) <= 4000 + 1
