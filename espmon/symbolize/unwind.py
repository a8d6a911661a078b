"""From a dumped stack to the calls that were open: ESP8266 (call0 ABI) and RISC-V.

An ESP8266 dump prints neither a0 nor a backtrace, a RISC-V panic no backtrace. Each frame is found by what the code
itself says about its stack (call frame information, else the function's prologue); where a return address never reached
the stack, the dump is searched for the one from which everything above unwinds to a known root. What cannot be unwound is
listed only where a call instruction precedes it. Figures and the reasons for each step: docs/design/symbolize.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from espmon.symbolize.callsite import call_before
from espmon.symbolize.cfi import FrameTable
from espmon.symbolize.elf import ElfFile, Symbol
from espmon.symbolize.prologue import CodeWalk, FrameRow

# Functions that nothing of the firmware's own calls: a chain that reaches one is complete.
ROOTS = frozenset((
    # Arduino core for the ESP8266, NonOS SDK, RTOS SDK
    "loop_wrapper", "cont_wrapper", "cont_norm", "cont_run", "cont_continue", "call_user_start", "app_entry", "app_entry_redefinable",
    "user_start", "ets_run", "user_init", "loop_task", "_xt_user_exit", "vPortTaskWrapper", "_start",
    # ESP-IDF
    "main_task", "start_cpu0_default", "call_start_cpu0", "prvIdleTask", "ipc_task",
))  # fmt: skip
MAX_FRAMES = 128
# a search tries at most this many stack words, each with a whole unwind behind it
_MAX_TRIES = 512
_MAX_TRIES_BEYOND = 64
_MAX_GAPS = 4
_MAX_WALKS = 2048
# eight argument registers and padding
_MAX_SPILLED = 48


# A static C++ function outside of any class: Arduino's loop_wrapper is _ZL12loop_wrapperv.
_STATIC = re.compile(r"_ZL?(\d{1,3})([A-Za-z_]\w*)")


def _plain(name: str) -> str:
    match = _STATIC.match(name)
    return match[2][: int(match[1])] if match else name


@dataclass(frozen=True, slots=True)
class Call:
    """One open call: `address` the return address found (or the pc, for the innermost), `sp` after its return."""

    address: int
    sp: int
    confidence: str


class Unwinder:
    """Unwinds the stacks of one program."""

    def __init__(self, elf: ElfFile, is_rom: Callable[[int], bool], rom_symbol: Callable[[int], Symbol | None] = lambda _: None) -> None:
        """`is_rom`: does an address lie in the boot ROM; `rom_symbol`: the function there, where it is known."""
        self._elf = elf
        self._is_rom = is_rom
        self._rom_symbol = rom_symbol
        self._frames = FrameTable(elf)
        self._rows: dict[int, FrameRow | None] = {}
        self._walks: dict[int, CodeWalk] = {}

    def is_return(self, address: int) -> bool:
        """True when a call instruction of the program stands right before `address`."""
        return call_before(self._elf.arch, self._elf.read, address) is not None

    def function(self, address: int) -> Symbol | None:
        """The function symbol around `address`."""
        return self._elf.symbols.at(address)

    def row(self, address: int) -> FrameRow | None:
        """What the stack looks like before the instruction at `address`."""
        if address not in self._rows:
            walk = self._walk(address)
            read = walk.row_at(address) if walk is not None else None
            # GCC writes no call frame information for Xtensa epilogues, so there the code itself is believed first
            if read is None or self._elf.arch != "xtensa":
                read = self._frames.row_at(address) or read or (walk.frame if walk is not None else None)
            self._rows[address] = read
        return self._rows[address]

    def _walk(self, address: int) -> CodeWalk | None:
        symbol = self.function(address)
        if symbol is None:
            return None
        if symbol.address not in self._walks:
            if len(self._walks) > _MAX_WALKS:
                self._walks.clear()
            self._walks[symbol.address] = CodeWalk(self._elf.arch, self._elf.read, symbol.address, symbol.end)
        return self._walks[symbol.address]

    def _site(self, return_address: int) -> int:
        call = call_before(self._elf.arch, self._elf.read, return_address)
        return return_address - 1 if call is None else call

    def _is_root(self, address: int) -> bool:
        symbol = self.function(address)
        return symbol is not None and (_plain(symbol.name) in ROOTS or symbol.address <= self._elf.entry < symbol.end)

    def chain(self, address: int, sp: int, words: Mapping[int, int], frame_pointer: int | None = None, *, called: bool) -> tuple[list[Call], bool]:
        """The callers of `address`, innermost first, and whether they end at a root.

        `called`: `address` is a return address (its row is that of the call before it), else the pc itself.
        """
        calls: list[Call] = []
        end = max(words, default=0)
        closed = self._is_root(self._site(address) if called else address)
        for _ in range(MAX_FRAMES):
            row = self.row(self._site(address) if called else address)
            if row is None or row.return_at is None:
                break
            if row.frame_register is not None:
                if frame_pointer is None:
                    break
                cfa = frame_pointer + row.size
            else:
                cfa = sp + row.size
            word = words.get(cfa + row.return_at)
            if word is None:
                # frame upon frame up to the very end of the dump: complete as far as it was printed
                closed = closed or (bool(calls) and cfa + row.return_at > end)
                break
            if row.frame_saved is not None:
                frame_pointer = words.get(cfa + row.frame_saved)
            if cfa < sp or (cfa == sp and not calls and word == address):
                break
            if word == 0 or self._is_rom(word):
                # outermost: a task's start has no caller, and the ROM's own loops call the first function of ours
                if word:
                    calls.append(Call(word, cfa, "likely"))
                closed = True
                break
            if not self.is_return(word):
                break
            calls.append(Call(word, cfa, "likely"))
            address, sp, called = word, cfa, True
            closed = closed or self._is_root(self._site(address))
        return calls, closed

    def unwind(self, pc: int | None, ra: int | None, sp: int, words: Mapping[int, int], frame_pointer: int | None = None) -> list[Call]:
        """The callers of the function at `pc`, innermost first, found in `words` (address -> word) from `sp` upwards.

        `ra`: the return address register where the dump shows it (RISC-V).
        """
        calls: list[Call] = []
        closed = False
        if pc is not None and self._elf.is_code(pc):
            row = self.row(pc)
            if row is not None and row.return_at is None and ra is not None and self.is_return(ra):
                # a leaf, or its prologue: the caller is in the register
                sp += row.size if row.frame_register is None else 0
                calls.append(Call(ra, sp, "likely"))
                more, closed = self.chain(ra, sp, words, frame_pointer, called=True)
                calls += more
            else:
                calls, closed = self.chain(pc, sp, words, frame_pointer, called=False)
                if not calls and not closed and row is not None and row.return_at is None:
                    sp += row.size
        elif ra is not None and self.is_return(ra):
            # in the ROM, or a jump to nowhere: the caller's address is still in the register, its frame is the current one
            calls = [Call(ra, sp, "likely")]
            more, closed = self.chain(ra, sp, words, frame_pointer, called=True)
            calls += more
        for _ in range(_MAX_GAPS):
            if not closed:
                break
            if not calls or not self._is_rom(calls[-1].address):
                return calls
            # the ROM called back: who called the ROM stands further up, behind frames of the ROM's that nothing describes
            beyond, closed = self._beyond_rom(calls[-1], words)
            if not beyond:
                return calls
            calls += beyond
        else:
            return calls
        if calls:
            sp = calls[-1].sp
        place = calls[-1].address - 1 if calls else pc
        inner = None if place is None else self.function(place) or self._rom_symbol(place)
        return calls + self._search(calls[-1].address if calls else None, inner, sp, words)

    def _search(self, younger: int | None, inner: Symbol | None, sp: int, words: Mapping[int, int]) -> list[Call]:
        """The rest of the chain: a word from which it unwinds to a root; else every word that follows a call.

        `inner` is the function whose return address is in no word: its caller saved its own, and its frame begins at `sp`.
        So the best word is one whose call goes to a function with a frame of just that size, best of all one that calls
        `inner`: then the missing return address is known too.
        """
        candidates = [(at, word) for at, word in sorted(words.items()) if at >= sp and word != younger and self.is_return(word)]
        best: tuple[int, list[Call]] | None = None
        longest: list[Call] = []
        for at, word in candidates[:_MAX_TRIES]:
            more, closed = self.chain(word, at + 4, words, called=True)
            found = [Call(word, at + 4, "likely"), *more]
            if not closed:
                longest = max(longest, found, key=len)
                continue
            rank, missing = self._caller(word, at + 4 - sp, inner)
            if missing is not None:
                found.insert(0, Call(missing, sp, "likely"))
            if best is None or rank < best[0]:
                best = (rank, found)
            if rank == 0:
                break
        if best is not None:
            return best[1]
        # nothing closes: a dump cut short, or an unknown root. What unwinds over several frames is still no accident.
        if len(longest) >= 3:
            return longest
        return self.listed([word for _, word in candidates])

    def _beyond_rom(self, last: Call, words: Mapping[int, int]) -> tuple[list[Call], bool]:
        """The chain that goes on above functions of the ROM, and whether it ends at a root: it begins with a call into the ROM."""
        for at, word in [(at, word) for at, word in sorted(words.items()) if at >= last.sp and self.is_return(word)][:_MAX_TRIES_BEYOND]:
            target = self.target(word)
            if target is None or not self._is_rom(target):
                continue
            best: list[Call] = []
            # a variadic ROM function (printf) saves its return address below the arguments that it spilled
            for sp in range(at + 4, at + 4 + _MAX_SPILLED, 4):
                more, closed = self.chain(word, sp, words, called=True)
                if closed and len(more) >= len(best):
                    best = [Call(word, sp, "likely"), *more]
            if best:
                return best, True
        return [], True

    def _caller(self, word: int, size: int, inner: Symbol | None) -> tuple[int, int | None]:
        """How well `word` fits as what the caller of `inner`, with a frame of `size` bytes, saved; lower is better.

        With it the return address into that caller, when just one of its calls goes to `inner`.
        """
        target = self.target(word)
        symbol = self.function(target) if target is not None else None
        if symbol is None or symbol.address != target:
            return 2, None  # called through a pointer: nothing speaks for it or against it
        walk = self._walk(symbol.address)
        if walk is None or walk.frame.size != size or walk.frame.return_at != -4:
            return 3, None
        sites = [back for back, to in walk.calls.items() if inner is not None and to == inner.address]
        if not sites:
            return 1, None
        return 0, sites[0] if len(sites) == 1 else None

    def listed(self, candidates: list[int]) -> list[Call]:
        """Return addresses of a stack in printed order: `likely` where one's call goes to the function of the one before."""
        out: list[Call] = []
        below: Symbol | None = None
        for word in candidates:
            symbol = self.function(self._site(word))
            target = self.target(word)
            fits = below is not None and target is not None and target == below.address
            if fits and out and out[-1].confidence == "possible":
                out[-1] = Call(out[-1].address, out[-1].sp, "likely")
            out.append(Call(word, 0, "likely" if fits else "possible"))
            below = symbol
        return out

    def target(self, return_address: int) -> int | None:
        """Where the call before `return_address` goes, long calls through a literal included; None when it cannot be told."""
        call = call_before(self._elf.arch, self._elf.read, return_address)
        walk = self._walk(call) if call is not None else None
        return walk.calls.get(return_address) if walk is not None else None
