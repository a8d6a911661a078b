"""Boot ROM banners of all chips, and what the ROM and the boot loaders say when they can't start the firmware."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from espmon.decode import causes, resets
from espmon.decode.formats.shape import Format
from espmon.decode.scan import Spec, Token
from espmon.events import Brownout, DownloadMode, FlashError

if TYPE_CHECKING:
    from espmon.decode.interpreter import Interpreter

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"

TOKENS = (
    Spec(
        "boot-8266",
        r"(?:\S{0,6}ts {1,3}(?P<date>Jan {1,3}8 2013)\s{0,2}[,.]?\s{0,3})?(?:\W{0,3}r?st,? {0,2}\S{0,2}|^\W{0,3})cause ?:? ?(?P<cause>\d{1,2})\W{1,4}boot mode ?:? ?(?:\([^\d\n]{0,2}(?P<x>\d{1,2}) ?[, .] ?(?P<y>\d{1,2})\)?|[^\d\n]{0,2}(?P<x2>\d) ?, ?(?P<y2>\d)\))", ("boot mode",),
    ),
    Spec(
        "boot-8266",
        r"(?P<date>Jan {1,3}8 2013)\D{1,16}(?P<cause>\d)\D{1,18}\( ?(?P<x>\d) ?[,. ] ?(?P<y>\d)\)?",
        ("8 2013",),
    ),
    # the second digit couldn't be read
    Spec("boot-8266", r"(?:\S{0,6}ts {1,3}(?P<date>Jan {1,3}8 2013)\W{1,5})?rst,? {0,2}cause ?: ?(?P<cause>\d)\W{1,4}boot mode ?: ?\((?P<x>\d) ?,[^\d\n]{0,2}\)(?P<y>)", ("boot mode",)),
    # the end of the line was written over by the next ones
    Spec("boot-8266", r"(?:\S{0,6}ts {1,3})?(?P<date>Jan {1,3}8 2013)\W{1,4}rst cause ?: ?(?P<cause>\d)(?P<x>)(?P<y>)(?=,? {0,2}(?:load 0x|tail \d|chksum 0x|csum 0x|wdt reset))", ("8 2013",)),
    Spec("boot-8266", r"(?<!\w)\S{0,3}oot mode ?: ?\((?P<x>\d{1,2}) ?, ?(?P<y>\d{1,2})\)(?P<cause>)(?P<date>)", ("oot mode",)),
    Spec(
        "boot-32",
        r"(?<![A-Za-z])(?:rst|rs|rt|st|t) ?: ?(?P<code>[0-9a-zA-Z?]{1,5}) {0,2}\(? ?(?P<name>[A-Z][A-Z0-9_?]{2,40}|N/A)\w?\W{0,6}\w{1,5} ?: ?(?P<raw>0x[0-9a-fA-F]{1,4})\**(?: {0,2}\((?P<mode>[A-Za-z0-9_?/]{2,60}(?:\([A-Za-z0-9_/?.]{0,60}\)?)?)\)?|(?![0-9a-fA-F]|\s*$))", (":0x", ": 0x"),
    ),
    # letters lost or changed: only what is still close to a known name counts
    Spec(
        "boot-32-rough",
        r"(?<![A-Za-z])[a-z?]{1,4}\W{0,2}(?P<code>0x[0-9a-fA-F]{1,2})\W{0,3}(?P<name>[A-Za-z0-9_?]{5,40})\W{1,5}[a-z?]{2,5}\d?\W{0,2}(?P<raw>0x[0-9a-fA-F]{1,4})(?![0-9a-fA-F])"
        r"\W{0,4}(?P<mode>[A-Za-z0-9_?/]{6,60}(?:\([^()\n]{0,60}\)?)?)", ("_boot", "flash_", "download", "spi_"),
    ),
    Spec("boot-32-cut", r"(?<!\w)rst:(?P<code>0x[0-9a-fA-F]{1,2}) \((?P<name>[A-Z][A-Z0-9_]{2,40})\)(?:,b?o?o?t?:?(?P<raw>0x[0-9a-fA-F]{1,3}|0x?)?)?(?=\s*$)", ("rst:",)),
    # newlines added in the middle of the reset line
    Spec("boot-32-tail", r"(?:^|(?<=\s))\(?(?P<name>[A-Z][A-Z0-9_]{4,40})\),? ?boot ?: ?(?P<raw>0x[0-9a-fA-F]{1,4})(?: {0,2}\((?P<mode>[A-Za-z0-9_?/]{2,60}(?:\([A-Za-z0-9_/?.]{0,60}\)?)?)\)?)?", ("boot:0x", "boot: 0x", "boot :0x")),
    Spec("rom-32", r"-ROM:(?P<rom>esp[0-9a-z]{2,8}(?:-[0-9a-z]{1,12})?-\d{8})", ("-rom:",)),
    Spec("rom-date", rf"\S{{0,3}}(?:ets|\?ts|ts)\W{{1,4}}(?P<date>(?:{_MONTHS}) {{1,2}}\d{{1,2}} 20\d\d \d\d:\d\d:\d\d)", (" 20",)),
    Spec("build", rf"Build:(?:{_MONTHS}) {{1,2}}\d{{1,2}} 20\d\d", ("build:",)),
    Spec("saved-pc", r"(?:Core\d )?Saved PC ?: ?(?P<pc>0x[0-9a-fA-F]{8})", ("saved pc",)),
    Spec("spi-line", r"SPIWP:0x[0-9a-fA-F]{1,2}|(?:SPI )?mode:\w{3,8}, clock div:\d+", (", clock div:", "spiwp:0x")),
    Spec("load-32", r"load:(?P<addr>0x[0-9a-fA-F]{8}),len:(?P<len>(?:0x|-)?[0-9a-fA-F]{1,10})", ("load:",)),
    Spec("brownout", r"(?i:b?r?ownout detector \w{2,4} \w{6,10}|brownout \w{4,9} was \w{6,10}|detector was triggered)", ("ownout ", "detector was triggered")),
    Spec("waiting-download", r"(?i:waiting for (?:sdio host|download))|wait (?:uart|usb|spi)0?(?:/sdio)? download(?:\(secure mode\))?", ("waiting for download", "waiting for sdio host", "wait u", "wait spi download")),
    Spec("waiting-host", r"(?i:waiting for host)", ("waiting for host",)),
    Spec("invalid-header", r"(?i:nvalid header) ?: ?(?P<v>[0O]x[0-9a-fA-F]{6}(?:[0-9a-fA-F]{2})?)(?![0-9a-fA-F])", ("nvalid header",)),
    Spec("invalid-rough", r"(?<!\w)(?P<word>[a-z?]{5,8}) header ?: ?(?P<v>0x[0-9a-f]{8})(?![0-9a-fA-F])", (" header",)),
    Spec("flash-read", r"(?i:flash read err),? ?(?P<n>\w{0,6})", ("flash read err",)),
    Spec("csum-err", r"csum err(?: ?: ?0x[0-9a-fA-F]{1,2} ?!= ?0x[0-9a-fA-F]{1,2})?", ("csum err",)),
    Spec("ets-main", r"(?<![\w\"/])ets_(?:main|loader)\.c(?: {1,2}(?P<n>\d{1,4}))?", ("ets_main.c", "ets_loader.c")),
    Spec("ets-assert", r'assertion "[^"\n]{1,120}" failed: file "ets_main\.c", line \d+(?:, function: \w+)?', ('" failed: file "ets_main.c", line ',)),
    Spec("secure-boot", r"(?i:secure boot)(?: V[12])? (?:verification failed|check fail(?:ed)?)|No signature block magic byte found|(?i:secure boot signature verification failed)|Sig block \d (?:invalid|signed with untrusted key|signature verification failed)|Signature verification failed|Signature Check Failed|Invalid mode for secure boot download", ("no signature block magic byte found", "secure boot ", "sig block ", "signature verification failed", "signature check failed")),
    Spec("sha-mismatch", r"SHA-256 (?:simple hash )?comparison failed", ("sha-256 ",)),
    Spec("basic", r"Falling back to built-in command interpreter", ("falling back to built-in command interpreter",)),
    Spec("rf-cal", r"rf_cal\[\d\] ?!= ?0x[0-9a-fA-F]{1,2},? ?is ?0x[0-9a-fA-F]{1,2}|rf_cal_sec\b[^\n]{0,20}(?:err|fail)[^\n]{0,40}", ("rf_cal",)),
    Spec(
        "loader-error",
        r"No bootable app partitions[^\n]{0,60}|(?:Factory|Test|OTA) app partition[^\n]{0,20} is not bootable|Failed to (?:verify|load) partition table"
        r"|partition \d+ invalid magic number 0x[0-9a-fA-F]+|[Ii]mage at 0x[0-9a-fA-F]+ has invalid magic byte[^\n]{0,60}|invalid segment length 0x[0-9a-fA-F]+"
        r"|no good rom available|backup boot failed|Invalid image block, can't (?:boot|verify)|Checksum failure\. Calculated 0x[0-9a-fA-F]{2} stored 0x[0-9a-fA-F]{2}|(?<!\w)Checksum failed\. Calculated 0x[0-9a-fA-F]{1,2} read 0x[0-9a-fA-F]{1,2}|Loading RECOVERY Bootloader|Image hash failed - image is corrupt|Failed to verify app image @ 0x[0-9a-fA-F]+|load partition table error!|ota data partition invalid and no factory|Image length \d+ doesn't fit in partition length|failed to load bootloader header|Rom -?\d(?: at [0-9a-fA-F]{1,8})? is bad|(?:This chip is|image requires chip rev|Image requires efuse)[^\n]{0,90}revision?[^\n]{0,80}", (" has invalid magic byte", " invalid magic number 0x", " is bad", " is not bootable", "backup boot failed", "invalid image block", "ota data partition invalid", "fit in partition length", "checksum fail", "loading recovery bootloader", "image hash failed", "failed to verify app image", "load partition table error!", "failed to load bootloader header", " partition table", "invalid segment length 0x", "no bootable app partitions", "no good rom available", "revisio"),
    ),
)


_NEARLY = 0.75  # of the letters
# What boards say alone on a line, for lines whose letters are damaged.
SENTENCES = ("waiting for download", "Brownout detector was triggered", "Waiting for host")
_SAID = re.compile(r"[a-z]{2,} [a-z]{2,} [^a-z]{0,3}$|(?:^|[.!?] )(?:[Tt]he|[Aa]|[Tt]his|[Mm]y)[^A-Za-z]{0,3}$")
# Words, then an opening quote: a sentence that quotes. JSON has a quote before its colon.
_QUOTES = re.compile(r"[^\W\d_]{3,}\s{1,3}(?P<q>[\"'`\u00ab])\s?$")
_GOES_ON = re.compile(r"[^A-Za-z]{1,4}(?!load|wdt|tail|chksum|csum|ets)[a-z]{2,} [a-z]{2,}")



def _quoted(token: Token) -> bool:
    """True in a sentence that quotes what a board prints."""
    return _SAID.search(token.text[max(0, token.start - 60) : token.start]) is not None and _GOES_ON.match(token.rest) is not None


def boot_8266(facts: Interpreter, token: Token) -> None:
    """` ets Jan  8 2013,rst cause:N, boot mode:(X,Y)`."""
    cause = token.groups.get("cause")
    if not cause:
        before = re.search(r"cause ?: ?(\d{1,2})\W*$", facts.previous)
        cause = before[1] if before is not None else None
    if cause and not token["x"] and not token.groups.get("x2"):
        if token.leads:
            facts.boot(token, chip="esp8266", rom=token["date"], reset=resets.rom_8266(int(cause)), mode=None)
        return
    second = token["y"] or token.groups.get("y2")
    x, y = int(token["x"] or token["x2"]), int(second) if second else None
    if x > 7 or (y or 0) > 7 or (cause and int(cause) > 9):
        return
    if not cause and not token.leads and not re.search(r"ets|Jan|201|rst|aus", token.text[max(0, token.start - 40) : token.start]):
        return  # a sentence about boot modes
    if token.in_string or (not token.groups.get("date") and _quoted(token)):
        return
    if not cause and re.search(r"cause ?: ?\d ?[=-]", facts.previous):
        return  # somebody explains the two, one per line
    first = token.start
    while first < token.end and not token.text[first].isalnum():
        first += 1
    quoted = _QUOTES.search(token.text[max(0, first - 60) : first])
    if quoted is not None and ("\u00bb" if quoted["q"] == "\u00ab" else quoted["q"]) in token.rest[:40]:
        return
    if re.match(r" (?:or|oder|o|ou) \(\d", token.rest):
        return  # a description of the modes
    mode = resets.boot_mode_8266(x, y)
    reset = resets.rom_8266(int(cause)) if cause else None
    date = token.groups.get("date") or None
    facts.boot(token, chip="esp8266", rom=date, reset=reset, mode=mode)
    if mode.download:
        meaning, remedies = causes.DOWNLOAD
        facts.emit(DownloadMode, token, message=f"boot mode:({mode.raw})", meaning=meaning, remedies=remedies)


def rom_line(facts: Interpreter, token: Token) -> None:
    """`ESP-ROM:…` or `ets Jun  8 2016 00:22:57`: a boot begins, its reset line follows."""
    if token.in_string:
        return
    rom = token.groups.get("rom") or token["date"]
    chip = resets.chip_of_rom(rom) if token.groups.get("rom") else "esp32"
    facts.rom(token, chip=chip, rom=rom)


def boot_32(facts: Interpreter, token: Token) -> None:
    """`rst:0xN (NAME),boot:0xN (MODE)`; a damaged number is read from the name."""
    if token.in_source or _quoted(token):
        return
    name = token["name"].strip("?")
    chip = None if facts.rom_chip == "esp8266" else facts.rom_chip
    raw = token.groups.get("raw")
    known = resets.known_name(name)
    printed = re.fullmatch(r"0?x?([0-9a-fA-F]{1,2})", token["code"])
    code = int(printed[1], 16) if printed and token["code"].startswith("0x") else None
    if known and (code is None or not any(t.get(code) == name for t in resets.NAMES.values())):
        code = resets.code_of(name, chip) if resets.code_of(name, chip) is not None else code
    if code is None and not known:
        return
    if chip is None:
        chip = resets.chip_of(code, name, raw or "")
    mode = resets.boot_mode_32(raw, token.groups.get("mode")) if raw else None
    reset = resets.rom_32(code, name, chip)
    facts.boot(token, chip=chip, rom=None, reset=reset, mode=mode)
    if name and re.search(r"BROWN_?OUT|_BOD_", name):
        meaning, remedies = causes.BROWNOUT
        facts.once("brownout", Brownout, token, message=name, meaning=meaning, remedies=remedies)


def boot_32_rough(facts: Interpreter, token: Token) -> None:
    """A reset line with damaged letters: the numbers are read when name and mode are nearly those of a ROM."""
    chip = facts.rom_chip
    tables = [resets.NAMES[chip]] if chip is not None and chip in resets.NAMES else list(resets.NAMES.values())
    names = {name for table in tables for name in table.values()}
    near = difflib.get_close_matches(token["name"].upper(), names, 1, 0.8)
    mode = difflib.get_close_matches(token["mode"][:19], ("SPI_FAST_FLASH_BOOT", "DOWNLOAD_BOOT(UART0", "DOWNLOAD(USB/UART0)", "DOWNLOAD", "SPI_FLASH_BOOT", "HSPI_FLASH_BOOT"), 1, 0.7)
    if near and mode:
        token.groups["name"] = near[0]
        boot_32(facts, token)


def boot_32_cut(facts: Interpreter, token: Token) -> None:
    """The reset line ends before its boot mode does: held back until the next line shows whether it goes on there."""
    if facts.rom_chip is not None or token.leads:
        facts.hold(token, cut_reset_line)


def cut_reset_line(facts: Interpreter, token: Token) -> None:
    """It didn't go on: what there is of it."""
    raw = token.groups.get("raw") or ""
    token.groups["raw"] = raw if len(raw) > 2 else None
    boot_32(facts, token)


