"""Who else has a port: other programs' descriptors on Linux, `lsof` on macOS, lock files that name a live process."""

from __future__ import annotations

import os
import re
import sys

from espmon.values import Value, positional_value

_LOCK_FOLDERS = ("/var/lock", "/run/lock", "/var/spool/lock")


@positional_value
class Holder(Value):
    """A program that holds a port: its process id and its name (None where the system doesn't tell)."""

    pid: int
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.name or 'a program'} (pid {self.pid})"


def program_name(pid: int) -> str | None:
    """The name of a process on Linux, printable and at most 64 characters; None when it can't be told."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            name = comm.read(64).decode("utf-8", "replace").strip()
    except OSError:
        return None
    return "".join(c if c.isprintable() else "?" for c in name) or None


def holders(device: str) -> list[Holder]:
    """Other processes that have `device` open, as far as we may look into them. Empty on Windows."""
    if sys.platform == "linux":
        return _from_proc(os.path.realpath(device))
    if sys.platform == "darwin":
        return _from_lsof(device)
    return []


def _from_proc(path: str) -> list[Holder]:
    found = []
    me = os.getpid()
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []
    for pid in pids:
        if pid == me:
            continue
        folder = f"/proc/{pid}/fd"
        try:
            descriptors = os.listdir(folder)
        except OSError:  # another user's process, or it has just ended
            continue
        for descriptor in descriptors:
            try:
                if os.readlink(f"{folder}/{descriptor}") == path:
                    found.append(Holder(pid, program_name(pid)))
                    break
            except OSError:
                continue
    return found


def _from_lsof(device: str) -> list[Holder]:
    import subprocess  # 20 ms, and only needed here

    try:
        done = subprocess.run(
            ["/usr/sbin/lsof", "-F", "pc", "--", device], capture_output=True, timeout=3, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for match in re.finditer(rb"^p(\d+)\nc([^\n]*)", done.stdout, re.MULTILINE):
        pid = int(match[1])
        if pid != os.getpid():
            name = match[2].decode("utf-8", "replace")
            found.append(Holder(pid, "".join(c if c.isprintable() else "?" for c in name)[:64] or None))
    return found


def lock_holder(device: str, folders: tuple[str, ...] = _LOCK_FOLDERS) -> Holder | None:
    """The live process that a UUCP lock file (``LCK..ttyUSB0``) names. We write none; some programs still do."""
    if sys.platform == "win32":
        return None
    for folder in folders:
        path = os.path.join(folder, "LCK.." + os.path.basename(os.path.realpath(device)))
        try:
            with open(path, "rb") as lock:
                content = lock.read(64)
        except OSError:
            continue
        match = re.match(rb"\s*(\d{1,10})\b", content)
        if match and (pid := int(match[1])) not in (0, os.getpid()) and _alive(pid):
            return Holder(pid, program_name(pid))
    return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
