"""What a board sends, made safe to show: no escape sequence of its own making reaches a terminal.

Passed: text, tab, newline, carriage return, backspace, and rebuilt forms of three sequences that cannot leave the line
that they stand in: colours (SGR), erase to the end of the line, cursor left and right. Everything else that a terminal
could obey is shown as a visible sign or dropped; bytes that are no UTF-8 are shown as ``\\xhh``.
"""

from __future__ import annotations

import codecs
import re

ESC = "\x1b"
# The colours that logs use, as they are: at most one style and one basic colour. All else that begins with ESC is rebuilt.
_USUAL_COLOUR = "\\[(?:[0-4];)?(?:[0-4]|[349][0-7])m"
# Plain ASCII text with usual colours needs no second look; most chunks are. The set comes first so that the matcher can
# skip over text quickly; what follows lets an ESC pass that begins a usual colour.
_NEEDS_CARE = re.compile(f"[^\\t\\n\\r\\x20-\\x7e](?:(?<!\\x1b)|(?!{_USUAL_COLOUR}))".encode())
# Escape sequences (ECMA-48): CSI ... final byte, or ESC with one more byte; then single characters that terminals obey
# (C0, DEL, C1), line separators, and those that make text read differently than it is stored: bidirectional controls
# and tag characters.
_CONTROLS = re.compile(
    "\x1b\\[([0-9;:?<=>]{0,48})([\x20-\x2f]{0,4})([\x40-\x7e])"
    "|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_UNFINISHED = re.compile("\x1b(?:\\[[0-9;:?<=>]{0,48}[\x20-\x2f]{0,4})?\\Z")
_OWN_SEQUENCES = re.compile("\x1b\\[[0-9;]*[A-Za-z]|\x08")
_HIDING = frozenset({5, 6, 8})  # blink, fast blink, conceal


def _safe_colour(parameters: str) -> str:
    """A rebuilt SGR sequence: known numbers only, nothing that blinks or hides text."""
    if not re.fullmatch("[0-9;]*", parameters) or parameters.count(";") > 16:
        return ""
    numbers = [int(each[:4] or 0) for each in parameters.split(";")]
    kept: list[int] = []
    at = 0
    while at < len(numbers):
        number = numbers[at]
        if number in (38, 48, 58):  # a colour by palette index or by red, green, blue
            length = {5: 3, 2: 5}.get(numbers[at + 1] if at + 1 < len(numbers) else 0, 0)
            colour = numbers[at : at + length]
            if not length or len(colour) < length or max(colour) > 255:
                return ""
            kept += colour
            at += length
            continue
        if number <= 107 and number not in _HIDING:
            kept.append(number)
        at += 1
    return f"{ESC}[{';'.join(map(str, kept))}m" if kept else ""


def _shown(match: re.Match[str]) -> str:
    final = match[3]
    if final is not None:
        parameters = match[1]
        if match[2]:
            return ""
        if final == "m":
            return _safe_colour(parameters)
        if final == "K" and parameters in ("", "0"):
            return f"{ESC}[K"
        if final in "CD" and re.fullmatch("[0-9]{0,3}", parameters):
            return f"{ESC}[{parameters}{final}"
        return ""
    character = match[0]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the Unicode "control pictures": ESC becomes U+241B
    if code == 0x7F:
        return "\u2421"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Neutralizer:
    """Turns a stream of bytes, in chunks of any size, into text that is safe on a terminal.

    What is not complete at a chunk's end (a UTF-8 letter, an escape sequence; at most 56 characters) is held for the
    next :meth:`feed` or :meth:`flush`.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""
        self._in_letter = False

    def feed(self, raw: bytes) -> str:
        if not self._held and not self._in_letter and not _NEEDS_CARE.search(raw):
            return raw.decode("ascii")
        text = self._held + self._decoder.decode(raw)
        self._in_letter = bool(self._decoder.getstate()[0])
        self._held = ""
        if unfinished := _UNFINISHED.search(text, max(0, len(text) - 60)):
            self._held = unfinished[0]
            text = text[: unfinished.start()]
        return _CONTROLS.sub(_shown, text)

    @property
    def holding(self) -> bool:
        """True when something is held back."""
        return self._in_letter or bool(self._held)

    def flush(self) -> str:
        """What was held, shown as what it is; for the end of the stream, or when nothing more came for a while."""
        text = self._held + self._decoder.decode(b"", True)
        self._decoder.reset()
        self._held, self._in_letter = "", False
        return _CONTROLS.sub(_shown, text)


def plain(text: str) -> str:
    """Safe text without its colours and cursor movements: for files, pipes and matching."""
    return _OWN_SEQUENCES.sub("", text) if ESC in text or "\b" in text else text


def one_line(text: str | None, limit: int = 300) -> str:
    """A name or message from a device or a file as one safe line of at most `limit` characters."""
    if not text:
        return ""
    safe = plain(_CONTROLS.sub(_shown, text.replace("\n", " ").replace("\r", " ").replace("\t", " "))).replace(ESC, "\u241b")
    safe = safe.encode("utf-8", "backslashreplace").decode("utf-8")
    return safe if len(safe) <= limit else safe[: limit - 1] + "\u2026"
