"""The virtual board as a serial device server (RFC 2217): baud rate, DTR and RTS travel over TCP.

pyserial's PortManager speaks the protocol; this module is the sockets around it. One client at a time has the board, as
with a cable; when it leaves, DTR and RTS drop and the board goes on.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from serial.rfc2217 import PortManager

from espmon.board.live import LiveBoard
from espmon.board.urls.protocol_sim import Serial
from espmon.errors import PortBusy

LINES_EVERY = 1.0  # seconds between looks at the modem lines
READ_AT_ONCE = 4096


class _Connection:
    """What PortManager writes its negotiations to; one lock keeps them apart from data."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.lock = threading.Lock()

    def write(self, content: bytes) -> None:
        with self.lock:
            self.peer.sendall(content)


class Rfc2217Server:
    """Serves `live` at `host`:`port` (0: any free one, see `address`). `serve` blocks, `start` uses a thread."""

    def __init__(
        self, live: LiveBoard, host: str = "127.0.0.1", port: int = 0, told: Callable[[str], None] | None = None
    ) -> None:
        self.live = live
        self.told = told or (lambda text: None)
        self._stopping = threading.Event()
        self._peer: socket.socket | None = None
        try:
            self._listener = socket.create_server((host, port), backlog=1)
            self._listener.settimeout(0.5)  # Windows notices Ctrl-C only between two waits
        except OSError as error:
            raise PortBusy(
                f"{host}:{port}", f"cannot listen at {host}:{port}: {error.strerror or error}", "choose another port"
            ) from error
        self.address: tuple[str, int] = self._listener.getsockname()[:2]

    @property
    def url(self) -> str:
        """What to give to pyserial programs."""
        return f"rfc2217://{self.address[0]}:{self.address[1]}"

    def start(self) -> threading.Thread:
        """Serve in a thread; `stop` ends it."""
        thread = threading.Thread(target=self.serve, name="rfc2217", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End serving and let the client go."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        peer = self._peer
        if peer is not None:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """One client after the other, until `stop`."""
        while not self._stopping.is_set():
            try:
                peer, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                break
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peer = peer
                self.told("client connected")
                self._serve_one(peer)
                self._peer = None
                self.told("client gone")

    def _serve_one(self, peer: socket.socket) -> None:
        port = Serial(None, timeout=0.05, live=self.live)
        port.dtr = port.rts = False
        port.port = f"sim://{self.live.settings.chip}"
        port.open()
        port.reset_input_buffer()
        connection = _Connection(peer)
        manager = PortManager(port, connection)  # type: ignore[arg-type]  # any port, anything with write()
        alive = threading.Event()
        alive.set()
        sender = threading.Thread(
            target=self._send, args=(port, connection, manager, alive), name="rfc2217-send", daemon=True
        )
        sender.start()
        try:
            while True:
                heard = peer.recv(READ_AT_ONCE)
                if not heard:
                    break
                content = b"".join(manager.filter(heard))
                if content:
                    port.write(content)
        except OSError:
            pass
        finally:
            alive.clear()
            port.cancel_read()
            sender.join(5)
            port.close()

    def _send(self, port: Serial, connection: _Connection, manager: PortManager, alive: threading.Event) -> None:
        """What the board says goes to the client."""
        look = time.monotonic() + LINES_EVERY
        while alive.is_set():
            content = port.read(1)
            content += port.read(min(port.in_waiting, READ_AT_ONCE))
            try:
                if content:
                    connection.write(b"".join(manager.escape(content)))
                if time.monotonic() > look:
                    look = time.monotonic() + LINES_EVERY
                    manager.check_modem_lines()
            except OSError:
                return
