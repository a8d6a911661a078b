"""The daemon's control socket: who may ask, what can be asked, and the client's side of it.

A Unix socket (0660, the configured group) or, on Windows and where `listen` is configured, loopback TCP guarded by a token
from a file. A conversation is one JSON line each way, then, for what streams, frames: one letter, a length (4 bytes, big
endian), the payload. Letters: ``D`` bytes of a port, ``J`` JSON. ``docs/design/control.md`` lists the requests.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import stat
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from espmon.app.config import is_loopback
from espmon.app.presence import registry
from espmon.app.recovery import explain
from espmon.app.supervisor import Supervisor
from espmon.app.watch import ATTACH_BYTES, Attached, Watch
from espmon.app.wire import IMAGE_LIMIT, Place, Wire
from espmon.errors import EspmonError, PortGone, PortProblem, UsageProblem
from espmon.events import Event, Progress, to_json_line
from espmon.port import Chunk, SerialPort
from espmon.store.atomic import write_atomically

_log = logging.getLogger(__name__)

def register(place: Place, supervisor: Supervisor) -> Path | None:
    """Writes down where this daemon is reached, so that this user's commands find it without options."""
    path = registry() / f"{os.getpid()}.json"
    about = {
        "pid": os.getpid(),
        "socket": str(place.socket) if place.socket else None,
        "address": place.address,
        "token_file": str(place.token_file) if place.token_file else None,
        "state_dir": str(supervisor.state_dir.absolute()),
        "log_dir": str(supervisor.log_dir.absolute()),
        "config": [str(f.absolute()) for f in supervisor.config.files],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(about).encode(), mode=0o600)
    except OSError:
        return None
    return path


# --- server ------------------------------------------------------------------------------------------------------------

Handler = Callable[["Conversation"], None]

_BACKLOG = 64
# Two threads and a descriptor each; a client that forgets to close must not take the daemon's.
_MOST = 256
_MOST_REFUSED = 32  # that many more are told so


def refuse_open_folder(folder: Path, what: str, *, sticky: bool = False) -> None:
    """Raises :class:`UsageProblem` when a stranger could put files of theirs in `folder`. `sticky`: /tmp and its like will do,
    where nobody can replace what is somebody else's."""
    if sys.platform == "win32":
        return
    found = folder.lstat()
    trusted = (0, os.geteuid())
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in trusted:
        raise UsageProblem(f"{folder} is a link of somebody else's (uid {found.st_uid}): {what} would not be safe there", "name another place")
    found = folder.stat()
    if found.st_mode & stat.S_IWOTH and not (sticky and found.st_mode & stat.S_ISVTX):
        raise UsageProblem(f"{folder} can be written by everybody: {what} would not be safe there", f"chmod o-w {folder}, or name another place")
    if found.st_uid not in trusted:
        if os.geteuid() != 0:
            raise UsageProblem(
                f"{folder} belongs to somebody else (uid {found.st_uid}): {what} would not be safe there", "name a place of yours"
            )
        _log.warning("%s belongs to uid %d, who could replace %s", folder, found.st_uid, what)


class Conversation:
    """One request being answered."""

    def __init__(self, wire: Wire, request: Mapping[str, Any], who: str, supervisor: Supervisor, server: ControlServer) -> None:
        self.wire = wire
        self.request = request
        self.who = who
        self.supervisor = supervisor
        self.server = server

    def text(self, key: str) -> str:
        """A required text of the request. Raises :class:`UsageProblem`."""
        value = self.request.get(key)
        if not isinstance(value, str) or not value:
            raise UsageProblem(f"the request lacks {key!r}")
        return value

    def watch(self) -> Watch:
        """The board that the request names."""
        return self.supervisor.watch(self.text("port"))

    def answer(self, **values: Any) -> None:
        """The one-line answer."""
        self.wire.send_line({"ok": True, **values})

    def body(self, size: int) -> bytes:
        """`size` bytes that follow in frames. Raises :class:`UsageProblem`."""
        if not 0 <= size <= IMAGE_LIMIT:
            raise UsageProblem(f"{size} bytes are no flash image")
        out = bytearray()
        while len(out) < size:
            frame = self.wire.read_frame()
            if frame is None:
                raise UsageProblem("the request ended early")
            out += frame[1]
        return bytes(out)


