"""The threads of the raw logs: one writes what waits in all rings, one looks after closed segments and the disk's space."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from espmon.store.portlog import MIB, LogGap, LogLimits, PortLog
from espmon.store.retention import Retention
from espmon.store.steadiness import Steadiness

_log = logging.getLogger(__name__)

# The writer gathers what several reads bring: what a kill can lose at most.
_GATHER_S = 0.05


class LogWriter:
    """The one thread that writes raw logs, and a second one that compresses and deletes.

    `on_gaps` is called from the writer thread with gaps that were recorded. `clock`: (wall, monotonic), for tests.
    """

    def __init__(
        self,
        root: Path,
        limits: LogLimits,
        *,
        on_gaps: Callable[[list[LogGap]], None] | None = None,
        on_state: Callable[[bool, int], None] | None = None,
        clock: Callable[[], tuple[float, float]] | None = None,
    ) -> None:
        self.root = root
        self.limits = limits
        self.low_on_space = False
        self._on_gaps = on_gaps
        self._on_state = on_state
        self._clock = clock or (lambda: (time.time(), time.monotonic()))
        self._logs: dict[str, PortLog] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # one thread at a time in a log's files: a log may end while the writer is at it
        self._wake = threading.Event()
        self._stop = False
        self._sync_now: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._keep_wake = threading.Event()
        self._steadiness = Steadiness()
        self._retention = Retention(root, limits)

    def open(self, name: str) -> PortLog:
        """The log of port `name`; the same object as long as it is open."""
        with self._lock:
            log = self._logs.get(name)
            if log is None:
                log = self._logs[name] = PortLog(self.root, name, self.limits)
                share = max(64 * 1024, self.limits.rings_total // len(self._logs))
                for each in self._logs.values():
                    each.ring_bytes = min(self.limits.ring_bytes, share)
            return log

    def release(self, name: str) -> None:
        """Ends the log of a port that is no longer watched."""
        with self._lock:
            log = self._logs.pop(name, None)
        if log is not None:
            with self._writing:
                gaps = log.close(*self._clock())
            self._report(gaps)

    def start(self) -> None:
        """Starts the writer and the keeper threads."""
        for name, target in (("log-writer", self._write_forever), ("log-keeper", self._keep_forever)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def wake(self) -> None:
        """There is something to write."""
        if not self._wake.is_set():
            self._wake.set()

    def sync_soon(self, name: str) -> None:
        """fsync this port's log at the next round: a crash was seen."""
        self._sync_now.add(name)
        self.wake()

    def stop(self) -> None:
        """Writes what waits, ends all segments, joins the threads."""
        self._stop = True
        self._wake.set()
        self._keep_wake.set()
        for thread in self._threads:
            thread.join(10)
        with self._lock:
            logs = list(self._logs.values())
            self._logs.clear()
        for log in logs:
            with self._writing:
                gaps = log.close(*self._clock())
            self._report(gaps)

    def _report(self, gaps: list[LogGap]) -> None:
        if gaps and self._on_gaps:
            self._on_gaps(gaps)

    def _write_forever(self) -> None:
        next_sync = next_space = 0.0
        while not self._stop:
            self._wake.wait(0.5)
            self._wake.clear()
            now, mono = self._clock()
            try:
                if mono >= next_space:
                    next_space = mono + 1.0
                    self._check_space()
                sync_all = mono >= next_sync
                if sync_all:
                    next_sync = mono + self.limits.sync_s
                self.write_round(now, mono, sync_all=sync_all)
            except Exception:  # noqa: BLE001 - logged; without this thread nothing would be kept any more
                _log.exception("writing logs")
                time.sleep(1.0)
            # gathers what several reads bring into one write; a kill loses at most this much
            time.sleep(_GATHER_S)

    def write_round(self, now: float, mono: float, *, sync_all: bool = False) -> None:
        """One round of the writer thread: every ring emptied, and synced when due."""
        with self._lock:
            logs = list(self._logs.values())
        urgent = set()
        while self._sync_now:
            urgent.add(self._sync_now.pop())
        for log in logs:
            before = log.full
            with self._writing:
                if self._logs.get(log.name) is not log:
                    continue  # ended meanwhile
                gaps = log.drain(now, mono, allowed=not self.low_on_space)
                if sync_all or log.name in urgent:
                    log.sync(now, mono)
                if sync_all:
                    log.vanished(now, mono)
            self._report(gaps)
            if log.full and not before:
                self._keep_wake.set()

    def free_bytes(self) -> int | None:
        """Free space of the log's file system for this user, None when the system doesn't tell."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            return None

    def _check_space(self) -> None:
        free = self.free_bytes()
        if free is None:
            return
        # resuming needs a little more than pausing, so that it does not flap
        line = self.limits.low_water + (self.limits.low_water // 4 if self.low_on_space else 0)
        low = free < line
        if low:
            self._keep_wake.set()
        if low != self.low_on_space:
            self.low_on_space = low
            if low:
                _log.error("%s: %d MiB free; raw logging pauses, crash records go on", self.root, free // MIB)
            else:
                _log.warning("%s: %d MiB free; raw logging resumes", self.root, free // MIB)
            if self._on_state:
                self._on_state(low, free)

    def _keep_forever(self) -> None:
        while not self._stop:
            self._keep_wake.wait(10.0)
            self._keep_wake.clear()
            if self._stop:
                return
            try:
                now, mono = self._clock()
                self.keep(now, by_age=self._steadiness.steady(now, mono))
            except OSError as error:
                _log.warning("%s: %s", self.root, error)
            except Exception:  # noqa: BLE001 - logged; without this thread the disk would fill up
                _log.exception("looking after logs")
            time.sleep(0.2)

    def make_room(self) -> bool:
        """Before anything runs: deletes the oldest segments when the disk is nearly full; False when it is not."""
        self._check_space()
        if self.low_on_space:
            self.keep(self._clock()[0], by_age=False)
        return self.low_on_space

    def keep(self, now: float, *, by_age: bool = True) -> None:
        """One round of the keeper thread: :meth:`Retention.keep` of everything that is not open. `by_age` False: the clock
        is not to be believed."""
        with self._lock:
            logs = list(self._logs.values())
        self._retention.keep(
            now,
            by_age=by_age,
            open_segments={log.segment for log in logs if log.segment is not None and log.is_open},
            low_on_space=lambda: self.low_on_space,
            free_bytes=self.free_bytes,
            stop=lambda: self._stop,
        )
