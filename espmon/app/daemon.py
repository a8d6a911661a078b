"""``espmon daemon``: the supervisor as a process with signals, a control socket, systemd's notifications and a log of its own."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espmon.app.config import Config, read_config
from espmon.app.control import ControlServer, refuse_open_folder, register
from espmon.app.rate import RateFollower, follower_of
from espmon.app.ratememory import RateMemory
from espmon.app.supervisor import Supervisor
from espmon.app.wire import Place, places, socket_path
from espmon.errors import EspmonError, UsageProblem
from espmon.events import Event, Progress, to_json_line
from espmon.sinks.jsonl import print_json_line

_log = logging.getLogger(__name__)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        out: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            out["traceback"] = self.formatException(record.exc_info)
        return json.dumps(out)


def set_up_logging(level: str, as_json: bool) -> None:
    """The daemon's own log on standard error; under systemd without times, the journal has them."""
    handler = logging.StreamHandler(sys.stderr)
    if as_json:
        handler.setFormatter(_JsonFormatter())
    elif "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("espmon")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def notify(state: str) -> None:
    """One datagram to systemd (sd_notify); nothing where it didn't start us."""
    target = os.environ.get("NOTIFY_SOCKET")
    if not target or sys.platform == "win32":
        return
    if target.startswith("@"):
        target = "\0" + target[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(state.encode(), target)


def _watchdog_s() -> float | None:
    """Half of systemd's WatchdogSec, when it watches this process."""
    try:
        if int(os.environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return None
        return int(os.environ["WATCHDOG_USEC"]) / 2e6
    except (KeyError, ValueError):
        return None


class EventPrinter:
    """Events as JSON lines on standard output, from one thread of its own: a stopped reader stops nobody else."""

    def __init__(self, limit: int = 10_000) -> None:
        self._lines: list[str] = []
        self._limit = limit
        self._dropped = 0
        self._changed = threading.Condition()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="events out", daemon=True)
        self._thread.start()

    def offer(self, event: Event) -> None:
        if isinstance(event, Progress):
            return  # of the moment, for whoever watches the operation
        with self._changed:
            if len(self._lines) < self._limit:
                self._lines.append(to_json_line(event))
            else:
                self._dropped += 1
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._stop:
                    self._changed.wait()
                lines, self._lines = self._lines, []
                dropped, self._dropped = self._dropped, 0
            if dropped:
                _log.warning("standard output is too slow: %d events were not printed", dropped)
            try:
                for line in lines:
                    print_json_line(line)
            except (OSError, ValueError):
                return  # nobody reads any more
            if self._stop and not lines:
                return

    def stop(self) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join(2.0)


def lock_state(folder: Path) -> int:
    """Takes the state folder for this process until it ends, however it ends. Raises :class:`UsageProblem` when taken."""
    try:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(folder / "daemon.lock", flags, 0o640)
    except OSError as error:
        raise UsageProblem(f"cannot use {folder}: {error.strerror}", "choose another with --state-dir") from None
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            raise UsageProblem(f"cannot lock {folder}: {error.strerror}", "put the state folder on a local disk") from None
        raise UsageProblem(
            f"another espmon daemon uses {folder}", "espmon status shows it; give each its own --state-dir"
        ) from None
    return fd


def run_daemon(
    config_path: Path,
    *,
    config_required: bool,
    state_dir: Path | None = None,
    as_json: bool = False,
    prepare: Callable[[Supervisor], None] | None = None,
) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit status. Raises :class:`EspmonError` when it can't start."""
    config = read_config(config_path, required=config_required)
    set_up_logging(config.daemon.log_level, config.daemon.log_json)
    state, log_dir = places(config, state_dir)
    for folder in (state, log_dir):
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageProblem(f"cannot make {folder}: {error.strerror}", "choose another with --state-dir or [log] dir") from None
    refuse_open_folder(state, "the daemon's state")
    lock = lock_state(state)
    stop = threading.Event()
    wants_reload = threading.Event()
    supervisor = Supervisor(config, state, log_dir, make_rate=_rate_maker(state))
    printer = EventPrinter() if as_json else None
    if printer is not None:
        supervisor.listen(printer.offer)

    def reload() -> list[str]:
        return supervisor.reload(read_config(config_path, required=config_required))

    server = ControlServer(supervisor, _place(config, state, state_dir is not None), group=config.control.group, reload=reload)
    note: Path | None = None
    try:
        server.start()
        if prepare is not None:
            prepare(supervisor)
        _on_signals(stop, wants_reload)
        supervisor.open_boards()
        # what follows takes as long again as all before; what boards say meanwhile is read and logged
        note = register(server.place, supervisor)
        _load()
        from espmon.app.rungs import Rungs

        supervisor.rungs = Rungs(supervisor)
        supervisor.start()
        if not config.ports:
            _log.warning("no board is configured; espmon config init writes a file for those that are plugged in")
        _log.info(
            "watching %d boards; logs in %s; control at %s; up to %s open files",
            len(config.ports), log_dir, server.place, supervisor.descriptor_limit or "any number of",
        )  # fmt: skip
        notify("READY=1")
        _wait(stop, wants_reload, supervisor, server, reload)
    finally:
        notify("STOPPING=1")
        supervisor.finish_operations()
        server.stop()
        supervisor.stop(1.0)
        if printer is not None:
            printer.stop()
        if note is not None:
            with contextlib.suppress(OSError):
                note.unlink()
        os.close(lock)
    return 0


def _load() -> None:
    """Imports now what is otherwise imported when it is first needed: months later the files may be another version's."""
    for name in ("espmon.decode", "espmon.app.autorate", "espmon.symbolize", "espmon.port.rfc2217"):
        importlib.import_module(name)


def _wait(
    stop: threading.Event, wants_reload: threading.Event, supervisor: Supervisor, server: ControlServer, reload: Callable[[], list[str]]
) -> None:
    every = _watchdog_s()
    while not stop.wait(min(every or 1.0, 1.0)):
        server.stay()
        if every is not None and supervisor.alive:
            notify("WATCHDOG=1")
        if wants_reload.is_set():
            wants_reload.clear()
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                later = reload()
                _log.info("configuration read again%s", f"; after a restart: {', '.join(later)}" if later else "")
            except EspmonError as error:
                _log.error("configuration not taken over: %s", error.message)
            except Exception:  # noqa: BLE001 - logged; boards are watched on as before
                _log.exception("configuration not taken over")
            notify("READY=1")


def _on_signals(stop: threading.Event, wants_reload: threading.Event) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, lambda *_: wants_reload.set())
    else:
        signal.signal(signal.SIGBREAK, lambda *_: stop.set())


def _place(config: Config, state: Path, explicit: bool) -> Place:
    if config.control.listen is not None:
        return Place(address=config.control.listen, token_file=state / "control.token")
    if sys.platform == "win32":
        return Place(address=("127.0.0.1", 0), token_file=state / "control.token")
    return Place(socket=socket_path(config, state, explicit_state=explicit))


def _rate_maker(state: Path) -> Callable[[str, int | None], RateFollower]:
    """The rate follower of ``baud = "auto"``; rates are remembered by the name that the configuration gives the board."""
    memory = RateMemory(state / "rates.json")
    return lambda name, fixed: follower_of(name, fixed, memory)
