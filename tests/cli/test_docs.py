"""What the documentation promises is there, and what is there is documented."""

import re
import subprocess
import sys

import click
import pytest

import espmon
from espmon import errors
from espmon.app.keys import MENU
from espmon.cli.monitor import monitor
from tests.fakes.watched_pty import ROOT

MONITOR = (ROOT / "docs" / "monitor.md").read_text()
EXIT_CODES = (ROOT / "docs" / "exit-codes.md").read_text()
LIBRARY = (ROOT / "docs" / "library.md").read_text()


@pytest.mark.parametrize("option", [o for p in monitor.params if isinstance(p, click.Option) for o in p.opts])
def test_each_option_of_the_monitor_is_documented(option):
    assert f"`{option}" in MONITOR or f" {option}" in MONITOR


def test_each_key_is_documented():
    for _, _, name, _ in MENU:
        assert f"Ctrl-T {name}" in MONITOR


def test_each_exit_status_is_documented():
    statuses = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    classes = [errors.EspmonError]
    while classes:
        each = classes.pop()
        statuses.add(each.exit_status)
        classes += each.__subclasses__()
    documented = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", EXIT_CODES, re.MULTILINE) for number in row.split(",")}
    assert statuses <= documented


def test_the_library_is_what_its_page_says(tmp_path):
    (tmp_path / "serial.log").write_bytes(b"hello\n")
    (tmp_path / "build").mkdir()
    blocks = re.findall(r"```python\n(.*?)```", LIBRARY, re.DOTALL)
    assert len(blocks) == 3
    code = "\n".join(blocks[:2])
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    compile(blocks[2], "live", "exec")


def test_importing_espmon_imports_next_to_nothing():
    code = "import sys, espmon; print(sorted(m for m in sys.modules if m.startswith('espmon')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['espmon']"


@pytest.mark.parametrize("name", espmon.__all__)
def test_each_public_name_is_there(name):
    assert getattr(espmon, name) is not None
    assert name in dir(espmon)


@pytest.mark.parametrize("name", ["daemon", "status", "events", "logs", "crashes", "symbols", "lend", "release", "reclaim", "recover", "image", "config", "service", "reload"])
def test_each_command_of_the_daemon_is_documented(name):
    assert f"espmon {name}" in (ROOT / "docs" / "daemon.md").read_text()
