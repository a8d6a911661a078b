"""Reports of an earlier reset or crash, printed by the next start: Arduino, ESPHome, Tasmota, ESPurna, NodeMCU, esp-link.

They describe the past, so they become `reset` events, never crashes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from espmon.decode import causes, resets
from espmon.decode.dump import Dump
from espmon.decode.formats import esp8266
from espmon.decode.formats.shape import DROP, END, SPLIT, Format, rules
from espmon.decode.scan import Spec, Token
from espmon.events import Address, BacktraceEntry, ExceptionCause, Reset, ResetCause

if TYPE_CHECKING:
    from espmon.decode.interpreter import Interpreter

_H8 = "[0-9a-fA-F]{8}"

# --- ESP.getResetInfo(): one line ---------------------------------------------------------------------------------

RESET_INFO_TOKENS = (
    Spec(
        "reset-info",
        r"Fatal exception: ?(?P<n>\d{1,3}) flag: ?(?P<flag>\d{1,3})(?: \((?P<text>[^)\n]{1,60})\))?"
        rf"(?P<regs>(?:,? {{0,2}}(?:epc[1-3]|excvaddr|depc): ?0x{_H8}){{0,5}})", ("fatal exception:",),
    ),
    Spec("reset-reason", r"(?<!\w)(?i:reset reason|restart reason|last reset(?: reason)?|boot reason|reset cause)\s?[:=]\s{0,3}(?!\d{1,3}\s+Exception cause)(?P<text>[A-Z0-9][^\n\"{}\[]{2,70}?)(?=\s*$|\s{2}|[\"\\])", ("boot reason", "last reset", "reset cause", "reset reason", "restart reason")),
)


# The end of a line within the registers of a report.
_CUT_REGISTERS = re.compile(r"\s{0,3}(?:\([^()]{0,30}|,?\s{0,2}[a-z]{1,8}[1-3]?:? ?(?:0x?[0-9a-fA-F]{0,8})?)?\s*")


def _exception(number: int | None) -> ExceptionCause | None:
    return None if number is None else ExceptionCause(number=number, name=causes.XTENSA.get(number))


def reset_info(facts: Interpreter, token: Token) -> None:
    """`Fatal exception:N flag:M (text) epc1:0x… …`, which a terminal may have wrapped."""
    if token["regs"].count(":") < 5 and _CUT_REGISTERS.fullmatch(token.rest):
        facts.hold(token, told_reset)
    else:
        told_reset(facts, token)


def told_reset(facts: Interpreter, token: Token) -> None:
    """N counts only when M says that there was a crash."""
    if re.match(r"\s{0,4}(?:ctx:|>>>stack>>>)", token.rest):
        # A program that keeps the report keeps the stack with it, and prints or sends both in one.
        token.kind = "reset-stack"
        facts.dump_token(token)
        return
    number, flag = token.number("n"), token.number("flag")
    regs = {k: Address(int(v, 16)) for k, v in re.findall(rf"(\w+): ?0x({_H8})", token["regs"])}
    crashed = flag in (1, 2, 3, 252, 253, 254) or flag is None
    facts.emit(
        Reset,
        token,
        source="tasmota" if "RestartReason" in token.text[max(0, token.start - 40) : token.start] else "arduino",
        reset=resets.rst_info(flag if flag is not None else 2, token.groups.get("text")),
        exception=_exception(number) if crashed else None,
        registers=regs,
    )


def stack_of_report(dump: Dump, token: Token) -> str | None:
    """The same line, with a stack behind it."""
    dump.report = "arduino"
    dump.chip = "esp8266"
    dump.strong = True
    flag = token.number("flag")
    dump.reset = resets.rst_info(flag if flag is not None else 2, token.groups.get("text"))
    if dump.reset.abnormal:
        dump.number = token.number("n")
        dump.name = causes.XTENSA.get(dump.number if dump.number is not None else -1)
    dump.registers.update({k: int(v, 16) for k, v in re.findall(rf"(\w+): ?0x({_H8})", token["regs"])})
    return None


def reset_reason(facts: Interpreter, token: Token) -> None:
    """`Reset reason: Software/System restart` and the like."""
    if token.in_source or token.text[: token.start].strip() == "//":
        return
    text = token["text"].strip(" .'`*")
    numbered = re.fullmatch(r"(\d{1,3})\s?[=:(]\s?(.+?)\)?", text)
    source = "esp-link" if numbered else "arduino"
    if numbered and re.search(r"esp_print_reset|esp_exc\.c", facts.full[:1000]):
        source = "mongoose-os"
    line = facts.full[:1000]
    if "Tasmota" in line or "RSL" in line:
        source = "tasmota"
    elif "[debug" in line or re.search(r"\]\[\w", line):
        source = "esphome"
    is_8266 = facts.chip in (None, "esp8266")
    reset = resets.reason_text(numbered[2] if numbered else text, esp8266=is_8266)
    if numbered and is_8266 and (reset.code == int(numbered[1]) or (reset.code is None and not reset.abnormal)):
        reset = resets.rst_info(int(numbered[1]), numbered[2])
    elif numbered and source == "esp-link":
        source = "idf"  # ESP-IDF counts its reasons differently
    if reset.meaning is None and not re.search(r"(?i)reset|restart|watchdog|wdt|power|sleep|exception|panic|brown|software|external|deep", text):
        return
    facts.emit(Reset, token, source=source, reset=reset)


def exc_info(facts: Interpreter, token: Token) -> None:
    """`exccause=N epc1=0x… …` of esp-link, `Exc info: cause=N epc1=0x… … vaddr=0x…` of Mongoose OS: at every start, or after a crash."""
    registers = {("excvaddr" if k == "vaddr" else k): Address(int(v, 16)) for k, v in re.findall(r"(\w+)=0x([0-9a-fA-F]{1,8})", token["regs"])}
    if not any(registers.values()):
        return
    before = re.search(r"[Rr]eset cause: (\d)", facts.previous)
    code = int(before[1]) if before is not None else None
    if code not in (None, 1, 2, 3):
        return
    facts.emit(
        Reset,
        token,
        source="mongoose-os" if token["mos"] else "esp-link",
        reset=resets.rst_info(code) if code is not None else ResetCause(name="exception", meaning="a fatal exception", abnormal=True),
        exception=_exception(token.number("n")),
        registers=registers,
    )


_ROW = {"row": esp8266.row, "ctx": esp8266.context, "sp": esp8266.stack_pointer}
RESET_INFO = Format(
    name="reset-info",
    tokens=(
        *RESET_INFO_TOKENS,
        Spec("exc-info", r"(?:(?P<mos>Exc info: )cause|(?<!\w)exccause)=(?P<n>\d{1,2})(?P<regs>,? epc1=0x[0-9a-fA-F]{1,8}(?:,? (?:epc[23]|(?:exc)?vaddr|depc)=0x[0-9a-fA-F]{1,8}){1,4})", ("cause=",)),
    ),
    facts={"reset-info": reset_info, "reset-reason": reset_reason, "exc-info": exc_info},
    table={
        **rules("-", "reset-stack", stack_of_report, "stack"),
        **{k: r for kind, action in _ROW.items() for k, r in rules("stack", kind, action, "stack").items()},
        **rules("stack", "stack-begin", None, "stack"),
        **rules("stack", "stack-end", esp8266.stack_end, END),
    },
    patience=3,
    joins=frozenset({"row"}),
)

# --- NodeMCU: node.bootreason() in decimal ------------------------------------------------------------------------


def boot_reason_call(dump: Dump, token: Token) -> str | None:
    """`node.bootreason()` was typed: its numbers follow."""
    dump.report = "nodemcu"
    return None


def boot_reason(dump: Dump, token: Token) -> str | None:
    """`raw reason exccause epc1 epc2 epc3 excvaddr depc`."""
    values = [int(v) for v in re.split(r"[\s,]+", token["values"])]
    if len(values) < 2 or values[1] > 6 or values[0] > 7:
        return DROP
    dump.report = "nodemcu"
    dump.strong = True
    dump.reset = resets.rst_info(values[1])
    if len(values) >= 8:
        if values[1] in (1, 2, 3):
            dump.number, dump.name = values[2], causes.XTENSA.get(values[2])
        for name, value in zip(("epc1", "epc2", "epc3", "excvaddr", "depc"), values[3:8], strict=True):
            dump.registers[name] = value & 0xFFFFFFFF
    return END


NODEMCU = Format(
    name="nodemcu-bootreason",
    tokens=(
        Spec("bootreason", r"node\.bootreason\s?\(\)\)?[\s>]{0,6}(?P<values>\d{1,10}(?:[\s,]{1,12}\d{1,10}){1,7})(?!\d)", ("node.bootreason",)),
        Spec("bootreason-call", r"node\.bootreason\s?\(\)", ("node.bootreason",)),
        Spec("bootreason", r"^[\s>`]{0,4}(?P<values>\d{1,10}(?:[\s,]{1,12}\d{1,10}){1,7})[\s`]*$", ()),
    ),
    table={
        **rules("-", "bootreason-call", boot_reason_call, "called"),
        **rules("called", "bootreason", boot_reason, END),
        **rules("-", "bootreason", lambda d, t: boot_reason(d, t) if "bootreason" in t.text else DROP, END),
    },
    patience=3,
)

# --- ESPurna: the crash kept in EEPROM ----------------------------------------------------------------------------


def espurna_begin(dump: Dump, token: Token) -> str | None:
    """`Latest crash was at N ms after boot`; EspSaveCrash says `Crash # N at N ms`, `Crashed at N ms`."""
    if dump.report is not None:
        return SPLIT
    dump.report = "arduino" if re.match(r"Crash(?:ed| ?#)", token.text[token.start :]) else "espurna"
    dump.chip = "esp8266"
    dump.strong = token.leads
    return None


def espurna_reason(dump: Dump, token: Token) -> str | None:
    """`Reason of restart: N`."""
    dump.reset = resets.rst_info(int(token["n"]))
    return None


def espurna_cause(dump: Dump, token: Token) -> str | None:
    """`Exception cause: N`."""
    dump.number = int(token["n"])
    dump.name = causes.XTENSA.get(dump.number)
    return None


def espurna_sp(dump: Dump, token: Token) -> str | None:
    """`sp=0x… end=0x… saved=0x…`."""
    block = dump.new_stack()
    block.sp, block.end = int(token["sp"], 16), int(token["end"], 16)
    return None


def _epc(dump: Dump, token: Token) -> str | None:
    if token["reg"].lower() in dump.registers:
        return SPLIT
    dump.strong = True
    dump.registers[token["reg"].lower()] = int(token["v"], 16)
    return None


ESPURNA = Format(
    name="espurna-crash",
    tokens=(
        Spec("espurna-crash", r"(?i:latest crash was at) \d{1,12} ms after boot|(?<!\w)Crash(?:ed| ?# ?\d{1,4})? at \d{1,12} ms(?!\w)", ("latest crash was at ", "crash at ", "crashed at ", "crash #", "crash#")),
        Spec("espurna-reason", r"(?<!\w)(?:Reason of restart|Restart reason): (?P<n>\d{1,3})(?!\d)", ("reason of restart: ", "restart reason: ")),
        Spec("espurna-cause", r"(?<!\w)Exception cause: (?P<n>\d{1,3})", ("exception cause: ",)),
        Spec("espurna-sp", rf"sp=0x(?P<sp>{_H8}) end=0x(?P<end>{_H8})(?: saved=0x[0-9a-fA-F]{{1,8}})?", (" end=0x",)),
    ),
    table={
        **rules("- told", "espurna-crash", espurna_begin, "told"),
        **rules("told", "espurna-reason", espurna_reason, "told"),
        **rules("told", "espurna-cause", espurna_cause, "told"),
        **rules("told", "espurna-sp", espurna_sp, "told"),
        **rules("told", "epc", _epc, "told"),
        **rules("told", "stack-begin", None, "told"),
        **rules("told", "row", esp8266.row, "told"),
        **rules("told", "stack-end", esp8266.stack_end, END),
    },
    patience=8,
    joins=frozenset({"epc", "row"}),
)

# --- Espruino: "Restart info:" at every start -----------------------------------------------------------------------


def espruino_begin(dump: Dump, token: Token) -> str | None:
    """`Restart info:`; its fields follow, one per line."""
    dump.report = "espruino"
    dump.chip = "esp8266"
    return None


def espruino_field(dump: Dump, token: Token) -> str | None:
    """`reason:   2=exception`, `exccause: 28`, `epc1:     4020a5d4`."""
    name, value = token["name"], token["v"]
    if name == "reason":
        if not value.isdigit():
            return DROP
        dump.reset = resets.rst_info(int(value), token.groups.get("text"))
        dump.strong = True
    elif name == "exccause":
        if dump.reset is not None and dump.reset.abnormal and value.isdigit():
            dump.number = int(value)
            dump.name = causes.XTENSA.get(dump.number)
    else:
        dump.registers[name] = int(value, 16)
    return END if name == "depc" else None


ESPRUINO = Format(
    name="espruino-restart",
    tokens=(
        Spec("espruino-restart", r"(?<!\w)Restart info:(?=\s*$|\s+reason:)", ("restart info:",)),
        Spec("espruino-field", r"(?<!\w)(?P<name>reason|exccause|epc[1-3]|excvaddr|depc):\s{1,6}(?:0x)?(?P<v>[0-9a-fA-F]{1,8})(?:=(?P<text>[a-zA-Z][\w -]{2,30}?)(?=\s*$|\s+exccause))?(?!\w)", ("reason:", "exccause:", "epc1:", "epc2:", "epc3:", "excvaddr:", "depc:"), inside=True),
    ),
    table={**rules("-", "espruino-restart", espruino_begin, "told"), **rules("told", "espruino-field", espruino_field, "told")},
    patience=2,
)

# --- ESPHome: *** CRASH DETECTED ON PREVIOUS BOOT *** ------------------------------------------------------------


def esphome_begin(dump: Dump, token: Token) -> str | None:
    """The headline; repeated ones begin another report."""
    if dump.report is not None and (dump.message or dump.registers):
        return SPLIT
    if token.in_source:
        return DROP
    dump.report = "esphome"
    dump.strong = token.leads or token.text[: token.start].rstrip()[-1:] in ("]", ":")
    return None


def esphome_reason(dump: Dump, token: Token) -> str | None:
    """`Reason: Soft WDT - Level1Int (exccause=4)`, `Reason: Fault - StoreProhibited`, `Reason: Exception - NAME (exccause=N)`."""
    text = token["text"].strip()
    dump.say(text)
    m = re.search(r"\(exccause=(\d+)\)", text)
    head, _, tail = text.partition(" - ")
    name = re.sub(r"\s*\(.*", "", tail).strip()
    if m is not None:
        dump.number, dump.name = int(m[1]), name or causes.XTENSA.get(int(m[1]))
        dump.chip = "esp8266"
    elif name:
        dump.number, dump.name = causes.exception_number(name), name
    code = {"hardware wdt": 1, "soft wdt": 3, "exception": 2}.get(head.strip().lower()) if m is not None or head.strip().endswith("WDT") else None
    if code is not None:
        dump.reset = resets.rst_info(code, head.strip())
    else:
        dump.reset = ResetCause(name=head.strip(), meaning="the previous run crashed", abnormal=True)
    return None


def esphome_pc(dump: Dump, token: Token) -> str | None:
    """`PC: 0xH8`: where it crashed."""
    if "pc" in dump.registers:
        return SPLIT
    dump.registers["pc"] = int(token["v"], 16)
    dump.strong = True
    return None


def esphome_register(dump: Dump, token: Token) -> str | None:
    """`EXCVADDR: 0xH8`."""
    dump.registers.setdefault(token["reg"].lower(), int(token["v"], 16))
    return None


def esphome_bt(dump: Dump, token: Token) -> str | None:
    """`BTn: 0xH8`: found on the stack, newest first."""
    dump.frame(int(token["v"], 16), None)
    return None


def esphome_list(dump: Dump, token: Token) -> str | None:
    """`Backtrace: 0xH8 0xH8 …`, as it is shown in short."""
    for value in re.findall(r"0x([0-9a-fA-F]{8})", token["list"]):
        dump.frame(int(value, 16), None)
    return None


def esphome_core(dump: Dump, token: Token) -> str | None:
    """`Crashed core: N`."""
    dump.core = int(token["n"])
    return None


ESPHOME = Format(
    name="esphome-crash-report",
    tokens=(
        Spec("esphome-crash", r"\*{0,3}\s{0,2}CRASH DETECTED ON PREVIOUS BOOT\s{0,2}\*{0,3}", ("crash detected on previous boot",)),
        Spec("esphome-reason", r"(?<!Reset )(?<!Restart )(?<!\w)Reason:\s{1,3}(?P<text>[A-Z][^\n]{2,80}?)(?=\s*$|\s{2,}PC:|\s+Crashed core:|\s+\[)", ("reason:",)),
        Spec("esphome-core", r"Crashed core:\s{1,3}(?P<n>\d)", ("crashed core:",)),
        Spec("esphome-bt", rf"(?<!\w)BT\d{{1,2}}:\s{{1,3}}0x(?P<v>{_H8})", ("bt",)),
        Spec("esphome-reg", rf"(?<!\w)(?P<reg>EXCVADDR|LR|SP):\s{{1,3}}0x(?P<v>{_H8})(?!\s{{1,12}}[A-Z])", ("excvaddr:", "lr:", "sp:"), inside=True),
        Spec("esphome-list", r"(?<!\w)Backtrace:(?P<list>(?: {1,2}0x4[0-9a-fA-F]{7}){1,32})(?![:\w])", ("backtrace:",), inside=True),
        Spec("short-pc", rf"(?<!\w)PC:\s{{1,3}}0x(?P<v>{_H8})(?!\s{{1,12}}PS)", ("pc:",)),
    ),
    table={
        **rules("- told", "esphome-crash", esphome_begin, "told"),
        **rules("told", "esphome-reason", esphome_reason, "told"),
        **rules("told", "esphome-core", esphome_core, "told"),
        **rules("told", "short-pc", esphome_pc, "told"),
        **rules("told", "esphome-bt", esphome_bt, "told"),
        **rules("told", "esphome-reg", esphome_register, "told"),
        **rules("told", "esphome-list", esphome_list, "told"),
    },
    patience=20,
)

# --- Tasmota: RestartReason and StatusSTK in its JSON --------------------------------------------------------------


def tasmota_text(facts: Interpreter, token: Token) -> None:
    """`"RestartReason":"Software reset CPU"`; a Zigbee coordinator's is not this chip's."""
    if '"ZbState"' in token.text[max(0, token.start - 200) : token.start]:
        return
    chip = facts.chip
    is_8266 = chip == "esp8266" or (chip is None and re.search(r"/System|Exception|Hardware Watchdog", token["text"]) is not None)
    facts.emit(Reset, token, source="tasmota", reset=resets.reason_text(token["text"], esp8266=is_8266))


def tasmota_crash(facts: Interpreter, token: Token) -> None:
    """`{"Exception":N,"Reason":"…","EPC":[…] or "…","EXCVADDR":"…","DEPC":"…","CallChain":[…]}`; hex without 0x."""
    if token.end == len(token.text.rstrip()) and not token.text.rstrip().endswith("}"):
        facts.hold(token, tasmota_saved)  # a terminal may have wrapped it
    else:
        tasmota_saved(facts, token)


def tasmota_saved(facts: Interpreter, token: Token) -> None:
    """What there is of it."""
    body = token["body"]
    number = token.number("n")
    registers: dict[str, Address] = {}
    m = re.search(r'"EPC"\s?:\s?\[([^\]]*)\]', body)
    if m is not None:
        for i, value in enumerate(re.findall(_H8, m[1])[:3], 1):
            registers[f"epc{i}"] = Address(int(value, 16))
    else:
        m = re.search(rf'"EPC"\s?:\s?"({_H8})"', body)
        if m is not None:
            registers["epc"] = Address(int(m[1], 16))
    for key in ("EXCVADDR", "DEPC"):
        m = re.search(rf'"{key}"\s?:\s?"({_H8})"', body)
        if m is not None:
            registers[key.lower()] = Address(int(m[1], 16))
    m = re.search(r'"CallChain"\s?:\s?\[([^\]]*)', body)
    chain = tuple(BacktraceEntry(pc=Address(int(v, 16))) for v in re.findall(_H8, m[1])) if m is not None else ()
    m = re.search(r'"Reason"\s?:\s?"([^"]*)"', body)
    reason = m[1] if m is not None else None
    facts.emit(
        Reset,
        token,
        source="tasmota",
        reset=ResetCause(
            code=2 if "epc1" in registers else None, name=reason or "Exception", meaning="a fatal exception", abnormal=True
        ),
        exception=ExceptionCause(number=number, name=causes.XTENSA.get(number) if number is not None else reason),
        registers=registers,
        backtraces=(chain,) if chain else (),
        message=reason,
    )


def tasmota_chain(facts: Interpreter, token: Token) -> None:
    """`"StatusSTK":{"call_chain":["H8",…]}` of the first versions: code words of the stack of an earlier crash."""
    chain = tuple(BacktraceEntry(pc=Address(int(v, 16))) for v in re.findall(_H8, token["chain"]))
    if chain:
        why = ResetCause(name="Exception", meaning="the previous run crashed", abnormal=True)
        facts.emit(Reset, token, source="tasmota", reset=why, backtraces=(chain,))


TASMOTA = Format(
    name="tasmota-restart",
    tokens=(
        Spec("tasmota-chain", r'"StatusSTK"\s?:\s?\{\s?"call_chain"\s?:\s?\[(?P<chain>[^\]\n{}]{0,800})', ('"call_chain"',)),
        Spec("tasmota-text", r'\\?"RestartReason\\?"\s?:\s?\\?"(?!Fatal exception: ?\d)(?P<text>[^"\\\n]{2,80})', ('"restartreason',)),
        Spec("tasmota-crash", r'"(?:RestartReason|StatusSTK)"\s?:\s?\{\s?"Exception"\s?:\s?(?P<n>\d{1,3})\s?,(?P<body>[^{}\n]{0,2000})\}?', ('"exception"',)),
    ),
    facts={"tasmota-text": tasmota_text, "tasmota-crash": tasmota_crash, "tasmota-chain": tasmota_chain},
)

def pretty_begin(dump: Dump, token: Token) -> str | None:
    """`"StatusSTK": {` at the end of a line: the same, one field per line."""
    dump.report = "tasmota"
    return None


def pretty_field(dump: Dump, token: Token) -> str | None:
    """`"NAME": VALUE`, a list's values may follow on lines of their own."""
    name, value = token["name"], token["value"]
    dump.marks -= {"EPC", "CallChain"}
    if name == "Exception" and value.isdigit():
        dump.number = int(value)
        dump.name = causes.XTENSA.get(dump.number)
        dump.strong = True
    elif name == "Reason":
        dump.say(value.strip('"'))
        dump.reset = ResetCause(code=None, name=value.strip('"'), meaning="a fatal exception", abnormal=True)
    elif name in ("EXCVADDR", "DEPC") and re.fullmatch(f'"{_H8}"', value):
        dump.registers[name.lower()] = int(value[1:9], 16)
    elif name in ("EPC", "CallChain"):
        if re.fullmatch(f'"{_H8}"', value):
            dump.registers["epc"] = int(value[1:9], 16)
        else:
            dump.marks.add(name)
    return None


