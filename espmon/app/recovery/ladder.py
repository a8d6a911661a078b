"""The ladder of one incident: which of its rungs are left out, and why; which is the next; and why none is left.

The ladder, least first: ``reset``, ``power-cycle`` (when configured), ``leave-download-mode``, ``compare``, ``write`` (only
what differs), ``erase-parameters`` (opt-in), ``write-whole``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from espmon.app.recovery.restraint import Restraint
from espmon.app.recovery.terms import WRITING, PolicySettings, Rung


@dataclass(slots=True)
class Incident:
    """One boot loop that is being treated. Plain values: it is stored as JSON."""

    id: str
    began: float
    cause: str
    damaged: bool = False  # visible damage: the ROM itself complains about the flash
    tried: list[str] = field(default_factory=list)
    running: str | None = None
    judging_since: float | None = None
    life_s: float = 0.0  # the longest that the board lived between failures
    differs: bool | None = None
    write_failed: bool = False
    written: bool = False
    resumes: int = 0
    mode: str | None = None  # a person asked for it and allowed this much; None: what the configuration allows
    counted: bool = False  # in the image's budget of writes
    seen_failing: bool = True  # a failure was heard; False: a person says so, and a silent board may be a healthy one
    interrupted: str = "the host stopped"  # why the running rung has to be looked at again


def allowed(incident: Incident, settings: PolicySettings) -> str:
    """The mode: what a person allowed for this incident, or the configuration's word."""
    return incident.mode or settings.mode


def ladder(incident: Incident, settings: PolicySettings, restraint: Restraint) -> list[tuple[Rung, str | None]]:
    """All rungs in order, each with the reason why it is left out now (None: it would be tried)."""
    mode = allowed(incident, settings)
    not_flash = None if mode == "flash" else f"recover = {mode!r} does not allow it"
    no_image = None
    if settings.image is None:
        no_image = "no known-good image is named or learnt"
    elif settings.image in restraint.suspect:
        no_image = "this image failed before on this board although it was verified"
    no_compare = not_flash or no_image
    visible = "damage is visible: comparing comes first" if incident.damaged and no_compare is None else None
    no_power = None if settings.power_cycle else "no power_cycle command is configured"
    unseen = None if incident.seen_failing else "no failure was heard: it may be a healthy board that is silent"
    by_hand = settings.by_hand or incident.mode is not None
    spent = not by_hand and restraint.writes_before(settings.image, incident.began) >= settings.per_hour
    budget = "this image was written too often within an hour" if spent else None
    equal = "flash equals the image" if incident.differs is False else None
    no_write = no_compare or unseen or budget or equal
    broken = "the flash could not be written" if incident.write_failed else None
    no_erase = None if settings.erase_parameters else "erase_parameters is not allowed"
    not_yet = None if incident.differs is None or incident.write_failed else "only after a write that failed"
    rows = {
        Rung.RESET: visible,
        Rung.POWER: visible or no_power,
        Rung.LEAVE: visible,
        Rung.COMPARE: no_compare,
        Rung.WRITE: no_write,
        Rung.ERASE: not_flash or unseen or broken or no_erase,
        Rung.WHOLE: no_write or not_yet,
    }
    return [(rung, "tried in this incident" if rung in incident.tried else why) for rung, why in rows.items()]


def climb(
    incident: Incident, settings: PolicySettings, restraint: Restraint
) -> tuple[Rung | None, list[tuple[Rung, str]]]:
    """The next rung, None when none is left; and those left out on the way that are worth a word, each with the reason."""
    skipped: list[tuple[Rung, str]] = []
    for rung, why in ladder(incident, settings, restraint):
        if rung in incident.tried:
            continue
        if rung in WRITING and incident.differs is None:
            continue  # nothing is erased or written before it was compared
        if why is None:
            return rung, skipped
        if rung in (Rung.RESET, Rung.LEAVE):
            skipped.append((rung, why))
            incident.tried.append(rung)
        elif rung is Rung.COMPARE and allowed(incident, settings) == "flash":
            skipped.append((rung, why))
    return None, skipped


def why_helpless(incident: Incident, settings: PolicySettings) -> str:
    """What is to be said when no rung is left."""
    if incident.written:
        return "the flash holds the verified image and the board still fails: the image, the power or the hardware"
    if incident.differs is False:
        return "the flash equals the known-good image, so writing cannot help: application fault, power or credentials"
    if incident.write_failed:
        return "the flash could not be written: look at the wiring, the supply and the flash chip"
    if not incident.seen_failing and incident.differs:
        return "the flash differs from the image, but no failure was heard: it may be a healthy board that is silent"
    mode = allowed(incident, settings)
    if mode != "flash":
        return f"resetting did not help, and recover = {mode!r} allows no more"
    return "nothing that is allowed and possible has helped"
