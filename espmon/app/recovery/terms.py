"""What passes between the recovery policy and those around it: what it is allowed, what it decides, how a rung went."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from espmon.events import Event


class Rung(StrEnum):
    """One step of the ladder, least first. The values are the contract's `step` words."""

    RESET = "reset"
    POWER = "power-cycle"
    LEAVE = "leave-download-mode"
    COMPARE = "compare"
    WRITE = "write"  # only what differs
    ERASE = "erase-parameters"
    WHOLE = "write-whole"


WRITING = frozenset({Rung.WRITE, Rung.ERASE, Rung.WHOLE})
IN_LOADER = frozenset({Rung.COMPARE, *WRITING})


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """What the configuration allows for one board. `image`: digest of its known-good image, None when there is none."""

    mode: str = "off"  # off | notify | reset | flash
    resets: int = 3
    within_s: float = 60.0
    healthy_after_s: float = 5.0
    alive_s: float = 30.0
    per_hour: int = 2
    pauses_s: tuple[float, ...] = (60.0, 600.0, 3600.0)
    power_cycle: bool = False
    erase_parameters: bool = False
    image: str | None = None
    by_hand: bool = False  # a person watches: pauses and budgets are theirs to overrule, guards are not


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """Publish this event (and write an audit line of it)."""

    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Do:
    """Carry out `rung`, then call :meth:`RecoveryPolicy.rung_done`. `resume`: the host died while doing it."""

    port: str
    rung: Rung
    incident: str
    reason: str
    resume: bool = False


Decision = Emit | Do


@dataclass(frozen=True, slots=True, kw_only=True)
class RungResult:
    """How a rung went. `outcome`: ``done``, ``failed``, ``refused`` (a guard of the executor) or ``lost`` (the port went away in
    the middle: the rung is looked at again). `differs`: what compare found. `brownout`: the board's supply fell meanwhile."""

    outcome: str
    reason: str | None = None
    differs: bool | None = None
    brownout: bool = False
