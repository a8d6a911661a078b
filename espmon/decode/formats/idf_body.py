"""What every ESP-IDF panic prints after its first line: registers, backtrace, stack memory, ELF hash, the end."""

from __future__ import annotations

import difflib
import re

from espmon.decode.dump import Dump
from espmon.decode.formats.shape import DROP, END, SPLIT, Format, Rule, rules
from espmon.decode.scan import Spec, Token

_H8 = "[0-9a-fA-F]{8}"
_H7 = "[0-9a-fA-F]{7}"
_NAMES = (
    r"PC|PS|A1[0-5]|A\d|SAR|EXCCAUSE|EXCVADDR|LBEG|LEND|LCOUNT|EPC[1-7]|EPS[2-7]|EXCSAVE[1-7]|DEPC|THREADPTR|SCOMPARE1|"
    r"ACCLO|ACCHI|BR|MEPC|RA|SP|GP|TP|T[0-6]|S0/FP|S1[01]|S\d|MSTATUS|MTVEC|MCAUSE|MTVAL|MHARTID|MSCRATCH|INTLEVEL|"
    r"UEPC|USTATUS|UTVEC|UCAUSE|UTVAL"
)
# Names may stand right behind the value before them when newlines were lost.
_STOP = rf"(?:(?![0-9a-fA-F])|(?=(?:{_NAMES})\s{{0,10}}:)|(?=Core |Backtrace|ELF |Stack |Rebooting|EXC|0x{_H8}: |\d\d:\d\d:\d\d))"
REGISTER = rf"(?:(?<![\w/])|(?<=^_)|(?<=^//)|(?<=0x{_H8})|(?<=\.[chS]:\d{{3}})|(?<=\.[chS]:\d{{4}})|(?<=pp:\d{{3}}))(?P<reg>{_NAMES})\s{{0,16}}:\s{{0,4}}(?:0x)?(?P<v>{_H8}){_STOP}"

TOKENS = (
    Spec("register-dump", r"(?:(?<![a-z])(?i:core)\s{1,4}(?P<core>\d)\s+)?(?i:register dump)(?:\s?:|(?=[\s`*]*$))", ("register dump",)),
    Spec("isr-context", r"(?:(?i:core)\s{1,4}(?P<core>\d)\s+)?was running in ISR context", ("was running in isr context",)),
    Spec("reg", REGISTER, (" :", "addr:", "cause:", "level:", "ptr:", ": 0x")),
    Spec("stack-memory", r"(?<!\w)Stack memory:", ("stack memory:",)),
    Spec("memory-row", rf"(?P<addr>{_H8})(?<![0-9a-fA-Fx].{{8}}): {{1,3}}(?P<words>0x{_H8}(?: {{1,3}}0x{_H8}){{7}})(?![0-9a-fA-F:])", (": 0x", ":  0x", ":   0x"), row=True),
    Spec("task-stack", rf"Task stack \[(?P<task>[^\]\n]{{1,30}})\] stack from \[(?:0x)?(?P<sp>{_H8})\] to \[(?:0x)?(?P<end>{_H8})\]", ("task stack [",)),
    Spec("wide-row", rf"(?<![\w:])(?P<addr>[34]{_H7}) {{2}}(?P<words>(?:0x)?{_H8}(?: (?:0x)?{_H8}){{3,15}})(?![0-9a-fA-F:])", ("  0x3", "  0x4", "  0x0", "  0xf", " a5a5a5a5", "  3f", "  40", "  00", "  ff"), inside=True),
    Spec("memory-dump", rf"(?<!\w)Memory dump at 0x{_H8}:(?: {{1,2}}{_H8}){{0,3}}", ("memory dump at 0x",)),
    Spec("backtrace-pcs", rf"(?i:b?acktrace)\s?:\s{{0,3}}(?P<pcs>0x{_H8}(?:[ ,]{{1,3}}0x{_H8}){{1,128}})(?![0-9a-fA-F:])", ("acktrace",)),
    Spec("backtrace", r"(?i:b?acktrace)\s{0,2}:?\s{0,3}(?=0x[0-9a-fA-F]{4}|$)", ("acktrace",)),
    Spec("backtrace-rough", rf"(?<!\w)(?P<word>[\w?]{{6,11}})\W{{0,2}}\s{{0,2}}(?=0x{_H8}:0x{_H8})", (":0x",), inside=True),
    Spec("pair", rf"0x(?P<pc>{_H8})\s?:\s?0x(?P<sp>{_H8})", (":0x", ": 0x", ":\t0x")),
    Spec("corrupted", r"\|?<-\s?(?:CORRUPTED|CONTINUES)", ("ntinues", "rrupted")),
    Spec("elf-sha", r"(?:ELF file|(?<!\w)(?:[A-Z]?[LE]F|ELF?) ?f?i?l?e) SS?HA ?-?256 ?:\s{0,4}(?P<sha>[0-9a-f]{7,64}|[0-9A-F]{7,64})", ("ha256:",)),
    Spec("panic-twice", r"Panic handler entered multiple times\.(?: Abort panic handling\.)?(?: Rebooting ?\.\.\.)?", ("panic handler entered multiple times.",)),
    # the colons are gone
    Spec("reg-bare", rf"(?<![\w/])(?P<reg>{_NAMES}) {{1,16}}0x(?P<v>{_H8}){_STOP}", (" 0x",), inside=True),
    # a name that lost or changed letters
    Spec("reg-damaged", rf"(?<!\S)(?P<reg>[^\s:=_\"'(){{}}\[\]]{{1,9}}) {{0,16}}: {{1,2}}0x(?P<v>{_H8}){_STOP}", (": 0x", ":  0x"), inside=True),
    Spec("panic-end", r"Rebooting ?\.\.\.|CPU halted\.|Entering gdb stub now|Re-entered core dump", ("cpu halted.", "entering gdb stub now", "re-entered core dump", "rebooting")),
)
_REGISTERS = re.compile(REGISTER)
_HEADER = re.compile(r"(?i:core)\s{1,4}(\d)\s+(?i:register dump)")
_NUMBERED = re.compile(r"#\d{1,3}\s{1,4}$")
_NEAR = 0.75  # of the letters: a damaged word is still taken for what it was
_ROUGH_REGISTERS = 3
_STRONG_REGISTERS = 8


