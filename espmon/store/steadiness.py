"""Whether the wall clock can be believed: what is deleted by age must not go because a gateway woke up in another year."""

from __future__ import annotations

# A clock that was set by more than this is not believed at once ...
_SET_BY_S = 60.0
# ... but when it has run on for this long: time servers answer within minutes.
SETTLED_S = 3600.0


class Steadiness:
    """Sees the clock now and then. A machine without a clock of its own starts in 1970, or anywhere, until it asks the network."""

    def __init__(self, settled_s: float = SETTLED_S) -> None:
        self._settled_s = settled_s
        self._offset: float | None = None
        self._since = 0.0

    def steady(self, now: float, mono: float) -> bool:
        """True when the clock (`now`, Unix s; `mono`, monotonic s) was not set for an hour, and was watched for as long."""
        offset = now - mono
        if self._offset is None or abs(offset - self._offset) > _SET_BY_S:
            self._since = mono
        self._offset = offset
        return mono - self._since >= self._settled_s
