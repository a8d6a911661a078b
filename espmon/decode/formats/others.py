"""Smaller systems: NodeMCU Lua, Mongoose OS, MicroPython, and what other decoders made of an ESP8266 exception."""

from __future__ import annotations

import re

from espmon.decode import causes
from espmon.decode.dump import Dump
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
    dump.strong = token.leads
    dump.ended = True
    m = re.match(r"([^\s:]{1,120}):(\d{1,6}):", text)
    if m is not None:
        dump.location = Location(file=m[1], line=int(m[2]))
    return END


LUA = Format(
    name="nodemcu-lua",
    tokens=(Spec("lua-panic", r"PANIC: unprotected error in call to Lua API\s?\((?P<text>(?:[^()\n]|\([^()\n]{0,200}\)){1,400})\)?", ("panic: unprotected error in call to lua api",)),),
    table={**rules("-", "lua-panic", lua_panic, END)},
)


def mongoose_trap(dump: Dump, token: Token) -> str | None:
    """`Trap N: pc=0x…[ va=0x…]`."""
    dump.kind = "exception"
    dump.framework = "mongoose-os"
    dump.number = token.number("n")
    dump.name = causes.XTENSA.get(dump.number or 0)
    dump.registers["pc"] = int(token["pc"], 16)
    if token.groups.get("va"):
        dump.registers["excvaddr"] = int(token["va"], 16)
    dump.strong = True
    return None


MONGOOSE = Format(
    name="mongoose-trap",
    tokens=(Spec("mongoose-trap", r"(?<!\w)Trap (?P<n>\d{1,2}): pc=(?P<pc>0x[0-9a-fA-F]{1,8})(?:,? (?:va|vaddr|excvaddr)=(?P<va>0x[0-9a-fA-F]{1,8}))?", ("trap ",)),),
    table={**rules("- trap", "mongoose-trap", lambda d, t: SPLIT if d.kind else mongoose_trap(d, t), "trap")},
    patience=4,
    complete=lambda dump, reason: reason != "eof",
)


def nlr_jump(dump: Dump, token: Token) -> str | None:
    """`NLR jump failed, val=…`: MicroPython's own fatal stop."""
    dump.kind = "panic"
    dump.framework = "micropython"
    dump.say(token.text[token.start : token.end])
    dump.strong = token.leads
    dump.ended = True
    return END


MICROPYTHON = Format(
    name="micropython",
    tokens=(Spec("nlr-jump", r"NLR jump failed, val=(?:0x)?[0-9a-fA-F]{1,16}", ("nlr jump failed, val=",)),),
    table={**rules("-", "nlr-jump", nlr_jump, END)},
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

FORMATS = (LUA, MONGOOSE, MICROPYTHON, DECODED)
