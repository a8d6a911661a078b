"""The user's own commands (hooks, power switches): run without a shell, bounded in time, left alone when the daemon ends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

_LOOK_S = 0.25  # how soon the end of the daemon is noticed

left_alone: list[subprocess.Popen[bytes]] = []  # those that still ran when the daemon ended, with the pipes that they may write to


class LeftAlone(Exception):
    """The daemon ends while the command runs: it is not waited for any more, and ends on its own."""


def run_command(
    command: Sequence[str],
    stopping: Callable[[], bool],
    *,
    timeout_s: float,
    said: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Runs `command` with `said` on its standard input; (exit status, what it wrote to standard error).

    Raises OSError when it can't be started, `subprocess.TimeoutExpired` when it was killed after `timeout_s` seconds,
    :class:`LeftAlone` when `stopping` became true.
    """
    running = subprocess.Popen(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    limit = time.monotonic() + timeout_s
    while True:
        try:
            _, errors = running.communicate(said, timeout=max(0.0, min(_LOOK_S, limit - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= limit:
                running.kill()
                running.communicate()
                raise
            if stopping():
                left_alone.append(running)
                raise LeftAlone from None
        else:
            return running.returncode, errors
