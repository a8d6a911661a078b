"""ESP-IDF and ESP8266 RTOS SDK: Guru Meditation panics, Xtensa and RISC-V."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from espmon.decode import causes
from espmon.decode.dump import Dump
from espmon.decode.formats.idf_body import BODY, JOINS, STATES, complete
from espmon.decode.formats.shape import DROP, SPLIT, Format, rules
from espmon.decode.scan import Spec, Token

if TYPE_CHECKING:
    from espmon.decode.interpreter import Interpreter

_PANICED = r"(?i:p?a?n?i?c?['`]?\s?ed)"
_REASON_END = r"(?:\)|(?=\s*\.? ?Exception was))"

TOKENS = (
    Spec(
        "guru",
        r"(?:\w{0,6}(?i:ru\s{1,3}meditation\s{1,3}error)\s?:?\s{0,3})?(?i:core)\s{0,4}(?P<core>\d)\s{0,3}"
        rf"{_PANICED}\s{{0,3}}\((?P<reason>[^()\n]{{2,90}}?){_REASON_END}", ("core",),
    ),
    Spec("guru", r"(?:\w{0,6}(?i:ru\s{1,3}))?(?i:meditation\s{1,3}error) of type (?P<reason>[\w /]{3,60}?)\s+occurr?ed on core\s+(?P<core>\d)", ("occurred on core", "occured on core")),
    Spec("guru", r"\w{0,6}(?i:ru\s{1,3}meditation\s{1,3}error)\s?:?\s{0,3}(?i:core)\s{0,4}(?P<core>\d)\s{0,3}(?i:panic'ed)(?!\s{0,3}\()(?P<reason>)", ("meditation",)),
    # the word itself is damaged
    Spec("guru", rf"\w{{0,6}}(?i:ru\s{{1,3}}meditation\s{{1,3}}error)\s?:?\s{{0,3}}[\w?]{{3,5}}\s{{1,4}}(?P<core>\d)\s{{0,3}}[\w'`?]{{5,9}}\s{{0,3}}\((?P<reason>[^()\n]{{2,90}}?){_REASON_END}", ("meditation",)),
    Spec("guru", rf"(?<![\w])(?i:panic'ed)\s{{0,3}}\((?P<reason>[^()\n]{{2,90}}?){_REASON_END}(?P<core>)", ("panic'ed",)),
    Spec("guru", rf"\w{{0,6}}(?i:ru\s{{1,3}}meditation\s{{1,3}}error)\s?:?\s{{0,3}}(?i:core)\s{{1,4}}{_PANICED}\s{{0,3}}\((?P<reason>[^()\n]{{2,90}}?){_REASON_END}(?P<core>)", ("meditation",)),
    Spec("guru-cut", rf"(?:\w{{0,6}}(?i:ru\s{{1,3}}meditation\s{{1,3}}error)\s?:?\s{{0,3}}(?i:core)\s{{0,4}}(?P<core>\d)\s{{0,3}})?(?<!\w){_PANICED}\s{{0,3}}\((?P<reason>[^()\n]{{0,90}}?)\s*$", ("ed (", "ed  (", "ed(")),
    Spec("debug-reason", r"Debug exception reason:\s*(?P<reason>[^\n(]{3,80}?\([^()\n]{0,40}\)|[^\n(]{3,80}?(?=[\s\"'`*,]*$|\s+Core|\s+Register))", ("debug exception reason:",)),
    Spec("detected-task", r'Detected in task "(?P<task>[^"\n]{1,40})"', ('detected in task "',)),
    Spec("stack-bounds", r"Stack pointer: 0x[0-9a-fA-F]{8}|Stack bounds: 0x[0-9a-fA-F]{8}|PMP(?:CFG|ADDR) ?\d{1,2}: [0-9a-fA-F]{8}", ("stack ", "pmpcfg", "pmpaddr")),
    Spec(
        "panic-detail",
        r"^\s{0,4}(?P<text>(?:Cached memory region accessed while|MMU entry fault|[DI]cache |[DI]bus |Preload configurations fault|Sync configurations fault|Cache access error|Cache error active"
        r"|(?:Write|Read|Instruction fetch) operation at address|memory type:|faulting address:|operation type:)[^\n]{0,120})",
        ("cache", "bus ", "mmu entry fault", "configurations fault", " operation at address", "memory type:", "faulting address:", "operation type:"), inside=True,
    ),
    Spec("guru-garbled", r"^\W{0,12}(?![^\n]{0,80}anic'ed)G\w{0,3}\s?M?\w{3,10} E\w{0,4}:[^\n]{8,80}", (" e",)),
    Spec("panic-prelude", r"A fatal error occurred\. The crash dump printed below may be used to help", ("a fatal error occurred. the crash dump printed below may be used to help",)),
)

_REASONS = (
    "IllegalInstruction", "InstructionFetchError", "LoadStoreError", "IntegerDivideByZero", "LoadStoreAlignment",
    "InstrFetchProhibited", "LoadProhibited", "StoreProhibited", "Double exception", "Unhandled debug exception",
    "Interrupt wdt timeout on CPU0", "Interrupt wdt timeout on CPU1",
    "Cache disabled but cached memory region accessed", "Illegal instruction", "Load access fault", "Store access fault",
)  # fmt: skip
# Documents and sources write a name where the reason stands.
_PLACEHOLDER = re.compile(r"[|%<>{}$\"]")
_KNOWN = (
    *_REASONS, *causes.RISCV.values(), "Unhandled kernel exception", "Coprocessor exception", "Cache error",
    "Stack protection fault", "Memory protection fault", "Unknown reason", "abort",
)  # fmt: skip
_WHOLE = "Guru Meditation Error: Core  0 panic'ed ("


def _kind(reason: str) -> str:
    low = reason.lower()
    if "wdt" in low or "watchdog" in low:
        return "watchdog"
    if "cache" in low or "mmu entry" in low:
        return "cache-error"
    if low == "abort":
        return "abort"
    if "stack protection" in low or "stack canary" in low:
        return "stack-overflow"
    if causes.exception_number(reason) is not None:
        return "exception"
    return "panic"


def guru(dump: Dump, token: Token) -> str | None:
    """`Guru Meditation Error: Core  N panic'ed (REASON)`, also after `abort()`, an assertion or a heap report."""
    if "guru" in dump.marks or dump.has_body:
        return SPLIT
    reason = " ".join(token["reason"].split()).rstrip(". ")
    if token.in_source or _PLACEHOLDER.search(reason):
        return DROP
    said = reason
    if causes.exception_number(reason) is None:
        reason = next(iter(difflib.get_close_matches(reason, _KNOWN, 1, 0.88)), reason)
    kind = _kind(reason)
    dump.marks.add("guru")
    dump.framework = dump.framework or "esp-idf"
    dump.core = token.number("core") if token.groups.get("core") else dump.core
    if dump.kind is None or dump.kind == kind or kind not in ("abort", "panic"):
        dump.kind = kind
    dump.number = causes.exception_number(reason)
    if reason and kind != "abort":
        dump.name = reason if dump.number is not None or kind == "panic" else None
        dump.say(said)
    rest = re.sub(r"^[\W_]*(?:Exception was unhandled)?[\W_]*", "", token.rest, count=1)
    follows = not rest or "Exception was unhandled".startswith(rest) or re.match(r"(?:Core|Register|Debug|Memory|Detected|Stack|PC|MEPC|Backtrace|Exception was)\b", rest)
    dump.strong = dump.strong or (token.leads and bool(follows))
    return None


def guru_cut(facts: Interpreter, token: Token) -> None:
    """The line ends inside the reason: held until the next line shows whether it goes on there."""
    facts.hold(token, cut_guru)


def cut_guru(facts: Interpreter, token: Token) -> None:
    """It didn't go on: a panic whose reason is cut."""
    token.kind = "guru"
    facts.dump_token(token)


