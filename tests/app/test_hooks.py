"""Hooks: the event on standard input, never more often than allowed, and a command that fails costs nothing."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import espmon.events as ev
from espmon.app.config import parse_config
from espmon.app.hooks import Hook


def test_a_hook_is_rate_limited_and_gets_its_events_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import sys; open(r'{out}', 'a').write(sys.stdin.read())"
    section = parse_config(f"[[hook]]\non = ['crash']\nports = ['a']\nper_minute = 2\ncommand = ['{sys.executable}', '-c', \"\"\"{code}\"\"\"]\n").hooks[0]
    with ThreadPoolExecutor(1) as pool:
        hook = Hook(section, pool)
        crash = ev.Crash(kind="abort", port="a", message="\x1b[31m; rm -rf /")
        assert not hook.offer(ev.Boot(port="a"), 0.0)
        assert not hook.offer(ev.Crash(kind="abort", port="b"), 0.0)
        assert [hook.offer(crash, at) for at in (0.0, 1.0, 2.0, 59.0)] == [True, True, False, False]
        # what still runs counts too: on a busy machine the first two may
        deadline = time.monotonic() + 60
        while hook._pending and time.monotonic() < deadline:
            time.sleep(0.01)
        assert hook.offer(crash, 60.5)
        assert hook.skipped == 2
    lines = out.read_text().splitlines()
    assert len(lines) == 3
    assert all("\\u001b" in line for line in lines)


def test_a_missing_command_is_only_logged() -> None:
    section = parse_config("[[hook]]\non = ['crash']\ncommand = ['/no/such/program']\n").hooks[0]
    with ThreadPoolExecutor(1) as pool:
        assert Hook(section, pool).offer(ev.Crash(kind="abort"), 0.0)
