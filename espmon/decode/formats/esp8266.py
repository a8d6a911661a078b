"""ESP8266: `Exception (N)` and its kin of the Arduino core, `Fatal exception` of the NonOS SDK and ROM, and the stack.

The dumps share their registers and stack blocks, so they share one table; what begins them tells them apart.
"""

from __future__ import annotations

import difflib
import re

from espmon.decode import causes
from espmon.decode.dump import Dump
from espmon.decode.formats.shape import DROP, END, SPLIT, Format, rules
from espmon.decode.scan import Spec, Token
from espmon.events import FailedAlloc, Location

_H8 = "[0-9a-fA-F]{8}"
# What may follow a value directly when newlines were lost: no further hex digit, unless it begins a known word.
_STOP = r"(?:(?![0-9a-fA-F])|(?=ctx:|epc\d|excvaddr|depc|CUT|Exception|Fatal|Core |Backtrace|ELF ))"
# What may not stand before a row's address: it would be the end of a longer number, unless newlines were lost. (Looked
# at behind the address, so that the search can skip quickly to where one may begin.)
_BEFORE_ROW = rf"(?:(?<![0-9a-fA-Fx].{{8}})|(?<={_H8}.{{8}})|(?<=set: [0-9a-fA-F]{{4}}.{{8}}))"
# A Windows path may hold spaces.
_SOURCE = r"(?:[A-Za-z]:[\\/][^\n:*?<>|]{1,250}?|[\w./\\:+-]{1,200}?)\.(?:cpp|cc|c|hpp|h|ino|S)"

