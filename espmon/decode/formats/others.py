"""Smaller systems: NodeMCU Lua, Mongoose OS, MicroPython, and what other decoders made of an ESP8266 exception."""

from __future__ import annotations

import re

from espmon.decode import causes
from espmon.decode.dump import Dump
from espmon.decode.formats import idf_body
from espmon.decode.formats.shape import DROP, END, SPLIT, Format, rules
from espmon.decode.scan import Spec, Token
from espmon.events import Location

_H8 = "[0-9a-fA-F]{8}"


def lua_panic(dump: Dump, token: Token) -> str | None:
    """`PANIC: unprotected error in call to Lua API (file.lua:N: message)`; a reset follows."""
    dump.kind = "lua-panic"
    dump.framework = "nodemcu-lua"
    text = token["text"].strip()
    dump.message = text[:-1] if text.endswith(")") and text.count(")") > text.count("(") else text
    before = token.text[: token.start].rstrip()
    dump.strong = token.leads or (before[-1:] not in ("'", '"', "`", "\u00ab") and not token.in_source)
    dump.ended = True
    if text.endswith(":") and token.end == len(token.text):
        return None  # Lua's own message goes on in the next line
    m = re.match(r"([^\s:]{1,120}):(\d{1,6}):", text)
    if m is not None:
        dump.location = Location(file=m[1], line=int(m[2]))
    return END


def lua_rest(dump: Dump, token: Token) -> str | None:
    """The second line of `error loading module 'm' from file 'm.lua':`."""
    dump.message = f"{dump.message} {token['text']}"
    return None


LUA = Format(
    name="nodemcu-lua",
    tokens=(
        Spec("lua-rest", r"^\s{0,8}(?P<text>not enough memory|[^\n()]{1,120} near '[^'\n]{1,60}')\)", ("not enough memory)", "')"), inside=True),
        Spec("lua-panic", r"PANIC: unprotected error in call to Lua API\s?\((?P<text>(?:[^()\n]|\([^()\n]{0,200}\)){1,400})\)?", ("panic: unprotected error in call to lua api",)),
    ),
    table={**rules("-", "lua-panic", lua_panic, "more"), **rules("more", "lua-rest", lua_rest, END)},
    patience=1,
    complete=lambda dump, reason: True,
)


def mongoose_trap(dump: Dump, token: Token) -> str | None:
    """`Trap N: pc=0x…[ va=0x…]`, later `Exception N @ 0x…, vaddr 0x…`."""
    if dump.kind is not None:
        return SPLIT
    dump.kind = "exception"
    dump.framework, dump.chip = "mongoose-os", "esp8266"
    dump.number = token.number("n")
    dump.name = causes.XTENSA.get(dump.number or 0)
    dump.registers["pc"] = int(token["pc"], 16)
    if token.groups.get("va"):
        dump.registers["excvaddr"] = int(token["va"], 16)
    dump.strong = True
    return None


def mongoose_stop(dump: Dump, token: Token) -> str | None:
    """`abort() @ 0x…`, `SW WDT @ 0x…`, `HW WDT @ 0x…`."""
    if dump.kind is not None:
        return SPLIT
    if not token.leads:
        return DROP
    what = token["what"]
    dump.kind = "abort" if what.startswith("abort") else "watchdog"
    dump.framework, dump.chip = "mongoose-os", "esp8266"
    dump.say({"SW WDT": "Soft WDT reset", "HW WDT": "Hardware WDT reset"}.get(what, what))
    dump.registers["pc"] = int(token["pc"], 16)
    dump.strong = True
    return None


def named_row(dump: Dump, token: Token) -> str | None:
    """A row of names and values: `A0: 0x…  A1: 0x…`, `a0 H8 a1 H8`."""
    for name, value in re.findall(rf"([A-Za-z]\w{{1,2}}):?\s{{1,2}}(?:0x)?({_H8})", token["regs"]):
        dump.registers.setdefault(name.lower(), int(value, 16))
    return None


