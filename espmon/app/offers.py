"""A watched port offered to RFC 2217 clients, as configured."""

from __future__ import annotations

import logging
import time

from espmon.app.config import is_loopback
from espmon.app.decoding import Decoding
from espmon.app.hands import Hands
from espmon.app.rate import WishRate
from espmon.app.watch import Watch
from espmon.store.database import Database

_log = logging.getLogger(__name__)


class Offers:
    """Begins and ends the offers; clients share the port with the daemon's reader."""

    def __init__(self, decoding: Decoding, hands: Hands, database: Database) -> None:
        self._decoding = decoding
        self._hands = hands
        self._database = database

    def end(self, watch: Watch) -> None:
        """No client any more."""
        offered, watch.offered = watch.offered, None
        if offered is not None:
            offered.stop()

    def begin(self, watch: Watch) -> None:
        """Begins, changes or ends the offer, as the board's section says."""
        self.end(watch)
        if watch.section.rfc2217 is None:
            return
        host, number = watch.section.rfc2217
        if not is_loopback(host):
            _log.warning("%s: RFC 2217 at %s:%d has no login; everybody who reaches it can write to the board", watch.name, host, number)
        pulled = False

        def set_lines(dtr: bool | None, rts: bool | None) -> bool:
            nonlocal pulled
            with watch.io:
                if watch.state != "run" or watch.port is None:
                    return False
                done = watch.port.set_lines(dtr, rts)
            if rts is False and pulled:
                self._hands.was_reset(watch, "RFC 2217", "DTR and RTS")
            pulled = rts is True or (pulled and rts is None)
            return done

        def set_baud(rate: int) -> None:
            self._decoding.set_rate(watch, WishRate(rate, "RFC 2217"))

        def baud() -> int:
            return watch.port.baud if watch.port is not None else watch.rate.baud

        def told(text: str) -> None:
            _log.info("%s: %s", watch.name, text)
            self._database.audit(time.time(), watch.name, "RFC 2217", text)

        from espmon.port.rfc2217 import Rfc2217Server, Shared

        try:
            watch.offered = Rfc2217Server(Shared(watch.write, set_lines, set_baud, baud), watch.name, host, number, told)
        except OSError as error:
            _log.error("%s: cannot offer RFC 2217 at %s:%d: %s", watch.name, host, number, error.strerror)
            return
        _log.info("%s: RFC 2217 at %s:%d", watch.name, *watch.offered.address)
