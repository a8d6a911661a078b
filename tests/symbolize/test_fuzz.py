"""A short run of tests/fuzz/symbolize.py; long ones by hand: ``python -m tests.fuzz.symbolize 3600``."""

from __future__ import annotations

from pathlib import Path

from espmon.events import Crash
from espmon.symbolize import Symbolizer
from tests.fuzz import symbolize
from tests.symbolize.fixtures import elf


def test_damaged_elfs_raise_nothing_and_take_no_time() -> None:
    done, _ = symbolize.run(None, 120, 20261120)
    assert done == 120


def test_truncated_anywhere(tmp_path: Path) -> None:
    body = elf("rv32-dw5-Os").read_bytes()
    path = tmp_path / "cut.elf"
    symbolizer = Symbolizer([path])
    for length in range(0, len(body), len(body) // 60):
        path.write_bytes(body[:length])
        symbolizer.explain(Crash(kind="panic"))
        assert symbolizer.problems