def pretty_value(dump: Dump, token: Token) -> str | None:
    """One value of a list."""
    value = int(token["v"], 16)
    if "CallChain" in dump.marks:
        dump.frame(value, None)
    elif "EPC" in dump.marks:
        for name in ("epc1", "epc2", "epc3"):
            if name not in dump.registers:
                dump.registers[name] = value
                break
    return None


PRETTY = Format(
    name="tasmota-lines",
    tokens=(
        Spec("stk-begin", r'"(?:RestartReason|StatusSTK)"\s?:\s?\{\s{0,3}$', ('"restartreason"', '"statusstk"')),
        Spec("stk-field", r'"(?P<name>Exception|Reason|EPC|EXCVADDR|DEPC|CallChain)"\s?:\s{0,3}(?P<value>\d{1,3}|"[^"\n]{0,80}"|\[)', ('"exception"', '"reason"', '"epc"', '"excvaddr"', '"depc"', '"callchain"'), inside=True),
        Spec("stk-value", rf'"(?P<v>{_H8})"', ('"4', '"0', '"3'), inside=True),
        Spec("stk-end", r"^\s{0,12}\}", ("}",), inside=True),
    ),
    table={
        **rules("-", "stk-begin", pretty_begin, "told"),
        **rules("told", "stk-field", pretty_field, "told"),
        **rules("told", "stk-value", pretty_value, "told"),
        **rules("told", "stk-end", None, END),
    },
    patience=2,
)

