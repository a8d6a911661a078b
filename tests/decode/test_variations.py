"""The corpus with prefixes, escapes, lost and added newlines: the facts stay."""

from __future__ import annotations

import random

import pytest

from tests.decode.variations import VARIATIONS, score_variation
from tests.score_corpus import Score, cases


@pytest.mark.parametrize("name", VARIATIONS)
def test_variation(name: str) -> None:
    total = score_variation(VARIATIONS[name])
    assert total.share("boots") >= (0.97 if name == "comments" else 0.98)  # one banner stands in the very first line
    assert total.share("exceptions") >= 0.98
    assert total.share("panics") >= (0.94 if name == "newlines eaten" else 0.98)
    assert total.share("backtraces") >= 0.97
    assert total.share("stack words") >= 0.97
    assert total.share("presence") >= 0.95
    assert total.counts["false crashes"] == 0
    assert total.counts["faults"] == 0


@pytest.mark.parametrize("seed", range(2))
def test_lines_torn_by_newlines(seed: int) -> None:
    """A newline in the middle of something, every 150 characters or so: most is put together again."""
    rng = random.Random(seed)
    total = Score()
    for case, log, truth in cases():
        torn = b"".join(bytes([byte]) + (b"\n" if byte > 32 and rng.random() < 1 / 150 else b"") for byte in log)
        total.add(case, torn, truth)
    for name, least in (("boots", 0.97), ("exceptions", 0.97), ("panics", 0.9), ("backtraces", 0.9), ("stack words", 0.97)):
        assert total.share(name) >= least, name
    assert total.counts["false crashes"] == 0
    assert total.counts["faults"] == 0
