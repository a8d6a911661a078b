"""The recovery policy: told as stories, then as properties that no sequence of events may break."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import espmon.events as ev
from espmon.app.ordinary import is_ordinary
from espmon.app.recovery import (
    BROWNOUT_HOLD_S,
    WRITING,
    Decision,
    Do,
    Emit,
    Fleet,
    PolicySettings,
    RecoveryPolicy,
    Rung,
    RungResult,
    explain,
)

FLASH = PolicySettings(mode="flash", image="abc")
WDT = ev.ResetCause(code=4, name="rst cause:4", meaning="hardware watchdog reset", abnormal=True)
PLAIN = ev.ResetCause(code=2, meaning="external reset")
DEEP_SLEEP = ev.ResetCause(code=5, meaning="wake-up from deep sleep")
SOFTWARE = ev.ResetCause(code=0xC, name="SW_CPU_RESET", meaning="restart by software", abnormal=False)


class Story:
    """Drives a policy and keeps what it said and wanted."""

    def __init__(self, settings: PolicySettings = FLASH, port: str = "b", **kw: Any) -> None:
        self.policy = RecoveryPolicy(port, settings, **kw)
        self.at = 1_000_000.0
        self.line = 0
        self.said: list[str] = []
        self.wanted: list[Do] = []

    def take(self, decisions: list[Decision]) -> None:
        for d in decisions:
            if isinstance(d, Do):
                self.wanted.append(d)
            elif isinstance(d.event, ev.Recovery):
                self.said.append(f"{d.event.step} {d.event.outcome}")
            else:
                self.said.append(d.event.type)

    def boot(self, after: float = 1.0, cause: ev.ResetCause = WDT, caused_by: str | None = None) -> None:
        self.wait(after)
        self.line += 1
        self.take(self.policy.observe(ev.Boot(at=self.at, line=self.line, end_line=self.line, reset=cause, caused_by=caused_by)))

    def text(self, after: float = 0.0, **kw: Any) -> None:
        self.wait(after)
        self.line += 1
        self.policy.heard(self.at, self.line, **kw)

    def crash(self) -> None:
        first = self.line + 1
        for _ in range(5):
            self.text(0.01)
        self.take(self.policy.observe(ev.Crash(at=self.at, kind="exception", line=first, end_line=self.line)))

    def flash_error(self) -> None:
        self.line += 1
        self.take(self.policy.observe(ev.FlashError(at=self.at, message="csum err", line=self.line)))

    def wait(self, seconds: float) -> None:
        end = self.at + seconds
        while (due := self.policy.next_deadline) is not None and due <= end:
            self.at = max(self.at, due)
            before = (self.policy.next_deadline, len(self.said))
            self.take(self.policy.tick(self.at))
            assert (self.policy.next_deadline, len(self.said)) != before or due > self.at, "a deadline that does nothing"
        self.at = end
        self.take(self.policy.tick(self.at))

    def done(self, outcome: str = "done", *, after: float = 1.0, **kw: Any) -> Rung:
        do = self.wanted.pop(0)
        assert not self.wanted
        assert self.policy.confirm(do, self.at) is None
        self.wait(after)
        self.take(self.policy.rung_done(do, RungResult(outcome=outcome, **kw), self.at))
        return do.rung

    def loop(self, n: int = 3, every: float = 2.0) -> None:
        for _ in range(n):
            self.boot(every)

    def damaged_loop(self) -> None:
        for _ in range(3):
            self.flash_error()
            self.boot(2.0)

    def host_dies(self) -> Story:
        """The next host goes on with what was stored."""
        after = Story(self.policy.settings, state=json.loads(json.dumps(self.policy.state())), at=self.at)
        after.at = self.at
        return after


def test_damaged_flash_is_compared_written_and_judged_healthy() -> None:
    s = Story()
    s.loop()
    assert s.said == ["boot-loop", "reset started"]
    assert s.done() is Rung.RESET
    s.boot(0.1, PLAIN, "espmon")
    s.boot(2.0)
    assert s.done() is Rung.LEAVE
    s.boot(0.1, PLAIN, "espmon")
    s.boot(2.0)
    assert s.done(differs=True) is Rung.COMPARE
    assert s.done(after=4.0) is Rung.WRITE
    s.boot(0.1, PLAIN, "espmon")
    for _ in range(20):
        s.text(0.4)
    assert s.said[-3:] == ["write started", "write done", "healthy recovered"]
    assert s.policy.incident is None


def test_visible_damage_goes_straight_to_the_compare() -> None:
    s = Story()
    s.damaged_loop()
    assert s.wanted[-1].rung is Rung.COMPARE
    assert s.said == ["boot-loop", "reset skipped", "leave-download-mode skipped", "compare started"]


def test_a_board_parked_by_its_rom_is_reset_once_then_compared() -> None:
    s = Story()
    s.boot(1.0, PLAIN)
    s.flash_error()
    s.wait(20)
    assert s.said == ["boot-loop", "reset started"]
    assert s.done() is Rung.RESET
    s.boot(0.1, PLAIN, "espmon")
    s.flash_error()
    assert not s.wanted, "a boot loader that finds one slot damaged may start another"
    s.wait(3.0)
    assert s.wanted[-1].rung is Rung.COMPARE


def test_equal_flash_is_never_written_and_the_reason_is_told() -> None:
    s = Story()
    s.loop()
    s.done()
    s.boot(2.0)
    s.boot(2.0)
    s.done()
    s.boot(2.5)
    s.done(differs=False)
    assert s.wanted == []
    assert s.said[-2:] == ["compare done", "give-up gave-up"]
    s.loop(10, 1.0)
    assert s.wanted == []
    assert s.said[-1] == "begin refused"


@pytest.mark.parametrize("gap", [10.0, 15.0, 19.0])
def test_a_board_that_talks_between_resets_is_not_in_a_loop(gap: float) -> None:
    s = Story()
    for _ in range(20):
        s.boot(1.0)
        for _ in range(int(gap)):
            s.text(1.0)
        s.crash()
    assert s.said == []
    assert s.wanted == []


def test_text_of_a_dump_is_no_talk() -> None:
    s = Story()
    for _ in range(4):
        s.boot(1.0, PLAIN)
        s.wait(8.0)
        s.crash()
    assert s.said[0] == "boot-loop"


def test_startup_text_within_the_first_seconds_is_no_talk() -> None:
    s = Story()
    for _ in range(3):
        s.boot(2.0)
        for _ in range(4):
            s.text(0.2)
    assert s.said[0] == "boot-loop"


@pytest.mark.parametrize("cause", [PLAIN, ev.ResetCause(code=5, meaning="deep sleep wake-up")])
def test_plain_resets_and_wake_ups_do_not_count(cause: ev.ResetCause) -> None:
    s = Story()
    for _ in range(20):
        s.boot(3.0, cause)
    for _ in range(20):
        s.boot(3.0, WDT, "espmon")
    for _ in range(20):
        s.boot(3.0, WDT, "open")
    assert s.said == []


def test_brownout_stops_everything() -> None:
    s = Story()
    s.policy.observe(ev.Brownout(at=s.at))
    s.loop(5)
    assert s.wanted == []
    assert s.said == ["boot-loop", "begin refused"]
    s = Story()
    s.loop()
    s.done()
    s.take(s.policy.observe(ev.Boot(at=s.at, reset=ev.ResetCause(code=15, name="RTCWDT_BROWN_OUT_RESET", abnormal=True))))
    assert s.said[-1] == "give-up gave-up"
    s.loop(10)
    assert s.wanted == []


def test_modes() -> None:
    for mode, wanted in (("off", []), ("notify", []), ("reset", [Rung.RESET])):
        s = Story(replace(FLASH, mode=mode))
        s.loop()
        assert s.said[0] == "boot-loop"
        assert [d.rung for d in s.wanted] == wanted
    s.done()
    s.boot(2.5)
    assert s.done() is Rung.LEAVE
    s.boot(2.5)
    assert s.wanted == []
    assert s.said[-1] == "give-up gave-up"


def test_budget_then_pauses_then_locked_and_all_of_it_survives_restarts() -> None:
    s = Story(replace(FLASH, per_hour=2, pauses_s=(60.0, 600.0)))
    begun = []
    for _ in range(4000):
        s.boot(3.0)
        if s.wanted:
            begun.append(s.at)
            s.wanted.pop()
            s.take(s.policy.rung_done(Do(port="b", rung=Rung.RESET, incident=s.policy.incident.id, reason=""), RungResult(outcome="refused"), s.at))  # type: ignore[union-attr]
        state = json.loads(json.dumps(s.policy.state()))
        s.policy = RecoveryPolicy("b", s.policy.settings, state, at=s.at)
        s.loop(2, 3.0)
        if s.wanted:
            begun.append(s.at)
            s.take(s.policy.rung_done(s.wanted.pop(), RungResult(outcome="refused"), s.at))
    assert len(begun) == 3
    assert begun[1] - begun[0] >= 60
    assert begun[2] - begun[0] >= 3600, "two an hour"
    assert s.policy.restraint.locked
    s.policy.unlock()
    s.loop()
    assert s.wanted


def test_many_boards_at_once_are_the_power() -> None:
    fleet = Fleet(boards=4, within_s=30.0, hold_s=600.0)
    stories = [Story(port=f"b{i}", fleet=fleet) for i in range(10)]
    for s in stories:
        s.loop()
    wanted = [d for s in stories for d in s.wanted]
    assert len(wanted) == 3, "the first three could not know"
    for s in stories[:3]:
        assert s.policy.confirm(s.wanted[0], s.at) is not None
        s.take(s.policy.rung_done(s.wanted.pop(), RungResult(outcome="refused", reason="power"), s.at))
        assert s.policy.restraint.strikes == 0
    for s in stories:
        s.loop(5)
        assert not s.wanted
        s.wait(700)
        s.loop(1)
    assert any(s.wanted or "started" in s.said[-1] for s in stories) or stories[0].policy.refusal(stories[0].at) is None


def test_a_failed_write_is_followed_by_the_whole_image() -> None:
    s = Story(replace(FLASH, erase_parameters=True))
    s.damaged_loop()
    s.done(differs=True)
    assert s.done("failed", reason="lost frames") is Rung.WRITE
    assert s.done() is Rung.WHOLE


def test_a_verified_write_that_does_not_help_makes_the_image_suspect() -> None:
    s = Story()
    s.damaged_loop()
    s.done(differs=True)
    s.done()
    s.boot(3.0)
    assert s.said[-1] == "give-up gave-up"
    assert s.policy.restraint.suspect == ["abc"]
    s.wait(10_000)
    s.damaged_loop()
    assert all(d.rung not in (Rung.COMPARE, *WRITING) for d in s.wanted)


@pytest.mark.parametrize("during", [Rung.COMPARE, Rung.WRITE])
def test_a_host_that_dies_in_the_middle_compares_again(during: Rung) -> None:
    s = Story()
    s.damaged_loop()
    if during is Rung.WRITE:
        s.done(differs=True)
    again = s.host_dies()
    again.wait(10.0)
    (do,) = again.wanted
    assert do.rung is Rung.COMPARE
    assert do.resume
    again.done(differs=True)
    assert again.done() is Rung.WRITE


def test_a_board_that_talks_after_the_hosts_restart_is_left_alone() -> None:
    s = Story()
    s.damaged_loop()
    again = s.host_dies()
    again.text(0.5)
    again.text(0.5)
    again.text(45.0)
    again.wait(10.0)
    assert again.wanted == []
    assert again.said[-1] == "healthy recovered"


def test_what_a_loader_still_sends_after_the_hosts_death_is_no_talk() -> None:
    s = Story()
    s.damaged_loop()
    again = s.host_dies()
    for _ in range(300):  # flash content in frames: strings of the firmware, its `healthy` text among them
        again.text(0.004, marker=True)
    again.wait(30.0)
    assert again.wanted == []
    assert "healthy recovered" not in again.said
    again.wait(40.0)
    (do,) = again.wanted
    assert do.rung is Rung.COMPARE
    assert again.done(differs=True) is Rung.COMPARE
    assert again.done() is Rung.WRITE
    again.boot(0.1, PLAIN, "espmon")
    for _ in range(20):
        again.text(0.4)
    assert again.said[-1] == "healthy recovered"


def test_a_boot_and_text_after_it_are_talk_at_once_after_the_hosts_death() -> None:
    s = Story()
    s.damaged_loop()
    again = s.host_dies()
    again.boot(0.5, PLAIN)
    again.text(0.1, marker=True)
    again.wait(5.0)
    assert again.wanted == []
    assert again.said[-1] == "healthy recovered"


def test_a_person_may_ask_and_the_guards_stay() -> None:
    s = Story(replace(FLASH, mode="off"))
    s.take(s.policy.begin(s.at, mode="reset"))
    assert s.done() is Rung.RESET
    s = Story(replace(FLASH, mode="off"))
    s.boot(1.0, PLAIN)
    for _ in range(10):
        s.text(1.0)
    s.take(s.policy.begin(s.at))
    assert s.wanted == []
    assert s.said == ["begin refused"]


def test_explain_names_every_rung_with_its_reason() -> None:
    s = Story(replace(FLASH, image=None))
    s.loop(2)
    told = "\n".join(explain(s.policy, s.at))
    assert "abnormal resets now: 2 of 3 (hardware watchdog reset)" in told
    assert "compare: left out, no known-good image" in told
    assert "reset: would be tried" in told


class Chaos(RuleBasedStateMachine):
    """Any events, results, delays and restarts: budgets hold, talk and brownout stop everything, rungs come once."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 1_000_000.0
        self.settings = PolicySettings(mode="flash", image="abc", per_hour=2, erase_parameters=True, power_cycle=True)
        self.policy = RecoveryPolicy("b", self.settings)
        self.saved = self.policy.state()
        self.pending: list[Do] = []
        self.line = 0
        self.rungs: dict[str, list[Rung]] = {}
        self.incidents: list[tuple[str, float]] = []
        self.resumes: dict[str, int] = {}
        self.brownout = float("-inf")
        self.boot = float("-inf")
        self.boot_known = False
        self.healthy_text = float("-inf")
        self.compared: dict[str, bool] = {}
        self.asked: set[str] = set()

    def take_asked(self, decisions: list[Decision]) -> None:
        """A person's word overrules the budget, nothing else."""
        for d in decisions:
            if isinstance(d, Do):
                self.asked.add(d.incident)
        self.take(decisions)

    def take(self, decisions: list[Decision]) -> None:
        for d in decisions:
            if not isinstance(d, Do):
                assert isinstance(d, Emit)
                continue
            assert not self.pending, "one rung at a time"
            assert self.policy.restraint.locked is None
            assert self.at - self.brownout >= BROWNOUT_HOLD_S, "never after brownout"
            if d.rung not in WRITING:
                assert not self.talks(), "a talking board is left alone"
            else:
                different = self.compared.get(d.incident)
                assert different is not None
                assert different or d.rung is Rung.ERASE, "nothing is written that was not compared and found different"
            if d.incident not in [i for i, _ in self.incidents]:
                self.incidents.append((d.incident, self.at))
                recent = [t for i, t in self.incidents if self.at - t < 3600 and i not in self.asked]
                assert len(recent) <= self.settings.per_hour, "the budget holds, across restarts too"
            tried = self.rungs.setdefault(d.incident, [])
            if d.resume:
                self.resumes[d.incident] = self.resumes.get(d.incident, 0) + 1
                self.compared.pop(d.incident, None)
            assert tried.count(d.rung) <= self.resumes.get(d.incident, 0), f"{d.rung} once per incident"
            tried.append(d.rung)
            self.pending.append(d)
        if (state := self.policy.unsaved()) is not None:
            self.saved = json.loads(json.dumps(state))

    def talks(self) -> bool:
        return self.boot_known and self.healthy_text >= self.boot + 5.0 and self.at - self.healthy_text <= 9.0

    def pass_time(self, seconds: float) -> None:
        end = self.at + seconds
        for _ in range(100):
            due = self.policy.next_deadline
            if due is None or due > end:
                break
            self.at = max(self.at, due)
            self.take(self.policy.tick(self.at))
        self.at = end
        self.take(self.policy.tick(self.at))

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 6.0, 20.0, 40.0, 70.0, 1200.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(cause=st.sampled_from([WDT, WDT, WDT, PLAIN]), by=st.sampled_from([None, None, None, "espmon", "open"]))
    def boots(self, cause: ev.ResetCause, by: str | None) -> None:
        self.pass_time(0.5)
        self.line += 1
        self.boot, self.boot_known = self.at, True
        self.take(self.policy.observe(ev.Boot(at=self.at, line=self.line, end_line=self.line, reset=cause, caused_by=by)))

    @rule(n=st.integers(2, 5))
    def loops(self, n: int) -> None:
        for _ in range(n):
            self.boots(WDT, None)

    @rule()
    def talk(self) -> None:
        self.pass_time(0.3)
        self.line += 1
        self.policy.heard(self.at, self.line)
        self.healthy_text = self.at

    @rule()
    def crashes(self) -> None:
        self.line += 1
        self.take(self.policy.observe(ev.Crash(at=self.at, kind="exception", line=self.line)))
        self.boot = self.at

    @rule()
    def flash_error(self) -> None:
        self.line += 1
        self.boot = self.at
        self.take(self.policy.observe(ev.FlashError(at=self.at, message="csum err", line=self.line)))

    @rule(cause=st.sampled_from([DEEP_SLEEP, SOFTWARE]))
    def restarts_in_order(self, cause: ev.ResetCause) -> None:
        self.boots(cause, None)

    @rule()
    def garbage(self) -> None:
        self.pass_time(0.3)
        self.policy.bytes_heard(self.at)

    @rule(seconds=st.sampled_from([5.0, 3600.0, 86_400.0]))
    def clock_is_set_back(self, seconds: float) -> None:
        """The policy's clock; what has been done does not come back."""
        self.at -= seconds
        self.incidents = [(i, t - seconds) for i, t in self.incidents]
        self.brownout -= seconds
        self.boot -= seconds
        self.healthy_text -= seconds
        self.take(self.policy.tick(self.at))

    @precondition(lambda self: self.pending)
    @rule()
    def port_goes_away(self) -> None:
        do = self.pending.pop()
        self.resumes[do.incident] = self.resumes.get(do.incident, 0) + 1
        self.take(self.policy.rung_done(do, RungResult(outcome="lost"), self.at))
        self.compared.pop(do.incident, None)

    @rule()
    def asked_for(self) -> None:
        if self.policy.incident is None:
            self.take_asked(self.policy.begin(self.at))

    @rule()
    def browns_out(self) -> None:
        self.brownout = self.at
        self.take(self.policy.observe(ev.Brownout(at=self.at)))

    @precondition(lambda self: self.pending)
    @rule(outcome=st.sampled_from(["done", "done", "done", "failed", "refused"]), differs=st.booleans())
    def rung_ends(self, outcome: str, differs: bool) -> None:
        do = self.pending.pop()
        if (why := self.policy.confirm(do, self.at)) is not None:
            self.take(self.policy.rung_done(do, RungResult(outcome="refused", reason=why), self.at))
            return
        self.at += 1.0
        if do.rung is Rung.COMPARE and outcome == "done":
            self.compared[do.incident] = differs
        if do.rung != Rung.COMPARE:
            self.boot, self.boot_known = self.at, True
        result = RungResult(outcome=outcome, differs=differs if do.rung is Rung.COMPARE else None)
        self.take(self.policy.rung_done(do, result, self.at))

    @rule()
    def host_dies(self) -> None:
        self.pending.clear()
        self.at += 2.0
        self.boot_known = False
        self.policy = RecoveryPolicy("b", self.settings, self.saved, at=self.at)

    @invariant()
    def state_is_json(self) -> None:
        json.dumps(self.policy.state())


