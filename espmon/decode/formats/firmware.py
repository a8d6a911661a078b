"""What firmware says of itself at a normal start: ESP-IDF application lines, AT firmware and its update steps, MicroPython."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from espmon.decode.formats.shape import Format, rules
from espmon.decode.scan import Spec, Token
from espmon.events import Firmware, Progress

if TYPE_CHECKING:
    from espmon.decode.interpreter import Interpreter

TOKENS = (
    Spec("app-sha", r"(?:app_init|cpu_start|app_start|esp_app_desc)\s?: ELF file SHA256:\s{0,4}(?P<sha>[0-9a-fA-F]{7,64})", (": elf file sha256:",)),
    Spec("at-version", r"(?<!\w)AT version\s?:\s?(?P<at>\d[\w.]{2,20})", ("at version",)),
    Spec("at-sdk", r"(?<!\w)SDK version\s?:\s?(?P<sdk>v?\d[\w.\-]{2,40})", ("sdk version",)),
    Spec("at-old", r"^\s{0,2}(?P<sdk>00\d{2})(?P<at>\d{6})\s*$", ("00",)),
    Spec("at-update", r"\+CIPUPDATE:(?P<step>[1-4])(?!\d)", ("+cipupdate:",)),
    Spec("micropython", r"MicroPython v(?P<v>\d+\.\d+[\w.\-+]{0,40})(?: on \S{4,20})?", ("micropython v",)),
    Spec("idf-boot", r"boot: ESP-IDF (?P<v>\S{2,50}) 2nd stage bootloader", (" 2nd stage bootloader",)),
)
_AT_STEPS = {1: "server found", 2: "connected to the server", 3: "got the new version", 4: "update started"}


def app_sha(facts: Interpreter, token: Token) -> None:
    """`app_init: ELF file SHA256:  …`: names the build that runs now."""
    facts.emit(Firmware, token, framework="esp-idf", elf_sha256=token["sha"])


def at_version(facts: Interpreter, token: Token) -> None:
    """`AT version:1.2.0.0(…)`, `SDK version:1.5.4`, or the old `0018000902`: SDK 0018, AT 0902."""
    if token.kind == "at-old":
        facts.emit(Firmware, token, framework="at", version=token["at"][2:], sdk=token["sdk"])
    elif token.kind == "at-version":
        facts.emit(Firmware, token, framework="at", version=token["at"])
    else:
        facts.emit(Firmware, token, sdk=token["sdk"])


def at_update(facts: Interpreter, token: Token) -> None:
    """`+CIPUPDATE:N`, the four steps of an AT firmware's update over the air."""
    step = int(token["step"])
    facts.emit(Progress, token, operation=f"AT firmware update: {_AT_STEPS[step]}", done=step, total=4)


def micropython(facts: Interpreter, token: Token) -> None:
    """`MicroPython v1.15 on 2021-04-18; …`."""
    if token.leads and not re.search(r"(?i)\b(?:the|with|using|of)\b", token.text[: token.start]):
        facts.emit(Firmware, token, framework="micropython", version=token["v"].rstrip(";,"))


def idf_boot(facts: Interpreter, token: Token) -> None:
    """`boot: ESP-IDF v4.4 2nd stage bootloader`."""
    facts.emit(Firmware, token, framework="esp-idf", name="2nd stage bootloader", version=token["v"])


# The old version number is only digits: it counts behind the command that asks for it.
AT_QUERY = Format(
    name="at-version", tokens=(Spec("at-query", r"AT\+GMR", ("at+gmr",)),), table=rules("- asked", "at-query", None, "asked"), patience=3
)
FORMAT = Format(
    name="firmware",
    tokens=TOKENS,
    facts={
        "app-sha": app_sha, "at-version": at_version, "at-sdk": at_version, "at-old": at_version, "at-update": at_update,
        "micropython": micropython, "idf-boot": idf_boot,
    },
)  # fmt: skip
