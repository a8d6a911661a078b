"""One serial port, opened so that the board doesn't notice; every way in which it can vanish is one exception.

pyserial opens and configures; on POSIX we read and write the descriptor ourselves (its select fails near 150 ports and
costs five descriptors each). Exactly one thread owns a :class:`SerialPort`; only :meth:`SerialPort.wake` may be called
from another.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from espmon.errors import PortGone, PortProblem, PortStalled
from espmon.port import names, refusals
from espmon.port.holders import lock_holder
from espmon.values import Value, positional_value

if TYPE_CHECKING:
    import serial

# Packages in which pyserial looks for `protocol_<scheme>` modules, beside its own: our virtual board's.
_HANDLER_PACKAGES = ("espmon.board.urls",)
_READ_SIZE = 65536
# Without a descriptor (Windows, URLs) the time limit of writing is a setting of the port, not of the call.
_WRITE_LIMIT_S = 10.0
_PIECE = 256  # what a port without a descriptor is given at once: 22 ms at 115200 baud
_HUNG_UP = 0x08 | 0x10 | 0x20  # POLLERR, POLLHUP, POLLNVAL: only asked where there is poll (Linux)
_EMPTY_READS = 50  # in a row, 1 ms apart, before a port that is readable without data counts as gone
# How long one look at a port without a descriptor may block: the longest that a typed key waits there.
_SLICE_S = 0.02


class Chunk(NamedTuple):
    """Bytes as they were read: `at` is Unix seconds, `mono` seconds of the monotonic clock, both at the read's end."""

    at: float
    data: bytes
    mono: float = 0.0


@positional_value
class RateSet(Value):
    """What became of a wish for `asked` baud: `got` is what the driver reports, None where it doesn't say."""

    asked: int
    got: int | None = None

    @property
    def off_by(self) -> float:
        """Relative deviation of what we got, 0.0 when unknown."""
        return 0.0 if not self.got else self.got / self.asked - 1


def _readable(fd: int, seconds: float) -> bool:
    """True when the socket `fd` has something within `seconds`; also for descriptors above 1023, which select() refuses."""
    if sys.platform == "win32":
        return bool(select.select([fd], [], [], seconds)[0])
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _nothing() -> None:
    return None


def _refuses_rate(error: Exception) -> bool:
    """True when the driver said no to a rate and the port is still there: EINVAL, ENOTTY, EOPNOTSUPP, pyserial's ValueError."""
    number, _ = refusals.error_numbers(error)
    return number in (22, 25, 95) or (number is None and isinstance(error, ValueError))


def _no_such_rate(name: str, rate: int) -> PortProblem:
    return PortProblem(name, f"{name} refuses {rate} baud", "Choose a rate that the adapter supports.")


