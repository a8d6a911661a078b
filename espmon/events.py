"""Every fact that espmon can state, as frozen values; and the one way in which they become JSON.

Level 0. What ``--json`` prints is promised in ``docs/events.md``; the classes here have the
same names for the same things. Events are facts in the past tense; nobody changes one, ``dataclasses.replace`` makes
another. Addresses are :class:`Address`, so that the serializer can tell them from counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, ClassVar

from espmon.values import Value, value


class Address(int):
    """A 32-bit address. In JSON it is a string: lower case, ``0x`` and eight digits."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"0x{int(self):08x}"

    __repr__ = __str__


# --- values inside events -------------------------------------------------------------------------------------------


@value
class ResetCause(Value):
    """Why a chip says that it was reset. `code` and `name` as printed (or the vendor's name), `meaning` in our words."""

    code: int | None = None
    name: str | None = None
    meaning: str | None = None
    abnormal: bool = False


@value
class BootMode(Value):
    """What the strapping pins said: `raw` is ``"3,7"`` (ESP8266) or ``"0x13"``; an unreadable digit is ``?``."""

    raw: str | None = None
    name: str | None = None
    meaning: str | None = None
    download: bool = False


@value
class ExceptionCause(Value):
    """CPU exception: EXCCAUSE (Xtensa) or MCAUSE (RISC-V) and its name."""

    number: int | None = None
    name: str | None = None


@value
class BacktraceEntry(Value):
    """One ``PC:SP`` pair as printed; `sp` is None where none was printed."""

    pc: Address
    sp: Address | None = None


@value
class StackDump(Value):
    """One printed stack block. `code_words`: its words inside the chip's code ranges, in order.

    `words` holds (address, word) of every printed word, for unwinding; it is not part of the JSON.
    """

    context: str | None = None
    sp: Address | None = None
    end: Address | None = None
    offset: int | None = None
    lines: int = 0
    code_words: tuple[Address, ...] = ()
    complete: bool = True
    words: tuple[tuple[int, int], ...] = field(default=(), metadata={"json": False})


@value
class Location(Value):
    """Where in the source a message says that it happened (printed by the firmware, not looked up)."""

    file: str | None = None
    line: int | None = None
    function: str | None = None


@value
class FailedAlloc(Value):
    """Arduino core's ``last failed alloc``: who asked (`caller`) for how many bytes (`size`)."""

    caller: Address | None = None
    size: int | None = None


@value
class Frame(Value):
    """What an address is. Inlined frames come first and share the address; what isn't known is None, never guessed.

    `module`: ``app``, ``rom`` or None. `origin`: ``pc``, ``return``, ``backtrace``, ``unwound``, ``stack``, ``alloc``.
    `confidence`: ``certain``, ``likely`` or ``possible``. `symbol` is the linkage (mangled) name, `offset` the distance
    from the function's start; both help fingerprints and symbol-only output (``func+0x1c``).
    """

    address: Address
    function: str | None = None
    file: str | None = None
    line: int | None = None
    inlined: bool = False
    module: str | None = None
    origin: str | None = None
    confidence: str | None = None
    symbol: str | None = None
    offset: int | None = None


@value
class ElfRef(Value):
    """The ELF that frames were looked up in. `match`: ``verified``, ``unverified`` or ``mismatch``."""

    path: str | None = None
    sha256: str | None = None
    match: str = "unverified"


# --- events ---------------------------------------------------------------------------------------------------------


@value
class Event(Value):
    """What every event carries: where it stood (`file`, `line`, `end_line`, from 1), when (`at`, Unix seconds UTC or
    None), on which `port`, and how many boots that port had seen before it (`boot`)."""

    type: ClassVar[str] = ""

    file: str | None = None
    line: int | None = None
    end_line: int | None = None
    at: float | None = None
    port: str | None = None
    boot: int = 0


