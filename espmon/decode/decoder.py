"""The decoder: bytes in, events out. No clock, no files, no threads.

Every byte leaves at once in a :class:`~espmon.events.Text`; facts follow when their lines are complete. Lines that can't
matter are never looked at one by one: whole chunks are searched for what can begin a fact
(:mod:`espmon.decode.triggers`) and their newlines counted in bulk.
"""

from __future__ import annotations

from dataclasses import replace

from espmon.decode.interpreter import Interpreter
from espmon.decode.triggers import Familiar, Hits, triggers
from espmon.events import Event, LimitReached, Text

# Longest line that is looked at as one; longer ones are cut into pieces of this many bytes.
MAX_LINE = 32768
# Silence after which an open dump, or a line without its newline, is taken as finished (live input only).
SILENCE_S = 1.0
_PREVIOUS = 512


class Decoder:
    """Decodes one port's bytes, or one file's.

    `file` and `port` are written into the events. `chip`: what the chip is, when it is known beforehand. :meth:`feed`
    and :meth:`tick` take Unix seconds; with None (files) no deadline ever fires. `familiar`: a set that is given to many
    decoders, empty at first; each puts lines into it in which nothing begins, and it stays bounded however many they are.
    """

    __slots__ = (
        "_at", "_cut", "_facts", "_familiar", "_file", "_here", "_line", "_parts", "_peeked", "_port", "_previous", "_size", "_text_line",
    )  # fmt: skip

    def __init__(
        self, *, file: str | None = None, port: str | None = None, chip: str | None = None, familiar: set[bytes] | None = None
    ) -> None:
        self._facts = Interpreter(file=file, port=port, chip=chip, previous=self._before)
        self._file = file
        self._port = port
        self._line = 1  # number of the line that the next byte belongs to
        self._parts: list[bytes] = []  # the piece of a line that has no newline yet
        self._size = 0
        self._cut = False  # the present line was cut already
        self._peeked = -1  # size at which the unfinished line was last looked at by tick()
        self._previous = b""
        self._at: float | None = None
        self._here: tuple[bytes, int] = (b"", 0)
        self._familiar = Familiar(familiar)

    def feed(self, data: bytes, at: float | None = None) -> list[Event]:
        """The events of `data`, received at `at`: its text, and the facts that became complete with it."""
        if not data:
            return []
        if at is not None:
            self._at = at
        if b"\n" not in data and self._size + len(data) <= MAX_LINE:
            self._parts.append(data)
            self._size += len(data)
            return [self._text(data, self._line, self._line, at)]
        out: list[Event] = []
        if self._parts:
            self._parts.append(data)
            buffer = b"".join(self._parts)
            done = self._scan(buffer, self._size, at, out)
        else:
            buffer = data
            done = self._scan(buffer, 0, at, out)
        rest = buffer[done:]
        self._parts = [rest] if rest else []
        self._size = len(rest)
        self._peeked = -1
        return out

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`tick` should be called (Unix seconds), None when nothing is open."""
        if self._at is None:
            return None
        if self._facts.open or (self._size and self._peeked != self._size):
            return self._at + SILENCE_S
        return None

    def tick(self, at: float) -> list[Event]:
        """Time has passed without input: closes what a silent board left open."""
        if self._at is None or at < self._at + SILENCE_S:
            return []
        if self._size and self._peeked != self._size:
            self._peeked = self._size
            piece = b"".join(self._parts)
            if self._facts.engaged or triggers(piece):
                # Taken as a line; what still comes of it is a piece of its own.
                self._here = (b"", 0)
                self._facts.line(piece, self._line, self._at)
                self._parts, self._size, self._peeked = [], 0, -1
        if self._facts.open:
            self._facts.finish("deadline")
        return self._take()

    @property
    def line(self) -> int:
        """Number of the line that the next byte belongs to."""
        return self._line

    def insert(self, event: Event) -> list[Event]:
        """A fact that was found elsewhere in these bytes (text sent at another rate) takes its place among the others.

        It is counted and numbered like one of ours: a :class:`Boot` closes an open dump and may complete a boot loop.
        """
        if event.line is None:
            event = replace(event, line=self._line, end_line=self._line)
        self._facts.insert(event)
        return self._take()

    def close(self, at: float | None = None) -> list[Event]:
        """The input has ended: the last line and everything open."""
        if self._size:
            piece = b"".join(self._parts)
            if self._facts.engaged or triggers(piece):
                self._here = (b"", 0)
                self._facts.line(piece, self._line, at if at is not None else self._at)
            self._parts, self._size = [], 0
        self._facts.finish("eof")
        return self._take()

    def _take(self) -> list[Event]:
        out, self._facts.out = self._facts.out, []
        return out

    def _text(self, raw: bytes, line: int, end_line: int, at: float | None) -> Text:
        return Text(
            file=self._file, line=line, end_line=end_line, at=at, port=self._port, boot=self._facts.boots, raw=raw
        )

    def _scan(self, buffer: bytes, shown: int, at: float | None, out: list[Event]) -> int:
        """Goes through the complete lines of `buffer`, of which `shown` bytes were emitted before; returns where the
        unfinished line begins."""
        facts = self._facts
        end = buffer.rfind(b"\n") + 1
        pos, line, text_line = 0, self._line, self._line
        hits = Hits(buffer, end, self._familiar)
        while pos < end:
            if not facts.engaged:
                hit = hits.after(pos)
                stop = end if hit == end else buffer.rfind(b"\n", pos, hit) + 1 or pos
                if stop > pos:
                    if stop - pos > MAX_LINE and self._long(buffer, pos, stop):
                        stop = self._skip_to_long(buffer, pos, stop)
                    line += buffer.count(b"\n", pos, stop)
                    if stop > pos:
                        self._cut = False
                    pos = stop
                    if pos == end:
                        break
            newline = buffer.find(b"\n", pos)
            if newline - pos <= MAX_LINE:
                raw = buffer[pos:newline]
                if facts.engaged or triggers(raw):
                    self._here = (buffer, pos)
                    facts.line(raw, line, at)
            else:
                self._pieces(buffer, pos, newline, line, at)
            pos = newline + 1
            self._cut = False
            line += 1
            if facts.out:
                if pos > shown:
                    out.append(self._text(buffer[shown:pos], text_line, line - 1, at))
                    shown, text_line = pos, line
                out.extend(facts.out)
                facts.out = []
        self._line = line
        self._here = (b"", 0)
        if end:
            start = buffer.rfind(b"\n", 0, end - 1) + 1
            length = end - 1 - start
            start += (length - 1) // MAX_LINE * MAX_LINE if length > MAX_LINE else 0
            self._previous = buffer[max(start, end - 1 - _PREVIOUS) : end - 1]
        if len(buffer) - end > MAX_LINE:
            end = self._pieces(buffer, end, len(buffer), line, at)
        if len(buffer) > shown:
            out.append(self._text(buffer[shown:], text_line, line if end < len(buffer) or buffer[-1:] != b"\n" else line - 1, at))
        if facts.out:
            out.extend(facts.out)
            facts.out = []
        return end

    def _before(self) -> bytes:
        """The line before the one that is looked at."""
        buffer, pos = self._here
        if pos <= 0:
            return b"" if pos else self._previous
        start = buffer.rfind(b"\n", 0, pos - 1) + 1
        length = pos - 1 - start
        start += (length - 1) // MAX_LINE * MAX_LINE if length > MAX_LINE else 0
        return buffer[max(start, pos - 1 - _PREVIOUS) : pos - 1]

    @staticmethod
    def _long(buffer: bytes, pos: int, stop: int) -> bool:
        """True when a line in ``buffer[pos:stop]`` (whole lines) is longer than MAX_LINE."""
        while stop - pos > MAX_LINE + 1:
            newline = buffer.rfind(b"\n", pos, pos + MAX_LINE + 1)
            if newline < 0:
                return True
            pos = newline + 1
        return False

    @staticmethod
    def _skip_to_long(buffer: bytes, pos: int, stop: int) -> int:
        """Where the first too long line of ``buffer[pos:stop]`` begins."""
        while stop - pos > MAX_LINE + 1:
            newline = buffer.rfind(b"\n", pos, pos + MAX_LINE + 1)
            if newline < 0:
                return pos
            pos = newline + 1
        return stop

    def _pieces(self, buffer: bytes, pos: int, stop: int, line: int, at: float | None) -> int:
        """Looks at an overlong line in pieces; returns where the last, incomplete one begins."""
        facts = self._facts
        complete = stop < len(buffer)
        while stop - pos > MAX_LINE or (complete and pos < stop):
            if not self._cut:
                self._cut = True
                facts.out.append(
                    LimitReached(
                        file=self._file,
                        line=line,
                        end_line=line,
                        at=at,
                        port=self._port,
                        boot=facts.boots,
                        what="bytes of one line",
                        limit=MAX_LINE,
                    )
                )
            raw = buffer[pos : min(pos + MAX_LINE, stop)]
            if facts.engaged or triggers(raw):
                self._here = (b"", -1)
                facts.line(raw, line, at)
            pos += len(raw)
        return pos
