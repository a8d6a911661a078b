from __future__ import annotations

from itertools import islice
from random import Random

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


@pytest.mark.parametrize(
    ("sent", "style"),
    [(9600, "json"), (57600, "csv"), (74880, "idf"), (115200, "chinese"), (230400, "hex"), (460800, "nmea"), (1000000, "at"), (2000000, "plain")],
)
def test_live_thresholds_at_one_rate(sent: int, style: str) -> None:
    """A short part of python -m tests.uart.live one styles: seconds to right lines, right lines, no wrong word."""
    _, got = live.board_with_one_rate(sent, 3, seconds=6.0, style=style)
    assert got.seconds <= 1.5
    assert got.shown >= 0.98 * got.received
    # a run of 30 s has 95 %: all but 1.5 s
    assert got.received >= 0.75 * got.sent
    assert (got.left, got.right_end, got.wrong_sent_at, got.invented) == (0, True, 0, 0)


@pytest.mark.parametrize("app", [9600, 74880, 115200, 460800, 921600, 2000000])
def test_live_thresholds_at_two_rates(app: int) -> None:
    """A short part of python -m tests.uart.live two. Seed 1 has a board at 2000000 baud that was once lost for good."""
    _, got = live.board_with_two_rates(app, 1, seconds=6.0)
    assert got.seconds <= 2.5
    assert got.received >= 0.6 * got.sent
    assert got.reported == got.boots
    assert got.first_told is not False
    assert (got.left, got.right_end, got.wrong_causes, got.invented) == (0, True, 0, 0)


@pytest.mark.parametrize("adapter", [live.Adapter(latency=0.002, packet=1), live.Adapter(latency=0.016, packet=62), live.Adapter(latency=0.1)])
@pytest.mark.parametrize("sent", [57600, 921600])
def test_how_an_adapter_delivers_does_not_matter(sent: int, adapter: live.Adapter) -> None:
    _, got = live.board_with_one_rate(sent, 2, seconds=4.0, adapter=adapter)
    assert got.seconds <= 1.5
    assert (got.left, got.right_end, got.invented) == (0, True, 0)


def test_an_adapter_that_refuses_the_look_from_above() -> None:
    adapter = live.Adapter(refuses=frozenset((921600, 1000000, 1500000, 2000000)))
    session, got = live.board_with_one_rate(460800, 3, seconds=6.0, adapter=adapter)
    assert got.right_end
    assert got.seconds <= 3
    assert sum(rate == 921600 for _, rate, _ in session.changes) <= 2


@pytest.mark.parametrize(("start", "sent"), [(9600, 115200), (921600, 9600), (74880, 115200), (2000000, 115200), (57600, 921600)])
def test_a_remembered_rate_that_is_wrong_now(start: int, sent: int) -> None:
    _, got = live.board_with_one_rate(sent, 1, seconds=8.0, start=start)
    assert got.seconds <= 4
    assert got.right_end
    assert got.left == 0


@pytest.mark.parametrize(("first", "second"), [(115200, 57600), (57600, 115200), (74880, 115200)])
def test_a_rate_that_changes_and_changes_back(first: int, second: int) -> None:
    session, got = live.board_that_changes(first, second, 1, each=5.0)
    assert len(session.changes) == 2
    assert got.right_end
    assert got.received >= 0.85 * got.sent


def test_a_board_that_becomes_twelve_times_slower() -> None:
    session, _ = live.board_that_changes(115200, 9600, 1, each=6.0)
    assert [rate for _, rate, _ in session.changes][:1] == [9600]


def records(count: int) -> bytes:
    """What a sensor may send as it is: floats, which look like noise at a low rate."""
    import math
    import struct

    return b"".join(struct.pack("<f", 5 * math.sin(n / 9)) for n in range(count))


