"""Keys to wishes, without a terminal."""

import pytest

from espmon.app.keys import MENU, KeyMachine, Typed, Wish, console_key, help_lines


def wishes(data, **options):
    return KeyMachine(**options).feed(data)


def test_ordinary_keys_go_to_the_board_as_they_are():
    everything = bytes(b for b in range(256) if b not in (0x03, 0x14, 0x1D))
    assert wishes(everything) == [Typed(everything)]


def test_hot_keys():
    assert wishes(b"\x1d") == [Wish.QUIT]
    assert wishes(b"\x03") == [Wish.INTERRUPT]
    assert wishes(b"\x03", repl=True) == [Typed(b"\x03")]
    assert wishes(b"\x14\x03") == [Typed(b"\x03")]
    assert wishes(b"\x14\x14\x14\x1d") == [Typed(b"\x14\x1d")]
    assert wishes(b"ab\x14rcd") == [Typed(b"ab"), Wish.RESET, Typed(b"cd")]
    assert wishes(b"\x14R\x14\x12") == [Wish.RESET, Wish.RESET]
    assert wishes(b"\x14~") == [Wish.UNKNOWN]


def test_the_menu_key_and_its_letter_may_come_apart():
    machine = KeyMachine()
    assert machine.feed(b"\x14") == []
    assert machine.feed(b"t") == [Wish.TIMESTAMPS]
    assert machine.feed(b"t") == [Typed(b"t")]


@pytest.mark.parametrize(("eol", "sent"), [(None, b"AT\r"), ("crlf", b"AT\r\n"), ("lf", b"AT\n"), ("cr", b"AT\r")])
def test_enter(eol, sent):
    assert wishes(b"AT\r", eol=eol) == [Typed(sent)]


def test_a_pipe_has_no_hot_keys():
    assert wishes(b"\x1d\x14\x03\n", keys=False) == [Typed(b"\x1d\x14\x03\n")]
    machine = KeyMachine(keys=False, eol="crlf")
    assert machine.feed(b"AT\nAT\r") == [Typed(b"AT\r\nAT\r\n")]
    assert machine.feed(b"\nX\r\n") == [Typed(b"X\r\n")]


def test_no_key_of_the_menu_is_taken_twice_and_all_are_in_the_help():
    keys = [key for group, *_ in MENU for key in group]
    assert len(keys) == len(set(keys))
    assert len(help_lines()) == len(MENU)


@pytest.mark.parametrize(
    ("codes", "sent"),
    [
        ("a", b"a"),
        ("\x03", b"\x03"),
        ("\x1d", b"\x1d"),
        ("\xe0H", b"\x1b[A"),
        ("\x00H", b"\x1b[A"),
        ("\xe0I", b"\x1b[5~"),
        ("\x00;", b""),
        ("\xe0s", b""),
        ("\xe0\x85", b""),
        ("\xe0 ", "\u00e0 ".encode()),
        ("\xe0\x1d", "\u00e0\x1d".encode()),
        ("\u4e2d", "\u4e2d".encode()),
        ("\ud83d\ude00", "\U0001f600".encode()),
        ("\xe0\ud83d\ude00", "\u00e0\U0001f600".encode()),
        ("\ude00", "\ufffd".encode()),
    ],
)
def test_keys_of_a_windows_console(codes, sent):
    rest = iter(codes)
    assert console_key(lambda: next(rest)) == sent
    assert next(rest, None) is None
