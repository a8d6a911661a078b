"""Carries out what the recovery policies decide: says it, stores it, has the rungs of the ladder run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import espmon.events as ev
from espmon.app.publisher import Publisher
from espmon.app.recovery import IN_LOADER, Do, Emit, RungResult
from espmon.app.watch import Watch
from espmon.errors import EspmonError
from espmon.store.database import Database, StoreUnusable

_log = logging.getLogger(__name__)

_AT_ONCE = 16  # boards that are worked on at the same time


class Runs(Protocol):
    """Carries out the rungs of a recovery (:mod:`espmon.app.rungs`)."""

    def run(self, watch: Watch, do: Do) -> RungResult: ...
    def leave(self, watch: Watch) -> None: ...


class Incidents:
    """One for all boards. `catch_up` decodes what was heard of a board so far, with its `judging` held.

    `stop_operations` is set when the daemon ends: rungs finish their block then.
    """

    def __init__(self, database: Database, publisher: Publisher, catch_up: Callable[[Watch], None]) -> None:
        self.rungs: Runs | None = None
        self.stop_operations = threading.Event()
        self._database = database
        self._publisher = publisher
        self._catch_up = catch_up
        self._pool = ThreadPoolExecutor(_AT_ONCE, "recovery")

    def judge(self, watch: Watch, decisions: list[Emit | Do]) -> None:
        """Carries out what the policy decided. Call with `watch.judging` held."""
        for decision in decisions:
            if isinstance(decision, Emit):
                self._say(watch, decision.event)
            else:
                self._pool.submit(self._run, watch, decision)
        state = watch.policy.unsaved()
        if state is not None and not any(isinstance(d, Do) for d in decisions):
            self._database.put_recovery_state(watch.name, time.time(), state)
        watch.due = 0.0

    def _say(self, watch: Watch, event: ev.Event) -> None:
        self._publisher.publish(watch, event)
        if isinstance(event, ev.Recovery):
            _log.warning("%s: recovery %s %s%s", watch.name, event.step, event.outcome, f": {event.reason}" if event.reason else "")
            self._database.audit(
                event.at or time.time(),
                watch.name,
                "recovery",
                f"{event.step} {event.outcome}",
                incident=event.incident,
                reason=event.reason,
            )
        else:
            _log.warning("%s: boot loop (%s)", watch.name, getattr(event, "cause", None) or "cause unknown")

    def _run(self, watch: Watch, do: Do) -> None:
        try:
            with watch.judging:
                state = watch.policy.state()
            # the budget and the intention are on the disk before anything is done to the board
            self._database.save_recovery_state(watch.name, time.time(), state)
            with watch.judging:
                why = watch.policy.confirm(do, time.time())
            if why is not None:
                result = RungResult(outcome="refused", reason=why)
            elif self.rungs is None:
                result = RungResult(outcome="refused", reason="this espmon cannot carry it out")
            else:
                result = self.rungs.run(watch, do)
        except StoreUnusable as error:
            result = RungResult(outcome="refused", reason=f"the journal cannot be written: {error.message}")
        except EspmonError as error:
            result = RungResult(outcome="failed", reason=error.message)
        except Exception as error:  # noqa: BLE001 - told as a failed rung, with its traceback in our log
            _log.exception("%s: %s", watch.name, do.rung)
            result = RungResult(outcome="failed", reason=f"a fault in espmon: {error}")
        if self.stop_operations.is_set() and result.outcome != "done":
            return  # the daemon ends: the stored state says what was under way
        with watch.judging:
            # what was heard while the rung ran belongs to it
            self._catch_up(watch)
            decisions = watch.policy.rung_done(do, result, time.time())
        if self.rungs is not None and not any(isinstance(d, Do) and d.rung in IN_LOADER for d in decisions):
            self.rungs.leave(watch)
        with watch.judging:
            self.judge(watch, decisions)

    def begin(self, watch: Watch, mode: str, who: str) -> None:
        """A person asks for a recovery."""
        self._database.audit(time.time(), watch.name, who, "recover", mode=mode)
        with watch.judging:
            self.judge(watch, watch.policy.begin(time.time(), mode=mode))

    def unlock(self, watch: Watch, who: str) -> None:
        """A person ends a lock-out."""
        self._database.audit(time.time(), watch.name, who, "unlock")
        with watch.judging:
            watch.policy.unlock()
            self.judge(watch, [])

    def was_reset(self, watch: Watch, event: ev.ResetCaused) -> None:
        """espmon has reset the board: its policy doesn't count that, and everybody is told."""
        with watch.judging:
            self.judge(watch, watch.policy.observe(event))
        self._publisher.publish(watch, event)

    def stop(self) -> None:
        """Nothing is begun any more; what still runs is left to end by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