TOKENS = (
    Spec("cut-here", r"-{3,}\s*CUT HERE FOR EXCEPTION DECODER\s*-{0,15}", ("cut here for exception decoder",)),
    Spec("isr-iram", r"ISR not in IRAM!", ("isr not in iram!",)),
    Spec("user-exception", r"User exception \(panic/abort/assert\)", ("user exception (panic/abort/assert)",)),
    Spec(
        "fatal",
        r"\S{0,2}(?:atal|tal) exception\s*(?:(?P<n>\d{1,3})\s*\((?P<name>[A-Za-z]\w{1,40})\)|\((?P<n2>\d{1,3})\))\s*:?", (" exception",),
    ),
    Spec("fatal", r"\*{3,6} ?Fatal exception (?P<n>\d{1,2})(?: ?\((?P<name>\w{3,40})\))?(?=\s*$|\s+pc=)(?P<n2>)", ("** fatal exception ", "**fatal exception ")),
    Spec("fatal", r"\*{3,6} ?Exception Reset \((?P<n>\d{1,2})\):(?P<name>)(?P<n2>)", ("exception reset (",)),
    Spec("sming-wdt", r"\*{3,6} ?Software Watchdog Reset(?=\s*$|\s+Stack dump)", ("software watchdog reset",)),
    Spec("sming-bar", r"(?<!=)={40,90}(?!=)", ("========",), inside=True),
    Spec("sming-reg", rf"(?<!\w)(?P<reg>pc|sp|ps|sar|vpri|r(?:0\d|1[0-5]))(?:=|: )0x(?P<v>{_H8})(?![0-9a-fA-F:])(?:= {{0,10}}-?\d{{1,10}})?", ("pc=0x", "ps=0x", ": 0x"), inside=True),
    Spec("exception", r"(?<!atal )(?<!C\+\+ )(?i:e?x?ception)\s{0,2}\((?P<n>\d{1,3})\)\s*:?", ("ception",)),
    # edited: nothing, or other brackets, around the number
    Spec("exception", r"(?<!atal )(?<!C\+\+ )(?i:exception)\s?(?:\[(?P<n>\d{1,2})\]\s?:?|\s(?P<n3>\d{1,2})\s?:?(?=\s*$|\s*epc1))", ("exception",)),
    Spec("fatal", r"\S{0,2}atal exception (?P<n3>\d{1,2})\s?:?(?=\s*$|\s*epc1)", ("atal exception ",)),
    Spec("epc", rf"(?P<reg>(?i:epc[1-7]|e[xp]cvaddr|depc|excsave[1-7])|rtn_add)\s?=\s?(?:0x)?(?P<v>{_H8}){_STOP}", ("depc", "epc", "excsave", "excvaddr", "rtn_add")),
    Spec("epc-colon", rf"(?<!\w)(?P<reg>epc[1-3]|excvaddr|depc):\s?0x(?P<v>{_H8}){_STOP}", ("epc", "excvaddr"), inside=True),
    Spec("epc-damaged", rf"(?:(?<=[0-9a-fA-F][, ])|^)\s?(?P<reg>[^\s=,\"':{{}}\[\]]{{2,9}})\s?=\s?0x(?P<v>{_H8}){_STOP}", ("=0x", "= 0x", "=\t0x")),
    Spec("soft-wdt", r"(?:S|s)?oft WDT reset(?: - deliberate infinite loop detected)?", ("oft wdt reset",)),
    Spec("hard-wdt", r"Hardware WDT reset", ("hardware wdt reset",)),
    Spec(
        "panic-at",
        rf"(?<![\w'])Panic (?P<file>{_SOURCE})(?::(?P<line>\d+)(?: (?P<func>[^\n]{{1,300}}?))?)?"
        r"(?::? Assertion '(?P<expr>[^\n]{1,300}?)' failed\.?)?(?=[\s`*]*$|\s*>>>|\s+-{5}|\s+ctx:)", ("panic ",),
    ),
    Spec("unhandled", r"Unhandled C\+\+ exception:\s*(?P<name>[\w:<>,*& ]{1,120}?)(?=[\s`*]*$|\s*>>>|\s+-{5}|\s+ctx:)", ("unhandled c++ exception:",)),
    Spec("abort-called", r"(?<!\w)Abort called(?!\w)", ("abort called",)),
    Spec("smashing", rf"(?i:stack smashing detected)(?:\.| at (?P<pc>(?:0x)?{_H8}))?", ("stack smashing detected",)),
    Spec("overflow", r"(?i:stack overflow detected)\.?", ("stack overflow detected",)),
    Spec("generic", r"(?<!\w)Generic Reset", ("generic reset",)),
    Spec("ctx", r"ctx:\s*(?P<ctx>cont|sys|bearssl)\b", ("ctx:",)),
    Spec("sp", rf"sp:\s?(?P<sp>{_H8})\s+end:\s?(?P<end>{_H8})(?:\s+offset:\s?(?P<off>[0-9a-fA-F]{{1,4}}))?", ("end:",)),
    Spec("stack-begin", r">{0,3}\s?stack>>>", ("stack>>>",)),
    Spec("stack-end", r"<{2,3}\s?stack<{0,3}", ("stack",)),
    Spec("row", rf"(?P<addr>{_H8}){_BEFORE_ROW}:\s{{1,3}}(?P<words>{_H8}(?:\s{{1,3}}{_H8}){{3}})(?:(?![0-9a-fA-F:])|(?={_H8}:))(?:\s?<(?!<))?", (": ", ":\t"), row=True),
    Spec("row-bare", rf"^\s{{0,8}}(?P<addr>3[0-9a-fA-F]{{7}}) {{1,3}}(?P<words>{_H8}(?: {{1,3}}{_H8}){{3}})\s*$", ("3ff",), inside=True),
    Spec("alloc", rf"last failed alloc call:\s*(?P<caller>(?:0x)?{_H8})\((?P<size>\d{{1,9}})\)", ("last failed alloc call:",)),
    Spec("alloc-caller", rf"last failed alloc caller:\s*(?P<caller>(?:0x)?{_H8})", ("last failed alloc caller:",)),
    # esp-open-rtos and the NonOS SDK's mesh example print stacks of their own.
    Spec("eor-regs", rf"(?<!\w)(?P<regs>(?:(?:a\d{{1,2}}|SAR)\s{{1,2}}{_H8}(?:\s{{1,2}}|$)){{1,5}})", ("a0 ", "a4 ", "a8 ", "a12 "), inside=True),
    Spec("eor-stack", r"(?<!\w)Stack: SP=0x(?P<sp>[0-9a-fA-F]{8})", ("stack: sp=0x",), inside=True),
    Spec("eor-row", rf"(?<!\w)0x(?P<addr>{_H8}): (?P<words>{_H8}(?: {_H8}){{3}})(?!\w)", (": ",), inside=True),
    Spec("eor-abort", r"(?<!\w)abort\(\) invoked at 0x(?P<pc>[0-9a-fA-F]{1,8})", ("abort() invoked at 0x",)),
    Spec("eor-end", r"(?<!\w)Free Heap: \d{1,6}|Second fatal exception occurr?ed inside", ("free heap: ", "second fatal exception"), inside=True),
    Spec("pair-begin", r"(?:stack sp is (?P<sp>[0-9a-fA-F]{8}))|\*{3} stack dump start \*{3}", ("stack sp is ", "stack dump start"), inside=True),
    Spec("pair-row", rf"(?P<addr>3fff[0-9a-fA-F]{{4}})(?:(?<![0-9a-zA-Z].{{8}})|(?<=\\0x05.{{8}})): (?P<words>{_H8} {_H8})(?![0-9a-fA-F]| {_H8})", ("3fff",), inside=True),
    Spec("hwdt-note", r"Cont stack is yielding|Caution, the stack is possibly corrupt", ("aution, the stack is possibly corrupt", "ont stack is yielding")),
)

