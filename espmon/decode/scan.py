"""The vocabulary of the state machines: token patterns, and the lexer that finds them anywhere in a line.

A line may hold a whole dump (lost newlines) or the end of one and the start of the next, so tokens are looked for at
every place, left to right. :class:`Spec` declares one; formats own their specs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spec:
    """One token: its `kind` and `pattern` (groups may be named). Patterns must not match the empty string and must not
    backtrack over unbounded text: a line can be 32 KiB of anything."""

    kind: str
    pattern: str


_PUNCTUATION = " \t`*_'\"|.>-:#~"


class Token:
    """One match: `kind`, the `groups`, and where it stands in `text` (the peeled line number `line`)."""

    __slots__ = ("end", "groups", "kind", "line", "start", "text")

    def __init__(self, kind: str, groups: dict[str, str | None], text: str, start: int, end: int, line: int) -> None:
        self.kind = kind
        self.groups = groups
        self.text = text
        self.start = start
        self.end = end
        self.line = line

    def __getitem__(self, name: str) -> str:
        return self.groups[name] or ""

    def number(self, name: str, base: int = 10) -> int | None:
        """Group `name` as a number, None when it wasn't in the text."""
        value = self.groups.get(name)
        return int(value, base) if value else None

    @property
    def leads(self) -> bool:
        """True when nothing but punctuation or a few damaged letters stands before it on its line."""
        before = self.text[: self.start].lstrip(_PUNCTUATION)
        return len(before) <= 3 and " " not in before

    @property
    def rest(self) -> str:
        """What follows on the line."""
        return self.text[self.end :]

    @property
    def ends(self) -> bool:
        """True when nothing but punctuation follows on its line."""
        return not self.rest.strip(" \t`*_'\".:-)")


_NAMED = re.compile(r"\(\?P<\w+>")


class Lexer:
    """All specs in one alternation; the first spec that matches at a place wins."""

    def __init__(self, specs: Iterable[Spec]) -> None:
        self._specs = list(specs)
        self._each = [re.compile(s.pattern) for s in self._specs]
        self._any = re.compile("|".join(f"(?P<T{i}>{_NAMED.sub('(', s.pattern)})" for i, s in enumerate(self._specs)))

    def scan(self, text: str, line: int) -> Iterator[Token]:
        """The tokens of `text`, left to right, not overlapping."""
        for m in self._any.finditer(text):
            i = int((m.lastgroup or "T0")[1:])
            exact = self._each[i].match(text, m.start())
            if exact is not None:
                yield Token(self._specs[i].kind, exact.groupdict(), text, exact.start(), exact.end(), line)
