"""Whether a rung has healed the board: a verdict on what was heard since, and when there will be one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from espmon.app.recovery.ladder import Incident
from espmon.app.recovery.lives import SETTLE_S, Life, Lives
from espmon.app.recovery.terms import PolicySettings, Rung

# A complaint about the flash is believed when no ordinary text comes for this long: a boot loader that finds one application
# slot damaged may start the other.
COMPLAINT_S = 2.0
# How many times `alive_s` a board that keeps restarting in order is watched after a rung before it is let be.
RESTLESS = 4


class Judged(Enum):
    """What became of the board."""

    HEALED = auto()
    FAILED = auto()  # the next rung's turn
    HOPELESS = auto()  # no rung can help, or nothing can be known


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the board, and the sentence that says why."""

    judged: Judged
    reason: str


def _needed_life(incident: Incident, settings: PolicySettings) -> float:
    """How long after its boot a board must talk to count as healed: longer than it lived when it failed."""
    return min(max(settings.healthy_after_s, 1.25 * incident.life_s), settings.alive_s)


def verdict_due(lives: Lives, incident: Incident, settings: PolicySettings) -> float | None:
    """When :func:`judge` will say something unless more is heard before; None while no rung waits for its verdict."""
    life, since = lives.life, incident.judging_since
    if since is None:
        return None
    times = [max(since, life.undisturbed_since) + settings.alive_s, since + RESTLESS * settings.alive_s]
    if life.flash_error is not None:
        times.append(life.flash_error + COMPLAINT_S)
    if life.marker is not None:
        times.append(life.marker + SETTLE_S)
    if (text := life.text_after(_needed_life(incident, settings))) is not None:
        times.append(text + SETTLE_S)
    return min(times)


def judge(lives: Lives, incident: Incident, settings: PolicySettings, at: float) -> Verdict | None:
    """The verdict on the rung that ended last, None while it is too early."""
    life, since = lives.life, incident.judging_since
    if since is None:
        return None
    if life.flash_error is not None and at - life.flash_error >= COMPLAINT_S and not life.went_on():
        return Verdict(Judged.FAILED, f"the boot ROM reports damage: {lives.cause}")
    if life.marker is not None and at - life.marker >= SETTLE_S and life.crashed is None:
        return Verdict(Judged.HEALED, "the board printed the text that only working firmware prints")
    text = life.text_after(_needed_life(incident, settings))
    if text is not None and at - text >= SETTLE_S:
        return Verdict(Judged.HEALED, f"ordinary text {text - life.undisturbed_since:.0f} s after the boot")
    if at - max(since, life.undisturbed_since) >= settings.alive_s:
        return _judge_the_quiet(life, incident, settings)
    if at - since >= RESTLESS * settings.alive_s:
        return Verdict(Judged.HOPELESS, "the board restarts by itself again and again, but none of these resets is a failure")
    return None


def _judge_the_quiet(life: Life, incident: Incident, settings: PolicySettings) -> Verdict:
    """`alive_s` without a reset, without text."""
    if life.download and incident.tried[-1:] in ([Rung.RESET], [Rung.POWER]):
        # our reset released the boot pin: somebody or something else holds it, perhaps to flash the board
        return Verdict(Judged.HOPELESS, "the board starts in download mode: its boot pin (GPIO0, GPIO9 ...) is held low")
    if not life.heard:
        if life.bytes_at is not None and life.bytes_at >= life.undisturbed_since:
            sends = "the board sends, but nothing that can be read at this rate: whether it works can't be told"
            return Verdict(Judged.HOPELESS, sends)
        return Verdict(Judged.FAILED, "nothing was heard after it")
    if life.crashed is not None or life.flash_error is not None or life.download:
        return Verdict(Judged.FAILED, "the board stopped")
    return Verdict(Judged.HEALED, f"no reset for {settings.alive_s:.0f} s")
