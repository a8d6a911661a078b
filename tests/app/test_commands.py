"""The user's own commands: bounded, and never what the end of the daemon waits for."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from espmon.app.commands import LeftAlone, left_alone, run_command

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_what_it_is_told_and_what_it_says() -> None:
    script = "import sys; sys.stderr.write(sys.stdin.read().upper()); sys.exit(3)"
    assert run_command([sys.executable, "-c", script], lambda: False, timeout_s=30.0, said=b"event") == (3, b"EVENT")


def test_large_input_that_nobody_reads() -> None:
    assert run_command([sys.executable, "-c", ""], lambda: False, timeout_s=30.0, said=bytes(1 << 20))[0] == 0


def test_it_is_killed_after_its_time() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_command(SLEEP, lambda: False, timeout_s=0.1)


def test_the_end_of_the_daemon_does_not_wait_for_it() -> None:
    began = time.monotonic()
    with pytest.raises(LeftAlone):
        run_command([sys.executable, "-c", "import time; time.sleep(20)"], lambda: True, timeout_s=60.0)
    assert time.monotonic() - began < 15.0
    left = left_alone.pop()
    left.kill()
    left.communicate()


def test_no_such_program() -> None:
    with pytest.raises(OSError, match="no-such-program"):
        run_command(["/no-such-program"], lambda: False, timeout_s=1.0)
