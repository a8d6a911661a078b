"""The functions of a unit, and what is inlined into them.

Nothing is read that the question does not need: the functions of one unit, then the body of one function.
Where several functions or inlined calls claim an address, the last in tree order has it, as with llvm-symbolizer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from espmon.symbolize.abbrev import (
    AT_ABSTRACT_ORIGIN,
    AT_CALL_FILE,
    AT_CALL_LINE,
    KIND_BLOCK,
    KIND_FUNCTION,
    KIND_INLINED,
    KIND_LEAF,
    KIND_NAMESPACE,
    KIND_SCOPE,
)
from espmon.symbolize.encoding import FAULTS, Malformed, uleb
from espmon.symbolize.entries import Entries, Function, Node, Unit
from espmon.symbolize.ranges import painted

_MAX_DEPTH = 256


class Functions:
    """The functions of each unit, read when first asked for and kept in the unit."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def of(self, unit: Unit) -> list[Function]:
        """The concrete functions of a unit in tree order, bodies unread. Raises any of FAULTS."""
        if unit.functions is not None:
            return unit.functions
        self._entries.open(unit)
        functions: list[Function] = []
        scopes: list[tuple[int, int, int]] = []
        self._walk(unit, unit.die, unit.end, functions, scopes)
        unit.scopes = scopes
        unit.scope_starts = [start for start, _, _ in scopes]
        unit.functions = functions
        return functions

    def _walk(
        self,
        unit: Unit,
        at: int,
        end: int,
        functions: list[Function],
        scopes: list[tuple[int, int, int]],
    ) -> None:
        """Collects functions and naming scopes below the DIE at `at`, which ends at `end` at the latest.

        Namespaces are walked into, everything else is jumped over. A scope is (start, end, index of the one around it or
        -1), in tree order.
        """
        entries = self._entries
        data, abbrevs, skip = entries.info, entries.abbrevs(unit), entries.skip
        entries.budget.spend(min(end, unit.end) - at)
        code, at = uleb(data, at)
        abbrev = abbrevs[code]
        if not abbrev.children:
            return
        at = skip(abbrev, unit, at)
        open_: list[int] = []  # indexes into scopes of the namespaces that we are in
        while at < end:
            start = at
            code = data[at]
            at += 1
            if code >= 0x80:
                code, at = uleb(data, start)
            elif code == 0:
                if not open_:
                    return
                index = open_.pop()
                scopes[index] = (scopes[index][0], at, scopes[index][2])
                continue
            abbrev = abbrevs[code]
            kind = abbrev.kind
            if kind == KIND_LEAF:
                at = at + abbrev.size if abbrev.size >= 0 else skip(abbrev, unit, at)
                continue
            if kind == KIND_FUNCTION:
                found, body = entries.attributes(unit, abbrev, at)
                ranges = entries.ranges_of(unit, found)
                after = entries.after(abbrev, unit, at) if abbrev.children else body
                if ranges:
                    functions.append(Function(start, ranges, body if abbrev.children else 0, after))
                at = after or entries.end_of_children(unit, body)
            elif kind == KIND_NAMESPACE:
                if len(open_) > _MAX_DEPTH:
                    raise Malformed("namespaces nested without end")
                scopes.append((start, end, open_[-1] if open_ else -1))
                open_.append(len(scopes) - 1)
                at = skip(abbrev, unit, at)
                continue
            else:
                at = entries.past(abbrev, unit, at)
            if abbrev.children and kind in (KIND_FUNCTION, KIND_SCOPE):
                scopes.append((start, at, open_[-1] if open_ else -1))

    def body(self, unit: Unit, function: Function) -> list[Node]:
        """What is inlined into `function`, in tree order. Raises any of FAULTS."""
        if function.nodes is None:
            function.nodes = self._inlined(unit, function) if function.body else []
        return function.nodes

    def _inlined(self, unit: Unit, function: Function) -> list[Node]:
        entries = self._entries
        data, abbrevs, skip = entries.info, entries.abbrevs(unit), entries.skip
        nodes: list[Node] = []
        parents = [-1]
        at, end = function.body, function.after or unit.end
        try:
            while at < end:
                start = at
                code = data[at]
                at += 1
                if code >= 0x80:
                    code, at = uleb(data, start)
                elif code == 0:
                    parents.pop()
                    if not parents:
                        break
                    continue
                abbrev = abbrevs[code]
                kind = abbrev.kind
                if kind == KIND_LEAF:
                    at = at + abbrev.size if abbrev.size >= 0 else skip(abbrev, unit, at)
                elif kind == KIND_INLINED:
                    found, at = entries.attributes(unit, abbrev, at)
                    origin = found.get(AT_ABSTRACT_ORIGIN)
                    call_file = found.get(AT_CALL_FILE, (0, 0))[1]
                    call_line = found.get(AT_CALL_LINE, (0, 0))[1]
                    ranges = entries.ranges_of(unit, found)
                    nodes.append((ranges, origin[1] if origin else None, parents[-1], call_file, call_line))
                    if abbrev.children:
                        parents.append(len(nodes) - 1)
                elif kind == KIND_BLOCK:
                    at = skip(abbrev, unit, at)
                    parents.append(parents[-1])
                else:
                    at = entries.past(abbrev, unit, at)
                if len(parents) > _MAX_DEPTH:
                    raise Malformed("blocks nested without end")
        finally:
            entries.budget.spend(at - function.body)
        return nodes

    def function_at(self, unit: Unit, address: int) -> Function | None:
        """The concrete function that `address` lies in."""
        found = self._painted_at(unit, address)
        if found is None and not unit.functions_all:
            before = len(self.of(unit))
            if len(self.all_of(unit)) != before:
                unit.painted = None
                found = self._painted_at(unit, address)
        return found

    def _painted_at(self, unit: Unit, address: int) -> Function | None:
        if unit.painted is None:
            functions = [(low, high, function) for function in self.of(unit) for low, high in function.ranges]
            spans = painted((low, high) for low, high, _ in functions)
            unit.painted = [start for start, _, _ in spans], [(end, functions[which][2]) for _, end, which in spans]
        starts, rows = unit.painted
        at = bisect_right(starts, address) - 1
        return rows[at][1] if at >= 0 and address < rows[at][0] else None

    def all_of(self, unit: Unit) -> list[Function]:
        """The unit's functions, those inside of others included: lambdas and methods of local classes.

        They are rare and finding them means visiting every DIE, so that is done only when an address asks for it.
        """
        functions = self.of(unit)
        if unit.functions_all:
            return functions
        unit.functions_all = True
        known = {function.die for function in functions}
        nested: list[Function] = []
        data = self._entries.info
        abbrevs = self._entries.abbrevs(unit)
        end = unit.end
        at = unit.die
        self._entries.budget.spend(end - at)
        skip = self._entries.skip
        try:
            while at < end:
                start = at
                code = data[at]
                at += 1
                if code == 0:
                    continue
                if code >= 0x80:
                    code, at = uleb(data, start)
                abbrev = abbrevs[code]
                if abbrev.kind != KIND_FUNCTION:
                    at = at + abbrev.size if abbrev.size >= 0 else skip(abbrev, unit, at)
                    continue
                first = at
                found, at = self._entries.attributes(unit, abbrev, at)
                if start not in known:
                    ranges = self._entries.ranges_of(unit, found)
                    if ranges:
                        body = at if abbrev.children else 0
                        nested.append(Function(start, ranges, body, self._entries.after(abbrev, unit, first)))
        except FAULTS as fault:
            self._entries.faults.append(f"unit at {unit.offset:#x}: {fault}")
        functions.extend(nested)
        return functions

    def chain(self, unit: Unit, function: Function, address: int) -> Iterable[tuple[int | None, int, int]]:
        """(origin DIE, call file, call line) of each inlined call around `address`, innermost first."""
        nodes = self.body(unit, function)
        inner = -1
        for index, node in enumerate(nodes):
            for low, high in node[0]:
                if low <= address < high:
                    inner = index
                    break
        while inner >= 0:
            _, origin, parent, call_file, call_line = nodes[inner]
            yield origin, call_file, call_line
            inner = parent