def boot_32_tail(facts: Interpreter, token: Token) -> None:
    """`(NAME),boot:0xN (MODE)` behind an added newline; the number stands in the line before, or follows from the name."""
    name = token["name"]
    before = re.search(r"rst ?: ?(0x[0-9a-fA-F]{1,2})\W*$", facts.previous)
    if before is None and not resets.known_name(name):
        return
    token.groups["code"] = before[1] if before is not None else "?"
    boot_32(facts, token)


def saved_pc(facts: Interpreter, token: Token) -> None:
    """`Saved PC:0x…`: where the CPU was when the reset came."""
    facts.saved_pc(int(token["pc"], 16))


def brownout(facts: Interpreter, token: Token) -> None:
    """`Brownout detector was triggered`."""
    if not token.leads and not facts.on_banner_line:
        return
    meaning, remedies = causes.BROWNOUT
    facts.failure("brownout", token)
    facts.once("brownout", Brownout, token, message="Brownout detector was triggered", meaning=meaning, remedies=remedies)


def waiting_download(facts: Interpreter, token: Token) -> None:
    """`waiting for download` and its kin: the ROM says so on a line of its own."""
    if not (token.leads and token.ends) and not facts.on_banner_line:
        return
    meaning, remedies = causes.DOWNLOAD
    facts.failure("download-mode", token)
    facts.once("download", DownloadMode, token, message=token.text[token.start : token.end], meaning=meaning, remedies=remedies)


