"""Events as JSON lines: one object per event, flushed one by one (``docs/events.md``)."""

from __future__ import annotations

import sys
from typing import IO

from espmon.errors import OutputUnwritable
from espmon.events import Event, Text, to_json_line


def print_json_line(line: str) -> None:
    """A line of JSON on standard output, in UTF-8 whatever the system's own encoding is, and at once."""
    sys.stdout.flush()
    out: IO[bytes] | None = getattr(sys.stdout, "buffer", None)
    if out is None:  # somebody has put a stream of text in its place
        sys.stdout.write(line + "\n")
        return
    out.write(line.encode("utf-8", "replace") + b"\n")
    out.flush()


class JsonLines:
    """Writes events to a binary stream. Text is left out unless `lines` is true."""

    def __init__(self, stream: IO[bytes], *, lines: bool = False) -> None:
        self._stream = stream
        self._lines = lines

    def write(self, event: Event) -> None:
        """One line. Raises BrokenPipeError when the reader has gone, `OutputUnwritable` for a full disk."""
        if isinstance(event, Text) and not self._lines:
            return
        line = to_json_line(event).encode("utf-8") + b"\n"
        try:
            self._stream.write(line)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputUnwritable(error.strerror or str(error)) from None

    def close(self) -> None:
        """Nothing is buffered; the stream belongs to the caller."""
