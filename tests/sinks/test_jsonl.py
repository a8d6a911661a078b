"""JSON lines are UTF-8 on any system; nothing that a board sends ends a command whose output has another encoding."""

import io
import json
import os
import subprocess
import sys

import pytest

from espmon.sinks.jsonl import print_json_line


def test_a_line_is_utf_8_and_stands_behind_what_was_written_before(monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    stream.write("first\n")
    print_json_line('{"text": "\u20ac \u4e2d"}')
    assert raw.getvalue() == 'first\n{"text": "\u20ac \u4e2d"}\n'.encode()


def test_a_text_stream_without_bytes_below_it_is_served_too(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    print_json_line("{}")
    assert stream.getvalue() == "{}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_command_survives_its_output_encoding(encoding, tmp_path):
    log = tmp_path / "log.txt"
    log.write_bytes("E (1) \u20ac \u4e2d\nassert failed: \u4e2d_main main.c:3 (\u20ac == 1)\n".encode())
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-m", "espmon", "decode", str(log)], capture_output=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-m", "espmon", "decode", "--json", "--lines", str(log)], capture_output=True, timeout=60, env=environment)
    assert done.returncode == 0
    assert "\u4e2d" in json.loads(done.stdout.decode("utf-8").splitlines()[0])["text"]
