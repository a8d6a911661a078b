"""The control socket as clients see it: the wire, where daemons are found, asking them. The server is :mod:`espmon.app.control`.

A conversation is one JSON line each way, then, for what streams, frames: one letter, a length (4 bytes, big endian), the
payload. Letters: ``D`` bytes of a port, ``J`` JSON.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import select
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from espmon.app.config import Config
from espmon.app.folders import default_log_dir, default_state_dir
from espmon.app.presence import registry
from espmon.errors import EspmonError

LINE_LIMIT = 1 << 20
FRAME_LIMIT = 1 << 20
# The largest flash image that is taken: the largest flash of any module.
IMAGE_LIMIT = 128 << 20
_HEAD = struct.Struct(">cI")


class DaemonUnreachable(EspmonError):
    """No daemon answers."""

    code = "no-daemon"
    exit_status = 10


class Refused(EspmonError):
    """The daemon said no, in its own words."""


def _refusal(answer: Mapping[str, Any]) -> EspmonError:
    """The error that the daemon told, with its code and exit status."""
    kind = type("Refused", (Refused,), {"code": str(answer.get("error")), "exit_status": int(answer.get("exit_status", 1))})
    error: EspmonError = kind(str(answer.get("message", "refused")), answer.get("hint"))
    return error


# --- the wire ----------------------------------------------------------------------------------------------------------


class Wire:
    """One connection: JSON lines first, frames later. Sending is safe from several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._pending = bytearray()
        self._sending = threading.Lock()

    def send_line(self, value: Mapping[str, Any]) -> None:
        with self._sending:
            self.connection.sendall(json.dumps(value).encode() + b"\n")

    def read_line(self) -> dict[str, Any] | None:
        """One JSON object; None at the end. Raises ValueError for anything else."""
        while b"\n" not in self._pending:
            if len(self._pending) > LINE_LIMIT:
                raise ValueError("line too long")
            data = self.connection.recv(65536)
            if not data:
                return None
            self._pending += data
        line, _, rest = bytes(self._pending).partition(b"\n")
        self._pending = bytearray(rest)
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return value

    def send_frame(self, letter: bytes, payload: bytes) -> None:
        with self._sending:
            for i in range(0, max(1, len(payload)), FRAME_LIMIT):
                piece = payload[i : i + FRAME_LIMIT]
                self.connection.sendall(_HEAD.pack(letter, len(piece)) + piece)

    def send_json(self, value: Mapping[str, Any]) -> None:
        self.send_frame(b"J", json.dumps(value).encode())

    def read_frame(self) -> tuple[bytes, bytes] | None:
        """(letter, payload); None at the end. Raises ValueError for a length beyond the limit."""
        head = self._exactly(_HEAD.size)
        if head is None:
            return None
        letter, length = _HEAD.unpack(head)
        if length > FRAME_LIMIT:
            raise ValueError("frame too long")
        payload = self._exactly(length)
        return None if payload is None else (letter, payload)

    def has_frame(self) -> bool:
        """True when a whole frame has arrived already."""
        if len(self._pending) < _HEAD.size:
            return False
        return len(self._pending) >= _HEAD.size + int(_HEAD.unpack_from(self._pending)[1])

    def waits(self, seconds: float) -> bool:
        """True when a frame, or a part of one, is there within `seconds`."""
        if self.has_frame():
            return True
        if sys.platform == "win32":
            return bool(select.select([self.connection], [], [], seconds)[0])
        # select() takes no descriptor above 1023; a daemon with 300 ports has thousands
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _exactly(self, count: int) -> bytes | None:
        while len(self._pending) < count:
            data = self.connection.recv(max(65536, count - len(self._pending)))
            if not data:
                return None
            self._pending += data
        taken = bytes(self._pending[:count])
        del self._pending[:count]
        return taken

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.connection.close()


# --- places ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a daemon is reached: a Unix socket's path, or an address and the file that holds its token."""

    socket: Path | None = None
    address: tuple[str, int] | None = None
    token_file: Path | None = None

    def __str__(self) -> str:
        return str(self.socket) if self.socket else "{}:{}".format(*(self.address or ("", 0)))


def socket_path(config: Config | None, state_dir: Path | None, *, explicit_state: bool) -> Path:
    """The daemon's socket: as configured, else in a state folder named on the command line, else the runtime folder."""
    if config is not None and config.control.socket is not None:
        return Path(config.control.socket)
    if explicit_state and state_dir is not None:
        path = state_dir.absolute() / "control.sock"
        if len(os.fsencode(path)) <= 100:  # sun_path holds 108 bytes on Linux, 104 on macOS
            return path
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"espmon-{digest}" / "control.sock"
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0]) / "control.sock"
    if sys.platform != "win32" and os.geteuid() == 0:
        return Path("/run/espmon/control.sock")
    with warnings.catch_warnings():  # without XDG_RUNTIME_DIR it is a folder in /tmp: connecting checks whose it is
        warnings.simplefilter("ignore")
        return Path(platformdirs.user_runtime_dir("espmon", appauthor=False)) / "control.sock"


