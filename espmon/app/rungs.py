"""Carries out the rungs of the recovery ladder on a port that the supervisor lends."""

from __future__ import annotations

import logging
import subprocess
import time

from espmon.app.recovery import Do, Rung, RungResult
from espmon.app.supervisor import Supervisor, Watch

_log = logging.getLogger(__name__)


class Rungs:
    """The executor: :meth:`run` is called from an operation thread and returns how it went."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def run(self, watch: Watch, do: Do) -> RungResult:
        """Carries out one rung. Raises `PortProblem` and other told errors: the rung has failed then."""
        match do.rung:
            case Rung.RESET:
                with self._supervisor.borrow(watch, "recovery") as port:
                    self._supervisor.pulse(watch, port, "recovery")
                return RungResult(outcome="done")
            case Rung.POWER:
                return self._power_cycle(watch)
            case _:
                return RungResult(outcome="refused", reason=f"{do.rung} is not available")

    def _power_cycle(self, watch: Watch) -> RungResult:
        command = list(watch.section.power_cycle)
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return RungResult(outcome="failed", reason=f"{command[0]}: {error}")
        if done.returncode:
            return RungResult(outcome="failed", reason=f"{command[0]} ended with status {done.returncode}")
        self._supervisor.was_reset(watch, "recovery", "power cycle")
        time.sleep(0.1)
        return RungResult(outcome="done")
