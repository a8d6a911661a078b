"""The monitor as a person and as CI use it: a process, a pty as its port, a pty or a pipe around it."""

import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading

import pytest

from tests.fakes.watched_pty import Espmon, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals on Windows")


def test_download_mode_that_was_asked_for_is_no_mishap():
    run = Espmon("sim://esp8266?app=uptime", terminal=True)
    try:
        run.wait_for("round 1")
        run.type(b"\x14p")
        run.wait_for("Download mode")
        text = run.wait_for("runs the firmware again")
        assert "Release GPIO0" not in text
        run.type(b"\x1d")
        assert run.end() == 0
    finally:
        run.close()


# --- text -----------------------------------------------------------------------------------------------------------


def test_text_is_shown_as_it_comes_prompts_too(board, espmon):
    run = espmon()
    board.say(b"hello\r\nname> ")
    run.wait_for("hello\nname> ")
    board.say(b"\xe2\x82")
    board.say(b"\xac\n")
    run.wait_for("name> €\n")


def test_hostile_sequences_do_not_reach_the_terminal(board, espmon):
    run = espmon(terminal=True)
    board.say(b"\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\xc2\x9b5n end\r\n")
    text = run.wait_for("end")
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert "\x9b" not in text
    assert "\x1b[31mred\x1b[0m" in text


def test_a_pipe_gets_no_colours(board, espmon):
    run = espmon("--until", "end")
    board.say(b"\x1b[31mred\x1b[0m\nend\n")
    assert run.end() == 0
    assert "\x1b" not in run.text
    assert "red\n" in run.text


def test_raw_log_is_exact_and_text_log_is_as_shown(board, espmon, tmp_path):
    raw, log = tmp_path / "raw", tmp_path / "log"
    raw.write_bytes(b"before")
    log.write_text("before\n")
    run = espmon("--raw-log", str(raw), "--log", str(log), "-t", "--exclude", "noise", "--until", "the end")
    everything = bytes(range(256)) * 20 + b"\nnoise\n\x1b[32mgreen\x1b[0m\nthe end\n"
    board.say(everything)
    assert run.end() == 0
    assert raw.read_bytes() == b"before" + everything
    shown = log.read_text()
    assert shown.startswith("before\n--- ")
    assert " green\n" in shown
    assert "noise" not in shown
    assert "\x1b" not in shown
    assert shown.removeprefix("before\n") == run.text


def test_without_options_no_file_is_written(board, espmon, tmp_path):
    folder = tmp_path / "cwd"
    folder.mkdir()
    run = espmon("--until", "end", cwd=folder)
    board.say(b"end\n")
    assert run.end() == 0
    assert list(folder.iterdir()) == []


def test_filters_hide_text_only(board, espmon):
    run = espmon("--filter", "temp", "--level", "info", "--until", "done")
    board.say(b"temp 1\nnoise\nD (1) x: temp debug\nI (1) x: temp info\ndone\n")
    assert run.end() == 0
    assert "temp 1\nI (1) x: temp info\n" in run.text
    assert "noise" not in run.text
    assert "done" not in run.text


def test_a_pattern_that_runs_away_freezes_nothing(board, espmon, tmp_path):
    raw = tmp_path / "raw"
    run = espmon("--exclude", "^(a+)+$", "--raw-log", str(raw), "--until", "still here")
    said = b"a" * 64 + b"b\n" + b"line\n" * 1000 + b"still here\n"
    board.say(said)
    assert run.end() == 0
    assert "too slow" in run.text
    assert raw.read_bytes() == said


# --- keyboard -------------------------------------------------------------------------------------------------------


def test_typed_keys_go_to_the_board_raw(board, espmon):
    run = espmon(terminal=True)
    run.wait_for("Ctrl-]")
    run.type(b"ls\r\x1b[A\x01")
    assert board.hear(7) == b"ls\r\x1b[A\x01"
    run.type(b"\x14\x03\x14\x1d")
    assert board.hear(2) == b"\x03\x1d"
    run.type(b"\x1d")
    assert run.end() == 0


def test_eol_is_what_enter_sends(board, espmon):
    run = espmon("--eol", "crlf", terminal=True)
    run.wait_for("Ctrl-]")
    run.type(b"AT\r")
    assert board.hear(4) == b"AT\r\n"


def test_ctrl_c_quits_and_the_repl_gets_it_when_asked(board, espmon):
    run = espmon(terminal=True)
    run.wait_for("Ctrl-]")
    run.type(b"\x03")
    assert run.end() == 130
    run = espmon("--repl", terminal=True)
    run.wait_for("Ctrl-]")
    run.type(b"\x03")
    assert board.hear(1) == b"\x03"
    run.type(b"\x1d")
    assert run.end() == 0