MONGOOSE = Format(
    name="mongoose-trap",
    tokens=(
        Spec("mongoose-trap", r"(?<!\w)Trap (?P<n>\d{1,2}): pc=(?P<pc>0x[0-9a-fA-F]{1,8})(?:,? (?:va|vaddr|excvaddr)=(?P<va>0x[0-9a-fA-F]{1,8}))?", ("trap ",)),
        Spec("mongoose-trap", r"(?<!\w)Exception (?P<n>\d{1,2}) @ (?P<pc>0x[0-9a-fA-F]{8})(?:, vaddr (?P<va>0x[0-9a-fA-F]{8}))?", ("exception ",)),
        Spec("mongoose-stop", r"(?<!\w)(?P<what>abort\(\)|[SH]W WDT) @ (?P<pc>0x[0-9a-fA-F]{8})", ("abort() @", "wdt @")),
        Spec("mongoose-row", rf"(?<!\w)(?P<regs>A\d{{1,2}}: 0x{_H8}(?: {{1,2}}A\d{{1,2}}: 0x{_H8}){{1,3}})", (": 0x",), inside=True),
        Spec("mongoose-sp", r"\(exc SP: 0x[0-9a-fA-F]{1,8}\)", ("(exc sp: ",), inside=True),
    ),
    table={
        **rules("- trap", "mongoose-trap", mongoose_trap, "trap"),
        **rules("- trap", "mongoose-stop", mongoose_stop, "trap"),
        **rules("trap", "mongoose-row", named_row, "trap"),
        **rules("trap", "mongoose-sp", lambda d, t: setattr(d, "ended", True), "trap"),
    },
    patience=4,
    complete=lambda dump, reason: dump.ended or reason != "eof",
)


def riot_exception(dump: Dump, token: Token) -> str | None:
    """`EXCEPTION!! exccause=N (NAME) @H8 excvaddr=H8`: the address behind the @ is a return address."""
    if dump.kind is not None:
        return SPLIT
    dump.kind = "exception"
    dump.framework = "riot"
    dump.number = token.number("n")
    dump.name = token["name"] or causes.XTENSA.get(dump.number if dump.number is not None else -1)
    dump.registers["excsave1"], dump.registers["excvaddr"] = int(token["at"], 16), int(token["va"], 16)
    dump.strong = True
    return None


def riot_register(dump: Dump, token: Token) -> str | None:
    """`pc      : H8` below `register set`."""
    dump.registers.setdefault(token["reg"], int(token["v"], 16))
    return None


RIOT = Format(
    name="riot",
    tokens=(
        Spec("riot-exception", rf"EXCEPTION!! exccause=(?P<n>\d{{1,2}}) \((?P<name>\w{{0,40}})\) @(?P<at>{_H8}) excvaddr=(?P<va>{_H8})", ("exception!! exccause=",)),
        Spec("riot-reg", rf"(?<!\w)(?P<reg>pc|ps|a\d{{1,2}}|sar|exccause|excvaddr|excsave1|epc[1-7]|lbeg|lend|lcount) {{0,8}}: (?P<v>{_H8})(?!\w)", (": ",), inside=True),
    ),
    table={**rules("- told", "riot-exception", riot_exception, "told"), **rules("told", "riot-reg", riot_register, "told")},
    patience=40,  # the list of processes and of heaps comes before the registers
    complete=lambda dump, reason: reason in ("banner", "new", "foreign") or "pc" in dump.registers,
)


def nlr_jump(dump: Dump, token: Token) -> str | None:
    """`NLR jump failed[, val=…]`: MicroPython's own fatal stop."""
    dump.kind = "panic"
    dump.framework = "micropython"
    dump.say(token.text[token.start : token.end])
    dump.strong = token.leads
    dump.ended = True
    return END


def failed_assertion(dump: Dump, token: Token) -> str | None:
    """`Assertion 'EXPR' failed, at file FILE:LINE`, as MicroPython words it."""
    if not (token.leads and token.ends):
        return DROP
    dump.kind = "assert"
    dump.framework = "micropython"
    dump.location = Location(file=token["file"], line=token.number("line"))
    dump.say(token.text[token.start : token.end])
    dump.strong = dump.ended = True
    return END


