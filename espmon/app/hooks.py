"""The user's own commands, started at events: the event as JSON on standard input, never through a shell, rate-limited."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from espmon.app.commands import LeftAlone, run_command
from espmon.app.config import Section
from espmon.events import Event, to_json_line

_log = logging.getLogger(__name__)


class Hook:
    """One ``[[hook]]`` section. :meth:`offer` never blocks."""

    def __init__(self, section: Section, pool: ThreadPoolExecutor, stopping: Callable[[], bool] = lambda: False) -> None:
        self.section = section
        self.skipped = 0
        self._pool = pool
        self._stopping = stopping
        self._pending = 0  # handed to the pool and not ended
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def offer(self, event: Event, mono: float | None = None) -> bool:
        """Starts the command if it is for this event and within its rate. True when it was."""
        s = self.section
        if event.type not in s.on or (s.ports and event.port not in s.ports):
            return False
        mono = time.monotonic() if mono is None else mono
        with self._lock:
            while self._times and mono - self._times[0] >= 60.0:
                self._times.popleft()
            # commands that hang must not let the queue grow
            if len(self._times) >= s.per_minute or self._pending >= s.per_minute:
                self.skipped += 1
                if self.skipped == 1 or self.skipped % 1000 == 0:
                    _log.warning("hook %s: more than %d a minute; %d left out", s.command[0], s.per_minute, self.skipped)
                return False
            self._times.append(mono)
            self._pending += 1
        self._pool.submit(self._run, to_json_line(event), event.type, event.port or "")
        return True

    def _run(self, line: str, type_: str, port: str) -> None:
        s = self.section
        environment = {**os.environ, "ESPMON_EVENT": type_, "ESPMON_PORT_NAME": port}
        try:
            status, errors = run_command(
                s.command, self._stopping, timeout_s=s.timeout_s, said=line.encode() + b"\n", environment=environment
            )
        except LeftAlone:
            _log.warning("hook %s: still running when the daemon ended", s.command[0])
        except subprocess.TimeoutExpired:
            _log.warning("hook %s: killed after %g s", s.command[0], s.timeout_s)
        except OSError as error:
            _log.error("hook %s: %s", s.command[0], error.strerror)
        else:
            if status:
                tail = errors[-200:].decode("utf-8", "replace").strip()
                _log.warning("hook %s: exit status %d %r", s.command[0], status, tail)
        finally:
            with self._lock:
                self._pending -= 1


class Hooks:
    """All hooks of the configuration."""

    def __init__(self, sections: Sequence[Section] = ()) -> None:
        self._pool = ThreadPoolExecutor(4, "hook")
        self._hooks: list[Hook] = []
        self._ended = threading.Event()
        self.change(sections)

    def change(self, sections: Sequence[Section]) -> None:
        """New sections after a reload; those that stayed keep their counts."""
        old = {id(h.section): h for h in self._hooks}
        same = {repr(dict(h.section.values)): h for h in old.values()}
        self._hooks = [same.get(repr(dict(s.values))) or Hook(s, self._pool, self._ended.is_set) for s in sections]

    def offer(self, event: Event) -> None:
        """Hands an event to every hook."""
        for hook in self._hooks:
            hook.offer(event)

    def stop(self) -> None:
        """Lets running commands end on their own; none is started any more."""
        self._hooks = []
        self._ended.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
