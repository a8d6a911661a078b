"""`espmon PORT`, options on either side of it, commands, and words that are neither."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from espmon.cli import COMMANDS, cli
from espmon.errors import UsageProblem

ENVIRONMENT = {**os.environ, "COLUMNS": "100"}


def run(*args, env=None):
    return subprocess.run(
        [sys.executable, "-m", "espmon", *args], capture_output=True, text=True, timeout=60, env={**ENVIRONMENT, **(env or {})}
    )


@pytest.fixture
def asked(monkeypatch):
    """What the monitor would have been asked for."""
    seen = []

    class Recorder:
        def __init__(self, options):
            seen.append(options)

        def run(self):
            return 0

    monkeypatch.setattr("espmon.app.monitor.Monitor", Recorder)
    return seen


@pytest.mark.parametrize(
    "args",
    [
        ["COM3", "--elf", "f.elf", "-b", "74880"],
        ["--elf", "f.elf", "-b", "74880", "COM3"],
        ["--elf", "f.elf", "COM3", "-b", "74880"],
        ["-b74880", "COM3", "--elf=f.elf"],
        ["monitor", "COM3", "--elf", "f.elf", "-b", "74880"],
        ["monitor", "--baud", "74880", "--elf", "f.elf", "COM3"],
    ],
)
def test_options_stand_on_either_side_of_the_port(asked, args):
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0, result.output
    [options] = asked
    assert (options.port, options.baud, tuple(options.elfs)) == ("COM3", 74880, ("f.elf",))


def test_a_port_named_like_a_command(asked):
    CliRunner().invoke(cli, ["monitor", "ports"])
    assert asked[0].port == "ports"
    result = CliRunner().invoke(cli, ["ports", "--json"])
    assert result.exit_code == 0
    assert len(asked) == 1


def test_several_elfs_and_the_defaults(asked):
    CliRunner().invoke(cli, ["COM3", "--elf", "a", "--elf", "b"])
    [options] = asked
    assert tuple(options.elfs) == ("a", "b")
    assert options.baud is None
    assert options.reconnect
    assert options.eol is None
    assert not options.json


def test_nothing_shows_help_and_so_does_help():
    for args in ([], ["--help"], ["-h"]):
        done = run(*args)
        assert done.returncode == 0
        assert "espmon PORT [OPTIONS]" in done.stdout
        assert "monitor" in done.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_help_in_the_list_is_the_commands_own(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    words = COMMANDS[name][2].rstrip(".").lower()
    assert words in " ".join(result.output.lower().split())


@pytest.mark.parametrize(("word", "means"), [("moniter", "espmon monitor"), ("port", "espmon ports"), ("complete", "espmon completion")])
def test_an_unknown_word_gets_the_nearest_command(word, means):
    result = CliRunner().invoke(cli, [word])
    assert isinstance(result.exception, UsageProblem)
    assert f"no command and no port {word}" in result.exception.message
    assert means in result.exception.hint


@pytest.mark.parametrize(("words", "means"), [(["decod", "crash.txt"], "espmon decode"), (["flahs", "--chip", "x"], "espmon flash")])
def test_what_follows_an_unknown_word_does_not_hide_the_nearest_command(words, means):
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, UsageProblem)
    assert means in result.exception.hint


def test_a_mistake_behind_a_port_is_told_as_it_is():
    for words in (["COM3", "--bogus"], ["/dev/ttyUSB7", "--bogus"], ["monitor", "decod", "--bogus"]):
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 2
        assert "--bogus" in result.output


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "args", [["decode", "--json", "--lines"], ["decode", "--lines"], ["sim://esp8266", "--timeout", "9"], ["sim://esp8266", "--json"]]
)
def test_a_full_disk_is_told_in_words(args):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "espmon", *args], input=b"text\n", stdout=full, stderr=subprocess.PIPE, timeout=60, env=ENVIRONMENT
        )
    assert done.returncode == 3
    assert b"[output-unwritable]" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_fault(closed):
    program = f"{sys.executable} -m espmon"
    for command in ("sim://esp8266 --until weather --json", "decode - --json </dev/null", "symbolize --chip esp8266 4000bf50 -"):
        done = subprocess.run(["sh", "-c", f"{program} {command} {closed}"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr


def test_levels_are_those_of_the_lines():
    from espmon.cli.monitor import LEVELS
    from espmon.sinks import lines

    assert LEVELS == lines.LEVELS


# --- completion -----------------------------------------------------------------------------------------------------


def complete(shell, words, incomplete):
    done = run(env={"_ESPMON_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join([*words, incomplete]), "COMP_CWORD": str(len(words))})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_printed(shell):
    done = run("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_ESPMON_COMPLETE" in done.stdout


def test_commands_options_and_ports_complete():
    assert "plain,monitor" in complete("bash", ["espmon"], "mo")
    assert "--raw-log" in complete("bash", ["espmon", "COM3"], "--r")
    assert "--raw-log" in complete("bash", ["espmon", "--elf", "f", "COM3"], "--r")
    assert "crlf" in complete("bash", ["espmon", "COM3", "--eol"], "")
    assert "--raw-log" in complete("bash", ["espmon"], "--r")


def test_ports_complete(monkeypatch):
    from espmon.cli.monitor import complete_ports
    from espmon.port import ListedPort

    ports = [ListedPort(device="/dev/ttyUSB0", vid=0x10C4, pid=0xEA60), ListedPort(device="COM3")]
    monkeypatch.setattr("espmon.port.list_ports", lambda: ports)
    monkeypatch.setattr("espmon.cli.monitor._boards_of_daemon", lambda: ["bench-3"])
    assert [i.value for i in complete_ports(None, None, "be")] == ["bench-3"]
    monkeypatch.setattr("espmon.cli.monitor._boards_of_daemon", list)
    assert [(i.value, i.help) for i in complete_ports(None, None, "")] == [("/dev/ttyUSB0", "CP210x"), ("COM3", None)]
    assert [i.value for i in complete_ports(None, None, "ttyU")] == ["ttyUSB0"]
    assert [i.value for i in complete_ports(None, None, "/dev/tty")] == ["/dev/ttyUSB0"]
    context = cli.make_context("espmon", [], resilient_parsing=True)
    assert "/dev/ttyUSB0" in [i.value for i in cli.shell_complete(context, "")]


def test_powershell_asks_with_the_whole_line():
    env = {"_ESPMON_COMPLETE": "espmonps_complete", "COMP_WORDS": "espmon C:\\x --lo", "COMP_CURRENT": "--lo"}
    assert "--log\t" in run(env=env).stdout
    env = {"_ESPMON_COMPLETE": "espmonps_complete", "COMP_WORDS": "espmon "}
    assert "monitor\t" in run(env=env).stdout
    assert "Register-ArgumentCompleter" in run("completion", "powershell").stdout


# --- ports ----------------------------------------------------------------------------------------------------------


def test_ports_as_text_and_json(monkeypatch):
    from espmon.port import ListedPort

    port = ListedPort(device="/dev/ttyUSB0", vid=0x10C4, pid=0xEA60, serial_number="A1", location="1-1", product="x\x1b]0;y\x07")
    monkeypatch.setattr("espmon.port.list_ports", lambda: [port])
    text = CliRunner().invoke(cli, ["ports"]).output
    assert text == "/dev/ttyUSB0  CP210x  usb 10c4:ea60, serial number A1, at 1-1\n"
    row = json.loads(CliRunner().invoke(cli, ["ports", "--json"]).output)
    assert (row["port"], row["usb_id"], row["held_by"]) == ("/dev/ttyUSB0", "10c4:ea60", [])
    monkeypatch.setattr("espmon.port.list_ports", list)
    result = CliRunner().invoke(cli, ["ports"])
    assert result.exit_code == 0
    assert "No serial port" in result.output


# --- start-up -------------------------------------------------------------------------------------------------------


def imported_by(*args):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "espmon", *args], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_help_imports_nothing_heavy():
    modules = imported_by("--help")
    assert "espmon.cli" in modules
    heavy = {"rich", "serial", "elftools", "sqlite3", "asyncio", "espmon.app.monitor", "espmon.decode", "espmon.symbolize", "pycxxfilt"}
    assert not {m for m in modules if m in heavy or m.split(".")[0] in {"rich", "serial", "elftools", "sqlite3", "asyncio"}}
    assert {m for m in modules if m.startswith("espmon")} <= {
        "espmon", "espmon.__main__", "espmon.cli", "espmon.errors",
    }  # fmt: skip


def test_the_monitor_imports_neither_rich_nor_an_elf_reader_before_it_needs_them():
    modules = imported_by("monitor", "/dev/nope/nope")
    assert "espmon.app.monitor" in modules
    assert not {m for m in modules if m.split(".")[0] in {"rich", "elftools", "sqlite3", "asyncio", "pycxxfilt"}}


def test_the_decoder_is_loaded_once_the_first_line_is_on_the_screen(monkeypatch):
    """Its imports would keep the interpreter from printing it."""
    import threading

    from espmon.app import monitor as module
    from espmon.sinks.screen import NullScreen

    monkeypatch.setattr(module, "FIRST_LINE_S", 60.0)
    monitor = module.Monitor(module.MonitorOptions(port="loop://", baud=115200), screen=NullScreen())
    made = []
    waiting = threading.Event()
    monkeypatch.setattr(monitor._first_line, "wait", lambda limit, wait=monitor._first_line.wait: (waiting.set(), wait(limit)))
    thread = threading.Thread(target=lambda: made.append(monitor._make_decoder()))
    thread.start()
    assert waiting.wait(30)
    assert not made
    monitor._first_line.set()
    thread.join(30)
    assert made[0].line == 1
