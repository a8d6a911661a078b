"""Failure texts of flashing tools and terminal programs: esptool, espcomm, pyserial, espflash, Thonny, ampy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from espmon.decode import causes
from espmon.decode.formats.shape import Format
from espmon.decode.scan import Spec, Token
from espmon.events import HostError

if TYPE_CHECKING:
    from espmon.decode.interpreter import Interpreter

_TAIL = r"(?P<text>[^\n]{1,300})"
TOKENS = (
    Spec("host", r"(?i:a fatal (?:esptool(?:\.py)? )?error occurred): (?P<text>[^\n]{1,300})", ("error occurred",)),
    Spec("host", r"(?:esptool\.)?FatalError: (?P<text>[^\n]{1,300})", ("fatalerror: ",)),
    Spec("host", r"(?<!\w)(?P<text>espcomm_\w{2,20} failed)", ("espcomm_",)),
    Spec("host", r"(?<![\w])(?P<text>Failed to open (?:COM\d{1,3}|/dev/(?:tty|cu)\S{1,60}))", ("failed to open ",)),
    Spec("host", r"(?P<text>Failed to initialize\. Try resetting your device[^\n]{0,120}|Failed to execute '\w{3,30}' on 'SerialPort'[^\n]{0,120})", ("failed to initialize. try", "' on 'serialport'")),
    Spec("host", r"(?P<text>\*\*\* \[upload\] Error \d{1,3}|Failed uploading: [^\n]{1,120})", ("*** [upload] error ", "failed uploading: ")),
    Spec("host", r"(?i:a serial exception error occurred): (?P<text>[^\n]{1,300})", ("a serial exception error occurred: ",)),
    Spec("host", r"(?P<text>(?:[Cc]ould not|[Cc]annot|[Uu]nable to|[Ff]ailed to|[Ee]rror) open(?:ing)? (?:serial |com )?port[ :][^\n]{1,300})", (" open",)),
    Spec("host", r"serial(?:util)?\.\s{0,2}(?:Serial)?(?:serialutil\.)?(?P<text>Serial(?:Timeout)?Exception: [^\n]{1,300})", ("exception: ",)),
    Spec("host", r"(?<!\w)(?P<text>SerialTimeoutException: [^\n]{1,300})", ("serialtimeoutexception: ",)),
    Spec("host", r"(?<![\w.])(?P<text>SerialException: [^\n]{1,300})", ("serialexception: ",)),
    Spec("host", r"(?<!\w)Exception: (?P<text>Failed to connect)\W{0,3}$", ("exception: failed to connect",)),
    Spec("host", r"(?P<text>Failed to connect to (?:ESP|Esp)[^\n]{1,200})", ("failed to connect to e",)),
    Spec("host", r"(?P<text>device reports readiness to read but returned no data[^\n]{0,120})", ("device reports readiness to read but returned no data",)),
    Spec("host", r"(?P<text>(?:ClearCommError|GetOverlappedResult|WriteFile|ReadFile) failed \([^\n]{1,200})", (" failed (",)),
    Spec("host", r"(?P<text>Failed to execute script '?esptool'?)", ("failed to execute script ",)),
    Spec("host", r"(?P<text>PyboardError: [^\n]{1,200}|[Cc]ould not enter (?:raw )?(?:REPL|repl)[^\n]{0,100})", ("could not enter ", "pyboarderror: ")),
    Spec("host", r"(?P<text>Unable to connect to (?:COM\d+|/dev/\S+)[^\n]{0,200}|Couldn't find the device automatically[^\n]{0,200}|Device is busy or does not respond[^\n]{0,200})", ("couldn't find the device automatically", "device is busy or does not respond", "unable to connect to ")),
    Spec("host", r"(?P<text>(?:Error while connecting to device|Communication error while flashing device|Error while communicating)[^\n]{0,200})", ("communication error while flashing device", "error while communicating", "error while connecting to device")),
)


def _tool(facts: Interpreter, token: Token, text: str) -> str | None:
    whole = facts.full[:1000]
    if "espcomm" in whole:
        return "espcomm"
    if "esptool" in whole or re.search(r"(?i)fatal error occurred|FatalError|Failed to connect to", whole):
        return "esptool"
    if "Pyboard" in text or "raw repl" in text.lower():
        return "ampy"
    if re.search(r"Couldn't find the device automatically|Unable to connect to (?:COM|/dev)|Device is busy or does not", text):
        return "Thonny"
    if "while" in text and "rror" in text:
        return "espflash"
    if "[upload]" in text:
        return "PlatformIO"
    if text.startswith("Failed uploading"):
        return "Arduino"
    if re.search(r"(?i)serial|could not open port|ClearCommError|GetOverlapped|readiness", whole):
        return "pyserial"
    return None


def host_error(facts: Interpreter, token: Token) -> None:
    """One failure text: the same message is stated once per stretch of text."""
    text = " ".join(token["text"].split()).strip(" \"'`")
    text = re.sub(r"(?:\\r|\\n)+.*", "", text)
    why, remedies = causes.host_error(text)
    facts.once(
        "host " + text[:60], HostError, token, tool=_tool(facts, token, text), message=text, causes=why, remedies=remedies
    )


FORMAT = Format(name="host", tokens=TOKENS, facts={"host": host_error})
