"""A board's lives, from boot to boot, as far as heard: which of them failed, and when failures in a row are a boot loop."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from espmon.app.recovery.terms import PolicySettings
from espmon.events import Boot, Brownout, Crash, DownloadMode, Event, FlashError, Reset, ResetCause, ResetCaused

# A boot heard within this time of a reset that espmon made is that reset (the contract's 2 s).
OURS_S = 2.0
# Text counts as healthy only when no fact (a crash dump that is still arriving) claimed its lines for this long.
SETTLE_S = 1.0
# A board that printed ordinary text this recently talks.
TALK_S = 10.0
# The ROM and the second-stage boot loader complain within seconds of a boot; the same words later are an application's own.
ROM_WORDS_S = 10.0
# A firmware prints why it was reset within seconds of the boot that the ROM's banner told.
TOLD_S = 3.0
# A loader that was left in mid-sentence finishes it: at most 16 KiB (its window) at 115200 baud, 1.4 s of flash content, which
# reads like anything. What may be that is listened to for longer: a board that talks will say more.
LEFTOVER_S = 2.0


@dataclass(slots=True)
class Life:
    """The board since its last boot. Times: Unix s."""

    began: float | None = None
    ours: bool = False
    counted: bool = False  # what ended the life before it was counted as a failure
    crashed: float | None = None
    flash_error: float | None = None  # the ROM or a boot loader complained about the flash
    download: bool = False
    bytes_at: float | None = None  # anything at all was received, readable or not
    progressed: bool = False  # it was healthy before it crashed
    assumed: bool = False  # no boot was heard: text alone says that it runs
    heard: bool = True  # False: made from a reset of ours, nothing was heard of it yet
    marker: float | None = None  # the text that only working firmware prints
    text: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=256))  # ordinary lines: time, number

    @property
    def undisturbed_since(self) -> float:
        """Since when it has been running without a crash or a complaint."""
        return max(self.began or 0.0, self.crashed or 0.0, self.flash_error or 0.0)

    def text_after(self, seconds: float) -> float | None:
        """The first time of ordinary text at least `seconds` into the undisturbed life."""
        since = self.undisturbed_since
        return next((at for at, _ in self.text if at >= since + seconds), None)

    def claim(self, first: int, last: int) -> None:
        """These lines belong to a fact: they are no ordinary text."""
        kept = [(at, line) for at, line in self.text if not first <= line <= last]
        if len(kept) != len(self.text):
            self.text.clear()
            self.text.extend(kept)

    def talking(self, at: float, healthy_after_s: float) -> bool:
        """True when the board printed ordinary text, after its boot's first seconds, a moment ago."""
        if self.began is None:
            return False
        since = self.undisturbed_since
        return any(t >= since + healthy_after_s and at - t <= TALK_S for t, _ in self.text) or (
            self.marker is not None and self.marker >= since and at - self.marker <= TALK_S
        )

    def progress(self, until: float, settings: PolicySettings) -> bool:
        """True when it was healthy for a while: its end begins a new count of failures."""
        if self.progressed or self.marker is not None or self.text_after(settings.healthy_after_s) is not None:
            return True
        return self.flash_error is None and self.began is not None and until - self.undisturbed_since >= settings.alive_s

    def went_on(self) -> bool:
        """True when ordinary text followed the complaint about the flash, which is forgotten then."""
        if self.text_after(SETTLE_S) is None:
            return False
        self.flash_error = None
        return True

    def may_be_leftover(self) -> bool:
        """True when all text may be what a loader was still sending when the host came back."""
        return self.assumed and bool(self.text) and self.text[-1][0] - self.text[0][0] < LEFTOVER_S

    def move(self, by: float) -> None:
        """The wall clock was set: all times move with it."""
        self.began = None if self.began is None else self.began + by
        self.crashed = None if self.crashed is None else self.crashed + by
        self.flash_error = None if self.flash_error is None else self.flash_error + by
        self.marker = None if self.marker is None else self.marker + by
        self.bytes_at = None if self.bytes_at is None else self.bytes_at + by
        self.text = deque(((at + by, line) for at, line in self.text), maxlen=self.text.maxlen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A life ended in an abnormal reset, a crash or a flash error that nobody asked for."""

    lived: float | None  # s; None: its beginning was not heard
    damaged: bool  # a complaint about the flash ended it
    progressed: bool


@dataclass(frozen=True, slots=True)
class Wake:
    """The board went to sleep in order and woke up by itself: the sign of health of one that never lives for long."""


class Lives:
    """The life that the board lives now, and the failures before it."""

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self.life = Life()
        self.cause = ""  # of the last failure, in words
        self.failures: list[float] = []
        self._lived: list[float] = []
        self._ours_until = float("-inf")

    def heard(self, at: float, line: int, *, marker: bool = False) -> None:
        """A line of ordinary printable text was received. `line`: its number; `marker`: it matches the user's pattern."""
        life = self.life
        life.heard = True
        if marker:
            life.marker = at
        if life.began is None:
            # no boot was heard: it runs since before we listened
            life.began = at - self.settings.healthy_after_s
            life.assumed = True
        life.text.append((at, line))

    def observe(self, event: Event, at: float, *, under_way: bool) -> Failure | Wake | None:
        """Any fact of this port, in order. `under_way`: a rung has the board, whose boots and crashes are its doing."""
        if event.line is not None:
            self.life.claim(event.line, event.end_line or event.line)
        match event:
            case ResetCaused():
                self._ours_until = at + OURS_S
            case Boot():
                ours = event.caused_by in ("espmon", "open") or at <= self._ours_until
                download = bool(event.boot_mode and event.boot_mode.download)
                return self._booted(at, event.reset, ours=ours, download=download, under_way=under_way)
            case Reset():
                return self._reset_told(at, event.reset, under_way=under_way)
            case Brownout() if not under_way:
                self._crashed(at, "brownout")  # the restart that follows looks like one by software
            case Crash() if not under_way:
                self._crashed(at, event.explanation or event.message or event.kind)
            case FlashError():
                self._flash_error(at, event)
            case DownloadMode():
                self.life.download = True
        return None

    def _booted(
        self, at: float, cause: ResetCause | None, *, ours: bool, download: bool = False, under_way: bool
    ) -> Failure | Wake | None:
        before, self.life = self.life, Life(began=at, ours=ours, download=download)
        abnormal = cause is not None and cause.abnormal
        crashed = before.crashed is not None or before.flash_error is not None
        if ours:
            self._ours_until = float("-inf")  # one reset, one boot: the next is the board's own doing
        if under_way or ours:
            return None
        if not abnormal and not crashed:
            return Wake() if is_wake_up(cause) else None
        if abnormal and not crashed:
            self.cause = meaning_of(cause)
        return self._failed(at, before)

    def _reset_told(self, at: float, cause: ResetCause | None, *, under_way: bool) -> Failure | Wake | None:
        """A reset reason printed by the firmware: details of the boot just seen, or the only trace of one."""
        life = self.life
        if cause is None or not cause.abnormal:
            return Wake() if is_wake_up(cause) and not life.ours else None
        if life.began is None or at - life.began > TOLD_S:
            return self._booted(at, cause, ours=at <= self._ours_until, under_way=under_way)
        if life.counted or life.ours or under_way:
            return None
        self.cause = meaning_of(cause) or self.cause
        # the banner looked like a plain reset (rst cause 2 after an exception); its life is not known any more
        return self._failed(at, Life(began=life.began))

    def _failed(self, at: float, before: Life) -> Failure:
        self.life.counted = True
        return Failure(
            lived=at - before.began if before.began is not None else None,
            damaged=before.flash_error is not None,
            progressed=before.progress(at, self.settings),
        )

    def _crashed(self, at: float, cause: str) -> None:
        life = self.life
        life.heard = True
        life.progressed = life.progress(at, self.settings)
        life.crashed, self.cause = at, cause

    def _flash_error(self, at: float, event: FlashError) -> None:
        life = self.life
        life.heard = True
        if life.began is not None and life.flash_error is None and at - life.began > ROM_WORDS_S:
            return  # neither the ROM nor a boot loader: a firmware that runs talks about flash
        life.flash_error = at
        self.cause = event.message or event.meaning or "flash error"

    # --- failures in a row ---

    def count(self, at: float, failure: Failure) -> bool:
        """One more failure. True when they are a boot loop now."""
        self.failures = [t for t in (*self.failures, at) if 0 <= at - t <= self.settings.within_s]
        if failure.lived is not None:
            self._lived = [*self._lived, failure.lived][-self.settings.resets :]
        return len(self.failures) >= self.settings.resets

    @property
    def period(self) -> float | None:
        """The mean time from failure to failure in s."""
        n = len(self.failures)
        return (self.failures[-1] - self.failures[0]) / (n - 1) if n > 1 else None

    @property
    def longest(self) -> float:
        """How long the board lived between failures, at most, in s."""
        return max(self._lived, default=0.0)

    def forget_failures(self) -> None:
        """It was healthy in between."""
        self.failures.clear()
        self._lived.clear()

    # --- what others do ---

    def rung_over(self, at: float, since: float) -> None:
        """A rung that took from `since` to `at` has let the board go: it boots."""
        self._ours_until = max(self._ours_until, at + OURS_S)
        if self.life.began is None or self.life.began <= since:
            self.life = Life(began=at, ours=True, heard=False)

    def set_back(self, by: float) -> None:
        """The wall clock was set: what was just heard moves with it."""
        self.life.move(by)
        self.failures = [t + by for t in self.failures]
        self._ours_until += by


def meaning_of(cause: ResetCause | None) -> str:
    """The cause in our words, empty when there are none."""
    return (cause.meaning if cause else None) or ""


def _words(cause: ResetCause | None) -> str:
    return f"{cause.name or ''} {cause.meaning or ''}".lower() if cause else ""


def is_brownout(cause: ResetCause | None) -> bool:
    """True when the supply fell."""
    return "brown" in _words(cause)


def is_wake_up(cause: ResetCause | None) -> bool:
    """True for the end of a deep sleep: the firmware ran as far as going to sleep in order."""
    return "deep sleep" in _words(cause)