def begin_registers(dump: Dump, token: Token) -> str | None:
    """`Core  N register dump:`; a second one is the other core's (interrupt watchdog)."""
    core = token.number("core")
    if dump.core is not None and core == dump.core and "dump" in dump.marks and (any(dump.backtraces) or dump.stacks):
        return SPLIT  # the same core again: the header of the next crash is lost
    if set(dump.registers) - {"pc"} or (dump.registers and "abort-pc" not in dump.marks):
        dump.into_other = True
        dump.other_core = core
    elif dump.core is None:
        dump.core = core
    dump.marks.add("dump")
    return None


def register(dump: Dump, token: Token) -> str | None:
    """One `NAME    : 0xH8`."""
    name, value = token["reg"].lower(), int(token["v"], 16)
    if name == "pc" and "abort-pc" in dump.marks:
        dump.marks.discard("abort-pc")
        dump.registers.pop("pc", None)
    if name in dump.registers and name in ("pc", "mepc") and not dump.into_other:
        dump.into_other = True
    target = dump.other_registers if dump.into_other else dump.registers
    target.setdefault(name, value)
    if len(dump.registers) >= _STRONG_REGISTERS or "dump" in dump.marks:
        dump.strong = True
    return None


_XTENSA_ORDER = (
    "pc", "ps", *(f"a{n}" for n in range(16)), "sar", "exccause", "excvaddr", "lbeg", "lend", "lcount", "epc1", "epc2", "epc3", "epc4",
)  # fmt: skip
_RISCV_ORDER = (
    "mepc", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0/fp", "s1", *(f"a{n}" for n in range(8)), *(f"s{n}" for n in range(2, 12)),
    "t3", "t4", "t5", "t6", "mstatus", "mtvec", "mcause", "mtval", "intlevel", "mhartid",
)  # fmt: skip
_AS_DUE = 0.5  # of the letters: names are short, and which one is due is known


