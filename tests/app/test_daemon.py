"""The daemon as a process: boards on ptys, commands as a person types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("boards on ptys are POSIX", allow_module_level=True)

from espmon.app.wire import Place, ask_once
from tests.app.daemon_rig import DaemonProcess, PtyBoard, running, until

BOOT = b"\r\n ets Jan  8 2013,rst cause:4, boot mode:(3,6)\r\n\r\nwdt reset\r\nload 0x4010f000, len 3584, room 16 \r\n"
CRASH = (Path(__file__).parents[1] / "corpus" / "020-exc28-full-cont-stack" / "log.txt").read_bytes()


def section(name: str, path: Path, more: str = "") -> str:
    return f'[[port]]\nname = "{name}"\nmatch = {{ device = "{path}" }}\nbaud = 115200\n{more}\n'


@pytest.fixture
def boards(tmp_path: Path) -> list[PtyBoard]:
    return [PtyBoard(tmp_path / f"tty{i}") for i in range(2)]


def test_what_boards_say_is_logged_decoded_and_counted(tmp_path: Path, boards: list[PtyBoard]) -> None:
    config = "".join(section(f"b{i}", b.path) for i, b in enumerate(boards))
    # ports are open long before the daemon answers, and a boot counts as caused by opening for two seconds only
    with running(DaemonProcess(tmp_path, config), wait=False) as daemon:
        until(lambda: len(daemon.of_type("port")) == 2, what="opening both")
        said = b"hello\r\n" + BOOT + b"running 1\r\n" + CRASH
        boards[0].say(said)
        boards[1].say(b"quiet board\r\n")
        until(lambda: daemon.of_type("crash"), what="the crash")
        boot = daemon.of_type("boot")[0]
        assert (boot["port"], boot["reset"]["code"], boot["caused_by"]) == ("b0", 4, "open")
        until(lambda: daemon.raw_log("b0") == said, what="the raw log")
        assert daemon.status()["ports"]["b0"]["state"] == "run"
        until(lambda: daemon.status()["ports"]["b0"]["crashes"], what="the crash in the database")
        assert daemon.status()["ports"]["b0"]["crashes"][0]["count"] >= 1
        assert daemon.command("status").returncode == 0
        events = [json.loads(x) for x in daemon.command("events", "b0", "--json").stdout.splitlines()]
        assert [e["type"] for e in events][:2] == ["port", "boot"]
        assert all(e["port"] == "b0" for e in events)
        groups = [json.loads(x) for x in daemon.command("crashes", "--json").stdout.splitlines()]
        assert groups[0]["boards"] == ["b0"]
        shown = json.loads(daemon.command("crashes", "show", groups[0]["fingerprint"][:12], "--json").stdout)
        assert shown["type"] == "crash"
        assert "b0" not in daemon.command("crashes", "show", groups[0]["fingerprint"]).stderr
        assert len(daemon.command("crashes", "export").stdout.splitlines()) == len(daemon.of_type("crash"))
        text = daemon.command("logs", "b0", "--grep", "running").stdout
        assert text.endswith("running 1\n")
        assert text.startswith(time.strftime("%Y-"))
        lines = [json.loads(x) for x in daemon.command("logs", "b0", "--json").stdout.splitlines()]
        assert {"at", "port"} <= set(lines[0])
        assert "hello" in [x.get("text") for x in lines]
        raw = subprocess.run([sys.executable, "-m", "espmon", "logs", "b0", "--raw", "--max-bytes", "50"], env=daemon.environment, capture_output=True, check=True).stdout
        assert raw == said[-50:]
        last_boot = daemon.command("logs", "b1", "--boot", "-1", check=False)
        assert last_boot.returncode == 2
        assert "ets Jan" in daemon.command("logs", "b0", "--boot", "-1").stdout.splitlines()[0]
        assert daemon.command("logs", "nobody", check=False).returncode == 2
        assert daemon.stop() == 0
        assert daemon.command("status", check=False).returncode == 10
    assert daemon.of_type("recovery") == []


def test_an_unplugged_board_comes_back(tmp_path: Path, boards: list[PtyBoard]) -> None:
    with running(DaemonProcess(tmp_path, section("b0", boards[0].path))) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        sent = b""
        for i in range(5):
            text = b"life %d\r\n" % i
            boards[0].say(text)
            sent += text
            until(lambda sent=sent: daemon.raw_log("b0") == sent, what="logging")
            boards[0].unplug()
            until(lambda: daemon.of_type("port")[-1]["state"] == "gone", what="noticing")
            boards[0].plug()
            until(lambda: daemon.of_type("port")[-1]["state"] == "returned", what="reopening")
        assert daemon.stop() == 0


def test_lending_hands_the_port_over_and_takes_it_back(tmp_path: Path, boards: list[PtyBoard]) -> None:
    with running(DaemonProcess(tmp_path, section("b0", boards[0].path))) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        script = "import os,sys; fd=os.open(os.environ['ESPMON_PORT'], os.O_RDWR|os.O_NOCTTY); os.write(fd,b'mine'); sys.exit(7)"
        done = daemon.command("lend", "b0", "--", sys.executable, "-c", script, check=False)
        assert done.returncode == 7, done.stderr
        assert boards[0].hear(4) == b"mine"
        boards[0].say(b"after\r\n")
        until(lambda: b"after\r\n" in daemon.raw_log("b0"), what="reading again")
        assert [e["state"] for e in daemon.of_type("port")] == ["opened", "closed", "returned"]
        notes = daemon.command("logs", "b0").stdout
        assert "lent" in notes
        assert "returned" in notes
        device = daemon.command("release", "b0").stdout.strip()
        assert os.path.exists(device)
        assert daemon.status()["ports"]["b0"]["state"] == "lent"
        refused = daemon.command("lend", "b0", "--", "true", check=False)
        assert refused.returncode == 5
        assert "lent" in refused.stderr
        assert daemon.command("reclaim", "b0").stdout.startswith("b0: run")
        again = daemon.command("reclaim", "b0", check=False)
        assert again.returncode != 0
        assert "b0 is not lent" in again.stderr
        assert "daemon has it already" in again.stderr
        assert daemon.command("lend", "b0", "--", "no-such-program", check=False).returncode == 2
        until(lambda: daemon.status()["ports"]["b0"]["state"] == "run", what="back after a failed command")


def test_reload_touches_only_what_changed(tmp_path: Path, boards: list[PtyBoard]) -> None:
    first = section("b0", boards[0].path)
    with running(DaemonProcess(tmp_path, first)) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        daemon.config.write_text(first.replace("115200", "115200\nrecover = 'notify'") + section("b1", boards[1].path) + "[log]\nkeep_days = 3\n")
        assert "[log] keep_days" in daemon.command("reload").stdout
        until(lambda: len(daemon.of_type("port")) == 2, what="opening the new one")
        assert [(e["port"], e["state"]) for e in daemon.of_type("port")] == [("b0", "opened"), ("b1", "opened")]
        daemon.config.write_text("[[port]\n")
        assert daemon.command("reload", check=False).returncode == 2
        daemon.config.write_text(section("b1", boards[1].path))
        daemon.command("reload")
        until(lambda: daemon.of_type("port")[-1]["state"] == "closed", what="closing the removed one")
        assert list(daemon.status()["ports"]) == ["b1"]


def test_reload_leaves_a_lent_port_to_whoever_has_it(tmp_path: Path, boards: list[PtyBoard]) -> None:
    first = section("b0", boards[0].path)
    with running(DaemonProcess(tmp_path, first)) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        daemon.command("release", "b0")
        daemon.config.write_text(first.replace("115200", "57600"))
        daemon.command("reload")
        assert daemon.status()["ports"]["b0"]["state"] == "lent"
        boards[0].say(b"not for the daemon\r\n")
        assert daemon.command("reclaim", "b0").stdout.startswith("b0: run")
        assert daemon.status()["ports"]["b0"]["baud"] == 57600
        assert [e["state"] for e in daemon.of_type("port")] == ["opened", "closed", "returned"]


def test_a_boot_loop_is_told_and_hooks_get_it(tmp_path: Path, boards: list[PtyBoard]) -> None:
    out = tmp_path / "hooked"
    hook = f"[[hook]]\non = ['boot-loop']\ncommand = ['{sys.executable}', '-c', 'import sys; open(r\"{out}\", \"a\").write(sys.stdin.read())']\n"
    config = section("b0", boards[0].path, 'recover = "notify"') + hook + "[recovery]\nresets = 3\nwithin_s = 60\n"
    with running(DaemonProcess(tmp_path, config)) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        time.sleep(2.1)  # boots within two seconds of opening may be our doing and don't count
        for _ in range(4):
            boards[0].say(BOOT)
            time.sleep(0.2)
        loop = until(lambda: daemon.of_type("boot-loop"), what="the loop")[0]
        assert (loop["boots"], loop["port"]) == (3, "b0")
        assert "watchdog" in loop["cause"]
        until(lambda: out.exists() and out.read_text(), what="the hook")
        assert json.loads(out.read_text())["type"] == "boot-loop"
        plan = daemon.command("recover", "b0", "--dry-run").stdout
        assert "abnormal resets now" in plan
        assert daemon.of_type("recovery") == []


def test_two_daemons_do_not_share_a_socket(tmp_path: Path, boards: list[PtyBoard]) -> None:
    with running(DaemonProcess(tmp_path, section("b0", boards[0].path))) as daemon:
        second = daemon.command("daemon", "--config", str(daemon.config), "--state-dir", str(daemon.state), check=False)
        assert second.returncode == 2
        assert "another espmon daemon" in second.stderr
        mode = (daemon.state / "control.sock").stat().st_mode
        assert mode & 0o777 == 0o660


def test_kill_nine_and_start_again(tmp_path: Path, boards: list[PtyBoard]) -> None:
    with running(DaemonProcess(tmp_path, section("b0", boards[0].path))) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        boards[0].say(b"first\r\n")
        until(lambda: daemon.raw_log("b0") == b"first\r\n", what="logging")
        daemon.kill()
        boards[0].say(b"second\r\n")
        began = time.monotonic()
        daemon.events.clear()
        daemon.start(wait=False)
        until(lambda: daemon.of_type("port"), what="opening again")
        assert time.monotonic() - began < 10
        until(lambda: daemon.raw_log("b0") == b"first\r\nsecond\r\n", what="logging again")
        assert "cut off here" in daemon.command("logs", "b0").stdout


def test_the_monitor_attaches_to_a_port_that_the_daemon_holds(tmp_path: Path, boards: list[PtyBoard]) -> None:
    with running(DaemonProcess(tmp_path, section("b0", boards[0].path))) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        words = [sys.executable, "-m", "espmon", "b0", "--until", "third", "--timeout", "30"]
        first = subprocess.Popen(words, env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        second = subprocess.Popen([*words[:3], str(boards[0].path), *words[4:]], env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until(lambda: len(daemon.status()["ports"]["b0"]["attached"]) == 2, what="attaching")
        for text in (b"first\r\n", b"second\r\n", b"third\r\n"):
            boards[0].say(text)
            time.sleep(0.1)
        for process in (first, second):
            out, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
            assert "second" in out
            assert "daemon holds" in err
        assert daemon.raw_log("b0") == b"first\r\nsecond\r\nthird\r\n"
        assert daemon.status()["ports"]["b0"]["attached"] == []


def test_an_attached_monitor_reads_boots_out_of_garbage_too(tmp_path: Path) -> None:
    """As on a port of its own: the ROM talks at 74880 baud, the daemon listens at 115200."""
    config = '[[port]]\nname = "bench"\nmatch = { url = "sim://esp8266?app=uptime" }\nbaud = 115200\n'
    with running(DaemonProcess(tmp_path, config)) as daemon:
        until(lambda: b"round 2" in daemon.raw_log("bench"), what="booting")  # round 1 is then what follows the reset
        done = daemon.command("bench", "--reset", "--until", r"round 1\b", "--timeout", "20", "--baud", "9600")
        assert "--baud 9600 is not applied" in done.stderr
        [boot] = [line for line in done.stdout.splitlines() if line.startswith("--- Boot:")]
        assert "read from text sent at 74880 baud" in boot
        assert "espmon did that" in boot
        assert "no board is called 'bunch'" in daemon.command("events", "bunch", check=False).stderr
        assert "bench" in daemon.command("bunch", check=False).stderr.splitlines()[1]


def test_an_attached_monitor_is_told_when_the_daemon_changes_the_rate(tmp_path: Path) -> None:
    """For a reset the daemon listens to the ROM at 74880 baud and goes back."""
    config = '[[port]]\nname = "bench"\nmatch = { url = "sim://esp8266?app=uptime" }\n'
    with running(DaemonProcess(tmp_path, config)) as daemon, ThreadPoolExecutor() as beside:
        until(lambda: b"round 2" in daemon.raw_log("bench"), what="booting")
        watching = beside.submit(daemon.command, "bench", "--until", r"round 1\b", "--timeout", "20", "--json", check=False)
        until(lambda: daemon.status()["ports"]["bench"]["attached"], what="the monitor")
        ask_once(Place(socket=daemon.state / "control.sock"), "reset", port="bench")
        told = [json.loads(line) for line in watching.result().stdout.splitlines()]
        rates = [each["baud"] for each in told if each["type"] == "port" and each["state"] == "rate"]
        assert rates == [74880, 115200]
        [boot] = [each for each in told if each["type"] == "boot"]
        assert not boot["inferred"]
        assert (boot["reset"]["code"], boot["boot_mode"]["raw"]) == (2, "3,6")


def test_recover_through_the_daemon_ends_when_its_time_is_up(tmp_path: Path) -> None:
    """A board without firmware is looked at for much longer; the daemon goes on with it."""
    config = '[[port]]\nname = "dead"\nmatch = { url = "sim://esp8266?image=blank" }\nbaud = 115200\n'
    with running(DaemonProcess(tmp_path, config)) as daemon:
        until(lambda: daemon.status()["ports"]["dead"]["state"] == "run", what="opening")
        done = daemon.command("recover", "dead", "--mode", "reset", "--timeout", "1", check=False)
        assert done.returncode == 22
        assert "has not ended within 1 s" in done.stderr


def test_loader_commands_and_reset_go_through_the_daemon(tmp_path: Path) -> None:
    image = Path(__file__).parents[2] / "symbols" / "demo" / "weather.bin"
    config = f'[[port]]\nname = "sim"\nmatch = {{ url = "sim://esp8266?baud=74880&flash_size=1m&speed=2&flash={tmp_path}/flash.bin&image=blank" }}\nbaud = 74880\n'
    with running(DaemonProcess(tmp_path, config)) as daemon:
        until(lambda: daemon.of_type("boot"), what="booting")
        told = [json.loads(line) for line in daemon.command("chip", "sim", "--json").stdout.splitlines()]
        assert next(t for t in told if t["type"] == "chip")["chip"] == "esp8266"
        assert daemon.command("verify", "sim", "0", str(image), check=False).returncode == 24
        assert "written and verified" in daemon.command("flash", "sim", "0", str(image)).stdout
        assert (tmp_path / "flash.bin").read_bytes().startswith(image.read_bytes())
        until(lambda: b"mean temperature" in daemon.raw_log("sim"), what="the firmware")
        assert "for sim" in daemon.command("image", "add", "sim", "0", str(image)).stdout
        assert daemon.command("image", "learn", "sim", check=False).returncode == 2, "not healthy for long enough"
        daemon.command("image", "learn", "sim", "--force")
        kept = [json.loads(line)["origin"] for line in daemon.command("image", "list", "--json").stdout.splitlines()]
        assert kept == ["learnt", "added"]
        before = len(daemon.of_type("reset-caused"))
        daemon.command("reset", "sim")
        until(lambda: len(daemon.of_type("reset-caused")) > before, what="the reset")
        assert daemon.status()["ports"]["sim"]["state"] == "run"
        assert all(e["caused_by"] in ("espmon", "open") for e in daemon.of_type("boot"))
        assert daemon.of_type("boot-loop") == []


@pytest.mark.filterwarnings("ignore:set(Daemon|Name)\\(\\):DeprecationWarning")  # pyserial's own client
def test_a_port_is_offered_to_rfc_2217_clients(tmp_path: Path) -> None:
    import socket

    import serial

    with socket.create_server(("127.0.0.1", 0)) as probe:
        number = probe.getsockname()[1]
    config = f'[[port]]\nname = "sim"\nmatch = {{ url = "sim://esp8266?app=echo&baud=74880" }}\nbaud = 74880\nrfc2217 = {number}\n'
    with running(DaemonProcess(tmp_path, config)) as daemon:
        until(lambda: b"ready" in daemon.raw_log("sim"), what="booting")
        with serial.serial_for_url(f"rfc2217://127.0.0.1:{number}", baudrate=74880, timeout=5) as port:
            port.rts = port.dtr = False
            port.write(b"hello\r")
            assert b"hello" in port.read(5)
            port.rts = True
            port.rts = False
            until(lambda: daemon.of_type("reset-caused"), what="the reset")
        assert b"hello" in daemon.raw_log("sim")
        assert daemon.status()["ports"]["sim"]["state"] == "run"


def test_tcp_instead_of_the_socket_is_guarded_by_a_token(tmp_path: Path, boards: list[PtyBoard]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        number = probe.getsockname()[1]
    daemon = DaemonProcess(tmp_path, section("b0", boards[0].path) + f'[control]\nlisten = "127.0.0.1:{number}"\n')
    daemon.start(wait=False)
    try:
        until(lambda: daemon.of_type("port"), what="opening")
        assert daemon.status()["ports"]["b0"]["state"] == "run"
        token = daemon.state / "control.token"
        assert token.stat().st_mode & 0o777 == 0o600
        with socket.create_connection(("127.0.0.1", number), 5) as stranger:
            stranger.sendall(b'{"do": "status", "token": "guess"}\n')
            assert json.loads(stranger.makefile().readline())["message"] == "the token is wrong"
        assert daemon.stop() == 0
    finally:
        if daemon.process is not None:
            daemon.kill()


def test_a_configuration_with_a_mistake_is_not_taken_over(tmp_path: Path, boards: list[PtyBoard]) -> None:
    with running(DaemonProcess(tmp_path, section("b0", boards[0].path))) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        good = daemon.config.read_text()
        for bad, told in ((good + '[[port]\nname = "b1"\n', "espmon.toml:6"), (good.replace("baud", "bauds"), "bauds"), ("\xff", "espmon.toml")):
            daemon.config.write_text(bad, encoding="latin-1")
            done = daemon.command("reload", check=False)
            assert done.returncode not in (0, 1), done.stderr
            assert told in done.stderr
            assert "Traceback" not in done.stderr + daemon.own_log()
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "configuration not taken over" in daemon.own_log(), what="telling it")
        boards[0].say(b"as before\r\n")
        until(lambda: daemon.raw_log("b0") == b"as before\r\n", what="logging")
        assert [e["state"] for e in daemon.of_type("port")] == ["opened"]
        daemon.config.write_text(good)
        daemon.command("reload")


def test_the_end_of_the_daemon_lets_whoever_flashes_through_it_bring_the_board_to_a_safe_state(tmp_path: Path) -> None:
    image = Path(__file__).parents[2] / "symbols" / "demo" / "weather.bin"
    config = f'[[port]]\nname = "sim"\nmatch = {{ url = "sim://esp8266?baud=74880&flash_size=1m&flash={tmp_path}/flash.bin&image=blank" }}\nbaud = 74880\n'
    with running(DaemonProcess(tmp_path, config)) as daemon:
        until(lambda: daemon.of_type("port"), what="opening")
        words = ["flash", "sim", "0", str(image), "--json", "--no-stub", "--flash-baud", "74880"]
        flashing = subprocess.Popen(
            [sys.executable, "-m", "espmon", *words], env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert flashing.stdout is not None
        for line in flashing.stdout:
            if json.loads(line).get("done", 0) > 0:
                break
        assert daemon.stop() == 0
        rest, errors = flashing.communicate(timeout=30)
        assert flashing.returncode not in (0, 1), rest + errors
        assert "Run the same command again" in rest + errors
        flash = (tmp_path / "flash.bin").read_bytes()
        assert flash[:1] != b"\xe9", "no half image can run"
        daemon.start()
        until(lambda: daemon.status()["ports"]["sim"]["state"] == "run", what="opening again")
        daemon.command("flash", "sim", "0", str(image))
        assert (tmp_path / "flash.bin").read_bytes().startswith(image.read_bytes())