class ControlServer:
    """Accepts and answers. `reload` reads the configuration again and returns what needs a restart."""

    def __init__(self, supervisor: Supervisor, place: Place, *, group: str | None = None, reload: Callable[[], list[str]] | None = None) -> None:
        self.supervisor = supervisor
        self.place = place
        self.reload = reload
        self._group = group
        self._token = ""
        self._listening: socket.socket | None = None
        self._open: set[Wire] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._told_missing = False

    def start(self) -> None:
        """Begins to listen. Raises :class:`UsageProblem` when another daemon is there or the place is not safe."""
        if self.place.socket is not None:
            self._listening = self._unix(self.place.socket)
        else:
            assert self.place.address is not None
            host, port = self.place.address
            if not is_loopback(host):
                _log.warning("the control port listens on %s: everybody who knows the token reaches it, unencrypted", host)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.socket(family, socket.SOCK_STREAM)
            if sys.platform == "win32":  # its SO_REUSEADDR lets any program listen on our port, and be sent our token
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((host, port))
            except OSError as error:
                raise UsageProblem(f"cannot listen on {host}:{port}: {error.strerror}", "change [control] listen") from None
            bound = listening.getsockname()
            self._token = secrets.token_urlsafe(32)
            token_file = self.place.token_file or self.supervisor.state_dir / "control.token"
            write_atomically(token_file, self._token.encode(), mode=0o600)
            self.place = Place(address=(host, int(bound[1])), token_file=token_file)
            self._listening = listening
        self._listening.listen(_BACKLOG)
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def _unix(self, path: Path) -> socket.socket:
        if sys.platform == "win32":
            raise UsageProblem("Windows has no Unix sockets here", 'set [control] listen = "127.0.0.1:2200"')
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        refuse_open_folder(path.parent, "the control socket", sticky=True)
        if os.path.lexists(path):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise UsageProblem(f"{path} is there and is no socket", "remove it, or set [control] socket")
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            probe.settimeout(2.0)
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()  # left by a daemon that was killed
            else:
                raise UsageProblem(f"another espmon daemon answers at {path}", "espmon status shows it; one daemon per socket")
            finally:
                probe.close()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o117)
        try:
            listening.bind(str(path))
        except OSError as error:
            listening.close()
            raise UsageProblem(f"cannot make the control socket {path}: {error.strerror}", "set [control] socket to a place of yours") from None
        finally:
            os.umask(before)
        if self._group is not None:
            import grp

            try:
                os.chown(path, -1, grp.getgrnam(self._group).gr_gid, follow_symlinks=False)
            except (KeyError, OSError) as error:
                _log.warning("control socket: group %s: %s", self._group, error)
        return listening

    def stay(self) -> None:
        """Listens anew when the socket's file has been removed (by whatever cleans old files up): nobody could ask any more."""
        path = self.place.socket
        if path is None or self._stopping or os.path.lexists(path):
            return
        try:
            fresh = self._unix(path)
            fresh.listen(_BACKLOG)
        except (OSError, UsageProblem) as error:
            if not self._told_missing:
                self._told_missing = True
                _log.error("control socket: %s", error)
            return
        self._told_missing = False
        _log.warning("the control socket %s was removed; it is there again", path)
        old, self._listening = self._listening, fresh
        if old is not None:
            with contextlib.suppress(OSError):
                old.shutdown(socket.SHUT_RDWR)
            old.close()

    def stop(self) -> None:
        """Ends listening and all conversations."""
        self._stopping = True
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
        if self.place.socket is not None and self._listening is not None:
            with contextlib.suppress(OSError):
                self.place.socket.unlink()
        with self._lock:
            wires = list(self._open)
        for wire in wires:
            wire.close()

    def _accept(self) -> None:
        while not self._stopping:
            assert self._listening is not None
            try:
                connection, _ = self._listening.accept()
            except OSError:
                if self._stopping:
                    return
                time.sleep(0.1)  # out of descriptors, for instance, or `stay` has put another in its place
                continue
            wire = Wire(connection)
            with self._lock:
                self._open.add(wire)
                count = len(self._open)
            try:
                if count > _MOST + _MOST_REFUSED:
                    raise RuntimeError("too many connections")
                threading.Thread(target=self._converse, args=(wire, count > _MOST), name="control", daemon=True).start()
            except RuntimeError as error:  # also what Python says when the system gives no more threads
                _log.warning("control: a connection was closed: %s", error)
                with self._lock:
                    self._open.discard(wire)
                wire.close()

    def _converse(self, wire: Wire, too_many: bool) -> None:
        connection = wire.connection
        try:
            connection.settimeout(10.0)
            request = wire.read_line()
            connection.settimeout(None)
            if request is None:
                return
            if too_many:
                raise UsageProblem(f"{_MOST} connections to the daemon are open: no more are taken", "espmon status tells who is attached")
            if self._token and not hmac.compare_digest(str(request.get("token", "")), self._token):
                raise UsageProblem("the token is wrong", f"it stands in {self.place.token_file}")
            do = REQUESTS.get(str(request.get("do")))
            if do is None:
                raise UsageProblem(f"the daemon does not know {request.get('do')!r}", "is it of the same version?")
            do(Conversation(wire, request, _peer(connection, request), self.supervisor, self))
        except EspmonError as error:
            self._tell(wire, error)
        except (OSError, ValueError):
            pass  # the client went away or talks nonsense
        except Exception as error:  # noqa: BLE001 - logged with its traceback, and told to the client
            _log.exception("control request")
            self._tell(wire, EspmonError(f"a fault in the daemon: {error}", "see its log"))
        finally:
            with self._lock:
                self._open.discard(wire)
            wire.close()

    @staticmethod
    def _tell(wire: Wire, error: EspmonError) -> None:
        with contextlib.suppress(OSError):
            wire.send_line(
                {"ok": False, "error": error.code, "exit_status": error.exit_status, "message": error.message, "hint": error.hint}
            )


