"""The question alone: at which rate does the board on this port talk? Listens, changes the port's rate, writes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from espmon.app.autorate import AutoRate
from espmon.app.rate import WishRate
from espmon.errors import EspmonError, PortGone, PortProblem
from espmon.events import Boot, WrongRate
from espmon.port import Chunk, SerialPort

#: text that must be read before the answer is sure
_ENOUGH_TEXT = 80


class RateNotFound(EspmonError):
    """Nothing arrived, or nothing that text at some rate explains. Fields: the `port`, and how many bytes were `heard`."""

    code = "rate-not-found"
    exit_status = 26

    def __init__(self, port: str, heard: int) -> None:
        if heard:
            message = f"{port}: {heard} bytes arrived, but they are text at no rate that can be told"
            hint = "Let it listen longer (--timeout) or from another rate (--from); a board may send binary data."
        else:
            message = f"{port}: nothing arrived"
            hint = "Press the board's reset button while this command listens, or give it more time with --timeout."
        super().__init__(message, hint)
        self.port = port
        self.heard = heard


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRate:
    """`rate` is what the text is read at; `sure` once enough text was read; `rom_rate` where the boot ROM's was heard too."""

    rate: int
    sure: bool
    rom_rate: int | None
    seconds: float
    received: int
    steps: tuple[tuple[int, str], ...]


def find_rate(port_name: str, *, start: int, timeout_s: float) -> FoundRate:
    """Listens on the port until text is read. Raises `PortProblem` and :class:`RateNotFound`."""
    follower = AutoRate(start=start)
    port = SerialPort(port_name, start)
    steps: list[tuple[int, str]] = []
    rom: int | None = None
    received = text = 0
    begun = time.monotonic()
    port.open()
    try:
        follower.opened(time.time(), start)
        while time.monotonic() - begun < timeout_s and text < _ENOUGH_TEXT:
            data = port.read(0.05)
            now = time.time()
            received += len(data)
            heard = list(follower.hear(Chunk(now, data))) if data else []
            if follower.next_deadline is not None and now >= follower.next_deadline:
                heard += follower.tick(now)
            for each in heard:
                if isinstance(each, Chunk):
                    text = text + len(each.data) if follower.reads_well else 0
                elif isinstance(each, WishRate):
                    text = 0
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
                elif isinstance(each, WrongRate) and each.sent_at is not None:
                    text = 0
    finally:
        port.dispose()
    seconds = round(time.monotonic() - begun, 2)
    if not text and not steps:
        if rom is None:
            raise RateNotFound(port_name, received)
        return FoundRate(rate=rom, sure=False, rom_rate=rom, seconds=seconds, received=received, steps=())
    return FoundRate(
        rate=port.baud, sure=text >= _ENOUGH_TEXT, rom_rate=rom, seconds=seconds, received=received, steps=tuple(steps)
    )
