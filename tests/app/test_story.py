"""`espmon demo` is the whole story, needs no terminal and ends by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_detects_repairs_and_ends() -> None:
    done = subprocess.run([sys.executable, "-m", "espmon", "demo", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [e["type"] for e in events]
    assert kinds.index("boot-loop") < kinds.index("recovery")
    recoveries = [e for e in events if e["type"] == "recovery"]
    assert recoveries[-1]["outcome"] == "recovered"
    assert {e["port"] for e in recoveries} == {"garage"}
    crashes = [e for e in events if e["type"] == "crash"]
    assert {e["port"] for e in crashes} == {"garden"}
    assert len({e["fingerprint"] for e in crashes}) == 1
    assert crashes[0]["frames"][0]["function"]
