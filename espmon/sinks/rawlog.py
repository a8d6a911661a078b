"""``--raw-log FILE``: the exact bytes that came from the port, appended, each chunk written at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from espmon.errors import EspmonError

if TYPE_CHECKING:
    from pathlib import Path


class LogUnwritable(EspmonError):
    """A log file can't be opened for writing."""

    code = "log-unwritable"
    exit_status = 3

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} can't be written: {reason}", "Choose another file, or make its folder first.")
        self.path = path


def open_for_append(path: str | Path) -> int:
    """A descriptor that appends to `path`. Raises `LogUnwritable`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, flags, 0o644)
    except OSError as error:
        raise LogUnwritable(str(path), error.strerror or str(error)) from None


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all of `content`. Raises OSError when the disk is full."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class RawLog:
    """Appends chunks to a file. A write that fails is never raised, the monitor goes on: `problem` says why."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._descriptor = open_for_append(path)
        self.problem: str | None = None

    def write(self, chunk: bytes) -> int:
        """How many bytes of `chunk`, its last ones, could not be written."""
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self.problem = error.strerror or str(error)
        return len(rest)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
