"""When a board boot-loops, and what may be done about it: a pure policy. Events in, decisions out; time is an argument.

:class:`RecoveryPolicy` judges one board. It does nothing itself: it returns :class:`Emit` (say this) and :class:`Do` (carry
out this rung of the ladder), and is told the result with :meth:`RecoveryPolicy.rung_done`. Its :meth:`~RecoveryPolicy.state`
is plain JSON; the caller stores it before it carries out a decision, so that budgets, cool-downs and lock-outs survive a
kill, and an interrupted rung is resumed or abandoned. :class:`Fleet` is the brake over all boards.

The ladder, least first: ``reset``, ``power-cycle`` (when configured), ``leave-download-mode``, ``compare``, ``write`` (only
what differs), ``erase-parameters`` (opt-in), ``write-whole``. Reasons and guards: ``docs/design/recovery.md``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from espmon.events import (
    Boot,
    BootLoop,
    Brownout,
    Crash,
    DownloadMode,
    Event,
    FlashError,
    Recovery,
    Reset,
    ResetCause,
    ResetCaused,
    Text,
)


class Rung(StrEnum):
    """One step of the ladder. The values are the contract's `step` words."""

    RESET = "reset"
    POWER = "power-cycle"
    LEAVE = "leave-download-mode"
    COMPARE = "compare"
    WRITE = "write"
    ERASE = "erase-parameters"
    WHOLE = "write-whole"


WRITING = frozenset({Rung.WRITE, Rung.ERASE, Rung.WHOLE})
IN_LOADER = frozenset({Rung.COMPARE, *WRITING})

# A boot heard within this time of a reset that espmon made is that reset (the contract's 2 s).
OURS_S = 2.0
# Text counts as healthy only when no fact (a crash dump that is still arriving) claimed its lines for this long.
SETTLE_S = 1.0
# A board that printed a flash error and then nothing for so long is parked: its ROM has stopped, it will not reset itself.
PARKED_S = 10.0
# After brownout text the supply is suspected for this long; nothing is done, least of all a write.
BROWNOUT_HOLD_S = 3600.0
# After a restart of the host in the middle of a rung: listen this long for a talking board before resuming.
RESUME_LISTEN_S = 3.0
# A loader that was left in mid-sentence finishes it: at most 16 KiB (its window) at 115200 baud, 1.4 s of flash content, which
# reads like anything. What may be that is listened to for longer: a board that talks will say more.
LEFTOVER_S = 2.0
LEFTOVER_LISTEN_S = 60.0
# After a rung that the port's going away cut short: the waits before it is looked at again.
AWAY_S = (3.0, 10.0, 30.0, 60.0, 120.0)
# How often one incident survives the host's death, or the port's going away, before it is given up.
RESUMES = 5
# A complaint about the flash is believed when no ordinary text comes for this long: a boot loader that finds one application
# slot damaged may start the other.
COMPLAINT_S = 2.0
# The ROM and the second-stage boot loader complain within seconds of a boot; the same words later are an application's own.
ROM_WORDS_S = 10.0
# A wall clock that goes back by more than this was set; less is the order in which events arrive.
SET_BACK_S = 1.0
# How many times `alive_s` a board that keeps restarting in order is watched after a rung before it is let be.
RESTLESS = 4
HOUR_S = 3600.0
UNREADABLE = "the stored state of its recovery cannot be read"


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


@dataclass(slots=True)
class _Life:
    """The board since its last boot, as far as heard."""

    began: float | None = None
    ours: bool = False
    counted: bool = False
    crashed: float | None = None
    flash_error: float | None = None
    download: bool = False
    bytes_at: float | None = None  # anything at all was received, readable or not
    progressed: bool = False  # it was healthy before it crashed
    assumed: bool = False  # no boot was heard: text alone says that it runs
    heard: bool = True  # False: made from a reset of ours, nothing was heard of it yet
    marker: float | None = None
    text: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=256))

    def base(self) -> float:
        """Since when it has been running undisturbed."""
        return max(self.began or 0.0, self.crashed or 0.0, self.flash_error or 0.0)

    def text_after(self, seconds: float) -> float | None:
        """The first time of ordinary text at least `seconds` into the undisturbed life."""
        base = self.base()
        return next((at for at, _ in self.text if at >= base + seconds), None)


def _words(cause: ResetCause | None) -> str:
    return f"{cause.name or ''} {cause.meaning or ''}".lower() if cause else ""


def _is_brownout(cause: ResetCause | None) -> bool:
    return "brown" in _words(cause)


def _is_wake_up(cause: ResetCause | None) -> bool:
    """True for the end of a deep sleep: the firmware ran as far as going to sleep in order."""
    return "deep sleep" in _words(cause)


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