def _flash(facts: Interpreter, token: Token, message: str | None = None) -> None:
    if token.in_source:
        return
    message = " ".join((message or token.text[token.start : token.end]).split())
    meaning, remedies = causes.flash_error(message)
    facts.failure("flash-error: " + message, token)
    facts.once("flash " + message, FlashError, token, message=message, meaning=meaning, remedies=remedies)


def flash_error(facts: Interpreter, token: Token) -> None:
    """A message that only ROMs and boot loaders print."""
    _flash(facts, token)


def invalid_header(facts: Interpreter, token: Token) -> None:
    """`invalid header: 0x…`, repeated until a watchdog ends it."""
    _flash(facts, token, f"invalid header: 0x{token['v'][2:].lower()}")


def invalid_rough(facts: Interpreter, token: Token) -> None:
    """The same with a damaged word."""
    if difflib.SequenceMatcher(None, token["word"], "invalid", autojunk=False).ratio() >= _NEARLY:
        invalid_header(facts, token)


def in_context(facts: Interpreter, token: Token) -> None:
    """Words that mean something only during a boot: `ets_main.c`, `waiting for host`, `csum err`."""
    if token.kind == "csum-err":
        if token.leads or facts.on_banner_line:
            _flash(facts, token)
    elif token.kind == "waiting-host":
        if facts.on_banner_line or (token.leads and token.ends):
            _flash(facts, token)
    else:
        # The ROM says why in the line before; outside of a banner only the two together mean anything.
        before = re.search(r"csum err(?: ?: ?0x\w{1,2} ?!= ?0x\w{1,2})?|flash read err,? ?\w{0,6}", facts.previous)
        if facts.already("flash"):
            facts.failure("ets_main", token)
        elif before is not None:
            _flash(facts, token, before[0])
        elif facts.on_banner_line or (token.leads and (facts.in_banner or (token.ends and token.groups.get("n")))):
            _flash(facts, token)


