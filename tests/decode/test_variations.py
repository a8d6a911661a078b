"""The corpus with prefixes, escapes, lost and added newlines: the facts stay."""

from __future__ import annotations

import pytest

from tests.decode.variations import VARIATIONS, score_variation


@pytest.mark.parametrize("name", VARIATIONS)
def test_variation(name: str) -> None:
    total = score_variation(VARIATIONS[name])
    assert total.share("boots") >= 0.98
    assert total.share("exceptions") >= 0.98
    assert total.share("panics") >= (0.94 if name == "newlines eaten" else 0.98)
    assert total.share("backtraces") >= 0.97
    assert total.share("stack words") >= 0.97
    assert total.share("presence") >= 0.95
    assert total.counts["false crashes"] == 0
    assert total.counts["faults"] == 0
