"""Whether a daemon may be running here at all: the cheap question that every command asks before it loads the rest."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def registry() -> Path:
    """Where this user's daemons write down how they are reached."""
    return Path(platformdirs.user_state_dir("espmon", appauthor=False)) / "daemons"


def may_run() -> bool:
    """False when no daemon of this user's, nor the system's, can be found without options."""
    if any(name in os.environ for name in ("ESPMON_SOCKET", "ESPMON_STATE_DIR")) or os.path.exists("/run/espmon/control.sock"):
        return True
    try:
        return any(name.endswith(".json") for name in os.listdir(registry()))
    except OSError:
        return False
