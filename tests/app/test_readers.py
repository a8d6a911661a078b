"""The reader of many ports: what is gathered, what is not, and that nothing is lost in between."""

from __future__ import annotations

import os
import sys
import time
import tty
from collections.abc import Iterator
from typing import Any

import pytest

from espmon.errors import PortGone
from tests.app.daemon_rig import until

if sys.platform != "linux":
    pytest.skip("epoll", allow_module_level=True)

from espmon.app import readers as module
from espmon.app.readers import PollReader


class Heard:
    """A watched port on a pty that notes what it is handed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.hurry_until = 0.0
        self.waited_for = False
        self.pieces: list[bytes] = []
        self.problem: PortGone | None = None
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.slave, False)
        self.descriptor = self.slave

    def heard(self, data: bytes, at: float, mono: float) -> None:
        self.pieces.append(data)

    def gone(self, problem: PortGone) -> None:
        self.problem = problem

    @property
    def text(self) -> bytes:
        return b"".join(self.pieces)


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Heard]]]:
    """A reader of three ports whose gathering takes so long that who waits for it would be noticed."""
    monkeypatch.setattr(module, "PACE_S", 20.0)
    reader = PollReader(lambda: None)
    watched = [Heard(f"p{i}") for i in range(3)]
    for each in watched:
        reader.add(each, each)  # type: ignore[arg-type]
    yield reader, watched
    reader.stop()
    for each in watched:
        os.close(each.slave)
        if each.master >= 0:
            os.close(each.master)


def gathering(watched: list[Heard]) -> None:
    """From now on the reader waits for more to come."""
    os.write(watched[2].master, b"first\n")
    until(lambda: watched[2].text == b"first\n", 5, "the first line")


def test_small_pieces_are_gathered(ports):
    _, watched = ports
    gathering(watched)
    for _ in range(5):
        os.write(watched[0].master, b"more\n")
    time.sleep(0.2)
    assert watched[0].pieces == []


@pytest.mark.parametrize("how", ["waited_for", "hurry_until"])
def test_a_port_that_somebody_waits_for_is_read_while_others_are_gathered(ports, how):
    _, watched = ports
    setattr(watched[0], how, True if how == "waited_for" else time.monotonic() + 60)
    gathering(watched)
    for i in range(20):
        os.write(watched[0].master, b"%d\n" % i)
        until(lambda i=i: watched[0].text.endswith(b"%d\n" % i), 5, "the next line")
    os.write(watched[1].master, b"nobody waits for this\n")
    time.sleep(0.1)
    assert watched[1].pieces == []


def test_a_port_is_added_and_removed_at_once_while_others_are_gathered(ports):
    reader, watched = ports
    gathering(watched)
    began = time.monotonic()
    reader.remove(watched[0])
    os.write(watched[0].master, b"not read\n")
    reader.add(watched[0], watched[0])
    until(lambda: watched[0].text == b"not read\n", 5, "being read again")
    assert time.monotonic() - began < 10.0


def test_a_flood_on_a_port_that_is_waited_for_ends_the_gathering(ports):
    _, watched = ports
    watched[0].waited_for = True
    gathering(watched)
    os.write(watched[1].master, b"patient\n")
    os.write(watched[0].master, b"x" * 3000)
    until(lambda: watched[1].text == b"patient\n", 5, "the other port")
    assert watched[0].text == b"x" * 3000


def test_a_port_that_is_waited_for_and_goes_away_is_told(ports):
    _, watched = ports
    watched[0].waited_for = True
    gathering(watched)
    os.close(watched[0].master)
    watched[0].master = -1
    until(lambda: watched[0].problem is not None, 5, "the news")
