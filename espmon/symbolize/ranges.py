"""Overlapping ranges made into ones that do not overlap."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


def painted(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(start, end, which span) sorted and without overlap: where several spans overlap the last of them stands.

    As if each half-open span were painted over those before it.
    """
    ends: list[tuple[int, int, int]] = []
    for order, (low, high) in enumerate(spans):
        ends.append((low, 1, order))
        ends.append((high, 0, order))
    ends.sort()
    active: list[int] = []  # ascending; nesting is shallow, so insertion is cheap
    out: list[tuple[int, int, int]] = []
    place = 0
    for address, opening, order in ends:
        if active and place < address:
            if out and out[-1][1] == place and out[-1][2] == active[-1]:
                out[-1] = (out[-1][0], address, active[-1])
            else:
                out.append((place, address, active[-1]))
        place = address
        at = bisect_left(active, order)
        if opening:
            active.insert(at, order)
        elif at < len(active) and active[at] == order:
            del active[at]
    return out
