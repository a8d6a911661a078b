"""From a crash's addresses to its frames, the ELF they were found in, and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from espmon.chips import CHIPS
from espmon.events import Address, Crash, ElfRef, Frame, Reset, StackDump
from espmon.symbolize.elf import clean
from espmon.symbolize.names import without_clone_suffix
from espmon.symbolize.program import Program
from espmon.symbolize.rom import is_rom
from espmon.symbolize.unwind import Call

Explained = TypeVar("Explained", Crash, Reset)

# A dump holds at most some dozens of frames; a longer list is a dump made to be long.
MAX_FRAMES = 512
# A watchdog prints one per core; a report of several tasks has more.
_MAX_TRACES = 32
# Frames that make a fingerprint: the innermost ones tell crashes apart, the outermost are the same for all.
_FINGERPRINT_FRAMES = 8
_PC_REGISTERS = ("pc", "mepc", "epc1")
# Printed when the exception came at a level of its own: watchdogs and NMI interrupt what these hold.
_OTHER_PC_REGISTERS = ("epc2", "epc3", "epc4")


class Lookup(Protocol):
    """What explaining needs of `espmon.symbolize.Symbolizer`."""

    @property
    def programs(self) -> Sequence[Program]: ...
    @property
    def all_stack_words(self) -> bool: ...
    def chip_for(self, named: str | None) -> str | None: ...
    def describe(
        self, address: int, call_site: bool, programs: Sequence[Program], chip: str | None, rom: str | None = None
    ) -> tuple[Frame, ...]: ...


def explained(event: Explained, symbolizer: Lookup) -> Explained:
    """`event` with its frames (and, of a Crash, `elf` and `fingerprint`)."""
    if isinstance(event, Reset):
        view = _View(symbolizer, Crash(kind="reset", registers=event.registers, backtraces=event.backtraces, rom=event.rom))
        frames = view.frames()
        return replace(event, frames=tuple(frames)) if frames else event
    view = _View(symbolizer, event)
    frames = view.frames()
    elf = view.elf_ref()
    return replace(event, frames=tuple(frames), elf=elf, fingerprint=_fingerprint(event, view.primary))


class _View:
    """One crash seen through one symbolizer."""

    def __init__(self, symbolizer: Lookup, crash: Crash) -> None:
        self._symbolizer = symbolizer
        self._crash = crash
        self._chip = symbolizer.chip_for(crash.chip)
        self._printed = (crash.elf_sha256 or "").strip(". ").lower()
        if len(self._printed) < 8 or not self._printed.strip("0"):
            self._printed = ""  # too short to tell, or the zeros of a build without a hash
        self._programs = self._ordered()
        self._mismatch = self._match_of(self._programs[0]) == "mismatch" if self._programs else False
        self.primary: list[Frame] = []

    def _ordered(self) -> list[Program]:
        """The usable ELFs, the one that this crash came from first: by printed hash, then by how many addresses it covers."""
        addresses = {entry.pc for trace in self._crash.backtraces for entry in trace}
        addresses |= {word for stack in self._crash.stacks for word in stack.code_words}
        addresses |= {value for name, value in self._crash.registers.items() if name in _PC_REGISTERS or name == "ra"}
        usable = [program for program in self._symbolizer.programs if program.elf is not None]
        return sorted(
            usable,
            key=lambda program: (
                0 if self._printed and self._match_of(program) == "verified" else 1,
                -sum(1 for address in addresses if program.covers(address)) if len(usable) > 1 else 0,
            ),
        )

    def _match_of(self, program: Program) -> str:
        if not self._printed or program.elf is None:
            return "unverified"
        return "verified" if program.elf.sha256.startswith(self._printed) else "mismatch"

    def elf_ref(self) -> ElfRef | None:
        """The ELF that this crash's own addresses were looked up in."""
        if not self._programs or self._programs[0].elf is None:
            return None
        program = self._programs[0]
        return ElfRef(path=clean(str(program.path)), sha256=program.elf.sha256 if program.elf else None, match=self._match_of(program))

    def _group(self, address: int, origin: str, confidence: str, *, call_site: bool) -> list[Frame]:
        """The frames at one address; one frame without a name where nothing is known."""
        if self._mismatch:
            confidence = "possible"
        found = self._symbolizer.describe(address, call_site, self._programs, self._chip, self._crash.rom)
        if not found:
            found = (Frame(address=Address(address), module="rom" if is_rom(self._chip, address) else None),)
        return [replace(frame, origin=origin, confidence=confidence) for frame in found]

    def frames(self) -> list[Frame]:
        """All frames, most recent call first. `primary` afterwards holds those of the crash's own chain."""
        crash = self._crash
        out: list[Frame] = []
        traces = [trace for trace in crash.backtraces if trace][:_MAX_TRACES]
        if traces:
            for number, trace in enumerate(traces):
                for entry in trace[:MAX_FRAMES]:
                    out += self._group(entry.pc, "backtrace", "certain", call_site=False)
                if number == 0:
                    self.primary = list(out)
        else:
            out = self._without_backtrace()
        if crash.last_failed_alloc is not None and crash.last_failed_alloc.caller:
            # the core prints __builtin_return_address(0)
            out += self._group(crash.last_failed_alloc.caller, "alloc", "certain", call_site=True)
        return out[:MAX_FRAMES]

    def _without_backtrace(self) -> list[Frame]:
        registers = self._crash.registers
        out: list[Frame] = []
        pc = next((int(registers[name]) for name in _PC_REGISTERS if name in registers), None)
        if pc == 0 and "epc1" in registers:
            pc = next((int(registers[name]) for name in _OTHER_PC_REGISTERS if registers.get(name)), pc)
        # an all-zero register dump (a reset, a soft watchdog) names no place
        if pc is not None and (pc or "mepc" in registers or "pc" in registers or self._crash.kind == "exception"):
            out += self._group(pc, "pc", "certain", call_site=False)
        if "a0" in registers and "pc" in registers:
            # windowed ABI: the two top bits of a0 hold the call's window size, the address lies in the PC's region
            caller = (int(registers["a0"]) & 0x3FFFFFFF) | 0x40000000
            if self._is_return(caller):
                out += self._group(caller, "return", "likely", call_site=True)
        self.primary = out
        for number, stack in enumerate(self._crash.stacks):
            chain = self._stack(stack, pc if number == 0 else None, first=number == 0)
            if number == 0:
                self.primary = out + chain
            out = out + chain
        if not self._crash.stacks and "mepc" in registers and registers.get("ra") and self._is_return(int(registers["ra"])):
            out = out + self._group(int(registers["ra"]), "return", "likely", call_site=True)
            self.primary = out
        return out

    def _is_return(self, address: int) -> bool:
        for program in self._programs:
            if program.covers(address - 1):
                unwinder = program.unwinder(self._chip)
                return unwinder is not None and unwinder.is_return(address)
        return False

    def _stack(self, stack: StackDump, pc: int | None, *, first: bool) -> list[Frame]:
        program = next((p for p in self._programs if p.elf is not None), None)
        unwinder = program.unwinder(self._chip) if program is not None else None
        everything = self._symbolizer.all_stack_words
        if program is None or unwinder is None or program.elf is None:
            if not everything:
                return []
            return [f for word in stack.code_words for f in self._group(word, "stack", "possible", call_site=True)]
        registers = self._crash.registers
        known = CHIPS.get(self._chip or "")
        words = dict(stack.words)
        if program.elf.is_windowed:
            # the windowed ABI's return addresses are not in the dump as such, and its panics print a backtrace
            return [f for word in stack.code_words for f in self._group(int(word), "stack", "possible", call_site=True)] if everything else []
        riscv = program.elf.arch == "riscv"
        if known is not None and (known.arch == "riscv") != riscv:
            return []  # the ELF is for another processor than the log's
        ra = int(registers["ra"]) if riscv and first and "ra" in registers else None
        calls: list[Call]
        if words:
            sp = min(words)
            if first and riscv and registers.get("sp") in words:
                sp = int(registers["sp"])
            frame_pointer = next((int(registers[name]) for name in ("s0/fp", "s0", "fp") if name in registers), None) if riscv and first else None
            calls = unwinder.unwind(pc or None, ra, sp, words, frame_pointer)
        else:
            calls = unwinder.listed([int(word) for word in stack.code_words if unwinder.is_return(int(word))])
        out: list[Frame] = []
        left = list(calls)
        if everything:
            # every word of code in printed order; those that are part of the chain keep what they are
            for word in stack.code_words:
                call = next((c for c in left if c.address == word), None)
                if call is not None:
                    left.remove(call)
                    out += self._call(call, ra)
                else:
                    out += self._group(int(word), "stack", "possible", call_site=True)
            return [frame for call in left for frame in self._call(call, ra)] + out
        for call in left:
            out += self._call(call, ra)
        return out

    def _call(self, call: Call, ra: int | None) -> list[Frame]:
        origin = "return" if ra is not None and call.address == ra else "unwound" if call.sp else "stack"
        return self._group(call.address, origin, call.confidence, call_site=True)


def _fingerprint(crash: Crash, frames: Sequence[Frame]) -> str | None:
    """A short hash of what crashed and where, by name: the same after a rebuild that moves everything.

    `possible` frames and frames without a name do not enter it. Without any name it stays the decoder's.
    """
    names = []
    for frame in frames:
        if frame.inlined or frame.confidence == "possible":
            continue
        name = frame.symbol or frame.function
        if name:
            names.append(without_clone_suffix(name))
    if not names:
        return crash.fingerprint
    number = crash.exception.number if crash.exception is not None else None
    key = "\n".join([crash.kind, "" if number is None else str(number), *names[:_FINGERPRINT_FRAMES]])
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]
