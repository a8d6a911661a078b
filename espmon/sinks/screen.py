"""Standard output as a place to show things: a terminal of some width and colours, or a pipe."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TextIO

from espmon.errors import OutputUnwritable


class OutputClosed(Exception):
    """Whoever read our output has gone (``espmon PORT | head``)."""


def wants_colour(is_terminal: bool, choice: str = "auto") -> bool:
    """`choice` is ``auto``, ``always`` or ``never``; auto follows NO_COLOR, FORCE_COLOR and TERM as is usual."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal and os.environ.get("TERM") != "dumb"


class Screen:
    """Writes text at once. `width`, `colour` and `unicode` are what the place can show; tests inject them."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        colour: str = "auto",
        is_terminal: bool | None = None,
        width: int | None = None,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        try:
            self._fd: int | None = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._fd = None
        self.is_terminal = self._stream.isatty() if is_terminal is None else is_terminal
        self.colour = wants_colour(self.is_terminal, colour)
        self._width = width
        self._encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            "╭▌●→…".encode(self._encoding)
            self.unicode = True
        except (UnicodeEncodeError, LookupError):
            self.unicode = False
        if sys.platform == "win32" and self.is_terminal and self._fd is not None:
            _enable_escape_sequences()

    @property
    def width(self) -> int:
        """Columns of the terminal, 80 where there is none."""
        if self._width is not None:
            return self._width
        if self.is_terminal and self._fd is not None:
            try:
                return os.get_terminal_size(self._fd).columns or 80
            except OSError:
                pass
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdecimal() and 0 < int(columns) < 1000 else 80

    def write(self, text: str) -> None:
        """Shows `text`. Raises `OutputClosed`, `OutputUnwritable`."""
        if not text:
            return
        try:
            if self._fd is None or sys.platform == "win32":
                self._stream.write(text.encode(self._encoding, "backslashreplace").decode(self._encoding))
                self._stream.flush()
                return
            rest = memoryview(text.encode(self._encoding, "backslashreplace"))
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:  # somebody made our output non-blocking
                    select.select([], [self._fd], [], 1.0)
        except (BrokenPipeError, ConnectionResetError):
            raise OutputClosed from None
        except OSError as error:
            if error.errno in (5, 6, 9, 22, 32):  # the terminal is gone: EIO, ENXIO, EBADF, EINVAL (Windows), EPIPE
                raise OutputClosed from None
            raise OutputUnwritable(error.strerror or str(error)) from None


def forget_output() -> None:
    """Whoever read us has gone, or the disk is full: nothing may be flushed to it at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class NullScreen(Screen):
    """Shows nothing: for runs whose standard output belongs to somebody else (``--json``)."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), colour="never", is_terminal=False, width=80)

    def write(self, text: str) -> None:
        pass


def _enable_escape_sequences() -> None:
    """Windows: the console obeys escape sequences only when asked to (ENABLE_VIRTUAL_TERMINAL_PROCESSING = 4)."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        output = kernel.GetStdHandle(-11)  # STD_OUTPUT_HANDLE
        mode = ctypes.c_ulong()
        if kernel.GetConsoleMode(output, ctypes.byref(mode)):
            kernel.SetConsoleMode(output, mode.value | 4)
