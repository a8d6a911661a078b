"""The physical UART: what a receiver makes of bits that were sent at another rate."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espmon.board.demo import crash_logs
from espmon.board.line import EDGES, ReceiverShape, Wire
from espmon.uart.wire import Receiver, Reception, waveform

# A posted capture (ESP-WROOM-02 with GPIO15 high, heard at 115200; the poster gave the received bytes in hex).
POSTED = bytes.fromhex("726c006c9c9e7c008c6ce07c020c0c0c8c0c6cec0c627c8e")
ROM_RATE = 52_000_000 / 694


def heard(
    payload: bytes, sent: float, received: float, shape: ReceiverShape, *, exact: bool = True, start: float = 0.0
) -> bytes:
    wire = Wire(shape, exact=exact)
    end = wire.send(start, sent, payload)
    return wire.receive(end + 1.0, received)


SHAPES = st.builds(
    ReceiverShape,
    oversampling=st.sampled_from([8, 16]),
    tick=st.integers(3, 4),
    majority=st.booleans(),
    phase=st.floats(0, 0.99),
    clock_error=st.floats(-0.01, 0.01),
    check_start=st.booleans(),
    recovery=st.sampled_from(["edge", "low"]),
    framing=st.sampled_from(["pass", "nul", "drop"]),
) | st.builds(
    ReceiverShape,
    tick=st.integers(7, 9),
    majority=st.booleans(),
    phase=st.floats(0, 0.99),
    clock_error=st.floats(-0.01, 0.01),
    check_start=st.booleans(),
    recovery=st.sampled_from(["edge", "low"]),
    framing=st.sampled_from(["pass", "nul", "drop"]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.floats(0, 0.01)), max_size=5),
    SHAPES,
    st.sampled_from([9600, 74928.0, 115200, 921600]),
)
def test_shortcut_equals_bits(chunks: list[tuple[bytes, float]], shape: ReceiverShape, rate: float) -> None:
    """Where the shape says that rates agree, the bit-level path gives the sent bytes too, back to back or with pauses."""
    if not shape.agrees(rate, rate):
        return
    quick, exact = Wire(shape), Wire(shape, exact=True)
    now = 0.0
    for payload, pause in chunks:
        for wire in (quick, exact):
            wire.send(now, rate, payload)
        now = quick.free_at + pause
    sent = b"".join(payload for payload, _ in chunks)
    assert quick.receive(now + 1, rate) == exact.receive(now + 1, rate) == sent


@settings(max_examples=100, deadline=None)
@given(
    st.binary(min_size=1, max_size=60),
    SHAPES,
    st.sampled_from([9600, 57600, 74880, 115200, 250000, 921600]),
    st.lists(st.floats(0, 1), max_size=8),
)
def test_looking_often_changes_nothing(
    payload: bytes, shape: ReceiverShape, received: float, looks: list[float]
) -> None:
    """A receiver that is asked in between has received the same bytes in the end."""
    once = heard(payload, ROM_RATE, received, shape)
    wire = Wire(shape)
    end = wire.send(0.0, ROM_RATE, payload)
    pieces = [wire.receive(end * part, received) for part in sorted(looks)]
    assert b"".join(pieces) + wire.receive(end + 1.0, received) == once


def test_posted_capture() -> None:
    """The first 24 bytes of a posted capture, exactly."""
    banner = b"\r\n ets Jan  8 2013,rst cause:"
    assert heard(banner, ROM_RATE, 115200, ReceiverShape())[: len(POSTED)] == POSTED


def test_garbage_equals_the_rom_on_an_emulated_chip() -> None:
    """Boot of the demo firmware heard at 115200: the bytes that an emulated ESP8266 running the real ROM produced."""
    golden = (Path(__file__).parent / "rom_at_115200.bin").read_bytes()
    text = (
        b"\r\n ets Jan  8 2013,rst cause:1, boot mode:(3,6)\r\n\r\nload 0x40100000, len 1340, room 16 \r\ntail 12\r\n"
        b"chksum 0x6d\r\nho 0 tail 12 room 4\r\nload 0x3ffe8000, len 912, room 12 \r\ntail 4\r\nchksum 0xf3\r\ncsum 0xf3\r\n"
    )
    assert heard(text, ROM_RATE, 115200, ReceiverShape()) == golden


def test_application_text_at_the_rom_rate_equals_the_emulated_chip() -> None:
    """The other way round: 115200 heard at 74880 by a receiver that samples in the very middle of a bit."""
    golden = (Path(__file__).parent / "app_at_74880.bin").read_bytes()
    log = crash_logs()["load"]
    parts = re.split(rb"(?=mean temperature)", log[: log.index(b"\r\n----")])
    parts = [parts[0] + parts[1], *parts[2:3]]
    wire, out, now = Wire(ReceiverShape(oversampling=64, tick=32)), b"", 0.0
    for part in parts:
        now = wire.send(now, 52_000_000 / 451, part) + 1.0  # a round a second
        out += wire.receive(now, 74880)
    assert out[: len(golden)] == golden


@pytest.mark.parametrize(("framing", "expected"), [("pass", 1), ("nul", 1), ("drop", 0)])
def test_framing_errors(framing: str, expected: int) -> None:
    """A byte sent four times slower has a stop slot that is low: passed, replaced by NUL, or dropped."""
    got = heard(b"\x00", 115200 / 2.2, 115200, ReceiverShape(framing=framing))  # type: ignore[arg-type]
    assert len(got) >= expected
    if framing == "nul":
        assert set(got) <= {0}


def test_frames_without_their_stop_bit_are_counted() -> None:
    for rate, damaged in ((115200, False), (115200 / 2.2, True)):
        wire = Wire(ReceiverShape(framing="drop"))
        wire.receive(wire.send(0.0, rate, b"\x00" * 5) + 1.0, 115200)
        assert (wire.damaged > 0) is damaged


def test_edges_describe_the_bytes() -> None:
    """Each pattern falls first, alternates and ends high; 0x55 has an edge at every bit."""
    assert EDGES[0x55] == tuple(range(10))
    assert EDGES[0x00] == (0, 9)
    assert all(len(edges) % 2 == 0 and edges[0] == 0 and list(edges) == sorted(set(edges)) for edges in EDGES)


def test_recovery_rules_differ() -> None:
    """After a framing error one receiver waits for an edge, the other takes the low line for the next start bit."""
    payload = bytes(range(256))
    results = {heard(payload, 40000, 115200, ReceiverShape(recovery=rule)) for rule in ("edge", "low")}  # type: ignore[arg-type]
    assert len(results) == 2


def test_cut_loses_what_was_not_sent() -> None:
    """A sender that is reset in the middle of a text leaves the bytes that were complete."""
    wire = Wire()
    wire.send(0.0, 100_000, b"abcdefghij")  # 100 us per byte
    assert wire.cut(0.00035) == 7
    assert wire.receive(1.0, 100_000) == b"abc"
    wire.send(2.0, 100_000, b"xyz")
    assert wire.receive(3.0, 100_000) == b"xyz"


def test_rate_changes_between_bytes() -> None:
    """What was sent before the receiver's rate changed is read with the old rate."""
    wire = Wire()
    wire.send(0.0, 115200, b"old")
    assert wire.receive(0.01, 115200) == b"old"
    wire.send(0.02, 9600, b"new")
    assert wire.receive(0.1, 9600) == b"new"