Chaos.TestCase.settings = hypothesis_settings(max_examples=40, stateful_step_count=50, deadline=None)
TestChaos = Chaos.TestCase


def test_times_of_a_clock_that_ran_ahead_lock_nothing_for_long() -> None:
    years = 10 * 365 * 86_400.0
    at = 1_000_000.0
    state = {"starts": [at + years] * 2, "brownout_at": at + years, "recovered_at": at + years, "quiet_until": at + years, "strikes": 1}
    policy = RecoveryPolicy("b", FLASH, state, at=at)
    assert policy.refusal(at + 1.0) is not None, "what was just done still counts"
    assert policy.refusal(at + BROWNOUT_HOLD_S + 1.0) is None


# --- what a hostile reading of the policy asks ---


def test_a_board_that_wakes_up_from_deep_sleep_between_failures_is_not_in_a_loop() -> None:
    s = Story()
    for _ in range(40):
        s.boot(4.0, DEEP_SLEEP)
        s.text(0.5)
        s.boot(6.0)  # a watchdog now and then, but in between it went to sleep in order
    assert s.said == []


def test_a_repaired_board_that_only_ever_sleeps_is_judged_by_its_waking_up() -> None:
    s = Story()
    s.loop()
    s.done()
    s.boot(0.1, PLAIN, "espmon")
    s.text(0.3)
    s.boot(3.0, DEEP_SLEEP)
    assert s.said[-1] == "healthy recovered"


