"""Which configured board is at which port. Never a guess."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from espmon.app.config import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A port that is there now. What isn't known is None. `mac`: read from the chip earlier, if ever."""

    device: str
    usb_serial: str | None = None
    usb_path: str | None = None
    vid: int | None = None
    pid: int | None = None
    mac: str | None = None
    shared_serial: bool = False  # the adapter's maker gives every one the same serial number


def _fits(match: Mapping[str, str | int], candidate: Candidate, resolve: Callable[[str], str]) -> bool:
    for key, wanted in match.items():
        if key == "url":
            return False
        if key == "device":
            if candidate.device != wanted and resolve(candidate.device) != resolve(str(wanted)):
                return False
        elif key == "mac":
            if (candidate.mac or "").lower() != wanted:
                return False
        elif getattr(candidate, key) != wanted:
            return False
    return True


def assign(
    ports: Sequence[Section], candidates: Sequence[Candidate], *, resolve: Callable[[str], str] = os.path.realpath
) -> tuple[dict[str, str], dict[str, str]]:
    """Which section is which device: ({name: device or URL}, {name: why it is none}).

    A section that fits two boards, and a board that two sections fit, stay unassigned and are told.
    """
    resolve = functools.cache(resolve)
    found: dict[str, str] = {}
    problems: dict[str, str] = {}
    takers: dict[str, list[str]] = {}
    for port in ports:
        name, match = port.values["name"], port.values["match"]
        if "url" in match:
            found[name] = str(match["url"])
            continue
        fitting = [c for c in candidates if _fits(match, c, resolve)]
        if len(fitting) > 1:
            problems[name] = "matches several boards: " + ", ".join(c.device for c in fitting)
        elif fitting:
            takers.setdefault(fitting[0].device, []).append(name)
    for device, names in takers.items():
        if len(names) == 1:
            found[names[0]] = device
        else:
            for name in names:
                problems[name] = f"{device} is matched by {' and '.join(names)}"
    return found, problems