# --- CircuitPython: why it started in safe mode ----------------------------------------------------------------------


def safe_mode(dump: Dump, token: Token) -> str | None:
    """`You are in safe mode because:`; the reason stands in the next lines."""
    dump.report = "circuitpython"
    return None


def safe_reason(dump: Dump, token: Token) -> str | None:
    """`Hard fault: memory access or instruction error.` and the like."""
    dump.say(token["text"])
    text = token["text"]
    abnormal = re.search(r"(?i)fault|crash|watchdog|brown|power|memory|NLR|corrupt|overflow|interrupt|abort|exception", text) is not None
    dump.reset = ResetCause(name=text, meaning="CircuitPython started in safe mode", abnormal=abnormal)
    dump.strong = True
    return None


CIRCUITPYTHON = Format(
    name="circuitpython-safe-mode",
    tokens=(
        Spec("safe-mode", r"You are in safe mode because:", ("you are in safe mode because:",)),
        Spec(
            "safe-reason", r"^\s{0,4}(?P<text>(?:Hard fault: |Internal watchdog timer|Watchdog timer expired|Fault detected by|Unable to allocate (?:the heap|to the heap)|Heap (?:allocation when|was corrupted)"
            r"|Interrupt error|(?:The )?[Pp]ower dipped|Crash into the HardFault|NLR jump failed\. |Invalid memory access|The microcontroller's power|You pressed )[^\n]{0,120})",
            ("hard fault: ", "watchdog timer", "fault detected by", "unable to allocate", "heap ", "interrupt error", "power", "crash into", "nlr jump failed. ", "invalid memory access", "you pressed "), inside=True,
        ),
        Spec("safe-text", r"CircuitPython core code crashed hard\. Whoops!", ("circuitpython core code crashed hard.",), inside=True),
    ),
    table={
        **rules("-", "safe-mode", safe_mode, "told"),
        **rules("told", "safe-text", None, "told"),
        **rules("told", "safe-reason", safe_reason, END),
    },
    patience=2,
)

FORMATS = (CIRCUITPYTHON, RESET_INFO, NODEMCU, ESPURNA, ESPRUINO, ESPHOME, TASMOTA, PRETTY)
