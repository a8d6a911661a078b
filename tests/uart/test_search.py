"""The search for another rate by itself: told of garbage, text and damage, it answers with wishes."""

from __future__ import annotations

import random

from espmon.uart.search import ChangeRate, RateSearch
from tests.uart import live, sim


def garbage(sent: int, received_at: int) -> bytes:
    rng = random.Random(3)
    return sim.receive(sim.wire(live.talk(live.app_lines(rng, 1), sent)), received_at, sim.usual_receiver(rng))


def tell(search: RateSearch, heard: bytes, well: bool = False, damaged: float | None = None) -> ChangeRate | None:
    """The first wish for `heard`, in chunks of 16 bytes, 20 ms apart. `damaged`: share of bytes without their stop bit."""
    for at in range(0, len(heard), 16):
        now = 10 + at / 16 * 0.02
        if damaged is not None:
            search.count_damaged(int(damaged * at), at, held=at > 0)
        search.remember(heard[at : at + 16], now)
        if search.may_ask(now) and (wish := search.wish(b"", now, well)) is not None:
            return wish
    return None


def test_a_rate_that_is_told_is_asked_for_once_at_a_time() -> None:
    search = RateSearch(115200)
    wish = tell(search, garbage(57600, 115200))
    assert wish is not None
    assert wish.rate == search.asked == search.inferred == 57600
    assert not search.may_ask(20.0)
    search.rate_coming(57600)
    search.rate_set(57600, 20.0)
    assert not search.may_ask(20.01), "what was received before is still on its way"
    assert search.may_ask(20.1)
    assert not search.suspects


def test_a_rate_that_is_never_set_is_refused_after_two_tries() -> None:
    search = RateSearch(115200)
    heard = garbage(57600, 115200)
    for _ in range(2):
        wish = tell(search, heard)
        assert wish is not None
        assert wish.rate == 57600
        assert search.not_answered()
        assert not search.not_answered()
    third = tell(search, heard)
    assert third is None or third.rate != 57600


def test_text_between_ends_what_was_suspected() -> None:
    search = RateSearch(115200)
    heard = garbage(57600, 115200)
    assert tell(RateSearch(115200), heard[:640], well=True) is not None
    for n in range(40):
        search.remember(heard[16 * n : 16 * n + 16], n * 0.05)
        assert search.wish(b"", n * 0.05, well=True) is None
        assert search.suspects
        search.text_came(24, well=True)
        assert not search.suspects


def test_a_rate_that_read_well_is_left_for_a_look_only_when_stop_bits_are_missing() -> None:
    noise = random.Random(1).randbytes(1600)
    assert tell(RateSearch(115200), noise, well=True) is None
    assert tell(RateSearch(115200), noise, well=True, damaged=0.02) is None
    search = RateSearch(115200)
    wish = tell(search, noise, well=True, damaged=0.4)
    assert wish is not None
    assert wish.rate == 921600
    assert search.inferred is None
    search.rate_coming(921600)
    search.rate_set(921600, 12.0)
    back = search.return_at
    assert back is not None
    assert search.due(back - 0.01) is None
    home = search.due(back)
    assert home is not None
    assert home.rate == 115200
    assert search.return_at is None


def test_only_zeros_are_a_slower_sender_unless_text_was_read() -> None:
    wish = tell(RateSearch(115200), bytes(200))
    assert wish is not None
    assert wish.rate == 9600
    assert tell(RateSearch(115200), bytes(200), well=True) is None
