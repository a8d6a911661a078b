"""ESP-IDF: what ends in abort() - failed assertions, heap corruption, stack overflow, task watchdog, C++ exceptions."""

from __future__ import annotations

import difflib
import re

from espmon.decode.dump import Dump
from espmon.decode.formats import idf_panic
from espmon.decode.formats.idf_body import BODY, JOINS, STATES, complete
from espmon.decode.formats.shape import DROP, SPLIT, Format, rules
from espmon.decode.scan import Spec, Token
from espmon.events import Location

_SOURCE = r"(?:[A-Za-z]:[\\/][^\n:*?<>|]{1,250}?|[\w./\\:+-]{1,250}?)\.(?:cpp|cxx|cc|c|hpp|h|ino|S|rs|inc)"
_NEAR = 0.8
_STOP = r"(?=\s*$|\s{2,}|\s*(?:abort\(\)|Backtrace|Core\s|Guru|ELF file|CORRUPT|Rebooting))"

TOKENS = (
    Spec("abort-at", r"(?:a|A|\b\w{0,3})?bort\(\)\s{1,3}was called at PC\s{0,3}(?P<pc>0x[0-9a-fA-F]{8})(?:\s{1,3}on core\s{1,3}(?P<core>\d))?", ("was called at pc",)),
    Spec("abort-rough", r"(?<!\w)(?P<words>[\w?()]{4,9}\s{1,2}[\w?]{2,4} [\w?]{4,7} [\w?]{1,3} [\w?]{1,3})\s{1,3}(?P<pc>0x[0-9a-fA-F]{8})(?:\s{1,3}on core\s{1,3}(?P<core>\d))?", (" at ", " pc ", " was ", " called")),
    Spec("assert-rough", rf"(?<!\w)(?P<words>[a-z0-9?]{{4,7}} [a-z0-9?]{{4,7}}): (?P<func>[\w:~]{{3,60}}) (?P<file>{_SOURCE}):(?P<line>\d{{1,6}}) \((?P<expr>[^\n]{{1,300}}?)\)?{_STOP}", ("assert", "failed")),
    Spec(
        "assert-failed",
        rf"(?<!\w)(?i:assert failed):\s{{0,3}}(?P<func>[^\n]{{1,120}}?)\s{{1,3}}(?P<file>{_SOURCE}):(?P<line>\d{{1,6}})(?:\s{{0,3}}\((?P<expr>[^\n]{{1,300}}?)\)?{_STOP})?", ("assert failed:",),
    ),
    Spec(
        "assert-failed",  # the boot loader's
        rf"(?<!\w)Assert failed in (?P<func>[^\n,]{{1,120}}), (?P<file>{_SOURCE}):(?P<line>\d{{1,6}}) \((?P<expr>[^\n]{{1,300}}?)\){_STOP}", ("assert failed in ",),
    ),
    Spec(
        "assertion",
        r'\w?ssertion "(?P<expr>[^\n]{1,300}?)" failed: file "(?P<file>[^"\n]{1,250})", line (?P<line>\d{1,6})'
        rf"(?:, function: (?P<func>[^\n]{{1,200}}?){_STOP})?", ('" failed: file "',),
    ),
    Spec("assertion", rf"(?P<file>{_SOURCE}):(?P<line>\d{{1,6}}) \((?P<func>[\w:~ ]{{1,120}})\)\s?-? ?(?P<expr>)assert failed!", ("assert failed!",)),
    Spec("assertion-text", rf"(?P<text>(?<!\w)[A-Z][\w ]{{0,60}}assertion failed[^\n]{{0,160}}?){_STOP}", ("assertion failed",)),
    Spec("corrupt-heap", rf"\w{{0,7}} ?HEAP: ?(?P<text>(?:Bad head|Bad tail|Invalid data|Size at|multi_heap|\S+\.c)[^\n]{{3,160}}?){_STOP}", ("heap:",)),
    Spec("task-overflow", r"(?:\W{0,3}\w{0,5}\W{0,3}A )?(?i:stack overflow) in task\s{1,3}(?P<task>\S[^\n]{0,31}?)\s{1,3}has been detected", ("stack overflow in task",)),
    # the ESP8266's RTOS SDK prints it without a header
    Spec("canary", r"(?<!reason: )(?<!\w)Stack canary watchpoint triggered \((?P<task>[^()\n]{1,40})\)(?=\s*$|\s+Backtrace)", ("stack canary watchpoint triggered (",)),
    Spec("smashing-32", r"(?i:stack smashing protect failure!?)", ("stack smashing protect failure",)),
    Spec("terminate", r"terminate called(?: after throwing an instance of '(?P<what>[^'\n]{1,160})'| without an active exception| recursively)?", ("terminate called",)),
    Spec("what", r"what\(\):\s{1,3}(?P<what>[^\n]{1,200})", ("what():",)),
    Spec("error-check", r"ESP_ERROR_CHECK(?:_WITHOUT_ABORT)? failed: esp_err_t (?P<code>0x[0-9a-fA-F]+)(?: \((?P<name>\w+)\))?", (" failed: esp_err_t ",)),
    Spec("check-file", rf'(?<!\w)file: "(?P<file>{_SOURCE})" line (?P<line>\d{{1,6}})', ('file: "',)),
    Spec("check-func", r"^\s{0,4}func: (?P<func>[^\n]{1,160})", ("func: ",)),
    Spec("check-expr", r"^\s{0,4}expression: (?P<expr>[^\n]{1,200})", ("expression: ",)),
    Spec("task-wdt", r"(?i:task watchdog got triggered)", ("task watchdog got triggered",)),
    Spec("wdt-task", r"(?<![\w])- {1,3}(?P<task>[\w./:\- ]{1,40}?) {0,3}\(CPU {0,2}(?P<cpu>[\d/]{1,4})\)", ("(cpu",)),
    Spec("wdt-running", r"Tasks currently running|CPU \d: [\w./:-]{1,40}|Print CPU \d", ("cpu ", "print cpu ", "tasks currently running")),
    Spec("wdt-abort", r"(?<!\w)Aborting\.", ("aborting.",)),
)