@pytest.mark.parametrize("rate", [9600, 115200])
def test_binary_after_text_ends_at_the_right_rate(rate: int) -> None:
    """One look at most, whatever it is; what follows it is read as before."""
    import random
    import zlib

    from tests.uart import sim

    rng = random.Random(rate)
    before, after = live.app_lines(rng, 3, rate / 20), live.app_lines(rng, 3, rate / 20)
    looked = 0
    some = {name: data for name, data in captures(3) if name in ("sine i16", "russian cp1251", "crsf", "pcm mu-law", "esptool write")}
    for name, capture in {**some, "noise": rng.randbytes(4000), "zlib": zlib.compress(rng.randbytes(4000)), "floats": records(1500)}.items():
        data = (capture * (1 + 4000 // len(capture)))[:4000]
        parts = [*live.talk(before, rate, rate / 20), *((data[at : at + 40], float(rate), 0.03) for at in range(0, len(data), 40))]
        parts += [(b"", float(rate), 0.5), (b"\r\n", float(rate), 0.0), *live.talk(after, rate, rate / 20)]
        seconds = sum(10 * len(d) / r + p for d, r, p in parts) + 1
        session = live.run(RateWatch(rate), sim.wire(parts, 0.1), sim.usual_receiver(random.Random(name)), seconds)
        assert session.watch.rate == rate, name
        assert len(session.changes) <= 3, (name, session.changes)
        assert live.lines_found(session, before + after) >= len(before + after) - 1, name
        looked += bool(session.changes)
    assert looked <= 3


def test_zeros_that_fill_the_line_are_a_dump() -> None:
    """Empty memory at the right rate, 11 kB per second for 5 s: no slower sender makes so many."""
    watch = RateWatch(115200)
    verdicts = watch.feed(b"an application that talks, and reads well enough to be kept\r\n" * 3, 0.0)
    for n in range(300):
        verdicts += watch.feed(bytes(184), 1 + n * 0.016)
    assert not any(isinstance(v, ChangeRate) for v in verdicts)


@pytest.mark.parametrize("sent", [9600, 57600, 230400])
def test_a_board_that_says_a_line_now_and_then(sent: int) -> None:
    _, got = live.board_that_says_little(sent, 1, seconds=60.0)
    assert got.right_end
    assert got.seconds <= 25


def test_binary_from_the_start_is_at_most_looked_at() -> None:
    """Nothing was ever read: one look from above is allowed, and the end is the rate it began at."""
    import random

    from tests.uart import sim

    for name, capture in captures(3):
        if name not in ("zlib", "sine i16", "russian cp1251", "records", "modbus-like", "noise 1000"):
            continue
        data = (capture * (1 + 2000 // len(capture)))[:2000]
        parts = [(data[at : at + 50], 115200.0, 0.05) for at in range(0, len(data), 50)]
        session = live.run(RateWatch(115200), sim.wire(parts, 0.2), sim.usual_receiver(random.Random(name)), 3.0)
        assert session.watch.rate == 115200, name
        assert [rate for _, rate, _ in session.changes] in ([], [921600, 115200]), name


def test_a_new_start_after_a_reset_by_espmon() -> None:
    """Another firmware may have been written: what was read before the reset holds no rate."""
    watch = RateWatch(115200)
    watch.feed(b"an application that talks, and reads well enough to be kept\r\n" * 3, 0.0)
    assert watch.reads_well
    watch.board_reset(1.0)
    assert not watch.reads_well
    assert watch.settled == 115200


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


@pytest.mark.parametrize(
    ("rate", "damaged"),  # share of bytes that the driver counts as damaged, None: it doesn't count
    [(115200, None), (9600, None), (9600, 0.02)],
)
def test_what_is_received_at_the_right_rate_changes_nothing(rate: int, damaged: float | None) -> None:
    rng = Random(5)
    for name, capture in islice(captures(3), 0, None, 1 if damaged is None else 3):
        watch = RateWatch(rate)
        now, counted = 0.0, None if damaged is None else 7
        verdicts = watch.feed(b"an application that talks, and reads well enough to be kept\r\n" * 3, now, counted)
        for at in range(0, len(capture), 60):
            now += 0.02
            if counted is not None and damaged is not None:
                counted += sum(rng.random() < damaged for _ in range(60))
            verdicts += watch.feed(capture[at : at + 60], now, counted)
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


@pytest.mark.parametrize(("first", "second"), [(9600, 115200), (115200, 921600), (115200, 2000000)])
def test_a_driver_that_counts_framing_errors_proves_that_a_board_became_much_faster(first: int, second: int) -> None:
    session, _ = live.board_that_changes(first, second, 3, each=6.0, adapter=live.Adapter(counts=True))
    rates = [rate for _, rate, _ in session.changes]
    assert second in rates
    assert rates[-1] == first, "and it is followed back"
    reached = next(at for at, rate, _ in session.changes if rate == second)
    assert reached < 6.2 + 3.0


def test_without_such_a_driver_a_rate_that_read_well_is_not_left_for_what_may_be_binary() -> None:
    session, _ = live.board_that_changes(9600, 115200, 3, each=6.0)
    assert session.changes == []


def test_zeros_from_above_leave_only_slower_rates() -> None:
    """Chinese at 74880 baud looks most like 1152000 to who has not seen that from 921600 only zeros come."""
    session, outcome = live.board_with_one_rate(74880, 1, 12.0, style="chinese")
    assert [rate for _, rate, _ in session.changes] == [921600, 115200, 74880]
    assert outcome.right_end


def test_a_line_that_floats_is_looked_at_from_above_once_and_the_rate_comes_back() -> None:
    """Nobody drives the line of a board without power: damaged bytes at any rate."""
    import random

    rng = random.Random(4)
    watch = RateWatch(115200)
    watch.feed(b"an application that talks, and reads well enough to be kept\r\n" * 3, 0.0, 0)
    damaged, changes, now = 0, [], 0.0
    for _ in range(600):
        now += 0.02
        heard = rng.randbytes(12)
        damaged += 5
        verdicts = watch.feed(heard, now, damaged)
        if watch.next_deadline is not None and watch.next_deadline <= now:
            verdicts += watch.tick(now)
        for verdict in verdicts:
            if isinstance(verdict, ChangeRate):
                changes.append(verdict.rate)
                watch.rate_set(verdict.rate, now)
    assert changes == [921600, 115200]


def test_a_board_twice_as_fast_is_followed_though_no_stop_bit_is_missing() -> None:
    """At half of its rate a stop bit is always sampled in one of the sender's."""
    session, _ = live.board_that_changes(57600, 115200, 3, each=5.0, adapter=live.Adapter(counts=True))
    assert [rate for _, rate, _ in session.changes] == [115200, 57600]


def test_a_refused_rate_is_not_asked_for_for_ever() -> None:
    watch = RateWatch(115200)
    asked: list[int] = []
    session, _, _ = live.one_rate(57600, 1, seconds=3)  # what a board at 57600 sounds like at 115200
    garbage = bytes(session.received[:60]) * 40
    for n in range(0, len(garbage), 20):
        asked += [v.rate for v in watch.feed(garbage[n : n + 20], n * 0.01) if isinstance(v, ChangeRate)]
    # twice the rate itself; and the looks from above, which were refused as well, once each
    assert asked[:1] == [57600]
    assert all(asked.count(rate) <= 2 for rate in asked)
    assert len(asked) <= 4


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


@pytest.mark.parametrize("kind", ["random", "sound", "gbk"])
def test_a_boot_rom_that_is_damaged_proves_nothing_of_the_binary_after_it(kind: str) -> None:
    """The driver counts the ROM's bytes at 74880 as damaged; what the application sends at our rate afterwards is not."""
    import math
    import random

    from tests.uart import sim

    rng = random.Random(kind)
    parts = [*live.talk(live.app_lines(rng, 1), 115200.0), (b"", 115200.0, 0.1), *sim.banner(4, 3, 6, rng), (b"", 115200.0, 0.05)]
    for n in range(100):
        message = {
            "random": lambda: rng.randbytes(40),
            "sound": lambda n=n: bytes(int(128 + 60 * math.sin((n * 40 + j) / 7) + rng.gauss(0, 4)) & 255 for j in range(40)),
            "gbk": lambda n=n: f"温度传感器读数正常 {n} 连接服务器成功\r\n".encode("gbk"),
        }[kind]()
        parts.append((message, 115200.0, 0.05))
    for adapter in (live.Adapter(counts=True), live.Adapter(counts_packets=True)):
        session = live.run(RateWatch(115200), sim.wire(parts, 0.1), sim.usual_receiver(rng), 8.0, 0.01, adapter=adapter)
        assert session.changes == []
        assert len(session.banners) == 1


def test_a_driver_that_counts_once_a_packet_proves_it_too_where_packets_are_small() -> None:
    session, _ = live.board_that_changes(9600, 115200, 3, each=6.0, adapter=live.Adapter(counts_packets=True))
    assert [rate for _, rate, _ in session.changes][-2:] == [115200, 9600]