class SerialPort:
    """A port by `name`: a device (``/dev/ttyUSB0``, ``ttyUSB0``, ``COM3``) or a pyserial URL.

    Created closed. `baud` is the rate that :meth:`open` sets. `device` is what is really opened; it changes when the
    board comes back under another name.
    """

    def __init__(self, name: str, baud: int = 115200) -> None:
        self.name = name
        self.device = names.device_path(name)
        self.baud = baud
        self.identity = names.PortIdentity(name=self.device)
        self._serial: Any = None
        self._fd: int | None = None  # a tty's descriptor; None: read through pyserial
        self._poll: Any = None
        self._wake_poll: Any = None
        self._wake_r = self._wake_w = -1
        self._wake_lock = threading.Lock()
        self._woken = False
        self._empty_reads = 0

    # --- opening and closing ----------------------------------------------------------------------------------------

    @property
    def is_url(self) -> bool:
        return names.is_url(self.device)

    @property
    def is_open(self) -> bool:
        return self._serial is not None

    @property
    def descriptor(self) -> int | None:
        """The open tty's non-blocking file descriptor, for whoever polls many ports at once; None for URLs and on Windows."""
        return self._fd

    @property
    def is_pty(self) -> bool:
        """True for a pseudo terminal: it has no modem lines, no rate, and its writer waits for us."""
        return os.path.realpath(self.device).startswith("/dev/pts/") if not self.is_url else False

    def open(self) -> None:
        """Opens the port with DTR and RTS inactive and asks for no reset.

        The kernel itself asserts both lines while a tty is being opened; they are released together, or RTS first, so
        that at no moment RTS alone is asserted, which is what pulls a board's reset line.

        Raises `PortNotFound`, `PortBusy`, `PortDenied`, `PortGone` or another `PortProblem`.
        """
        if self._serial is not None:
            return
        if not self.is_url and lock_holder(self.device):
            raise refusals.busy(self.name, self.device)
        try:
            port = self._closed_serial()
            self._open_quietly(port)
        except refusals.OPENING as error:
            raise refusals.refusal(self.name, self.device, error) from None
        self._serial = port
        try:
            self._settle(port)
        except refusals.SETTING as error:
            self.close()
            if _refuses_rate(error):
                raise _no_such_rate(self.name, self.baud) from None
            raise refusals.gone(self.name, error) from None

    def _closed_serial(self) -> serial.Serial:
        import serial

        for package in _HANDLER_PACKAGES:
            if package not in serial.protocol_handler_packages:
                serial.protocol_handler_packages.append(package)
        port = serial.serial_for_url(self.device, do_not_open=True, timeout=0)
        if not self.device.startswith("rfc2217://"):  # which refuses it
            port.write_timeout = _WRITE_LIMIT_S
        port.dtr = False
        port.rts = False
        # A CH341 may ignore the rate that it is opened with: open at another and set the right one afterwards.
        port.baudrate = self.baud if self.is_url else (9600 if self.baud != 9600 else 19200)
        if not self.is_url and sys.platform != "win32":
            port.exclusive = True  # flock; TIOCEXCL follows: each alone is passed by somebody
        return port

    def _open_quietly(self, port: Any) -> None:
        """pyserial's open without its habit of releasing DTR before RTS, and of throwing away what has arrived."""
        own = port.__dict__
        drop_dtr, drop_rts = getattr(port, "_update_dtr_state", None), getattr(port, "_update_rts_state", None)

        def release() -> None:
            if sys.platform != "win32" and isinstance(getattr(port, "fd", None), int):
                import fcntl
                import struct
                import termios

                both = struct.pack("I", termios.TIOCM_DTR | termios.TIOCM_RTS)
                fcntl.ioctl(port.fd, termios.TIOCMBIC, both)
            elif drop_rts is not None and drop_dtr is not None:
                drop_rts()
                drop_dtr()

        try:
            own["_reset_input_buffer"] = own["reset_input_buffer"] = _nothing
            if drop_dtr is not None and drop_rts is not None and sys.platform != "win32":
                own["_update_dtr_state"], own["_update_rts_state"] = _nothing, release
            port.open()
        finally:
            for name in ("_reset_input_buffer", "reset_input_buffer", "_update_dtr_state", "_update_rts_state"):
                own.pop(name, None)

    def _settle(self, port: Any) -> None:
        if self.is_url:
            return
        port.baudrate = self.baud
        if sys.platform != "win32":
            import fcntl
            import termios

            fd: int = port.fileno()
            attributes = termios.tcgetattr(fd)
            if attributes[2] & termios.HUPCL:  # else closing would move DTR and RTS
                attributes[2] &= ~termios.HUPCL
                termios.tcsetattr(fd, termios.TCSANOW, attributes)
                port.baudrate = self.baud  # a special rate doesn't survive tcsetattr
            if not self.is_pty:  # a pty would stay exclusive for its next user when we are killed
                fcntl.ioctl(fd, termios.TIOCEXCL)
            os.set_blocking(fd, False)
            self._fd = fd
            if self._wake_r < 0:
                self._wake_r, self._wake_w = os.pipe()
                os.set_blocking(self._wake_r, False)
                os.set_blocking(self._wake_w, False)
            if sys.platform == "linux":  # elsewhere poll() on ttys is unreliable: select
                self._poll = select.poll()
                self._poll.register(fd, select.POLLIN)
                self._poll.register(self._wake_r, select.POLLIN)
                self._wake_poll = select.poll()
                self._wake_poll.register(self._wake_r, select.POLLIN)

    def close(self) -> None:
        """Closes the port; DTR and RTS stay as they are. Never raises."""
        port, self._serial = self._serial, None
        fd, self._fd, self._poll = self._fd, None, None
        if port is None:
            return
        if fd is not None and sys.platform != "win32":
            import fcntl
            import termios

            with contextlib.suppress(OSError):
                fcntl.ioctl(fd, termios.TIOCNXCL)
        connection = getattr(port, "_socket", None)
        with contextlib.suppress(*refusals.USING):  # already unplugged: nothing left to close
            port.close()
        if connection is not None:  # pyserial forgets it when the other side has hung up
            with contextlib.suppress(OSError):
                connection.close()

    def dispose(self) -> None:
        """Closes the port for good, with what wakes it."""
        self.close()
        with self._wake_lock:
            ends = (self._wake_r, self._wake_w)
            self._wake_r = self._wake_w = -1
        for end in ends:
            if end >= 0:
                os.close(end)

    def take_notices(self) -> list[str]:
        """What a port that somebody else holds for us has to say; a port of our own has nothing."""
        return []

    def remember_identity(self) -> None:
        """Looks up which board this is, so that :meth:`find_again` finds it under another name. About 1 ms."""
        if not self.is_url:
            self.identity = names.identify(self.device)

    def find_again(self) -> bool:
        """True when the board is back; `device` is then where it is now."""
        device = names.find(self.identity)
        if device is None:
            return False
        self.device = device
        return True

    # --- reading and writing ----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Makes a :meth:`read` that waits in another thread return at once."""
        self._woken = True
        with self._wake_lock:  # a descriptor closed meanwhile may already be somebody else's file
            if self._wake_w >= 0:
                with contextlib.suppress(OSError):  # a full pipe wakes as well
                    os.write(self._wake_w, b"!")

    def read(self, timeout: float | None = None) -> bytes:
        """What has arrived, at most 64 KiB; waits up to `timeout` seconds for the first byte (None: until woken).

        Returns ``b""`` when nothing came or :meth:`wake` was called. Raises `PortGone`.
        """
        if self._serial is None:
            raise PortGone(self.name, f"{self.name} is not open")
        try:
            if self._fd is not None:
                return self._read_descriptor(self._fd, timeout)
            return self._read_serial(timeout)
        except refusals.USING as error:
            raise refusals.gone(self.name, error) from None

    def pause(self, seconds: float) -> None:
        """Waits a few milliseconds, so that more is read at once. Where the system can, a :meth:`wake` ends the wait."""
        if self._woken:
            return
        if self._fd is None:
            time.sleep(seconds)
        elif self._wake_poll is not None:
            self._wake_poll.poll(seconds * 1000)
        else:
            select.select([self._wake_r], [], [], seconds)

    def _read_descriptor(self, fd: int, timeout: float | None) -> bytes:
        try:
            return self._got(os.read(fd, _READ_SIZE), fd)
        except BlockingIOError:
            pass
        if timeout == 0:
            return b""
        hung_up = False
        if self._poll is not None:
            ready = dict(self._poll.poll(None if timeout is None else max(0, timeout) * 1000))
            woken, readable = self._wake_r in ready, fd in ready
            hung_up = bool(ready.get(fd, 0) & _HUNG_UP)
        else:
            found = select.select([fd, self._wake_r], [], [], timeout)[0]
            woken, readable = self._wake_r in found, fd in found
        if woken:
            self._drain_wake()
        if not readable:
            return b""
        try:
            data = os.read(fd, _READ_SIZE)
        except BlockingIOError:
            return b""
        if data:
            self._empty_reads = 0
            return data
        # Readable without data is a hang-up, or, rarely, under a flood, a tty that had nothing after all: then it is
        # not said to be hung up, and soon has something.
        self._empty_reads += 1
        if hung_up or self._empty_reads > _EMPTY_READS:
            raise OSError(5, "hung up")
        time.sleep(0.001)
        return b""

    def _got(self, data: bytes, fd: int) -> bytes:
        """Empty reads are normal with VMIN = 0: only poll tells them from a hang-up."""
        if data:
            return data
        raise BlockingIOError

    def _drain_wake(self) -> None:
        self._woken = False
        try:
            while len(os.read(self._wake_r, 512)) == 512:
                pass
        except BlockingIOError:
            pass

    def _read_serial(self, timeout: float | None) -> bytes:
        """Ports of pyserial's own making (URLs, Windows): wait in short slices, so that a wake-up is seen."""
        port = self._serial
        limit = None if timeout is None else time.monotonic() + timeout
        is_socket = self.device.startswith("socket://")
        is_rfc2217 = self.device.startswith("rfc2217://")
        while not self._woken:
            left = _SLICE_S if limit is None else max(0.0, min(_SLICE_S, limit - time.monotonic()))
            if is_socket:  # its in_waiting says 1 whatever there is; without a timeout it reads what it gets
                if _readable(port.fileno(), left):
                    return bytes(port.read(_READ_SIZE))
            else:
                waiting = port.in_waiting
                if is_rfc2217:
                    # Its `timeout` setter negotiates all settings anew, which takes 0.2 s; and with a timeout of 0 its
                    # read gives one byte whatever waits.
                    port._timeout = None if waiting else left
                    got = bytes(port.read(min(waiting, _READ_SIZE) or 1))
                    port._timeout = None
                    if got:
                        waiting = port.in_waiting
                        return got + (bytes(port.read(min(waiting, _READ_SIZE))) if waiting else b"")
                elif not waiting:
                    port.timeout = left
                    first = bytes(port.read(1))
                    port.timeout = 0
                    if first:
                        waiting = port.in_waiting
                        return first + (bytes(port.read(min(waiting, _READ_SIZE))) if waiting else b"")
                else:
                    return bytes(port.read(min(waiting, _READ_SIZE)))
            if limit is not None and time.monotonic() >= limit:
                return b""
        self._woken = False
        return b""

    def write_some(self, data: bytes) -> int:
        """Sends as much of `data` as the port takes at once, possibly nothing; how many bytes. Raises `PortGone`."""
        if self._serial is None:
            raise PortGone(self.name, f"{self.name} is not open")
        try:
            if self._fd is not None:
                return os.write(self._fd, data)
            self._serial.write(data[:_PIECE])
            return min(len(data), _PIECE)
        except BlockingIOError:
            return 0
        except refusals.USING as error:
            raise refusals.gone(self.name, error) from None

    def write(self, data: bytes, timeout: float = 5.0) -> None:
        """Sends all of `data`. Raises `PortGone`, or `PortStalled` when the port takes nothing for `timeout` seconds."""
        if self._serial is None:
            raise PortGone(self.name, f"{self.name} is not open")
        try:
            if self._fd is not None:
                self._write_descriptor(self._fd, data, timeout)
            else:
                self._write_serial(data)
        except PortProblem:
            raise
        except refusals.USING as error:
            raise refusals.gone(self.name, error) from None

    def _write_serial(self, data: bytes) -> None:
        import serial

        try:
            self._serial.write(data)
        except serial.SerialTimeoutException:
            raise PortStalled(
                self.name,
                f"{self.name} has taken no data for {_WRITE_LIMIT_S:g} s",
                "Flow control may hold it back, or the adapter hangs: plug it out and in again.",
            ) from None

    def _write_descriptor(self, fd: int, data: bytes, timeout: float) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
                continue
            except BlockingIOError:
                pass
            if sys.platform == "linux":
                waiter = select.poll()
                waiter.register(fd, select.POLLOUT)
                ready = bool(waiter.poll(timeout * 1000))
            else:
                ready = bool(select.select([], [fd], [], timeout)[1])
            if not ready:
                raise PortStalled(
                    self.name,
                    f"{self.name} has taken no data for {timeout:g} s",
                    "Flow control may hold it back, or the adapter hangs: plug it out and in again.",
                )

    def flush(self) -> None:
        """Waits until everything written has left. Raises `PortGone`."""
        if self._serial is None:
            raise PortGone(self.name, f"{self.name} is not open")
        try:
            self._serial.flush()
        except refusals.USING as error:
            raise refusals.gone(self.name, error) from None

    # --- rate and lines ---------------------------------------------------------------------------------------------

    def set_baud(self, rate: int) -> RateSet:
        """Changes the rate, non-standard ones included. Raises `PortGone`, or `PortProblem` when it is refused."""
        port = self._serial
        before, self.baud = self.baud, rate
        if port is None:
            return RateSet(rate)
        try:
            port.baudrate = rate
        except refusals.SETTING as error:
            if not _refuses_rate(error):
                raise refusals.gone(self.name, error) from None
            self.baud = before
            with contextlib.suppress(*refusals.USING):  # pyserial believes its new rate: it must know the one that holds
                port.baudrate = before
            raise _no_such_rate(self.name, rate) from None
        return self.rate

    @property
    def rate(self) -> RateSet:
        """The rate that was asked for, and what the driver says of it."""
        return RateSet(self.baud, self._driver_rate())

    def _driver_rate(self) -> int | None:
        """The rate that the driver says it has set (Linux: c_ospeed of struct termios2; a virtual board), None elsewhere."""
        if self.device.startswith("sim://"):
            got = getattr(self._serial, "adapter_rate", None)
            return got if isinstance(got, int) else None
        if sys.platform != "linux" or self._fd is None:
            return None
        import fcntl
        import struct

        TCGETS2 = 0x802C542A  # asm-generic/ioctls.h, struct termios2 of 44 bytes
        try:
            got = fcntl.ioctl(self._fd, TCGETS2, bytes(44))
        except OSError:
            return None
        return int(struct.unpack_from("I", got, 40)[0]) or None

    def damaged(self) -> int | None:
        """How many bytes the driver has counted that came without their stop bit, breaks among them, since some time in the
        past; None where it doesn't say.

        Linux: drivers of most built-in UARTs count each; FTDI's counts at most one per USB packet, CDC-ACM's one per notice of
        the device; those of CH340 and PL2303 never do and say 0, CP210x only with parity checks on. Windows and macOS aren't asked. A virtual board counts if it is told to.
        """
        if self.device.startswith("sim://"):
            count = getattr(self._serial, "damaged", None)
            return count if isinstance(count, int) else None
        fd = self._fd
        if sys.platform != "linux" or fd is None:
            return None
        import fcntl
        import struct

        TIOCGICOUNT = 0x545D  # asm-generic/ioctls.h
        try:
            got = fcntl.ioctl(fd, TIOCGICOUNT, bytes(80))
        except OSError:  # a pseudo terminal
            return None
        # struct serial_icounter_struct: cts dsr rng dcd rx tx frame overrun parity brk buf_overrun and 9 reserved ints
        counts = struct.unpack("20i", got)
        return int(counts[6] + counts[9])

    def set_lines(self, dtr: bool | None = None, rts: bool | None = None) -> bool:
        """Asserts (True, pin low) or releases (False) DTR and RTS; None leaves one as it is.

        Both at once where the system can. False: this port has no such lines (a pty, a plain socket). Raises `PortGone`.
        """
        port = self._serial
        if port is None:
            raise PortGone(self.name, f"{self.name} is not open")
        if self.device.startswith("socket://"):
            return False
        try:
            if self._fd is not None and sys.platform != "win32":
                return self._set_lines_at_once(port, dtr, rts)
            if dtr is not None and rts is not None and self.device.startswith("rfc2217://"):
                self._send_lines_at_once(port, dtr, rts)
                return True
            # Releasing: RTS first; asserting: DTR first. So RTS alone is asserted only where that is asked for.
            order = (("rts", rts), ("dtr", dtr)) if not rts else (("dtr", dtr), ("rts", rts))
            for line, wish in order:
                if wish is not None:
                    setattr(port, line, wish)
            if sys.platform == "win32" and rts is not None and dtr is None:
                port.dtr = port.dtr  # usbser.sys sends RTS only when DTR is written too
        except refusals.USING as error:
            number, _ = refusals.error_numbers(error)
            if number in (22, 25, 95):
                return False
            raise refusals.gone(self.name, error) from None
        return True

    def _send_lines_at_once(self, port: Any, dtr: bool, rts: bool) -> None:
        """RFC 2217: both lines in one piece, then one wait for the answer.

        pyserial waits for the answer to the first, 0.05 s or the network's way there and back, before it sends the
        second: by then a board that was to enter download mode has left reset with its boot pin high.
        """
        from serial import SerialException, rfc2217

        item = port._rfc2217_options["control"]
        # Releasing: RTS first; asserting: DTR first, as above.
        dtr_code = rfc2217.SET_CONTROL_DTR_ON if dtr else rfc2217.SET_CONTROL_DTR_OFF
        rts_code = rfc2217.SET_CONTROL_RTS_ON if rts else rfc2217.SET_CONTROL_RTS_OFF
        first, last = (dtr_code, rts_code) if rts else (rts_code, dtr_code)
        head, tail = rfc2217.IAC + rfc2217.SB + rfc2217.COM_PORT_OPTION, rfc2217.IAC + rfc2217.SE
        port._dtr_state, port._rts_state = dtr, rts
        # The option remembers one value only; the answer to the first looks like a refusal to it until the last one's.
        item.value, item.state = last, rfc2217.REQUESTED
        port._internal_raw_write(b"".join(head + item.option + code + tail for code in (first, last)))
        if port._ignore_set_control_answer:
            time.sleep(0.1)
            return
        limit = time.monotonic() + port._network_timeout
        while item.state != rfc2217.ACTIVE:
            if time.monotonic() > limit:
                raise SerialException("the server does not confirm DTR and RTS")
            time.sleep(0.002)

    def _set_lines_at_once(self, port: Any, dtr: bool | None, rts: bool | None) -> bool:
        if sys.platform == "win32":
            return False
        import fcntl
        import struct
        import termios

        fd = self._fd
        assert fd is not None
        on = off = 0
        for wish, bit in ((dtr, termios.TIOCM_DTR), (rts, termios.TIOCM_RTS)):
            on |= bit if wish is True else 0
            off |= bit if wish is False else 0
        # pyserial keeps the wished states for its own reopening
        port._dtr_state = port._dtr_state if dtr is None else dtr
        port._rts_state = port._rts_state if rts is None else rts
        if on and off:  # one call, so that the adapter gets one request
            now = struct.unpack("I", fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)))[0]
            fcntl.ioctl(fd, termios.TIOCMSET, struct.pack("I", (now | on) & ~off))
        elif on:
            fcntl.ioctl(fd, termios.TIOCMBIS, struct.pack("I", on))
        elif off:
            fcntl.ioctl(fd, termios.TIOCMBIC, struct.pack("I", off))
        return True

    def discard(self) -> None:
        """Throws away what has arrived and was not read yet. Raises `PortGone`."""
        if self._serial is None:
            raise PortGone(self.name, f"{self.name} is not open")
        try:
            self._serial.reset_input_buffer()
        except refusals.CONFIGURING as error:
            raise refusals.gone(self.name, error) from None

