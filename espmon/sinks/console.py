"""What a person sees: the board's text as it comes, one line for each thing that happened, a panel for each crash.

The values are plain; this file alone knows how they look. On a terminal crashes are drawn with rich (imported when the
first one is shown); in pipes and logs the same facts are plain, stable text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from espmon.events import (
    Boot,
    BootLoop,
    Brownout,
    CoreDump,
    Crash,
    DecoderFault,
    DownloadMode,
    Event,
    FlashError,
    Frame,
    Gap,
    HostError,
    LimitReached,
    PortChanged,
    Recovery,
    Reset,
    ResetCause,
    ResetCaused,
    Text,
    WrongRate,
)
from espmon.sinks.lines import LineRules, LineShaper, LineWatch, clock_stamp
from espmon.sinks.neutral import Neutralizer, one_line, plain
from espmon.sinks.screen import Screen
from espmon.sinks.textlog import TextLog

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

Tone = Literal["quiet", "good", "warning", "bad"]
_COLOURS: dict[Tone, str] = {"quiet": "36", "good": "32", "warning": "33", "bad": "1;31"}
SourceLines = Mapping[tuple[str, int], str]
_SURE_FRAMES = 16
_POSSIBLE_FRAMES = 8
_PANEL_COLUMNS = 40  # narrower, a frame round the crash leaves no room for what is in it

_KINDS = {
    "exception": "Exception",
    "panic": "Panic",
    "watchdog": "Watchdog",
    "abort": "abort()",
    "assert": "Assertion failed",
    "stack-overflow": "Stack overflow",
    "stack-smashing": "Stack smashing detected",
    "out-of-memory": "Out of memory",
    "heap-corruption": "Heap corruption",
    "cache-error": "Cache error",
    "lua-panic": "Lua panic",
    "unhandled-exception": "Unhandled exception",
}
_FRAMEWORKS = {
    "arduino": "Arduino",
    "nonos-sdk": "NonOS SDK",
    "rtos-sdk": "RTOS SDK",
    "esp-idf": "ESP-IDF",
    "micropython": "MicroPython",
    "nodemcu-lua": "NodeMCU Lua",
    "esphome": "ESPHome",
    "tasmota": "Tasmota",
}
_CHIP_TITLES = {"esp8266": "ESP8266", "esp32": "ESP32"}


def chip_title(name: str | None) -> str:
    """``esp32c3`` as people write it: ``ESP32-C3``."""
    if not name:
        return ""
    return _CHIP_TITLES.get(name) or (f"ESP32-{name[5:].upper()}" if name.startswith("esp32") else one_line(name, 20))


# --- events in words ------------------------------------------------------------------------------------------------


def _cause_words(reset: ResetCause | None, code: str) -> str:
    """In words, and the number behind `code` as the source prints it."""
    if reset is None or (reset.code is None and not reset.meaning and not reset.name):
        return "reset for an unknown reason"
    words = one_line(reset.meaning or reset.name, 120)
    if not words:
        words = "reset"
    if reset.code is not None:
        words += f" ({code}0x{reset.code:x})" if code == "rst:" else f" ({code}{reset.code})"
    return words


def notice_lines(event: Event) -> tuple[Tone, list[str]] | None:
    """How the event is told: its tone, what happened, and at most one more line with what to do. None: it is not told."""
    match event:
        case Boot():
            words = f"Boot: {_cause_words(event.reset, 'rst cause ' if event.chip == 'esp8266' else 'rst:')}"
            mode = event.boot_mode
            if mode is not None and mode.meaning:
                words += f", {one_line(mode.meaning, 100)}"
            elif mode is not None and mode.raw:
                words += f", boot mode {one_line(mode.raw, 20)}"
            if event.inferred:
                words += f" [read from text sent at {event.rate} baud]" if event.rate else " [read from garbled text]"
            if event.caused_by == "espmon":
                words += " [espmon did that]"
            elif event.caused_by == "open":
                words += " [opening the port may have caused it]"
            abnormal = event.reset is not None and event.reset.abnormal
            return ("warning" if abnormal or (mode is not None and mode.download) else "good"), [words]
        case Reset():
            source = _FRAMEWORKS.get(event.source or "", event.source or "")
            words = f"Reset reason{f' by {one_line(source, 30)}' if source else ''}: {_cause_words(event.reset, 'reason ')}"
            if event.exception is not None:
                words += f", {_exception_words(event.exception.name, event.exception.number)}"
            lines = [words]
            if event.frames and event.frames[0].function:
                lines.append(f"In {_frame_words(event.frames[0])}")
            return ("warning" if event.reset is not None and event.reset.abnormal else "quiet"), lines
        case FlashError():
            return "bad", _told(f"Flash error: {one_line(event.message)}", event.meaning, event.remedies)
        case DownloadMode():
            return "warning", _told("Download mode", event.meaning or "the board waits for a download", event.remedies)
        case Brownout():
            return "bad", _told("Brownout", event.meaning or "the supply voltage fell too low", event.remedies)
        case BootLoop():
            words = f"Boot loop: {event.boots} boots in a row failed alike"
            if event.period_s is not None:
                words += f", every {event.period_s:.1f} s"
            return "bad", _told(words, event.cause, event.remedies)
        case HostError():
            tool = one_line(event.tool, 30) or "a flashing tool"
            cause = event.causes[0] if event.causes else None
            return "bad", _told(f"Error of {tool}: {one_line(event.message)}", cause, event.remedies)
        case CoreDump():
            whole = "" if event.complete else ", incomplete"
            return "quiet", [f"Core dump in the log ({one_line(event.format, 20) or 'unknown format'}{whole})"]
        case WrongRate():
            if event.boots:  # each boot says so itself
                return None
            sent = f"{event.sent_at} baud" if event.sent_at else "another rate"
            return "warning", [f"Text sent at {sent} was received at {event.received_at} baud"]
        case Recovery():
            why = f": {one_line(event.reason)}" if event.reason else ""
            tone: Tone = "bad" if event.outcome in ("failed", "gave-up", "refused") else "quiet"
            return tone, [f"Recovery, {one_line(event.step, 40)} {one_line(event.outcome, 20)}{why}"]
        case DecoderFault():
            return "warning", [
                f"A bug in espmon: its reader for {one_line(event.format, 40)} failed ({one_line(event.error, 120)}); the log goes on"
            ]
        case LimitReached():
            return "quiet", [f"Limit reached: {one_line(event.what, 120)}"]
        case PortChanged():
            return _port_words(event)
        case ResetCaused():
            how = one_line(event.how, 60)
            return "quiet", ["espmon resets the board into download mode" if "download" in how else "espmon resets the board"]
        case Gap():
            count = f"{event.bytes:,} bytes" if event.bytes is not None else "bytes"
            return "warning", [f"{count} are missing here: {one_line(event.reason) or 'unknown reason'}"]
        case _:
            return None


def _port_words(event: PortChanged) -> tuple[Tone, list[str]]:
    port = one_line(event.port, 120) or "the port"
    reason = one_line(event.reason, 200)
    match event.state:
        case "gone":
            return "warning", [f"{port} is gone{f' ({reason})' if reason else ''}; waiting for the board to come back"]
        case "returned":
            return "good", [f"The board is back: {port}{f' at {event.baud} baud' if event.baud else ''}"]
        case "rate":
            return "quiet", [f"Listening at {event.baud} baud{f': {reason}' if reason else ''}"]
        case "opened":
            return "quiet", [f"{port}{f' at {event.baud} baud' if event.baud else ''}{f', {reason}' if reason else ''}"]
        case _:
            return "warning", [f"{port}: {reason or one_line(event.state, 40)}"]


def _told(what: str, meaning: str | None, remedies: Sequence[str]) -> list[str]:
    words = what if not meaning else f"{what}: {one_line(meaning)}"
    return [words, f"Try: {one_line(remedies[0])}"] if remedies else [words]


def _exception_words(name: str | None, number: int | None) -> str:
    if name:
        return f"{one_line(name, 60)} (exception {number})" if number is not None else one_line(name, 60)
    return f"exception {number}" if number is not None else "exception"


# --- crashes in words -----------------------------------------------------------------------------------------------


def crash_title(crash: Crash) -> str:
    """``LoadProhibited (exception 28)``: the shortest name of what happened."""
    kind = _KINDS.get(crash.kind, one_line(crash.kind, 40))
    if crash.exception is not None and (crash.exception.name or crash.exception.number is not None):
        name = _exception_words(crash.exception.name, crash.exception.number)
        return name if crash.kind in ("exception", "panic", "cache-error") else f"{kind}: {name}"
    return kind


def _message(crash: Crash) -> str:
    """What the firmware said, unless the title says it already."""
    name = crash.exception.name if crash.exception is not None else None
    return "" if crash.message is not None and crash.message == name else one_line(crash.message)


def _stated_place(crash: Crash) -> str:
    """The place that the firmware printed, unless its message or our explanation names it already."""
    place = crash.location
    if place is None:
        return ""
    at = one_line(place.file) + (f":{place.line}" if place.file and place.line else "")
    said = f"{one_line(crash.message, 600)} {one_line(crash.explanation, 600)}"
    if at and at in said and (not place.function or place.function in said):
        return ""
    return " in ".join(part for part in (at, one_line(place.function, 120)) if part)


def crash_subtitle(crash: Crash) -> str:
    """Where it ran: chip, framework, core and task, as far as they are known."""
    parts = [chip_title(crash.chip), _FRAMEWORKS.get(crash.framework or "", one_line(crash.framework, 30))]
    if crash.core is not None:
        parts.append(f"core {crash.core}")
    if crash.task:
        parts.append(f"task {one_line(crash.task, 40)}")
    return ", ".join(part for part in parts if part)


def short_path(path: str, room: int = 60, roots: Sequence[str] = ()) -> str:
    """A path as a person looks for it: relative to here or to one of `roots` when it lies below, else its last
    components within `room` characters."""
    path = one_line(path, 500)
    try:
        here = [os.getcwd()]
    except OSError:  # a build has removed the folder under us
        here = []
    for folder in (*here, *roots):
        path = path.removeprefix(folder.rstrip(os.sep) + os.sep)
    path = path.removeprefix("./")
    if len(path) <= room:
        return path
    parts = path.replace("\\", "/").split("/")
    short = parts[-1]
    for part in reversed(parts[:-1]):
        if len(part) + 1 + len(short) > room - 2:
            break
        short = f"{part}/{short}"
    return f"…/{short}"


def _place(frame: Frame, room: int, roots: Sequence[str] = ()) -> str:
    if not frame.file:
        return ""
    path = short_path(frame.file, room, roots)
    return f"{path}:{frame.line}" if frame.line else path


def _function(frame: Frame) -> str:
    if not frame.function:
        return str(frame.address)
    name = one_line(frame.function, 160)
    if not frame.file and frame.offset:
        name += f"+0x{frame.offset:x}"
    return name


def _frame_words(frame: Frame, room: int = 500) -> str:
    place = _place(frame, room)
    name = _function(frame)
    if frame.inlined:
        name += " (inlined)"
    if place:
        return f"{name} at {place}"
    if frame.function:
        return f"{name} ({frame.address}{', ROM' if frame.module == 'rom' else ''})"
    return name


def _joined(frames: Sequence[Frame]) -> list[tuple[Frame, str]]:
    """Each frame in words; bare addresses that follow each other share a line."""
    rows: list[tuple[Frame, str]] = []
    together = 0
    for frame in frames:
        bare = not frame.function and not frame.file
        if bare and 0 < together < 6:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {frame.address}")
            together += 1
        else:
            rows.append((frame, _frame_words(frame)))
            together = int(bare)
    return rows


def split_frames(frames: Sequence[Frame]) -> tuple[list[Frame], list[Frame]]:
    """(certain and likely ones, possible ones), in their order; where an allocation failed is told elsewhere."""
    sure = [f for f in frames if f.confidence != "possible" and f.origin != "alloc"]
    return sure, [f for f in frames if f.confidence == "possible"]


def _why_no_frames(crash: Crash, has_elf: bool) -> str | None:
    if any(frame.function or frame.file for frame in crash.frames if frame.module != "rom"):
        return None
    if not (crash.frames or crash.backtraces or crash.stacks or crash.registers):
        return None
    if has_elf and crash.elf is None:
        return "No ELF that was named can be used for its addresses."
    if has_elf:
        return "Its addresses lie in no function of the ELF: is it the build that runs on the board?"
    return "With --elf firmware.elf its addresses become functions and lines."


def _elf_words(crash: Crash, roots: Sequence[str] = ()) -> tuple[Tone, str] | None:
    if crash.elf is None or not crash.elf.path:
        return None
    path = short_path(crash.elf.path, 60, roots)
    match crash.elf.match:
        case "verified":
            return "good", f"{path} (the build that runs on the board)"
        case "mismatch":
            return "bad", f"{path} is NOT the build that runs on the board: the lines may be wrong"
        case _:
            return "quiet", path


_MAIN_REGISTERS = ("pc", "epc1", "epc2", "epc3", "mepc", "ra", "a0", "excvaddr", "mtval", "depc", "sp", "a1")


def _registers(crash: Crash) -> list[tuple[str, str]]:
    """The program counters and the address that was touched; unused exception levels (0) are left out."""
    found = [(name, crash.registers[name]) for name in _MAIN_REGISTERS if name in crash.registers]
    return [(name, str(value)) for name, value in found if value or name in ("excvaddr", "mtval", "pc", "epc1")][:6]


def crash_lines(crash: Crash, source: SourceLines | None = None, has_elf: bool = False) -> list[str]:
    """The crash as plain text, one fact a line, the same at every width: for pipes and files."""
    source = source or {}
    where = crash_subtitle(crash)
    lines = [f"Crash: {crash_title(crash)}{f' on {where}' if where else ''}"]
    if message := _message(crash):
        lines.append(f"  says:   {message}")
    if place := _stated_place(crash):
        lines.append(f"  stated: {place}")
    if crash.explanation:
        lines.append(f"  why:    {one_line(crash.explanation, 600)}")
    sure, possible = split_frames(crash.frames)
    label = "  where:  "
    for frame, words in _joined(sure[:_SURE_FRAMES]):
        lines.append(label + words)
        label = "          "
        text = source.get((frame.file or "", frame.line or 0))
        if text is not None and frame is next((f for f in sure if (f.file or "", f.line or 0) in source), None):
            lines.append(f"            {frame.line} | {one_line(text.strip(), 160)}")
    if len(sure) > _SURE_FRAMES:
        lines.append(f"          ... {len(sure) - _SURE_FRAMES} more")
    label = "  maybe:  "
    for _, words in _joined(possible[:_POSSIBLE_FRAMES]):
        lines.append(label + words)
        label = "          "
    if len(possible) > _POSSIBLE_FRAMES:
        lines.append(f"          ... {len(possible) - _POSSIBLE_FRAMES} more")
    if note := _why_no_frames(crash, has_elf):
        lines.append(f"  note:   {note}")
    if not crash.complete:
        lines.append("  note:   the dump is incomplete")
    if crash.last_failed_alloc is not None:
        lines.append(f"  alloc:  {_alloc_words(crash)}")
    remedies = crash.remedies[:4]
    for number, remedy in enumerate(remedies, 1):
        counted = f"{number}. " if len(remedies) > 1 else ""
        lines.append(f"{'  try:    ' if number == 1 else '          '}{counted}{one_line(remedy)}")
    if registers := _registers(crash):
        lines.append("  cpu:    " + "  ".join(f"{name} {value}" for name, value in registers))
    if elf := _elf_words(crash):
        lines.append(f"  elf:    {elf[1]}")
    return lines


def _alloc_words(crash: Crash) -> str:
    alloc = crash.last_failed_alloc
    if alloc is None:
        return ""
    size = f"{alloc.size} bytes" if alloc.size is not None else "memory"
    place = next((f for f in crash.frames if f.origin == "alloc" and (f.function or f.file)), None)
    if place is not None:
        return f"the last allocation that failed asked for {size} in {_frame_words(place)}"
    caller = f" for {alloc.caller}" if alloc.caller is not None else ""
    return f"the last allocation that failed asked for {size}{caller}"


# --- the sink -------------------------------------------------------------------------------------------------------


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
            self._emit(ending + self._panel(crash, source), text)
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

    # --- the panel --------------------------------------------------------------------------------------------------

    def _panel(self, crash: Crash, source: SourceLines) -> str:
        import io

        from rich import box
        from rich.console import Console as RichConsole
        from rich.panel import Panel
        from rich.text import Text as RichText

        width = min(self.screen.width, 120)
        buffer = io.StringIO()
        console = RichConsole(
            file=buffer,
            force_terminal=True,
            color_system="standard" if self.screen.colour else None,
            no_color=not self.screen.colour,
            width=width,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
            _environ={},
        )
        title = RichText(f" {crash_title(crash)} ", style="bold")
        subtitle = crash_subtitle(crash)
        panel = Panel(
            _panel_body(crash, source, width - 4, self.has_elf, self.roots),
            title=title,
            title_align="left",
            subtitle=RichText(f" {subtitle} ", style="dim") if subtitle else None,
            subtitle_align="right",
            border_style="red",
            box=box.ROUNDED if self.screen.unicode else box.ASCII,
            padding=(0, 1),
            width=width,
        )
        console.print(panel)
        return buffer.getvalue()


def _wrapped(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    import textwrap

    return textwrap.wrap(line, max(10, width), break_on_hyphens=False)


def _plain_notice(lines: Sequence[str]) -> str:
    return "".join(f"{'--- ' if number == 0 else '    '}{line}\n" for number, line in enumerate(lines))


def _frame_table(names: int) -> Table:
    """One look for all frames, so that those above and below a quoted line stand in the same columns."""
    from rich.table import Table

    table = Table.grid(padding=(0, 0))
    table.add_column(width=2)
    table.add_column(width=names - 2, overflow="fold")
    table.add_column(width=2)
    table.add_column(overflow="fold", style="cyan")
    return table


def _panel_body(crash: Crash, source: SourceLines, width: int, has_elf: bool, roots: Sequence[str]) -> Group:
    from rich.console import Group, RenderableType
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text as RichText

    parts: list[RenderableType] = []

    def gap() -> None:
        if parts:
            parts.append(RichText(""))

    if message := _message(crash):
        parts.append(RichText(message, style="bold"))
    if place := _stated_place(crash):
        parts.append(RichText(place))
    if crash.explanation:
        parts.append(RichText(one_line(crash.explanation, 600)))

    sure, possible = split_frames(crash.frames)
    quoted = next((f for f in sure if (f.file or "", f.line or 0) in source), None)
    shown = [f for f in sure[:_SURE_FRAMES] + possible[:_POSSIBLE_FRAMES] if f.function or f.file]
    longest = max((len(_function(f)) + (8 if f.inlined else 0) for f in shown), default=0) + 2
    names = min(longest, width * 11 // 20)
    room = width - names - 2
    for heading, frames, limit in (
        ("Where", sure, _SURE_FRAMES),
        ("Perhaps on the way there (found on the stack)", possible, _POSSIBLE_FRAMES),
    ):
        if not frames:
            continue
        gap()
        parts.append(RichText(heading, style="bold"))
        table = _frame_table(names)
        faint = "dim" if frames is possible else ""
        bare: list[str] = []

        def end_of_bare(bare: list[str] = bare) -> None:
            if bare:
                parts.append(Padding(RichText(" ".join(bare), style="dim"), (0, 0, 0, 2)))
                bare.clear()

        for number, frame in enumerate(frames[:limit]):
            if not frame.function and not frame.file:  # only an address: several share a line
                if table.row_count:
                    parts.append(table)
                    table = _frame_table(names)
                bare.append(str(frame.address))
                continue
            end_of_bare()
            first = number == 0 and frames is sure
            name = RichText(_function(frame), style="bold" if first else faint)
            if frame.inlined:
                name.append(" inlined", style="not bold dim")
            place = _place(frame, room - 6, roots)
            if not place:
                place = f"{frame.address}{' ROM' if frame.module == 'rom' else ''}"
            table.add_row("→ " if first else "  ", name, "", RichText(place, style=faint))
            if frame is quoted:
                parts.append(table)
                line = RichText(f"    {frame.line} │ ", style="dim")
                line.append(one_line(source[(frame.file or "", frame.line or 0)].strip(), width - 12), style="not dim")
                parts.append(line)
                table = _frame_table(names)
        end_of_bare()
        if table.row_count:
            parts.append(table)
        if len(frames) > limit:
            parts.append(RichText(f"  ... {len(frames) - limit} more", style="dim"))
    if note := _why_no_frames(crash, has_elf):
        gap()
        parts.append(RichText(note, style="yellow"))
    if crash.last_failed_alloc is not None:
        gap()
        words = _alloc_words(crash)
        parts.append(RichText(words[0].upper() + words[1:] + "."))
    if crash.remedies:
        gap()
        parts.append(RichText("Try", style="bold"))
        steps = Table.grid(padding=(0, 1))
        steps.add_column()
        steps.add_column(overflow="fold")
        remedies = crash.remedies[:4]
        for number, remedy in enumerate(remedies, 1):
            steps.add_row(RichText(f"{number}." if len(remedies) > 1 else "-"), RichText(one_line(remedy)))
        parts.append(Padding(steps, (0, 0, 0, 2)))
    footer: list[RichText] = []
    if registers := _registers(crash):
        footer.append(RichText("   ".join(f"{name}\u00a0{value}" for name, value in registers), style="dim"))
    if not crash.complete:
        footer.append(RichText("The dump is incomplete.", style="yellow"))
    if elf := _elf_words(crash, roots):
        footer.append(RichText(elf[1], style={"bad": "bold red", "good": "green"}.get(elf[0], "dim")))
    if footer:
        gap()
        parts += footer
    if not parts:
        parts.append(RichText("The text says no more than that."))
    return Group(*parts)