def _opens(dump: Dump) -> bool:
    """True when a message may still be added: nothing of the body was printed."""
    return not dump.has_body and not dump.marks & {"abort", "guru"}


def _text(dump: Dump, token: Token, kind: str) -> str | None:
    if token.in_source:
        return DROP
    if not _opens(dump):
        return SPLIT
    dump.framework = dump.framework or "esp-idf"
    dump.kind = dump.kind or kind
    dump.say(token.text[token.start : token.end])
    return None


def abort_at(dump: Dump, token: Token) -> str | None:
    """`abort() was called at PC 0x… on core N`."""
    if token.in_source:
        return DROP
    if not _opens(dump):
        return SPLIT
    dump.marks.update({"abort", "abort-pc"})
    dump.framework = dump.framework or "esp-idf"
    if dump.kind is None:
        dump.kind = "abort"
    elif dump.kind == "terminate":
        dump.kind = "unhandled-exception"
    dump.say(token.text[token.start : token.end])
    dump.registers["pc"] = int(token["pc"], 16)
    if token.groups.get("core"):
        dump.core = token.number("core")
    dump.strong = dump.strong or (token.leads and (token.ends or bool(token.rest.startswith((" ", "\r")) and "acktrace" in token.rest)))
    return None


def _near(token: Token, words: str) -> bool:
    return difflib.SequenceMatcher(None, token["words"], words, autojunk=False).ratio() >= _NEAR and not token.in_source


def rough_abort(dump: Dump, token: Token) -> str | None:
    """The same with letters lost or changed."""
    return abort_at(dump, token) if token.leads and _near(token, "abort() was called at PC") else DROP


def rough_assertion(dump: Dump, token: Token) -> str | None:
    """`assert failed: …` with letters lost or changed."""
    return assertion(dump, token) if token.leads and _near(token, "assert failed") else DROP


def assertion(dump: Dump, token: Token) -> str | None:
    """`assert failed: FUNC FILE:LINE (EXPR)`, newlib's `assertion "…" failed:`, FreeRTOS's `FILE:LINE (FUNC)- assert failed!`."""
    if "ets_main.c" in token["file"]:
        return DROP if dump.kind is None else None
    result = _text(dump, token, "assert")
    if result is None:
        dump.location = Location(file=token["file"], line=token.number("line"), function=(token.groups.get("func") or "").strip() or None)
        if token.kind == "assert-failed" and token.leads:
            dump.strong = True
        dump.marks.add("assert")
    return result


def assertion_text(dump: Dump, token: Token) -> str | None:
    """Other wordings; only an abort() after them makes them a crash."""
    result = _text(dump, token, "assert")
    if result is None:
        m = re.search(rf"({_SOURCE}):(\d{{1,6}})", token["text"])
        if m is not None and dump.location is None:
            dump.location = Location(file=m[1].split()[-1], line=int(m[2]))
    return result


def corrupt_heap(dump: Dump, token: Token) -> str | None:
    """`CORRUPT HEAP: …`, one or several lines."""
    result = _text(dump, token, "heap-corruption")
    if result is None:
        dump.strong = dump.strong or token.leads
    return result