def load_32(facts: Interpreter, token: Token) -> None:
    """`load:0x…,len:N`: no image has segments of more than 16 MiB."""
    text = token["len"]
    length = int(text, 16) if text.startswith("0x") else (int(text) if text.isdigit() else 0)
    if length > 0x1000000 or text.startswith("-"):
        _flash(facts, token)


def nothing(facts: Interpreter, token: Token) -> None:
    """Known text without a fact of its own."""


FORMAT = Format(
    name="rom",
    tokens=TOKENS,
    facts={
        "boot-8266": boot_8266, "boot-32": boot_32, "boot-32-rough": boot_32_rough, "boot-32-cut": boot_32_cut, "boot-32-tail": boot_32_tail, "rom-32": rom_line, "rom-date": rom_line,
        "build": nothing, "spi-line": nothing, "saved-pc": saved_pc, "load-32": load_32, "brownout": brownout,
        "waiting-download": waiting_download, "waiting-host": in_context, "invalid-header": invalid_header, "invalid-rough": invalid_rough,
        "flash-read": flash_error, "csum-err": in_context, "ets-main": in_context, "ets-assert": flash_error,
        "secure-boot": flash_error, "sha-mismatch": flash_error, "basic": flash_error, "rf-cal": flash_error,
        "loader-error": flash_error,
    },
)  # fmt: skip
