"""The symbolizer: several ELFs and the boot ROM's table behind one question, "what is this address?".

Thread-safe: a monitor asks from one thread while an index is built in another.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from espmon.errors import ElfUnusable
from espmon.events import Address, Frame
from espmon.symbolize.callsite import call_before
from espmon.symbolize.dwarf import FrameTuple
from espmon.symbolize.elf import ElfFile, clean
from espmon.symbolize.explain import Explained, explained
from espmon.symbolize.index import build
from espmon.symbolize.names import demangled
from espmon.symbolize.program import Program
from espmon.symbolize.rom import rom_symbol

# A board that crashes in a loop asks for the same addresses again and again.
_MAX_ANSWERS = 4096


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
        """Why ELFs that were asked for are not in use now, or only in part or as they were before a build touched them."""
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
