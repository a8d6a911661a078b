"""The vocabulary of the state machines: token patterns, and the lexer that finds them anywhere in a line.

A line may hold a whole dump (lost newlines) or the end of one and the start of the next, so tokens are looked for at
every place, left to right. :class:`Spec` declares one; formats own their specs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spec:
    """One token: its `kind` and `pattern` (groups may be named). Patterns must not match the empty string and must not
    backtrack over unbounded text: a line can be 32 KiB of anything.

    `hints`: lower-case words of which one stands in every text that the pattern matches; the pattern is only tried where
    one does (none: always). A test compares with trying all. `row`: a line that is nothing but this holds no other token
    (stack dumps are long; their lines are worth a short cut). `inside`: it is no token but where a dump is open that has a
    rule for it.
    """

    kind: str
    pattern: str
    hints: tuple[str, ...] = ()
    row: bool = False
    inside: bool = False


# What stands before a string that a program prints: a call, its first arguments, the opening quote.
_CALL = re.compile(r"\w\s?\((?:[\w\s,.&>*-]{0,40},\s?)?(?:F\(|PSTR\(|_F\(|L|u8|f|b|r)?[\"'](?:\\[rnt])*[^\"'\\]{0,24}$")


def source_code(before: str) -> bool:
    """True when `before` ends inside a string that is an argument of a call: what follows is said by no board."""
    return _CALL.search(before[-120:]) is not None


# As far as a token looks around itself: lines can be long, and full of tokens.
_NEAR = 400
_PUNCTUATION = " \t`*_'\"|.>-:#~"
_COMMENT = re.compile(r"\s*//\s?\w[^\n]*")
_QUOTED = re.compile(r"(?:[\w\s*\[\]]{1,60}=)?\s*\"[^\"\n]*")
_STRING_END = re.compile(r"\";\s*$")
# Before a text that source code holds between quotes: a call, a comparison, a constant.
_IN_SOURCE = re.compile(
    r"(?:\w\s?\(\s?|\w\s?\([^()\"'\n]{0,60},\s?|[!=]=\s?|\b[A-Z][A-Z_]{3,40}\s?=\s?)(?:[bfrLuBFRU]|u8)?[\"'`][^\"'`\n]{0,80}$"
)


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
        if self.start > _NEAR:
            return False
        before = self.text[: self.start].lstrip(_PUNCTUATION)
        return len(before) <= 3 and " " not in before and before != "//"

    @property
    def in_source(self) -> bool:
        """True when it stands in a string of source code, or in a comment behind words."""
        return (self.start <= _NEAR and _COMMENT.match(self.text, 0, self.start) is not None) or self.in_string

    @property
    def in_string(self) -> bool:
        """True when it stands in a string of source code: `print("…`, `== b'…`, `LOGE(TAG, "…`, `String s = "…";`."""
        text, start = self.text, self.start
        head = min(self.end, start + 10)  # a token may begin with the quote, and with damaged letters before it
        start = max(start, text.rfind('"', start, head) + 1, text.rfind("'", start, head) + 1)
        if start <= _NEAR and _QUOTED.match(text, 0, start) and _STRING_END.search(text, max(start, len(text) - 8)):
            return True
        return _IN_SOURCE.search(text[max(0, start - 160) : start]) is not None or source_code(text[max(0, start - 120) : start])

    @property
    def listed(self) -> bool:
        """True when it stands in quotes of its own, as an element of a list or an argument: source code, no log. (Elements
        in double quotes may be the lines of a log in JSON.)"""
        quote = self.text[self.start - 1 : self.start]
        follows = {"'": ",)];", '"': ");"}.get(quote, "")
        after = self.text[self.end + 1 :].lstrip()[:1]
        return self.text[self.end : self.end + 1] == quote and after != "" and after in follows

    @property
    def rest(self) -> str:
        """What follows on the line (its beginning, when the line is long)."""
        return self.text[self.end : self.end + _NEAR]

    @property
    def ends(self) -> bool:
        """True when nothing but punctuation follows on its line."""
        return not self.rest.strip(" \t`*_'\".:-),;]")


# Hints are filed under three of their letters; a line longer than this is asked for each instead of for all its triples.
_LONG = 1000
# Dumps and boots say the same again with other numbers: which patterns such a line may hold is kept in mind, digits made 0
# in it and in the hints (one that stands in a text stands in it so as well).
_DIGITS = str.maketrans("123456789", "000000000")
_LONGEST_KNOWN = 200
_MOST_KNOWN = 1024


def _by_triple(hints: Iterable[str]) -> tuple[dict[tuple[str, str, str], list[str]], list[str]]:
    """The hints under three successive letters that few others have, so that few are compared with a line; and those that
    are shorter."""
    long: list[str] = []
    short: list[str] = []
    for hint in hints:
        (long if len(hint) >= 3 else short).append(hint)
    triples = {hint: list(zip(hint, hint[1:], hint[2:], strict=False)) for hint in long}
    count = Counter(triple for each in triples.values() for triple in set(each))
    filed: dict[tuple[str, str, str], list[str]] = {}
    for hint, each in triples.items():
        filed.setdefault(min(each, key=lambda triple: count[triple]), []).append(hint)
    return filed, short


class Lexer:
    """All specs together; at each place the first spec that matches there wins."""

    def __init__(self, specs: Iterable[Spec]) -> None:
        self._kinds: list[str] = []
        always: list[int] = []
        by_hint: dict[str, list[int]] = {}
        self._search: list[Callable[..., re.Match[str] | None]] = []
        self._rows: list[tuple[str, Callable[[str], re.Match[str] | None]]] = []
        for i, spec in enumerate(specs):
            self._kinds.append(spec.kind)
            if spec.row:
                self._rows.append((spec.kind, re.compile(spec.pattern + r"\s*").fullmatch))
            self._search.append(re.compile(spec.pattern).search)
            for hint in {hint.translate(_DIGITS) for hint in spec.hints}:
                by_hint.setdefault(hint, []).append(i)
            if not spec.hints:
                always.append(i)
        self._always = frozenset(always)
        self._known: dict[str, frozenset[int]] = {}
        self._by_hint = list(by_hint.items())
        filed, short = _by_triple(by_hint)
        self._filed = {triple: [(hint, by_hint[hint]) for hint in hints] for triple, hints in filed.items()}
        self._short = [(hint, by_hint[hint]) for hint in short]

    def _specs(self, text: str) -> frozenset[int]:
        """Which specs may match somewhere in `text`."""
        shape = text.lower().translate(_DIGITS)
        if (known := self._known.get(shape)) is not None:
            return known
        if len(shape) > _LONG:
            hit = [found for hint, found in self._by_hint if hint in shape]
        else:
            filed = self._filed
            hit = [found for hint, found in self._short if hint in shape]
            hit += [
                found
                for triple in filed.keys() & zip(shape, shape[1:], shape[2:], strict=False)
                for hint, found in filed[triple]
                if hint in shape
            ]
        specs = self._always.union(*hit)
        if len(shape) <= _LONGEST_KNOWN:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[shape] = specs
        return specs

    def scan(self, text: str, line: int, *, without: frozenset[str] = frozenset()) -> list[Token]:
        """The tokens of `text`, left to right, not overlapping; those of the kinds `without` don't count as any."""
        for kind, whole in self._rows:
            m = whole(text) if kind not in without else None
            if m is not None:
                return [Token(kind, m.groupdict(), text, 0, len(text), line)]
        search = self._search
        ahead = []
        for i in self._specs(text):
            if without and self._kinds[i] in without:
                continue
            m = search[i](text)
            if m is not None:
                ahead.append((m.start(), i, m))
        tokens: list[Token] = []
        while ahead:
            start, i, m = min(ahead) if len(ahead) > 1 else ahead[0]
            end = m.end()
            tokens.append(Token(self._kinds[i], m.groupdict(), text, start, end, line))
            left = []
            for at in ahead:
                if at[0] >= end:
                    left.append(at)
                    continue
                later = search[at[1]](text, end)
                if later is not None:
                    left.append((later.start(), at[1], later))
            ahead = left
        return tokens