def task_overflow(dump: Dump, token: Token) -> str | None:
    """`A stack overflow in task NAME has been detected.`."""
    if dump.task is not None:
        return SPLIT
    result = _text(dump, token, "stack-overflow")
    if result is None:
        dump.task = token["task"]
        before = token.text[: token.start].strip("* \t")
        dump.strong = len(before) <= 10
    return result


def canary(dump: Dump, token: Token) -> str | None:
    """`Stack canary watchpoint triggered (NAME)` on a line of its own; a backtrace follows."""
    if not token.leads or dump.task is not None:
        return DROP if dump.kind is None else None
    result = _text(dump, token, "stack-overflow")
    if result is None:
        dump.task = token["task"].strip()
        dump.strong = True
    return result


def smashing(dump: Dump, token: Token) -> str | None:
    """`Stack smashing protect failure!`."""
    result = _text(dump, token, "stack-smashing")
    if result is None:
        dump.strong = token.leads and "!" in token.text[token.start : token.end]
    return result


def terminate(dump: Dump, token: Token) -> str | None:
    """`terminate called …`: host programs print it too, so it counts only with the abort() after it."""
    if not _opens(dump) or "terminate" in dump.marks:
        return SPLIT
    dump.marks.add("terminate")
    dump.kind = dump.kind or "terminate"
    dump.say(token.text[token.start : token.end])
    return None


def what(dump: Dump, token: Token) -> str | None:
    """`what():  …` of the exception."""
    dump.say(token["what"])
    return None


def error_check(dump: Dump, token: Token) -> str | None:
    """`ESP_ERROR_CHECK failed: esp_err_t 0x… (NAME)`."""
    result = _text(dump, token, "abort")
    if result is None and token.leads and " at 0x" in token.rest and "WITHOUT_ABORT" not in token.text:
        dump.strong = True
    return result


def check_place(dump: Dump, token: Token) -> str | None:
    """The place that ESP_ERROR_CHECK names over three lines."""
    old = dump.location or Location()
    if token.kind == "check-file":
        dump.location = Location(file=token["file"], line=token.number("line"), function=old.function)
    elif token.kind == "check-func":
        dump.location = Location(file=old.file, line=old.line, function=token["func"].strip())
    else:
        dump.say(token["expr"])
    return None


def task_wdt(dump: Dump, token: Token) -> str | None:
    """`Task watchdog got triggered.`; with `Aborting.` a crash, otherwise a report with or without a backtrace."""
    if dump.kind is not None:
        return SPLIT
    result = _text(dump, token, "watchdog")
    if result is None:
        dump.strong = token.leads and (token.ends or "following task" in token.rest or "did not" in token.rest)
        dump.marks.add("wdt")
    return result


def wdt_task(dump: Dump, token: Token) -> str | None:
    """` - NAME (CPU N)`: who didn't feed it."""
    if dump.task is None:
        dump.task = token["task"].strip()
    dump.say(f"{token['task'].strip()} (CPU {token['cpu']})")
    return None


def lone_sha(dump: Dump, token: Token) -> str | None:
    """The hash at the end of a panic whose beginning is lost; start-up lines are handled elsewhere."""
    dump.kind = "panic"
    dump.framework = "esp-idf"
    dump.elf_sha256 = token["sha"]
    dump.cut = True
    return None


FORMAT = Format(
    name="idf-abort",
    tokens=TOKENS,
    table={
        **BODY,
        **rules("- " + STATES, "abort-at", abort_at, "head"),
        **rules("- " + STATES, "abort-rough", rough_abort, "head"),
        **rules("- " + STATES, "assert-rough", rough_assertion, "head"),
        **rules(STATES, "guru", idf_panic.guru, "head"),
        **rules("head regs", "debug-reason", idf_panic.debug_reason, "head"),
        **rules("- " + STATES, "assert-failed assertion", assertion, "head"),
        **rules("- " + STATES, "assertion-text", assertion_text, "head"),
        **rules("- " + STATES, "corrupt-heap", corrupt_heap, "head"),
        **rules("- " + STATES, "task-overflow", task_overflow, "head"),
        **rules("-", "canary", canary, "head"),
        **rules("- " + STATES, "smashing-32", smashing, "head"),
        **rules("- " + STATES, "terminate", terminate, "head"),
        **rules("head", "what", what, "head"),
        **rules("- " + STATES, "error-check", error_check, "head"),
        **rules("head", "check-file check-func check-expr", check_place, "head"),
        **rules("- " + STATES, "task-wdt", task_wdt, "head"),
        **rules("head bt", "wdt-task", wdt_task, "head"),
        **rules("head", "wdt-running wdt-abort", None, "head"),
        **rules("bt tail", "wdt-running wdt-abort", None, "tail"),
        **rules("-", "elf-sha", lone_sha, "tail"),
    },
    patience=12,
    joins=JOINS,
    complete=complete,
)
