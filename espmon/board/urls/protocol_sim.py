"""`sim://CHIP?parameter=value&...`: the virtual board as a pyserial port.

``serial.serial_for_url("sim://esp8266?crash=load")`` works once ``espmon.board.urls`` is listed in
``serial.protocol_handler_packages``. Parameters are those of docs/virtual-board.md; `flash=FILE` keeps the flash image.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from serial import PortNotOpenError, SerialBase, SerialException, SerialTimeoutException

from espmon.board.live import LiveBoard, open_flash
from espmon.board.settings import BoardSettings, settings_from
from espmon.errors import EspmonError


def settings_of(url: str) -> tuple[BoardSettings, Path | None]:
    """What `url` asks for, and the flash file if it names one. Raises UsageProblem."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    chip = parts.netloc or unquote(parts.path.strip("/"))
    if chip:
        pairs.insert(0, ("chip", chip.lower()))
    flash = next((text for name, text in pairs if name == "flash"), None)
    return settings_from([(name, text) for name, text in pairs if name != "flash"]), Path(flash) if flash else None


class Serial(SerialBase):
    """pyserial's interface to one virtual board. The board is powered when the port is opened for the first time."""

    # what SerialBase keeps; the stubs do not name these
    _port: str | None
    _baudrate: int
    _timeout: float | None
    _write_timeout: float | None
    _rts_state: bool
    _dtr_state: bool
    _rtscts: bool
    _dsrdtr: bool

    def __init__(self, *arguments: Any, live: LiveBoard | None = None, **named: Any) -> None:
        self._live = live
        self._own = live is None
        self._cancelled = False
        self.adapter_rate: int | None = None  # what the adapter made of the rate that was asked for
        super().__init__(*arguments, **named)

    @property
    def live(self) -> LiveBoard:
        """The board behind the port."""
        if self._live is None:
            raise PortNotOpenError()
        return self._live

    # --- opening

    def open(self) -> None:
        """Open the port; a board is built from the URL unless one was handed in. Raises SerialException."""
        if self._port is None:
            raise SerialException("a sim:// URL must be given before the port can be opened")
        if self.is_open:
            raise SerialException("the port is open already")
        if self._live is None:
            try:
                settings, flash = settings_of(self.portstr or "")
                self._live = LiveBoard(settings, open_flash(flash, settings) if flash else None)
            except EspmonError as error:
                raise SerialException(f"{error.message}; {error.hint}" if error.hint else error.message) from error
        self.is_open = True
        try:
            self._reconfigure_port()
        except BaseException:
            self.is_open = False
            raise
        if not self._dsrdtr:
            self._update_dtr_state()
        if not self._rtscts:
            self._update_rts_state()

    def close(self) -> None:
        """Close the port: DTR and RTS drop, as on a desk, and the board goes on."""
        if self.is_open:
            self.is_open = False
            with self.live.changed:
                self.live.catch_up()
                self.live.board.set_lines(False, False)

    def _reconfigure_port(self, force_update: bool = False) -> None:
        live = self.live
        with live.changed:
            live.catch_up()
            try:
                self.adapter_rate = round(live.board.set_rate(float(self._baudrate)))
            except ValueError as error:
                raise ValueError(str(error)) from None
            live.changed.notify_all()

    # --- bytes

    @property
    def damaged(self) -> int | None:
        """Bytes with framing errors so far; None where the adapter doesn't tell."""
        with self.live.changed:
            return self.live.board.damaged

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read now."""
        if not self.is_open:
            raise PortNotOpenError()
        with self.live.changed:
            self.live.catch_up()
            return self.live.board.host_waiting

    def read(self, size: int = 1) -> bytes:
        """At most `size` bytes; fewer when the time-out runs out."""
        if not self.is_open:
            raise PortNotOpenError()
        live, out = self.live, bytearray()
        end = None if self._timeout is None else time.monotonic() + self._timeout
        with live.changed:
            while True:
                live.catch_up()
                out += live.board.host_read(size - len(out))
                if len(out) >= size or self._cancelled or not self.is_open:
                    break
                left = 0.25 if end is None else end - time.monotonic()
                if left <= 0:
                    break
                live.wait(min(left, 0.25))
            self._cancelled = False
        return bytes(out)

    def write(self, b: Any, /) -> int:
        """Send; blocks for as long as a driver with a 4 KiB buffer would. Raises SerialTimeoutException."""
        if not self.is_open:
            raise PortNotOpenError()
        live, content = self.live, bytes(b)
        end = None if self._write_timeout is None else time.monotonic() + self._write_timeout
        with live.changed:
            live.catch_up()
            if live.settings.write_stall:
                while end is None or time.monotonic() < end:
                    live.changed.wait(0.05)
                    if not self.is_open:
                        return 0
                raise SerialTimeoutException("Write timeout")
            live.board.host_write(content)
            live.changed.notify_all()
        return len(content)

    def flush(self) -> None:
        """Wait until everything written has left the port."""
        if not self.is_open:
            raise PortNotOpenError()
        live = self.live
        with live.changed:
            while True:
                live.catch_up()
                left = (live.board.sending_until - live.board.now) / live.settings.speed
                if left <= 0 or not self.is_open:
                    return
                live.changed.wait(min(left, 0.05))

    def reset_input_buffer(self) -> None:
        """Throw away what was received."""
        if not self.is_open:
            raise PortNotOpenError()
        with self.live.changed:
            self.live.catch_up()
            self.live.board.discard_received()

    def reset_output_buffer(self) -> None:
        """Nothing to do: what was written is on the wire already."""
        if not self.is_open:
            raise PortNotOpenError()

    def cancel_read(self) -> None:
        """Make a blocked `read` return."""
        with self.live.changed:
            self._cancelled = True
            self.live.changed.notify_all()

    # --- lines

    def _set_lines(self, dtr: bool | None, rts: bool | None) -> None:
        with self.live.changed:
            self.live.catch_up()
            self.live.board.set_lines(dtr, rts)
            self.live.changed.notify_all()

    def _update_rts_state(self) -> None:
        self._set_lines(None, bool(self._rts_state))

    def _update_dtr_state(self) -> None:
        self._set_lines(bool(self._dtr_state), None)

    def _update_break_state(self) -> None:
        """A break is not modelled: nothing on these boards listens for one."""

    @property
    def cts(self) -> bool:
        """Clear to send: always."""
        return True

    @property
    def dsr(self) -> bool:
        """Data set ready: always."""
        return True

    @property
    def ri(self) -> bool:
        """Ring indicator: never."""
        return False

    @property
    def cd(self) -> bool:
        """Carrier: never."""
        return False
