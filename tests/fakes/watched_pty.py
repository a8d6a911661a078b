"""A board on a pseudo terminal, and espmon watching it as a process of its own, with or without a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30.0


def wait_until(condition, deadline_s=DEADLINE_S):
    """Polls until `condition` is true; what it returned. Fails after the deadline."""
    limit = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < limit, f"not within {deadline_s} s"
        time.sleep(0.01)
    return value


class PtyBoard:
    """The board's side of a serial line."""

    def __init__(self, link: Path | None = None) -> None:
        self.link = link
        self.master = -1
        self.plug_in()

    def plug_in(self) -> None:
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, True)
        self.device = os.ttyname(slave)
        tty.setraw(slave)
        self._slave = slave
        if self.link is not None:
            temporary = self.link.with_suffix(".new")
            temporary.symlink_to(self.device)
            temporary.rename(self.link)

    @property
    def name(self) -> str:
        return str(self.link) if self.link is not None else self.device

    def unplug(self) -> None:
        if self.link is not None:  # else it soon names somebody else's pty
            self.link.unlink(missing_ok=True)
        for each in (self._slave, self.master):
            with contextlib.suppress(OSError):
                os.close(each)
        self.master = self._slave = -1

    def say(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.master, rest) :]

    def hear(self, count: int) -> bytes:
        got = b""
        limit = time.monotonic() + DEADLINE_S
        while len(got) < count and time.monotonic() < limit:
            if select.select([self.master], [], [], 0.1)[0]:
                got += os.read(self.master, 4096)
        return got


class Espmon:
    """`python -m espmon` with its output gathered; `terminal=True` gives it a terminal for input and output."""

    def __init__(self, *args: str, terminal: bool = False, stdin=subprocess.DEVNULL, cwd=None, env=None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **(env or {})}
        environment.pop("NO_COLOR", None)
        environment.pop("FORCE_COLOR", None)
        environment.setdefault("TERM", "xterm-256color")
        self.screen = -1
        self.out = b""
        command = [sys.executable, "-m", "espmon", *args]
        if terminal:
            self.screen, self.tty = pty.openpty()
            self.resize(200)
            self.process = subprocess.Popen(
                command, stdin=self.tty, stdout=self.tty, stderr=self.tty, env=environment, cwd=cwd, start_new_session=True,
                preexec_fn=_own_terminal,
            )
        else:
            self.process = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=cwd
            )
            os.set_blocking(self.process.stdout.fileno(), False)

    def _take(self) -> None:
        fd = self.screen if self.screen >= 0 else self.process.stdout.fileno()
        while select.select([fd], [], [], 0)[0]:
            try:
                got = os.read(fd, 65536)
            except (BlockingIOError, OSError):
                return
            if not got:
                return
            self.out += got

    @property
    def text(self) -> str:
        self._take()
        return self.out.decode("utf-8", "replace")

    def wait_for(self, text: str) -> str:
        def there() -> bool:
            if text in self.text:
                return True
            assert self.process.poll() is None or text in self.text, f"ended with {self.process.returncode}: {self.text}{self.errors}"
            return False

        wait_until(there)
        return self.text

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def end(self) -> int:
        """Waits for its end; the exit status."""
        def ended() -> bool:
            self._take()
            return self.process.poll() is not None

        wait_until(ended)
        self._take()
        self.errors  # noqa: B018 - gathered before the pipe is closed
        return self.process.returncode

    @property
    def errors(self) -> str:
        if self.process.stderr is None or self.process.poll() is None:
            return ""
        if not hasattr(self, "_errors"):
            self._errors = self.process.stderr.read().decode("utf-8", "replace")
        return self._errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr, self.process.stdin):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if self.screen >= 0:
            os.close(self.screen)
            os.close(self.tty)


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
