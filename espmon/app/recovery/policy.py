"""What is done about one board: when an incident begins, what follows from each rung, how it goes on after an interruption.

Its :meth:`~RecoveryPolicy.state` is plain JSON; the caller stores it before it carries out a decision, so that budgets,
cool-downs and lock-outs survive a kill, and an interrupted rung is resumed or abandoned.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from espmon.app.recovery.judgement import Judged, judge, verdict_due
from espmon.app.recovery.ladder import Incident, allowed, climb, why_helpless
from espmon.app.recovery.lives import Failure, Life, Lives, Wake, is_brownout
from espmon.app.recovery.restraint import Fleet, Restraint
from espmon.app.recovery.terms import IN_LOADER, WRITING, Decision, Do, Emit, PolicySettings, Rung, RungResult
from espmon.events import Boot, BootLoop, Brownout, Event, Recovery, Reset, Text

# A board that printed a flash error and then nothing for so long is parked: its ROM has stopped, it will not reset itself.
PARKED_S = 10.0
# After a restart of the host in the middle of a rung: listen this long for a talking board before resuming.
RESUME_LISTEN_S = 3.0
# What may be left over from a loader's last words is listened to for this long: a board that talks will say more.
LEFTOVER_LISTEN_S = 60.0
# After a rung that the port's going away cut short: the waits before it is looked at again.
AWAY_S = (3.0, 10.0, 30.0, 60.0, 120.0)
# How often one incident survives the host's death, or the port's going away, before it is given up.
RESUMES = 5
# A wall clock that goes back by more than this was set; less is the order in which events arrive.
SET_BACK_S = 1.0
UNREADABLE = "the stored state of its recovery cannot be read"


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
        state = state or {}
        if "unreadable" in state:
            raise ValueError(state["unreadable"])
        self.restraint = Restraint(port, state, settings, self.fleet, at=at)
        self.lives = Lives(settings)
        self.incident: Incident | None = None
        self._rung_at = at
        self._told_loop = False
        self._told_refusal: str | None = None
        self._resume_at: float | None = None
        self._parked_retry = float("-inf")
        self._ticked = float("-inf")
        self._saved = dict(state)
        if complaint := state.get("complaint"):
            self.lives.life.flash_error, self.lives.cause = at, str(complaint)
        if stored := state.get("incident"):
            self._restore(Incident(**stored), at)

    # --- state ---

    def state(self) -> dict[str, Any]:
        """Everything that has to survive a restart, as JSON values."""
        # a board that its ROM has stopped says nothing more, to the next host either
        stopped = self.lives.life.flash_error is not None and self.settings.mode in ("reset", "flash")
        return {
            **self.restraint.state(),
            "incident": asdict(self.incident) if self.incident else None,
            "complaint": self.lives.cause if stopped else None,
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

    def _restore(self, incident: Incident, at: float) -> None:
        self.incident = incident
        incident.interrupted = "the host stopped"
        # the dead host may have left it in its loader or in reset: silence is no sign of health
        self.lives.life = Life(heard=False)
        self.lives.cause = incident.cause
        if incident.running is None:
            incident.judging_since = at  # stored between two rungs: what was decided had not begun
        else:
            self._resume_at = at + RESUME_LISTEN_S

    def change(self, settings: PolicySettings) -> None:
        """New settings after a reload; an incident goes on under them."""
        self.settings = self.lives.settings = settings
        self._parked_retry = min(self._parked_retry, self.restraint.quiet_until)

    # --- what the board does ---

    @property
    def listening(self) -> bool:
        """True while text lines matter (:meth:`heard`): after an abnormal reset and during an incident."""
        return bool(self.lives.failures) or self.incident is not None or self.lives.life.flash_error is not None

    @property
    def _under_way(self) -> bool:
        """True while a rung has the board, or had it when it was cut short."""
        return self.incident is not None and self.incident.running is not None

    def heard(self, at: float, line: int, *, marker: bool = False) -> None:
        """A line of ordinary printable text was received. `line`: its number; `marker`: it matches the user's pattern."""
        if self._under_way and self._resume_at is None:
            return  # heard while a rung has the board; after the host's restart none has it yet
        self.lives.heard(at, line, marker=marker)

    def bytes_heard(self, at: float) -> None:
        """Anything was received, readable or not: a board that sends is not a silent one."""
        self.lives.life.bytes_at = at

    def observe(self, event: Event) -> list[Decision]:
        """Any event of this port, in order. Returns what follows from it."""
        at = event.at
        if at is None or isinstance(event, (Text, Recovery)):
            return []
        out: list[Decision] = []
        if isinstance(event, Brownout) or (isinstance(event, (Boot, Reset)) and is_brownout(event.reset)):
            self.restraint.brownout_at = at
            if self.incident and not self._under_way:
                out += self._give_up(at, "the supply voltage fell too low (brownout); writing would make it worse")
        match self.lives.observe(event, at, under_way=self._under_way):
            case Failure() as failure:
                out += self._failed(at, failure)
            case Wake():
                out += self._woke(at)
        return out

    def _woke(self, at: float) -> list[Decision]:
        if self.incident is None:
            self._forget_failures()
        elif self.incident.judging_since is not None:
            return self._recovered(at, "the board slept and woke up by itself")
        return []

    def _failed(self, at: float, failure: Failure) -> list[Decision]:
        incident = self.incident
        if incident:
            if failure.lived is not None and failure.lived < self.settings.alive_s:
                incident.life_s = max(incident.life_s, failure.lived)
            incident.seen_failing = True
            incident.damaged |= failure.damaged
            return self._rung_failed(at, "the board failed again")
        if failure.progressed:
            self._forget_failures()
        if self.lives.count(at, failure):
            return self._loop_proven(at, damaged=failure.damaged)
        return []

    def _forget_failures(self) -> None:
        self.lives.forget_failures()
        self._told_loop = False
        self._told_refusal = None

    def talking(self, at: float) -> bool:
        """True when the board printed ordinary text, after its boot's first seconds, within the last ten seconds."""
        return self.lives.life.talking(at, self.settings.healthy_after_s)

    # --- an incident begins ---

    def _loop_proven(self, at: float, *, damaged: bool) -> list[Decision]:
        out = self._tell_loop(at, len(self.lives.failures), self.lives.period)
        self.fleet.loop_seen(self.port, at)
        if self.settings.mode in ("off", "notify"):
            return out
        if (why := self.refusal(at)) is not None:
            return out + self._refuse(at, *why)
        return out + self._begin(at, damaged=damaged)

    def _parked(self, at: float) -> list[Decision]:
        """A flash error and then silence: it will never reset itself three times, so a hard reset shows whether it stays."""
        if self.lives.life.went_on():
            return []
        if self.settings.mode not in ("reset", "flash"):
            self._parked_retry = float("inf")  # until other settings come
            return []
        if out := self._tell_loop(at, 1, None):
            self.fleet.loop_seen(self.port, at)
        if (why := self.refusal(at)) is not None:
            self._parked_retry = self.restraint.quiet_until if why[0] == "pause" else at + self.settings.alive_s
            return out + self._refuse(at, *why)
        return out + self._begin(at, damaged=False)

    def _tell_loop(self, at: float, boots: int, period: float | None) -> list[Decision]:
        if self._told_loop:
            return []
        self._told_loop = True
        period = round(period, 2) if period is not None else None
        return [Emit(event=BootLoop(at=at, port=self.port, boots=boots, period_s=period, cause=self.lives.cause or None))]

    def refusal(self, at: float) -> tuple[str, str] | None:
        """Why no incident may begin now, as (key, sentence); None when one may."""
        return self.restraint.refusal(self.settings, at)

    def _refuse(self, at: float, key: str, sentence: str) -> list[Decision]:
        if self._told_refusal == key:
            return []
        self._told_refusal = key
        return [self._say("begin", "refused", at, sentence)]

    def begin(self, at: float, *, mode: str = "flash") -> list[Decision]:
        """A person asks for a recovery with up to `mode`: no proof of a loop is needed; pauses and budgets are theirs to
        overrule, guards are not."""
        if self.incident:
            return []
        if (why := self.refusal(at)) is not None and why[0] not in ("pause", "budget"):
            return [self._say("begin", "refused", at, why[1])]
        if self.talking(at):
            return [self._say("begin", "refused", at, "the board talks; a board that talks is not touched")]
        self.lives.cause = self.lives.cause or "asked for"
        return self._begin(at, damaged=self.lives.life.flash_error is not None, mode=mode)

    def _begin(self, at: float, *, damaged: bool, mode: str | None = None) -> list[Decision]:
        lives = self.lives
        nth = self.restraint.begun(at)
        stamp = datetime.fromtimestamp(max(0.0, min(at, 4e9)), UTC).strftime("%Y%m%dT%H%M%S")
        self.incident = Incident(
            id=f"{self.port}-{stamp}-{nth}",
            began=at,
            cause=lives.cause,
            damaged=damaged,
            life_s=lives.longest,
            mode=mode,
            seen_failing=bool(lives.failures) or lives.life.flash_error is not None,
        )
        self._told_refusal = None
        return self._next(at, lives.cause or "boot loop")

    def unlock(self) -> None:
        """A person has looked at the board: lock-out, cool-down, strikes and the image's suspicion end."""
        self.restraint.unlock()
        self._told_refusal = None

    # --- rung after rung ---

    def _next(self, at: float, reason: str) -> list[Decision]:
        incident = self.incident
        assert incident is not None
        if self.fleet.braked(at):
            return self._give_up(at, self.fleet.reason())
        if self.restraint.browned_out(at):
            return self._give_up(at, "the supply voltage fell too low (brownout)")
        if self.talking(at):
            return self._recovered(at, "the board talks")
        rung, skipped = climb(incident, self.settings, self.restraint)
        out: list[Decision] = [self._say(each, "skipped", at, why) for each, why in skipped]
        if rung is None:
            return out + self._give_up(at, why_helpless(incident, self.settings))
        if rung in (Rung.WRITE, Rung.WHOLE) and self.settings.image and not incident.counted:
            incident.counted = True  # the whole image after a write that failed is the same attempt
            self.restraint.writing(self.settings.image, at)
        return out + self._start(rung, incident, at, reason)

    def _start(self, rung: Rung, incident: Incident, at: float, reason: str, *, resume: bool = False) -> list[Decision]:
        if rung not in incident.tried:
            incident.tried.append(rung)
        incident.running = rung
        incident.judging_since = None
        self._rung_at = at
        do = Do(port=self.port, rung=rung, incident=incident.id, reason=reason, resume=resume)
        return [self._say(rung, "started", at, reason), do]

    def confirm(self, do: Do, at: float) -> str | None:
        """Asked right before `do` is carried out. A sentence when it must not be any more."""
        if self.incident is None or self.incident.id != do.incident or self.incident.running != do.rung:
            return "the incident is over"
        if self.fleet.braked(at):
            return self.fleet.reason()
        if self.restraint.browned_out(at):
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
        reason, done = result.reason, result.outcome == "done"
        if result.brownout:
            self.restraint.brownout_at = at
        browned_out = self.restraint.browned_out(at)
        if result.outcome == "lost" and not browned_out:
            # as if the host had died: what is in the flash is asked again once the port is back
            incident.interrupted = "the port went away"
            self._resume_at = at + AWAY_S[min(incident.resumes, len(AWAY_S) - 1)]
            return [self._say(do.rung, "failed", at, reason or incident.interrupted)]
        incident.running = None
        out: list[Decision] = [self._say(do.rung, "failed" if result.outcome == "lost" else result.outcome, at, reason)]
        if browned_out:
            return out + self._give_up(at, "the supply voltage fell too low (brownout)")
        if result.outcome == "refused":
            if self.talking(at):
                return out + self._recovered(at, "the board talks")
            return out + self._give_up(at, reason or "a guard refused")
        if do.rung is Rung.COMPARE:
            if not done or result.differs is None:
                return out + self._give_up(at, reason or "the flash could not be compared")
            incident.differs = result.differs
            return out + self._next(at, "the flash differs from the known-good image" if result.differs else "the flash equals the image")
        if do.rung in (Rung.WRITE, Rung.WHOLE):
            incident.write_failed = not done
            if done:
                incident.written = True
                incident.differs = False
        if not done:
            failed = "writing failed" if do.rung in (Rung.WRITE, Rung.WHOLE) else f"{do.rung} failed"
            return out + self._next(at, reason or failed)
        incident.judging_since = at  # by the next boot
        self.lives.rung_over(at, since=self._rung_at)
        return out

    def _rung_failed(self, at: float, reason: str) -> list[Decision]:
        incident, life = self.incident, self.lives.life
        assert incident is not None
        if life.flash_error is not None:
            incident.damaged = incident.seen_failing = True
        elif life.crashed is not None and not life.download:
            incident.seen_failing = True
        if incident.written and self.settings.image and not self.settings.by_hand:
            self.restraint.suspect_image(self.settings.image)
        incident.judging_since = None
        return self._next(at, reason)

    def _recovered(self, at: float, reason: str) -> list[Decision]:
        said = self._say("healthy", "recovered", at, reason)
        self.incident = None
        self.restraint.recovered_at = at
        self._forget_failures()
        return [said]

    def _give_up(self, at: float, reason: str) -> list[Decision]:
        said = self._say("give-up", "gave-up", at, reason)
        self.incident = None
        self.restraint.gave_up(self.settings, at, reason)
        self.lives.failures.clear()
        self._told_refusal = None
        return [said]

    def _say(self, step: Rung | str, outcome: str, at: float, reason: str | None) -> Emit:
        incident = self.incident.id if self.incident else None
        return Emit(event=Recovery(at=at, port=self.port, step=str(step), outcome=outcome, reason=reason, incident=incident))

    # --- time ---

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`tick` has something to do at the latest (Unix s), None when only events matter."""
        if self._resume_at is not None:
            return self._resume_at
        incident, life = self.incident, self.lives.life
        if incident is None:
            return max(life.flash_error + PARKED_S, self._parked_retry) if life.flash_error is not None else None
        return verdict_due(self.lives, incident, self.settings)

    def tick(self, at: float) -> list[Decision]:
        """Time has passed."""
        if at < self._ticked - SET_BACK_S:
            self._set_back(at - self._ticked)
        self._ticked = at
        if self._resume_at is not None:
            return self._resume(at) if at >= self._resume_at else []
        incident, life = self.incident, self.lives.life
        if incident is None:
            if life.flash_error is not None and at >= max(life.flash_error + PARKED_S, self._parked_retry):
                return self._parked(at)
            return []
        verdict = judge(self.lives, incident, self.settings, at)
        if verdict is None:
            return []
        match verdict.judged:
            case Judged.HEALED:
                return self._recovered(at, verdict.reason)
            case Judged.FAILED:
                return self._rung_failed(at, verdict.reason)
            case Judged.HOPELESS:
                return self._give_up(at, verdict.reason)

    def _set_back(self, by: float) -> None:
        """The wall clock was set back: what was just heard moves with it. What is stored stays, and counts as recent."""
        self.lives.set_back(by)
        self._rung_at += by
        self._parked_retry += by
        if self._resume_at is not None:
            self._resume_at += by
        if self.incident is not None and self.incident.judging_since is not None:
            self.incident.judging_since += by

    # --- after an interruption ---

    def _resume(self, at: float) -> list[Decision]:
        """The host is back, or the port: the rung that was cut short is looked at again."""
        self._resume_at = None
        incident, lives = self.incident, self.lives
        if incident is None or incident.running is None:
            return []
        rung = Rung(incident.running)
        in_loader = rung in IN_LOADER
        if in_loader and lives.life.may_be_leftover():
            if at - lives.life.text[-1][0] < LEFTOVER_LISTEN_S:
                self._resume_at = at + 1.0
                return []
            lives.life = Life(heard=False)
        incident.resumes += 1
        why = incident.interrupted
        cut_short: list[Decision] = [self._say(rung, "failed", at, f"{why} in the middle")]
        if self.talking(at):
            return cut_short + self._recovered(at, "the board talks")
        if self.restraint.browned_out(at):
            return cut_short + self._give_up(at, "brownout text was seen")
        if incident.resumes > RESUMES:
            return cut_short + self._give_up(at, f"{why} again and again")
        if in_loader:
            if allowed(incident, self.settings) != "flash" or self.settings.image is None:
                return cut_short + self._give_up(at, "flashing is not allowed any more")
            # what is in the flash now decides, not what was planned: compare again, then write what differs
            incident.tried = [t for t in incident.tried if t not in (Rung.COMPARE, Rung.WRITE, Rung.WHOLE)]
            incident.differs = None
            return self._start(Rung.COMPARE, incident, at, f"{why} during {rung}", resume=True)
        # the board may be in its loader, or held in reset: the same once more lets it out
        return self._start(rung, incident, at, f"{why} during {rung}", resume=True)