def test_an_incident_ends_although_the_board_restarts_for_ever_in_order() -> None:
    s = Story()
    s.loop()
    s.done()
    for _ in range(100):
        s.boot(3.0, SOFTWARE)
    assert s.policy.incident is None
    assert s.said[-1] == "give-up gave-up"
    assert s.wanted == []


def test_an_update_over_the_air_is_left_alone() -> None:
    """Healthy, then quiet for a minute while it loads, a restart, the new firmware crashes twice and goes back to the old."""
    s = Story()
    s.boot(1.0, PLAIN)
    for _ in range(30):
        s.text(1.0)
    s.wait(60.0)
    s.boot(0.5, SOFTWARE)
    s.boot(4.0)
    s.boot(4.0)
    for _ in range(30):
        s.text(1.0)
    assert s.said == []
    # words about flash in the application's own voice, then silence: no boot ROM that has stopped
    s.flash_error()
    s.wait(300.0)
    assert s.said == []


def test_a_boot_loader_that_finds_one_slot_damaged_and_starts_the_other_is_no_damage() -> None:
    s = Story()
    s.loop()
    s.done()
    s.boot(0.1, PLAIN, "espmon")
    s.flash_error()
    for _ in range(30):
        s.text(0.5)
    assert s.said[-1] == "healthy recovered"
    assert s.wanted == []


