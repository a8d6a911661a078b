"""From captured text back to what was on the wire: escapes, punctuation and line prefixes of the tools in between.

Everything here works on one line and never raises. The raw bytes stay what they are; only the copy that is matched
changes. Facts about captured text: ``docs/log-formats.md``.
"""

from __future__ import annotations

import re

# ESC as a byte, as the picture U+241B, as the arrow U+2190 that some consoles draw, or spelled out.
_ESC = "(?:\x1b|\u241b|\u2190|\\\\e|\\\\033|\\\\x1[bB]|\\\\u001[bB]|\\^(?=\\[\\[)\\[|<ESC>|<0x1[bB]>|ESC(?=\\[[0-9;]{0,8}m))"
_ANSI = re.compile(_ESC + r"\[[0-9;?]*[A-Za-z]" + "|" + _ESC + r"[()][A-Z0-9]|[\x1b\u241b](?=[^\[]|$)" + r"|\[(?:0|[01];[34]\d|[34]\d(?:;[01])?|1)m")
_MARKS = re.compile(r"<CR>|<LF>|␍|␊|\\r(?=\\n|$)|(?<=\\n)\\r")
# What a web page puts between and around the lines.
_BREAK = re.compile(r"<(?:br|BR)\s?/?>")
_TAG = re.compile(r"</?(?:p|span|div|code|pre|font|li|td|tr|b|i|em|strong)(?:\s[^<>\n]{0,120})?>", re.IGNORECASE)
_LAST_MARK = re.compile(r"(?<![:\\])\\n(?=[\"'`,]{0,2}\s*$)")
# NUL and other controls carry no meaning; U+FFFD and U+2BD1/U+2BF8 stand for bytes that could not be read.
_NOISE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffd\u2bd1\u2bf8\ufeff\u200b]+")
# An 80-column terminal pasted: a word torn apart by a run of some 80 spaces.
_TORN = re.compile(r"(?<=[0-9A-Za-z]) {20,}(?=[0-9A-Za-z])")
# Bytes that a terminal could not show, in the middle of a word.
_UNREADABLE = re.compile(r"(?<=[0-9A-Za-z_])\?{2,4}(?=[0-9A-Za-z_])")
_PUNCTUATION = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u00b4": "'", "\u201b": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"',
    # full-width forms, as input methods for Chinese and Japanese set them
    "\uff08": "(", "\uff09": ")", "\uff0c": ",", "\uff1a": ":", "\uff1b": ";", "\uff1d": "=", "\u3000": " ",
    "\u2192": "->", "\u00a0": " ", "\u2013": "-", "\u2026": "...", "\t": " ",
})  # fmt: skip
# UTF-8 that some program took for Windows-1252: quotes, dashes, the arrow, the hard space, and the marks of unreadable bytes.
_MOJIBAKE = {
    "\u00e2\u20ac\u2122": "'", "\u00e2\u20ac\u02dc": "'", "\u00e2\u20ac\u0153": '"', "\u00e2\u20ac\u009d": '"', "\u00e2\u20ac\ufffd": '"',
    "\u00e2\u20ac\u201c": "-", "\u00e2\u20ac\u201d": "-", "\u00e2\u20ac\u00a6": "...", "\u00e2\u2020\u2019": "->", "\u00c2\u00a0": " ", "\u00ef\u00bf\u00bd": "", "\u00e2\u00b8\u00ae": "",
}  # fmt: skip
_MOJIBAKES = re.compile("|".join(map(re.escape, _MOJIBAKE)))
_ENTITIES = {"&gt;": ">", "&lt;": "<", "&amp;": "&", "&quot;": '"', "&#39;": "'", "&nbsp;": " "}
_ENTITY = re.compile("|".join(_ENTITIES))
_MARKDOWN_ESCAPE = re.compile(r"\\([>_*()\[\]<#`\"])")
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")


def clean(raw: bytes) -> str:
    """`raw` (one line without its newline) as text, without escapes, noise and edited punctuation."""
    text = raw.decode("utf-8", "replace")
    if not text.isprintable() or not text.isascii():
        if "\u00e2" in text or "\u00c2" in text or "\u00ef" in text:
            text = _MOJIBAKES.sub(lambda m: _MOJIBAKE[m[0]], text)
        text = text.replace("\t", " ") if text.isascii() else text.translate(_PUNCTUATION)
        text = _ANSI.sub("", text)
        text = _NOISE.sub("", text)
    elif ("[" in text and ("m" in text or "^" in text)) or "\\" in text or "ESC" in text:
        text = _ANSI.sub("", text)
    if "<" in text and ">" in text:
        text = _TAG.sub("", _BREAK.sub("\r", text))
    if "<" in text or "\\" in text or "␍" in text or "␊" in text:
        text = _MARKS.sub("", text)
        if text.count("\\n") == 1:
            text = _LAST_MARK.sub("", text)
        text = _MARKDOWN_ESCAPE.sub(r"\1", text)
    if "%0A" in text or "%0a" in text or "%0D" in text:  # a block that was sent in a URL
        if "%3A+" in text or "%3a+" in text:
            text = text.replace("+", " ")
        text = _PERCENT.sub(lambda m: chr(int(m[1], 16)), text).replace("\r\n", "\r").replace("\n", "\r")
    if "??" in text:
        text = _UNREADABLE.sub("", text)
    if "&" in text:
        text = _ENTITY.sub(lambda m: _ENTITIES[m[0]], text)
    if "                    " in text:
        text = _TORN.sub("", text.rstrip())
    return text


