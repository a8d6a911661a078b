"""espmon: serial log monitor and crash decoder for ESP8266 and ESP32 boards.

As a library (``docs/library.md``)::

    import espmon

    decoder = espmon.Decoder()
    for event in decoder.feed(b"Exception (28):\\n...") + decoder.close():
        print(espmon.to_json_line(event))

The names below are imported when they are first used, so that ``import espmon`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from espmon.decode import Decoder
    from espmon.errors import EspmonError
    from espmon.events import Address, Boot, Crash, Event, Frame, Reset, Text, to_json_line, to_json_object
    from espmon.symbolize import Symbolizer

_HOMES = {
    "Decoder": "espmon.decode",
    "Symbolizer": "espmon.symbolize",
    "EspmonError": "espmon.errors",
    **dict.fromkeys(
        ("Address", "Boot", "Crash", "Event", "Frame", "Reset", "Text", "to_json_line", "to_json_object"), "espmon.events"
    ),
}
__all__ = [
    "Address",
    "Boot",
    "Crash",
    "Decoder",
    "EspmonError",
    "Event",
    "Frame",
    "Reset",
    "Symbolizer",
    "Text",
    "__version__",
    "to_json_line",
    "to_json_object",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'espmon' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
