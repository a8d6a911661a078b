"""The shape in which safe text is shown: line ends, timestamps, and rules that hide lines.

Rules only hide, and they are a person's regular expressions: one that would match for hours is stopped by a timer and
not applied any more (Python's matcher holds the interpreter's lock, so another thread could not stop it).
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from espmon.errors import UsageProblem
from espmon.sinks.neutral import plain

LEVELS = ("error", "warning", "info", "debug", "verbose")
# IDF: `E (123) tag:`; ESPHome and Arduino-ESP32: `[E][tag:12]`, after any number of bracketed times.
_LEVEL = re.compile(r"\s*(?:\[[\s\d:.]+\]\s?)*(?:([EWIDV]) \([\d:. -]+\) |\[(VV|[EWICDV])\]\[)")
_RANK = {"E": 0, "W": 1, "I": 2, "C": 2, "D": 3, "V": 4, "VV": 4}
# A line is judged by its first characters: patterns that take quadratic time stay quick, and memory bounded.
JUDGED_CHARACTERS = 4096
MATCH_LIMIT_S = 0.2
_LINE_ENDS = re.compile("\r+\n|\n\r+")
_NESTED_REPEATS = re.compile(r"\((?:\\.|[^()\\])*(?:[+*]|\{\d*,\})(?:\\.|[^()\\])*\)(?:[+*]|\{\d*,\d*\})")


class _TooSlow(Exception):
    pass


def _stop(_signal: int, _frame: object) -> None:
    raise _TooSlow


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises inside the block when it computes longer. Only in the main thread of a POSIX system; elsewhere no limit.

    Computing time, not the clock's: a busy machine or a laptop that slept must not switch a good pattern off.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def compile_pattern(pattern: str, option: str) -> re.Pattern[str]:
    """A person's regular expression. Raises `UsageProblem` when it is none, or cannot be stopped when it runs away."""
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageProblem(f"{option} {pattern!r} is no regular expression: {error}", "Escape special characters with \\.") from None
    if sys.platform == "win32" and _NESTED_REPEATS.search(pattern):
        raise UsageProblem(
            f"{option} {pattern!r} repeats what already repeats: it could match for hours",
            "Write it without a repeat inside a repeated group.",
        )
    return compiled


class LineRules:
    """Which lines are hidden: those below `level`, those that no `filters` match, those that any of `excludes` matches.

    Lines without a recognisable level are never hidden by `level`.
    """

    def __init__(
        self, filters: Sequence[re.Pattern[str]] = (), excludes: Sequence[re.Pattern[str]] = (), level: str | None = None
    ) -> None:
        self.filters = filters
        self.excludes = excludes
        self.level = level
        self.stopped: str | None = None
        """Set when a pattern took too long: its text; rules with patterns are then off."""

    def __bool__(self) -> bool:
        return bool(self.filters or self.excludes or self.level not in (None, "verbose"))

    def shown(self, lines: Sequence[str]) -> list[bool]:
        """One answer per line."""
        try:
            with time_limit(MATCH_LIMIT_S) if self.filters or self.excludes else contextlib.nullcontext():
                return [self._shows(line) for line in lines]
        except _TooSlow:
            self.stopped = ", ".join(p.pattern for p in (*self.filters, *self.excludes))
            self.filters = self.excludes = ()
            return [self._shows(line) for line in lines]

    def _shows(self, line: str) -> bool:
        line = plain(line)[:JUDGED_CHARACTERS]
        if self.level is not None and (match := _LEVEL.match(line)):
            if _RANK[match[1] or match[2]] > LEVELS.index(self.level):
                return False
        if self.filters and not any(pattern.search(line) for pattern in self.filters):
            return False
        return not any(pattern.search(line) for pattern in self.excludes)