def garbled(dump: Dump, token: Token) -> str | None:
    """A header in shreds: taken when it is still close enough to the real one; its registers are not trusted."""
    text = token.text[token.start : token.end].strip()
    head, _, tail = text.partition("(")
    if difflib.SequenceMatcher(None, head, _WHOLE, autojunk=False).ratio() < 0.6 or dump.kind is not None or _PLACEHOLDER.search(text):
        return DROP
    dump.kind = "panic"
    dump.framework = "esp-idf"
    best = max(_REASONS, key=lambda r: difflib.SequenceMatcher(None, tail, r, autojunk=False).ratio())
    if tail and difflib.SequenceMatcher(None, tail, best, autojunk=False).ratio() > 0.6:
        dump.kind = _kind(best)
        dump.say(f"damaged text, probably: {best.rstrip('01') if 'CPU' in best else best}")
    dump.strong = True
    dump.cut = True
    return None


def debug_reason(dump: Dump, token: Token) -> str | None:
    """`Debug exception reason:` names a stack canary and its task, a watchpoint or a breakpoint."""
    reason = " ".join(token["reason"].split())
    dump.say(reason)
    if "anary" in reason:
        dump.kind = "stack-overflow"
        m = re.search(r"\(([^()]*)\)", reason)
        if m:
            dump.task = m[1].strip()
    return None


def detected_task(dump: Dump, token: Token) -> str | None:
    """`Detected in task "NAME" at 0x…` (stack protection fault)."""
    dump.task = token["task"]
    return None


def detail(dump: Dump, token: Token) -> str | None:
    """The line that says more about a cache or memory protection error."""
    dump.say(token["text"])
    return None


FORMAT = Format(
    name="idf-panic",
    tokens=TOKENS,
    table={
        **BODY,
        **rules("- " + STATES, "guru", guru, "head"),
        **rules("-", "guru-garbled", garbled, "garbled"),
        **rules("head regs", "debug-reason", debug_reason, "head"),
        **rules("head regs", "detected-task", detected_task, "head"),
        **rules("head regs", "stack-bounds", None, "head"),
        **rules("head", "panic-detail", detail, "head"),
        **rules("garbled", "backtrace panic-end elf-sha", None, "garbled"),
    },
    patience=10,
    facts={"guru-cut": guru_cut},
    joins=JOINS,
    complete=complete,
)
