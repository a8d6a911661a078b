"""All formats, in the order in which their tokens are tried at each place of a line."""

from __future__ import annotations

from espmon.decode.formats import (
    core_dump,
    esp8266,
    firmware,
    host,
    idf_abort,
    idf_body,
    idf_panic,
    others,
    reports,
    rom,
)
from espmon.decode.formats.shape import DROP, END, IDLE, SPLIT, Format, Rule

FORMATS: tuple[Format, ...] = (
    rom.FORMAT,
    core_dump.FORMAT,
    firmware.FORMAT,
    firmware.AT_QUERY,
    *reports.FORMATS,
    *others.FORMATS,
    esp8266.FORMAT,
    idf_panic.FORMAT,
    idf_abort.FORMAT,
    idf_body.FRAGMENT,
    host.FORMAT,
)

__all__ = ["DROP", "END", "FORMATS", "IDLE", "SPLIT", "Format", "Rule"]
