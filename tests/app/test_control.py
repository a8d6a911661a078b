"""The control socket under clients that misbehave, and in places that are not safe."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("Unix sockets and boards on ptys are POSIX", allow_module_level=True)

from espmon.app import control
from espmon.app.control import ControlServer, refuse_open_folder
from espmon.app.daemon import lock_state
from espmon.app.supervisor import Supervisor
from espmon.app.watch import ATTACH_BYTES
from espmon.app.wire import Place, Wire, ask, ask_once
from espmon.errors import UsageProblem
from tests.app.daemon_rig import PtyBoard, supervising, until


@pytest.fixture
def board(tmp_path: Path) -> PtyBoard:
    return PtyBoard(tmp_path / "tty0")


@pytest.fixture
def supervisor(tmp_path: Path, board: PtyBoard) -> Iterator[Supervisor]:
    with supervising(tmp_path, board) as made:
        yield made


@pytest.fixture
def server(supervisor: Supervisor, tmp_path: Path) -> Iterator[ControlServer]:
    made = ControlServer(supervisor, Place(socket=tmp_path / "run" / "control.sock"))
    made.start()
    yield made
    made.stop()


def test_more_connections_than_anybody_needs_are_refused_and_others_served_again_later(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_MOST", 5)
    monkeypatch.setattr(control, "_MOST_REFUSED", 3)
    attached = [ask(server.place, "attach", port="b")[0] for _ in range(5)]
    with pytest.raises(Exception, match="5 connections to the daemon are open"):
        ask_once(server.place, "status")
    assert server.place.socket is not None
    silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for each in silent:
        each.connect(str(server.place.socket))
    until(lambda: len(server._open) <= 8, what="closing what is beyond")
    for each in silent:
        each.close()
    for wire in attached:
        wire.close()
    until(lambda: not server._open, what="forgetting them")
    assert ask_once(server.place, "status")["ok"]


def test_when_the_system_gives_no_threads_the_socket_goes_on(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(control.threading, "Thread", NoThread)
        with pytest.raises(Exception, match=r"ended the conversation|does not answer"):
            ask_once(server.place, "status")
    assert ask_once(server.place, "status")["ok"]


def test_a_client_with_the_port_that_reads_nothing_stops_neither_the_log_nor_keeps_the_port(
    server: ControlServer, supervisor: Supervisor, board: PtyBoard
) -> None:
    watch = supervisor.watches["b"]
    wire, _ = ask(server.place, "attach", port="b", exclusive=True)
    until(lambda: watch.state == "busy", what="borrowing")
    line = b"x" * 1022 + b"\r\n"
    sent = 0
    limit = time.monotonic() + 60
    # the client's socket buffer, then what waits here, are full; every byte is in the log all the same
    while watch.state == "busy" and sent < 16 * ATTACH_BYTES:
        assert time.monotonic() < limit
        board.say(line)
        sent += len(line)
    until(lambda: watch.state == "run", what="taking the port back")
    board.say(b"end\r\n")
    until(lambda: watch.bytes == sent + 5, what="reading")
    until(lambda: watch.log.waiting == 0, what="writing")
    assert watch.log.bytes_stored == sent + 5
    wire.close()


def test_an_attached_client_that_reads_nothing_loses_its_own_bytes_only(
    server: ControlServer, supervisor: Supervisor, board: PtyBoard
) -> None:
    watch = supervisor.watches["b"]
    wire, _ = ask(server.place, "attach", port="b")
    until(lambda: watch.attached, what="attaching")
    line = b"x" * 1022 + b"\r\n"
    for _ in range(2 * ATTACH_BYTES // len(line)):
        board.say(line)
    until(lambda: watch.bytes == len(line) * (2 * ATTACH_BYTES // len(line)), what="reading")
    assert ask_once(server.place, "status")["status"]["ports"]["b"]["state"] == "run"
    wire.close()
    until(lambda: not watch.attached, what="forgetting it")


def test_a_socket_that_was_cleaned_up_is_made_again(server: ControlServer) -> None:
    path = server.place.socket
    assert path is not None
    attached, _ = ask(server.place, "attach", port="b")
    path.unlink()
    server.stay()
    assert ask_once(server.place, "status")["ok"]
    assert path.stat().st_mode & 0o777 == 0o660
    server.stay()
    attached.send_frame(b"D", b"still here")
    attached.close()


def test_the_socket_of_a_killed_daemon_is_replaced_and_that_of_a_living_one_is_not(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    first = ControlServer(supervisor, Place(socket=path))
    first.start()
    with pytest.raises(UsageProblem, match="another espmon daemon answers"):
        ControlServer(supervisor, Place(socket=path)).start()
    assert ask_once(first.place, "status")["ok"]
    first.stop()
    assert not path.exists()
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(UsageProblem, match="is no socket"):
        ControlServer(supervisor, Place(socket=path)).start()
    assert not (tmp_path / "victim").exists()


def test_folders_in_which_strangers_could_put_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    refuse_open_folder(folder, "it")
    folder.chmod(0o777)
    with pytest.raises(UsageProblem, match="written by everybody"):
        refuse_open_folder(folder, "it", sticky=True)
    folder.chmod(0o1777)
    refuse_open_folder(folder, "it", sticky=True)
    with pytest.raises(UsageProblem, match="written by everybody"):
        refuse_open_folder(folder, "it")
    folder.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(folder)
    refuse_open_folder(link, "it")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    if os.getuid() != 0:  # what root owns is always trusted
        with pytest.raises(UsageProblem, match="belongs to somebody else"):
            refuse_open_folder(folder, "it")
        with pytest.raises(UsageProblem, match="link of somebody else"):
            refuse_open_folder(link, "it")


def test_the_state_folder_is_locked_once_and_never_through_a_link(tmp_path: Path) -> None:
    lock = lock_state(tmp_path)
    with pytest.raises(UsageProblem, match="another espmon daemon uses"):
        lock_state(tmp_path)
    os.close(lock)
    (tmp_path / "daemon.lock").unlink()
    (tmp_path / "daemon.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UsageProblem, match="cannot use"):
        lock_state(tmp_path)
    assert not (tmp_path / "victim").exists()


def test_a_wire_with_a_high_descriptor_waits_too() -> None:
    """A daemon with 300 ports has thousands of descriptors; select() takes none above 1023."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("not enough descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    ours, theirs = socket.socketpair()
    high = socket.socket(fileno=os.dup2(ours.fileno(), 1500))
    try:
        wire = Wire(high)
        assert not wire.waits(0.0)
        theirs.sendall(b"D\0\0\0\1x")
        assert wire.waits(1.0)
        assert wire.read_frame() == (b"D", b"x")
    finally:
        for each in (ours, theirs, high):
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_client_whose_daemon_dies_is_not_told_to_try_another_cable(tmp_path: Path, exclusive: bool) -> None:
    from espmon.app.attached import AttachedPort
    from espmon.errors import PortGone

    place = Place(socket=tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(place.socket))
        os.chmod(tmp_path / "control.sock", 0o600)
        listening.listen()
        port = AttachedPort(place, "b", exclusive=exclusive)
        opening = threading.Thread(target=port.open)
        opening.start()
        daemon, _ = listening.accept()
        daemon.recv(4096)
        daemon.sendall(b'{"ok": true, "device": "/dev/null", "state": "run", "baud": 115200}\n')
        opening.join(5.0)
        daemon.close()
    with pytest.raises(PortGone, match=r"ended the connection|daemon has gone") as caught:
        port.read(5.0)
    assert "espmon status" in (caught.value.hint or "")
    port.dispose()