MICROPYTHON = Format(
    name="micropython",
    tokens=(
        Spec("nlr-jump", r"NLR jump failed(?:, val=(?:0x)?[0-9a-fA-F]{1,16}|(?=[\s`'\"*]*$))", ("nlr jump failed",)),
        Spec("mpy-assert", r"Assertion '(?P<expr>[^\n]{1,200}?)' failed, at file (?P<file>[^\s:]{1,200}):(?P<line>\d{1,6})", ("' failed, at file ",)),
    ),
    table={**rules("-", "nlr-jump", nlr_jump, END), **rules("-", "mpy-assert", failed_assertion, END)},
)


def decoded_exception(dump: Dump, token: Token) -> str | None:
    """`Exception 29: StoreProhibited: …` as the exception decoders print it; `PC:` and `EXCVADDR:` lines follow."""
    if dump.kind is not None:
        return SPLIT
    if not token.leads:
        return DROP
    dump.kind = "exception"
    dump.chip = "esp8266"
    dump.number = token.number("n")
    dump.name = token["name"]
    dump.cut = True
    return None


def decoded_register(dump: Dump, token: Token) -> str | None:
    """`PC: 0x…` and `EXCVADDR: 0x…` below it."""
    name = token["reg"].lower() if token.groups.get("reg") else "pc"
    dump.registers.setdefault(name, int(token["v"], 16))
    dump.strong = True
    return None


DECODED = Format(
    name="decoder-output",
    tokens=(Spec("decoded-exception", r"(?<!\w)Exception (?P<n>\d{1,2}): (?P<name>[A-Z]\w{3,40}): (?=[A-Z])", ("exception ",)),),
    table={
        **rules("- regs", "decoded-exception", decoded_exception, "regs"),
        **rules("regs", "short-pc reg", decoded_register, "regs"),
    },
    patience=4,
    complete=lambda dump, reason: False,
)

# --- Zephyr on Xtensa chips -------------------------------------------------------------------------------------------


def zephyr_fatal(dump: Dump, token: Token) -> str | None:
    """`** CPU N EXCCAUSE N (name)` behind `** FATAL EXCEPTION`."""
    if dump.kind is not None:
        return SPLIT
    dump.kind = "exception"
    dump.framework = "zephyr"
    dump.core, dump.number = token.number("core"), token.number("n")
    dump.name = causes.XTENSA.get(dump.number if dump.number is not None else -1, token["name"])
    dump.say(f"EXCCAUSE {token['n']} ({token['name']})")
    dump.strong = True
    return None


def named_registers(dump: Dump, token: Token) -> str | None:
    """A row of names and values without marks between them."""
    for name, value in re.findall(r"([A-Z][A-Z0-9]{1,8}):? {1,3}(?:0x)?([0-9a-fA-F]{1,8})(?![^\s])", token["regs"]):
        dump.registers.setdefault(name.lower(), int(value, 16))
    return None


def zephyr_riscv(dump: Dump, token: Token) -> str | None:
    """`mcause: N, Name`: every RISC-V chip under Zephyr prints this, so an address of an ESP32 must follow."""
    if dump.kind is not None:
        return SPLIT
    dump.kind = "exception"
    dump.framework = "zephyr"
    dump.number, dump.name = token.number("n"), token["name"].strip()
    dump.say(dump.name)
    return None


def zephyr_register(dump: Dump, token: Token) -> str | None:
    """`a0: H8`, `mepc: H8`; `mtval` without leading zeros."""
    value = int(token["v"], 16)
    dump.registers.setdefault(token["reg"], value)
    if any(first <= value < end for first, end in _ESP32_RISCV):
        dump.strong = True
    return None


# Memory of the RISC-V ESP32s that other chips hardly use: data and code of C3 and C2, of C6, H2, C5 and C61, and flash.
_ESP32_RISCV = ((0x3FC80000, 0x3FCF0000), (0x40370000, 0x403E0000), (0x40800000, 0x40890000), (0x42000000, 0x43000000))

