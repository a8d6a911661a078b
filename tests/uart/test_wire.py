from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.uart.wire import BLANKED, LOST, NOTHING, PASSED, RECEIVERS, Receiver, Reception, receive, waveform
from tests.uart import sim
from tests.uart.posted import WROOM_02

SENT = b"\r\n ets Jan  8 2013,rst cause:2, boot mode:(5,7)\r\n\r\nwaiting for host\r\n"


def test_posted_garbage_is_what_the_model_makes_of_the_banner() -> None:
    assert receive(SENT, Reception(115200 / 74880, Receiver(0.4375, 1 / 16))) == WROOM_02


def test_posted_garbage_is_what_the_test_simulator_makes_of_it() -> None:
    toggles = sim.wire([(SENT, sim.ROM_RATE, 0.01)])
    assert sim.receive(toggles, 115200, sim.Receiver(oversampling=16, centre=7)) == WROOM_02


def test_waveform_is_start_bit_then_low_bit_first_then_idle() -> None:
    wave = waveform(b"\x41")
    assert [wave >> n & 1 for n in range(12)] == [0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1]


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from(RECEIVERS))
def test_the_right_rate_reads_the_text(text: bytes, receiver: Receiver) -> None:
    assert receive(text, Reception(1.0, receiver)) == text


@pytest.mark.parametrize("rate", [38400, 57600, 115200, 230400, 250000, 460800])
@pytest.mark.parametrize("centre", [7, 8, 9])
def test_model_and_simulator_agree(rate: int, centre: int) -> None:
    """Every byte that the tick-by-tick receiver hears is one that the model allows, edge by edge."""
    rng = random.Random(rate + centre)
    for _ in range(10):
        text = bytes(rng.randrange(32, 127) for _ in range(40))
        toggles = sim.wire([(text, 74880.0, 0.01)])
        heard = sim.receive(toggles, rate, sim.Receiver(oversampling=16, centre=centre, phase=rng.random()))
        reception = Reception(rate / 74880, Receiver(centre / 16, 1 / 16))
        wave = waveform(text)
        edges = {0}
        for byte in heard:
            following = {e + d for e in edges if e >= 0 for b, d in reception.frames(wave >> e & reception.mask) if b == byte for d in [d if d >= 0 else -(10**9)]}
            assert following
            edges = following


@settings(deadline=None)
@given(st.integers(min_value=0), st.floats(min_value=0.2, max_value=8), st.sampled_from(RECEIVERS))
def test_any_line_gives_frames(window: int, ratio: float, receiver: Receiver) -> None:
    for byte, ahead in Reception(ratio, receiver).frames(window):
        assert NOTHING <= byte <= 255
        assert ahead == -1 or ahead > 0


def test_a_damaged_byte_is_lost_or_blanked_and_a_short_start_is_none() -> None:
    low = waveform(b"\0A") & ~(1 << 9)  # a zero byte whose stop bit is low
    for damaged, bytes_ in ((PASSED, 0), (BLANKED, 0), (LOST, NOTHING)):
        assert Reception(1.0, Receiver(0.5, 1 / 16, damaged=damaged)).frames(low & 0xFFFFF)[0][0] == bytes_
    pulse = waveform(b"\xff")  # one sender bit low: a third of the receiver's bit
    assert Reception(1 / 3, Receiver(0.5, 1 / 16)).frames(pulse & 0xFFFFFFFFFF)[0][0] == 0xFF
    assert Reception(1 / 3, Receiver(0.5, 1 / 16, checked=True)).frames(pulse & 0xFFFFFFFFFF)[0] == (NOTHING, -1)
