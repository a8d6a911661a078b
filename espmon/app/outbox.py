"""The bounded queue between the thread that reads the port and the one that shows what it said."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

from espmon.events import Event, Gap, LimitReached, Text

BOUND_BYTES = 8 << 20  # 12 minutes of a full 115200 line
BOUND_FACTS = 20_000  # events beside the text; a screen that stands still for ever must not cost ever more memory
STALL_S = 1.0  # how long a full queue makes the port's thread wait for a screen that shows nothing

WINDOWS_WAIT_S = 0.25


class Slot:
    """An event that will be told better a little later: what stands in its place meanwhile, and what came of it."""

    __slots__ = ("event", "fault", "ready", "since", "source")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.source: dict[tuple[str, int], str] = {}
        self.ready = threading.Event()
        self.fault: str | None = None  # the bug that kept it from being told better
        self.since = time.monotonic()


Item = Event | Slot


class Outbox:
    """Items for the screen, in order; wishes of the keyboard beside them, which overtake.

    When the text waiting here reaches the bound and the reader doesn't take any for `STALL_S`, text is dropped and a
    `Gap` stands in its place: the raw log is complete, the port is read on. Facts are dropped only past a bound of
    their own, which is told by `LimitReached`.
    """

    def __init__(self, bound: int = BOUND_BYTES) -> None:
        self._bound = bound
        self._items: deque[Item] = deque()
        self._wishes: deque[object] = deque()
        lock = threading.Lock()  # one lock, two things to wait for
        self._changed = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._bytes = 0
        self._dropped = 0
        self._facts_dropped = False
        self._taken = 0
        self._gave_up_at = -1  # `_taken` when waiting for room was last in vain
        self._waiting = False
        self._nudged = False

    def put(self, items: Iterable[Item]) -> None:
        with self._changed:
            for item in items:
                if isinstance(item, Text):
                    size = len(item.raw)
                    if self._bytes + size > self._bound and not self._wait_for_room():
                        self._dropped += size
                        continue
                    self._bytes += size
                elif len(self._items) > BOUND_FACTS:
                    self._facts_dropped = True
                    continue
                self._mark_gap()
                self._items.append(item)
            if self._waiting:
                self._changed.notify()

    def _wait_for_room(self) -> bool:
        """With the lock held. False when nobody took anything for a while, and still hasn't."""
        if self._gave_up_at == self._taken:
            return False
        self._changed.notify()
        limit = time.monotonic() + STALL_S
        taken = self._taken
        while self._bytes > self._bound // 2:
            left = limit - time.monotonic()
            if left <= 0:
                if self._taken == taken:
                    self._gave_up_at = taken
                    return False
                taken, limit = self._taken, time.monotonic() + STALL_S
                continue
            self._room.wait(left)
        return True

    def _mark_gap(self) -> None:
        if self._dropped:
            self._items.append(Gap(bytes=self._dropped, reason="the screen was too slow to show them"))
            self._dropped = 0
        if self._facts_dropped and len(self._items) <= BOUND_FACTS:
            self._items.append(LimitReached(what="events waiting for the screen: later ones were not shown", limit=BOUND_FACTS))
            self._facts_dropped = False

    def wish(self, wish: object) -> None:
        """From the keyboard or a signal: overtakes what waits to be shown."""
        with self._changed:
            self._wishes.append(wish)
            self._changed.notify()

    @property
    def wishes_waiting(self) -> int:
        return len(self._wishes)

    def wish_from_signal(self, wish: object) -> None:
        """The same from a signal handler, which may have interrupted us while we hold the lock: only appends.

        Python runs handlers between two instructions of the main thread and then lets its wait go on; so the wait is
        ended by a short thread of its own.
        """
        self._wishes.append(wish)
        threading.Thread(target=self.nudge, daemon=True).start()

    def nudge(self) -> None:
        """Wakes the reader without an item: a slot has become ready. It is not forgotten when the reader is busy now."""
        with self._changed:
            self._nudged = True
            self._changed.notify()

    def take(self, timeout: float | None) -> tuple[Sequence[object], Sequence[Item]]:
        """(wishes, items), at most 256 KiB of text at once; both empty when the time ran out or on a nudge."""
        with self._changed:
            if not self._items and not self._wishes and not self._nudged:
                self._waiting = True
                if sys.platform == "win32":  # a signal's handler runs only when a wait is over
                    timeout = WINDOWS_WAIT_S if timeout is None else min(timeout, WINDOWS_WAIT_S)
                self._changed.wait(timeout)
                self._waiting = False
            self._nudged = False
            wishes = tuple(self._wishes)
            self._wishes.clear()
            items: list[Item] = []
            size = 0
            while self._items and size < 262144:
                item = self._items.popleft()
                if isinstance(item, Text):
                    size += len(item.raw)
                items.append(item)
            if not self._items:
                self._mark_gap()
            self._bytes -= size
            self._taken += len(items)
            self._room.notify()
            return wishes, items