ZEPHYR = Format(
    name="zephyr",
    tokens=(
        Spec("zephyr-rv", r"(?<!\w)mcause: (?P<n>\d{1,2}), (?P<name>[A-Z][\w /-]{3,40}?)(?=\s*$|\s{2,}|\s<)", ("mcause: ",)),
        Spec("zephyr-rv-reg", r"(?<!\w)(?P<reg>a\d|t\d|s\d{1,2}|ra|sp|mepc|mstatus|mtval): {1,2}(?P<v>(?<!mtval: )[0-9a-f]{8}|(?<=mtval: )[0-9a-f]{1,8})(?![\w:]|\s{1,3}end:)", (": ",), inside=True),
        Spec("zephyr-fatal", r"\*\* CPU (?P<core>\d) EXCCAUSE (?P<n>\d{1,2}) \((?P<name>[^()\n]{3,60})\)", (" exccause ",)),
        Spec("zephyr-regs", r"\*\* {1,3}(?P<regs>(?:(?:PC|PS|A\d{1,2}|LBEG|SAR|THREADPTR) (?:0x[0-9a-f]{1,8}|0)[^\n]{0,80}))", ("** ",), inside=True),
        Spec("zephyr-thread", r"Current thread: 0x[0-9a-fA-F]{4,16} \((?P<task>[^()\n]{1,40})\)", ("current thread: 0x",), inside=True),
        Spec("zephyr-error", r">>> ZEPHYR FATAL ERROR", (">>> zephyr fatal error",), inside=True),
        Spec("zephyr-end", r"(?<!\w)Halting system", ("halting system",), inside=True),
    ),
    table={
        **rules("- told bt", "zephyr-fatal", zephyr_fatal, "told"),
        **rules("- told bt", "zephyr-rv", zephyr_riscv, "told"),
        **rules("told", "zephyr-rv-reg", zephyr_register, "told"),
        **rules("told", "zephyr-regs", named_registers, "told"),
        **rules("told bt", "zephyr-error", None, "told"),
        **rules("told bt", "zephyr-thread", lambda d, t: setattr(d, "task", t["task"]), "told"),
        **rules("told bt", "zephyr-end", lambda d, t: setattr(d, "ended", True), END),
        **rules("told bt", "backtrace", idf_body.begin_backtrace, "bt"),
        **rules("bt", "pair", idf_body.pair, "bt"),
        **rules("bt", "corrupted", None, "told"),
    },
    patience=6,
    complete=lambda dump, reason: dump.ended,
)

# --- NuttX --------------------------------------------------------------------------------------------------------


def nuttx_user(dump: Dump, token: Token) -> str | None:
    """`xtensa_user_panic: User Exception: EXCCAUSE=001c task: NAME`."""
    if dump.kind is not None:
        return SPLIT
    dump.kind = "exception"
    dump.framework = "nuttx"
    dump.number = token.number("n", 16)
    dump.name = causes.XTENSA.get(dump.number if dump.number is not None else -1)
    dump.task = token.groups.get("task") or dump.task
    dump.say(token.text[token.start : token.end])
    dump.strong = True
    return None


def nuttx_riscv(dump: Dump, token: Token) -> str | None:
    """`riscv_exception: EXCEPTION: NAME. MCAUSE: H8[, EPC: H8][, MTVAL: H8]`."""
    if dump.kind is not None:
        return SPLIT
    dump.kind = "exception"
    dump.framework = "nuttx"
    dump.number, dump.name = token.number("n", 16), token["name"]
    for name in ("epc", "mtval"):
        if token.groups.get(name):
            dump.registers[name] = int(token[name], 16)
    dump.say(token["name"])
    dump.strong = True
    return None


def nuttx_registers(dump: Dump, token: Token) -> str | None:
    """`up_dump_register: NAME: H8 …`."""
    for name, value in re.findall(rf"([A-Z]\w{{1,5}}):\s?({_H8})", token["regs"]):
        dump.registers.setdefault(name.lower(), int(value, 16))
    return None


def nuttx_assert(dump: Dump, token: Token) -> str | None:
    """`up_assert: Assertion failed … task: NAME`: before or after the exception that it is about."""
    if dump.kind is None and token.in_source:
        return DROP
    if dump.task is None:
        dump.task = token["task"]
    dump.framework = "nuttx"
    return None


def nuttx_trace(dump: Dump, token: Token) -> str | None:
    """`[BackTrace| 4|0]:  0x… 0x…`: a long one goes on in further lines of the same task."""
    if not dump.backtraces:
        dump.new_backtrace()
    for word in token["pcs"].split():
        dump.frame(int(word, 16), None)
    return None