@value
class Text(Event):
    """A span of input bytes, any number of lines or a part of one. All `raw` of a port joined is the input, exactly."""

    type: ClassVar[str] = "text"

    raw: bytes = field(default=b"", metadata={"json": False})

    @property
    def text(self) -> str:
        """`raw` as text; bytes that are no UTF-8 become U+FFFD."""
        return self.raw.decode("utf-8", "replace")


@value
class Boot(Event):
    """A ROM boot banner, or one read from bytes that were received at another rate (`inferred`)."""

    type: ClassVar[str] = "boot"

    chip: str | None = None
    rom: str | None = None
    reset: ResetCause | None = None
    boot_mode: BootMode | None = None
    inferred: bool = False
    rate: int | None = None
    confidence: float | None = None
    caused_by: str | None = None
    saved_pc: tuple[Address, ...] = ()


@value
class Reset(Event):
    """A reset or its reason, stated by anything after the ROM (SDK, Arduino core, Tasmota, ESPHome, IDF ...)."""

    type: ClassVar[str] = "reset"

    source: str | None = None
    reset: ResetCause | None = None
    exception: ExceptionCause | None = None
    registers: Mapping[str, Address] = field(default_factory=dict)
    backtraces: tuple[tuple[BacktraceEntry, ...], ...] = ()
    stacks: tuple[StackDump, ...] = ()
    frames: tuple[Frame, ...] = ()
    message: str | None = None
    rom: str | None = field(default=None, metadata={"json": False})


@value
class Firmware(Event):
    """What a firmware says of itself when it starts: nothing of it is looked up. `elf_sha256` as printed."""

    type: ClassVar[str] = "firmware"

    framework: str | None = None
    name: str | None = None
    version: str | None = None
    sdk: str | None = None
    elf_sha256: str | None = None


@value
class Crash(Event):
    """A crash, with everything that its dump said. `kind` is one of the contract's words (``docs/events.md``).

    `rom`: what the board's ROM called itself when it last booted, for names in the ROM; not part of the JSON (it is the
    boot's).
    """

    type: ClassVar[str] = "crash"

    kind: str
    chip: str | None = None
    framework: str | None = None
    exception: ExceptionCause | None = None
    registers: Mapping[str, Address] = field(default_factory=dict)
    backtraces: tuple[tuple[BacktraceEntry, ...], ...] = ()
    stacks: tuple[StackDump, ...] = ()
    other_core: int | None = None
    other_registers: Mapping[str, Address] = field(default_factory=dict)
    core: int | None = None
    task: str | None = None
    message: str | None = None
    location: Location | None = None
    last_failed_alloc: FailedAlloc | None = None
    elf_sha256: str | None = None
    complete: bool = True
    frames: tuple[Frame, ...] = ()
    elf: ElfRef | None = None
    fingerprint: str | None = None
    explanation: str | None = None
    remedies: tuple[str, ...] = ()
    rom: str | None = field(default=None, metadata={"json": False})


@value
class FlashError(Event):
    """The ROM or a boot loader could not start the firmware from flash (``csum err``, ``invalid header`` ...)."""

    type: ClassVar[str] = "flash-error"

    message: str | None = None
    meaning: str | None = None
    remedies: tuple[str, ...] = ()


@value
class DownloadMode(Event):
    """The board waits for a download instead of running its firmware."""

    type: ClassVar[str] = "download-mode"

    message: str | None = None
    meaning: str | None = None
    remedies: tuple[str, ...] = ()


@value
class Brownout(Event):
    """The supply voltage fell below the chip's limit."""

    type: ClassVar[str] = "brownout"

    message: str | None = None
    meaning: str | None = None
    remedies: tuple[str, ...] = ()


@value
class CoreDump(Event):
    """A core dump in the log. `format`: ``base64``, ``flash`` ...; `complete`: its end marker was seen."""

    type: ClassVar[str] = "core-dump"

    format: str | None = None
    complete: bool = True


