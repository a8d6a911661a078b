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


_LETTERS = frozenset(b"ghijklmnopqrstuvwyzBCEGHIJKLMNOPQRSTUVWYZ")  # hexadecimal digits can't be guessed


def damaged(log: bytes, seed: int) -> bytes:
    """One letter in 300 lost, doubled, replaced or unreadable."""
    rng = random.Random(seed)
    out = bytearray()
    for byte in log:
        if byte in _LETTERS and rng.random() < 1 / 300:
            out += rng.choice((b"", bytes([byte, byte]), bytes([rng.choice(b"abcdefghijklmnopqrstuvwxyz")]), "\ufffd".encode()))
        else:
            out.append(byte)
    return bytes(out)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_letters(seed: int) -> None:
    total = Score()
    for case, log, truth in cases():
        total.add(case, damaged(log, seed), truth)
    for name, least in (("boots", 0.98), ("exceptions", 0.95), ("panics", 0.88), ("backtraces", 0.94), ("stack words", 0.97), ("presence", 0.94)):
        assert total.share(name) >= least, name
    assert total.counts["false crashes"] == 0
    assert total.counts["faults"] == 0