def test_a_board_that_sends_only_what_cannot_be_read_is_not_written() -> None:
    s = Story()
    s.loop()
    s.done()
    for _ in range(100):
        s.wait(0.5)
        s.policy.bytes_heard(s.at)
    assert s.wanted == []
    assert s.said[-1] == "give-up gave-up"


def test_a_board_that_says_a_line_every_ten_minutes_and_fails_in_between_is_not_in_a_loop() -> None:
    s = Story()
    for _ in range(30):
        s.boot(1.0)
        s.wait(600.0)
        s.text()
    assert s.said == []


def test_who_is_asked_for_but_was_not_heard_failing_is_reset_and_compared_at_most() -> None:
    s = Story()
    s.take(s.policy.begin(s.at))
    assert s.done() is Rung.RESET
    s.wait(40.0)
    assert s.done() is Rung.LEAVE
    s.wait(40.0)
    assert s.done(differs=True) is Rung.COMPARE
    assert s.wanted == []
    assert s.said[-2:] == ["compare done", "give-up gave-up"]


def test_a_board_in_download_mode_after_our_reset_is_held_there_by_somebody() -> None:
    s = Story()
    s.loop()
    s.done()
    s.wait(0.1)
    s.take(s.policy.observe(ev.Boot(at=s.at, line=1, reset=PLAIN, caused_by="espmon", boot_mode=ev.BootMode(raw="1,6", download=True))))
    s.wait(60.0)
    assert s.wanted == []
    assert s.said[-1] == "give-up gave-up"


