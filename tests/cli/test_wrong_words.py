"""Wrong command lines: one line on what happened, one on what to do, a code, a documented status; and Ctrl-C, which is none."""

import os
import subprocess
import sys

import pytest

from espmon.cli import main
from espmon.events import Address, BootLoop, Crash, Frame, Recovery
from espmon.port import ListedPort


def told(args, capsys):
    """(status, lines on standard error) of `espmon ARGS`."""
    with pytest.raises(SystemExit) as end:
        main(args)
    said = capsys.readouterr()
    assert said.out == ""
    return end.value.code, said.err.splitlines()


@pytest.mark.parametrize(
    ("args", "message", "advice"),
    [
        (["COM3", "--timeout", "-1"], "'--timeout'", "`espmon monitor --help`"),
        (["COM3", "--eol", "nul"], "'--eol'", "`espmon monitor --help`"),
        (["COM3", "--baud", "fast"], "no baud rate", "`espmon monitor --help`"),
        (["--nonsense"], "'--nonsense'", "`espmon monitor --help`"),
        (["monitor"], "missing argument 'PORT'", "`espmon monitor --help`"),
        (["config", "chek"], "'chek'", "`espmon config --help`"),
        (["completion"], "bash, zsh, fish", "`espmon completion --help`"),
        (["sim", "--nonsense"], "'--nonsense'", "`espmon sim --help`"),
        (["logs", "x", "--boot", "first"], "'first'", "`espmon logs --help`"),
        (["help"], "no command", "`espmon --help`"),
        (["-"], "needs a port", "`espmon decode -`"),
        ([" "], "empty", "`espmon ports`"),
    ],
)
def test_a_wrong_command_line_is_told_in_two_lines(args, message, advice, capsys):
    status, lines = told(args, capsys)
    assert status == 2
    what, todo = lines
    assert what.startswith("espmon: ")
    assert what.endswith(" [usage]")
    assert message in what
    assert todo.startswith("        ")
    assert advice in todo


def test_a_word_may_be_nearly_a_board_of_the_daemon(monkeypatch, capsys):
    monkeypatch.setattr("espmon.cli.monitor._boards_of_daemon", lambda: ["bench-3", "kitchen"])
    monkeypatch.setattr("espmon.port.list_ports", lambda: [ListedPort(device="/dev/ttyUSB0")])
    assert "bench-3" in told(["bench-4"], capsys)[1][1]
    assert "bench-3, kitchen" in told(["qqqqqq"], capsys)[1][1]


def test_what_we_may_not_open_is_no_bug(monkeypatch, capsys):
    def refused(*_):
        raise PermissionError(13, "Permission denied", "/root/espmon.toml")

    monkeypatch.setattr("espmon.app.story.run_story", refused)
    status, lines = told(["demo", "--json"], capsys)
    assert status == 3
    assert lines[0] == "espmon: no permission for /root/espmon.toml [input-unreadable]"
    assert len(lines) == 2


def test_a_group_alone_shows_its_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["config"])
    assert end.value.code == 2
    assert "Usage: espmon config" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["demo"], ["demo", "--json"]])
def test_ctrl_c_is_status_130_without_a_word(args, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("espmon.app.story.run_story", interrupted)
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_ctrl_c_while_the_commands_are_imported_shows_no_traceback():
    """A finder presses Ctrl-C at the import that takes longest."""
    script = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from espmon.__main__ import start\n"
        "start()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == -2
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_an_ignored_sigint_stays_ignored():
    """A shell's background job, nohup: Ctrl-C in the terminal is for others."""
    script = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import espmon.cli\n"
        "espmon.cli.main = lambda: print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)\n"
        "from espmon.__main__ import start\n"
        "start()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


def test_a_port_without_lines_is_not_called_reset(capsys):
    """A pty stands for a plain socket, a wrong cable and all else that has no DTR and RTS."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    try:
        status, lines = told(["reset", os.ttyname(slave)], capsys)
    finally:
        os.close(master)
        os.close(slave)
    assert status == 5
    assert "no DTR and RTS lines" in lines[0]


def test_config_check_says_what_is_not_there_yet(tmp_path, capsys):
    file = tmp_path / "espmon.toml"
    file.write_text(
        f'[daemon]\nstate_dir = "{tmp_path.as_posix()}"\n'
        '[[port]]\nname = "a"\nmatch = { device = "x" }\nrecover = "flash"\nelf = ["build/a.elf"]\n'
        '[[port]]\nname = "b"\nmatch = { device = "y" }\nrecover = "flash"\nimage = [{ file = "b.bin", offset = 0 }]\n'
    )
    with pytest.raises(SystemExit) as end:
        main(["config", "check", str(file)])
    assert end.value.code == 0
    first, *notes = capsys.readouterr().out.splitlines()
    assert first.endswith("right, 2 boards")
    assert [note.split(":")[1].strip() for note in notes] == ["a", "a", "b"]
    assert "`espmon image add a 0 FILE`" in notes[0]
    assert "a.elf" in notes[1]
    assert "b.bin" in notes[2]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("good", b"\x7fELF" + bytes(60), "no board is called 'good'"), ("bench", b"\x7fELF" + bytes(60), "is an ELF file")],
)
def test_an_image_is_looked_at_before_it_is_called_known_good(name, content, says, tmp_path, monkeypatch, capsys):
    file, image = tmp_path / "espmon.toml", tmp_path / "firmware.bin"
    file.write_text('[[port]]\nname = "bench"\nmatch = { device = "x" }\n')
    image.write_bytes(content)
    for variable in ("ESPMON_SOCKET", "ESPMON_STATE_DIR", "ESPMON_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    status, lines = told(["image", "--config", str(file), "--state-dir", str(tmp_path), "add", name, "0", str(image)], capsys)
    assert status == 2
    assert says in lines[0]
    assert len(lines) == 2


def test_the_demo_fits_a_screen_of_80_columns_and_24_lines(capsys, monkeypatch):
    from espmon.cli.demo import _Words

    monkeypatch.setenv("COLUMNS", "80")
    words = _Words()
    crash = Crash(
        kind="exception",
        port="garden",
        explanation="A null pointer was read (offset 12 in an object or array), and much more is said of it.",
        fingerprint="21abec499206b645",
        frames=(Frame(address=Address(0x40201000), function="a_function_with_a_rather_long_name_as_they_occur", file="./src/sensors.c", line=38),) * 5,
    )
    for event in (crash, crash, crash):
        words.tell(event)
    words.tell(BootLoop(port="garage", boots=3, period_s=0.81, cause="hardware watchdog reset"))
    for step in ("reset", "leave-download-mode", "compare", "backup", "verify", "write"):
        words.tell(Recovery(port="garage", step=step, outcome="started", incident="1"))
        words.tell(Recovery(port="garage", step=step, outcome="done", incident="1", reason="some words that say more, at some length"))
    words.tell(Recovery(port="garage", step="healthy", outcome="recovered", incident="1", reason="ordinary text 2 s after the boot"))
    words.finished({"ports": {name: {"bytes": 5000} for name in ("kitchen", "garden", "garage")}})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 21  # one more is the boot; then the prompt and the command stand on the same screen
    assert any("sensors.c:38" in line or "a_function" in line for line in lines)
    assert "recovered" in lines[-6]
