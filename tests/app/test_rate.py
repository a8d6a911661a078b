"""The seam to whoever knows the board's rate."""

from __future__ import annotations

from espmon.app.rate import CountsDamaged, FixedRate, LateFollower
from espmon.port import Chunk


def test_a_late_follower_is_made_with_the_first_bytes_and_knows_when_the_port_was_opened() -> None:
    made: list[tuple[float, int, int | None]] = []

    class Told(FixedRate):
        def opened(self, at: float, baud: int, damaged: CountsDamaged | None = None) -> None:
            made.append((at, baud, damaged() if damaged is not None else None))

    late = LateFollower(74880, lambda: Told(74880))
    late.opened(5.0, 74880, lambda: 3)
    assert late.next_deadline is None
    assert late.tick(6.0) == ()
    assert late.close(6.0) == ()
    assert made == []
    chunk = Chunk(at=7.0, mono=7.0, data=b"x")
    assert late.hear(chunk) == (chunk,)
    assert made == [(5.0, 74880, 3)]
    late.opened(8.0, 115200)
    assert made == [(5.0, 74880, 3), (8.0, 115200, None)]