# What is left of a header: `(28):` at the end of a short line.
_GARBLED = re.compile(r"^[^()]{0,24}\((\d{1,2})\)\s*:?\W*$")
_GARBLED_NAME = re.compile(r"\(([A-Za-z]{5,30}?)(?:Cause)?\)\W*$")
# Prose has words; a header whose registers are in shreds has none.
_SENTENCE = re.compile(r"\W{0,4}(?!epc|Fatal|Exception)[A-Za-z]{4}")
_WORD = re.compile(r"[A-Za-z]{4}")
_ORDER = ("epc1", "epc2", "epc3", "excvaddr", "depc")


def _begin(dump: Dump, framework: str) -> None:
    dump.chip = "esp8266"
    dump.framework = framework


def fatal(dump: Dump, token: Token) -> str | None:
    """`Fatal exception N(Name):`, `Fatal exception (N):`."""
    if dump.kind is not None:
        return SPLIT
    _begin(dump, "nonos-sdk")
    dump.kind = "exception"
    dump.number = next((token.number(group) for group in ("n", "n2", "n3") if token.groups.get(group)), None)
    name = token.groups.get("name")
    if token.text.startswith("***", token.start):
        dump.framework = "sming"
        dump.marks.update({"sming", "stack"})  # its rows stand between lines of equals signs
    dump.name = name or causes.XTENSA.get(dump.number if dump.number is not None else -1)
    if token.leads:
        dump.marks.add("leads")
    dump.strong = token.leads and not token.groups.get("n3") and (token.ends or not _WORD.search(token.rest.replace("excvaddr", "").replace("depc", "")))
    return None


def exception(dump: Dump, token: Token) -> str | None:
    """`Exception (N):`; after a soft watchdog (4) and stack smashing (5) it belongs to them."""
    number = token.number("n") if token.groups.get("n") else token.number("n3")
    if dump.kind in ("watchdog", "stack-smashing") and number in (4, 5) and not dump.registers and not dump.stacks:
        dump.number, dump.name = number, causes.XTENSA.get(number or 0)
        return None
    if dump.framework == "nonos-sdk" and dump.number == number and len(dump.registers) == 5 and not dump.stacks and "told" not in dump.marks:
        dump.marks.add("told")  # the SDK has said it already; the core says it again, with its stack
        return None
    loose = dump.kind == "exception" and dump.number is None and "loose" in dump.marks
    if dump.kind is not None and not loose:
        return SPLIT
    _begin(dump, "arduino")
    dump.kind = "exception"
    dump.number = number
    dump.name = causes.XTENSA.get(number if number is not None else -1)
    if token.leads and not _SENTENCE.match(token.rest):
        dump.marks.add("leads")
    if loose or (token.leads and "=" in token.rest and not _WORD.search(token.rest)):
        dump.strong = True
    return None