def damaged_register(dump: Dump, token: Token) -> str | None:
    """A register whose name is damaged: the one that is due here, if the name is still close to it."""
    target = dump.other_registers if dump.into_other else dump.registers
    if "dump" not in dump.marks and len(target) < _ROUGH_REGISTERS:
        return dump.state
    last = next(reversed(target), None) if "abort-pc" not in dump.marks else None
    order = _RISCV_ORDER if {"mepc", "ra", "gp"} & target.keys() else _XTENSA_ORDER
    if last is None:
        due = {"pc": _AS_DUE, "mepc": _AS_DUE}
    else:
        at = order.index(last) + 1 if last in order else len(order)
        due = {name: _AS_DUE if i == 0 else _NEAR for i, name in enumerate(order[at : at + 3])}
    word = token["reg"].lower()
    name = next((name for name, least in due.items() if difflib.SequenceMatcher(None, word, name, autojunk=False).ratio() >= least), None)
    if name is None:
        return dump.state
    token.groups["reg"] = name
    return register(dump, token)


def rough_register(dump: Dump, token: Token) -> str | None:
    """A row of registers whose header is lost: at least three of them in one line."""
    row = token.text[max(0, token.start - 100) : token.end + 100]
    if len(_REGISTERS.findall(row)) < _ROUGH_REGISTERS:
        return DROP
    dump.kind = "panic"
    dump.framework = "esp-idf"
    return register(dump, token)


def lost_header(dump: Dump, previous: str) -> None:
    """The line before a row of registers may be the header that no crash stood before."""
    m = _HEADER.search(previous)
    if m is not None:
        dump.line -= 1
        dump.core = int(m[1])
        dump.marks.add("dump")
        dump.strong = True


def begin_backtrace(dump: Dump, token: Token) -> str | None:
    """`Backtrace:`, pairs follow."""
    dump.new_backtrace()
    return None


def rough_backtrace(dump: Dump, token: Token) -> str | None:
    """The word with letters lost or changed, before pairs."""
    if difflib.SequenceMatcher(None, token["word"].lower().rstrip("x?"), "backtrace", autojunk=False).ratio() < _NEAR:
        return DROP
    dump.new_backtrace()
    return None


def lone_backtrace(dump: Dump, token: Token) -> str | None:
    """A backtrace whose crash isn't in the text; other systems print the word as well, so pairs must follow."""
    if not token.leads:
        return DROP
    dump.kind = "panic"
    dump.framework = "esp-idf"
    dump.marks.add("lone")
    return begin_backtrace(dump, token)


def _plausible(pc: int, sp: int) -> bool:
    return 0x40000000 <= (pc & 0x3FFFFFFF | 0x40000000) < 0x50000000 and (0x3C000000 <= sp < 0x41000000 or 0x48000000 <= sp < 0x50000000)


def pair(dump: Dump, token: Token) -> str | None:
    """`0xPC:0xSP`."""
    pc, sp = int(token["pc"], 16), int(token["sp"], 16)
    if _NUMBERED.search(token.text[max(0, token.start - 12) : token.start]):
        # PlatformIO's filter lists the same frames again, one per line.
        if "numbered" not in dump.marks and any(dump.backtraces):
            return None
        dump.marks.add("numbered")
    dump.frame(pc, sp)
    if ("lone" in dump.marks and _plausible(pc, sp) and len(dump.backtraces[-1]) >= 2) or ("lone" not in dump.marks and _plausible(pc, sp)):
        dump.strong = True
    return None


def backtrace_pcs(dump: Dump, token: Token) -> str | None:
    """A backtrace without stack pointers (Mongoose OS)."""
    if dump.kind is None:
        return DROP
    dump.new_backtrace()
    for word in re.findall(_H8, token["pcs"].replace("0x", " ")):
        dump.frame(int(word, 16), None)
    dump.strong = True
    return None


def stack_memory(dump: Dump, token: Token) -> str | None:
    """`Stack memory:`; rows of eight words follow (RISC-V)."""
    if dump.kind is None:
        if not token.leads:
            return DROP
        dump.kind = "panic"
        dump.framework = "esp-idf"
    block = dump.new_stack()
    block.rv = True
    if "sp" in dump.registers:
        block.sp = dump.registers["sp"]
    return None


def task_stack(dump: Dump, token: Token) -> str | None:
    """`Task stack [NAME] stack from [0x…] to [0x…]`: the panic of the ESP8266's RTOS SDK 3.0 begins with it."""
    if dump.kind is None:
        if not token.leads:
            return DROP
        dump.kind = "panic"
        dump.framework, dump.chip = "rtos-sdk", "esp8266"
    dump.task = dump.task or token["task"]
    dump.marks.update({"task-stack", "dump"})
    dump.new_stack()
    return None