@value
class BootLoop(Event):
    """The board keeps failing in the same way. `boots` in a row, `period_s` seconds apart where times are known."""

    type: ClassVar[str] = "boot-loop"

    boots: int = 0
    period_s: float | None = None
    cause: str | None = None
    remedies: tuple[str, ...] = ()


@value
class HostError(Event):
    """A flashing tool's own failure text found in the log."""

    type: ClassVar[str] = "host-error"

    tool: str | None = None
    message: str | None = None
    causes: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


@value
class WrongRate(Event):
    """A stretch of bytes was sent at another baud rate than it was received at. `boots`: banners read in it, which follow."""

    type: ClassVar[str] = "wrong-rate"

    received_at: int | None = None
    sent_at: int | None = None
    confidence: float | None = None
    bytes: int | None = None
    boots: int = 0


@value
class Recovery(Event):
    """One step of bringing a board back; the last of an incident has `outcome` ``recovered`` or ``gave-up``."""

    type: ClassVar[str] = "recovery"

    step: str
    outcome: str
    reason: str | None = None
    incident: str | None = None


@value
class DecoderFault(Event):
    """A bug in espmon: one format failed, the stream goes on."""

    type: ClassVar[str] = "decoder-fault"

    format: str | None = None
    error: str | None = None


@value
class LimitReached(Event):
    """A bound that keeps memory finite was reached; `what` it was, the bound's `limit`."""

    type: ClassVar[str] = "limit-reached"

    what: str
    limit: int | None = None


@value
class PortChanged(Event):
    """The port's own state: `state` is ``opened``, ``gone``, ``returned``, ``closed``, ``rate`` or ``failed``."""

    type: ClassVar[str] = "port"

    state: str
    reason: str | None = None
    baud: int | None = None


@value
class ResetCaused(Event):
    """espmon itself reset the board (`by`: who asked; `how`: which sequence)."""

    type: ClassVar[str] = "reset-caused"

    by: str | None = None
    how: str | None = None


@value
class Gap(Event):
    """Bytes that were received or expected and could not be stored."""

    type: ClassVar[str] = "gap"

    bytes: int | None = None
    reason: str | None = None


@value
class Progress(Event):
    """How far a long operation is: `operation`, `done` of `total` (bytes), bytes per second, seconds left."""

    type: ClassVar[str] = "progress"

    operation: str
    done: int = 0
    total: int | None = None
    rate: float | None = None
    left_s: float | None = None


# --- JSON -----------------------------------------------------------------------------------------------------------


# DEL, C1 controls and the bidirectional overrides that can make a line read differently than it is.
_UNSAFE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def iso_time(at: float | None) -> str | None:
    """Unix seconds as ISO 8601 UTC with milliseconds; None stays None, and so does a time outside the calendar."""
    if at is None:
        return None
    from datetime import UTC, datetime  # with json, 5 ms of a start that most often needs neither

    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.metadata.get("json", True)}


def to_json_value(value: Any) -> Any:
    """A value from inside an event (a frame, a tuple of frames, an address) as it stands in the JSON."""
    return _plain(value)


def to_json_object(event: Event) -> dict[str, Any]:
    """The event as the contract's JSON object: `type` first, then where it stood, then its own facts."""
    out: dict[str, Any] = {"type": event.type}
    for f in fields(event):
        if f.metadata.get("json", True):
            out[f.name] = iso_time(event.at) if f.name == "at" else _plain(getattr(event, f.name))
    if isinstance(event, Text):
        out["text"] = event.text
    return out


def to_json_line(event: Event) -> str:
    """One line of JSON, without the newline. Lone surrogates are replaced: the output must encode as UTF-8."""
    import json

    line = json.dumps(to_json_object(event), ensure_ascii=False, separators=(", ", ": "))
    # JSON escapes C0; DEL and C1 would reach a terminal as they are, so they are escaped as well.
    line = _UNSAFE.sub(lambda m: f"\\u{ord(m[0]):04x}", line)
    return line.encode("utf-8", "replace").decode("utf-8")
