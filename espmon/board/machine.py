"""What a program that runs on the virtual chip can wait for, and what it can touch.

Pure. A program (boot ROM, loader, stub, application) is a generator: it yields a :class:`Wait` and gets the bytes it
listened for. It talks through a :class:`Machine`. Restarting is returning the cause of the next reset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from espmon.board.nor import NorFlash
from espmon.board.settings import BoardSettings
from espmon.board.silicon import Silicon


@dataclass(frozen=True, slots=True)
class Sleep:
    """Busy or idle for `seconds`; what arrives meanwhile waits in the receive buffer."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Until bytes arrive, at most `seconds` (None: for ever). The generator is sent the bytes, empty at time-out."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """Until everything said has left the transmitter."""


Wait = Sleep | Listen | Drain
Program = Generator[Wait, bytes, "int"]
Part = Generator[Wait, bytes, None]

#: What a program returns when it stops for good (until the next reset pulse).
HALT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Straps:
    """Pins as latched when EN rose: `boot` is the boot pin's level (True: high), the others are the ESP8266's."""

    boot: bool = True
    gpio15: bool = False
    gpio2: bool = True


class Machine:
    """The chip as its programs see it. `say` queues bytes at `rate`; `now` is the board's clock."""

    def __init__(
        self,
        settings: BoardSettings,
        silicon: Silicon,
        flash: NorFlash,
        random_source: random.Random,
        transmit: Callable[[bytes], None],
        logs: Mapping[str, bytes],
    ) -> None:
        self.logs = logs
        self.settings = settings
        self.silicon = silicon
        self.flash = flash
        self.random = random_source
        self.say = transmit
        self.now = 0.0
        self.rate = silicon.rom_baud
        self.autobaud = False
        self.straps = Straps()
        self.pins: Callable[[], Straps] = Straps  # the pins as they are now
        self.loading = False  # a loader or stub is listening
        self.frame_end = 0xC0  # what ends its frames
        self.downloaded = False  # a download happened since the last reset by pin or power
        self.trusted = b""  # digest of the image that secure boot (or flash encryption) was set up with
        self.boots = 0
        self.crashes = 0
        self.xtal = settings.xtal or silicon.xtal

    @property
    def rom_rate(self) -> float:
        """The rate of the ROM's text with this board's crystal: dividers are made for the usual one."""
        name = self.silicon.chip.name
        if name in ("esp8266", "esp32c2"):
            return 115200.0 if self.xtal == 40 else self.silicon.rom_baud
        return self.silicon.rom_baud

    def divided(self, rate: float) -> float:
        """The rate that the chip's UART makes of `rate`: whole dividers on the ESP8266, sixteenths on the others."""
        if self.silicon.chip.name != "esp8266":
            clock = self.xtal * 16e6
        else:
            clock = 80e6 if self.xtal == 40 else 52e6
        return clock / max(1, round(clock / rate))