class LineWatch:
    """Looks for `pattern` (``--until``) in every line, unfinished ones included, whatever the rules hide."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.stopped = False
        self._tail = ""

    def feed(self, text: str) -> bool:
        """True when a line of safe `text`, together with what began it, matches."""
        *lines, self._tail = (self._tail + plain(text)).replace("\r", "\n").split("\n")
        self._tail = self._tail[:JUDGED_CHARACTERS]
        if self.stopped:
            return False
        try:
            with time_limit(MATCH_LIMIT_S):
                if any(self.pattern.search(line[:JUDGED_CHARACTERS]) for line in lines):
                    return True
                return bool(self._tail and self.pattern.search(self._tail))
        except _TooSlow:
            self.stopped = True
            return False


_last_second: tuple[int, str] = (-1, "")


def clock_stamp(at: float | None) -> str:
    """``12:34:56.789`` in local time, a space behind; blanks where the time is not known."""
    global _last_second  # a second's text serves all of its lines
    if at is None:
        return " " * 13
    second = int(at)
    if _last_second[0] != second:
        try:
            _last_second = (second, time.strftime("%H:%M:%S", time.localtime(second)))
        except (ValueError, OverflowError, OSError):
            return " " * 13
    return f"{_last_second[1]}.{int((at - second) * 1000):03d} "


class LineShaper:
    """Turns safe text into what is shown. Text is never delayed, except lines that rules have to judge first."""

    def __init__(self, rules: LineRules | None = None, stamp: Callable[[float | None], str] | None = None) -> None:
        self.rules = rules if rules is not None else LineRules()
        self.stamp = stamp
        self.at_start = True
        """Nothing stands on the current line yet."""
        self._return_held = False
        self._line = ""  # under rules: what is withheld of the current line
        self._line_at: float | None = None
        self._verdict: bool | None = None

    def feed(self, text: str, at: float | None) -> str:
        if self._return_held:
            text = "\r" + text
            self._return_held = False
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if "\r" in text:
            text = _LINE_ENDS.sub("\n", text)
            if text.endswith("\r"):  # its newline may be in the next chunk
                text = text.rstrip("\r")
                self._return_held = True
            if self.at_start and not self._line:
                text = text.lstrip("\r")
        if not text:
            return ""
        if self.rules or self._line or self._verdict is not None:
            return self._judged(text, at)
        return self._stamped(text, at)

    def idle(self) -> str:
        """Nothing more came for a moment: shows an unfinished line that rules withheld, unless they hide it."""
        if self._line and self._verdict is None and self.rules.shown([self._line])[0]:
            self._verdict = True
            text, self._line = self._line, ""
            return self._stamped(text, self._line_at)
        return ""

    @property
    def withholding(self) -> bool:
        """True when :meth:`idle` might show more."""
        return bool(self._line) and self._verdict is None

    def fresh_line(self) -> str:
        """What ends the current line, so that something else can be shown; empty when nothing stands on it."""
        if self.at_start:
            return ""
        self.at_start = True
        return "\n"

    def _stamped(self, text: str, at: float | None) -> str:
        if self.stamp is None:
            self.at_start = text.endswith("\n")
            return text
        prefix = self.stamp(at)
        body = text.removesuffix("\n")
        shaped = body.replace("\n", "\n" + prefix)
        if "\r" in shaped:
            shaped = shaped.replace("\r", "\r" + prefix)
        if self.at_start:
            shaped = prefix + shaped
        self.at_start = text.endswith("\n")
        return shaped + "\n" if self.at_start else shaped

    def _judged(self, text: str, at: float | None) -> str:
        first, *rest = text.split("\n")
        out: list[str] = []
        if rest:  # the first piece ends the line that was begun
            if self._verdict is None:
                whole = self._line + first
                if self.rules.shown([whole])[0]:
                    out.append(self._stamped(whole + "\n", self._line_at if self._line else at))
            elif self._verdict:
                out.append(self._stamped(first + "\n", at))
            self._line, self._verdict = "", None
            *lines, first = rest
            shown = self.rules.shown(lines) if lines else []
            kept = [line for line, show in zip(lines, shown, strict=True) if show]
            if kept:
                out.append(self._stamped("\n".join(kept) + "\n", at))
        if first:
            if self._verdict is None:
                if not self._line:
                    self._line_at = at
                self._line += first
                if len(self._line) > JUDGED_CHARACTERS:
                    self._verdict = self.rules.shown([self._line])[0]
                    if self._verdict:
                        out.append(self._stamped(self._line, self._line_at))
                    self._line = ""
            elif self._verdict:
                out.append(self._stamped(first, at))
        return "".join(out)
