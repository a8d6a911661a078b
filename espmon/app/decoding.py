"""The thread that turns what boards say into events, and follows their rates."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import espmon.events as ev
from espmon.app.listener import NEAR_OPENING_S, NEAR_RESET_S, with_rounding
from espmon.app.ordinary import is_ordinary
from espmon.app.publisher import Publisher
from espmon.app.rate import WishRate
from espmon.app.recovery import Do, Emit
from espmon.app.symbols import Symbols, has_addresses
from espmon.app.watch import Watch
from espmon.errors import PortProblem
from espmon.port import Chunk

_log = logging.getLogger(__name__)

DECODE_EVERY_S = 0.05
_HURRY_S = 2.0  # a board that changes its rate does so within this time of its reset
_TOGETHER_S = 0.1


def _gathered(inbox: deque[tuple[float, float, bytes]]) -> Chunk:
    """The bytes at the front that came within a tenth of a second. What waits longer, as at a start, keeps its own time."""
    at, mono, data = inbox.popleft()
    pieces, until = [data], at + _TOGETHER_S
    while inbox and inbox[0][0] <= until:
        at, mono, data = inbox.popleft()
        pieces.append(data)
    return Chunk(at, b"".join(pieces), mono)


class Decoding:
    """Empties the inboxes of all watches, in rounds. What a watch's decoder and policy do is done with its `judging` held.

    `judge` carries out what a policy decided; `sync_soon` has a board's log put on the disk (a crash was seen).
    """

    def __init__(
        self,
        watches: Mapping[str, Watch],
        publisher: Publisher,
        symbols: Symbols,
        judge: Callable[[Watch, list[Emit | Do]], None],
        *,
        sync_soon: Callable[[str], None],
    ) -> None:
        self.beat = time.monotonic()
        self._watches = watches
        self._publisher = publisher
        self._symbols = symbols
        self._judge = judge
        self._sync_soon = sync_soon
        self._hurry_until = 0.0
        self._silent_until: dict[str, float] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)

    def start(self) -> None:
        """Begins; what was heard before is decoded first."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; :meth:`close` decodes the rest."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(3.0)

    def wake(self) -> None:
        """Something was heard."""
        if not self._wake.is_set():
            self._wake.set()

    def hurry(self, watch: Watch) -> None:
        """This board is about to change its rate: for two seconds its bytes are read and looked at as they come."""
        self._hurry_until = watch.hurry_until = time.monotonic() + _HURRY_S

    def _run(self) -> None:
        offset = time.time() - time.monotonic()
        while not self._stopping.is_set():
            self._wake.wait(0.25)
            self._wake.clear()
            self.beat = mono = time.monotonic()
            now = time.time()
            jumped_back = (now - mono) - offset < -1.0
            offset = now - mono
            try:
                self._round(now, jumped=jumped_back)
            except Exception:  # noqa: BLE001 - logged; one board's fault must not end the others
                _log.exception("decoding")
            time.sleep(DECODE_EVERY_S if mono > self._hurry_until else 0.002)

    def close(self) -> None:
        """The daemon ends: what is left is decoded, what is unfinished is closed."""
        self._round(time.time(), closing=True)

    def _round(self, now: float, *, jumped: bool = False, closing: bool = False) -> None:
        for watch in list(self._watches.values()):
            due = watch.due
            if not watch.inbox and not closing and not jumped and (due is None or due > now):
                continue
            with watch.judging:
                try:
                    self.decode(watch, now, jumped=jumped, closing=closing)
                except PortProblem as problem:
                    _log.warning("%s: %s", watch.name, problem.message)
                except Exception:  # noqa: BLE001 - logged; one board's fault must not end the others
                    self._failed(watch)

    def _failed(self, watch: Watch) -> None:
        """A fault of ours with this board, which may be there again in each round: told once a minute, tried once a second."""
        watch.due = time.time() + 1.0
        mono = time.monotonic()
        if mono >= self._silent_until.get(watch.name, 0.0):
            self._silent_until[watch.name] = mono + 60.0
            _log.exception("%s: decoding", watch.name)

    def decode(self, watch: Watch, now: float, *, jumped: bool = False, closing: bool = False) -> None:
        """What waits of one board, and what is due. `jumped`: the clock went back, so deadlines can't be waited for."""
        rate, decoder = watch.rate, watch.decoder
        if jumped:
            watch.clock_set_back(now)
        waited = False
        while watch.inbox:
            chunk = _gathered(watch.inbox)
            if waited:  # what was due between two pieces comes between them
                self._tick(watch, chunk.at)
            waited = True
            watch.inbox_taken += len(chunk.data)
            watch.policy.bytes_heard(chunk.at)
            if watch.skipped:
                skipped, watch.skipped = watch.skipped, 0
                reason = "decoder too slow; the raw log has them"
                self._publisher.publish(watch, ev.Gap(at=now, port=watch.name, bytes=skipped, reason=reason))
            self.sort(watch, rate.hear(chunk))
        self._tick(watch, now, jumped=jumped)
        if closing:
            self.sort(watch, rate.close(now))
            self._events(watch, decoder.close(now))
        self._judge(watch, watch.policy.tick(now))
        deadlines = [d for d in (rate.next_deadline, decoder.next_deadline, watch.policy.next_deadline) if d is not None]
        watch.due = min(deadlines, default=None)

    def _tick(self, watch: Watch, now: float, *, jumped: bool = False) -> None:
        deadline = watch.rate.next_deadline
        if deadline is not None and (now >= deadline or jumped):
            self.sort(watch, watch.rate.tick(max(now, deadline)))
        deadline = watch.decoder.next_deadline
        if deadline is not None and (now >= deadline or jumped):
            self._events(watch, watch.decoder.tick(max(now, deadline)))

    def sort(self, watch: Watch, heard: Iterable[Chunk | ev.Event | WishRate]) -> None:
        """What a rate follower made of bytes: text for the decoder, facts of its own, wishes for another rate."""
        for each in heard:
            if isinstance(each, Chunk):
                self._events(watch, watch.decoder.feed(each.data, each.at))
            elif isinstance(each, WishRate):
                self.set_rate(watch, each)
            else:
                self._events(watch, watch.decoder.insert(each))

    def set_rate(self, watch: Watch, wish: WishRate) -> None:
        """Another rate for an open port that nobody has borrowed; what the port refuses is logged."""
        with watch.io:
            if watch.state != "run" or watch.port is None:
                return
            try:
                got = watch.port.set_baud(wish.baud)
            except PortProblem as problem:
                _log.warning("%s: %s", watch.name, problem.message)
                return
        now = time.time()
        self.hurry(watch)
        watch.rate_set(now, wish.baud)
        watch.log.mark("rate", now, time.monotonic(), baud=wish.baud)
        self._publisher.port_changed(watch, "rate", with_rounding(wish.reason, got), wish.baud)

    def _events(self, watch: Watch, events: list[ev.Event]) -> None:
        policy = watch.policy
        for event in events:
            if isinstance(event, ev.Text):
                if policy.listening or watch.section.healthy is not None:
                    self._text(watch, event)
                elif event.at is not None and event.at - watch.noted_text >= 1.0:
                    # once a second is enough to know that it talks
                    line = event.raw.rstrip().rpartition(b"\n")[2]
                    if is_ordinary(line):
                        watch.noted_text = event.at
                        policy.heard(event.at, event.end_line or 0)
                continue
            if isinstance(event, ev.BootLoop):
                continue  # the policy states loops, by the configured count
            if isinstance(event, ev.Boot):
                event = self._booted(watch, event)
            elif isinstance(event, ev.Crash):
                self._sync_soon(watch.name)
                watch.healthy_since = None
            decisions = policy.observe(event)
            if has_addresses(event):
                booted = watch.last_boot.at if watch.last_boot else None
                self._symbols.explain(event, watch.name, booted, lambda e, sha, w=watch: self._publisher.publish(w, e, sha))  # type: ignore[misc]
            else:
                self._publisher.publish(watch, event)
            self._judge(watch, decisions)

    def _booted(self, watch: Watch, event: ev.Boot) -> ev.Boot:
        at = event.at if event.at is not None else time.time()
        if event.caused_by is None:
            if 0 <= at - watch.reset_at <= NEAR_RESET_S or watch.state == "busy":
                event = replace(event, caused_by="espmon")
                watch.reset_at = float("-inf")  # one reset, one boot: the next is the board's own doing
            elif 0 <= at - watch.opened_at <= NEAR_OPENING_S:
                event = replace(event, caused_by="open")
        watch.last_boot = event
        watch.healthy_since = at
        if watch.section.baud is None:
            self.hurry(watch)
        return event

    def _text(self, watch: Watch, event: ev.Text) -> None:
        marker = watch.section.healthy.encode() if watch.section.healthy else None
        at = event.at if event.at is not None else time.time()
        for number, line in watch.lines_of(event):
            marked = marker is not None and re.search(marker, line) is not None
            if marked or (watch.policy.listening and is_ordinary(line)):
                watch.policy.heard(at, number, marker=marked)