def register(dump: Dump, token: Token) -> str | None:
    """`epc1=0x…` and its neighbours."""
    name, value = token["reg"].lower(), int(token["v"], 16)
    if name == "epcvaddr":
        name = "excvaddr"  # how the first RTOS SDK spells it
    if token.rest.startswith(" in "):
        return None  # what PlatformIO's filter says of it
    if name == "epc1" and "epc1" in dump.registers:
        if "told" not in dump.marks or value != dump.registers["epc1"] or dump.framework != "nonos-sdk":
            return SPLIT
        dump.framework = "arduino"
    if name not in dump.registers:
        dump.registers[name] = value
    if token.leads:
        dump.marks.add("leads")
    if dump.kind is not None and dump.number is not None:
        # One value in the same line as a header within a sentence is prose.
        dump.strong = dump.strong or bool(dump.marks & {"leads", "user", "cut"}) or len(dump.registers) >= 3
    elif len(dump.registers) >= 3 and "leads" in dump.marks:
        dump.strong = True
    return None


def sming_register(dump: Dump, token: Token) -> str | None:
    """`pc=0x… sp=0x…` and `r00: 0x…=N`, as Sming prints them."""
    if "sming" in dump.marks:
        dump.registers.setdefault(token["reg"], int(token["v"], 16))
        dump.strong = True
    return None


def sming_watchdog(dump: Dump, token: Token) -> str | None:
    """`***** Software Watchdog Reset`, Sming's own word for it."""
    result = _message_head(dump, token, "watchdog")
    if result is None:
        dump.framework = "sming"
        dump.marks.update({"sming", "stack"})
        dump.say("Soft WDT reset")
    return result


def sming_bar(dump: Dump, token: Token) -> str | None:
    """A line of equals signs stands before and after Sming's stack."""
    if "sming" in dump.marks and dump.stacks and dump.stacks[-1].lines:
        dump.stacks[-1].complete = True
        return END
    return dump.state


def small_registers(dump: Dump, token: Token) -> str | None:
    """`a0 H8 a1 H8`, below `Registers:`."""
    if "sming" in dump.marks:
        return None
    for name, value in re.findall(rf"(a\d{{1,2}}|SAR)\s{{1,2}}({_H8})", token["regs"]):
        dump.registers.setdefault(name.lower(), int(value, 16))
    return None


def own_stack(dump: Dump, token: Token) -> str | None:
    """`Stack: SP=0x…`, `stack sp is H8`, `*** stack dump start ***`: rows of another shape follow."""
    if token.kind == "pair-begin":
        dump.marks.add("pairs")
    elif dump.framework in ("arduino", "nonos-sdk"):
        dump.framework = "esp-open-rtos"
    block = dump.stacks[-1] if dump.stacks and not dump.stacks[-1].lines else dump.new_stack()
    if token.groups.get("sp"):
        block.sp = int(token["sp"], 16)
    return None


def own_row(dump: Dump, token: Token) -> str | None:
    """A row of such a stack."""
    if not dump.stacks or (token.kind == "pair-row" and "pairs" not in dump.marks):
        return None
    return row(dump, token)


def own_end(dump: Dump, token: Token) -> str | None:
    """What esp-open-rtos prints after the stack."""
    if dump.stacks:
        dump.stacks[-1].complete = True
    return None


def invoked_abort(dump: Dump, token: Token) -> str | None:
    """`abort() invoked at 0x….`"""
    result = _message_head(dump, token, "abort")
    if result is None:
        dump.framework = "esp-open-rtos"
        dump.say("abort() invoked")
        dump.registers["pc"] = int(token["pc"], 16)
        dump.marks.add("abort-pc")
    return result


