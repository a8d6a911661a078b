from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.uart.watch import ChangeRate, Clear, Garbled, RateWatch, Verdict
from tests.uart import live
from tests.uart.right_rate import captures


def joined(verdicts: list[Verdict]) -> bytes:
    return b"".join(v.data for v in verdicts if isinstance(v, (Clear, Garbled)))


@pytest.mark.parametrize("sent", [9600, 19200, 38400, 57600, 74880, 115200, 230400, 460800, 576000, 921600, 1000000, 1500000])
def test_the_rate_is_found_with_at_most_three_changes(sent: int) -> None:
    """All rates and seeds, with figures: python -m tests.uart.live."""
    for seed in (1,):
        session, seconds, _ = live.one_rate(sent, seed, seconds=5.0)
        assert abs(session.watch.rate / sent - 1) < 0.035
        assert seconds is not None
        assert seconds < 4
        assert len(session.changes) <= 3
        assert session.everything == session.received


def test_a_crash_loop_at_two_rates_loses_nothing() -> None:
    """The soak: python -m tests.soak.rates (1,000 boots)."""
    session, causes, lines = live.crash_loop(40, seed=2)
    assert [b.cause for b in session.banners] == causes
    assert live.lines_found(session, lines) == len(lines)
    assert session.changes == []
    assert session.everything == session.received


def test_rom_text_at_both_rates_in_one_session() -> None:
    """After a software restart the ROM talks at the application's rate: that is plain text."""
    session, causes, lines = live.crash_loop(30, seed=5, software=0.5)
    plain = session.text.count(b"rst cause:")
    assert 5 < plain < 25
    assert plain + len(session.banners) == len(causes)
    assert live.lines_found(session, lines) == len(lines)
    assert session.changes == []


@pytest.mark.parametrize("rate", [115200, 9600])
def test_what_is_received_at_the_right_rate_changes_nothing(rate: int) -> None:
    for name, capture in captures(3):
        watch = RateWatch(rate)
        now = 0.0
        verdicts = watch.feed(b"an application that talks, and reads well enough to be kept\r\n" * 3, now)
        for at in range(0, len(capture), 60):
            now += 0.02
            verdicts += watch.feed(capture[at : at + 60], now)
            if at % 240 == 0:
                now += 0.5
                verdicts += watch.tick(now)
        verdicts += watch.close(now)
        assert not any(isinstance(v, (ChangeRate, Garbled)) for v in verdicts), name
        assert joined(verdicts).endswith(capture), name


def test_silence_decides_nothing() -> None:
    watch = RateWatch(115200)
    watch.feed(b"\xff\x00", 0.0)
    for n in range(100):
        assert not any(isinstance(v, ChangeRate) for v in watch.tick(n * 10.0))
    assert watch.rate == 115200


def test_an_application_that_changes_its_rate_is_followed() -> None:
    import random

    from tests.uart import sim

    rng = random.Random(6)
    first, second = live.app_lines(rng, 3), live.app_lines(rng, 6)
    parts = [*live.talk(first, 115200.0), *live.talk(second, 38400.0)]
    session = live.run(RateWatch(115200), sim.wire(parts, 0.1), sim.Receiver(), 9.5)
    assert session.watch.rate == 38400
    assert len(session.changes) == 1
    assert live.lines_found(session, first) == len(first)
    assert live.lines_found(session, second) > 0.85 * len(second)


def test_a_refused_rate_is_not_asked_for_for_ever() -> None:
    watch = RateWatch(115200)
    asked = 0
    session, _, _ = live.one_rate(57600, 1, seconds=3)  # what a board at 57600 sounds like at 115200
    garbage = bytes(session.received[:60]) * 40
    for n in range(0, len(garbage), 20):
        asked += sum(isinstance(v, ChangeRate) for v in watch.feed(garbage[n : n + 20], n * 0.01))
    assert 1 <= asked <= 3


def test_when_espmon_resets_the_board_the_rom_is_heard_at_its_own_rate() -> None:
    import random

    from tests.uart import sim

    rng = random.Random(9)
    app = live.app_lines(rng, 1)
    rom = sim.banner(2, 3, 6, rng)
    parts = [*live.talk(app, 115200.0), (b"", 115200.0, 0.2), *rom, (b"", 115200.0, 0.1), *live.talk(app, 115200.0)]
    before = 0.1 + sum(10 * len(d) / r + p for d, r, p in live.talk(app, 115200.0)) + 0.15
    session = live.run(RateWatch(115200, two_rates=True), sim.wire(parts, 0.1), sim.Receiver(), before + 3, resets={before: 0.0})
    assert [rate for _, rate, _ in session.changes] == [74880, 115200]
    assert b"rst cause:2, boot mode:(3,6)" in session.text
    assert live.lines_found(session, app + app) == 2 * len(app)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=60), st.floats(0, 0.3)), max_size=12), st.sampled_from((9600, 74880, 115200)))
def test_any_bytes_in_any_chunks(chunks: list[tuple[bytes, float]], rate: int) -> None:
    """Never raises, loses nothing, keeps the order, holds nothing for long."""
    watch = RateWatch(rate)
    verdicts: list[Verdict] = []
    now = 0.0
    for data, pause in chunks:
        now += pause
        if watch.next_deadline is not None and watch.next_deadline <= now:
            verdicts += watch.tick(now)
        verdicts += watch.feed(data, now)
        assert len(watch._held) <= 4096 + len(data)
    verdicts += watch.close(now)
    assert joined(verdicts) == b"".join(d for d, _ in chunks)
