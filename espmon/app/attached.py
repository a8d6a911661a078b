"""A port that the daemon holds, used through its control socket as if it were ours.

:class:`AttachedPort` has :class:`~espmon.port.SerialPort`'s face, so the monitor and the loader commands work on it unchanged.
Shared (the monitor): many may read, one writes. Exclusive (the loader): the daemon takes the port out of its own reader, logs
what passes, and gives it back when the connection ends.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from espmon.app import presence
from espmon.app.wire import Place, Wire, ask
from espmon.errors import PortGone, PortProblem
from espmon.port import PortIdentity, RateSet, SerialPort

_ANSWER_S = 15.0


_STATES = {
    "run": "the daemon watches it again",
    "away": "it is away: unplugged, or not found yet",
    "lent": "it is lent",
    "busy": "the daemon works on it",
    "failed": "the daemon can't open it",
}


def in_words(state: object, holder: object = None) -> str:
    """A board's state as the daemon names it, for people."""
    words = _STATES.get(str(state), f"it is {state}")
    return f"{words} (to {holder})" if holder and state == "lent" else f"{words} ({holder})" if holder else words


_DAEMON_GONE = "`espmon status` tells whether it runs. The same command again does what is left to do."


class AttachedPort(SerialPort):
    """Board `word` of the daemon at `place`. `notices`: what the daemon wanted said; taken by whoever shows it."""

    def __init__(self, place: Place, word: str, *, exclusive: bool = False, stopping: threading.Event | None = None) -> None:
        super().__init__(word)
        self.notices: list[str] = []
        self.elfs: list[str] = []
        self.chip: str | None = None
        self._place = place
        self._exclusive = exclusive
        self._stopping = stopping
        self._wire: Wire | None = None
        self._bytes = bytearray()
        self._answers: list[dict[str, Any]] = []
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)

    @property
    def is_url(self) -> bool:
        """True for what the daemon itself opened by a URL, which decides how boards are reset."""
        return "://" in self.device

    @property
    def is_open(self) -> bool:
        return self._wire is not None

    @property
    def descriptor(self) -> int | None:
        return None

    def open(self) -> None:
        """Joins. Raises what the daemon says: another has the port, no such board."""
        if self._wire is not None:
            return
        wire, answer = ask(self._place, "attach", port=self.name, exclusive=self._exclusive)
        self._wire = wire
        self.device = str(answer.get("device") or self.name)
        self.baud = int(answer["baud"])
        self.elfs = [str(e) for e in answer.get("elf") or ()]
        self.chip = answer.get("chip")
        if answer.get("identity"):
            self.identity = PortIdentity(**answer["identity"])
        if answer.get("state") not in ("run", "busy"):
            self.notices.append(f"{in_words(answer.get('state'), answer.get('holder'))}; its text comes when it is back")

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def dispose(self) -> None:
        self.close()
        self._wake_in.close()
        self._wake_out.close()
        super().dispose()

    def take_notices(self) -> list[str]:
        taken, self.notices = self.notices, []
        return taken

    def remember_identity(self) -> None:
        """The daemon knows it."""

    def find_again(self) -> bool:
        """Tries to join again: the daemon may have been restarted."""
        with contextlib.suppress(PortProblem, OSError):
            from espmon.app.wire import DaemonUnreachable, connect

            try:
                connect(self._place).close()
            except DaemonUnreachable:
                return False
            return True
        return False

    def wake(self) -> None:
        self._woken = True
        with contextlib.suppress(OSError):
            self._wake_out.send(b"!")

    def pause(self, seconds: float) -> None:
        if not self._woken:
            select.select([self._wake_in], [], [], seconds)

    def read(self, timeout: float | None = None) -> bytes:
        limit = None if timeout is None else time.monotonic() + timeout
        while not self._bytes and not self.notices:
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left < 0:
                left = 0.0
            if not self._hear(left):
                return b""
        data = bytes(self._bytes)
        self._bytes.clear()
        return data

    def _hear(self, timeout: float | None) -> bool:
        """Takes one frame; False when none came in time or somebody woke us. Raises `PortGone`."""
        wire = self._wire
        if wire is None:
            raise PortGone(self.name, f"{self.name} is not open")
        try:
            if not wire.has_frame():
                ready, _, _ = select.select([wire.connection, self._wake_in], [], [], timeout)
                if self._wake_in in ready:
                    self._woken = False
                    with contextlib.suppress(BlockingIOError):
                        while self._wake_in.recv(512):
                            pass
                    return False
                if not ready:
                    return False
            frame = wire.read_frame()
        except (OSError, ValueError) as error:
            raise PortGone(self.name, f"the daemon has gone: {error}", _DAEMON_GONE) from None
        if frame is None:
            raise PortGone(self.name, "the daemon has ended the connection", _DAEMON_GONE)
        letter, payload = frame
        if letter == b"D":
            self._bytes += payload
        else:
            told = json.loads(payload)
            if "answer" in told:
                self._answers.append(told)
            elif told.get("stopping"):
                if self._stopping is not None:
                    self._stopping.set()
                self.notices.append("the daemon is stopping")
            elif told.get("baud"):
                self.baud = int(told["baud"])
            elif told.get("notice"):
                self.notices.append(str(told["notice"]))
            elif told.get("state"):
                self.notices.append(in_words(told["state"], told.get("holder")))
        return True

    def _send(self, letter: bytes, payload: bytes) -> None:
        if self._wire is None:
            raise PortGone(self.name, f"{self.name} is not open")
        try:
            self._wire.send_frame(letter, payload)
        except OSError as error:
            raise PortGone(self.name, f"the daemon has gone: {error}", _DAEMON_GONE) from None

    def _ask(self, **wish: Any) -> dict[str, Any]:
        """A wish whose answer is waited for; bytes that come meanwhile are kept."""
        self._send(b"J", json.dumps(wish).encode())
        limit = time.monotonic() + _ANSWER_S
        while not self._answers:
            if time.monotonic() > limit:
                raise PortGone(self.name, "the daemon does not answer", _DAEMON_GONE)
            self._hear(0.5)
        answer = self._answers.pop(0)
        if answer.get("problem"):
            raise PortProblem(self.name, str(answer["problem"]))
        return answer

    def write(self, data: bytes, timeout: float = 5.0) -> None:
        self._send(b"D", data)

    def write_some(self, data: bytes) -> int:
        self.write(data)
        return len(data)

    def flush(self) -> None:
        if self._exclusive:
            self._ask(do="flush")

    def set_baud(self, rate: int) -> RateSet:
        if not self._exclusive:
            raise PortProblem(self.name, "the daemon chooses this port's rate", "change baud in its configuration")
        answer = self._ask(do="baud", rate=rate)
        self.baud = rate
        return RateSet(rate, answer.get("got"))

    def set_lines(self, dtr: bool | None = None, rts: bool | None = None) -> bool:
        return bool(self._ask(do="lines", dtr=dtr, rts=rts)["answer"])

    def discard(self) -> None:
        with contextlib.suppress(PortProblem):
            while self._hear(0):
                pass
        self._bytes.clear()


def attached(word: str, *, exclusive: bool = False, stopping: threading.Event | None = None) -> AttachedPort | None:
    """The port `word` (a board's name or a device) through the daemon that has it; None when no daemon has. Quick.

    `stopping` is set when the daemon is about to end: whoever works on the board should bring it to a safe state.
    """
    if "://" in word or not presence.may_run():
        return None
    from espmon.app.reach import board_held_by_daemon

    reach = board_held_by_daemon(word)
    if reach is None or reach.place is None:
        return None
    return AttachedPort(reach.place, word, exclusive=exclusive, stopping=stopping)


@contextlib.contextmanager
def open_port(word: str, baud: int, stopping: threading.Event | None = None) -> Iterator[SerialPort]:
    """The port `word` for a stay in the loader: through the daemon when it has it, else opened here."""
    port: SerialPort = attached(word, exclusive=True, stopping=stopping) or SerialPort(word, baud)
    try:
        port.open()
        port.remember_identity()
        yield port
    finally:
        port.dispose()