def damaged_register(dump: Dump, token: Token) -> str | None:
    """A register whose name lost letters: it is the next one of the row, if its name is still close to that."""
    due = next((name for name in _ORDER if name not in dump.registers), None)
    if due is not None and difflib.SequenceMatcher(None, token["reg"].lower(), due, autojunk=False).ratio() >= 0.6:
        dump.registers[due] = int(token["v"], 16)
        if dump.kind is not None and dump.number is not None and len(dump.registers) >= 3:
            dump.strong = True
    return None


def loose_register(dump: Dump, token: Token) -> str | None:
    """Registers whose header is lost or comes after them."""
    if token["reg"].lower() != "epc1" or dump.kind is not None or token.rest.startswith(" in "):
        return DROP
    if token.text[: token.start].lstrip()[:2] in ("# ", "//"):
        return DROP  # a comment that shows the form
    _begin(dump, "")
    dump.framework = "nonos-sdk" if token.text[token.end : token.end + 1] == "," else "arduino"
    dump.kind = "exception"
    dump.marks.add("loose")
    if token.leads:
        dump.marks.add("leads")
    return register(dump, token)


def garbled_header(dump: Dump, previous: str) -> None:
    """A damaged header in the line before loose registers may still show its number."""
    m = _GARBLED.search(previous[-200:])
    if m is not None and dump.number is None:
        dump.number = int(m[1])
        dump.name = causes.XTENSA.get(dump.number)
        dump.strong = True
        return
    m = _GARBLED_NAME.search(previous[-200:])
    number = causes.exception_number(m[1]) if m is not None else None
    if m is not None and number is not None and dump.number is None:
        dump.number, dump.name = number, m[1]
        dump.strong = True


def _message_head(dump: Dump, token: Token, kind: str) -> str | None:
    if dump.kind is not None or dump.has_body:
        return SPLIT
    if token.listed:
        return DROP
    _begin(dump, "arduino")
    dump.kind = kind
    dump.strong = dump.strong or (token.leads and token.ends) or bool(dump.marks & {"user", "cut"})
    return None


def soft_wdt(dump: Dump, token: Token) -> str | None:
    """`Soft WDT reset`; a second one right after a stack of another context is the same event."""
    if dump.kind == "watchdog" and dump.stacks and dump.stacks[-1].complete and "again" not in dump.marks:
        dump.marks.add("again")
        return "again"
    result = _message_head(dump, token, "watchdog")
    if result is None:
        dump.say(token.text[token.start : token.end].strip())
    return result


def hard_wdt(dump: Dump, token: Token) -> str | None:
    """`Hardware WDT reset`, printed by the core's hardware watchdog dump after the restart."""
    result = _message_head(dump, token, "watchdog")
    if result is None:
        dump.say("Hardware WDT reset")
        dump.strong = False  # the name of a reset cause, too: its stacks make it a dump
    return result


def panic_at(dump: Dump, token: Token) -> str | None:
    """`Panic FILE:LINE FUNCTION[: Assertion '…' failed.]`."""
    result = _message_head(dump, token, "assert" if token.groups.get("expr") else "panic")
    if result is None:
        dump.strong = True
        func = token.groups.get("func")
        dump.location = Location(file=token["file"], line=token.number("line"), function=func.strip(" :") if func else None)
        dump.say(token.text[token.start : token.end])
    return result


def unhandled(dump: Dump, token: Token) -> str | None:
    """`Unhandled C++ exception: OOM` is a failed `new`."""
    name = token["name"].strip()
    result = _message_head(dump, token, "out-of-memory" if name == "OOM" else "unhandled-exception")
    if result is None:
        dump.strong = True
        dump.say(token.text[token.start : token.end])
    return result


def abort_called(dump: Dump, token: Token) -> str | None:
    """`Abort called`."""
    result = _message_head(dump, token, "abort")
    if result is None:
        dump.say("Abort called")
    return result


def smashing(dump: Dump, token: Token) -> str | None:
    """`Stack smashing detected`, older cores with the address."""
    result = _message_head(dump, token, "stack-smashing")
    if result is None:
        dump.say(token.text[token.start : token.end])
    return result


