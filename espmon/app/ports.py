"""Finds boards among the ports that are there, opens them, closes those that are gone or no longer wanted."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

from espmon.app.assignment import Candidate, assign
from espmon.app.config import Config
from espmon.app.decoding import Decoding
from espmon.app.listener import with_rounding
from espmon.app.publisher import Publisher
from espmon.app.readers import Readers
from espmon.app.watch import Watch
from espmon.errors import PortGone, PortProblem
from espmon.port import SerialPort, identify, is_url, list_ports
from espmon.store.database import Database

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05  # how often an absent device node is looked for: text is read within 100 ms of its return
_AT_ONCE = 16  # ports that are opened at the same time; those behind a network wait for each other, not the local ones


class Ports:
    """All boards' ports. `problems`: boards that can't be told apart or are found twice, in words, by name."""

    def __init__(
        self,
        config: Config,
        watches: Mapping[str, Watch],
        readers: Readers,
        decoding: Decoding,
        publisher: Publisher,
        database: Database,
    ) -> None:
        self.problems: dict[str, str] = {}
        self._config = config
        self._watches = watches
        self._readers = readers
        self._decoding = decoding
        self._publisher = publisher
        self._database = database
        self._stopping = threading.Event()
        self._local = ThreadPoolExecutor(_AT_ONCE, "open")
        self._remote = ThreadPoolExecutor(_AT_ONCE, "open URL")
        self._thread = threading.Thread(target=self._run, name="boards", daemon=True)

    # --- life ---

    def start(self, within_s: float = 0.0) -> None:
        """Begins to look for boards. Waits until those that are there are open or refused, for `within_s` seconds at most."""
        futures.wait(self._look_safely(), within_s)
        self._thread.start()

    @property
    def running(self) -> bool:
        """True from :meth:`start` on."""
        return self._thread.ident is not None

    def stop(self) -> None:
        """Ends looking; ports that are being opened are closed again."""
        self._stopping.set()
        if self.running:
            self._thread.join(3.0)

    def close(self) -> None:
        """Closes all ports."""
        for watch in list(self._watches.values()):
            with watch.io:
                self._close(watch)
        self._readers.stop()
        for pool in (self._local, self._remote):
            pool.shutdown(wait=False, cancel_futures=True)

    def change(self, config: Config) -> None:
        """A new configuration: what it says of boards counts from the next look on."""
        self._config = config

    # --- finding ---

    def _run(self) -> None:
        next_full = 0.0
        stamp: object = None
        while not self._stopping.is_set():
            now = time.monotonic()
            fresh = _dev_stamp()
            if now >= next_full or fresh != stamp:
                stamp = fresh
                next_full = now + float(self._config.daemon.rescan_s)
                self._look_safely()
            else:
                self._look_for_returned(now)
            self._stopping.wait(LOOK_EVERY_S)

    def candidates(self) -> list[Candidate]:
        """The serial ports that are there now, and device names that the configuration itself gives."""
        out = []
        for p in list_ports():
            out.append(
                Candidate(
                    device=p.device,
                    usb_serial=p.serial_number,
                    usb_path=p.location,
                    vid=p.vid,
                    pid=p.pid,
                    mac=p.mac or self._cached_mac(p.device),
                )
            )
        known = {c.device for c in out} | {os.path.realpath(c.device) for c in out}
        for section in self._config.ports:
            device = section.match.get("device")
            # ptys and other nodes that no list shows
            if isinstance(device, str) and device not in known and os.path.realpath(device) not in known and os.path.exists(device):
                out.append(Candidate(device=device))
        return out

    def _cached_mac(self, device: str) -> str | None:
        if not any("mac" in p.match for p in self._config.ports):
            return None
        return self._database.board(f"id:{identify(device).key}")[0]

    def remember_board(self, watch: Watch, mac: str | None, chip: str | None, flash_bytes: int | None) -> None:
        """What a chip said of itself while it was in its loader."""
        names = [watch.name]
        if watch.identity is not None:
            names.append(f"id:{watch.identity.key}")
        self._database.remember_board(names, time.time(), mac, chip, flash_bytes)

    def _look_safely(self) -> list[Future[None]]:
        try:
            return self.look()
        except Exception:  # noqa: BLE001 - logged; one board's fault must not end the others
            _log.exception("looking for boards")
            return []

    def look(self) -> list[Future[None]]:
        """Finds boards and opens those that came; what is being opened, those behind a network left out.

        Nothing to do while every board is open or lent.
        """
        opening: list[Future[None]] = []
        if not self.problems and all(w.state not in ("away", "failed") for w in list(self._watches.values())):
            return opening
        found, problems = assign(self._config.ports, self.candidates())
        for name, text in problems.items():
            if self.problems.get(name) != text:
                _log.error("%s: %s", name, text)
        self.problems = problems
        now = time.monotonic()
        for name, device in found.items():
            watch = self._watches.get(name)
            if watch is None or watch.state not in ("away", "failed"):
                continue
            if now >= watch.try_again:
                watch.device = device
                future = self._open_soon(watch)
                if future is not None and not is_url(device):
                    opening.append(future)
        return opening

    def _look_for_returned(self, now: float) -> None:
        """Between full looks: a device node that was known comes back under its old name."""
        for watch in list(self._watches.values()):
            if (
                watch.state == "away"
                and watch.identity is not None
                and watch.identity.vid is None
                and watch.device is not None
                and not is_url(watch.device)
                and now >= watch.try_again
                and os.path.exists(watch.device)
            ):
                self._open_soon(watch)

    # --- opening ---

    def _open_soon(self, watch: Watch) -> Future[None] | None:
        with watch.io:
            if watch.state not in ("away", "failed"):
                return None
            watch.state = "opening"
        pool = self._remote if watch.device is not None and is_url(watch.device) else self._local
        return pool.submit(self._open, watch)

    def _open(self, watch: Watch) -> None:
        if self._stopping.is_set() or watch.device is None:
            return
        port = SerialPort(watch.device, watch.rate.baud)
        try:
            port.open()
            port.remember_identity()
        except PortProblem as problem:
            port.dispose()
            with watch.io:
                watch.state = "failed"
                watch.problem = problem.message
                watch.try_again = time.monotonic() + (1.0 if watch.opened_at > 0 else 2.0)
            if watch.told_problem != problem.message:
                watch.told_problem = problem.message
                _log.warning("%s: %s", watch.name, problem.message)
                self._publisher.port_changed(watch, "failed", problem.message)
            return
        except Exception:  # noqa: BLE001 - logged; one board's fault must not end the others
            _log.exception("%s: opening %s", watch.name, watch.device)
            port.dispose()
            watch.state, watch.try_again = "failed", time.monotonic() + 10.0
            return
        now = time.time()
        with watch.io:
            if watch.state != "opening" or self._stopping.is_set():
                port.dispose()
                return
            returned = watch.opened_at > 0
            watch.port, watch.identity = port, port.identity
            watch.opened_at, watch.since = now, now
            watch.problem = watch.told_problem = None
            watch.state = "run"
            watch.rate.opened(now, port.baud, port.damaged)
            self._readers.of(port).add(watch, port)
        _log.info("%s: %s at %d baud", watch.name, watch.device, port.baud)
        watch.log.mark("opened", now, time.monotonic(), device=watch.device, baud=port.baud)
        reason = with_rounding(f"now {watch.device}" if returned else None, port.rate)
        self._publisher.port_changed(watch, "returned" if returned else "opened", reason, port.baud)

    # --- closing ---

    def gone(self, watch: Watch, problem: PortGone) -> None:
        """A reader found the port gone; called in the reader's thread."""
        self._local.submit(self.lost, watch, problem.message)

    def lost(self, watch: Watch, reason: str) -> None:
        """The board is away: its port is closed, and it is looked for."""
        with watch.io:
            if watch.state not in ("run", "busy"):
                return
            self._close(watch)
            watch.state = "away"
            watch.since = time.time()
            watch.try_again = 0.0
        with watch.judging:
            self._decoding.sort(watch, watch.rate.close(watch.since))
        _log.warning("%s: %s", watch.name, reason)
        watch.log.mark("gone", watch.since, time.monotonic(), reason=reason)
        self._publisher.port_changed(watch, "gone", reason)

    def drop(self, watch: Watch, reason: str, *, for_good: bool = False) -> None:
        """Closes a port because of the configuration; one that is lent or worked on when it is given back."""
        with watch.io:
            if watch.state == "lent" and not for_good:
                return  # whoever has it keeps it: it is opened with the new settings when it comes back
            watch.changed = reason if watch.state == "busy" else None
            if watch.changed is not None:
                return
            if self._close(watch):
                watch.log.mark("closed", time.time(), time.monotonic(), reason=reason)
            watch.state = "away"
            watch.try_again = 0.0
        self._publisher.port_changed(watch, "closed", reason)

    def lend(self, watch: Watch) -> None:
        """Closes a port that somebody else is going to open. Call with `watch.io` held."""
        self._close(watch)

    def _close(self, watch: Watch) -> bool:
        """Takes the port from its reader and closes it; False when it was not open. Call with `watch.io` held."""
        if watch.port is None:
            return False
        self._readers.of(watch.port).remove(watch)
        watch.port.dispose()
        watch.port = None
        return True


def _dev_stamp() -> object:
    """Changes when a device node comes or goes, where the system shows that cheaply."""
    try:
        return os.stat("/dev").st_mtime_ns
    except OSError:
        return None
