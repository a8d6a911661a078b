"""What would be done about a board now, and why, in sentences: what ``espmon recover NAME --dry-run`` prints."""

from __future__ import annotations

from espmon.app.recovery.ladder import Incident, ladder
from espmon.app.recovery.policy import RecoveryPolicy
from espmon.app.recovery.terms import Rung

_ONLY_IF = {Rung.WRITE: "the flash differs from the image", Rung.WHOLE: "that write failed"}


def explain(policy: RecoveryPolicy, at: float) -> list[str]:
    """What a policy would do at that time (Unix s), a sentence each."""
    s, lives, incident = policy.settings, policy.lives, policy.incident
    out = [f"recover = {s.mode!r}: a boot loop is {s.resets} abnormal resets within {s.within_s:.0f} s without healthy text"]
    n = len([t for t in lives.failures if at - t <= s.within_s])
    out.append(f"abnormal resets now: {n} of {s.resets}" + (f" ({lives.cause})" if lives.cause and n else ""))
    if incident:
        out.append(f"incident {incident.id} is open: {', '.join(incident.tried) or 'nothing'} tried so far")
    if s.mode in ("off", "notify"):
        out.append("nothing is done to the board" + (", it is only reported" if s.mode == "notify" else ""))
        return out
    if (why := policy.refusal(at)) is not None:
        out.append(f"nothing would be done now: {why[1]}")
    if policy.talking(at):
        out.append("nothing would be done now: the board talks")
    to_come = Incident(id="", began=float("-inf"), cause=lives.cause, damaged=lives.life.flash_error is not None)
    for rung, skip in ladder(incident or to_come, s, policy.restraint):
        only_if = f" (only if {_ONLY_IF[rung]})" if rung in _ONLY_IF else ""
        out.append(f"{rung}: " + (f"left out, {skip}" if skip else f"would be tried{only_if}"))
    return out