def test_the_menu(board, espmon, tmp_path):
    run = espmon(terminal=True, cwd=tmp_path)
    run.wait_for("Ctrl-]")
    run.type(b"\x14h")
    run.wait_for("reset into download mode")
    run.type(b"\x14t")
    run.wait_for("Timestamps on")
    run.type(b"\x14r")
    run.wait_for("no DTR and RTS lines")
    run.type(b"\x14y")
    run.wait_for("paused")
    board.say(b"unseen\n")
    run.type(b"\x14l")
    [log] = wait_until(lambda: list(tmp_path.glob("espmon-*.log")))
    board.say(b"logged\n")
    wait_until(lambda: "logged" in log.read_text())
    assert "unseen" not in run.text
    run.type(b"\x14y")
    run.wait_for("characters were not shown")
    board.say(b"seen\n")
    run.wait_for("seen")
    run.type(b"\x14v")
    run.wait_for("debug and worse")
    run.type(b"\x14~")
    run.wait_for("No such key")
    run.type(b"\x14q")
    assert run.end() == 0
    assert "seen" in log.read_text()


def test_input_from_a_pipe_is_sent_and_its_end_ends_nothing(board, espmon):
    run = espmon("--until", "bye", stdin=subprocess.PIPE)
    run.process.stdin.write(b"print(1)\n\x1d\x03")
    run.process.stdin.close()
    assert board.hear(11) == b"print(1)\n\x1d\x03"
    board.say(b"bye\n")
    assert run.end() == 0


# --- the terminal is given back -------------------------------------------------------------------------------------


def _mode(run):
    return termios.tcgetattr(run.tty)


@pytest.mark.parametrize(
    ("ending", "status"),
    [("key", 0), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130), ("until", 0), ("fault", 1)],
)
def test_the_terminal_is_given_back(board, ending, status, tmp_path):
    env = {}
    if ending == "fault":  # a bug in the console: an exception out of the main loop
        (tmp_path / "sitecustomize.py").write_text(
            "import espmon.sinks.console as c\n"
            "def broken(self, *a, **k): raise RuntimeError('a bug')\n"
            "c.Console.idle = c.Console.show = broken\n"
        )
        from tests.fakes.watched_pty import ROOT

        env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    run = Espmon(board.name, "--until", "bye", terminal=True, env=env)
    try:
        before = _mode(run)
        run.wait_for("Ctrl-]")
        wait_until(lambda: _mode(run) != before)
        if ending == "key":
            run.type(b"\x1d")
        elif ending in ("until", "fault"):
            board.say(b"bye\n")
        else:
            run.process.send_signal(getattr(signal, ending))
        assert run.end() == status, run.text
        assert _mode(run) == before
        assert ("Traceback" in run.text) == (ending == "fault")
    finally:
        run.close()


# --- unplugged and back ---------------------------------------------------------------------------------------------


def test_the_board_is_found_again(board, espmon):
    run = espmon("--until", "third")
    for word in (b"first\n", b"second\n", b"third\n"):
        board.say(word)
        if word != b"third\n":
            run.wait_for(word.decode())
            board.unplug()
            run.wait_for("is gone")
            board.plug_in()
            run.wait_for("is back")
            run.out = b""
    assert run.end() == 0


def test_typing_to_a_board_that_is_away_is_told_once(board, espmon):
    run = espmon(terminal=True)
    run.wait_for("Ctrl-]")
    board.unplug()
    run.wait_for("is gone")
    run.type(b"abc")
    run.wait_for("is not sent")
    run.type(b"def\x14r")
    run.wait_for("nothing to reset")
    board.plug_in()
    text = run.wait_for("is back")
    assert text.count("is not sent") == 1
    run.type(b"ghi")
    assert board.hear(3) == b"ghi"


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_until_and_timeout(board, espmon):
    run = espmon("--until", "never", "--timeout", "0.5")
    assert run.end() == 22
    run = espmon("--timeout", "0.5")
    assert run.end() == 0
    run = espmon("--until", r"^login: $", "--timeout", "30")
    board.say(b"x login: \nlogin: ")
    assert run.end() == 0


def test_a_port_that_never_opened_is_no_success():
    with socket.create_server(("127.0.0.1", 0)) as server:
        run = Espmon(f"rfc2217://127.0.0.1:{server.getsockname()[1]}", "--timeout", "0.5")
        try:
            assert run.end() == 5
            assert "not open after 0.5 s" in run.errors
        finally:
            run.close()


def test_gone_without_reconnecting(board, espmon):
    run = espmon("--no-reconnect")
    board.say(b"last words\n")
    run.wait_for("last words")
    board.unplug()
    assert run.end() == 8
    assert "[port-gone]" in run.errors
    assert "waiting" not in run.text