def _peer(connection: socket.socket, request: Mapping[str, Any]) -> str:
    """Who asks, as far as the system tells; otherwise what they say of themselves, made harmless."""
    if sys.platform == "linux" and connection.family == socket.AF_UNIX:
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        import pwd

        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            user = f"uid {uid}"
        return f"{user} (pid {pid})"
    said = "".join(c for c in str(request.get("who", "somebody")) if c.isalnum() or c in " ._-()")
    return said[:60] or "somebody"


# --- requests ------------------------------------------------------------------------------------------------------------


def _status(c: Conversation) -> None:
    c.answer(status=c.supervisor.status())


def _reload(c: Conversation) -> None:
    if c.server.reload is None:
        raise UsageProblem("this daemon cannot read its configuration again")
    c.answer(needs_restart=c.server.reload())


class _EventStream:
    """Events for one follower; when it is too slow the oldest are dropped and it is told."""

    def __init__(self, port: str | None) -> None:
        self.port = port
        self.ready = threading.Event()
        self.lines: deque[str] = deque()
        self.dropped = 0

    def offer(self, event: Event) -> None:
        if isinstance(event, Progress) or (self.port is not None and event.port != self.port):
            return
        if len(self.lines) >= 10_000:
            self.lines.popleft()
            self.dropped += 1
        self.lines.append(to_json_line(event))
        self.ready.set()


def _events(c: Conversation) -> None:
    """Streams events from now on: JSON frames, each one contract object."""
    port = c.watch().name if c.request.get("port") else None
    stream = _EventStream(port)
    c.supervisor.listen(stream.offer)
    try:
        c.answer()
        closed = _when_closed(c.wire, stream.ready)
        while not closed.is_set():
            stream.ready.wait(30.0)
            stream.ready.clear()
            while stream.lines:
                c.wire.send_frame(b"J", stream.lines.popleft().encode())
    finally:
        c.supervisor.unlisten(stream.offer)


def _when_closed(wire: Wire, wake: threading.Event, on_frame: Callable[[bytes, bytes], None] | None = None) -> threading.Event:
    """An event that is set when the client has gone; its frames go to `on_frame`."""
    closed = threading.Event()

    def read() -> None:
        try:
            while (frame := wire.read_frame()) is not None:
                if on_frame is not None:
                    on_frame(*frame)
        except (OSError, ValueError):
            pass
        finally:
            closed.set()
            wake.set()

    threading.Thread(target=read, name="control", daemon=True).start()
    return closed


