"""``--baud auto``: the port's rate follows the board. Between the pure `RateWatch` and whoever owns the port.

Bytes that were sent at another rate don't reach the decoder or the screen: what they said does. The raw log has them
before anybody here sees them. The rate and whether the boot ROM talks at its own are remembered per board.
"""

from __future__ import annotations

from collections.abc import Sequence

from espmon.app.rate import DEFAULT_BAUD, CountsDamaged, Heard, WishRate
from espmon.app.ratememory import RateMemory
from espmon.app.rates import stretch_events
from espmon.port import Chunk
from espmon.uart.watch import ChangeRate, Clear, Garbled, RateWatch, Verdict


class AutoRate:
    """A `RateFollower`. `fixed`: a rate that a person chose; text at another is still told and read, the rate stays.

    `start`: the rate to begin with. `board` is the port's identity (a stable text) under which the rate is remembered in `memory`; None: nothing is.
    """

    def __init__(
        self,
        *,
        fixed: int | None = None,
        start: int | None = None,
        board: str | None = None,
        memory: RateMemory | None = None,
    ) -> None:
        self._board = board if fixed is None else None
        self._memory = memory
        known, two_rates = memory.recall(board) if memory is not None and board is not None else (None, False)
        self.baud = fixed or start or known or DEFAULT_BAUD
        self._watch = RateWatch(self.baud, auto=fixed is None, two_rates=two_rates)
        self._passes = self._watch.passes
        self._kept: tuple[int, bool] | None = (known, two_rates) if known is not None else None
        self._mono = 0.0
        self._damaged: CountsDamaged | None = None

    @property
    def next_deadline(self) -> float | None:
        return self._watch.next_deadline

    @property
    def reads_well(self) -> bool:
        """True when text was read at the present rate."""
        return self._watch.reads_well

    @property
    def text_read(self) -> int:
        """Bytes that were read as text at the present rate."""
        return self._watch.text_read

    @property
    def inferred(self) -> int | None:
        """The rate that was told from bytes sent at it, whether or not text was read at it since."""
        return self._watch.inferred

    @property
    def two_rates(self) -> bool:
        """True when a boot ROM was heard at its own rate."""
        return self._watch.two_rates

    def opened(self, at: float, baud: int, damaged: CountsDamaged | None = None) -> None:
        self._damaged = damaged
        self._watch.rate_set(baud, at)

    def hear(self, chunk: Chunk) -> Sequence[Heard]:
        if self._passes(chunk.data):
            return (chunk,)
        self._mono = chunk.mono
        verdicts = self._watch.feed(chunk.data, chunk.at, self._damaged() if self._damaged is not None else None)
        if len(verdicts) == 1 and isinstance(verdicts[0], Clear) and len(verdicts[0].data) == len(chunk.data):
            if self._watch.settled is not None:
                self._remember()
            return (chunk,)
        return self._heard(verdicts)

    def rate_set(self, at: float, baud: int) -> None:
        self.baud = baud
        self._watch.rate_set(baud, at)

    def before_reset(self, at: float) -> Sequence[Heard]:
        """espmon is about to reset the board: where its ROM talks at a rate of its own, that one comes first."""
        return self._heard(self._watch.before_reset(at))

    def board_reset(self, at: float) -> None:
        self._watch.board_reset(at)

    def tick(self, at: float) -> Sequence[Heard]:
        return self._heard(self._watch.tick(at))

    def close(self, at: float) -> Sequence[Heard]:
        """The port was closed: what was held back."""
        return self._heard(self._watch.close(at))

    def _heard(self, verdicts: Sequence[Verdict]) -> list[Heard]:
        out: list[Heard] = []
        for verdict in verdicts:
            match verdict:
                case Clear(data=data, at=at):
                    out.append(Chunk(at, data, self._mono))
                case Garbled(data=data, at=at, received_at=received_at, stretches=stretches):
                    for stretch in stretches:
                        out.extend(stretch_events(stretch, data, received_at, None, at))
                case ChangeRate(rate=rate, why=why):
                    out.append(WishRate(rate, why))
        return out

    def _remember(self) -> None:
        rate = self._watch.settled
        if self._memory is None or self._board is None or rate is None:
            return
        now = (rate, self._watch.two_rates)
        if now != self._kept:
            self._kept = now
            self._memory.keep(self._board, *now)
