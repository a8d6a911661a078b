"""What a person sees: the board's text as it comes, one line for each thing that happened, a panel for each crash.

The values are plain, their words are in `words`; on a terminal crashes are drawn by `panel`, in pipes and logs the same
facts are plain, stable text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from espmon.events import Crash, Event, Text
from espmon.sinks.lines import LineRules, LineShaper, LineWatch, clock_stamp
from espmon.sinks.neutral import Neutralizer, one_line, plain
from espmon.sinks.screen import Screen
from espmon.sinks.textlog import TextLog
from espmon.sinks.words import SourceLines, Tone, crash_lines, notice_lines

_COLOURS: dict[Tone, str] = {"quiet": "36", "good": "32", "warning": "33", "bad": "1;31"}
_PANEL_COLUMNS = 40  # narrower, a frame round the crash leaves no room for what is in it


class Console:
    """Shows a port's text and events on `screen`, and the same as plain text in `log`. One thread owns it.

    What is shown is gathered and written by :meth:`flush`, so that a burst of chunks costs one write. `watch` sees every
    line of text. `paused` keeps the screen still; the log goes on. `has_elf`: a missing function isn't for want of an ELF.
    `roots`: project folders, which paths are shown relative to.
    """

    def __init__(
        self,
        screen: Screen,
        *,
        rules: LineRules | None = None,
        timestamps: bool = False,
        log: TextLog | None = None,
        watch: LineWatch | None = None,
        has_elf: bool = False,
        roots: Sequence[str] = (),
    ) -> None:
        self.screen = screen
        self.has_elf = has_elf
        self.roots = roots
        self.log = log
        self.watch = watch
        self.matched = False
        """`watch` has found its pattern."""
        self.paused = False
        self.unseen = 0
        """Characters that came while the screen was paused."""
        self._neutral = Neutralizer()
        self._shaper = LineShaper(rules, None)
        self._deferred: list[tuple[Event, SourceLines]] = []
        self._out: list[str] = []
        self._log_out: list[str] = []
        self._told_slow = False
        self.timestamps = timestamps

    @property
    def rules(self) -> LineRules:
        return self._shaper.rules

    @property
    def timestamps(self) -> bool:
        return self._shaper.stamp is not None

    @timestamps.setter
    def timestamps(self, on: bool) -> None:
        self._shaper.stamp = (self._coloured_stamp if self.screen.colour else clock_stamp) if on else None

    def _coloured_stamp(self, at: float | None) -> str:
        return f"\x1b[2m{clock_stamp(at)}\x1b[22m"

    # --- what comes in ----------------------------------------------------------------------------------------------

    def show(self, event: Event, source: SourceLines | None = None) -> None:
        """Takes one event; :meth:`flush` shows it. `source` holds source lines for a crash's frames."""
        if isinstance(event, Text):
            self._text(self._neutral.feed(event.raw), event.at)
        elif self._shaper.at_start and not self._deferred:
            self._fact(event, source or {})
        else:  # not in the middle of a line: at its end, or when the line stands still
            self._deferred.append((event, source or {}))

    def _fact(self, event: Event, source: SourceLines) -> None:
        if isinstance(event, Crash):
            self._crash(event, source)
        elif told := notice_lines(event):
            self._notice(told[1][0], told[0], *told[1][1:], at=event.at)

    def _tell_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for event, source in deferred:
            self._fact(event, source)

    def _text(self, safe: str, at: float | None) -> None:
        if not safe:
            return
        if self.watch is not None and not self.matched:
            self.matched = self.watch.feed(safe)
            if self.watch.stopped and not self._told_slow:
                self._told_slow = True
                self.notice("--until is too slow on this text and is not applied any more", "warning")
        if self._deferred and "\n" in safe:
            first, safe = safe.split("\n", 1)
            self._emit(self._shaper.feed(first + "\n", at))
            self._tell_deferred()
        if safe:
            self._emit(self._shaper.feed(safe, at))
        if self.rules.stopped is not None:
            pattern, self.rules.stopped = self.rules.stopped, None
            self.notice(f"A filter is too slow on this text and is not applied any more: {one_line(pattern, 100)}", "warning")

    def idle(self) -> None:
        """Nothing came for about 0.1 s: shows what was held back for its missing rest."""
        if self._neutral.holding:
            self._text(self._neutral.flush(), None)
        self._emit(self._shaper.idle())
        self._tell_deferred()

    @property
    def withholding(self) -> bool:
        """True when :meth:`idle` could show more."""
        return self._neutral.holding or bool(self._deferred) or self._shaper.withholding

    def notice(self, what: str, tone: Tone = "quiet", *more: str) -> None:
        """A line of our own, clearly not the board's; `more` lines are indented below it. Shown even while paused."""
        paused, self.paused = self.paused, False
        try:
            self._notice(what, tone, *more)
        finally:
            self.paused = paused

    def _notice(self, what: str, tone: Tone, *more: str, at: float | None = None) -> None:
        mark = "●" if self.screen.unicode else "---"
        ending = self._shaper.fresh_line()
        lines = [what, *more]
        stamp = self._stamp(at)
        text = ending + plain(stamp) + _plain_notice(lines)
        if self.screen.is_terminal:
            blank = " " * len(plain(stamp))
            indent = " " * (len(mark) + 1)
            rows: list[str] = []
            for line in lines:
                rows += _wrapped(line, self.screen.width - len(indent) - len(blank))
            styled = [f"{indent if number else f'{mark} '}{row}" for number, row in enumerate(rows)]
            if self.screen.colour:
                styled = [f"\x1b[0;{_COLOURS[tone]}m{row}\x1b[0m" for row in styled]
            self._emit(ending + "".join(f"{blank if number else stamp}{row}\n" for number, row in enumerate(styled)), text)
        else:
            self._emit(text)

    def _stamp(self, at: float | None) -> str:
        """What begins a fact's line: the time, as it begins the board's lines."""
        stamp = self._shaper.stamp
        return stamp(at) if stamp is not None and at is not None else ""

    def _crash(self, crash: Crash, source: SourceLines) -> None:
        ending = self._shaper.fresh_line()
        lines = crash_lines(crash, source, self.has_elf)
        text = ending + plain(self._stamp(crash.at)) + _plain_notice(lines)
        if self.screen.is_terminal and self.screen.width >= _PANEL_COLUMNS:
            from espmon.sinks.panel import crash_panel

            self._emit(ending + crash_panel(crash, source, self.screen, self.has_elf, self.roots), text)
        elif self.screen.is_terminal:
            self._emit(ending + self._unframed(lines), text)
        else:
            self._emit(text)

    def _unframed(self, lines: Sequence[str]) -> str:
        """The plain text of a crash for a narrow terminal: each line folded below its own beginning."""
        import textwrap

        out: list[str] = []
        for line in lines:
            label = re.match(r"  \w+: +| +(?:\d+\. )?", line)
            hanging = min(len(label[0]) if label else 0, 4)
            out += textwrap.wrap(line, max(16, self.screen.width - 1), subsequent_indent=" " * hanging, break_on_hyphens=False)
        if not self.screen.colour:
            return "".join(f"{row}\n" for row in out)
        return f"\x1b[0;{_COLOURS['bad']}m{out[0]}\x1b[0m\n" + "".join(f"{row}\n" for row in out[1:])

    def _emit(self, text: str, log_text: str | None = None) -> None:
        if not text:
            return
        if not self.screen.is_terminal:
            text = self._for_pipe(text)
        if self.paused:
            self.unseen += len(text)
        else:
            self._out.append(text)
        if self.log is not None:
            self._log_out.append(text if log_text is None else log_text)

    # --- what goes out ----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Writes what was gathered: to the log, then to the screen. Raises `OutputClosed`."""
        if self._log_out and self.log is not None:
            gathered, self._log_out = "".join(self._log_out), []
            self.log.write(gathered)
        if self._out:
            gathered, self._out = "".join(self._out), []
            self.screen.write(gathered)

    def _for_pipe(self, text: str) -> str:
        if not self.screen.colour:
            text = plain(text)
        return text.replace("\r", "\n") if "\r" in text else text

    def close(self) -> None:
        """Shows what was still held, ends the line, leaves no colour behind."""
        self.idle()
        ending = self._shaper.fresh_line()
        reset = "\x1b[0m" if self.screen.is_terminal and self.screen.colour else ""
        self._emit(reset + ending, ending)
        self.flush()


def _wrapped(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    import textwrap

    return textwrap.wrap(line, max(10, width), break_on_hyphens=False)


def _plain_notice(lines: Sequence[str]) -> str:
    return "".join(f"{'--- ' if number == 0 else '    '}{line}\n" for number, line in enumerate(lines))