def test_busy_names_the_other_one(board, espmon):
    first = espmon()
    second = Espmon(board.name)
    try:
        assert second.end() == 6
        assert f"pid {first.process.pid}" in second.errors or sys.platform != "linux"
    finally:
        second.close()


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["/dev/ttyNOPE9"], 5, "there is no port /dev/ttyNOPE9"),
        (["moniter"], 2, "espmon monitor"),
        (["ttyNOPE9", "--until", "("], 2, "no regular expression"),
        (["ttyNOPE9", "--lines"], 2, "--json"),
        (["--baud", "x", "ttyNOPE9"], 2, "baud"),
        (["ttyNOPE9", "--log", "/nowhere/x.log"], 3, "/nowhere/x.log"),
        (["socket://127.0.0.1:1"], 5, "refused"),
        (["nonsense://x"], 5, "nonsense"),
    ],
)
def test_what_cannot_be_is_told_in_two_lines(args, status, says):
    run = Espmon(*args)
    try:
        assert run.end() == status
        assert says in run.errors
        assert "Traceback" not in run.errors
        assert run.text == ""
    finally:
        run.close()


def test_a_reader_that_goes_away_is_no_error(board, espmon):
    run = espmon()
    run.process.stdout.close()
    for _ in range(50):
        if run.process.poll() is not None:
            break
        board.say(b"more\n" * 100)
        try:
            run.process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    assert run.process.wait(10) == 0
    assert "Traceback" not in run.errors
    run.process.stdout = None


# --- json -----------------------------------------------------------------------------------------------------------


def test_json_is_one_object_a_line_and_nothing_else(board, espmon):
    run = espmon("--json", "--lines", "--until", "the end")
    board.say(b"hello \x1b[2J \xff \xc2\x9b\n")
    board.say(b"the end\n")
    assert run.end() == 0
    objects = [json.loads(line) for line in run.text.splitlines()]
    assert all({"type", "file", "line", "end_line", "at", "port", "boot"} <= set(each) for each in objects)
    assert objects[0]["type"] == "port"
    assert "hello" in "".join(each.get("text", "") for each in objects)
    assert {each["port"] for each in objects} == {board.name}
    assert not set(run.text) & {chr(c) for c in (*range(10), *range(11, 32), *range(0x7F, 0xA0))}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full to stand for a full disk")
def test_with_json_what_espmon_says_goes_to_standard_error(board, espmon, tmp_path):
    run = espmon("--json", "--elf", str(tmp_path / "none.elf"), "--until", "end")
    board.say(b"text\nend\n")
    assert run.end() == 0
    assert {json.loads(line)["type"] for line in run.text.splitlines()} == {"port"}
    what, todo = run.errors.splitlines()
    assert what.startswith("espmon: ")
    assert "none.elf" in what
    assert todo.startswith("        ")


def test_a_full_disk_is_told_with_its_gap_and_stops_nothing(board, espmon):
    run = espmon("--raw-log", "/dev/full", "--log", "/dev/full", "--until", "the end")
    board.say(b"hello\nthe end\n")
    assert run.end() == 0
    assert "hello\nthe end\n" in run.text
    assert "/dev/full can't be written: No space left" in run.text
    assert "14 bytes are missing here: the raw log" in run.text


# --- over RFC 2217, which has modem lines ---------------------------------------------------------------------------


def test_a_reset_is_made_only_when_asked_for_and_marked():
    from tests.fakes.rfc2217_board import Rfc2217Board

    banner = b"\r\n ets Jan  8 2013,rst cause:2, boot mode:(3,6)\r\n\r\nload 0x40100000, len 1340, room 16 \r\n"
    for args, changes, cause in (
        ([], [("rts", False), ("dtr", False)], "open"),
        (["--reset"], [("rts", False), ("dtr", False)] * 2 + [("dtr", False), ("rts", True), ("rts", False)], "espmon"),
    ):
        server = Rfc2217Board()
        run = Espmon(server.url, "--json", "--until", "^ready", *args)
        try:
            run.wait_for('"reset-caused"' if args else '"opened"')
            wait_until(lambda: len(server.line.lines) >= len(changes))  # noqa: B023 - called at once
            server.say(banner + b"ready\r\n")
            assert run.end() == 0
            assert server.line.lines == changes
            boots = [json.loads(line) for line in run.text.splitlines() if '"type": "boot"' in line]
            assert [each["caused_by"] for each in boots] == [cause]
        finally:
            run.close()
            server.close()


def test_a_long_paste_does_not_keep_the_board_from_being_heard(board, espmon):
    run = espmon("--until", "bye", stdin=subprocess.PIPE)
    pasted = bytes(range(32, 127)) * 15_000  # far more than any buffer on the way holds
    writer = threading.Thread(target=lambda: (run.process.stdin.write(pasted), run.process.stdin.close()))
    writer.start()
    board.say(b"are you done?\n")  # nobody has read a byte of the paste yet
    run.wait_for("are you done?")
    assert board.hear(len(pasted)) == pasted
    writer.join()
    board.say(b"bye\n")
    assert run.end() == 0
