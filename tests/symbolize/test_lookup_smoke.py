"""A symbolizer without a usable ELF answers with nothing and says why."""

from __future__ import annotations

from pathlib import Path

from espmon.symbolize import Symbolizer


def test_missing_elf_is_a_problem_not_an_exception(tmp_path: Path) -> None:
    symbolizer = Symbolizer([tmp_path / "none.elf"])
    assert symbolizer.lookup(0x40201000) == ()
    assert [problem.reason for problem in symbolizer.problems] == ["no such file"]