_TIME = r"\d{1,2}:\d{2}:\d{2}(?:[.,:]\d{1,9})?(?: [AP]M)?"
_DATE = r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4})"
_MONTH = r"(?:Mon |Tue |Wed |Thu |Fri |Sat |Sun )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d{1,2}"
# Each alternative is one prefix that a tool puts before a line; they are stripped repeatedly, left to right.
_PREFIX = re.compile(
    r"\s*(?:"
    r">(?!>>)\s?"  # a quote; `>>>stack>>>` is none
    r"|\|\s"
    rf"|\[(?:{_DATE}[T ,]+)?{_TIME}\]\s?(?:\[[A-Z]{{1,2}}\]\[[^\]\n]{{1,60}}\](?:\[[^\]\n]{{1,40}}\])?:\s?)?"  # [12:34:56][D][tag:line]:
    rf"|\[{_MONTH} {_TIME}\]\s?"  # Mongoose OS console
    rf"|{_DATE}[T ,]+{_TIME}Z?(?:[+-]\d\d:?\d\d)?\s*(?:\[[RT]X\]\s*-|->|>|[#,|:;-](?!-))?\s?"
    rf"|{_TIME}\s*(?:->|>(?!>)|\[[RT]X\]\s*-|[#|](?!\w)|:(?=\s))?\s"
    rf"|{_MONTH} {_TIME} (?:(?!(?:invalid|Stack|Saved|Reset|Restart|Guru|Debug|Core|Register) )[A-Za-z0-9]\S{{0,39}} [\w./\[\]-]{{1,40}}: )?"  # syslog
    rf"|\d\d-\d\d {_TIME}\s+\d+\s+\d+ [VDIWEF] \S{{1,30}}\s*: "  # logcat
    r"|(?:- )?(?:[\w.]{1,30} - )?(?:DEBUG|INFO|WARNING|ERROR)(?: - |:[\w.]{1,30}:|(?: [\w.]{1,30})?: )"  # Python's logging
    rf"|{_TIME},\""  # a column of a table
    r"|[\w.-]{1,30} {1,4}\|\s"  # docker compose
    r"|\[\s*\d+\.\d+\s+\d+\.\d+\]\s?"  # grabserial
    r"|(?:\[RX\]|RX:|<<(?!<)|COM\d{1,3}[:>]|ESP\w{0,6}>|esp\w{0,8}:|\[ESP\w{0,6}\]|\[/dev/[\w.-]{1,30}\])\s"  # whose line it is
    r"|\+\s"  # a difference
    r"|b['\"]"  # bytes of Python
    r"|\[(?:[A-Z]{1,2})\]\[[^\]\n]{1,60}\](?:\[[^\]\n]{1,40}\])?:\s?"  # ESPHome without its time
    r"|\[\s*\d{1,13}(?:\.\d+)?\]\s?(?:\[[A-Za-z0-9_]{1,12}\]\s?)?(?:\[[^\]\n]{1,60}\]\s?)?"  # [ms] [DEBUG]
    r"|\[(?:DEBUG|INFO|WARN|WARNING|ERROR|MAIN)\]\s?(?:\[[\w./-]{1,30}\]\s)?"
    r"|\d{3,6}>\s"  # esp-link
    r"|[收发][←→][◆◇]"  # SSCOM
    r"|E BOD: "  # ESP-IDF's brownout interrupt logs without a time
    r"|[EWIDV] \(\d{1,10}\) (?!app_init|app_start|cpu_start|boot:)[\w.\-]{1,40}: "  # ESP-IDF log, tag
    r")"
)
# Line numbers, seconds: what a wrapped line goes on with may look the same.
_NUMBER = re.compile(r"\s*(?:\d{1,5}(?::\s| {1,2}\|\s| {2,}(?=[^\d\s]))|\d{1,7}\.\d{3,6}\s)")
_MAX_PREFIXES = 6


def peel(text: str, *, continued: bool = False) -> str:
    """`text` without the prefixes that terminals, mail programs and loggers put before a line.

    `continued`: the line before may go on here, so that a number at its beginning belongs to the text.
    """
    at = 0
    for _ in range(_MAX_PREFIXES):
        m = _PREFIX.match(text, at) or (None if continued else _NUMBER.match(text, at))
        if m is None or m.end() == at:
            break
        at = m.end()
    return text[at:] if at else text


# What a post-processor put between the lines of a dump. Such a line says nothing about the crash itself.
DECODED = re.compile(
    r"\s*(?:---\s|0x[0-9a-fA-F]{8}(?::| -) |WARNING |at \S+:\S+$|at \?\?|\(inlined by\)|#\d+ |\S*addr2line\b|Decoding\b)"
)

# Lines that every boot and many dumps bring along and that hold no token: not worth looking for any.
QUIET = re.compile(
    r"load 0x[0-9a-f]{8}, len \d{1,6}, room \d+ ?|tail \d+|chksum 0x[0-9a-f]{2}|csum 0x[0-9a-f]{2}|ho 0 tail 12 room 4|~ld|v[0-9a-f]{8}"
    r"|entry 0x[0-9a-f]{8}|load:0x[0-9a-f]{8},len:(?:0x[0-9a-f]{1,5}|\d{1,7})"
    r"|(?:--- )?0x[0-9a-f]{8}: [\w:~<>,*&() .$-]{1,200} at [\w/.:+-]{1,200}(?: \(discriminator \d+\))?"
)
# The beginning of something that may have been torn by a newline; each is a trigger as well.
TORN = re.compile(r"-ROM:esp|J(?:an|un|ul) |rst:0x|boot mode|Gu|'ed ?\(|xception")
