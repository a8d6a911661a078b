"""A short run of the fuzzer (``python -m tests.fuzz.decode`` runs longer)."""

from __future__ import annotations

from tests.fuzz.decode import run


def test_a_few_hundred_mutated_logs() -> None:
    tried, data, problem = run(20.0, 20261120, 300)
    assert problem is None, (problem, data)
    assert tried > 20
