"""One ELF that stays usable while builds replace it: its debug information or index, its symbols, its chip."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from espmon.chips import CHIPS
from espmon.errors import ElfUnusable
from espmon.symbolize.dwarf import DwarfReader, FrameTuple
from espmon.symbolize.elf import ElfFile, Stamp, clean, stamp_of
from espmon.symbolize.index import Index, IndexDamaged, load, store
from espmon.symbolize.names import demangled, without_clone_suffix
from espmon.symbolize.rom import chip_linked_for, is_rom, rom_symbol
from espmon.symbolize.unwind import Unwinder

# How often a file is looked at for a replacement while addresses are asked one by one; explain() always looks.
_RECHECK_S = 0.5


class Program:
    """One ELF that stays usable while builds replace it.

    `problem` says why there is no `elf`, or only an older one, or what of it can't be read.
    """

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
        if not (elf.is_inflatable(".debug_info") and elf.is_inflatable(".debug_line")):
            self.problem = ElfUnusable(
                clean(str(self.path)),
                "its debug information is compressed with zstd, which is not read here: functions have names, but no files and lines",
                "Link without --compress-debug-sections=zstd, or run objcopy --decompress-debug-sections on it.",
            )
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
