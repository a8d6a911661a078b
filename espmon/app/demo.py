"""The demo: the monitor as a person uses it, on a virtual board whose firmware crashes once. It ends by itself."""

from __future__ import annotations

from collections.abc import Sequence

from espmon.app.monitor import Monitor, MonitorOptions
from espmon.app.rate import CountsDamaged, FixedRate, Heard, WishRate
from espmon.board.demo import demo_elf
from espmon.port import Chunk

DEMO_S = 9.5  # two boots, three healthy rounds each, a crash in between
PACE_S = 0.8
ROM_BAUD, APP_BAUD = 74880, 115200
# The end of what the ROM prints at its rate, and of what the firmware prints before it restarts.
_LAST_OF_ROM = b"csum 0x"
_LAST_OF_CRASH = b"<<<stack<<<"


class BothRates(FixedRate):
    """A rate follower that knows the demo board: ROM text at 74880, application text at 115200."""

    def __init__(self) -> None:
        super().__init__(ROM_BAUD)
        self._seen = b""
        self._wished = False

    def opened(self, at: float, baud: int, damaged: CountsDamaged | None = None) -> None:
        self.rate_set(at, baud)

    def hear(self, chunk: Chunk) -> Sequence[Heard]:
        self._seen = (self._seen + chunk.data)[-200:]
        if self._wished:
            return (chunk,)
        at_rom = self.baud == ROM_BAUD
        start = self._seen.find(_LAST_OF_ROM if at_rom else _LAST_OF_CRASH)
        done = b"\n" in self._seen[start:] if at_rom else self._seen[start:].rstrip().endswith(b"-" * 15)
        if start < 0 or not done:
            return (chunk,)
        self._wished = True
        return (chunk, WishRate(APP_BAUD if at_rom else ROM_BAUD))

    def rate_set(self, at: float, baud: int) -> None:
        self.baud, self._seen, self._wished = baud, b"", False


def run_demo(*, json: bool = False, lines: bool = False, crash: str = "load") -> int:
    """Show the demo on the terminal (or as events with `json`). Returns the exit status, 0 when nothing is broken.

    Raises ElfUnusable when the demo firmware is not part of the installation.
    """
    options = MonitorOptions(
        port=f"sim://esp8266?crash={crash}&crashes=1&pace={PACE_S}&startup=0.4&restart=0.2&patience=0.02",
        elfs=[str(demo_elf())],
        timeout_s=DEMO_S,
        json=json,
        lines=lines,
        reconnect=False,
    )
    return Monitor(options, rate=BothRates()).run()
