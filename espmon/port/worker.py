"""The only interpreter of bootloader Actions: runs Steps on an open port, in the thread that owns it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from espmon.bootloader.actions import (
    Action,
    Discard,
    Note,
    Now,
    Receive,
    Send,
    SetBaud,
    SetLines,
    Steps,
    Wait,
)
from espmon.bootloader.errors import SendStalled, Stopped
from espmon.errors import PortGone, PortStalled
from espmon.port.serial_port import Chunk, SerialPort

T = TypeVar("T")

SEND_LIMIT_S = 10.0  # what the Actions promise: SendStalled after 10 s without progress
_DISCARD_READS = 16  # of up to 64 KiB each
_LOOK_S = 0.05  # how often a long wait looks whether somebody asked to stop


def run_steps(
    port: SerialPort,
    steps: Steps[T],
    *,
    heard: Callable[[Chunk], None] | None = None,
    noted: Callable[[object], None] | None = None,
    stop: threading.Event | None = None,
) -> T:
    """Plays `steps` on `port` to their end and returns what they return.

    Every chunk read goes to `heard` before the Steps see it; facts of Note actions go to `noted`. When `stop` is set,
    `Stopped` is thrown into the Steps once. Raises what the Steps let pass, among it `PortGone`.
    """
    unread = bytearray()
    asked_to_stop = False

    def read(timeout: float) -> int:
        data = port.read(timeout)
        if data:
            if heard is not None:
                heard(Chunk(time.time(), data, time.monotonic()))
            unread.extend(data)
        return len(data)

    def wait_for(count: int, seconds: float) -> None:
        """Reads until `count` bytes are there or `seconds` have passed or somebody asks to stop."""
        limit = time.monotonic() + seconds
        while len(unread) < count:
            left = limit - time.monotonic()
            if left <= 0:
                read(0)
                return
            if stopping():
                raise Stopped
            read(min(left, _LOOK_S))

    def stopping() -> bool:
        return stop is not None and stop.is_set() and not asked_to_stop

    def perform(action: Action) -> Any:
        match action:
            case SetLines(dtr=dtr, rts=rts):
                port.set_lines(dtr, rts)
            case SetBaud(rate=rate):
                port.flush()
                port.set_baud(rate)
            case Send(data=sent):
                try:
                    port.write(sent, SEND_LIMIT_S)
                except PortStalled:
                    raise SendStalled(port.name) from None
            case Receive(timeout_s=seconds, at_least=count):
                if not unread:
                    wait_for(1, seconds)
                if unread and len(unread) < count:
                    wait_for(count, seconds)
                return take()
            case Wait(seconds=seconds):
                _wait(seconds, wait_for)
            case Discard():
                # Not "until there is nothing": a board that never stops talking would keep us here for ever.
                for _ in range(_DISCARD_READS):
                    if not read(0):
                        break
                return take()
            case Now():
                return time.monotonic()
            case Note(fact=fact):
                if noted is not None:
                    noted(fact)
            case _:
                raise TypeError(f"no interpreter for {action!r}")
        return None

    def take() -> bytes:
        taken = bytes(unread)
        unread.clear()
        return taken

    result: Any = None
    failure: BaseException | None = None
    while True:
        try:
            action = steps.send(result) if failure is None else steps.throw(failure)
        except StopIteration as end:
            value: T = end.value
            return value
        result = failure = None
        if stopping():
            asked_to_stop = True
            failure = Stopped()
            continue
        try:
            result = perform(action)
        except Stopped as error:
            asked_to_stop = True
            failure = error
        except (PortGone, SendStalled) as error:
            failure = error


def _wait(seconds: float, wait_for: Callable[[int, float], None]) -> None:
    """Lets time pass while what arrives is still taken from the port; short waits are exact."""
    if seconds <= 0.02:
        time.sleep(max(0.0, seconds))
    else:
        wait_for(sys.maxsize, seconds)

