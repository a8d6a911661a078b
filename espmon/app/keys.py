"""What keys mean, and the terminal in the mode that hands us each key: restored whatever happens.

:class:`KeyMachine` is pure; :class:`Keyboard` owns the terminal's input side.
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from espmon.values import Value, positional_value

MENU_KEY = 0x14  # Ctrl-T
QUIT_KEY = 0x1D  # Ctrl-]
INTERRUPT_KEY = 0x03  # Ctrl-C
EOLS = {"crlf": b"\r\n", "lf": b"\n", "cr": b"\r"}


class Wish(enum.Enum):
    """What a key of the menu asks for."""

    QUIT = "quit"
    INTERRUPT = "interrupt"
    HELP = "help"
    RESET = "reset"
    DOWNLOAD = "download"
    FLASH = "flash"
    TIMESTAMPS = "timestamps"
    LOG = "log"
    PAUSE = "pause"
    LEVEL = "level"
    UNKNOWN = "unknown"


@positional_value
class Typed(Value):
    """Bytes for the board."""

    data: bytes


# key(s) after Ctrl-T, what they do, how the help names them. As in the monitors that ESP users know.
MENU: tuple[tuple[bytes, Wish | Typed, str, str], ...] = (
    (b"h\x08?", Wish.HELP, "h", "this help"),
    (b"r\x12", Wish.RESET, "r", "reset the board"),
    (b"p\x10", Wish.DOWNLOAD, "p", "reset into download mode"),
    (b"f\x06", Wish.FLASH, "f", "flash the images given with --image and show the boot that follows"),
    (b"t\x09", Wish.TIMESTAMPS, "t", "timestamps on or off"),
    (b"l\x0c", Wish.LOG, "l", "log file on or off"),
    (b"y\x19", Wish.PAUSE, "y", "pause or resume the output"),
    (b"v\x16", Wish.LEVEL, "v", "hide lines below a level: verbose, debug, info, warning, error"),
    (b"\x03", Typed(b"\x03"), "Ctrl-C", "send Ctrl-C to the board"),
    (b"\x14", Typed(b"\x14"), "Ctrl-T", "send Ctrl-T to the board"),
    (b"\x1d", Typed(b"\x1d"), "Ctrl-]", "send Ctrl-] to the board"),
    (b"qx\x18", Wish.QUIT, "q", "quit (Ctrl-] does it without the menu)"),
)


class KeyMachine:
    """Turns bytes of the keyboard into wishes and bytes for the board. `repl`: Ctrl-C belongs to the board.

    `eol`: what Enter sends (None: the carriage return that the key gives). From a pipe (`keys` False) nothing is a hot
    key, and each line feed is sent as `eol`.
    """

    def __init__(self, *, repl: bool = False, eol: str | None = None, keys: bool = True) -> None:
        self.repl = repl
        self.keys = keys
        self.eol = EOLS[eol] if eol else None
        self._in_menu = False
        self._return_seen = False

    def feed(self, data: bytes) -> list[Wish | Typed]:
        """The wishes in order; bytes for the board that follow each other are joined."""
        if not self.keys:
            return [Typed(self._piped(data))] if data else []
        out: list[Wish | Typed] = []
        send = bytearray()

        def add(wish: Wish | Typed) -> None:
            if send:
                out.append(Typed(bytes(send)))
                send.clear()
            out.append(wish)

        for key in data:
            if self._in_menu:
                self._in_menu = False
                meant = next((wish for keys, wish, _, _ in MENU if key in keys or key in keys.upper()), Wish.UNKNOWN)
                if isinstance(meant, Typed):
                    send += meant.data
                else:
                    add(meant)
            elif key == MENU_KEY:
                self._in_menu = True
            elif key == QUIT_KEY:
                add(Wish.QUIT)
            elif key == INTERRUPT_KEY and not self.repl:
                add(Wish.INTERRUPT)
            elif key in (0x0D, 0x0A) and self.eol is not None:
                send += self.eol
            else:
                send.append(key)
        if send:
            out.append(Typed(bytes(send)))
        return out

    def _piped(self, data: bytes) -> bytes:
        if self.eol is None:
            return data
        if self._return_seen and data.startswith(b"\n"):  # a CRLF cut by the end of a read
            data = data[1:]
        self._return_seen = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", self.eol)


def help_lines() -> list[str]:
    """The Ctrl-T menu, one line per key."""
    return [f"Ctrl-T {name:<7} {what}" for _, _, name, what in MENU]


class Keyboard:
    """Reads standard input in a thread of its own and hands the wishes to `tell`. The end of input ends only the thread.

    A pipe is read only while `has_room` says so: a file may be far larger than what the board takes in an hour.
    A terminal is put into raw key mode by :meth:`start` and given back by :meth:`stop`, which may be called any number
    of times and is called at exit as well.
    """

    def __init__(
        self, machine: KeyMachine, tell: Callable[[Wish | Typed], None], has_room: Callable[[], bool] = lambda: True
    ) -> None:
        self.machine = machine
        self._has_room = has_room
        self._tell = tell
        self._saved: Any = None
        self._fd = -1
        self._wake: tuple[int, int] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @staticmethod
    def is_terminal() -> bool:
        """True when keys can be read one by one: standard input is a terminal, and we are in its foreground."""
        if sys.stdin is None:
            return False
        try:
            if not sys.stdin.isatty():
                return False
            if sys.platform != "win32":
                return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
        except (OSError, ValueError):
            return False
        return True

    def start(self) -> None:
        if sys.stdin is None:
            return
        try:
            self._fd = sys.stdin.fileno()
        except (OSError, ValueError):
            return
        is_terminal = self.is_terminal()
        if not is_terminal and _tty_of_others(self._fd):
            return  # reading it would stop us
        atexit.register(self.stop)
        if is_terminal:
            self._enter_key_mode()
        if sys.platform == "win32":
            target = self._read_console if is_terminal else self._read_pipe
        else:
            target = self._read_descriptor
            self._wake = os.pipe()
        self._thread = threading.Thread(target=target, name="keyboard", daemon=True)
        self._thread.start()

    def _enter_key_mode(self) -> None:
        if sys.platform == "win32":
            # Without ENABLE_PROCESSED_INPUT (1) Ctrl-C is a key like others; STD_INPUT_HANDLE is -10.
            import ctypes

            kernel = ctypes.windll.kernel32
            mode = ctypes.c_ulong()
            if kernel.GetConsoleMode(kernel.GetStdHandle(-10), ctypes.byref(mode)):
                self._saved = mode.value
                kernel.SetConsoleMode(kernel.GetStdHandle(-10), mode.value & ~1)
            return
        import termios

        try:
            self._saved = termios.tcgetattr(self._fd)
            mode = termios.tcgetattr(self._fd)
            mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP | termios.IXON)
            mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
            mode[6][termios.VMIN] = 1
            mode[6][termios.VTIME] = 0
            termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)
        except termios.error:
            self._saved = None

    def resume(self) -> None:
        """After the process was stopped and continued: the shell has set its own mode meanwhile."""
        if self._saved is not None:
            saved = self._saved
            self._enter_key_mode()
            self._saved = saved

    def stop(self) -> None:
        """Gives the terminal back as it was. Never raises."""
        self._stopping.set()
        if self._wake is not None:
            with contextlib.suppress(OSError):
                os.write(self._wake[1], b"!")
        saved, self._saved = self._saved, None
        if saved is None:
            return
        if sys.platform == "win32":
            import ctypes

            ctypes.windll.kernel32.SetConsoleMode(ctypes.windll.kernel32.GetStdHandle(-10), saved)
        else:
            import termios

            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, saved)

    def _take(self, data: bytes) -> None:
        while not self.machine.keys and not self._has_room() and not self._stopping.wait(0.02):
            pass
        for wish in self.machine.feed(data):
            self._tell(wish)

    def _read_descriptor(self) -> None:
        assert self._wake is not None
        while not self._stopping.is_set():
            try:
                ready = select.select([self._fd, self._wake[0]], [], [])[0]
                if self._fd not in ready:
                    continue
                data = os.read(self._fd, 4096)
            except BlockingIOError:
                continue
            except (OSError, ValueError):
                return
            if not data:
                return
            self._take(data)

    def _read_pipe(self) -> None:
        while not self._stopping.is_set():
            try:
                data = os.read(self._fd, 4096)
            except OSError:
                return
            if not data:
                return
            self._take(data)

    def _read_console(self) -> None:
        if sys.platform != "win32":
            return
        import msvcrt

        while not self._stopping.is_set():
            if not msvcrt.kbhit():
                time.sleep(0.01)
                continue
            self._take(console_key(msvcrt.getwch))


# Second code of msvcrt.getwch() -> what other terminals send (ECMA-48 / VT220).
_WINDOWS_KEYS = {
    "H": b"\x1b[A",
    "P": b"\x1b[B",
    "M": b"\x1b[C",
    "K": b"\x1b[D",
    "G": b"\x1b[H",
    "O": b"\x1b[F",
    "R": b"\x1b[2~",
    "S": b"\x1b[3~",
    "I": b"\x1b[5~",
    "Q": b"\x1b[6~",
}
_WINDOWS_CTRL_KEYS = frozenset("stuvw")  # with arrows, End, Page Down, Home: boards know nothing of them


def console_key(next_code: Callable[[], str]) -> bytes:
    """One key of a Windows console, in UTF-8, from the UTF-16 codes that ``msvcrt.getwch`` gives one by one.

    0 and 0xE0 begin the two codes of arrows and the like; but 0xE0 is also the letter à, which a letter follows.
    """
    key = next_code()
    if key in ("\x00", "\xe0"):
        second = next_code()
        known = _WINDOWS_KEYS.get(second)
        if known is not None or key == "\x00" or "\x7f" <= second <= "\x9f" or second in _WINDOWS_CTRL_KEYS:
            return known or b""
        key += second
    if "\ud800" <= key[-1] <= "\udbff":  # the first half of a letter beyond 0xFFFF
        key += next_code()
    return key.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")


def _tty_of_others(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return True
