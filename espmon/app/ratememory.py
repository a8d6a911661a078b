"""Which rate a board had when it was last heard: a start at the right rate needs no detection.

A module of its own, so that a port can be opened before the machinery of `--baud auto` is loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

_MOST_BOARDS = 200


class RateMemory:
    """Rates that boards had, in one small JSON file. Losing it only costs a moment; no failure is told."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            from platformdirs import user_state_path

            path = user_state_path("espmon", False) / "rates.json"
        self.path = path

    def _read(self) -> dict[str, dict[str, object]]:
        try:
            if self.path.stat().st_size > 1 << 20:
                return {}
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return {str(k): v for k, v in content.items() if isinstance(v, dict)} if isinstance(content, dict) else {}

    def recall(self, board: str) -> tuple[int | None, bool]:
        """(rate, two rates) of the board with this identity; (None, False) when it is new."""
        entry = self._read().get(board, {})
        rate = entry.get("baud")
        known = rate if isinstance(rate, int) and 50 <= rate <= 20_000_000 else None
        return known, entry.get("rom_at_74880") is True

    def keep(self, board: str, rate: int, two_rates: bool) -> None:
        """Remembers the board's rate, the latest boards only."""
        boards = self._read()
        entry: dict[str, object] = {"baud": rate, "rom_at_74880": two_rates}
        if boards.get(board) == entry:
            return
        boards.pop(board, None)
        boards[board] = entry
        while len(boards) > _MOST_BOARDS:
            boards.pop(next(iter(boards)))
        import tempfile  # with what it imports, 10 ms that no start should wait for

        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".rates")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    json.dump(boards, stream, indent=1)
                os.replace(name, self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(name)