def test_a_port_that_goes_away_in_mid_write_is_waited_for_a_few_times() -> None:
    s = Story()
    s.damaged_loop()
    s.done(differs=True)
    for _ in range(6):
        if s.wanted[-1].rung is Rung.COMPARE:
            s.done(differs=True)
        assert s.done("lost") is Rung.WRITE
        s.wait(200.0)
        if not s.wanted:
            break
    assert s.said[-1] == "give-up gave-up"
    assert s.said.count("compare started") == 6, "once, and five times again"


def test_brownout_that_the_rom_told_in_mid_write_ends_it() -> None:
    s = Story()
    s.damaged_loop()
    s.done(differs=True)
    do = s.wanted.pop()
    s.take(s.policy.rung_done(do, RungResult(outcome="failed", brownout=True), s.at))
    assert s.wanted == []
    s.loop(20)
    assert s.wanted == []


def test_a_clock_that_is_set_back_by_a_day_ends_no_incident_and_delays_no_judgement() -> None:
    s = Story()
    s.loop()
    s.done()
    s.boot(0.1, PLAIN, "espmon")
    s.text(0.5)
    s.at -= 86_400.0
    s.take(s.policy.tick(s.at))
    for _ in range(12):
        s.text(1.0)
    assert s.said[-1] == "healthy recovered"


