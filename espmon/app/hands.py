"""A port changes hands: borrowed for an operation, lent to another program, taken back, the board reset."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import espmon.events as ev
from espmon.app.decoding import Decoding
from espmon.app.incidents import Incidents
from espmon.app.listener import reset_sequence
from espmon.app.ports import Ports
from espmon.app.publisher import Publisher
from espmon.app.rate import WishRate
from espmon.app.readers import Readers
from espmon.app.watch import Watch
from espmon.errors import PortGone, PortProblem
from espmon.port import SerialPort
from espmon.store.database import Database


class Hands:
    """Who has which port. One owner at a time: whoever works on a port takes it out of its reader first."""

    def __init__(
        self,
        ports: Ports,
        readers: Readers,
        decoding: Decoding,
        incidents: Incidents,
        publisher: Publisher,
        database: Database,
    ) -> None:
        self._ports = ports
        self._readers = readers
        self._decoding = decoding
        self._incidents = incidents
        self._publisher = publisher
        self._database = database
        self._counting = threading.Lock()
        self._busy = 0

    def wait(self, seconds: float) -> None:
        """Returns when no port is borrowed any more, after `seconds` at the latest."""
        limit = time.monotonic() + seconds
        while self._busy and time.monotonic() < limit:
            time.sleep(0.05)

    def _count(self, by: int) -> None:
        with self._counting:
            self._busy += by

    @contextlib.contextmanager
    def borrow(self, watch: Watch, who: str) -> Iterator[SerialPort]:
        """Takes the open port out of its reader for an operation of `who`, and gives it back afterwards.

        Raises `PortProblem` when the board is away or somebody else has it.
        """
        with watch.io:
            if watch.state != "run" or watch.port is None:
                raise PortProblem(watch.name, watch.held, "espmon status tells who has it")
            reader = self._readers.of(watch.port)
            reader.remove(watch)
            watch.state, watch.holder = "busy", who
            watch.expect_frames()
            port = watch.port
        self._count(1)
        lost: str | None = None
        try:
            yield port
        except PortGone as gone:
            lost = gone.message
            raise
        finally:
            self._count(-1)
            gone_for: str | None = None
            with watch.io:
                watch.holder = None
                if watch.state == "busy":
                    watch.state = "run"
                    if lost is None and port.is_open:
                        with contextlib.suppress(PortProblem):
                            if port.baud != watch.rate.baud:
                                port.set_baud(watch.rate.baud)
                        reader.add(watch, port)
                    else:
                        gone_for = lost or "it was closed"
            # not with `io` held: it takes `judging`, and who holds that takes `io` (a change of rate)
            if gone_for is not None:
                self._ports.lost(watch, gone_for)
            elif watch.changed is not None:
                self._ports.drop(watch, watch.changed)

    def lend(self, watch: Watch, who: str) -> None:
        """Closes the port for `who` until :meth:`reclaim`. Raises `PortProblem`."""
        with watch.io:
            if watch.state not in ("run", "failed"):
                raise PortProblem(watch.name, watch.held, "espmon status tells who has it")
            self._ports.lend(watch)
            watch.state, watch.holder, watch.since = "lent", who, time.time()
        watch.log.mark("lent", watch.since, time.monotonic(), to=who)
        self._database.audit(watch.since, watch.name, who, "lend")
        self._publisher.port_changed(watch, "closed", f"lent to {who}")

    def reclaim(self, watch: Watch, who: str) -> None:
        """Takes a lent port back; it is opened as soon as whoever had it lets go. Raises `PortProblem` when it isn't lent."""
        with watch.io:
            if watch.state != "lent":
                raise PortProblem(watch.name, f"{watch.name} is not lent", _why_not_lent(watch))
            watch.state, watch.holder, watch.try_again = "away", None, 0.0
        now = time.time()
        watch.log.mark("returned", now, time.monotonic(), by=who)
        self._database.audit(now, watch.name, who, "reclaim")
        self._ports.look()

    def reset(self, watch: Watch, who: str) -> None:
        """Resets the board by its EN line. Raises `PortProblem`."""
        with self.borrow(watch, who) as port:
            self.pulse(watch, port, who)

    def pulse(self, watch: Watch, port: SerialPort, who: str) -> None:
        """Pulls EN low for a moment on a port that is borrowed, and says so. Raises `PortProblem` when there are no lines."""
        if not port.set_lines(dtr=False, rts=False):
            raise PortProblem(watch.name, f"{watch.name} has no DTR and RTS lines: the board can't be reset through it")
        from espmon.port import run_steps

        sequence = reset_sequence(port)
        with watch.judging:
            for each in watch.rate.before_reset(time.time()):
                if isinstance(each, WishRate):  # the port is borrowed: ours to set
                    port.set_baud(each.baud)
                    watch.rate_set(time.time(), each.baud)
                else:
                    self._decoding.sort(watch, [each])
        run_steps(port, sequence.run(), heard=watch.chunk_heard)
        self.was_reset(watch, who, sequence.name)

    def was_reset(self, watch: Watch, who: str, how: str) -> None:
        """espmon has reset the board: boots heard now are its doing, and everybody is told."""
        now = time.time()
        watch.reset_at = now
        watch.expect_boot_text()
        self._decoding.hurry(watch)
        watch.rate.board_reset(now)
        watch.log.mark("reset-caused", now, time.monotonic(), by=who, how=how)
        self._database.audit(now, watch.name, who, "reset", how=how)
        self._incidents.was_reset(watch, ev.ResetCaused(at=now, port=watch.name, by=who, how=how))


def _why_not_lent(watch: Watch) -> str:
    """What there is to do about a port that was to be taken back and isn't lent."""
    match watch.state:
        case "run":
            return "the daemon has it already"
        case "busy":
            return f"{watch.holder} works on it, and gives it back"
        case _:
            return "the daemon opens it as soon as it is there; espmon status tells why it isn't"