def overflow(dump: Dump, token: Token) -> str | None:
    """`Stack overflow detected`."""
    result = _message_head(dump, token, "stack-overflow")
    if result is None:
        dump.say("Stack overflow detected")
    return result


def generic(dump: Dump, token: Token) -> str | None:
    """`Generic Reset`: weak by itself."""
    if dump.kind is not None:
        return SPLIT
    _begin(dump, "arduino")
    dump.kind = "panic"
    dump.say("Generic Reset")
    return None


def prelude(dump: Dump, token: Token) -> str | None:
    """`User exception` and the CUT HERE mark come before what happened; the mark also comes after it."""
    if dump.kind is not None or dump.stacks:
        return SPLIT
    if token.listed:
        return DROP
    _begin(dump, "arduino")
    dump.marks.add("user" if token.kind == "user-exception" else "cut")
    return None


def isr_not_in_iram(dump: Dump, token: Token) -> str | None:
    """`ISR not in IRAM!`: attachInterrupt refused a handler; abort() follows."""
    if dump.kind is not None or dump.stacks:
        return SPLIT
    _begin(dump, "arduino")
    dump.marks.add("isr")
    dump.say("ISR not in IRAM!")
    return None


def context(dump: Dump, token: Token) -> str | None:
    """`ctx: cont`: before or after `>>>stack>>>`."""
    name = token["ctx"]
    if "again" in dump.marks:
        dump.marks.discard("again")
        if any(s.context == name for s in dump.stacks):
            return SPLIT
    block = dump.stacks[-1] if dump.stacks else None
    if block is None or block.complete or block.context is not None or block.lines:
        if block is not None and block.lines and block.context not in (None, name):
            block.complete = True  # the dump goes on with the next stack: this one was printed to its end
        block = dump.new_stack()
    block.context = name
    return None


def stack_pointer(dump: Dump, token: Token) -> str | None:
    """`sp: … end: … offset: …`."""
    block = dump.stacks[-1] if dump.stacks else None
    if block is None or block.complete or block.sp is not None:
        block = dump.new_stack()
    block.sp, block.end = int(token["sp"], 16), int(token["end"], 16)
    block.offset = token.number("off", 16)
    return None


def lost_mark(dump: Dump, token: Token) -> str | None:
    """`ctx: …`, `sp: … end: … offset: …` alone: what came before is lost, rows may follow."""
    if token.kind == "ctx":
        if not token.leads or not (token.ends or token.rest.lstrip().startswith("sp:")):
            return DROP
        _begin(dump, "arduino")
        return context(dump, token)
    if not token.leads or not token.groups.get("off"):
        return DROP
    _begin(dump, "arduino")
    return stack_pointer(dump, token)


def stack_begin(dump: Dump, token: Token) -> str | None:
    """`>>>stack>>>`: alone it is a stack whose header is lost."""
    if dump.kind is None and not dump.stacks and not dump.marks:
        if not token.leads and (not token.ends or token.in_source):
            return DROP  # in a sentence; behind a prefix, the rows will tell
        _begin(dump, "arduino")
    dump.marks.discard("again")
    block = dump.stacks[-1] if dump.stacks else None
    if block is None or block.complete or block.lines:
        dump.new_stack()
    dump.marks.add("stack")
    return None


def row(dump: Dump, token: Token) -> str | None:
    """`H8:  w w w w`."""
    dump.strong = True
    dump.row(int(token["addr"], 16), [int(w, 16) for w in token["words"].split()])
    return None


def stack_end(dump: Dump, token: Token) -> str | None:
    """`<<<stack<<<`."""
    block = dump.stack()
    block.complete = True
    if dump.kind is not None or block.lines:
        dump.strong = True
    return None


def lone_end(dump: Dump, token: Token) -> str | None:
    """`<<<stack<<<` whose dump is lost: what follows may still tell something."""
    if not (token.leads and token.ends):
        return DROP
    _begin(dump, "arduino")
    dump.kind, dump.cut = "panic", True
    return None


