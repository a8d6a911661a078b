"""Events as JSON lines: one object per event, flushed one by one (``docs/events.md``)."""

from __future__ import annotations

from typing import IO

from espmon.errors import OutputUnwritable
from espmon.events import Event, Text, to_json_line


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
