"""Ports on pseudo terminals: no board needed, no pyserial replaced."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from espmon.errors import PortBusy, PortDenied, PortGone, PortNotFound, PortProblem, PortStalled
from espmon.port import SerialPort, holders
from espmon.port.holders import lock_holder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals on Windows")


@pytest.fixture
def line():
    """(master descriptor, device name) of a fresh pty whose slave nobody else holds."""
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    os.close(slave)
    keep = os.open(name, os.O_RDWR | os.O_NOCTTY)  # else the master reads EIO before we open
    yield master, name
    for each in (keep, master):
        with contextlib.suppress(OSError):
            os.close(each)


def open_port(name, baud=115200):
    port = SerialPort(name, baud)
    port.open()
    return port


def read_for_ever(port):
    while True:
        port.read(1)


def test_bytes_go_both_ways_exactly(line):
    master, name = line
    port = open_port(name)
    everything = bytes(range(256))
    os.write(master, everything)
    got = b""
    while len(got) < 256:
        data = port.read(2)
        assert data, got
        got += data
    assert got == everything
    port.write(everything)
    sent = b""
    while len(sent) < 256:
        sent += os.read(master, 4096)
    assert sent == everything
    port.dispose()


def test_what_arrived_before_opening_is_not_thrown_away(line):
    master, name = line
    os.write(master, b"first words\n")
    port = open_port(name)
    assert port.read(2).startswith(b"first words")
    port.dispose()


def test_read_returns_empty_at_the_timeout_and_at_once_when_woken(line):
    _, name = line
    port = open_port(name)
    assert port.read(0.01) == b""
    assert port.read(0) == b""
    threading.Timer(0.05, port.wake).start()
    begun = time.monotonic()
    assert port.read(10) == b""
    assert time.monotonic() - begun < 5
    port.dispose()


def test_a_hung_up_port_is_gone(line):
    master, name = line
    port = open_port(name)
    os.close(master)
    with pytest.raises(PortGone) as caught:
        read_for_ever(port)
    assert caught.value.port == name
    with pytest.raises(PortGone):
        port.write(b"x" * 10)
    port.close()
    with pytest.raises(PortGone, match="not open"):
        port.read(0)


def test_the_rate_is_really_set_non_standard_ones_too(line):
    _, name = line
    port = open_port(name, 74880)
    for rate in (74880, 115200, 250000, 1500000, 9600, 76923):
        got = port.set_baud(rate)
        if sys.platform == "linux":
            assert got.got == rate
            assert got.off_by == 0
    port.dispose()


def test_opening_sets_the_rate_and_clears_hupcl(line):
    _, name = line
    port = open_port(name, 74880)
    mode = termios.tcgetattr(port._fd)
    assert not mode[2] & termios.HUPCL
    assert not mode[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    if sys.platform == "linux":
        assert port.set_baud(74880).got == port._driver_rate() == 74880
    port.dispose()


def test_a_pty_has_no_modem_lines(line):
    _, name = line
    port = open_port(name)
    assert port.set_lines(dtr=False, rts=True) is False
    port.dispose()


def test_a_second_espmon_finds_the_port_busy_and_is_told_by_whom(line):
    _, name = line
    code = f"from espmon.port import SerialPort; p = SerialPort({name!r}); p.open(); print('open', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(PortBusy) as caught:
            open_port(name)
        if sys.platform == "linux":
            assert f"pid {other.pid}" in caught.value.message
            assert caught.value.holder
            assert [h.pid for h in holders(name)] == [other.pid]
    finally:
        other.communicate("\n")


def test_a_port_that_is_not_there(tmp_path):
    with pytest.raises(PortNotFound) as caught:
        open_port(str(tmp_path / "ttyNOPE"))
    assert caught.value.hint
    assert caught.value.exit_status == 5


def test_a_file_is_no_port(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with pytest.raises(PortProblem, match="is a file, not a serial port"):
        open_port(str(path))


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root to drop rights in a child")
def test_no_permission_names_the_group(line):
    _, name = line
    os.chmod(name, 0o620)
    code = (
        "import os, grp, pwd, serial, serial.tools.list_ports\n"
        "from espmon.errors import PortDenied\nfrom espmon.port import SerialPort\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: SerialPort({name!r}).open()\nexcept PortDenied as e: print(e.message, '|', e.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert "no permission" in done.stdout, done.stderr


def test_denied_names_the_group_and_the_command(tmp_path, monkeypatch):
    import grp

    from espmon.port import refusals

    node = tmp_path / "ttyX"
    node.write_bytes(b"")
    node.chmod(0o660)
    group = next((g for g in grp.getgrall() if g.gr_gid not in (0, os.getgid()) and not g.gr_mem), None)
    if group is None or os.getuid() != 0:
        pytest.skip("needs root and another group")
    os.chown(node, 0, group.gr_gid)
    problem = refusals.denied("ttyX", str(node))
    assert isinstance(problem, PortDenied)
    assert group.gr_name in problem.message
    assert f"usermod -aG {group.gr_name}" in problem.hint


def test_a_lock_file_counts_only_while_its_process_lives(tmp_path):
    lock = tmp_path / "LCK..ttyUSB7"
    lock.write_bytes(f"{os.getppid():10d}\n".encode())
    assert lock_holder("/dev/ttyUSB7", (str(tmp_path),)).pid == os.getppid()
    lock.write_bytes(b"4194399\n")
    assert lock_holder("/dev/ttyUSB7", (str(tmp_path),)) is None
    for junk in (b"", b"\xff\xfe", b"99999999999999", f"{os.getpid()}".encode()):
        lock.write_bytes(junk)
        assert lock_holder("/dev/ttyUSB7", (str(tmp_path),)) is None


def test_a_port_that_takes_nothing_stalls(line):
    _, name = line
    port = open_port(name)
    with pytest.raises(PortStalled):
        port.write(bytes(4 << 20), timeout=0.05)
    port.dispose()


def test_flow_is_exclusive_until_closed(line):
    _, name = line
    port = open_port(name)
    other = os.open(name, os.O_RDWR | os.O_NOCTTY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    port.dispose()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_no_descriptor_is_left_after_many_openings(line):
    _, name = line
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(50):
        port = open_port(name)
        port.read(0)
        port.dispose()
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


def test_window_size_ioctl_is_untouched(line):
    """The pty's size is the other side's business."""
    master, name = line
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))
    port = open_port(name)
    assert struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)))[:2] == (11, 22)
    port.dispose()
