"""``espmon decode`` as people run it: a process, its output and its exit status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CORPUS = Path(__file__).parent.parent / "corpus"
LOG = CORPUS / "020-exc28-full-cont-stack" / "log.txt"
LOOP = CORPUS / "216-esp32-abort-mutex-loop" / "log.txt"


def run(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "espmon", "decode", *args], input=stdin, capture_output=True, timeout=60)


def objects(out: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.decode("utf-8").splitlines()]


def test_json_of_a_file() -> None:
    done = run("--json", str(LOG))
    assert done.returncode == 0
    assert done.stderr == b""
    (crash,) = objects(done.stdout)
    assert crash["type"] == "crash"
    assert crash["file"] == str(LOG)
    assert crash["exception"] == {"number": 28, "name": "LoadProhibited"}


def test_boot_rom_functions_have_names_without_an_elf() -> None:
    (crash,) = objects(run("--json", str(LOG)).stdout)
    assert [(f["address"], f["function"], f["module"]) for f in crash["frames"]] == [("0x4000e1e0", "strstr", "rom")]  # type: ignore[index,attr-defined]
    (plain,) = (o for o in objects(run("--json", str(CORPUS / "191-mongoose-esp32-loadstoreerror" / "log.txt")).stdout))
    assert plain["frames"] == []


def test_several_files_one_of_them_missing(tmp_path: Path) -> None:
    done = run("--json", str(LOG), str(tmp_path / "none.txt"), str(LOOP))
    assert done.returncode == 3
    assert {o["file"] for o in objects(done.stdout)} == {str(LOG), str(LOOP)}
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 2
    assert "none.txt" in lines[0]


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("args", [("--json",), ("--json", "-")])
def test_standard_input(args: tuple[str, ...]) -> None:
    done = run(*args, stdin=LOG.read_bytes())
    assert done.returncode == 0
    assert objects(done.stdout)[0]["type"] == "crash"


def test_bytes_that_are_no_text_give_valid_json() -> None:
    noise = bytes(range(256)) + b"\xed\xa0\x80\n" + LOG.read_bytes().replace(b"cont", b"co\xffnt")
    done = run("--json", "--lines", stdin=noise)
    assert done.returncode == 0
    said = objects(done.stdout)
    assert {o["type"] for o in said} >= {"text", "crash"}
    assert not any(ord(c) < 32 and c != "\n" for c in done.stdout.decode("utf-8"))


def test_utf_16_as_powershell_writes_it(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(LOG.read_text().encode("utf-16"))
    (crash,) = objects(run("--json", str(log)).stdout)
    assert crash["line"] == 1
    assert crash["exception"] == {"number": 28, "name": "LoadProhibited"}


def test_with_an_elf_functions_and_lines_are_shown() -> None:
    demo = Path(__file__).parent.parent.parent / "symbols" / "demo"
    done = run(str(demo / "dumps" / "load.txt"), "--elf", str(demo / "weather.elf"))
    assert done.returncode == 0
    assert "sensor_value at src/sensors.c:" in done.stdout.decode()
    done = run("--json", str(demo / "dumps" / "load.txt"), "--elf", str(demo / "weather.elf"))
    (crash,) = [o for o in objects(done.stdout) if o["type"] == "crash"]
    frames = crash["frames"]
    assert isinstance(frames, list)
    assert frames[0]["function"] == "sensor_value"


def test_an_elf_that_is_none_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "not.elf").write_bytes(b"hello")
    done = run("--json", str(LOG), "--elf", str(tmp_path / "not.elf"))
    assert done.returncode == 0
    assert objects(done.stdout)[0]["type"] == "crash"
    assert b"not.elf" in done.stderr
    assert b"Traceback" not in done.stderr


def test_lines_are_in_the_order_of_the_input() -> None:
    said = objects(run("--json", "--lines", str(LOOP)).stdout)
    assert "".join(str(o["text"]) for o in said if o["type"] == "text") == LOOP.read_text()
    ends = [o["end_line"] for o in said]
    boot = next(o for o in said if o["type"] == "boot")
    before = [o for o in said[: said.index(boot)] if o["type"] == "text"]
    assert int(str(before[-1]["end_line"])) <= int(str(boot["end_line"])) + 1
    assert len(ends) > 4


def test_for_people() -> None:
    done = run(str(LOG), str(LOOP))
    text = done.stdout.decode()
    assert done.returncode == 0
    assert f"{LOG}:1-" in text
    assert "LoadProhibited" in text
    assert "null pointer" in text
    assert "\x1b" not in text


def test_escape_sequences_of_the_log_stay_harmless() -> None:
    done = run("--lines", stdin=b"\x1b]0;title\x07hello\x1b[2J\n" + LOG.read_bytes())
    assert b"\x1b]" not in done.stdout
    assert b"\x1b[2J" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of Windows are different")
def test_the_reader_may_go() -> None:
    child = subprocess.Popen([sys.executable, "-m", "espmon", "decode", "--json", "--lines", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)  # fmt: skip
    assert child.stdin
    assert child.stdout
    assert child.stderr
    child.stdin.write(LOG.read_bytes())
    child.stdout.readline()
    child.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        for _ in range(50):
            child.stdin.write(LOG.read_bytes() * 10)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    assert child.wait(30) == 0
    assert child.stderr.read() == b""
    child.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to a child needs a console on Windows")
def test_interrupt() -> None:
    child = subprocess.Popen([sys.executable, "-m", "espmon", "decode", "--json", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert child.stdin
    assert child.stdout
    assert child.stderr
    child.stdin.write(LOG.read_bytes() + b"idle\n" * 20)
    child.stdin.flush()
    assert json.loads(child.stdout.readline())["type"] == "crash", "facts come as soon as they are complete"
    deadline = time.monotonic() + 30
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(max(0.1, deadline - time.monotonic())) == 130
    assert b"Traceback" not in child.stderr.read()
    for stream in (child.stdin, child.stdout, child.stderr):
        stream.close()


def test_a_log_without_anything_is_told_and_no_failure(tmp_path):
    log = tmp_path / "plain.txt"
    log.write_text("hello\nworld\n")
    done = subprocess.run([sys.executable, "-m", "espmon", "decode", str(log)], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"")
    what, hint = done.stderr.decode().splitlines()
    assert what.startswith("espmon: no boot")
    assert "--baud" in hint
    done = subprocess.run([sys.executable, "-m", "espmon", "decode", "--json", str(log)], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
