"""Nothing that a board sends can steer a terminal; everything else arrives unchanged."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espmon.sinks.neutral import Neutralizer, one_line, plain

# All that may stand in safe text: printable characters, four controls, and three kinds of harmless sequences.
SAFE = re.compile(
    "(?:[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
    "|[\t\n\r\b]|\x1b\\[[0-9;]*m|\x1b\\[K|\x1b\\[[0-9]{0,3}[CD])*\\Z"
)


def shown(raw: bytes) -> str:
    neutral = Neutralizer()
    return neutral.feed(raw) + neutral.flush()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain\r\n\ttext", "plain\r\n\ttext"),
        ("grüße €".encode(), "grüße €"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"a\xe2\x82", "a\\xe2\\x82"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        (b"\x1b[0;32mI (1) x\x1b[0m", "\x1b[0;32mI (1) x\x1b[0m"),
        (b"\x1b[mx", "\x1b[0mx"),
        (b"\x1b[38;5;8mx\x1b[38;2;1;2;3my", "\x1b[38;5;8mx\x1b[38;2;1;2;3my"),
        (b"\x1b[8mhidden\x1b[5mblink", "hiddenblink"),
        (b"\x1b[1;8mx", "\x1b[1mx"),
        (b"\x1b[2J\x1b[H\x1b[1;1Htop\x1b[?1049h", "top"),
        (b"\x1b]0;title\x07x", "\u241b]0;title\u2407x"),
        (b"\x1b]52;c;aGk=\x1b\\x", "\u241b]52;c;aGk=\u241b\\x"),
        (b"\x1bPq\x1b\\", "\u241bPq\u241b\\"),
        (b"\x1bc", "\u241bc"),
        (b"\x1b[6n\x1b[5n\x1b[c", ""),
        ("\x9b31m\x85".encode(), "\\x9b31m\\x85"),
        ("abc\u202edef\u2066".encode(), "abc\\u202edef\\u2066"),
        (b"\x0e\x0f\x00\x7f", "\u240e\u240f\u2400\u2421"),
        (b"del\b\x1b[K\x1b[3D\x1b[C", "del\b\x1b[K\x1b[3D\x1b[C"),
        (b"\x1b[9999D\x1b[1A\x1b[1K", ""),
        (b"\x1b[" + b"1;" * 400 + b"m", "\u241b[" + "1;" * 400 + "m"),
        ("\U000e0041".encode(), "\\U000e0041"),
        (b"end\x1b", "end\u241b"),
        (b"end\x1b[3", "end\u241b[3"),
    ],
)
def test_what_is_shown(raw, text):
    assert shown(raw) == text
    neutral = Neutralizer()
    assert "".join(neutral.feed(raw[i : i + 1]) for i in range(len(raw))) + neutral.flush() == text


@given(st.binary(max_size=200) | st.lists(st.sampled_from([b"\x1b", b"[", b"]", b"1", b";", b"m", b"\x9b", b"\xc2", b"\x07", b"K", b"\n", b"8"])).map(b"".join))
def test_any_bytes_are_safe(raw):
    assert SAFE.match(shown(raw))
    assert "\x1b" not in plain(shown(raw))


@given(st.binary(max_size=120), st.data())
def test_splits_do_not_matter(raw, data):
    neutral = Neutralizer()
    out = ""
    at = 0
    while at < len(raw):
        size = data.draw(st.integers(1, 10))
        out += neutral.feed(raw[at : at + size])
        at += size
    assert out + neutral.flush() == shown(raw)


@given(st.text())
def test_text_without_controls_is_unchanged(text):
    text = re.sub(r"[^\w .,;äöü€-]", "", text)
    assert shown(text.encode("utf-8", "replace")) == text.encode("utf-8", "replace").decode()


def test_what_is_held_is_bounded():
    neutral = Neutralizer()
    neutral.feed(b"\x1b[" + b"1" * 10_000)
    assert len(neutral.flush()) < 100


@given(st.text(max_size=400))
def test_one_line_is_one_safe_line(text):
    line = one_line(text)
    assert SAFE.match(line)
    assert not set("\n\r\b\x1b") & set(line)
    assert len(line) <= 300 or "\\" in line
