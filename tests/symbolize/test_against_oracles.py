"""file:line chains are those of llvm-symbolizer or addr2line, on every fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.symbolize import builds, oracle
from tests.symbolize.fixtures import ELFS

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(oracle.LLVM is None or oracle.GNU is None, reason="llvm-symbolizer or addr2line is not installed"),
]


@pytest.mark.parametrize("path", ELFS, ids=lambda path: path.stem)
def test_chains_equal(path: Path) -> None:
    found = oracle.compare(path, 2000)
    assert found.with_lines > 1000
    assert found.equal_share >= 0.999, found.differing[:3]
    assert found.invented == []


def test_there_are_fixtures_of_both_architectures_and_all_versions() -> None:
    names = {path.stem for path in ELFS}
    assert {f"{name}" for arch in ("lx106", "rv32") for name in (f"{arch}-dw2", f"{arch}-dw3", f"{arch}-dw4", f"{arch}-dw5")} <= {n.rpartition("-")[0] for n in names}


@pytest.mark.parametrize(("target", "version"), [("rv32", 5), ("lx106", 4)])
@pytest.mark.parametrize("name", ["type units", "lto 1to1", "zlib-gnu", "64-bit", "split", "many versions"])
def test_chains_equal_however_it_was_built(target: str, version: int, name: str, tmp_path: Path) -> None:
    """`python -m tests.symbolize.builds` tries more ways."""
    if builds.compiler_of(target) is None:
        pytest.skip(f"no compiler for {target}")
    found = oracle.compare(builds.build(target, version, name, tmp_path), 500)
    assert found.with_lines > 300
    assert found.equal_share >= 0.995, found.differing[:3]
    assert found.invented == []
