"""Names of functions in the mask ROM, from the tables in ``symbols/rom``. Loaded when first asked for."""

from __future__ import annotations

import gzip
import re
import zlib
from bisect import bisect_right
from collections.abc import Collection, Sequence
from functools import lru_cache

from espmon.chips import CHIPS
from espmon.symbolize.elf import Symbol, clean
from espmon.symbolize.resources import symbols_dir

# the largest table is 350 kB of text
_MAX_TEXT = 8 << 20


class RomTable:
    """The functions of one ROM revision by address."""

    def __init__(self, text: str, end: int) -> None:
        """`end`: where the ROM ends, and with it a last function of unknown size."""
        rows: dict[int, tuple[int, str]] = {}
        self.named: set[tuple[int, str]] = set()
        address = 0
        for line in text.splitlines():
            step, size, name = line.split(" ", 2)
            address += int(step, 16)
            self.named.add((address, name.removeprefix("__call_")))  # the jump table that firmware is linked to
            length = int(size, 16) if size else 0
            known = rows.get(address)
            # of several names at one address: a sized one, then one without a leading underscore, then the first
            if known is None or _rank(length, name) < _rank(*known):
                rows[address] = (length, name)
        self.starts = sorted(rows)
        self._rows = [rows[start] for start in self.starts]
        self._end = end

    def at(self, address: int) -> Symbol | None:
        """The function that `address` lies in, or None."""
        at = bisect_right(self.starts, address) - 1
        if at < 0:
            return None
        start = self.starts[at]
        size, name = self._rows[at]
        end = start + size if size else (self.starts[at + 1] if at + 1 < len(self.starts) else self._end)
        return Symbol(clean(name), start, end) if address < end else None


def _rank(size: int, name: str) -> tuple[bool, bool]:
    return (size == 0, name.startswith(("_", ".")))


@lru_cache(32)
def rom_table(name: str, end: int) -> RomTable | None:
    """The table called `name` (``esp32c3-rev300``), or None when it is not there or damaged."""
    try:
        with gzip.open(symbols_dir() / "rom" / f"{name}.txt.gz", "rb") as stream:
            return RomTable(stream.read(_MAX_TEXT).decode("ascii"), end)
    except (OSError, EOFError, zlib.error, ValueError):
        return None


def is_rom(chip: str | None, address: int) -> bool:
    """True when `address` lies in the chip's mask ROM."""
    known = CHIPS.get(chip or "")
    return known is not None and known.rom_range[0] <= address < known.rom_range[1]


# `esp32c3-api1-20210207` or `Jul 29 2019 12:21:46`
_ID_DATE = re.compile(r"-(20\d{6})$")
_ETS_DATE = re.compile(r"([A-Z][a-z]{2}) {1,2}(\d{1,2}) (20\d\d)\b")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def rom_build(rom: str) -> str | None:
    """The date, as YYYYMMDD, in what a ROM calls itself in its banner."""
    if m := _ID_DATE.search(rom):
        return m[1]
    if (m := _ETS_DATE.match(rom)) and m[1] in _MONTHS:
        return f"{m[3]}{_MONTHS.index(m[1]) + 1:02d}{int(m[2]):02d}"
    return None


def rom_symbol(chip: str | None, address: int, rom: str | None = None) -> Symbol | None:
    """The ROM function at `address`. `rom`: what the ROM calls itself in its banner, which tells its revision.

    Where that is not known, and the chip's ROM revisions disagree, the answer is None: it is not guessed.
    """
    known = CHIPS.get(chip or "")
    if known is None or not is_rom(chip, address):
        return None
    found: Symbol | None = None
    stated = known.rom_builds.get(rom_build(rom) or "") if rom is not None else None
    for number, name in enumerate([stated] if stated is not None else known.rom_tables):
        table = rom_table(name, known.rom_range[1])
        symbol = table.at(address) if table is not None else None
        if symbol is None or (number and (found is None or (symbol.name, symbol.address) != (found.name, found.address))):
            return None
        found = symbol
    return found


def chip_linked_for(candidates: Sequence[str], absolute: Collection[tuple[int, str]]) -> str | None:
    """The one of `candidates` whose ROM functions a program was linked to, by its absolute symbols (address, name).

    None when that does not decide: two fit alike, or fewer than four symbols do.
    """
    fitting = []
    for name in candidates:
        chip = CHIPS[name]
        tables = [table for each in chip.rom_tables if (table := rom_table(each, chip.rom_range[1])) is not None]
        fitting.append((max((sum(1 for pair in absolute if pair in table.named) for table in tables), default=0), name))
    fitting.sort(reverse=True)
    if not fitting or fitting[0][0] < 4 or (len(fitting) > 1 and fitting[0][0] == fitting[1][0]):
        return None
    return fitting[0][1]