def test_a_host_that_restarts_beside_a_stopped_board_remembers_its_last_words() -> None:
    s = Story()
    s.boot(1.0, PLAIN)
    s.flash_error()
    again = s.host_dies()
    again.wait(20.0)
    assert again.said == ["boot-loop", "reset started"]
    talks = s.host_dies()
    talks.text(2.0)
    talks.wait(60.0)
    assert talks.said == []


def test_by_hand_budgets_and_pauses_are_overruled_and_nothing_else() -> None:
    s = Story(replace(FLASH, by_hand=True))
    for _ in range(6):
        s.loop()
        s.take(s.policy.rung_done(s.wanted.pop(), RungResult(outcome="refused"), s.at))
    assert s.said.count("reset started") == 6
    assert s.policy.restraint.locked is None
    s.policy.observe(ev.Brownout(at=s.at))
    s.loop()
    assert s.wanted == []


@pytest.mark.parametrize(
    ("line", "ordinary"),
    [
        (b"mean temperature 21.4 C", True),
        (b"load average: 0.2", True),
        (b"I (500) app: running", True),
        (b"invalid header: 0xffffffff", False),
        (b"flash read err, 1000", False),
        (b"ets_main.c 371 ", False),
        (b"load 0x4010f000, len 1392, room 16 ", False),
        (b"tail 0", False),
        (b"E (52) boot: load partition table error!", False),
        (b"\x1b[0;31mE (95) esp_image: Image hash failed - image is corrupt\x1b[0m", False),
        (b"\x00\x01\x02\x03", False),
        (b"\xff\xfe\xff", False),
        (b"ok", False),
    ],
)
def test_what_boot_roms_and_boot_loaders_print_is_no_talk(line: bytes, ordinary: bool) -> None:
    assert is_ordinary(line) is ordinary