NUTTX = Format(
    name="nuttx",
    tokens=(
        Spec("nuttx-assert", r"(?:up_assert|dump_assert_info|_assert): Assertion failed[^\n]{0,120}? task(?:\(CPU\d\))?: (?P<task>\S[^\n]{0,30}?)(?=\s*$|\s{2})", ("assertion failed",)),
        Spec("nuttx-trace", r"(?:(?:sched_dumpstack|sched_backtrace|backtrace): )?\[ ?BackTrace ?\| ?\d{1,4}\|\d\]: {1,3}(?P<pcs>0x[0-9a-f]{8}(?: 0x[0-9a-f]{8}){0,40})", ("backtrace",), inside=True),
        Spec("nuttx-user", r"xtensa_user_panic: User Exception: EXCCAUSE=(?P<n>[0-9a-fA-F]{2,8})(?: task: (?P<task>\S{1,40}))?", ("user exception: exccause=",)),
        Spec("nuttx-riscv", rf"riscv_exception: EXCEPTION: (?P<name>[A-Z][\w/ -]{{3,60}})\. {{1,2}}MCAUSE: (?P<n>[0-9a-f]{{1,8}})(?:, EPC: (?P<epc>{_H8}))?(?:, MTVAL: (?P<mtval>{_H8}))?", ("exception: ",)),
        Spec("nuttx-regs", rf"(?:up_dump_register|(?:riscv|xtensa|up)_registerdump):(?P<regs>(?:\s{{1,6}}[A-Z]\w{{1,5}}:\s?{_H8}){{1,9}})", ("up_dump_register:", "_registerdump:"), inside=True),
        Spec("nuttx-text", r"(?:dump_assert_info|up_assert|riscv_exception|dump_stackinfo|stack_dump|dump_stacks): ", ("dump_", "up_assert: ", "riscv_exception: ", "stack_dump: "), inside=True),
    ),
    table={
        **rules("- told", "nuttx-assert", nuttx_assert, "told"),
        **rules("told", "nuttx-trace", nuttx_trace, "told"),
        **rules("- told", "nuttx-user", nuttx_user, "told"),
        **rules("- told", "nuttx-riscv", nuttx_riscv, "told"),
        **rules("told", "nuttx-regs", nuttx_registers, "told"),
        **rules("told", "nuttx-text", None, "told"),
    },
    patience=6,
)

# --- Rust without an operating system: esp-hal and esp-backtrace ------------------------------------------------------


def hal_exception(dump: Dump, token: Token) -> str | None:
    """`Exception 'NAME' mepc=…, mtval=…`, `Exception occurred on ProCpu 'NAME'`, `Exception: NAME, Context {…`."""
    if dump.kind is not None and dump.number is not None:
        return SPLIT
    name = token.groups.get("name") or "Breakpoint"
    dump.kind = "exception"
    dump.framework = "esp-hal"
    dump.number, dump.name = causes.exception_number(name), name
    if token.groups.get("pc"):
        dump.registers["mepc"], dump.registers["mtval"] = int(token["pc"], 16), int(token["va"], 16)
    if token.groups.get("cpu"):
        dump.core = int(token["cpu"] == "App")
    dump.say(name)
    dump.strong = True
    return None


def hal_context(dump: Dump, token: Token) -> str | None:
    """`Context { PC: 32, …` or `TrapFrame { ra: …`: all in one line, hexadecimal with eight digits or, later, decimal."""
    pairs = re.findall(r"(\w{2,14}): ([0-9a-fA-F]{1,10})(?!\w)", token["regs"])
    base = 16 if all(len(value) == 8 for _, value in pairs) else 10
    for name, value in pairs:
        if base == 16 or value.isdigit():
            dump.registers.setdefault(name.lower(), int(value, base) & 0xFFFFFFFF)
    _hal_cause(dump)
    return None


def hal_register(dump: Dump, token: Token) -> str | None:
    """`NAME=0x…`, `RA/x1=0x…`: in rows below `Context` or `TrapFrame`."""
    dump.registers.setdefault(token["reg"].partition("/")[0].lower(), int(token["v"], 16))
    _hal_cause(dump)
    return None


def _hal_cause(dump: Dump) -> None:
    """The number that stands in a register is surer than the one behind a name."""
    cause = dump.registers.get("exccause")
    if cause is not None and cause in causes.XTENSA:
        dump.number = cause


