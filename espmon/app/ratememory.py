"""Which rate a board had when it was last heard: a start at the right rate needs no detection.

A module of its own, so that a port can be opened before the machinery of `--baud auto` is loaded.
"""

from __future__ import annotations

from pathlib import Path

from espmon.app.remembered import Remembered


class RateMemory:
    """The rates that boards talk at. (What links to their loaders bore is `espmon.app.flashing.LinkMemory`.)"""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            from platformdirs import user_state_path

            path = user_state_path("espmon", False) / "rates.json"
        self._boards = Remembered(path)

    def recall(self, board: str) -> tuple[int | None, bool]:
        """(rate, two rates) of the board with this identity; (None, False) when it is new."""
        return self._boards.number(board, "baud", 50, 20_000_000), self._boards.of(board).get("rom_at_74880") is True

    def keep(self, board: str, rate: int, two_rates: bool) -> None:
        """Remembers the board's rate, the latest boards only."""
        self._boards.keep(board, {"baud": rate, "rom_at_74880": two_rates})