@pytest.mark.parametrize("rung", [Rung.RESET, Rung.LEAVE])
def test_a_host_that_dies_in_a_reset_may_leave_the_board_in_its_loader_so_it_is_reset_again(rung: Rung) -> None:
    s = Story()
    s.loop()
    if rung is Rung.LEAVE:
        s.done()
        s.boot(2.0)
        s.boot(2.0)
    again = s.host_dies()
    again.wait(5.0)
    assert [(d.rung, d.resume) for d in again.wanted] == [(rung, True)]
    assert again.done() is rung
    again.wait(40.0)
    assert "healthy recovered" not in again.said, "silence after a host's death is no sign of health"


def test_what_is_unsaved_is_told_once_and_after_each_change():
    policy = RecoveryPolicy("b", FLASH)
    assert policy.unsaved() is not None
    assert policy.unsaved() is None
    policy.restraint.suspect.append("abc")
    policy.restraint.writes["abc"] = [1.0]
    first = policy.unsaved()
    assert first is not None
    assert policy.unsaved() is None
    policy.restraint.writes["abc"].append(2.0)
    again = policy.unsaved()
    assert again is not None
    assert again["writes"] == {"abc": [1.0, 2.0]}
    restored = RecoveryPolicy("b", FLASH, json.loads(json.dumps(again)), at=3.0)
    assert restored.unsaved() is None


@pytest.mark.parametrize(
    "state",
    [{"unreadable": "{"}, {"incident": {"id": "x", "of_another_version": 1}}, {"starts": "x"}, {"writes": []}, {"strikes": None}, {"incident": 7}],
)
def test_a_state_that_cannot_be_read_locks_the_board(state: dict[str, Any]) -> None:
    policy = RecoveryPolicy.restored("b", FLASH, state, at=5.0)
    assert policy.restraint.locked
    assert policy.incident is None
    again = RecoveryPolicy.restored("b", FLASH, json.loads(json.dumps(policy.unsaved())), at=6.0)
    assert again.restraint.locked
    again.unlock()
    assert again.refusal(7.0) is None
