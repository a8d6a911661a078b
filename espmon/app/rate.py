"""The seam between the port and whoever knows at which rate the board talks.

A :class:`RateFollower` sees every chunk before the decoder does and answers with what the decoder is to see, events of
its own, and wishes for another rate. The raw log has the bytes before it does, so it may replace what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from espmon.events import Event
from espmon.port import Chunk
from espmon.values import Value, positional_value

if TYPE_CHECKING:
    from espmon.app.ratememory import RateMemory

DEFAULT_BAUD = 115200


@positional_value
class WishRate(Value):
    """Set the port to `baud`; `reason` is told to the person."""

    baud: int
    reason: str | None = None


Heard = Chunk | Event | WishRate
CountsDamaged = Callable[[], int | None]


class RateFollower(Protocol):
    """What the port's thread asks. All calls come from that thread; times are Unix seconds, as in chunks."""

    baud: int
    """The rate to open the port with."""

    def opened(self, at: float, baud: int, damaged: CountsDamaged | None = None) -> None:
        """The port was opened, or opened again, at `baud`. `damaged` tells, where the driver does, how many bytes came
        without their stop bit since some time in the past."""

    def hear(self, chunk: Chunk) -> Sequence[Heard]:
        """Called with each chunk; usually answers with the same chunk."""

    def rate_set(self, at: float, baud: int) -> None:
        """A wish was carried out, or a person changed the rate."""

    def before_reset(self, at: float) -> Sequence[Heard]:
        """espmon is about to reset the board: wishes to be carried out before it."""

    def board_reset(self, at: float) -> None:
        """espmon has just reset the board: the ROM's text comes next."""

    def tick(self, at: float) -> Sequence[Heard]:
        """Called when `next_deadline` has passed."""

    def close(self, at: float) -> Sequence[Heard]:
        """The port was closed or lost: what was held back."""

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`tick` wants to be called, or None."""


def known_board(port: str) -> str | None:
    """The identity of the board behind `port` under which things may be remembered; None for what is no USB device
    (the next pseudo terminal or URL of that name is another board)."""
    from espmon.port import names

    device = names.device_path(port)
    if names.is_url(device):
        return None
    key = names.identify(device).key
    return key if key.startswith("usb:") else None


class FixedRate:
    """A rate that a person chose: everything goes through as it is."""

    next_deadline: float | None = None

    def __init__(self, baud: int) -> None:
        self.baud = baud

    def opened(self, at: float, baud: int, damaged: CountsDamaged | None = None) -> None:
        pass

    def hear(self, chunk: Chunk) -> Sequence[Heard]:
        return (chunk,)

    def rate_set(self, at: float, baud: int) -> None:
        self.baud = baud

    def before_reset(self, at: float) -> Sequence[Heard]:
        return ()

    def board_reset(self, at: float) -> None:
        pass

    def tick(self, at: float) -> Sequence[Heard]:
        return ()

    def close(self, at: float) -> Sequence[Heard]:
        return ()


class LateFollower:
    """A follower that is made by `make` when the first thing is to be followed: opening the port at `baud` needn't wait for
    what it loads (50 ms on a desk machine, more on a gateway)."""

    def __init__(self, baud: int, make: Callable[[], RateFollower]) -> None:
        self.baud = baud
        self._make = make
        self._real: RateFollower | None = None
        self._opened: tuple[float, int, CountsDamaged | None] | None = None

    def _follower(self) -> RateFollower:
        if self._real is None:
            self._real = self._make()
            if self._opened is not None:
                self._real.opened(*self._opened)
        return self._real

    @property
    def next_deadline(self) -> float | None:
        return None if self._real is None else self._real.next_deadline

    def opened(self, at: float, baud: int, damaged: CountsDamaged | None = None) -> None:
        self._opened = (at, baud, damaged)
        if self._real is not None:
            self._real.opened(at, baud, damaged)

    def hear(self, chunk: Chunk) -> Sequence[Heard]:
        return self._follower().hear(chunk)

    def rate_set(self, at: float, baud: int) -> None:
        self.baud = baud
        self._follower().rate_set(at, baud)

    def before_reset(self, at: float) -> Sequence[Heard]:
        return self._follower().before_reset(at)

    def board_reset(self, at: float) -> None:
        self._follower().board_reset(at)

    def tick(self, at: float) -> Sequence[Heard]:
        return () if self._real is None else self._real.tick(at)

    def close(self, at: float) -> Sequence[Heard]:
        return () if self._real is None else self._real.close(at)


def follower_of(board: str | None, fixed: int | None, memory: RateMemory) -> RateFollower:
    """Finds out the rate of `board` (under which `memory` knows it; None: nothing is remembered), or, at a rate that a person
    chose, only says what was sent at another: boot text at the ROM's own rate is read all the same."""

    def make() -> RateFollower:
        from espmon.app.autorate import AutoRate

        return AutoRate(fixed=fixed) if fixed is not None else AutoRate(board=board, memory=memory)

    known = memory.recall(board)[0] if board is not None and fixed is None else None
    return LateFollower(fixed or known or DEFAULT_BAUD, make)


def follower_at(port: str, fixed: int | None) -> RateFollower:
    """The same for whatever board is at `port`."""
    from espmon.app.ratememory import RateMemory

    return follower_of(known_board(port) if fixed is None else None, fixed, RateMemory())