def alloc(dump: Dump, token: Token) -> str | None:
    """`last failed alloc call: H8(N)`, `last failed alloc caller: 0xH8`."""
    caller = int(token["caller"], 16)
    size = token.number("size") if token.kind == "alloc" else None
    if size is None and dump.alloc is not None:
        size = dump.alloc.size
    from espmon.events import Address

    dump.alloc = FailedAlloc(caller=Address(caller), size=size)
    if dump.kind is not None:
        dump.strong = True
    return None


def last_mark(dump: Dump, token: Token) -> str | None:
    """The CUT HERE mark after a dump ends it."""
    return END if dump.stacks and (dump.stacks[-1].complete or dump.stacks[-1].lines) else None


_HEADS = {
    "fatal": fatal, "exception": exception, "soft-wdt": soft_wdt, "hard-wdt": hard_wdt, "panic-at": panic_at,
    "unhandled": unhandled, "abort-called": abort_called, "sming-wdt": sming_watchdog, "eor-abort": invoked_abort, "smashing": smashing, "overflow": overflow, "generic": generic,
}  # fmt: skip
_ANY = "head regs stack after again"
TABLE = {
    **{k: r for kind, action in _HEADS.items() for k, r in rules("- prelude " + _ANY, kind, action, "head").items()},
    **rules("- prelude", "user-exception cut-here", prelude, "prelude"),
    **rules("- prelude " + _ANY, "isr-iram", isr_not_in_iram, "prelude"),
    **rules("head regs stack after again", "cut-here", last_mark, "head"),
    **rules(_ANY, "user-exception", lambda d, t: SPLIT, "prelude"),
    **rules("-", "epc", loose_register, "regs"),
    **rules("prelude", "epc", loose_register, "regs"),
    **rules("head regs after again", "epc epc-colon", register, "regs"),
    **rules("head regs", "epc-damaged", damaged_register, "regs"),
    **rules("head regs", "sming-reg", sming_register, "regs"),
    **rules("head regs stack", "sming-bar", sming_bar, "head"),
    **rules("head regs", "eor-regs", small_registers, "regs"),
    **rules("head regs", "eor-stack pair-begin", own_stack, "head"),
    **rules("head regs stack", "eor-row pair-row", own_row, "stack"),
    **rules("head regs stack", "eor-end", own_end, "after"),
    **rules("stack", "epc", lambda d, t: SPLIT, "regs"),
    **rules("prelude " + _ANY, "ctx", context, "head"),
    **rules("prelude " + _ANY, "sp", stack_pointer, "head"),
    **rules("-", "ctx sp", lost_mark, "head"),
    **rules("- prelude " + _ANY, "stack-begin", stack_begin, "stack"),
    **rules("prelude " + _ANY, "stack-end", stack_end, "after"),
    **rules("prelude " + _ANY, "alloc alloc-caller", alloc, "after"),
    **rules("-", "stack-end", lone_end, "after"),
    **rules("head regs stack after", "hwdt-note", None, "head"),
    **rules("head regs stack after", "row", row, "stack"),
    **rules("stack", "row-bare", row, "stack"),
}


def _row_in_head(dump: Dump, token: Token) -> str | None:
    # Rows belong to a dump only after its stack mark or its ctx/sp lines; elsewhere they are torn leftovers.
    return row(dump, token) if dump.stacks or "stack" in dump.marks else None


TABLE.update(rules("prelude head regs after again", "row", _row_in_head, "stack"))


def complete(dump: Dump, reason: str) -> bool:
    """Whole when its stack was closed, or, without a stack, when all registers were printed."""
    if dump.stacks:
        return all(s.complete for s in dump.stacks if s.lines) and dump.stacks[-1].complete
    return {"epc1", "excvaddr", "depc"} <= set(dump.registers)


FORMAT = Format(
    name="esp8266",
    tokens=TOKENS,
    table=TABLE,
    patience=6,
    joins=frozenset({"epc", "row", "sp"}),
    complete=complete,
)