def _attach(c: Conversation) -> None:
    """The port's bytes as they come (``D`` frames), and, for one client at a time, bytes to the board."""
    watch = c.watch()
    if c.request.get("exclusive"):
        _exclusive(c, watch)
        return
    attached = Attached(c.who)
    lines = _Lines()
    with watch.hands:
        watch.attached = [*watch.attached, attached]

    def from_client(letter: bytes, payload: bytes) -> None:
        if letter == b"D":
            if watch.writer is None:
                watch.writer = attached
                c.supervisor.database.audit(time.time(), watch.name, c.who, "writes")
            if watch.writer is not attached:
                c.wire.send_json({"notice": f"{watch.writer.who} writes to {watch.name}; what you typed was not sent"})
                return
            try:
                watch.write(payload)
            except PortProblem as problem:
                c.wire.send_json({"notice": problem.message})
        elif letter == b"J":
            c.wire.send_json(_line_wish(c, watch, payload, lines))

    try:
        c.answer(
            name=watch.name,
            device=watch.device,
            state=watch.state,
            baud=watch.rate.baud,
            chip=watch.section.chip,
            elf=list(watch.section.elf),
            identity=asdict(watch.identity) if watch.identity else None,
            writer=watch.writer.who if watch.writer else None,
        )
        closed = _when_closed(c.wire, attached.ready, from_client)
        state = watch.state
        while not closed.is_set() and not attached.closed:
            attached.ready.wait(0.5)
            data = attached.take()
            while attached.rates:
                c.wire.send_json({"baud": attached.rates.popleft()})
            if data:
                c.wire.send_frame(b"D", data)
            if attached.dropped:
                dropped, attached.dropped = attached.dropped, 0
                c.wire.send_json({"notice": f"{dropped} bytes left out: this connection is too slow", "dropped": dropped})
            if watch.state != state:
                state = watch.state
                c.wire.send_json({"state": state, "holder": watch.holder})
    finally:
        with watch.hands:
            watch.attached = [a for a in watch.attached if a is not attached]
        if watch.writer is attached:
            watch.writer = None


class _Frames:
    """Frames for a client, in order, from a thread of its own: a client that doesn't read must not keep us from reading the port."""

    def __init__(self, wire: Wire) -> None:
        self.stuck = False
        """True when the client is so far behind, or gone, that it gets no more."""
        self._wire = wire
        self._frames: deque[tuple[bytes, bytes]] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def send(self, letter: bytes, payload: bytes) -> None:
        with self._changed:
            if self._waiting > ATTACH_BYTES:
                self.stuck = True
                return
            self._waiting += len(payload) + 64
            self._frames.append((letter, payload))
            self._changed.notify()

    def send_json(self, value: Mapping[str, Any]) -> None:
        self.send(b"J", json.dumps(value).encode())

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._frames and not self._ended:
                    self._changed.wait()
                if not self._frames:
                    return
                letter, payload = self._frames.popleft()
            try:
                self._wire.send_frame(letter, payload)
            except OSError:
                self.stuck = True
                return
            with self._changed:
                self._waiting -= len(payload) + 64

    def stop(self) -> None:
        """Sends what waits, if the client takes it."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(1.0)


class _Lines:
    """What a client did to DTR and RTS: the end of an EN pulse is a reset of the board."""

    def __init__(self) -> None:
        self.pulled = False


def _line_wish(c: Conversation, watch: Watch, payload: bytes, lines: _Lines) -> dict[str, Any]:
    """DTR and RTS for an attached client, between the reader's reads: the port stays with the daemon."""
    wish = json.loads(payload)
    if not isinstance(wish, dict) or wish.get("do") != "lines":
        return {"answer": False, "problem": "only DTR and RTS can be set while others read"}
    try:
        with watch.io:
            if watch.state != "run" or watch.port is None:
                return {"answer": False, "problem": f"{watch.name} is {watch.state}"}
            done = watch.port.set_lines(wish.get("dtr"), wish.get("rts"))
    except PortProblem as problem:
        return {"answer": False, "problem": problem.message}
    if done and wish.get("rts") is True:
        lines.pulled = True
    elif done and wish.get("rts") is False and lines.pulled:
        lines.pulled = False
        c.supervisor.was_reset(watch, c.who, "DTR and RTS")
    return {"answer": done}


def _exclusive(c: Conversation, watch: Watch) -> None:
    """The port for one client alone: bytes, lines and rates as it wishes, in order; everything heard is logged."""
    with c.supervisor.borrow(watch, c.who) as port:
        watch.log.mark("borrowed", time.time(), time.monotonic(), by=c.who)
        c.supervisor.database.audit(time.time(), watch.name, c.who, "borrow")
        c.answer(
            name=watch.name, device=watch.device, state="busy", baud=port.baud, chip=watch.section.chip, elf=list(watch.section.elf),
            identity=asdict(watch.identity) if watch.identity else None,
        )  # fmt: skip
        lines = _Lines()
        own_rate = port.baud
        out = _Frames(c.wire)
        told_stopping = False
        try:
            while not out.stuck:
                if not told_stopping and c.supervisor.stop_operations.is_set():
                    # it brings the board to a safe state; the supervisor waits for that, but not for ever
                    told_stopping = True
                    out.send_json({"stopping": True})
                while c.wire.waits(0.0):
                    frame = c.wire.read_frame()
                    if frame is None:
                        return
                    letter, payload = frame
                    if letter == b"D":
                        port.write(payload)
                    else:
                        out.send_json(_loader_wish(c, watch, port, json.loads(payload), lines))
                data = port.read(0.004)
                if data:
                    watch.frames_heard(Chunk(time.time(), data, time.monotonic()))
                    out.send(b"D", data)
            _log.warning("%s: %s takes nothing of what it asked for; the port goes back", watch.name, c.who)
        except (OSError, ValueError):
            return  # the client has gone
        finally:
            out.stop()
            with contextlib.suppress(PortProblem):
                if port.baud != own_rate:
                    port.set_baud(own_rate)
            watch.log.mark("returned", time.time(), time.monotonic(), by=c.who)


