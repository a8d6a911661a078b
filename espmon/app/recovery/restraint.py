"""What holds recoveries back: lock-outs, pauses, budgets and suspect images of one board, its supply, the brake over all boards.

Budgets and pauses have to survive restarts of the host, so their times are those of the wall clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from espmon.app.recovery.terms import PolicySettings

# After brownout text the supply is suspected for this long; nothing is done, least of all a write.
BROWNOUT_HOLD_S = 3600.0
HOUR_S = 3600.0


class Fleet:
    """The brake over all boards: many boot loops at once are the power, and nothing is done then."""

    def __init__(self, boards: int = 4, within_s: float = 30.0, hold_s: float = 600.0) -> None:
        self.boards = boards
        self.within_s = within_s
        self.hold_s = hold_s
        self.until = float("-inf")
        self._loops: dict[str, float] = {}

    def loop_seen(self, port: str, at: float) -> bool:
        """A boot loop of `port` was proven. True when the brake is on now."""
        self._loops[port] = at
        recent = [p for p, t in self._loops.items() if abs(at - t) <= self.within_s]
        if len(recent) >= self.boards:
            self.until = at + self.hold_s
        return self.braked(at)

    def braked(self, at: float) -> bool:
        """True while nothing may be done."""
        return at < self.until

    def reason(self) -> str:
        """Why, in words."""
        return f"{self.boards} or more boards failed within {self.within_s:.0f} s: that is the power or the hub, not the boards"


def _of_the_last_hour(times: Iterable[float], at: float) -> list[float]:
    # a time in the future was stored before the clock was set back: it counts as recent
    return [t for t in times if at - t < HOUR_S]


class Restraint:
    """What was done to one board, and what that forbids. `state`: what :meth:`state` gave out, maybe to a host that died."""

    def __init__(self, port: str, state: Mapping[str, Any], settings: PolicySettings, fleet: Fleet, *, at: float) -> None:
        self.port = port
        self.fleet = fleet
        # times of a clock that ran ahead, then was set right, count as now: they must not lock a board for years either
        self.starts = [min(float(t), at) for t in state.get("starts", ())]
        self.writes = {str(k): [float(t) for t in v] for k, v in state.get("writes", {}).items()}
        self.suspect = [str(s) for s in state.get("suspect", ())]
        self.strikes = int(state.get("strikes", 0))
        # a clock that was wrong must not lock a board for years
        self.quiet_until = min(float(state.get("quiet_until", 0.0)), at + max(settings.pauses_s, default=0.0))
        self.locked: str | None = state.get("locked")
        brownout, recovered = state.get("brownout_at"), state.get("recovered_at")
        self.brownout_at = min(float(brownout), at) if brownout is not None else None
        self.recovered_at = min(float(recovered), at) if recovered is not None else None

    def state(self) -> dict[str, Any]:
        """Everything that has to survive a restart, as JSON values."""
        return {
            "starts": self.starts,
            "writes": self.writes,
            "suspect": self.suspect,
            "strikes": self.strikes,
            "quiet_until": self.quiet_until,
            "locked": self.locked,
            "brownout_at": self.brownout_at,
            "recovered_at": self.recovered_at,
        }

    def browned_out(self, at: float) -> bool:
        """True while the supply is suspected."""
        return self.brownout_at is not None and at - self.brownout_at < BROWNOUT_HOLD_S

    def refusal(self, settings: PolicySettings, at: float) -> tuple[str, str] | None:
        """Why no incident may begin now, as (key, sentence); None when one may."""
        if self.locked:
            return "locked", f"locked: {self.locked}; espmon recover {self.port} --unlock allows it again"
        if self.fleet.braked(at):
            return "brake", self.fleet.reason()
        if self.browned_out(at):
            return "brownout", "brownout text was seen; check the supply first"
        if settings.by_hand:
            return None
        if at < self.quiet_until:
            return "pause", f"cooling down for another {self.quiet_until - at:.0f} s after {self.strikes} failed attempts"
        recent = len(_of_the_last_hour(self.starts, at))
        if recent >= settings.per_hour:
            return "budget", f"{recent} recoveries within the last hour, {settings.per_hour} are allowed"
        return None

    def begun(self, at: float) -> int:
        """A recovery begins. Returns the how manyth it is within the hour."""
        if self.recovered_at is not None and at - self.recovered_at > HOUR_S:
            self.strikes = 0
        self.starts = [*_of_the_last_hour(self.starts, at), at]
        return len(self.starts)

    def writing(self, image: str, at: float) -> None:
        """The image is about to be written."""
        self.writes[image] = [*_of_the_last_hour(self.writes.get(image, ()), at), at]

    def writes_before(self, image: str | None, began: float) -> int:
        """How often the image was written in the hour before an incident that began then."""
        return len([t for t in self.writes.get(image or "", ()) if 0 < began - t < HOUR_S])

    def suspect_image(self, image: str) -> None:
        """The flash held this image, verified, and the board failed all the same."""
        if image not in self.suspect:
            self.suspect.append(image)

    def gave_up(self, settings: PolicySettings, at: float, reason: str) -> None:
        """A recovery did not help: a pause, after the last of them a lock-out. No person who watches needs either."""
        if settings.by_hand:
            return
        if not self.fleet.braked(at):  # else it's not this board's failure
            self.strikes += 1
        pauses = settings.pauses_s
        if self.strikes > len(pauses):
            self.locked = f"{self.strikes} recoveries failed, the last because: {reason}"
        else:
            self.quiet_until = at + pauses[max(0, self.strikes - 1)]

    def unlock(self) -> None:
        """A person has looked at the board: lock-out, cool-down, strikes and the image's suspicion end."""
        self.locked = None
        self.strikes = 0
        self.quiet_until = 0.0
        self.suspect = []
        self.starts = []
        self.brownout_at = None
