"""The real client and the real stub source, built with sanitizers over a model of NOR flash, on bad wires."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stub import desk, sessions

# Half the processors' worth of processes, each with its own stub process beside it.
LANES = max(1, (os.cpu_count() or 1) // 2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_sessions() -> None:
    desk.command()
    total = sessions.in_lanes(10_000, LANES)
    assert total["write"] > 3_000
    assert total["faults"] > 10_000
    failed = sum(n for name, n in total.items() if "reported" in name)
    assert failed < 1_000, total


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_receive_path_with_invented_streams() -> None:
    """Whole, damaged and invented frames and noise: no fault of memory, no rule of NOR broken, no endless work."""

    def some(first: int) -> str:
        return subprocess.run(
            [*desk.command(), "fuzz", str(first), "5000"], capture_output=True, text=True, check=True, timeout=200
        ).stdout

    with ThreadPoolExecutor(2) as lanes:
        for said in lanes.map(some, (1, 100_000)):
            assert said.startswith("streams 5000")
