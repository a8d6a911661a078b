"""Events as JSON lines: one object per event, flushed one by one (``docs/events.md``)."""

from __future__ import annotations

from typing import IO

from espmon.events import Event, Text, to_json_line


class JsonLines:
    """Writes events to a binary stream. Text is left out unless `lines` is true."""

    def __init__(self, stream: IO[bytes], *, lines: bool = False) -> None:
        self._stream = stream
        self._lines = lines

    def write(self, event: Event) -> None:
        """One line; raises what the stream raises (BrokenPipeError when the reader has gone)."""
        if isinstance(event, Text) and not self._lines:
            return
        self._stream.write(to_json_line(event).encode("utf-8") + b"\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is buffered; the stream belongs to the caller."""
