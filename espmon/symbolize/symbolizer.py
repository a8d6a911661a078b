"""The symbolizer: several ELFs and the boot ROM's table behind one question, "what is this address?".

Thread-safe: a monitor asks from one thread while an index is built in another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from espmon.chips import CHIPS
from espmon.errors import ElfUnusable
from espmon.events import Address, Crash, Frame, Reset
from espmon.symbolize.callsite import call_before
from espmon.symbolize.dwarf import DwarfReader, FrameTuple
from espmon.symbolize.elf import ElfFile, Stamp, clean, stamp_of
from espmon.symbolize.explain import explained
from espmon.symbolize.index import Index, IndexDamaged, build, load, store
from espmon.symbolize.names import demangled, without_clone_suffix
from espmon.symbolize.rom import chip_linked_for, is_rom, rom_symbol
from espmon.symbolize.unwind import Unwinder

Explained = TypeVar("Explained", Crash, Reset)

# How often a file is looked at for a replacement while addresses are asked one by one; explain() always looks.
_RECHECK_S = 0.5
# A board that crashes in a loop asks for the same addresses again and again.
_MAX_ANSWERS = 4096


class Program:
    """One ELF that stays usable while builds replace it. `problem` says why there is no `elf`, or only an older one."""

    def __init__(self, path: str | Path, index_dir: Path | None = None) -> None:
        self.path = Path(path)
        self._index_dir = index_dir
        self._index: Index | None = None
        self._building: ElfFile | None = None
        self.elf: ElfFile | None = None
        self.problem: ElfUnusable | None = None
        self._reader: DwarfReader | None = None
        self._unwinder: Unwinder | None = None
        self._chip: str | None = None
        self._chip_known = False
        self._stamp: Stamp | None = None
        self._checked = -1e9

    def refresh(self, *, now: bool = False) -> bool:
        """Reads the file again when it was replaced; True when it was.

        A file that cannot be read (a linker is writing it?) is tried again when it changes; until then what was read
        before stays in use: the board, too, runs the build before.
        """
        moment = time.monotonic()
        if not now and moment - self._checked < _RECHECK_S:
            return False
        self._checked = moment
        try:
            stamp: Stamp | None = stamp_of(self.path)
        except (OSError, ValueError):
            stamp = None
        if stamp == self._stamp and (stamp is not None or self.problem is not None):
            return False
        self._stamp = stamp
        try:
            elf = ElfFile.open(self.path)
            _expect_usable(elf)
        except ElfUnusable as problem:
            if self.elf is not None:  # the board still runs what was built before
                problem = ElfUnusable(
                    problem.path,
                    f"{problem.reason}; what was read before stays in use",
                    "It is read again when a build has written it.",
                )
            self.problem = problem
            return False
        self._reader = None
        self._unwinder = None
        self._chip_known = False
        self._index = None
        self.problem = None
        self.elf = elf
        if self._index_dir is not None:
            self._index = load(self._index_dir, elf.sha256)
            if self._index is not None:
                elf.release_debug_sections()
        return True

    def take_index(self, elf: ElfFile, body: bytes, lock: threading.RLock) -> None:
        """Stores a built index and answers from it from now on, unless the file was replaced meanwhile."""
        folder = self._index_dir
        index = load(folder, elf.sha256) if folder is not None and store(folder, elf.sha256, body) else None
        if index is None:
            try:
                index = Index(body, bytes.fromhex(elf.sha256))  # nowhere to write: keep it in memory
            except IndexDamaged:
                return
        with lock:
            if self.elf is elf:
                self._index = index
                self._reader = None
                elf.release_debug_sections()

    def wants_index(self) -> ElfFile | None:
        """The ELF that an index should be built of now, once per ELF; None when there is no need."""
        if self._index_dir is None or self._index is not None or self.elf is None or self._building is self.elf:
            return None
        self._building = self.elf
        return self.elf

    @property
    def reader(self) -> DwarfReader | None:
        """The debug information, opened at first use; None without an ELF."""
        if self._reader is None and self.elf is not None:
            self._reader = DwarfReader(self.elf)
        return self._reader

    @property
    def chip(self) -> str | None:
        """The one chip that the program can have been linked for, by where its code lies; None when several fit."""
        if self.elf is None:
            return None
        if not self._chip_known:
            self._chip_known = True
            self._chip = None
            elf = self.elf
            family = ("riscv",) if elf.arch == "riscv" else ("xtensa",) if elf.is_windowed else ("lx106",)
            outside = {
                chip.name: sum(high - low for low, high, _ in elf.code if not chip.is_code(low) or is_rom(chip.name, low) or not chip.is_code(high - 1))
                for chip in CHIPS.values()
                if chip.arch in family
            }
            least = min(outside.values(), default=0)
            fitting = [name for name, count in outside.items() if count == least]
            if len(fitting) > 1:
                symbols = elf.symbols
                self._chip = chip_linked_for(fitting, {(address, symbols.name(name)) for address, name in symbols.absolute})
            elif fitting:
                self._chip = fitting[0]
        return self._chip

    def unwinder(self, chip: str | None) -> Unwinder | None:
        """Unwinds stacks of this program on `chip`."""
        if self._unwinder is None and self.elf is not None:
            self._unwinder = Unwinder(self.elf, lambda address: is_rom(chip, address), lambda address: rom_symbol(chip, address))
        return self._unwinder

    def covers(self, address: int) -> bool:
        """True when the program has code at `address`."""
        return self.elf is not None and self.elf.is_mapped(address)

    def frames(self, address: int) -> list[FrameTuple]:
        """What stands at `address`, names filled from the symbol table where the debug information has none."""
        elf = self.elf
        if elf is None or not elf.is_mapped(address):
            return []
        if self._index is not None:
            found = self._index.frames(address)
        else:
            found = self.reader.frames(address) if self.reader is not None else []
        if found and found[-1][0] is not None:
            return [(_scoped(name, linkage), linkage, file, line, start) for name, linkage, file, line, start in found]
        symbol = self._index.symbol_at(address) if self._index is not None else elf.symbols.at(address)
        if symbol is None:
            return found
        name = demangled(symbol.name)
        outer = (name, without_clone_suffix(symbol.name), None, None, symbol.address)
        if not found:
            return [outer]
        return [*found[:-1], (*outer[:2], *found[-1][2:4], symbol.address)]


class Symbolizer:
    """Turns addresses into functions, files and lines, with any number of ELFs (application, bootloader).

    A file that is missing, stripped, foreign or damaged is a value in `problems`, never an exception out of here; it is
    tried again when it changes.
    """

    def __init__(
        self,
        elfs: Sequence[str | Path],
        *,
        index_dir: Path | None = None,
        all_stack_words: bool = False,
        chip: str | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._programs = [Program(path, index_dir) for path in elfs]
        self._answers: dict[tuple[int, bool], tuple[Frame, ...]] = {}
        self._builders: list[threading.Thread] = []
        self._all_stack_words = all_stack_words
        self._chip = chip

    @property
    def problems(self) -> list[ElfUnusable]:
        """Why ELFs that were asked for are not in use now, or only as they were before a build touched them."""
        with self._lock:
            self._refresh()
            return [program.problem for program in self._programs if program.problem is not None]

    def _refresh(self, *, now: bool = False) -> None:
        for program in self._programs:
            if program.refresh(now=now):
                self._answers.clear()

    def lookup(self, address: int, *, call_site: bool = False) -> tuple[Frame, ...]:
        """What `address` is: inlined functions first, the function they stand in last. Empty when nothing is known.

        `call_site`: `address` is a return address; the call before it is looked up, `Frame.address` stays `address`.
        """
        with self._lock:
            self._refresh()
            key = (int(address) & 0xFFFFFFFF, call_site)
            found = self._answers.get(key)
            if found is None:
                found = self.describe(*key, self._programs, None)
                if len(self._answers) >= _MAX_ANSWERS:
                    self._answers.clear()
                self._answers[key] = found
        self._build_indexes()
        return found

    def explain(self, event: Explained) -> Explained:
        """`event` with `frames`, `elf` and `fingerprint` filled (of a Reset only `frames`): most recent call first.

        Never raises for what an ELF or a dump holds; without a usable ELF, ROM addresses still get their names.
        """
        with self._lock:
            self._refresh(now=True)
            out = explained(event, self)
        self._build_indexes()
        return out

    def _build_indexes(self) -> None:
        """Starts building what is missing, after the first answer so that it did not wait for it."""
        for program in self._programs:
            if (elf := program.wants_index()) is not None:
                builder = threading.Thread(target=self._build, args=(program, elf), name="index", daemon=True)
                self._builders.append(builder)
                builder.start()

    def _build(self, program: Program, elf: ElfFile) -> None:
        body = build(elf)
        program.take_index(elf, body, self._lock)

    def wait_for_index(self, timeout: float | None = None) -> None:
        """Waits until the indexes that are being built are there, at most `timeout` seconds for each."""
        for builder in self._builders:
            builder.join(timeout)
        self._builders = [builder for builder in self._builders if builder.is_alive()]

    @property
    def programs(self) -> Sequence[Program]:
        """The ELFs, in the order given."""
        return self._programs

    @property
    def all_stack_words(self) -> bool:
        """Whether stack words that no call precedes are listed as well."""
        return self._all_stack_words

    def chip_for(self, named: str | None) -> str | None:
        """The chip that a log named, else the one this symbolizer was made for, else what the ELFs were linked for."""
        if named is not None:
            return named
        if self._chip is not None:
            return self._chip
        for program in self._programs:
            if program.elf is not None and program.chip is not None:
                return program.chip
        return None

    def describe(
        self, address: int, call_site: bool, programs: Sequence[Program], chip: str | None, rom: str | None = None
    ) -> tuple[Frame, ...]:
        """lookup() in the order of `programs`, then in the ROM of `chip` (None: the ELFs'), which calls itself `rom`.

        Call it with the lock held.
        """
        wanted = address - 1 if call_site else address
        for program in programs:
            elf = program.elf
            if elf is None or not program.covers(wanted):
                continue
            if call_site:
                call = call_before(elf.arch, elf.read, address)
                wanted = address - 1 if call is None else call
            found = program.frames(wanted)
            if found:
                return _frames(address, found)
        symbol = rom_symbol(chip if chip is not None else self.chip_for(None), wanted, rom)
        if symbol is not None:
            return _frames(address, [(demangled(symbol.name), symbol.name, None, None, symbol.address)], "rom")
        return ()


def _expect_usable(elf: ElfFile) -> None:
    """Raises ElfUnusable for an ELF that has nothing to look addresses up in."""
    if not elf.has_section(".debug_info") and not elf.has_section(".zdebug_info") and not len(elf.symbols):
        raise ElfUnusable(
            clean(str(elf.path)),
            "is stripped: it has neither symbols nor line information",
            "Give the .elf file that the linker wrote, before strip or objcopy.",
        )


def _scoped(name: str | None, linkage: str | None) -> str | None:
    """The name with its scopes, for debug information that knows none (-g1, strict DWARF 2) but has the linkage name."""
    if name is not None and linkage is not None and linkage.startswith("_Z") and "::" not in name:
        full = demangled(linkage)
        if full.endswith("::" + name):
            return full
    return name


def _frames(address: int, found: Sequence[FrameTuple], module: str | None = "app") -> tuple[Frame, ...]:
    last = len(found) - 1
    out = []
    for at, (name, symbol, file, line, start) in enumerate(found):
        out.append(
            Frame(
                address=Address(address),
                function=name or None,
                file=clean(file) if file else None,
                line=line if file and line is not None and 0 < line < 1 << 31 else None,
                inlined=at != last,
                module=module,
                symbol=symbol or None,
                offset=address - start if at == last and 0 < start <= address else None,
            )
        )
    return tuple(out)
