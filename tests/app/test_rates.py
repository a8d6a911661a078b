from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.app.autorate import AutoRate
from espmon.app.rate import WishRate
from espmon.app.rates import CaptureDecoder
from espmon.cli import cli
from espmon.decode import Decoder
from espmon.events import Boot, BootLoop, Crash, Event, Text, WrongRate
from espmon.port import Chunk
from tests.tools.train_rates import logs
from tests.uart import sim
from tests.uart.posted import WROOM_02

APP = b"sensor 1 = 22.5 C, sensor 2 = 23.0 C, free heap 31234\r\n" * 3


def crash_loop(causes: list[int], seed: int = 1) -> bytes:
    """An application at 115200, restarted with these causes, all received at 115200."""
    rng = random.Random(seed)
    parts: list[tuple[bytes, float, float]] = []
    for cause in causes:
        parts += [*sim.banner(cause, 3, 6, rng), (b"", 74880.0, 0.02), (APP, 115200.0, 0.02)]
    return sim.receive(sim.wire(parts), 115200, sim.usual_receiver(rng))


def facts(events: list[Event]) -> list[Event]:
    return [e for e in events if not isinstance(e, Text)]


def test_boots_in_a_crash_loop_are_counted_and_the_loop_is_told() -> None:
    decoder = CaptureDecoder(115200)
    events = [*decoder.feed(crash_loop([1, 4, 4, 4])), *decoder.close()]
    boots = [e for e in events if isinstance(e, Boot)]
    assert [b.reset.code for b in boots if b.reset] == [1, 4, 4, 4]
    assert [b.boot for b in boots] == [0, 1, 2, 3]
    assert all(b.inferred and b.rate == 74880 and b.boot_mode and b.boot_mode.raw == "3,6" for b in boots)
    assert [b.line for b in boots] == [1, 4, 7, 10]
    assert sum(isinstance(e, WrongRate) for e in events) == 4
    assert any(isinstance(e, BootLoop) for e in events)


def test_no_byte_is_lost() -> None:
    capture = crash_loop([2, 4]) + WROOM_02
    decoder = CaptureDecoder(115200)
    events = [*decoder.feed(capture), *decoder.close()]
    assert b"".join(e.raw for e in events if isinstance(e, Text)) == capture


@pytest.mark.parametrize("size", [1, 7, 100])
def test_any_chunks_give_the_same_facts(size: int) -> None:
    capture = crash_loop([2, 4, 4])
    whole = CaptureDecoder(115200)
    expected = facts([*whole.feed(capture), *whole.close()])
    pieces = CaptureDecoder(115200)
    events = [e for at in range(0, len(capture), size) for e in pieces.feed(capture[at : at + size])]
    assert facts([*events, *pieces.close()]) == expected


def test_a_banner_in_a_dump_ends_it() -> None:
    rng = random.Random(3)
    dump = b"\r\nException (28):\r\nepc1=0x40201234 epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000004 depc=0x00000000\r\n\r\n>>>stack>>>\r\n"
    parts = [(APP + dump, 115200.0, 0.02), *sim.banner(2, 3, 6, rng), (b"", 74880.0, 0.05), (APP, 115200.0, 0.01)]
    decoder = CaptureDecoder(115200)
    capture = sim.receive(sim.wire(parts), 115200, sim.usual_receiver(rng))
    kinds = [e for e in facts([*decoder.feed(capture), *decoder.close()]) if isinstance(e, (Crash, Boot))]
    assert [type(e) for e in kinds] == [Crash, Boot]
    assert isinstance(kinds[0], Crash)
    assert not kinds[0].complete


@pytest.mark.parametrize("baud", [9600, 115200, 921600])
def test_logs_at_the_right_rate_say_what_they_say_without_it(baud: int) -> None:
    for log in logs(held_out=True):
        plain, rated = Decoder(), CaptureDecoder(baud)
        assert facts([*rated.feed(log), *rated.close()]) == facts([*plain.feed(log), *plain.close()])


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "garbage.bin").write_bytes(WROOM_02)
    result = CliRunner().invoke(cli, ["decode", "--baud", "115200", "--json", str(tmp_path / "garbage.bin")])
    assert result.exit_code == 0
    rate, boot = map(json.loads, result.stdout.splitlines())
    assert (rate["type"], rate["received_at"], rate["sent_at"]) == ("wrong-rate", 115200, 74880)
    assert (boot["type"], boot["inferred"], boot["rate"], boot["reset"]["code"]) == ("boot", True, 74880, 2)
    assert boot["boot_mode"]["raw"] == "5,7"
    assert 0 < boot["confidence"] <= 1


def test_nothing_is_inferred_without_the_rate(tmp_path: Path) -> None:
    (tmp_path / "garbage.bin").write_bytes(WROOM_02)
    result = CliRunner().invoke(cli, ["decode", "--json", str(tmp_path / "garbage.bin")])
    assert result.stdout == ""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8), st.sampled_from((9600, 74880, 115200)))
def test_any_bytes(chunks: list[bytes], baud: int) -> None:
    decoder = CaptureDecoder(baud)
    events = [e for c in chunks for e in decoder.feed(c)] + decoder.close()
    assert b"".join(e.raw for e in events if isinstance(e, Text)) == b"".join(chunks)


@pytest.mark.parametrize("counts", [True, False])
def test_what_the_driver_counts_reaches_whoever_follows_the_rate(counts: bool) -> None:
    """An application at 115200 becomes one at 2000000: near random bytes, and a third of them damaged."""
    toggles = sim.wire([(APP, 2_000_000.0, 0.05)] * 400)
    damaged: list[float] = []
    follower = AutoRate(start=115200)
    follower.opened(0.0, 115200, (lambda: 17 + len(damaged)) if counts else None)
    follower.hear(Chunk(0.0, APP))
    wishes: list[WishRate] = []
    heard, until = bytearray(), 0.1
    for byte, at in sim.receive_timed(toggles, 115200, sim.Receiver(), 0.0, damaged):
        if at > until:
            wishes += [each for each in follower.hear(Chunk(until, bytes(heard))) if isinstance(each, WishRate)]
            heard.clear()
            until += 0.1
            if wishes:
                break
        heard.append(byte)
    assert [wish.baud for wish in wishes] == ([921600] if counts else [])
