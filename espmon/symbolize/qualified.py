"""The name of a function as the DIE tree gives it: ``ns::Class<int>::method``, without a demangler."""

from __future__ import annotations

from bisect import bisect_right

from espmon.symbolize.abbrev import (
    AT_ABSTRACT_ORIGIN,
    AT_LINKAGE_NAME,
    AT_MIPS_LINKAGE_NAME,
    AT_NAME,
    AT_SPECIFICATION,
    KIND_BLOCK,
    KIND_INLINED,
    SCOPES,
    TAG_NAMESPACE,
    TYPES,
)
from espmon.symbolize.elf import clean
from espmon.symbolize.encoding import FAULTS, uleb
from espmon.symbolize.entries import Entries, Unit
from espmon.symbolize.functions import Functions

_MAX_NAME = 8192  # characters, scopes included; templates get long, but not that long
_UNNAMED = "{unnamed type}"
_MAX_DEPTH = 256


class QualifiedNames:
    """Names of functions by the offset of their DIE, each built once."""

    def __init__(self, entries: Entries, functions: Functions) -> None:
        self._entries = entries
        self._functions = functions
        self._names: dict[int, tuple[str | None, str | None]] = {}
        self._inner: dict[int, list[tuple[int, int, int]]] = {}

    def name_of(self, die: int) -> tuple[str | None, str | None]:
        """(qualified name, linkage name) of the subprogram at `die`, following where it was declared.

        The qualified name is built from the tree: ``ns::Class<int>::method``.
        """
        known = self._names.get(die)
        if known is not None:
            return known
        name: bytes | None = None
        linkage: bytes | None = None
        place = die
        last = die
        for _ in range(16):
            unit = self._entries.unit_of(place)
            self._entries.open(unit)
            code, at = uleb(self._entries.info, place)
            found, _ = self._entries.attributes(unit, self._entries.abbrevs(unit)[code], at)
            if linkage is None:
                for attribute in (AT_LINKAGE_NAME, AT_MIPS_LINKAGE_NAME):
                    if attribute in found:
                        linkage = self._entries.string(unit, *found[attribute])
                        break
            if name is None and AT_NAME in found:
                name = self._entries.string(unit, *found[AT_NAME])
            last = place
            follow = found.get(AT_SPECIFICATION) or found.get(AT_ABSTRACT_ORIGIN)
            if follow is None or follow[1] == place:
                break
            place = follow[1]
        result: tuple[str | None, str | None]
        if name is None:
            result = (None, clean(linkage) if linkage else None)
        else:
            scope = self._scope_name(last)
            short = clean(name)
            full = (f"{scope}::{short}" if scope else short)[-_MAX_NAME:]
            if full.endswith(_UNNAMED + "::operator()"):  # GCC names no closure types, demanglers write {lambda(int)#1}
                full = full.removesuffix(_UNNAMED + "::operator()") + "{lambda}::operator()"
            result = (full, clean(linkage) if linkage else full)
        self._names[die] = result
        return result

    def safe_name(self, die: int | None) -> tuple[str | None, str | None]:
        """name_of(), or (None, None) where the names are damaged."""
        if die is None:
            return None, None
        try:
            return self.name_of(die)
        except FAULTS:
            return None, None

    def _scope_name(self, die: int) -> str:
        """The names of the namespaces, classes and functions around the DIE at `die`, joined by ``::``."""
        unit = self._entries.unit_of(die)
        if unit.scopes is None:
            self._functions.of(unit)
        scopes = unit.scopes or []
        starts = unit.scope_starts
        parts: list[str] = []
        for _ in range(_MAX_DEPTH):
            # in tree order: what encloses the DIE is the last scope that begins before it, or one around that one
            index = bisect_right(starts, die - 1) - 1
            while index >= 0 and scopes[index][1] <= die:
                index = scopes[index][2]
            if index < 0:
                break
            inner = scopes[index][0]
            chain = []
            while index >= 0:
                chain.append(scopes[index][0])
                index = scopes[index][2]
            parts += [self._short_name(unit, start) for start in reversed(chain)]
            scopes = self._inside(unit, inner)
            starts = [start for start, _, _ in scopes]
        return "::".join(part for part in parts if part)

    def _inside(self, unit: Unit, die: int) -> list[tuple[int, int, int]]:
        """The naming scopes directly below the DIE at `die`; blocks count as part of their function."""
        scopes = self._inner.get(die)
        if scopes is None:
            scopes = []
            self._collect_scopes(unit, die, scopes)
            self._inner[die] = scopes
        return scopes

    def _collect_scopes(self, unit: Unit, die: int, scopes: list[tuple[int, int, int]]) -> None:
        data = self._entries.info
        code, at = uleb(data, die)
        abbrev = self._entries.abbrevs(unit)[code]
        at = self._entries.skip(abbrev, unit, at)
        if not abbrev.children:
            return
        begin = at
        depth = 1
        try:
            while at < unit.end:
                start = at
                code, at = uleb(data, at)
                if code == 0:
                    depth -= 1
                    if depth == 0:
                        break
                    continue
                abbrev = self._entries.abbrevs(unit)[code]
                if abbrev.children and abbrev.kind in (KIND_BLOCK, KIND_INLINED):
                    at = self._entries.skip(abbrev, unit, at)
                    depth += 1
                    continue
                at = self._entries.past(abbrev, unit, at)
                if abbrev.children and abbrev.tag in SCOPES:
                    scopes.append((start, at, -1))
        finally:
            self._entries.budget.spend(at - begin)

    def _short_name(self, unit: Unit, die: int) -> str:
        code, at = uleb(self._entries.info, die)
        abbrev = self._entries.abbrevs(unit)[code]
        found, _ = self._entries.attributes(unit, abbrev, at)
        if AT_NAME in found:
            return clean(self._entries.string(unit, *found[AT_NAME]))
        origin = found.get(AT_ABSTRACT_ORIGIN) or found.get(AT_SPECIFICATION)
        if origin is not None and origin[1] != die:
            name = self.name_of(origin[1])[0]
            return name.rpartition("::")[2] if name else ""
        if abbrev.tag == TAG_NAMESPACE:
            return "(anonymous namespace)"
        return _UNNAMED if abbrev.tag in TYPES else ""
