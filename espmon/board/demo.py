"""Where the demo firmware lies, and the flash image and crash logs made from it (symbols/demo; see docs/virtual-board.md).

Reads files, so it belongs to the adapters; the board itself is handed the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CRASHES = ("load", "store", "illegal", "divide", "watchdog", "memory")


def demo_dir() -> Path:
    """The folder with the demo firmware: inside the installed package, else the checkout's top-level symbols/demo.

    Raises FileNotFoundError when the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "symbols" / "demo", package.parent / "symbols" / "demo"):
        if (folder / "weather.elf").is_file():
            return folder
    raise FileNotFoundError(f"no demo firmware at {package / 'symbols' / 'demo'}")


def demo_elf() -> Path:
    """The demo firmware's ELF, with DWARF lines."""
    return demo_dir() / "weather.elf"


def demo_image() -> bytes:
    """What belongs at flash address 0 of an ESP8266 that runs the demo firmware."""
    return (demo_dir() / "weather.bin").read_bytes()


def crash_logs() -> Mapping[str, bytes]:
    """Crash name -> everything that the demo firmware printed from its start to its restart."""
    return {name: (demo_dir() / "dumps" / f"{name}.txt").read_bytes() for name in CRASHES}
