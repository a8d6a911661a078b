"""`espmon demo --crash`: one board in the monitor; no terminal, ends by itself, shows where the crash is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> tuple[int, str, float]:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "espmon", "demo", *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, time.monotonic() - start


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[tuple[int, str, float]]]]:
    """Both runs side by side."""
    with ThreadPoolExecutor(2) as pool:
        yield {"shown": pool.submit(run, "--crash", "load"), "events": pool.submit(run, "--json", "--crash", "divide")}


Runs = dict[str, "Future[tuple[int, str, float]]"]


def test_demo_shows_boot_and_crash_with_source_line(runs: Runs) -> None:
    status, out, seconds = runs["shown"].result(60)
    assert status == 0
    assert seconds < 30
    assert "rst cause:1, boot mode:(3,6)" in out
    assert "weather station 1.2.0" in out
    assert "LoadProhibited" in out
    assert "sensor_value" in out
    assert "sensors.c:38" in out
    assert "return corrected(sensor->raw, sensor->calibration);" in out
    assert "report 1\n" in out[out.index("LoadProhibited") :]  # it is healthy again after the crash


def test_demo_prints_events(runs: Runs) -> None:
    status, out, _ = runs["events"].result(60)
    events = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    crashes = [event for event in events if event["type"] == "crash"]
    assert len(crashes) == 1
    assert crashes[0]["exception"] == {"number": 6, "name": "IntegerDivideByZero"}
    names = [frame["function"] for frame in crashes[0]["frames"]]
    assert "history_mean" in names
    assert any((frame["file"] or "").endswith("history.c") for frame in crashes[0]["frames"])
    assert [event["reset"]["code"] for event in events if event["type"] == "boot"] == [1, 2]
