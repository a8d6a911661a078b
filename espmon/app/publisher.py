"""What happened to boards, told to the database, to the hooks and to whoever listens."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace

import espmon.events as ev
from espmon.app.hooks import Hooks
from espmon.app.watch import Watch
from espmon.store.database import Database

_log = logging.getLogger(__name__)


class Publisher:
    """`current_elfs(port, boot time)` gives the SHA-256 of the ELFs that a port runs, for boots that don't say it."""

    def __init__(self, database: Database, hooks: Hooks, current_elfs: Callable[[str, float | None], list[str]]) -> None:
        self._database = database
        self._hooks = hooks
        self._current_elfs = current_elfs
        self._listeners: list[Callable[[ev.Event], None]] = []

    def listen(self, listener: Callable[[ev.Event], None]) -> None:
        """`listener` gets every event (ordinary text not), from several threads; it must not block."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[ev.Event], None]) -> None:
        """Ends it."""
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def publish(self, watch: Watch, event: ev.Event, elf_sha256: str | None = None) -> None:
        """To the database, the hooks and whoever listens."""
        if event.port is None:
            event = replace(event, port=watch.name)
        if isinstance(event, ev.Boot) and elf_sha256 is None:
            elf_sha256 = next(iter(self._current_elfs(watch.name, event.at)), None)
        if isinstance(event, (ev.Boot, ev.Reset)):
            watch.last_reset = event
        self._database.event(event, elf_sha256=elf_sha256)
        self.tell(watch, event)
        self._hooks.offer(event)

    def tell(self, watch: Watch, event: ev.Event) -> None:
        """Something of the moment (progress): to whoever listens, not to the database."""
        if event.port != watch.name:
            event = replace(event, port=watch.name)
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - logged; one listener's fault must not end the others
                _log.exception("a listener failed")

    def port_changed(self, watch: Watch, state: str, reason: str | None = None, baud: int | None = None) -> None:
        """The port was opened, lost, closed, or changed its rate."""
        self.publish(watch, ev.PortChanged(at=time.time(), port=watch.name, state=state, reason=reason, baud=baud))