def test_pairs_of_rates_are_quick() -> None:
    """Every pair of usual rates ends, and gives at most one byte per frame time of the receiver."""
    rates = (9600, 74880, 115200, 921600)
    for sent, received in itertools.permutations(rates, 2):
        payload = b"Hello, world\r\n" * 4
        assert len(heard(payload, sent, received, ReceiverShape())) <= len(payload) * 10 * max(1.0, received / sent)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(min_size=1, max_size=60),
    st.integers(7, 9),
    st.floats(0, 0.99),
    st.sampled_from([38400, 57600, 115200, 230400, 460800]),
)
def test_two_models_of_a_receiver_agree(text: bytes, tick: int, phase: float, received: int) -> None:
    """Whatever this receiver makes of a text is among what `espmon.uart` thinks possible, byte by byte."""
    receiver = Receiver(tick / 16, 1 / 16)
    reception = Reception(received / ROM_RATE, receiver)
    wave = waveform(text)
    places = {0}  # where the next frame may begin; -1: the line is idle
    for byte in heard(text, ROM_RATE, received, ReceiverShape(tick=tick, phase=phase)):
        frames = [
            (place, frame)
            for place in places
            if place >= 0
            for frame in reception.frames((wave >> place) & reception.mask)
        ]
        places = {place + step if step >= 0 else -1 for place, (value, step) in frames if value == byte}
        assert places
