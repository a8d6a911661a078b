"""How a recovery ended, as an exit status, from what its events say."""

from __future__ import annotations

from espmon.errors import EXIT_OK, EXIT_REFUSED

GAVE_UP = 1


class Ending:
    """Fed with the events of one recovery, in order."""

    def __init__(self) -> None:
        self._refused = False

    def seen(self, step: str, outcome: str) -> int | None:
        """The exit status when this `recovery` event was the last, None while it goes on."""
        self._refused |= outcome == "refused"
        if outcome == "recovered":
            return EXIT_OK
        if outcome == "gave-up":
            return EXIT_REFUSED if self._refused else GAVE_UP
        return EXIT_REFUSED if step == "begin" and self._refused else None
