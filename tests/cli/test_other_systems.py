"""No Windows or macOS is at hand in CI: at least every module is imported as there, without the modules that only POSIX has.

That is all this shows. What those systems do at run time is read, typed (mypy for each) and untested.
"""

import subprocess
import sys

import pytest

SCRIPT = """
import importlib, pkgutil, sys
# what is not ours is imported as this system wants it
import asyncio, concurrent.futures, ctypes, ctypes.util, multiprocessing.connection, multiprocessing.context, multiprocessing.spawn, multiprocessing.queues
import multiprocessing.popen_spawn_posix, multiprocessing.shared_memory, mmap, socket, ssl, sqlite3, subprocess, tempfile, urllib.request
import click, click.shell_completion, rich.console, rich.panel, rich.progress, rich.table, serial, serial.rfc2217, serial.tools.list_ports, serial.urlhandler.protocol_socket
import elftools.elf.elffile, platformdirs
import espmon

names = [m.name for m in pkgutil.walk_packages(espmon.__path__, "espmon.") if m.name != "espmon.__main__"]
MISSING = {missing!r}
for name in MISSING:
    sys.modules.pop(name, None)

class Refuses:
    def find_spec(self, name, *_):
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuses())
sys.platform = {platform!r}
for name in names:
    importlib.import_module(name)
print(len(names))
"""
POSIX_ONLY = ("fcntl", "termios", "tty", "pty", "resource", "pwd", "grp", "syslog")


@pytest.mark.parametrize(("platform", "missing"), [("win32", POSIX_ONLY), ("darwin", ())])
def test_every_module_can_be_imported(platform, missing):
    script = SCRIPT.replace("{missing!r}", repr(missing)).replace("{platform!r}", repr(platform))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