def hal_panic(dump: Dump, token: Token) -> str | None:
    """`====== PANIC ======`, `!! A panic occurred in 'FILE', at line N`."""
    if dump.kind is not None and any(dump.backtraces):
        return SPLIT
    if dump.kind == "panic":
        return None
    dump.kind = dump.kind or "panic"
    dump.framework = "esp-hal"
    dump.strong = True
    return hal_place(dump, token) if token.groups.get("file") else None


def hal_place(dump: Dump, token: Token) -> str | None:
    """`panicked at FILE:LINE:COLUMN`: host programs say so as well, so it begins nothing."""
    if dump.location is None:
        dump.location = Location(file=token["file"], line=token.number("line"))
    return None


def hal_frame(dump: Dump, token: Token) -> str | None:
    """One address of the backtrace."""
    dump.frame(int(token["pc"], 16), None)
    return None


ESP_HAL = Format(
    name="esp-hal",
    tokens=(
        Spec("hal-exception", rf"(?:\[(?P<cpu>Pro|App)Cpu\] )?Exception '(?P<name>[A-Z][\w /-]{{3,40}}?)(?: \(\d{{1,2}}\))?' mepc=(?:0x)?(?P<pc>{_H8}), mtval=(?:0x)?(?P<va>{_H8})", ("' mepc=",)),
        Spec("hal-exception", rf"Breakpoint exception at (?:0x)?(?P<pc>{_H8}), mtval=(?:0x)?(?P<va>{_H8})", ("breakpoint exception at ",)),
        Spec("hal-exception", r"Exception occurr?ed on (?P<cpu>Pro|App)Cpu '(?P<name>[A-Z]\w{3,40})'", ("cpu '",)),
        Spec("hal-exception", r"Exception: (?P<name>[A-Z]\w{3,40}), (?=Context \{)", (", context {",)),
        Spec("hal-context", r"(?:Context|TrapFrame) \{ (?P<regs>\w{2,8}: [0-9a-fA-F]{1,10}[^{}\n]{0,1500})\}?", ("context {", "trapframe {")),
        Spec("hal-reg", rf"(?<![\w/])(?P<reg>PC|PS|A1[0-5]|A\d|SAR|EXCCAUSE|EXCVADDR|LBEG|LEND|LCOUNT|THREADPTR|SCOMPARE1|BR|ACCLO|ACCHI|M[0-3]|F64\w{{1,3}}|FCR|FSR|F1[0-5]|F\d|MSTATUS|MCAUSE|MTVAL|MTVEC|(?:RA|SP|GP|TP|[AST]\d{{1,2}}|S0/FP)/x\d{{1,2}})\s?=\s?0x(?P<v>{_H8})(?![0-9a-fA-F])", ("=0x",), inside=True),
        Spec("hal-panic", r"={12,40} PANIC ={12,40}|!! A panic occurr?ed in '(?P<file>[^'\n]{1,200})', at line (?P<line>\d{1,6})", ("= panic =", "!! a panic occur")),
        Spec("hal-place", r"panicked at (?P<file>[\w./\\-]{1,200}\.rs):(?P<line>\d{1,6}):\d{1,5}", ("panicked at ",), inside=True),
        Spec("hal-frame", r"(?:^|(?<=\] ))\s{0,4}0x(?P<pc>4[0-9a-fA-F]{7})(?=\s*$| \([a-z_]{3,30} )", ("0x4",), inside=True),
    ),
    table={
        **rules("- told", "hal-exception", hal_exception, "told"),
        **rules("told", "hal-context", hal_context, "told"),
        **rules("told", "hal-reg", hal_register, "told"),
        **rules("- told bt", "hal-panic", hal_panic, "told"),
        **rules("told", "hal-place", hal_place, "told"),
        **rules("told", "backtrace", idf_body.begin_backtrace, "bt"),
        **rules("told bt", "hal-frame", hal_frame, "bt"),
        **rules("bt", "pair", idf_body.pair, "bt"),
    },
    patience=12,
)

FORMATS = (LUA, MONGOOSE, RIOT, MICROPYTHON, DECODED, ZEPHYR, NUTTX, ESP_HAL)