def _loader_wish(c: Conversation, watch: Watch, port: SerialPort, wish: Mapping[str, Any], lines: _Lines) -> dict[str, Any]:
    try:
        match wish.get("do"):
            case "lines":
                done = port.set_lines(wish.get("dtr"), wish.get("rts"))
                if wish.get("rts") is True:
                    lines.pulled = True
                elif wish.get("rts") is False and lines.pulled:
                    lines.pulled = False
                    c.supervisor.was_reset(watch, c.who, "DTR and RTS")
                return {"answer": done}
            case "baud":
                got = port.set_baud(int(wish["rate"]))
                return {"answer": True, "got": got.got}
            case "flush":
                port.flush()
                return {"answer": True}
    except PortGone:
        raise
    except PortProblem as problem:
        return {"answer": False, "problem": problem.message}
    return {"answer": False, "problem": "the daemon does not know this wish"}


def _lend(c: Conversation) -> None:
    """Lends the port until the client says that it is done or goes away; with `keep` until somebody reclaims it."""
    command = str(c.request.get("command", ""))[:200]
    who = c.who + (f": {command}" if command else "")
    watch = c.supervisor.lend(c.text("port"), who)
    keep = bool(c.request.get("keep"))
    try:
        c.answer(name=watch.name, device=watch.device, baud=watch.rate.baud)
        if not keep:
            with contextlib.suppress(OSError, ValueError):
                c.wire.read_line()
    finally:
        if not keep and watch.state == "lent" and watch.holder == who:
            c.supervisor.reclaim(watch.name, c.who)
            with contextlib.suppress(OSError):
                c.answer(state=_settled(watch))


def _settled(watch: Watch) -> str:
    """The state after a while: whoever had the port may need a moment to let it go."""
    limit = time.monotonic() + 5.0
    while watch.state in ("away", "opening", "failed") and time.monotonic() < limit:
        time.sleep(0.05)
    return watch.state


def _reclaim(c: Conversation) -> None:
    watch = c.watch()
    c.supervisor.reclaim(watch.name, c.who)
    c.answer(state=_settled(watch), problem=watch.problem)


def _reset(c: Conversation) -> None:
    watch = c.watch()
    c.supervisor.reset(watch.name, c.who)
    c.answer(name=watch.name)


def _recover(c: Conversation) -> None:
    watch = c.watch()
    if c.request.get("unlock"):
        c.supervisor.unlock(watch.name, c.who)
    if c.request.get("dry_run"):
        with watch.judging:
            c.answer(name=watch.name, plan=explain(watch.policy, time.time()))
        return
    if c.request.get("begin", True):
        c.supervisor.recover(watch.name, str(c.request.get("mode") or "flash"), c.who)
    with watch.judging:
        incident = watch.policy.incident
        c.answer(name=watch.name, incident=incident.id if incident else None)


def _symbols(c: Conversation) -> None:
    symbols = c.supervisor.symbols
    if c.request.get("port"):
        built = c.request.get("built")
        symbols.add_version(c.watch().name, c.text("path"), c.text("sha256"), float(built) if isinstance(built, (int, float)) else 0.0)
    symbols.elf_arrived()
    c.answer()


def _image(c: Conversation) -> None:
    watch = c.watch()
    c.supervisor.image_changed(watch.name)
    c.answer(image=watch.policy.settings.image)


def _learn(c: Conversation) -> None:
    from espmon.app.rungs import learn

    image = learn(c.supervisor, c.watch(), c.who, force=bool(c.request.get("force")))
    c.answer(image=image.digest, bytes=image.size)


REQUESTS: dict[str, Handler] = {
    "status": _status,
    "reload": _reload,
    "events": _events,
    "attach": _attach,
    "lend": _lend,
    "reclaim": _reclaim,
    "reset": _reset,
    "recover": _recover,
    "symbols-changed": _symbols,
    "image-changed": _image,
    "learn": _learn,
}
