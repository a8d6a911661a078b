"""Source lines for a crash's frames. The paths come out of an ELF and are hostile: only plain files below known roots.

A root is the ELF's project folder or a ``--source-root``. Nothing is opened that isn't a regular file of bounded size
whose real path lies below a root; device names, network paths and links that lead out are never touched.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

MAX_SOURCE_BYTES = 2 << 20
_MAX_PATH = 1024
_BUILD_FOLDERS = frozenset({"build", ".pio", "out", "output", "debug", "release", ".build"})
# What stands at the top of a project: PlatformIO, ESP-IDF, CMake, Make, Git.
_PROJECT_MARKS = ("platformio.ini", "sdkconfig", "CMakeLists.txt", "Makefile", ".git")
# What compilers read. An ELF that lies in a home folder must not make us quote keys or settings.
_SOURCE_NAME = re.compile(
    r"(?i).\.(c|cc|cpp|cxx|c\+\+|h|hh|hpp|hxx|h\+\+|inc|inl|ipp|tcc|def|s|asm|ino|pde|rs|zig|nim|ad[abs]|go|swift|m|mm|d|f|f90|pas|lua|py|ulp|y|l)\Z"
)
_WINDOWS_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$|clock\$)(\.|$)")


def project_folder(elf: str | Path) -> Path:
    """The folder whose sources an ELF was built from: the nearest with a project's mark, else the one it lies in.

    At most six folders up, and never the home folder or a file system's root.
    """
    folder = Path(os.path.realpath(elf)).parent
    home = Path(os.path.realpath(os.path.expanduser("~")))
    best = folder.parent if folder.name.lower() in _BUILD_FOLDERS else folder
    if best in (home, Path(best.anchor)):
        best = folder
    candidate = folder
    for _ in range(6):
        if candidate == home or candidate == Path(candidate.anchor):
            break
        if candidate.name.lower() not in _BUILD_FOLDERS and any(os.path.exists(candidate / mark) for mark in _PROJECT_MARKS):
            return candidate
        candidate = candidate.parent
    return best


class SourceFiles:
    """Finds lines of source files below `roots`."""

    def __init__(self, roots: Iterable[str | Path]) -> None:
        self.roots = list(dict.fromkeys(os.path.realpath(root) for root in roots))

    def line(self, file: str | None, number: int | None) -> str | None:
        """Line `number` (from 1) of `file` as it stands in debug information, or None. Never raises."""
        if not file or not number or number < 1 or len(file) > _MAX_PATH or "\0" in file:
            return None
        if file.startswith(("\\\\", "//")):  # a network or device path
            return None
        parts = [part for part in re.split(r"[/\\]", re.sub(r"^[A-Za-z]:", "", file)) if part not in ("", ".")]
        parts = _without_parents(parts)
        if not parts or not _SOURCE_NAME.search(parts[-1]) or any(":" in part or _WINDOWS_DEVICES.match(part) for part in parts):
            return None
        for root in self.roots:
            # the path as it is when it already lies below the root, then ever shorter ends of it
            inside = os.path.relpath(file, root) if os.path.isabs(file) else None
            if inside is not None and not inside.startswith(".."):
                text = _read_line(root, inside.split(os.sep), number)
                if text is not None:
                    return text
            for first in range(min(len(parts), 12)):
                text = _read_line(root, parts[first:], number)
                if text is not None:
                    return text
        return None


def _without_parents(parts: list[str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if part == "..":
            if out:
                out.pop()
        else:
            out.append(part)
    return out


def _read_line(root: str, parts: list[str], number: int) -> str | None:
    path = os.path.join(root, *parts)
    try:
        real = os.path.realpath(path)
        if os.path.commonpath([real, root]) != root:
            return None
        if not stat.S_ISREG(os.lstat(real).st_mode):
            return None
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(real, flags)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SOURCE_BYTES:
            return None
        content = os.read(descriptor, MAX_SOURCE_BYTES)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    lines = content.split(b"\n", number)
    if number > len(lines):
        return None
    return lines[number - 1].rstrip(b"\r").decode("utf-8", "replace")[:500]
