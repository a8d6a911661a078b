from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.uart.banner import BannerReader
from tests.uart import measure, measure2, sim, sim2
from tests.uart.posted import WROOM_02

READERS = {rate: BannerReader(rate) for rate in (38400, 57600, 76800, 115200, 230400, 250000, 460800)}


def test_the_post_that_nobody_could_read() -> None:
    (banner,) = READERS[115200].read(WROOM_02)
    assert (banner.cause, banner.x, banner.y) == (2, 5, 7)
    assert banner.tail == "waiting for host"
    assert banner.cost == 0
    assert (banner.start, banner.end) == (0, len(WROOM_02) - 1 - 4)


@pytest.mark.parametrize(("rate", "cause", "x", "y"), [(115200, 0.98, 0.95, 0.95), (230400, 0.8, 0.95, 0.95), (250000, 0.8, 0.95, 0.95), (76800, 0.8, 0.95, 0.95), (57600, 0.4, 0.0, 0.0)])
def test_thresholds_hold_on_a_small_draw(rate: int, cause: float, x: float, y: float) -> None:
    """The large draw: python -m tests.uart.measure. X after `ets_main.c` stays open (docs/design/uart.md)."""
    result = measure.measure_banners(rate, 12, seed=11)
    assert result.missed == 0
    assert result.invented == 0
    for score, wanted in ((result.cause, cause), (result.x, x), (result.y, y)):
        assert score.wrong == 0
        assert score.tellable_right >= wanted * score.tellable


@pytest.mark.parametrize("rate", [57600, 115200, 250000])
def test_odd_receivers_are_never_misread(rate: int) -> None:
    result = measure.measure_banners(rate, 12, seed=5, odd=True)
    assert result.cause.wrong + result.x.wrong + result.y.wrong == 0


@pytest.mark.parametrize(("rate", "cause", "x", "y"), [(115200, 0.98, 0.95, 0.95), (76800, 0.8, 0.95, 0.95)])
def test_thresholds_hold_on_the_second_simulator(rate: int, cause: float, x: float, y: float) -> None:
    """The large draw, with cut, lossy and strange captures: python -m tests.uart.measure2."""
    result = measure2.measure("plain", rate, 12, seed=7)
    assert result.missed == 0
    assert result.invented == 0
    for score, wanted in ((result.cause, cause), (result.x, x), (result.y, y)):
        assert score.wrong == 0
        assert score.tellable_right >= wanted * score.tellable


@pytest.mark.parametrize("damaged", ["zero", "lose"])
def test_drivers_that_spoil_damaged_bytes_hide_no_boot(damaged: str) -> None:
    rng = random.Random(damaged)
    for value in ((1, 3, 7), (4, 3, 6), (2, 7, 5)):
        parts, _ = sim2.boot(*value, rng)
        capture = sim2.receive(parts, 115200, sim2.Uart(damaged=damaged), rng)
        (banner,) = READERS[115200].read(capture)
        assert all(said in (None, true) for said, true in zip((banner.cause, banner.x, banner.y), value, strict=True))


def test_ets_main_after_the_banner_leaves_mode_two_and_three_open() -> None:
    rng = random.Random(1)
    rom = b"\r\n ets Jan  8 2013,rst cause:2, boot mode:(3,6)\r\n\r\nets_main.c "
    capture = sim2.receive([sim2.Part(rom, sim2.ROM_RATE)], 115200, sim2.Uart(), rng)
    (banner,) = READERS[115200].read(capture)
    assert (banner.cause, banner.x, banner.y, banner.x_class) == (2, None, 6, {2, 3})
    assert banner.tail == "ets_main.c"


def test_a_banner_cut_before_its_digits_says_nothing_wrong() -> None:
    for cut in range(8, len(WROOM_02)):
        for banner in READERS[115200].read(WROOM_02[:cut]):
            assert banner.cause in (None, 2)
            assert banner.x in (None, 5)
            assert banner.y in (None, 7)


def test_a_banner_whose_beginning_is_lost() -> None:
    for cut in range(16):
        (banner,) = READERS[115200].read(WROOM_02[cut:])
        assert (banner.cause, banner.x, banner.y) == (2, 5, 7)


def test_many_banners_in_one_capture() -> None:
    rng = random.Random(4)
    values = [(rng.choice((1, 2, 4)), 3, rng.randrange(8)) for _ in range(12)]
    parts = [part for value in values for part in sim.banner(*value, rng)]
    capture = sim.receive(sim.wire(parts), 115200, sim.usual_receiver(rng))
    assert [b.cause for b in READERS[115200].read(capture)] == [v[0] for v in values]
    assert {b.x for b in READERS[115200].read(capture)} == {3}


def test_rates_that_carry_too_little_are_not_read() -> None:
    assert not BannerReader(9600).able
    assert not BannerReader(921600).able
    assert BannerReader(921600).read(bytes(500)) == []


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(sorted(READERS)))
def test_any_bytes(received: bytes, rate: int) -> None:
    """Never raises; never invents a banner out of noise."""
    assert READERS[rate].read(received) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 70), st.binary(min_size=1, max_size=6))
def test_damage_never_raises_and_positions_stay_inside(at: int, noise: bytes) -> None:
    damaged = WROOM_02[:at] + noise + WROOM_02[at:]
    for banner in READERS[115200].read(damaged):
        assert 0 <= banner.start < banner.end <= len(damaged)


def test_what_is_never_a_banner_soon_costs_little_and_hides_none() -> None:
    reader = BannerReader(115200)
    searches = 0
    search = reader._search

    def counted(*arguments: object) -> object:
        nonlocal searches
        searches += 1
        return search(*arguments)  # type: ignore[arg-type]

    reader._search = counted  # type: ignore[method-assign,assignment]
    teasing = bytes.fromhex("72 6c 00 6c 9c 9e 7c 00 8c 6c e0 7c") * 150
    assert reader.read(teasing) == []
    first, searches = searches, 0
    assert first > 0
    assert reader.read(teasing) == []
    assert searches < 150 * 10, "no more than a few receptions each"
    (banner,) = reader.read(teasing + b"some lines of text\r\n" * 3 + WROOM_02)[-1:]
    assert (banner.cause, banner.x, banner.y) == (2, 5, 7)
