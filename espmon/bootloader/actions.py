"""What a bootloader operation asks of the port: Actions, yielded by Steps, with the results that they are sent back.

A *Step* is a plain generator. It yields one :class:`Action` after the other and is resumed with that action's result; it
knows no clock, no port and no thread. Whoever owns a port interprets the actions (``espmon.port``), a test plays them
against a model with a clock of its own (``tests/bootloader``).

| action | the interpreter does | result |
|---|---|---|
| :class:`SetLines` | sets DTR and RTS, both in one call when both are given and the system can | None |
| :class:`SetBaud` | changes the host's rate, after everything sent has left | None |
| :class:`Send` | writes all bytes | None |
| :class:`Receive` | waits for bytes | ``bytes``; empty only when the time ran out |
| :class:`Wait` | lets time pass; received bytes stay for the next `Receive` | None |
| :class:`Discard` | takes what has arrived and is not read yet | ``bytes``, all of it |
| :class:`Now` | tells the time of a steady clock | ``float`` seconds |
| :class:`Note` | passes the fact on to the caller | None |

Every byte that the interpreter takes from the port goes to the raw log first, whatever the Step does with it.

What the interpreter throws into a Step, at the action that could not be done: :class:`espmon.errors.PortGone`,
:class:`espmon.bootloader.errors.SendStalled` when the host could not write for 10 s, and once
:class:`espmon.bootloader.errors.Stopped` when somebody asked to stop. A Step may answer with more actions, bounded in
time, to leave the board in a safe state; after that it lets the error pass.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar


@dataclass(frozen=True, slots=True)
class Action:
    """Base of all actions."""


@dataclass(frozen=True, slots=True)
class SetLines(Action):
    """Set modem lines; None leaves a line as it is. True is asserted, that is, the adapter's pin goes low.

    On boards with the usual two transistors DTR pulls GPIO0 and RTS pulls EN, each only while the other is released.
    """

    dtr: bool | None = None
    rts: bool | None = None


@dataclass(frozen=True, slots=True)
class SetBaud(Action):
    """Change the host's rate to `rate` bit/s; what was sent before still leaves at the old one."""

    rate: int


@dataclass(frozen=True, slots=True)
class Send(Action):
    """Write all of `data`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Receive(Action):
    """Wait until `at_least` bytes have arrived or `timeout_s` seconds have passed; the result is all that arrived.

    `at_least` saves waking up for every few bytes of a large frame. It is a wish: an interpreter may return sooner with
    what it has, but never with nothing before the time is over.
    """

    timeout_s: float
    at_least: int = 1


@dataclass(frozen=True, slots=True)
class Wait(Action):
    """Let `seconds` pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Discard(Action):
    """Take everything received so far; the bytes are returned, so that nothing heard is lost."""


@dataclass(frozen=True, slots=True)
class Now(Action):
    """Ask for the time: seconds of a clock that never goes back."""


@dataclass(frozen=True, slots=True)
class Note(Action):
    """Tell the caller a fact, one of the classes in :mod:`espmon.bootloader.notes`."""

    fact: object


T = TypeVar("T")
Steps: TypeAlias = Generator[Action, Any, T]
