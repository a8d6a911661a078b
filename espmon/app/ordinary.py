"""Which lines a working firmware would print: what the recovery policy believes to be talk."""

from __future__ import annotations

import re

_BORING = b" \t\r"
# What boot ROMs and second-stage boot loaders print on the way to a restart. The decoder states the first such line of a
# boot as a fact; an ESP32 repeats `invalid header` until a watchdog bites, and the boot loaders explain themselves.
_COMPLAINTS = re.compile(
    rb"invalid header: ?0x|flash read err|ets_main\.c \d*|csum err|ets [A-Z][a-z]{2} +\d|rst:0x|load:0x|entry 0x"
    rb"|load 0x[0-9a-f]{8}, len |tail \d+$|chksum 0x|csum 0x|ho \d+ tail "
    rb"|(?:\x1b\[[0-9;]*m)?[EWI] \(\d+\) (?:boot|esp_image|flash_parts|bootloader\w*)(?:\.esp\w+)?: "
)


def is_ordinary(line: bytes) -> bool:
    """True for a line that a working firmware would print: at least three characters, nearly all printable, none of
    the boot ROM's or boot loader's own."""
    line = line.strip(_BORING)
    if len(line) < 3:
        return False
    odd = sum(1 for c in line[:200] if (c < 0x20 and c not in (9, 27)) or c == 0x7F)
    if odd:
        return False
    if _COMPLAINTS.match(line):
        return False
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
