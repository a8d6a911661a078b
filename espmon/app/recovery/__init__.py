"""When a board boot-loops, and what may be done about it: a pure policy. Events in, decisions out; time is an argument.

:class:`RecoveryPolicy` judges one board and does nothing itself: it returns :class:`Emit` (say this) and :class:`Do` (carry
out this rung of the ladder), and is told the result. Reasons and guards: ``docs/design/recovery.md``.
"""

from __future__ import annotations

from espmon.app.recovery.plan import explain
from espmon.app.recovery.policy import UNREADABLE, RecoveryPolicy
from espmon.app.recovery.restraint import BROWNOUT_HOLD_S, Fleet
from espmon.app.recovery.terms import IN_LOADER, WRITING, Decision, Do, Emit, PolicySettings, Rung, RungResult

__all__ = [
    "BROWNOUT_HOLD_S",
    "IN_LOADER",
    "UNREADABLE",
    "WRITING",
    "Decision",
    "Do",
    "Emit",
    "Fleet",
    "PolicySettings",
    "RecoveryPolicy",
    "Rung",
    "RungResult",
    "explain",
]
