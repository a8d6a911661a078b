"""The question alone: at which rate does the board on this port talk? Listens, changes the port's rate, writes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from espmon.app.autorate import AutoRate
from espmon.app.rate import WishRate
from espmon.errors import EspmonError, PortGone, PortProblem
from espmon.events import Boot
from espmon.port import Chunk, SerialPort
from espmon.uart.banner import ROM_RATE

#: text that must be read before the answer is sure
_ENOUGH_TEXT = 80
#: fewer bytes that are no text say nothing of their rate
_TOO_FEW = 32
#: a boot ROM's text ends within this time of its banner; what is read later is the application's
_ROM_LASTS_S = 0.6
_ROM_WORDS = b"rst cause:"


class RateNotFound(EspmonError):
    """Nothing arrived, or nothing that tells the application's rate. Fields: the `port`, how many bytes were `heard`, and
    `rom_rate`, where a boot ROM was heard."""

    code = "rate-not-found"
    exit_status = 26

    def __init__(self, port: str, heard: int, rom_rate: int | None = None) -> None:
        hint = "Let it listen longer (--timeout) and make the board say something."
        if rom_rate is not None:
            message = f"{port}: only the boot ROM was heard, at {rom_rate} baud ({heard} bytes in all), and nothing yet that tells the application's rate"
        elif not heard:
            message = f"{port}: nothing arrived"
            hint = "Press the board's reset button while this command listens, or give it more time with --timeout."
        elif heard < _TOO_FEW:
            message = f"{port}: only {heard} bytes arrived, too few to tell a rate"
        else:
            message = f"{port}: {heard} bytes arrived, but they are text at no rate that can be told"
            hint = "Let it listen longer (--timeout) or from another rate (--from); a board may send binary data."
        super().__init__(message, hint)
        self.port = port
        self.heard = heard
        self.rom_rate = rom_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRate:
    """`rate` is what the text is read at; `sure` once enough text was read; `rom_rate` where the boot ROM's was heard too;
    `text` bytes were read as text at `rate` (0: the rate was told from bytes received at another, and nothing came since)."""

    rate: int
    sure: bool
    rom_rate: int | None
    seconds: float
    received: int
    text: int
    steps: tuple[tuple[int, str], ...]


def find_rate(port_name: str, *, start: int, timeout_s: float) -> FoundRate:
    """Listens on the port until text is read. Raises `PortProblem` and :class:`RateNotFound`."""
    follower = AutoRate(start=start)
    port = SerialPort(port_name, start)
    steps: list[tuple[int, str]] = []
    rom: int | None = None
    received = not_its = 0
    rom_at = float("-inf")
    begun = time.monotonic()
    port.open()

    def text() -> int:
        return max(0, follower.text_read - not_its)

    try:
        follower.opened(time.time(), start, port.damaged)
        while time.monotonic() - begun < timeout_s and text() < _ENOUGH_TEXT:
            data = port.read(0.05)
            now = time.time()
            received += len(data)
            heard = list(follower.hear(Chunk(now, data))) if data else []
            if follower.next_deadline is not None and now >= follower.next_deadline:
                heard += follower.tick(now)
            for each in heard:
                if isinstance(each, Chunk):
                    if abs(port.baud / ROM_RATE - 1) < 0.035 and _ROM_WORDS in each.data:
                        rom, rom_at = ROM_RATE, now
                    if now - rom_at < _ROM_LASTS_S:  # the ROM's own, which it prints at this rate whatever the application does
                        not_its = follower.text_read
                elif isinstance(each, WishRate):
                    not_its = 0
                    try:
                        port.set_baud(each.baud)
                    except PortGone:
                        raise
                    except PortProblem as problem:
                        steps.append((each.baud, problem.message))
                        continue
                    follower.rate_set(time.time(), each.baud)
                    received += len(late := port.read(0))
                    if late:
                        follower.hear(Chunk(time.time(), late))
                    steps.append((each.baud, each.reason or ""))
                elif isinstance(each, Boot) and each.rate is not None:
                    rom = each.rate
    finally:
        port.dispose()
    seconds = round(time.monotonic() - begun, 2)
    rate = port.baud if text() else follower.inferred
    if rate is None or (not text() and rom is not None and abs(rate / rom - 1) < 0.035):
        raise RateNotFound(port_name, received, rom)
    return FoundRate(
        rate=rate, sure=text() >= _ENOUGH_TEXT, rom_rate=rom, seconds=seconds, received=received, text=text(), steps=tuple(steps)
    )
