"""Core dumps in the log: the Base64 block, the report of espcoredump, Mongoose OS, and notes about dumps to flash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espmon.decode.formats.shape import Format
from espmon.decode.scan import Spec, Token
from espmon.events import CoreDump

if TYPE_CHECKING:
    from espmon.decode.interpreter import Interpreter

TOKENS = (
    Spec("core-report", r"={3,}\s{0,3}ESP32\S{0,4} CORE DUMP (?P<what>START|END)\s{0,3}={0,}", (" core dump ",)),
    Spec("core-middle", r"={6,} (?:THREAD \d{1,3} \(TCB: 0x[0-9a-fA-F]{1,8}|CURRENT THREAD (?:REGISTERS|STACK|BACKTRACE)|THREADS INFO|ALL MEMORY REGIONS)", ("== thread", "== current thread ", "== all memory regions")),
    Spec("core-start", r"={0,}\s{0,3}CORE DUMP START\s{0,3}={3,}|={3,}\s{0,3}CORE DUMP START", ("core dump start",)),
    Spec("core-end", r"={0,}\s{0,3}CORE DUMP END\s{0,3}={3,}|={3,}\s{0,3}CORE DUMP END", ("core dump end",)),
    Spec("core-mongoose", r"-{2,}\s{0,3}BEGIN CORE DUMP\s{0,3}-{2,}", ("begin core dump",)),
    Spec("core-mongoose-end", r"-{2,}\s{0,3}END CORE DUMP\s{0,3}-{2,}", ("end core dump",)),
    Spec("core-flash", r"(?i:save core dump to flash)|Core dump (?:has been saved|data was saved) to flash|(?i:saving core dump)", ("core dump ", "save core dump to flash", "saving core dump")),
)


def start(facts: Interpreter, token: Token) -> None:
    """A block begins."""
    if token.in_source:
        return
    kind = {"core-start": "base64", "core-mongoose": "mongoose", "core-report": "espcoredump-report"}[token.kind]
    if token.kind == "core-report" and token["what"] == "END":
        facts.end_core_dump(token, kind)
    else:
        facts.begin_core_dump(token, kind)


def middle(facts: Interpreter, token: Token) -> None:
    """A part of the report whose beginning is lost."""
    if not token.in_source:
        facts.begin_core_dump(token, "espcoredump-report", part=True)


def end(facts: Interpreter, token: Token) -> None:
    """A block ends."""
    if token.in_source:
        return
    facts.end_core_dump(token)


def flash(facts: Interpreter, token: Token) -> None:
    """The dump went to flash; the log only says so."""
    facts.once("core-flash", CoreDump, token, format="flash", complete=True)


FORMAT = Format(
    name="core-dump",
    tokens=TOKENS,
    facts={
        "core-start": start, "core-report": start, "core-middle": middle, "core-mongoose": start, "core-end": end, "core-mongoose-end": end,
        "core-flash": flash,
    },
)  # fmt: skip