def wide_row(dump: Dump, token: Token) -> str | None:
    """A row of up to sixteen words below it."""
    if "task-stack" in dump.marks:
        dump.row(int(token["addr"], 16), [int(w, 16) for w in token["words"].split()])
        dump.strong = True
    return None


def memory_row(dump: Dump, token: Token) -> str | None:
    """`H8: 0xw …`, eight words."""
    if not dump.stacks:
        stack_memory(dump, token)
    dump.row(int(token["addr"], 16), [int(w, 16) for w in token["words"].split()])
    dump.strong = True
    return None


def elf_sha(dump: Dump, token: Token) -> str | None:
    """`ELF file SHA256:`, before or after the backtrace."""
    if dump.elf_sha256 is None:
        dump.elf_sha256 = token["sha"]
    if any(dump.backtraces) or dump.stacks:
        dump.ended = True
    return None


def panic_end(dump: Dump, token: Token) -> str | None:
    """`Rebooting...` and its kin end the dump."""
    dump.ended = True
    if dump.has_body or dump.elf_sha256 is not None:
        dump.strong = True
    return END


def panic_twice(dump: Dump, token: Token) -> str | None:
    """`Panic handler entered multiple times. …`: the panic handler crashed as well; what it had said may be lost."""
    if dump.kind is None:
        if token.in_source or not token.leads or "Abort" not in token.text:
            return DROP
        dump.kind = "panic"
        dump.framework = "esp-idf"
        dump.strong = True
    dump.say("Panic handler entered multiple times")
    dump.ended = True
    return END


STATES = "head regs bt stack tail"
BODY: dict[tuple[str, str], Rule] = {
    **rules(STATES, "register-dump", begin_registers, "regs"),
    **rules(STATES, "isr-context", None, "regs"),
    **rules("head regs", "reg", register, "regs"),
    **rules("bt stack tail", "reg", register, "regs"),
    **rules("regs", "reg-bare", register, "regs"),
    **rules("head regs", "reg-damaged", damaged_register, "regs"),
    **rules(STATES, "memory-dump corrupted", None, "head"),
    **rules("bt", "corrupted", None, "tail"),
    **rules(STATES, "backtrace", begin_backtrace, "bt"),
    **rules(STATES, "backtrace-rough", rough_backtrace, "bt"),
    **rules(STATES, "backtrace-pcs", backtrace_pcs, "bt"),
    **rules("bt", "pair", pair, "bt"),
    **rules(STATES, "stack-memory", stack_memory, "stack"),
    **rules("head regs stack", "memory-row", memory_row, "stack"),
    **rules("head regs stack", "task-stack", task_stack, "stack"),
    **rules("stack", "wide-row", wide_row, "stack"),
    **rules(STATES, "elf-sha", elf_sha, "tail"),
    **rules(STATES, "panic-end", panic_end, "tail"),
    **rules(STATES, "panic-twice", panic_twice, "tail"),
}


def complete(dump: Dump, reason: str) -> bool:
    """Whole when its end was printed, or when other text follows its backtrace or stack."""
    if dump.cut:
        return False
    if dump.ended:
        return True
    return reason != "eof" and (any(dump.backtraces) or any(s.lines for s in dump.stacks))


_FRAGMENT = {
    **BODY,
    **rules("-", "register-dump", lambda d, t: _fragment(d, t), "regs"),
    **rules("-", "reg", rough_register, "regs"),
    **rules("-", "backtrace", lone_backtrace, "bt"),
    **rules("-", "stack-memory", stack_memory, "stack"),
    **rules("-", "task-stack", task_stack, "stack"),
    **rules("-", "panic-twice", panic_twice, "tail"),
}


def _fragment(dump: Dump, token: Token) -> str | None:
    if not token.leads:
        return DROP
    dump.kind = "panic"
    dump.framework = "esp-idf"
    return begin_registers(dump, token)


JOINS = frozenset({"reg", "pair", "memory-row"})
FRAGMENT = Format(name="idf-fragment", tokens=TOKENS, table=_FRAGMENT, patience=10, joins=JOINS, complete=complete)
