"""How a command finds the daemon, and whom it believes."""

import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from espmon.app.reach import find_daemon
from espmon.app.wire import DaemonUnreachable, Place, connect

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")


@pytest.fixture
def nobody_asked(monkeypatch, tmp_path):
    for name in ("ESPMON_SOCKET", "ESPMON_STATE_DIR", "ESPMON_CONFIG", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_socket_that_we_may_not_see_is_a_matter_of_permission(nobody_asked, monkeypatch, tmp_path):
    """/run/espmon belongs to a group: whoever isn't in it must be told that, not get a traceback."""
    hidden = tmp_path / "hidden" / "control.sock"
    real = Path.stat

    def refuses(self, **options):
        if self == hidden:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **options)

    def lstat(self):
        return refuses(self, follow_symlinks=False)

    monkeypatch.setattr(Path, "stat", refuses)
    monkeypatch.setattr(Path, "lstat", lstat)
    monkeypatch.setattr("espmon.app.reach.socket_path", lambda *_, **__: hidden)
    place = find_daemon().running()
    with pytest.raises(DaemonUnreachable, match="no permission"):
        connect(place)


def test_a_stranger_in_a_folder_of_all_is_not_believed(monkeypatch, tmp_path):
    """In /tmp anybody can make the folder that our socket would be in."""
    below = tmp_path / "all"
    folder = below / "espmon"
    folder.mkdir(parents=True)
    path = folder / "s"
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        listening.listen(1)
        path.chmod(0o660)
        if os.geteuid() == 0:
            os.chown(path, 12345, -1)
            os.chown(folder, 12345, -1)
        else:
            other = os.geteuid() + 1
            monkeypatch.setattr(os, "geteuid", lambda: other)
        connect(Place(socket=Path("../espmon/s"))).close()  # a service's own user, in a place that only root could make
        below.chmod(0o777 | stat.S_ISVTX)
        with pytest.raises(DaemonUnreachable, match="stranger"):
            connect(Place(socket=Path("../espmon/s")))
