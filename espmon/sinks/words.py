"""Events and crashes in words: plain, stable text, whatever it is shown on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

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
    WrongRate,
)
from espmon.sinks.neutral import one_line

Tone = Literal["quiet", "good", "warning", "bad"]
SourceLines = Mapping[tuple[str, int], str]
"""Lines of source code by (file, line)."""
SURE_FRAMES = 16
POSSIBLE_FRAMES = 8  # of either kind at most so many are shown

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


def message_words(crash: Crash) -> str:
    """What the firmware said, unless the title says it already."""
    name = crash.exception.name if crash.exception is not None else None
    return "" if crash.message is not None and crash.message == name else one_line(crash.message)


def stated_place(crash: Crash) -> str:
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


def place_words(frame: Frame, room: int, roots: Sequence[str] = ()) -> str:
    if not frame.file:
        return ""
    path = short_path(frame.file, room, roots)
    return f"{path}:{frame.line}" if frame.line else path


def function_words(frame: Frame) -> str:
    if not frame.function:
        return str(frame.address)
    name = one_line(frame.function, 160)
    if not frame.file and frame.offset:
        name += f"+0x{frame.offset:x}"
    return name


def _frame_words(frame: Frame, room: int = 500) -> str:
    place = place_words(frame, room)
    name = function_words(frame)
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


def why_no_frames(crash: Crash, has_elf: bool) -> str | None:
    if any(frame.function or frame.file for frame in crash.frames if frame.module != "rom"):
        return None
    if not (crash.frames or crash.backtraces or crash.stacks or crash.registers):
        return None
    if has_elf and crash.elf is None:
        return "No ELF that was named can be used for its addresses."
    if has_elf:
        return "Its addresses lie in no function of the ELF: is it the build that runs on the board?"
    return "With --elf firmware.elf its addresses become functions and lines."


def elf_words(crash: Crash, roots: Sequence[str] = ()) -> tuple[Tone, str] | None:
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


def main_registers(crash: Crash) -> list[tuple[str, str]]:
    """The program counters and the address that was touched; unused exception levels (0) are left out."""
    found = [(name, crash.registers[name]) for name in _MAIN_REGISTERS if name in crash.registers]
    return [(name, str(value)) for name, value in found if value or name in ("excvaddr", "mtval", "pc", "epc1")][:6]


def crash_lines(crash: Crash, source: SourceLines | None = None, has_elf: bool = False) -> list[str]:
    """The crash as plain text, one fact a line, the same at every width: for pipes and files."""
    source = source or {}
    where = crash_subtitle(crash)
    lines = [f"Crash: {crash_title(crash)}{f' on {where}' if where else ''}"]
    if message := message_words(crash):
        lines.append(f"  says:   {message}")
    if place := stated_place(crash):
        lines.append(f"  stated: {place}")
    if crash.explanation:
        lines.append(f"  why:    {one_line(crash.explanation, 600)}")
    sure, possible = split_frames(crash.frames)
    label = "  where:  "
    for frame, words in _joined(sure[:SURE_FRAMES]):
        lines.append(label + words)
        label = "          "
        text = source.get((frame.file or "", frame.line or 0))
        if text is not None and frame is next((f for f in sure if (f.file or "", f.line or 0) in source), None):
            lines.append(f"            {frame.line} | {one_line(text.strip(), 160)}")
    if len(sure) > SURE_FRAMES:
        lines.append(f"          ... {len(sure) - SURE_FRAMES} more")
    label = "  maybe:  "
    for _, words in _joined(possible[:POSSIBLE_FRAMES]):
        lines.append(label + words)
        label = "          "
    if len(possible) > POSSIBLE_FRAMES:
        lines.append(f"          ... {len(possible) - POSSIBLE_FRAMES} more")
    if note := why_no_frames(crash, has_elf):
        lines.append(f"  note:   {note}")
    if not crash.complete:
        lines.append("  note:   the dump is incomplete")
    if crash.last_failed_alloc is not None:
        lines.append(f"  alloc:  {alloc_words(crash)}")
    remedies = crash.remedies[:4]
    for number, remedy in enumerate(remedies, 1):
        counted = f"{number}. " if len(remedies) > 1 else ""
        lines.append(f"{'  try:    ' if number == 1 else '          '}{counted}{one_line(remedy)}")
    if registers := main_registers(crash):
        lines.append("  cpu:    " + "  ".join(f"{name} {value}" for name, value in registers))
    if elf := elf_words(crash):
        lines.append(f"  elf:    {elf[1]}")
    return lines


def alloc_words(crash: Crash) -> str:
    alloc = crash.last_failed_alloc
    if alloc is None:
        return ""
    size = f"{alloc.size} bytes" if alloc.size is not None else "memory"
    place = next((f for f in crash.frames if f.origin == "alloc" and (f.function or f.file)), None)
    if place is not None:
        return f"the last allocation that failed asked for {size} in {_frame_words(place)}"
    caller = f" for {alloc.caller}" if alloc.caller is not None else ""
    return f"the last allocation that failed asked for {size}{caller}"
