"""The supervisor in this process: what threads do to each other."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("boards on ptys are POSIX", allow_module_level=True)

import espmon.events as ev
from espmon.app.config import read_config
from espmon.app.supervisor import Supervisor
from espmon.app.watch import ATTACH_BYTES, Attached, Watch
from espmon.errors import PortGone
from espmon.store.database import Database
from tests.app.daemon_rig import PtyBoard, supervising, until


@pytest.fixture
def board(tmp_path: Path) -> PtyBoard:
    return PtyBoard(tmp_path / "tty0")


@pytest.fixture
def supervisor(tmp_path: Path, board: PtyBoard) -> Iterator[Supervisor]:
    with supervising(tmp_path, board) as made:
        yield made


def test_a_port_lost_by_its_borrower_does_not_stop_who_decodes(supervisor: Supervisor, board: PtyBoard) -> None:
    """The decoder holds `judging` and then takes `io`, for a change of rate: nobody may take them the other way round."""
    watch = supervisor.watches["b"]
    judging, went = threading.Event(), threading.Event()
    got_io: list[bool] = []

    def decoder() -> None:
        with watch.judging:
            judging.set()
            until(lambda: watch.state == "away", what="losing the port")
            got_io.append(watch.io.acquire(timeout=5.0))
            if got_io[0]:
                watch.io.release()
        went.set()

    def borrow_and_lose() -> None:
        with supervisor.borrow(watch, "a test"):
            judging.wait(5.0)
            board.path.unlink()  # so that it stays away
            raise PortGone("b", "unplugged")

    def borrower() -> None:
        with pytest.raises(PortGone):
            borrow_and_lose()

    threads = [threading.Thread(target=t) for t in (decoder, borrower)]
    for t in threads:
        t.start()
    assert went.wait(15.0)
    for t in threads:
        t.join(15.0)
    assert got_io == [True]


def test_a_reload_waits_for_whoever_works_on_the_board(supervisor: Supervisor, tmp_path: Path) -> None:
    watch = supervisor.watches["b"]
    config = tmp_path / "espmon.toml"
    with supervisor.borrow(watch, "a test") as port:
        config.write_text(config.read_text().replace("115200", "57600"))
        supervisor.reload(read_config(config))
        assert port.is_open
        assert watch.state == "busy"
    until(lambda: watch.state == "run" and watch.port is not None and watch.port.baud == 57600, what="opening anew")


def test_a_stored_state_that_cannot_be_read_locks_the_board_and_stops_nobody(tmp_path: Path, board: PtyBoard) -> None:
    state = tmp_path / "state"
    database = Database(state / "espmon.sqlite")
    database.save_recovery_state("b", 1.0, {"incident": {"no such": "field"}, "starts": [None]})
    database.close()
    config = tmp_path / "espmon.toml"
    config.write_text(f'[[port]]\nname = "b"\nmatch = {{ device = "{board.path}" }}\nrecover = "flash"\n')
    supervisor = Supervisor(read_config(config), state, tmp_path / "log")
    try:
        refusal = supervisor.watches["b"].policy.refusal(2.0)
        assert refusal is not None
        assert refusal[0] == "locked"
    finally:
        supervisor.stop(1.0)


def test_what_waited_for_the_decoder_keeps_its_own_time(supervisor: Supervisor) -> None:
    """At a start bytes wait until the decoder is loaded: boots and resets are told apart by their times."""
    watch = supervisor.watches["b"]
    boots: list[ev.Boot] = []
    supervisor.listen(lambda e: boots.append(e) if isinstance(e, ev.Boot) else None)
    now = time.time()
    with watch.judging:
        for i in range(3):
            boot = b"\r\n ets Jan  8 2013,rst cause:4, boot mode:(3,6)\r\n\r\nwdt reset\r\n"
            watch.heard(boot[:20], now + 5 * i, float(i))
            watch.heard(boot[20:], now + 5 * i + 0.02, float(i))
    supervisor._read()
    until(lambda: len(boots) == 3, what="decoding")
    assert [round(b.at - now, 1) for b in boots if b.at is not None] == [0.0, 5.0, 10.0]


def test_a_fault_with_one_board_does_not_stop_the_others(
    tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = PtyBoard(tmp_path / "tty1")
    config = tmp_path / "espmon.toml"
    config.write_text(config.read_text() + f'[[port]]\nname = "c"\nmatch = {{ device = "{other.path}" }}\nbaud = 115200\n')
    supervisor.reload(read_config(config))
    until(lambda: supervisor.watches["c"].state == "run", what="opening the other")
    boots: list[ev.Event] = []
    supervisor.listen(lambda e: boots.append(e) if isinstance(e, ev.Boot) else None)

    def fault(at: float) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(supervisor.watches["b"].policy, "tick", fault)
    supervisor.watches["b"].heard(b"text\r\n", time.time(), 0.0)
    other.say(b"\r\n ets Jan  8 2013,rst cause:4, boot mode:(3,6)\r\n\r\n")
    until(lambda: [b.port for b in boots] == ["c"], what="decoding the other")
    until(lambda: "a bug" in caplog.text, what="telling it")
    assert supervisor.alive


def test_a_clock_that_is_set_back_leaves_no_time_of_ours_in_the_future(supervisor: Supervisor) -> None:
    watch = supervisor.watches["b"]
    with watch.judging:
        watch.noted_text = watch.healthy_since = watch.opened_at = 4e9
        supervisor.decoding.decode(watch, 1.8e9, jumped=True)
        assert (watch.noted_text, watch.healthy_since, watch.opened_at) == (1.8e9, 1.8e9, 1.8e9)


def test_counts_of_waiting_bytes_do_not_drift() -> None:
    """Two threads that change one count lose some of the changes; after months nothing would fit any more."""
    attached = Attached("a test")
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set():
            attached.take()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=take)
    thread.start()
    try:
        piece = os.urandom(64)
        for _ in range(20_000):
            attached.offer(piece)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
    attached.take()
    attached.dropped = 0
    attached.offer(bytes(ATTACH_BYTES))
    assert attached.dropped == 0
    assert len(attached.take()) == ATTACH_BYTES


def test_a_watch_takes_bytes_again_after_its_decoder_was_slow(supervisor: Supervisor) -> None:
    watch: Watch = supervisor.watches["b"]
    with watch.judging:
        for _ in range(6):
            watch.heard(bytes(1 << 20), 1.0, 1.0)
        assert watch.skipped > 0
    supervisor._read()
    until(lambda: not watch.inbox and watch.skipped == 0 and watch.inbox_put == watch.inbox_taken, what="taking")
