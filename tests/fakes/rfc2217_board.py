"""A board behind an RFC 2217 server on this machine: pyserial's own PortManager over an object that writes down what it
was told to do. Unlike a pty it has modem lines."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from typing import Any

from serial import rfc2217


class RecordingLine:
    """What PortManager needs of a serial port. Everything set goes to `told`, in order."""

    def __init__(self) -> None:
        self.__dict__.update(
            told=[],
            heard=bytearray(),
            baudrate=9600,
            bytesize=8,
            parity="N",
            stopbits=1,
            rtscts=False,
            xonxoff=False,
            dtr=True,
            rts=True,
            cts=True,
            dsr=True,
            ri=False,
            cd=False,
            break_condition=False,
            port="recording",
        )

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
        self.told.append((name, value))

    def reset_input_buffer(self) -> None:
        self.told.append(("purge", "in"))

    def reset_output_buffer(self) -> None:
        self.told.append(("purge", "out"))

    @property
    def lines(self) -> list[tuple[str, bool]]:
        return [each for each in self.told if each[0] in ("dtr", "rts")]


class Rfc2217Board:
    """Serves one client after the other until closed."""

    def __init__(self) -> None:
        self.line = RecordingLine()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._server.getsockname()[1]}"
        self._say: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._connection: socket.socket | None = None
        self._manager: Any = None
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    # PortManager's view of the connection
    def write(self, content: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._connection is not None:
                self._connection.sendall(content)

    def _serve(self) -> None:
        while not self._closed:
            try:
                self._connection, _ = self._server.accept()
            except OSError:
                return
            self._manager = rfc2217.PortManager(self.line, self)
            with contextlib.suppress(OSError):
                while received := self._connection.recv(4096):
                    self.line.heard += b"".join(self._manager.filter(received))
            self._connection.close()

    def say(self, text: bytes) -> None:
        self.write(b"".join(self._manager.escape(text)))

    def hang_up(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed = True
        self.hang_up()
        with contextlib.suppress(OSError):  # closing a socket doesn't wake who accepts from it
            socket.create_connection(self._server.getsockname(), 1).close()
        self._thread.join(5)
        self._server.close()