class RecoveryPolicy:
    """The judgement over one board. Feed it every event (:meth:`observe`), text lines while :attr:`listening`, and :meth:`tick`."""

    def __init__(
        self,
        port: str,
        settings: PolicySettings,
        state: Mapping[str, Any] | None = None,
        *,
        at: float = 0.0,
        fleet: Fleet | None = None,
    ) -> None:
        self.port = port
        self.settings = settings
        self.fleet = fleet or Fleet(boards=1 << 30)
        self.starts: list[float] = []
        self.writes: dict[str, list[float]] = {}
        self.suspect: list[str] = []
        self.strikes = 0
        self.quiet_until = 0.0
        self.locked: str | None = None
        self.brownout_at: float | None = None
        self.recovered_at: float | None = None
        self.incident: Incident | None = None
        self._failures: list[float] = []
        self._cause = ""
        self._life = _Life()
        self._lives: list[float] = []
        self._ours_until = float("-inf")
        self._rung_at = at
        self._refused: str | None = None
        self._told_loop = False
        self._resume_at: float | None = None
        self._parked_retry = float("-inf")
        self._ticked = float("-inf")
        self._saved: dict[str, Any] = dict(state) if state else {}
        if state:
            self._restore(state, at)

    # --- state ---

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
            "incident": asdict(self.incident) if self.incident else None,
            # a board that its ROM has stopped says nothing more, to the next host either
            "complaint": self._cause if self._life.flash_error is not None and self.settings.mode in ("reset", "flash") else None,
        }

    def unsaved(self) -> dict[str, Any] | None:
        """The state when it differs from the one given out last by this method, else None: what to store now."""
        state = self.state()
        if state == self._saved:
            return None
        self._saved = deepcopy(state)  # the lists in it are those we change
        return state

    @classmethod
    def restored(
        cls, port: str, settings: PolicySettings, state: Mapping[str, Any] | None, *, at: float, fleet: Fleet | None = None
    ) -> RecoveryPolicy:
        """A policy that goes on from what was stored; a locked one when that can't be read.

        Another version wrote it, or the disk damaged it: what was done to this board is not known any more.
        """
        try:
            return cls(port, settings, state, at=at, fleet=fleet)
        except (TypeError, ValueError, AttributeError, KeyError):
            return cls(port, settings, {"locked": UNREADABLE}, at=at, fleet=fleet)

    def _restore(self, state: Mapping[str, Any], at: float) -> None:
        if "unreadable" in state:
            raise ValueError(state["unreadable"])
        # times of a clock that ran ahead, then was set right, count as now: they must not lock a board for years either
        self.starts = [min(float(t), at) for t in state.get("starts", ())]
        self.writes = {str(k): [float(t) for t in v] for k, v in state.get("writes", {}).items()}
        self.suspect = [str(s) for s in state.get("suspect", ())]
        self.strikes = int(state.get("strikes", 0))
        # a clock that was wrong must not lock a board for years
        self.quiet_until = min(float(state.get("quiet_until", 0.0)), at + max(self.settings.pauses_s, default=0.0))
        self.locked = state.get("locked")
        brownout, recovered = state.get("brownout_at"), state.get("recovered_at")
        self.brownout_at = min(float(brownout), at) if brownout is not None else None
        self.recovered_at = min(float(recovered), at) if recovered is not None else None
        if complaint := state.get("complaint"):
            self._life.flash_error, self._cause = at, str(complaint)
        if stored := state.get("incident"):
            self.incident = Incident(**stored)
            self.incident.interrupted = "the host stopped"
            # the dead host may have left it in its loader or in reset: silence is no sign of health
            self._life = _Life(heard=False)
            self._cause = self.incident.cause
            if self.incident.running is None and self.incident.judging_since is None:
                # stored between two rungs: what was decided had not begun
                self.incident.judging_since = at
            elif self.incident.running is not None:
                self._resume_at = at + RESUME_LISTEN_S
            else:
                self.incident.judging_since = at

    def change(self, settings: PolicySettings) -> None:
        """New settings after a reload; an incident goes on under them."""
        self.settings = settings
        self._parked_retry = min(self._parked_retry, self.quiet_until)

    # --- what the board does ---

    @property
    def listening(self) -> bool:
        """True while text lines matter (:meth:`heard`): after an abnormal reset and during an incident."""
        return bool(self._failures) or self.incident is not None or self._life.flash_error is not None

    def heard(self, at: float, line: int, *, marker: bool = False) -> None:
        """A line of ordinary printable text was received. `line`: its number; `marker`: it matches the user's pattern."""
        if self.incident is not None and self.incident.running is not None and self._resume_at is None:
            return  # heard while a rung has the board; after the host's restart none has it yet
        life = self._life
        life.heard = True
        if marker:
            life.marker = at
        if life.began is None:
            # no boot was heard: it runs since before we listened
            life.began = at - self.settings.healthy_after_s
            life.assumed = True
        life.text.append((at, line))

    def bytes_heard(self, at: float) -> None:
        """Anything was received, readable or not: a board that sends is not a silent one."""
        self._life.bytes_at = at

    def observe(self, event: Event) -> list[Decision]:
        """Any event of this port, in order. Returns what follows from it."""
        at = event.at
        if at is None or isinstance(event, (Text, Recovery)):
            return []
        out: list[Decision] = []
        if event.line is not None and self._life.text:
            last = event.end_line or event.line
            kept = [(t, n) for t, n in self._life.text if not event.line <= n <= last]
            if len(kept) != len(self._life.text):
                self._life.text.clear()
                self._life.text.extend(kept)
        if isinstance(event, Brownout) or (isinstance(event, (Boot, Reset)) and _is_brownout(event.reset)):
            self.brownout_at = at
            if isinstance(event, Brownout) and not (self.incident and self.incident.running):
                # the restart that follows looks like one by software
                self._life.progressed = self._progress(self._life, at)
                self._life.crashed, self._cause = at, "brownout"
            if self.incident and self.incident.running is None:
                out += self._give_up(at, "the supply voltage fell too low (brownout); writing would make it worse")
        if isinstance(event, ResetCaused):
            self._ours_until = at + OURS_S
        elif isinstance(event, Boot):
            ours = event.caused_by in ("espmon", "open") or at <= self._ours_until
            abnormal = bool(event.reset and event.reset.abnormal)
            download = bool(event.boot_mode and event.boot_mode.download)
            out += self._booted(
                at, abnormal, ours, download, (event.reset.meaning if event.reset else None) or "", woke=_is_wake_up(event.reset)
            )
        elif isinstance(event, Reset):
            out += self._reset_told(at, event)
        elif isinstance(event, Crash) and not (self.incident and self.incident.running):
            self._life.heard = True
            self._life.progressed = self._progress(self._life, at)
            self._life.crashed = at
            self._cause = event.explanation or event.message or event.kind
        elif isinstance(event, FlashError):
            self._flash_error(at, event)
        elif isinstance(event, DownloadMode):
            self._life.download = True
        return out

    def _booted(
        self, at: float, abnormal: bool, ours: bool, download: bool, meaning: str, *, woke: bool = False
    ) -> list[Decision]:
        before, self._life = self._life, _Life(began=at, ours=ours, download=download)
        if ours:
            self._ours_until = float("-inf")  # one reset, one boot: the next is the board's own doing
        if self.incident and self.incident.running is not None:
            return []  # the rung itself resets the board
        if self._resume_at is not None:
            return []  # the host has just restarted; the interrupted rung is looked at first
        failed = (abnormal or before.crashed is not None or before.flash_error is not None) and not ours
        if not failed:
            if woke and not ours:
                return self._slept(at)
            return []
        if abnormal and before.flash_error is None and before.crashed is None:
            self._cause = meaning
        self._life.counted = True
        return self._failed(at, before)

    def _slept(self, at: float) -> list[Decision]:
        """The board went to sleep in order and woke up by itself: the sign of health of one that never lives for long."""
        if self.incident is not None and self.incident.judging_since is not None:
            return self._recovered(at, "the board slept and woke up by itself")
        if self.incident is None:
            self._forget_failures()
        return []

    def _forget_failures(self) -> None:
        self._failures.clear()
        self._lives.clear()
        self._told_loop = False
        self._refused = None

    def _reset_told(self, at: float, event: Reset) -> list[Decision]:
        """A reset reason printed by the firmware: details of the boot just seen, or the only trace of one."""
        abnormal = bool(event.reset and event.reset.abnormal)
        life = self._life
        if not abnormal:
            return self._slept(at) if _is_wake_up(event.reset) and not life.ours else []
        if life.began is not None and at - life.began <= 3.0:
            if life.counted or life.ours or (self.incident and self.incident.running is not None):
                return []
            life.counted = True
            self._cause = (event.reset.meaning if event.reset else None) or self._cause
            # the banner looked like a plain reset (rst cause 2 after an exception); its life is not known any more
            return self._failed(at, _Life(began=life.began))
        return self._booted(at, True, at <= self._ours_until, False, (event.reset.meaning if event.reset else None) or "")

    def _failed(self, at: float, before: _Life) -> list[Decision]:
        """An abnormal reset that nobody asked for ended the life `before`."""
        lived = at - before.began if before.began is not None else None
        if self.incident:
            if lived is not None and lived < self.settings.alive_s:
                self.incident.life_s = max(self.incident.life_s, lived)
            self.incident.seen_failing = True
            if before.flash_error is not None:
                self.incident.damaged = True
            return self._rung_failed(at, "the board failed again")
        if self._progress(before, at):
            self._forget_failures()
        self._failures.append(at)
        self._failures = [t for t in self._failures if 0 <= at - t <= self.settings.within_s]
        if lived is not None:
            self._lives = [*self._lives, lived][-self.settings.resets :]
        if before.flash_error is not None:
            self._life.flash_error = None
        if len(self._failures) >= self.settings.resets:
            return self._loop_proven(at, damaged=before.flash_error is not None)
        return []

    def _progress(self, life: _Life, until: float) -> bool:
        if life.progressed or life.marker is not None:
            return True
        if life.text_after(self.settings.healthy_after_s) is not None:
            return True
        return life.flash_error is None and life.began is not None and until - life.base() >= self.settings.alive_s

    def _flash_error(self, at: float, event: FlashError) -> None:
        life = self._life
        life.heard = True
        if life.began is not None and life.flash_error is None and at - life.began > ROM_WORDS_S:
            return  # neither the ROM nor a boot loader: a firmware that runs talks about flash
        life.flash_error = at
        self._cause = event.message or event.meaning or "flash error"

    # --- incidents ---

    def _loop_proven(self, at: float, *, damaged: bool) -> list[Decision]:
        out: list[Decision] = []
        if not self._told_loop:
            self._told_loop = True
            n = len(self._failures)
            period = (self._failures[-1] - self._failures[0]) / (n - 1) if n > 1 else None
            event = BootLoop(
                at=at, port=self.port, boots=n, period_s=round(period, 2) if period is not None else None, cause=self._cause or None
            )
            out.append(Emit(event=event))
        self.fleet.loop_seen(self.port, at)
        if self.settings.mode in ("off", "notify"):
            return out
        why = self.refusal(at)
        if why is not None:
            if self._refused != why[0]:
                self._refused = why[0]
                out.append(self._say("begin", "refused", at, why[1]))
            return out
        return out + self._begin(at, damaged=damaged)

    def _browned_out(self, at: float) -> bool:
        return self.brownout_at is not None and at - self.brownout_at < BROWNOUT_HOLD_S

    def refusal(self, at: float) -> tuple[str, str] | None:
        """Why no incident may begin now, as (key, sentence); None when one may."""
        s = self.settings
        if self.locked:
            return "locked", f"locked: {self.locked}; espmon recover {self.port} --unlock allows it again"
        if self.fleet.braked(at):
            return "brake", self.fleet.reason()
        if self._browned_out(at):
            return "brownout", "brownout text was seen; check the supply first"
        if s.by_hand:
            return None
        if at < self.quiet_until:
            return "pause", f"cooling down for another {self.quiet_until - at:.0f} s after {self.strikes} failed attempts"
        # a start in the future was stored before the clock was set back: it counts as recent
        recent = [t for t in self.starts if at - t < HOUR_S]
        if len(recent) >= s.per_hour:
            return "budget", f"{len(recent)} recoveries within the last hour, {s.per_hour} are allowed"
        return None

    def _begin(self, at: float, *, damaged: bool, mode: str | None = None) -> list[Decision]:
        if self.recovered_at is not None and at - self.recovered_at > HOUR_S:
            self.strikes = 0
        self.starts = [*(t for t in self.starts if at - t < HOUR_S), at]
        stamp = datetime.fromtimestamp(max(0.0, min(at, 4e9)), UTC).strftime("%Y%m%dT%H%M%S")
        self.incident = Incident(
            id=f"{self.port}-{stamp}-{len(self.starts)}",
            began=at,
            cause=self._cause,
            damaged=damaged,
            life_s=max(self._lives, default=0.0),
            mode=mode,
            seen_failing=bool(self._failures) or self._life.flash_error is not None,
        )
        self._refused = None
        return self._next(at, self._cause or "boot loop")

    def begin(self, at: float, *, mode: str = "flash") -> list[Decision]:
        """A person asks for a recovery with up to `mode`: no proof of a loop is needed; pauses and budgets are theirs to
        overrule, guards are not."""
        if self.incident:
            return []
        if (why := self.refusal(at)) is not None and why[0] not in ("pause", "budget"):
            return [self._say("begin", "refused", at, why[1])]
        if self.talking(at):
            return [self._say("begin", "refused", at, "the board talks; a board that talks is not touched")]
        self._cause = self._cause or "asked for"
        return self._begin(at, damaged=self._life.flash_error is not None, mode=mode)

    @property
    def mode(self) -> str:
        """What may be done now: the configuration's word, or what a person allowed for this incident."""
        return (self.incident.mode if self.incident else None) or self.settings.mode

    def unlock(self) -> None:
        """A person has looked at the board: lock-out, cool-down, strikes and the image's suspicion end."""
        self.locked = None
        self.strikes = 0
        self.quiet_until = 0.0
        self.suspect = []
        self.starts = []
        self.brownout_at = None
        self._refused = None

    def talking(self, at: float) -> bool:
        """True when the board printed ordinary text, after its boot's first seconds, within the last ten seconds."""
        life = self._life
        if life.began is None:
            return False
        base = life.base()
        return any(t >= base + self.settings.healthy_after_s and at - t <= 10.0 for t, _ in life.text) or (
            life.marker is not None and life.marker >= base and at - life.marker <= 10.0
        )

    def ladder(self) -> list[tuple[Rung, str | None]]:
        """All rungs in order, each with the reason why it is left out now (None: it would be tried)."""
        s, incident = self.settings, self.incident
        tried = incident.tried if incident else []
        damaged = incident.damaged if incident else self._life.flash_error is not None
        flash = self.mode == "flash"
        no_image = "no known-good image is named or learnt" if s.image is None else None
        if s.image is not None and s.image in self.suspect:
            no_image = "this image failed before on this board although it was verified"
        writes = [t for t in self.writes.get(s.image or "", ()) if incident and 0 < incident.began - t < HOUR_S]
        rows: list[tuple[Rung, str | None]] = []
        visible = "damage is visible: comparing comes first" if damaged and flash and no_image is None else None
        rows.append((Rung.RESET, visible))
        rows.append((Rung.POWER, visible or (None if s.power_cycle else "no power_cycle command is configured")))
        rows.append((Rung.LEAVE, visible))
        not_flash = None if flash else f"recover = {self.mode!r} does not allow it"
        rows.append((Rung.COMPARE, not_flash or no_image))
        by_hand = s.by_hand or (incident is not None and incident.mode is not None)
        budget = None if len(writes) < s.per_hour or by_hand else "this image was written too often within an hour"
        known = incident is not None and incident.differs is not None
        equal = "flash equals the image" if known and incident and not incident.differs else None
        unseen = "no failure was heard: it may be a healthy board that is silent" if incident and not incident.seen_failing else None
        rows.append((Rung.WRITE, not_flash or no_image or unseen or budget or equal))
        broken = "the flash could not be written" if incident and incident.write_failed else None
        rows.append((Rung.ERASE, not_flash or unseen or broken or (None if s.erase_parameters else "erase_parameters is not allowed")))
        whole = None if not known or (incident and incident.write_failed) else "only after a write that failed"
        rows.append((Rung.WHOLE, not_flash or no_image or unseen or budget or equal or whole))
        return [(rung, "tried in this incident" if str(rung) in tried else why) for rung, why in rows]

    def _next(self, at: float, reason: str) -> list[Decision]:
        incident = self.incident
        assert incident is not None
        out: list[Decision] = []
        if self.fleet.braked(at):
            return self._give_up(at, self.fleet.reason())
        if self._browned_out(at):
            return self._give_up(at, "the supply voltage fell too low (brownout)")
        if self.talking(at):
            return self._recovered(at, "the board talks")
        for rung, why in self.ladder():
            if str(rung) in incident.tried:
                continue
            if rung in (Rung.ERASE, Rung.WHOLE) and incident.differs is None:
                continue  # nothing is erased or written before it was compared
            if why is not None:
                if rung is Rung.COMPARE and self.mode == "flash":
                    out.append(self._say(rung, "skipped", at, why))
                elif rung in (Rung.RESET, Rung.LEAVE):
                    out.append(self._say(rung, "skipped", at, why))
                    incident.tried.append(rung)
                continue
            if rung is Rung.WRITE and incident.differs is None:
                continue
            incident.tried.append(rung)
            incident.running = rung
            incident.judging_since = None
            self._rung_at = at
            if rung in (Rung.WRITE, Rung.WHOLE) and self.settings.image and not incident.counted:
                incident.counted = True  # the whole image after a write that failed is the same attempt
                recent = [t for t in self.writes.get(self.settings.image, ()) if at - t < HOUR_S]
                self.writes[self.settings.image] = [*recent, at]
            out.append(self._say(rung, "started", at, reason))
            out.append(Do(port=self.port, rung=rung, incident=incident.id, reason=reason))
            return out
        return out + self._give_up(at, self._why_helpless())

    def _why_helpless(self) -> str:
        incident = self.incident
        assert incident is not None
        if incident.written:
            return "the flash holds the verified image and the board still fails: the image, the power or the hardware"
        if incident.differs is False:
            return "the flash equals the known-good image, so writing cannot help: application fault, power or credentials"
        if incident.write_failed:
            return "the flash could not be written: look at the wiring, the supply and the flash chip"
        if not incident.seen_failing and incident.differs:
            return "the flash differs from the image, but no failure was heard: it may be a healthy board that is silent"
        if self.mode != "flash":
            return f"resetting did not help, and recover = {self.mode!r} allows no more"
        return "nothing that is allowed and possible has helped"

    def confirm(self, do: Do, at: float) -> str | None:
        """Asked right before `do` is carried out. A sentence when it must not be any more."""
        if self.incident is None or self.incident.id != do.incident or self.incident.running != do.rung:
            return "the incident is over"
        if self.fleet.braked(at):
            return self.fleet.reason()
        if self._browned_out(at):
            return "brownout text was seen"
        if self.talking(at):
            return "the board talks"
        if do.rung in WRITING and self.incident.differs is None:
            return "the flash was not compared"
        return None

    def rung_done(self, do: Do, result: RungResult, at: float) -> list[Decision]:
        """The executor's report on `do`."""
        incident = self.incident
        if incident is None or incident.id != do.incident or incident.running != do.rung:
            return []
        reason = result.reason
        if result.brownout:
            self.brownout_at = at
        if result.outcome == "lost" and not self._browned_out(at):
            # as if the host had died: what is in the flash is asked again once the port is back
            incident.interrupted = "the port went away"
            self._resume_at = at + AWAY_S[min(incident.resumes, len(AWAY_S) - 1)]
            return [self._say(do.rung, "failed", at, reason or incident.interrupted)]
        incident.running = None
        out: list[Decision] = [self._say(do.rung, "failed" if result.outcome == "lost" else result.outcome, at, reason)]
        if self._browned_out(at):
            return out + self._give_up(at, "the supply voltage fell too low (brownout)")
        if result.outcome == "refused":
            if self.talking(at):
                return out + self._recovered(at, "the board talks")
            return out + self._give_up(at, reason or "a guard refused")
        if do.rung is Rung.COMPARE:
            if result.outcome != "done" or result.differs is None:
                return out + self._give_up(at, reason or "the flash could not be compared")
            incident.differs = result.differs
            return out + self._next(at, "the flash differs from the known-good image" if result.differs else "the flash equals the image")
        if do.rung in (Rung.WRITE, Rung.WHOLE):
            if result.outcome != "done":
                incident.write_failed = True
                return out + self._next(at, reason or "writing failed")
            incident.write_failed = False
            incident.written = True
            incident.differs = False
        if result.outcome != "done":
            return out + self._next(at, reason or f"{do.rung} failed")
        # judged by the next boot
        incident.judging_since = at
        self._ours_until = max(self._ours_until, at + OURS_S)
        if self._life.began is None or self._life.began <= self._rung_at:
            self._life = _Life(began=at, ours=True, heard=False)
        return out

    def _rung_failed(self, at: float, reason: str) -> list[Decision]:
        incident = self.incident
        assert incident is not None
        if self._life.flash_error is not None:
            incident.damaged = incident.seen_failing = True
        if incident.written and self.settings.image and self.settings.image not in self.suspect and not self.settings.by_hand:
            self.suspect.append(self.settings.image)
        incident.judging_since = None
        return self._next(at, reason)

    def _recovered(self, at: float, reason: str) -> list[Decision]:
        incident = self.incident
        assert incident is not None
        self.incident = None
        self.recovered_at = at
        self._forget_failures()
        event = Recovery(at=at, port=self.port, step="healthy", outcome="recovered", reason=reason, incident=incident.id)
        return [Emit(event=event)]

    def _give_up(self, at: float, reason: str) -> list[Decision]:
        incident = self.incident
        assert incident is not None
        self.incident = None
        pauses = self.settings.pauses_s
        if not self.fleet.braked(at) and not self.settings.by_hand:  # else it's not this board's failure; nobody needs a pause
            self.strikes += 1
        if self.settings.by_hand:
            pass
        elif self.strikes > len(pauses):
            self.locked = f"{self.strikes} recoveries failed, the last because: {reason}"
        else:
            self.quiet_until = at + pauses[max(0, self.strikes - 1)]
        self._failures.clear()
        self._refused = None
        event = Recovery(at=at, port=self.port, step="give-up", outcome="gave-up", reason=reason, incident=incident.id)
        return [Emit(event=event)]

    def _say(self, step: Rung | str, outcome: str, at: float, reason: str | None) -> Emit:
        incident = self.incident.id if self.incident else None
        return Emit(event=Recovery(at=at, port=self.port, step=str(step), outcome=outcome, reason=reason, incident=incident))

    # --- time ---

    def _needed_life(self) -> float:
        """How long after its boot a board must talk to count as healed: longer than it lived when it failed."""
        longest = self.incident.life_s if self.incident else 0.0
        return min(max(self.settings.healthy_after_s, 1.25 * longest), self.settings.alive_s)

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`tick` has something to do at the latest (Unix s), None when only events matter."""
        times: list[float] = []
        if self._resume_at is not None:
            times.append(self._resume_at)
        if self.incident and self.incident.running is None and self.incident.judging_since is not None:
            since = self.incident.judging_since
            times.append(max(since, self._life.base()) + self.settings.alive_s)
            times.append(since + RESTLESS * self.settings.alive_s)
            if self._life.flash_error is not None:
                times.append(self._life.flash_error + COMPLAINT_S)
            if self._life.marker is not None:
                times.append(self._life.marker + SETTLE_S)
            if (text := self._life.text_after(self._needed_life())) is not None:
                times.append(text + SETTLE_S)
        elif self.incident is None and self._life.flash_error is not None:
            times.append(max(self._life.flash_error + PARKED_S, self._parked_retry))
        return min(times, default=None)

    def tick(self, at: float) -> list[Decision]:
        """Time has passed."""
        if at < self._ticked - SET_BACK_S:
            self._set_back(at - self._ticked)
        self._ticked = at
        if self._resume_at is not None and at >= self._resume_at:
            self._resume_at = None
            return self._resume(at)
        incident, life = self.incident, self._life
        if incident is None:
            error_at = life.flash_error
            if error_at is not None and at >= max(error_at + PARKED_S, self._parked_retry):
                return self._parked(at)
            return []
        if incident.running is not None or incident.judging_since is None or self._resume_at is not None:
            return []
        if life.flash_error is not None and at - life.flash_error >= COMPLAINT_S:
            if life.text_after(SETTLE_S) is None:
                return self._rung_failed(at, f"the boot ROM reports damage: {self._cause}")
            life.flash_error = None  # it complained and went on: another application slot, mostly
        if life.marker is not None and at - life.marker >= SETTLE_S and life.crashed is None:
            return self._recovered(at, "the board printed the text that only working firmware prints")
        text = life.text_after(self._needed_life())
        if text is not None and at - text >= SETTLE_S:
            return self._recovered(at, f"ordinary text {text - life.base():.0f} s after the boot")
        if at - max(incident.judging_since, life.base()) >= self.settings.alive_s:
            return self._judge_the_quiet(at)
        if at - incident.judging_since >= RESTLESS * self.settings.alive_s:
            return self._give_up(at, "the board restarts by itself again and again, but none of these resets is a failure")
        return []

    def _judge_the_quiet(self, at: float) -> list[Decision]:
        """`alive_s` without a reset, without text."""
        life = self._life
        tried = self.incident.tried if self.incident else []
        if life.download and tried[-1:] in ([Rung.RESET], [Rung.POWER]):
            # our reset released the boot pin: somebody or something else holds it, perhaps to flash the board
            return self._give_up(at, "the board starts in download mode: its boot pin (GPIO0, GPIO9 ...) is held low")
        if not life.heard:
            if life.bytes_at is not None and life.bytes_at >= life.base():
                return self._give_up(at, "the board sends, but nothing that can be read at this rate: whether it works can't be told")
            return self._rung_failed(at, "nothing was heard after it")
        if life.crashed is not None or life.flash_error is not None or life.download:
            if self.incident is not None and not life.download:
                self.incident.seen_failing = True
            return self._rung_failed(at, "the board stopped")
        return self._recovered(at, f"no reset for {self.settings.alive_s:.0f} s")

    def _set_back(self, by: float) -> None:
        """The wall clock was set back: what was just heard moves with it. What is stored stays, and counts as recent."""
        life = self._life
        self._failures = [t + by for t in self._failures]
        life.began = None if life.began is None else life.began + by
        life.crashed = None if life.crashed is None else life.crashed + by
        life.flash_error = None if life.flash_error is None else life.flash_error + by
        life.marker = None if life.marker is None else life.marker + by
        life.bytes_at = None if life.bytes_at is None else life.bytes_at + by
        life.text = deque(((t + by, n) for t, n in life.text), maxlen=life.text.maxlen)
        self._ours_until += by
        self._rung_at += by
        self._parked_retry += by
        if self._resume_at is not None:
            self._resume_at += by
        if self.incident is not None and self.incident.judging_since is not None:
            self.incident.judging_since += by

    def _parked(self, at: float) -> list[Decision]:
        """A flash error and then silence: it will never reset itself three times, so a hard reset shows whether it stays."""
        if self._life.text_after(SETTLE_S) is not None:
            self._life.flash_error = None
            return []
        if self.settings.mode not in ("reset", "flash"):
            self._parked_retry = float("inf")  # until other settings come
            return []
        out: list[Decision] = []
        if not self._told_loop:
            self._told_loop = True
            out.append(Emit(event=BootLoop(at=at, port=self.port, boots=1, cause=self._cause or None)))
            self.fleet.loop_seen(self.port, at)
        why = self.refusal(at)
        if why is None:
            return out + self._begin(at, damaged=False)
        if why[0] == "pause":
            self._parked_retry = self.quiet_until
        else:
            self._parked_retry = at + self.settings.alive_s
        if self._refused != why[0]:
            self._refused = why[0]
            out.append(self._say("begin", "refused", at, why[1]))
        return out

    def _resume(self, at: float) -> list[Decision]:
        incident = self.incident
        if incident is None or incident.running is None:
            return []
        rung = Rung(incident.running)
        why = incident.interrupted
        if rung in IN_LOADER and self._may_be_leftover():
            if at - self._life.text[-1][0] < LEFTOVER_LISTEN_S:
                self._resume_at = at + 1.0
                return []
            self._life = _Life(heard=False)
        incident.resumes += 1
        if self.talking(at):
            incident.running = None
            return [self._say(rung, "failed", at, f"{why} in the middle"), *self._recovered(at, "the board talks")]
        if self._browned_out(at):
            incident.running = None
            return [self._say(rung, "failed", at, f"{why} in the middle"), *self._give_up(at, "brownout text was seen")]
        if incident.resumes > RESUMES:
            incident.running = None
            return [self._say(rung, "failed", at, f"{why} in the middle"), *self._give_up(at, f"{why} again and again")]
        if rung not in IN_LOADER:
            # the board may be in its loader, or held in reset: the same once more lets it out
            reason = f"{why} during {rung}"
            self._rung_at = at
            return [
                self._say(rung, "started", at, reason),
                Do(port=self.port, rung=rung, incident=incident.id, reason=reason, resume=True),
            ]
        if self.mode != "flash" or self.settings.image is None:
            incident.running = None
            return [self._say(rung, "failed", at, f"{why} in the middle"), *self._give_up(at, "flashing is not allowed any more")]
        # what is in the flash now decides, not what was planned: compare again, then write what differs
        incident.tried = [t for t in incident.tried if t not in (Rung.COMPARE, Rung.WRITE, Rung.WHOLE)]
        incident.tried.append(Rung.COMPARE)
        incident.differs = None
        incident.running = Rung.COMPARE
        reason = f"{why} during {rung}"
        return [
            self._say(Rung.COMPARE, "started", at, reason),
            Do(port=self.port, rung=Rung.COMPARE, incident=incident.id, reason=reason, resume=True),
        ]

    def _may_be_leftover(self) -> bool:
        """True when all text since the interruption may be what a loader was still sending."""
        life = self._life
        return life.assumed and bool(life.text) and life.text[-1][0] - life.text[0][0] < LEFTOVER_S

    # --- words ---

    def explain(self, at: float) -> list[str]:
        """What would be done now and why, a sentence each: what ``espmon recover NAME --dry-run`` prints."""
        s = self.settings
        out = [f"recover = {s.mode!r}: a boot loop is {s.resets} abnormal resets within {s.within_s:.0f} s without healthy text"]
        n = len([t for t in self._failures if at - t <= s.within_s])
        out.append(f"abnormal resets now: {n} of {s.resets}" + (f" ({self._cause})" if self._cause and n else ""))
        if self.incident:
            out.append(f"incident {self.incident.id} is open: {', '.join(self.incident.tried) or 'nothing'} tried so far")
        if s.mode in ("off", "notify"):
            out.append("nothing is done to the board" + (", it is only reported" if s.mode == "notify" else ""))
            return out
        if (why := self.refusal(at)) is not None:
            out.append(f"nothing would be done now: {why[1]}")
        if self.talking(at):
            out.append("nothing would be done now: the board talks")
        for rung, skip in self.ladder():
            note = ""
            if skip is None and rung in (Rung.WRITE, Rung.WHOLE):
                note = " (only if the flash differs from the image)" if rung is Rung.WRITE else " (only if that write failed)"
            out.append(f"{rung}: " + (f"left out, {skip}" if skip else f"would be tried{note}"))
        return out
