"""Options that all commands of the daemon share, and the words they have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from espmon.app.reach import Reach


def names_daemon(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --config and --state-dir, which name the daemon when it isn't the only one."""
    command = click.option("--state-dir", metavar="DIR", type=click.Path(file_okay=False), help="The daemon's state folder, when it isn't the usual one.")(command)
    return click.option("--config", "config_path", metavar="FILE", type=click.Path(dir_okay=False), help="The daemon's configuration file.")(command)


def known_boards(reach: Reach) -> list[str]:
    """Boards of the daemon or its configuration, and those that have a log."""
    status = reach.status()
    names: list[str] = list(status["ports"]) if status is not None else []
    if reach.config is not None:
        names += [port.name for port in reach.config.ports]
    with contextlib.suppress(OSError):
        names += sorted(each.name for each in reach.log_dir.iterdir() if each.is_dir())
    return list(dict.fromkeys(names))


def require_board(reach: Reach, name: str) -> None:
    """Raises UsageProblem when boards are known and none of them is called `name`: a slip of the keyboard, not an empty list."""
    from espmon.errors import UsageProblem

    known = known_boards(reach)
    if known and name not in known:
        raise UsageProblem(f"no board is called {name!r}", f"Boards: {', '.join(known[:20])}")


def ago(at: str | float | None, now: float | None = None) -> str:
    """How long ago, in few words: ``3 min``."""
    if at is None:
        return "never"
    when = datetime.fromisoformat(at).timestamp() if isinstance(at, str) else at
    seconds = max(0.0, (datetime.now(UTC).timestamp() if now is None else now) - when)
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (129_600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def amount(count: float | None) -> str:
    """Bytes in few words: ``3.1 MiB``."""
    if count is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def plain(text: object) -> str:
    """Text for a terminal: what came from a device or a file can't carry escape sequences."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text))


def local_time(at: float | None) -> str:
    """``2026-11-20 12:00:00.123`` in local time; blanks where it is not known."""
    if at is None:
        return " " * 23
    try:
        return datetime.fromtimestamp(at).isoformat(" ", "milliseconds")  # noqa: DTZ006 - people read local time
    except (ValueError, OverflowError, OSError):
        return " " * 23


def moment(text: str) -> float:
    """A time that a person wrote: ``10m``, ``2h``, ``3d`` ago, or ISO 8601. Unix seconds. Raises UsageProblem."""
    import re
    import time

    from espmon.errors import UsageProblem

    if m := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text.strip()):
        return time.time() - float(m[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}[m[2]]
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageProblem(f"{text!r} is no time", "Write 10m, 2h, 3d (ago) or 2026-11-20T12:00:00.") from None
    return when.timestamp()  # without a zone it is local time
