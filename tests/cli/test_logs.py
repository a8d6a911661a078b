"""What `espmon logs` and `espmon events` print of stored bytes and events; no daemon runs."""

import io
import json
import os
import re
import subprocess
import sys

import pytest

from espmon.cli.events import in_words
from espmon.cli.logs import _BootStart, _from, _print_lines, _until
from espmon.store.logreader import Stretch

GARBAGE = b"rl\x00l\xe0\xfe|\x00\x8cl\xe0|\x02\x0c\x0c\x0c\x8c\x0clb|\xc2\x8c\x02\x92\xf2rb\x0cb\x8c"


def joined(stretches):
    return b"".join(piece.raw for piece in stretches)


def pieces(*parts):
    offset, out = 0, []
    for at, raw in parts:
        out.append(Stretch(at=at, raw=raw, seq=1, offset=offset))
        offset += len(raw)
    return iter(out)


def test_a_boot_read_out_of_garbage_begins_where_the_garbage_does():
    """It is told when enough of what follows was heard: the application's first lines are older than the boot's time."""
    log = [(9.0, b"old line\r\n"), (9.8, b"<<<stack<<<\r\n" + GARBAGE), (9.9, b"station 1.2.0\r\nsen"), (10.0, b"sors: 4\r\n"), (11.0, b"report\r\n")]
    boot = _BootStart(10.0, inferred=True)
    assert joined(_from(pieces(*log), boot)) == GARBAGE + b"station 1.2.0\r\nsensors: 4\r\nreport\r\n"
    assert joined(_until(pieces(*log), boot)) == b"old line\r\n<<<stack<<<\r\n"


def test_a_banner_that_came_in_two_batches_is_whole():
    log = [(9.0, b"bye\r\n ets Jan  8 2013,rst cau"), (9.05, b"se:4, boot mode:(3,7)\r\n"), (9.2, b"hello\r\n")]
    boot = _BootStart(9.05, inferred=False)
    assert joined(_from(pieces(*log), boot)) == b" ets Jan  8 2013,rst cause:4, boot mode:(3,7)\r\nhello\r\n"
    assert joined(_until(pieces(*log), boot)) == b"bye\r\n"


def test_a_boot_whose_banner_is_lost_begins_at_its_time():
    log = [(9.0, b"bye\r\n"), (9.99, b"text \xc3\xa4\r\n"), (10.0, b"hello\r\n"), (10.1, b"more\r\n")]
    boot = _BootStart(10.0, inferred=True)
    assert joined(_from(pieces(*log), boot)) == b"hello\r\nmore\r\n"
    assert joined(_until(pieces(*log), boot)) == b"bye\r\ntext \xc3\xa4\r\n"
    assert joined(_until(pieces(*log), None)) == b"bye\r\ntext \xc3\xa4\r\nhello\r\nmore\r\n"


def printed(monkeypatch, raw, *, pattern=None, as_json=False, colour=None):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if colour:
        monkeypatch.setenv("FORCE_COLOR", "1")
    _print_lines("b", iter([Stretch(at=1.0, raw=raw)]), re.compile(pattern) if pattern else None, as_json)
    return [line if as_json else line[25:] for line in out.getvalue().splitlines()]


def test_colours_of_a_log_are_for_terminals_only(monkeypatch):
    raw = b"\x1b[0;32mI (12) wifi: up\x1b[0m\r\n\x1b]0;owned\x07\xff\r\n"
    assert printed(monkeypatch, raw) == ["I (12) wifi: up", "\u241b]0;owned\u2407\\xff"]
    assert printed(monkeypatch, raw, colour=True) == ["\x1b[0;32mI (12) wifi: up\x1b[0m\x1b[0m", "\u241b]0;owned\u2407\\xff"]
    assert json.loads(printed(monkeypatch, raw, as_json=True)[0])["text"] == "I (12) wifi: up"


def test_grep_sees_what_is_shown(monkeypatch):
    raw = b"\x1b[0;32mI (12) wifi: up\x1b[0m\r\nother\r\n"
    assert printed(monkeypatch, raw, pattern=r"^I \(12\)") == ["I (12) wifi: up"]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"type": "wrong-rate", "received_at": 115200, "sent_at": 9600, "boots": 0}, "sent at 9600 baud, received at 115200"),
        ({"type": "flash-error", "message": "csum err", "meaning": "damaged"}, "csum err: damaged"),
        ({"type": "limit-reached", "what": "an overlong line"}, "an overlong line"),
        ({"type": "firmware", "framework": "esp-idf", "name": "blink", "version": "1.0"}, "esp-idf blink 1.0"),
    ],
)
def test_every_event_says_something(event, words):
    assert in_words({"at": None, "port": "b", **event}).endswith(words)


def test_the_rate_of_a_boot_is_not_told_twice():
    assert in_words({"type": "wrong-rate", "at": None, "port": "b", "boots": 1}) == ""


def test_letters_that_the_terminal_does_not_have_end_nothing(tmp_path):
    """`logs` and `events` print a board's text; with a code page or LANG=C it is escaped."""
    script = "from espmon.cli import _mend_standard_streams as mend; mend(); print('\u4e2d')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout.split() == [b"\\u4e2d"]
