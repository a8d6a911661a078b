"""A crash that is still being printed: what its lines have said so far, and the :class:`~espmon.events.Crash` at its end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from espmon import chips
from espmon.decode import causes
from espmon.events import (
    Address,
    BacktraceEntry,
    Crash,
    ExceptionCause,
    FailedAlloc,
    Location,
    Reset,
    ResetCause,
    StackDump,
)

if TYPE_CHECKING:
    from espmon.decode.formats import Format
    from espmon.decode.scan import Token

# Bounds of one dump; a real one stays far below. ESP8266 stacks: 16 KiB would be 1024 rows; ESP32 tasks print 1 KiB.
MAX_STACK_WORDS = 16384
MAX_STACKS = 8
MAX_BACKTRACES = 8
MAX_FRAMES = 512
MAX_MESSAGE = 1000

Action = Callable[["Dump", "Token"], "str | None"]


@dataclass(slots=True)
class Stack:
    """One stack block under way."""

    context: str | None = None
    sp: int | None = None
    end: int | None = None
    offset: int | None = None
    lines: int = 0
    words: list[tuple[int, int]] = field(default_factory=list)
    complete: bool = False
    rv: bool = False


@dataclass(slots=True)
class Dump:
    """What is known of the open dump. `strong`: the text can only come from a crashing board; a weak one is dropped."""

    format: Format
    state: str
    line: int
    end_line: int
    at: float | None
    boot: int
    kind: str | None = None
    chip: str | None = None
    framework: str | None = None
    number: int | None = None
    name: str | None = None
    registers: dict[str, int] = field(default_factory=dict)
    other_registers: dict[str, int] = field(default_factory=dict)
    other_core: int | None = None
    into_other: bool = False
    backtraces: list[list[tuple[int, int | None]]] = field(default_factory=list)
    stacks: list[Stack] = field(default_factory=list)
    core: int | None = None
    task: str | None = None
    message: str | None = None
    location: Location | None = None
    alloc: FailedAlloc | None = None
    elf_sha256: str | None = None
    strong: bool = False
    ended: bool = False
    cut: bool = False
    foreign: int = 0
    marks: set[str] = field(default_factory=set)
    report: str | None = None
    reset: ResetCause | None = None
    limit: str | None = None

    def say(self, message: str) -> None:
        """Adds one printed sentence to the message."""
        message = " ".join(message.split())[:MAX_MESSAGE]
        if not self.message:
            self.message = message
        elif message not in self.message and len(self.message) + len(message) < MAX_MESSAGE:
            self.message += "; " + message

    def stack(self) -> Stack:
        """The stack block that rows go to."""
        if not self.stacks:
            self.stacks.append(Stack())
        return self.stacks[-1]

    def new_stack(self) -> Stack:
        """Opens another block; the oldest are kept when there are too many."""
        if len(self.stacks) < MAX_STACKS:
            self.stacks.append(Stack())
        else:
            self.limit = "stack blocks of one dump"
        return self.stacks[-1]

    def row(self, address: int, words: Collection[int]) -> None:
        """One printed row of a stack."""
        block = self.stack()
        if len(block.words) >= MAX_STACK_WORDS:
            self.limit = "stack words of one dump"
            return
        block.lines += 1
        block.words.extend(zip(range(address, address + 4 * len(words), 4), words, strict=True))

    def frame(self, pc: int, sp: int | None) -> None:
        """One pair of the newest backtrace."""
        if not self.backtraces:
            self.backtraces.append([])
        if len(self.backtraces[-1]) < MAX_FRAMES:
            self.backtraces[-1].append((pc, sp))
        else:
            self.limit = "frames of one backtrace"

    def new_backtrace(self) -> None:
        """The next pairs belong to another backtrace."""
        if self.backtraces and not self.backtraces[-1]:
            return
        if len(self.backtraces) < MAX_BACKTRACES:
            self.backtraces.append([])
        else:
            self.limit = "backtraces of one dump"

    @property
    def has_body(self) -> bool:
        """Registers, a backtrace or stack rows were printed."""
        printed = self.registers.keys() - ({"pc"} if "abort-pc" in self.marks else set())
        return bool(printed or any(self.backtraces) or any(s.lines for s in self.stacks))


def _in_ranges(word: int, ranges: tuple[chips.Range, ...]) -> bool:
    return any(first <= word < end for first, end in ranges)


# Code of any ESP32-family chip: used only where the chip isn't known.
_ANY_CODE: tuple[chips.Range, ...] = ((0x40000000, 0x44000000), (0x4FC00000, 0x4FC20000), (0x4FF00000, 0x4FFC0000))


def _code_words(block: Stack, chip: str | None) -> tuple[Address, ...]:
    if not block.words:
        return ()
    known = chips.CHIPS.get(chip or "")
    ranges = known.code_ranges if known else (_ANY_CODE if block.rv else chips.ESP8266.code_ranges)
    first, end = min(first for first, _ in ranges), max(end for _, end in ranges)
    return tuple(Address(w) for _, w in block.words if first <= w < end and _in_ranges(w, ranges))  # most words are data


def _stacks(dump: Dump) -> tuple[StackDump, ...]:
    return tuple(
        StackDump(
            context=s.context,
            sp=None if s.sp is None else Address(s.sp),
            end=None if s.end is None else Address(s.end),
            offset=s.offset,
            lines=s.lines,
            code_words=_code_words(s, dump.chip),
            complete=s.complete,
            words=tuple(s.words),
        )
        for s in dump.stacks
    )


def _backtraces(dump: Dump) -> tuple[tuple[BacktraceEntry, ...], ...]:
    return tuple(
        tuple(BacktraceEntry(pc=Address(pc), sp=None if sp is None else Address(sp)) for pc, sp in frames)
        for frames in dump.backtraces
        if frames
    )


def code_fingerprint(crash: Crash) -> str:
    """A stable name for a crash without symbols: kind, exception, framework, and the code addresses that lead to it.

    The pc (or the first eight frames of the first backtrace, or the first eight code words of the first stack) enters,
    data addresses and line numbers don't. The symbolizer replaces it by one made of function names.
    """
    parts: list[str] = [crash.kind, crash.framework or "", crash.location.file or "" if crash.location else ""]
    if crash.exception is not None:
        parts.append(str(crash.exception.number if crash.exception.number is not None else crash.exception.name))
    for name in ("epc1", "pc", "mepc"):
        if name in crash.registers:
            parts.append(str(crash.registers[name]))
            break
    if crash.backtraces:
        parts.extend(str(f.pc) for f in crash.backtraces[0][:8])
    elif crash.stacks:
        parts.extend(str(w) for w in crash.stacks[0].code_words[:8])
    return "a-" + sha256("|".join(parts).encode()).hexdigest()[:16]


def to_crash(dump: Dump, *, file: str | None, port: str | None, complete: bool, rom: str | None = None) -> Crash:
    """The finished event. `rom`: what the board's ROM called itself."""
    exception = None
    if dump.number is not None or dump.name:
        exception = ExceptionCause(number=dump.number, name=dump.name)
    crash = Crash(
        kind=dump.kind or "panic",
        file=file,
        port=port,
        line=dump.line,
        end_line=dump.end_line,
        at=dump.at,
        boot=dump.boot,
        chip=dump.chip,
        framework=dump.framework,
        exception=exception,
        registers={k: Address(v) for k, v in dump.registers.items()},
        backtraces=_backtraces(dump),
        stacks=_stacks(dump),
        other_core=dump.other_core,
        other_registers={k: Address(v) for k, v in dump.other_registers.items()},
        core=dump.core,
        task=dump.task,
        message=dump.message,
        location=dump.location,
        last_failed_alloc=dump.alloc,
        elf_sha256=dump.elf_sha256,
        complete=complete,
        rom=rom,
    )
    explanation, remedies = causes.explain(crash)
    return replace(crash, explanation=explanation, remedies=remedies, fingerprint=code_fingerprint(crash))


def to_reset(dump: Dump, *, file: str | None, port: str | None, rom: str | None = None) -> Reset:
    """The report of an earlier crash: not a crash of this run."""
    exception = None
    if dump.number is not None or dump.name:
        exception = ExceptionCause(number=dump.number, name=dump.name)
    return Reset(
        file=file,
        port=port,
        line=dump.line,
        end_line=dump.end_line,
        at=dump.at,
        boot=dump.boot,
        source=dump.report,
        reset=dump.reset,
        exception=exception,
        registers={k: Address(v) for k, v in dump.registers.items()},
        backtraces=_backtraces(dump),
        stacks=_stacks(dump),
        message=dump.message,
        rom=rom,
    )
