from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.uart import rate
from espmon.uart.banner import BannerReader
from espmon.uart.capture import boundary, garbage, read_capture, text_share
from tests.tools.train_rates import logs
from tests.uart import measure, sim
from tests.uart.posted import WROOM_02
from tests.uart.right_rate import captures

HELD_OUT = [t for t in logs(held_out=True) if len(t) > 300]


@pytest.mark.parametrize(
    ("sent", "received"),
    [(9600, 115200), (19200, 115200), (57600, 115200), (74880, 115200), (115200, 74880), (115200, 57600), (230400, 115200),
     (250000, 115200), (460800, 115200), (500000, 115200), (460800, 921600), (921600, 460800), (1500000, 921600), (2000000, 921600)],
)  # fmt: skip
def test_the_senders_rate_from_garbage(sent: int, received: int) -> None:
    rng = random.Random(sent + received)
    told = [read_capture(measure.log_capture(rng, log, sent, received), received) for log in rng.sample(HELD_OUT, 3)]
    # a short log sent at nearly the receiver's rate may stay silent (one in ten at 115200 -> 57600); none may be wrong
    assert sum(bool(stretches) for stretches in told) >= 2
    assert all(abs((s.sent_at or 0) / sent - 1) < 0.035 for stretches in told for s in stretches if s.sent_at)


def test_whole_logs_meet_the_thresholds() -> None:
    right, wrong, silent = measure.whole_logs(80, seed=3, verbose=False)
    total = right + wrong + silent
    assert right >= 0.9 * total
    assert wrong <= 0.02 * total


@pytest.mark.parametrize("received", [115200, 9600])
def test_no_alarm_at_the_right_rate(received: int) -> None:
    """More rates: python -m tests.uart.measure alarms."""
    assert measure.alarms(1, [received], verbose=False) == 0


@pytest.mark.parametrize(("meant", "factor"), [(230400, 26 / 40), (115200, 40 / 26), (460800, 26 / 40), (57600, 40 / 26)])
def test_a_mixed_up_crystal_is_named(meant: int, factor: float) -> None:
    rng = random.Random(2)
    log = b"".join(HELD_OUT)[:3000]
    sent = round(meant * factor)
    found = rate.guess(measure.log_capture(rng, log, sent, 115200), 115200)
    assert found is not None
    assert found.meant == meant
    assert abs(found.rate / sent - 1) < 0.03


def test_all_zeros_only_say_slower() -> None:
    capture = sim.receive(sim.wire([(b"Hello, this is a slow board\r\n" * 20, 9600, 0.01)]), 1000000, sim.Receiver())
    (stretch,) = read_capture(capture, 1000000)
    assert stretch.sent_at is None
    assert stretch.slower


def test_an_island_of_rom_text_in_good_text() -> None:
    rng = random.Random(8)
    app = b"sensor 1 = 22.5 C, sensor 2 = 23.0 C, free heap 31234\r\n" * 4
    parts = [(app, 115200.0, 0.02), *sim.banner(4, 3, 6, rng), (b"", 115200.0, 0.05), (app, 115200.0, 0.01)]
    capture = sim.receive(sim.wire(parts), 115200, sim.usual_receiver(rng))
    (stretch,) = read_capture(capture, 115200)
    assert stretch.sent_at == 74880
    (banner,) = stretch.banners
    assert (banner.cause, banner.x, banner.y) == (4, 3, 6)
    assert capture[: stretch.start].startswith(app)
    assert app[2:] in capture[boundary(capture, stretch.end, 74880, 115200) :]


def test_posted_banner_is_one_stretch() -> None:
    (stretch,) = read_capture(WROOM_02, 115200)
    assert (stretch.start, stretch.sent_at) == (0, 74880)
    assert stretch.banners[0].cause == 2


def test_garbage_is_what_is_no_text() -> None:
    assert list(garbage("Temperatur: 21,5 °C, größer\r\n".encode())) == []
    assert list(garbage(b"plain text that is long enough here" + b"\xff\x80" + b"and goes on and on and on and on")) == [(35, 37)]
    assert text_share(b"ab\xff\xfe") == 0.5


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600), st.sampled_from((9600, 38400, 74880, 115200, 921600, 300, 3000000)))
def test_any_bytes(received: bytes, received_at: int) -> None:
    """Never raises; stretches are in order and inside."""
    at = 0
    for stretch in read_capture(received, received_at):
        assert at <= stretch.start < stretch.end <= len(received)
        at = stretch.end


def test_readers_tables_are_bounded() -> None:
    reader = BannerReader(115200)
    for _, capture in list(captures())[::5]:
        reader.read(capture)
    assert sum(len(r._cache) for r in reader._receptions.values()) < 200_000
