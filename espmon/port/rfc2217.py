"""A port of ours offered to RFC 2217 clients: pyserial's PortManager speaks the protocol, this is what it works on.

The port stays with whoever owns it: :class:`Shared` tells how to write, set lines and rate, and bytes that were read are
handed in with :meth:`Rfc2217Server.heard`. One client at a time. There is no login.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_WAITING_LIMIT = 1 << 20  # bytes that wait for a slow client; more are dropped


@dataclass(frozen=True, slots=True)
class Shared:
    """What a client may do to the port. All may raise `PortProblem`, which is told to nobody: the client sees no effect."""

    write: Callable[[bytes], None]
    set_lines: Callable[[bool | None, bool | None], bool]
    set_baud: Callable[[int], None]
    baud: Callable[[], int]


class _Face:
    """pyserial's interface of a serial port, as far as PortManager uses it."""

    bytesize = 8
    parity = "N"
    stopbits = 1
    rtscts = False
    xonxoff = False
    cts = dsr = True
    ri = cd = False
    break_condition = False
    timeout = 0

    def __init__(self, shared: Shared, name: str) -> None:
        self._shared = shared
        self._dtr = self._rts = False
        self.port = name

    @property
    def baudrate(self) -> int:
        return self._shared.baud()

    @baudrate.setter
    def baudrate(self, rate: int) -> None:
        if rate != self._shared.baud():
            self._shared.set_baud(rate)

    @property
    def dtr(self) -> bool:
        return self._dtr

    @dtr.setter
    def dtr(self, on: bool) -> None:
        self._dtr = on
        self._shared.set_lines(on, None)

    @property
    def rts(self) -> bool:
        return self._rts

    @rts.setter
    def rts(self, on: bool) -> None:
        self._rts = on
        self._shared.set_lines(None, on)

    def reset_input_buffer(self) -> None:
        """Nothing waits here."""

    def reset_output_buffer(self) -> None:
        """Nothing waits here."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class _Peer:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.lock = threading.Lock()

    def write(self, content: bytes) -> None:
        with self.lock:
            self.connection.sendall(content)


class Rfc2217Server:
    """Listens at `host`:`port` for one client after the other. Raises OSError when it can't."""

    def __init__(self, shared: Shared, name: str, host: str, port: int, told: Callable[[str], None]) -> None:
        self._shared = shared
        self._name = name
        self._told = told
        self._stopping = False
        self._client: tuple[_Peer, Any] | None = None
        self._waiting = bytearray()
        self._ready = threading.Condition()
        self._listening = socket.create_server((host, port), backlog=1, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.address: tuple[str, int] = self._listening.getsockname()[:2]
        for target in (self._serve, self._send):
            threading.Thread(target=target, name=f"rfc2217 {name}", daemon=True).start()

    @property
    def has_client(self) -> bool:
        """True while somebody is connected."""
        return self._client is not None

    def heard(self, data: bytes) -> None:
        """Bytes of the board, for the client if there is one. Never blocks."""
        if self._client is None:
            return
        with self._ready:
            if len(self._waiting) < _WAITING_LIMIT:
                self._waiting += data
                self._ready.notify()

    def _send(self) -> None:
        while not self._stopping:
            with self._ready:
                while not self._waiting and not self._stopping:
                    self._ready.wait()
                data = bytes(self._waiting)
                self._waiting.clear()
            client = self._client
            if client is None:
                continue
            peer, manager = client
            with contextlib.suppress(OSError):
                peer.write(b"".join(manager.escape(data)))

    def _serve(self) -> None:
        from serial.rfc2217 import PortManager

        from espmon.errors import PortProblem

        while not self._stopping:
            try:
                connection, address = self._listening.accept()
            except OSError:
                return
            self._told(f"RFC 2217 client {address[0]} has joined")
            peer = _Peer(connection)
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                try:
                    face: Any = _Face(self._shared, self._name)
                    out: Any = peer
                    manager = PortManager(face, out)
                    self._client = (peer, manager)
                    while data := connection.recv(4096):
                        with contextlib.suppress(PortProblem):
                            plain = b"".join(manager.filter(data))
                            if plain:
                                self._shared.write(plain)
                except (OSError, ValueError):
                    pass  # the client has gone, or talks nonsense
                finally:
                    self._client = None
                    with self._ready:
                        self._waiting.clear()
            self._told("the RFC 2217 client has left")

    def stop(self) -> None:
        """Ends listening, and the client."""
        self._stopping = True
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError):
                client[0].connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._ready:
            self._ready.notify_all()