def places(config: Config, state_dir: Path | None) -> tuple[Path, Path]:
    """(state folder, log folder) as the command line, the configuration and the surroundings say, in this order."""
    state = state_dir or (Path(config.daemon.state_dir) if config.daemon.state_dir else default_state_dir())
    log = Path(config.log.dir) if config.log.dir else (state / "log" if state_dir else default_log_dir(state))
    return state, log


def running_daemons() -> list[dict[str, Any]]:
    """This user's daemons that are alive, as :func:`register` wrote them; dead ones' notes are removed."""
    out = []
    try:
        notes = sorted(registry().glob("*.json"))
    except OSError:
        return []
    for note in notes:
        try:
            about = json.loads(note.read_text("utf-8"))
            pid = int(about["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if _is_alive(pid):
            out.append(about)
        else:
            with contextlib.suppress(OSError):
                note.unlink()
    return out


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # connecting will tell
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def place_of(about: Mapping[str, Any]) -> Place:
    """The place in a registry note."""
    if about.get("socket"):
        return Place(socket=Path(about["socket"]))
    address = about.get("address") or ("127.0.0.1", 0)
    return Place(address=(str(address[0]), int(address[1])), token_file=Path(about["token_file"]) if about.get("token_file") else None)


# --- client ------------------------------------------------------------------------------------------------------------


def _checked(path: Path) -> None:
    """Refuses a socket that somebody else could have put there."""
    if sys.platform == "win32":
        return
    found = path.lstat()
    if not stat.S_ISSOCK(found.st_mode):
        raise DaemonUnreachable(f"{path} is no socket", "set [control] socket")
    if found.st_mode & stat.S_IWOTH:
        raise DaemonUnreachable(f"{path} can be written by everybody: it is not trusted", f"chmod o-w {path}")
    folder, above = path.parent.stat(), path.parent.parent.stat()
    # a service's own user (DynamicUser) has its socket in a folder of its own; below /tmp anybody can make such a folder
    trusted = {0, os.geteuid()} if above.st_mode & stat.S_IWOTH else {0, os.geteuid(), folder.st_uid}
    if found.st_uid not in trusted or (above.st_mode & stat.S_IWOTH and folder.st_uid not in trusted):
        raise DaemonUnreachable(
            f"{path} belongs to a stranger (uid {found.st_uid}): it is not trusted", "Name the daemon's own folder with --state-dir."
        )


def connect(place: Place) -> Wire:
    """A connection to the daemon. Raises :class:`DaemonUnreachable`."""
    try:
        if place.socket is not None:
            if sys.platform == "win32":
                raise DaemonUnreachable("Windows has no Unix sockets here")
            _checked(place.socket)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(str(place.socket))
        else:
            connection = socket.create_connection(place.address or ("127.0.0.1", 0), timeout=5.0)
            connection.settimeout(None)
    except PermissionError:
        raise DaemonUnreachable(f"no permission to use {place}", "join the group of the socket (docs/daemon.md, permissions)") from None
    except OSError as error:
        raise DaemonUnreachable(
            f"no daemon answers at {place}: {error.strerror or error}", "Start one with `espmon daemon`, or name it with --state-dir."
        ) from None
    return Wire(connection)


def ask(place: Place, do: str, **values: Any) -> tuple[Wire, dict[str, Any]]:
    """Sends a request; returns the connection and the answer. Raises the daemon's refusal, or :class:`DaemonUnreachable`."""
    wire = connect(place)
    request: dict[str, Any] = {"do": do, "who": _self(), **values}
    if place.token_file is not None:
        with contextlib.suppress(OSError):
            request["token"] = place.token_file.read_text("utf-8").strip()
    try:
        wire.send_line(request)
        answer = wire.read_line()
    except (OSError, ValueError) as error:
        wire.close()
        raise DaemonUnreachable(f"the daemon at {place} does not answer: {error}") from None
    if answer is None:
        wire.close()
        raise DaemonUnreachable(f"the daemon at {place} ended the conversation")
    if not answer.get("ok"):
        wire.close()
        raise _refusal(answer)
    return wire, answer


def ask_once(place: Place, do: str, **values: Any) -> dict[str, Any]:
    """The same for requests without a stream."""
    wire, answer = ask(place, do, **values)
    wire.close()
    return answer


def _self() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "somebody"
    return f"{user} (pid {os.getpid()})"


_LOOK_S = 0.5  # Windows notices Ctrl-C only between two waits


def frames(wire: Wire, timeout_s: float | None = None) -> Iterator[tuple[bytes, bytes]]:
    """All frames until the daemon ends or the connection breaks. Raises TimeoutError after `timeout_s`."""
    limit = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            while not wire.waits(_LOOK_S if limit is None else max(0.0, min(_LOOK_S, limit - time.monotonic()))):
                if limit is not None and time.monotonic() >= limit:
                    raise TimeoutError(f"no end within {timeout_s:g} s")
            frame = wire.read_frame()
        except TimeoutError:
            raise
        except (OSError, ValueError):
            return
        if frame is None:
            return
        yield frame
