"""The soak's parts work and find nothing, in small. Figures and promises in time are the long run's business."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the soak reads /proc", allow_module_level=True)

from tests.soak import daemon as soak


def test_no_byte_is_lost_under_load(tmp_path: Path) -> None:
    report = soak.load(tmp_path, boards=8, seconds=3)
    assert "0 boards with a wrong digest" in report.lines[0]
    assert "stopped with status 0" in report.lines[-1]


def test_kills_lose_nothing_that_was_written(tmp_path: Path) -> None:
    report = soak.kills(tmp_path, rounds=3)
    told = "\n".join(report.lines)
    assert "3 kills: 0 logs shorter than before, 0 lines twice or out of order" in told
    assert "0 index records point behind their bytes" in told


def test_replugged_boards_are_the_right_ones(tmp_path: Path) -> None:
    report = soak.replugs(tmp_path, cycles=6, renames=4)
    assert [line for line in report.lines if "of another board" in line] == ["  b0: 5 lines, 0 of another board", "  b1: 5 lines, 0 of another board"]


def test_hosts_that_die_at_any_moment_of_a_recovery_are_followed_by_one_that_ends_it(tmp_path: Path) -> None:
    from tests.soak.recovery import Tally, kill_everywhere, never_healed

    tally = Tally()
    kill_everywhere("esp8266", "segment", tmp_path, tally, most=6)
    assert never_healed(tmp_path, tally, rounds=1) <= 6
    assert tally.problems == []
    assert tally.came_back == tally.must_come_back == 6, tally.by_case
