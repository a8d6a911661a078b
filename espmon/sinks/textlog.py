"""``--log FILE``: the text as it is shown, without colours, appended. Progress bars leave a line for each of their states."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from espmon.sinks.neutral import plain
from espmon.sinks.rawlog import open_for_append, write_all

if TYPE_CHECKING:
    from pathlib import Path


class TextLog:
    """Appends shown text to a UTF-8 file. A write that fails is counted in `lost` (characters), never raised."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._descriptor = open_for_append(path)
        self.lost = 0
        self.problem: str | None = None

    def write(self, text: str) -> None:
        """`text` may hold safe colours; a carriage return that overwrites the line becomes a newline."""
        content = plain(text)
        if "\r" in content:
            content = content.replace("\r", "\n")
        try:
            write_all(self._descriptor, content.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self.lost += len(text)
            self.problem = error.strerror or str(error)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
