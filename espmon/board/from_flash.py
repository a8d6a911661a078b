"""How a boot ROM takes the image in flash: checks it as the board's wiring lets it be read, says what it finds, starts it.

Pure. Beside the ROM, the project's own stub ends so when it is told to start the application.
"""

from __future__ import annotations

from dataclasses import replace

from espmon.board.firmware import run_firmware
from espmon.board.image import Image, esp8266_load_text, read_image
from espmon.board.machine import HALT, Drain, Machine, Part, Program, Sleep

WATCHDOG = 4  # the ESP8266's "rst cause"
WATCHDOG_TIME = 1.6  # the ESP8266's hardware watchdog in the ROM, as logs of stuck boots show it


def tell(machine: Machine, text: str) -> Part:
    """Print `text` and wait until it is out."""
    machine.say(text.encode("latin-1"))
    yield Drain()


def checked(machine: Machine, image: Image) -> Image:
    """`image` as the ROM gets it through this board's flash wiring: modes that it does not bear read as garbage."""
    bears = {"any": ("qio", "qout", "dio", "dout"), "dio": ("dio", "dout"), "dout": ("dout",)}
    if image.fault is None and image.mode not in bears[machine.settings.flash_mode]:
        return replace(image, fault="checksum", checksum=image.checksum ^ 0x5A, segments=image.segments)
    return image


def esp8266_from_flash(machine: Machine) -> Program:
    """The ROM's `boot_from_flash`: check and start what flash holds."""
    image = checked(machine, read_image(machine.flash, machine.silicon))
    if image.fault in ("magic", "segments"):
        yield from tell(machine, "ets_main.c ")
        return HALT
    yield from tell(machine, esp8266_load_text(image))
    if image.fault == "segment":
        yield Sleep(WATCHDOG_TIME)
        return WATCHDOG
    if image.fault is not None:
        yield from tell(machine, "csum err\r\nets_main.c ")
        return HALT
    return (yield from run_firmware(machine, image))
