"""A daemon as a process, or a supervisor in this one, with boards on ptys or sim://: what the daemon's tests and the soak share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from espmon.app.config import read_config
from espmon.app.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], Any], seconds: float = 15.0, what: str = "it") -> Any:
    """Polls until `condition` is true; its value."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")


class PtyBoard:
    """A board on a pseudo terminal, reached through the link `path`, which it can leave and come back to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.master = -1
        self.plug()

    def plug(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        name = os.ttyname(slave)
        fresh = self.path.with_suffix(".new")
        fresh.symlink_to(name)
        os.replace(fresh, self.path)
        os.close(slave)

    def unplug(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        if self.master >= 0:
            os.close(self.master)
        self.master = -1

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.master, data) :]

    def hear(self, count: int, seconds: float = 10.0) -> bytes:
        os.set_blocking(self.master, False)
        out = b""

        def more() -> bool:
            nonlocal out
            with contextlib.suppress(BlockingIOError):
                out += os.read(self.master, 4096)
            return len(out) >= count

        until(more, seconds, "hearing")
        os.set_blocking(self.master, True)
        return out


class DaemonProcess:
    """`espmon daemon --json` with its own state folder; its events are collected."""

    def __init__(self, folder: Path, config: str, *options: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "espmon.toml"
        self.config.write_text(config)
        self.options = options
        self.events: list[dict[str, Any]] = []
        self.process: subprocess.Popen[str] | None = None
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": str(folder / "xdg"),
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONPATH": str(ROOT),
            "ESPMON_CONFIG": str(self.config),
            "ESPMON_STATE_DIR": str(self.state),
        }

    def start(self, wait: bool = True) -> None:
        self.log = (self.folder / "daemon.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "espmon", "daemon", "--config", str(self.config), "--state-dir", str(self.state), "--json", *self.options],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=self.environment, cwd=ROOT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if wait:
            until(lambda: (self.state / "control.sock").exists() and self.command("status", check=False).returncode in (0, 27), 20, "the start")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.events.append(json.loads(line))

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        self._reader.join(5)
        self._close()
        return status

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        self._close()

    def _close(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        self.log.close()

    def command(self, *words: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "espmon", *words], capture_output=True, text=True, env=self.environment, cwd=ROOT, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"espmon {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.own_log()[-3000:]}")
        return done

    def own_log(self) -> str:
        return (self.folder / "daemon.log").read_text()

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["type"] in types]

    def raw_log(self, name: str) -> bytes:
        from espmon.store.logreader import read_log

        return b"".join(p.raw for p in read_log(self.state / "log" / name))

    def status(self) -> dict[str, Any]:
        done = self.command("status", "--json", check=False)
        if not done.stdout:
            raise AssertionError(done.stderr + self.own_log()[-3000:])
        value: dict[str, Any] = json.loads(done.stdout)
        return value


@contextlib.contextmanager
def running(daemon: DaemonProcess, *, wait: bool = True) -> Iterator[DaemonProcess]:
    """Starts it, waits until it answers, and kills what is left of it in the end."""
    daemon.start(wait)
    try:
        yield daemon
    finally:
        if daemon.process is not None:
            daemon.kill()


@contextlib.contextmanager
def supervising(folder: Path, board: PtyBoard) -> Iterator[Supervisor]:
    """A supervisor that watches `board` as ``b``; `folder` gets ``espmon.toml``, its state and the log."""
    config = folder / "espmon.toml"
    config.write_text(f'[log]\nlow_water = 0\n[[port]]\nname = "b"\nmatch = {{ device = "{board.path}" }}\nbaud = 115200\n')
    supervisor = Supervisor(read_config(config), folder / "state", folder / "log")
    supervisor.start()
    try:
        until(lambda: supervisor.watches["b"].state == "run", what="opening")
        yield supervisor
    finally:
        supervisor.stop(2.0)
