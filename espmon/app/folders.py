"""Where configuration, state and logs are, unless a person says otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs


def default_config_path() -> Path:
    """Where the configuration is looked for: the first that exists of the user's and the system's, else the user's."""
    if named := os.environ.get("ESPMON_CONFIG"):
        return Path(named)
    user = Path(platformdirs.user_config_dir("espmon", appauthor=False)) / "espmon.toml"
    system = (
        Path("/etc/espmon/espmon.toml")
        if sys.platform != "win32"
        else Path(platformdirs.site_config_dir("espmon", appauthor=False)) / "espmon.toml"
    )
    if is_there(user):
        return user
    if is_there(system) or (sys.platform != "win32" and os.geteuid() == 0):
        return system
    return user


def is_there(path: Path) -> bool:
    """True also for what we may not look at: reading it tells why, and defaults don't stand in for it."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def default_state_dir() -> Path:
    """systemd's StateDirectory, /var/lib/espmon for root, the user's data folder otherwise."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if sys.platform != "win32" and os.geteuid() == 0:
        return Path("/var/lib/espmon")
    return Path(platformdirs.user_data_dir("espmon", appauthor=False))


def default_log_dir(state_dir: Path) -> Path:
    """systemd's LogsDirectory, else ``log`` in the state folder."""
    if given := os.environ.get("LOGS_DIRECTORY"):
        return Path(given.split(":")[0])
    return state_dir / "log"
