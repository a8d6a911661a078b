"""Steps played against the pure virtual board, on its clock: no thread, no sleeping, minutes in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from espmon.board.board import Board
from espmon.board.settings import BoardSettings
from espmon.bootloader.actions import Action, Discard, Note, Now, Receive, Send, SetBaud, SetLines, Steps, Wait
from espmon.bootloader.errors import SendStalled, Stopped
from espmon.bootloader.loader import StubPayload
from espmon.bootloader.resets import SEQUENCES
from espmon.bootloader.session import SessionPlan

T = TypeVar("T")

# The board runs its model of a stub whatever code it is given; the sizes are those of esptool's payloads.
STUBS = {
    name: StubPayload(
        name=name, entry=entry, text=b"\x5a" * text, text_start=entry & ~0xF, data=b"\xa5" * 200, data_start=data
    )
    for name, entry, text, data in (
        ("esp8266", 0x4010C504, 11456, 0x3FFFAE6C),
        ("esp32", 0x400BE4A0, 6456, 0x3FFDEBA8),
        ("esp32s2", 0x40028000, 6400, 0x3FFE2B84),
        ("esp32s3", 0x40378000, 8000, 0x3FCB2BC8),
        ("esp32c2", 0x40380000, 5900, 0x3FCAE000),
        ("esp32c3", 0x40380000, 5880, 0x3FC96BA8),
        ("esp32c5", 0x40800000, 8000, 0x4082E000),
        ("esp32c6", 0x40800000, 7000, 0x4084F000),
        ("esp32c61", 0x40800000, 7000, 0x4083E000),
        ("esp32h2", 0x40800000, 6000, 0x4083E000),
        ("esp32p4", 0x4FF10000, 8208, 0x4FF5E000),
    )
}
DEADLINE_S = 3600.0


def plan(**changes: Any) -> SessionPlan:
    """A plan for the virtual board: its lines, a stub for every chip."""
    return replace(SessionPlan(sequences=SEQUENCES["sim"], rate=460800, stubs=STUBS), **changes)


def board(cells: bytearray | None = None, **settings: Any) -> Board:
    """A virtual board with these settings, started and left alone for as long as its start takes."""
    out = Board(BoardSettings(**settings), cells)
    out.advance(0.3)
    return out


class Player:
    """Plays Steps on a board. `notes` and `heard` collect what was told; `sent` counts what the host sent."""

    def __init__(self, board: Board, *, stop_at: int | None = None) -> None:
        self.board = board
        self.notes: list[object] = []
        self.heard = bytearray()
        self.actions = 0
        self.sent = 0
        self.stop_at = stop_at
        board.set_rate(115200)

    def run(self, steps: Steps[T]) -> T:
        result: Any = None
        failure: BaseException | None = None
        end_of_patience = self.board.now + DEADLINE_S
        while True:
            assert self.board.now < end_of_patience, "the Steps never end"
            try:
                action = steps.send(result) if failure is None else steps.throw(failure)
            except StopIteration as end:
                value: T = end.value
                return value
            failure = None
            self.actions += 1
            if self.stop_at is not None and self.actions >= self.stop_at:
                self.stop_at = None
                failure = Stopped()
                continue
            try:
                result = self._perform(action)
            except SendStalled as stalled:
                failure = stalled

    def _perform(self, action: Action) -> Any:
        b = self.board
        match action:
            case SetLines(dtr=dtr, rts=rts):
                b.set_lines(dtr, rts)
            case SetBaud(rate=rate):
                b.advance(max(b.now, b.sending_until))
                b.set_rate(rate)
            case Send(data=data):
                self.sent += len(data)
                if b.host_write(data) == 0 and data and b.settings.write_stall:
                    b.advance(b.now + 10)
                    raise SendStalled("virtual board")
            case Receive(timeout_s=seconds, at_least=count):
                limit = b.now + seconds
                while b.host_waiting < count and b.now < limit:
                    event = b.next_event()
                    b.advance(limit if event is None else min(limit, max(event, b.now + 1e-6)))
                return self._take()
            case Wait(seconds=seconds):
                b.advance(b.now + seconds)
            case Discard():
                return self._take()
            case Now():
                return b.now
            case Note(fact=fact):
                self.notes.append(fact)
            case _:
                raise AssertionError(f"no action: {action!r}")
        return None

    def _take(self) -> bytes:
        data = self.board.host_read()
        self.heard += data
        return data


__all__ = ["STUBS", "Player", "board", "plan"]
