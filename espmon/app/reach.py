"""How a command finds the daemon, its configuration and its folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espmon.app.config import Config, ConfigProblem, read_config
from espmon.app.folders import default_config_path, default_log_dir, default_state_dir, is_there
from espmon.app.wire import DaemonUnreachable, Place, ask_once, place_of, places, running_daemons, socket_path
from espmon.errors import UsageProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One daemon, running or not: where it is asked, where it keeps things. `config` None: not readable for us."""

    place: Place | None
    state_dir: Path
    log_dir: Path
    config: Config | None = None

    @property
    def database(self) -> Path:
        return self.state_dir / "espmon.sqlite"

    def status(self) -> dict[str, Any] | None:
        """The running daemon's status, None when none runs."""
        if self.place is None:
            return None
        try:
            status: dict[str, Any] = ask_once(self.place, "status")["status"]
        except DaemonUnreachable:
            return None
        return status

    def running(self) -> Place:
        """Where the daemon is asked. Raises :class:`DaemonUnreachable`."""
        if self.place is None:
            raise DaemonUnreachable("no daemon is running", "Start one with `espmon daemon`, or name it with --state-dir.")
        return self.place


def find_daemon(config_path: str | None = None, state_dir: str | None = None) -> Reach:
    """The daemon that the options, the environment, or its own note name; with several running, options must choose."""
    chosen_config = config_path or os.environ.get("ESPMON_CONFIG")
    chosen_state = state_dir or os.environ.get("ESPMON_STATE_DIR")
    if given := os.environ.get("ESPMON_SOCKET"):
        return _with_folders(Place(socket=Path(given)), chosen_config, chosen_state)
    notes = running_daemons()
    if chosen_state:
        real = os.path.realpath(chosen_state)
        notes = [n for n in notes if os.path.realpath(n["state_dir"]) == real]
    if chosen_config:
        real = os.path.realpath(chosen_config)
        notes = [n for n in notes if real in [os.path.realpath(f) for f in n["config"]]]
    if len(notes) > 1:
        told = ", ".join(n["state_dir"] for n in notes)
        raise UsageProblem(f"several daemons run here: {told}", "choose one with --state-dir")
    if notes:
        note = notes[0]
        return Reach(place=place_of(note), state_dir=Path(note["state_dir"]), log_dir=Path(note["log_dir"]))
    return _with_folders(None, chosen_config, chosen_state)


def _with_folders(place: Place | None, config_path: str | None, state_dir: str | None) -> Reach:
    path = Path(config_path) if config_path else default_config_path()
    config: Config | None
    try:
        config = read_config(path, required=config_path is not None)
    except ConfigProblem:
        if config_path is not None:
            raise
        config = None
    explicit = Path(state_dir) if state_dir else None
    if config is not None:
        state, log = places(config, explicit)
    else:
        state = explicit or default_state_dir()
        log = default_log_dir(state)
    if place is None:
        if config is not None and config.control.listen is not None:
            place = Place(address=config.control.listen, token_file=state / "control.token")
        else:
            candidate = socket_path(config, state, explicit_state=explicit is not None)
            system = Path("/run/espmon/control.sock")
            found = next((p for p in (candidate, *(() if explicit else (system,))) if is_there(p)), None)
            place = Place(socket=found) if found is not None else None
    return Reach(place=place, state_dir=state, log_dir=log, config=config)


def board_held_by_daemon(word: str) -> Reach | None:
    """The running daemon when it has a board called `word`, or the device `word`; None otherwise. Never raises, never waits long."""
    try:
        reach = find_daemon()
    except (UsageProblem, OSError):
        return None
    return reach if holds(reach, word) else None


def holds(reach: Reach, word: str) -> bool:
    """True when the daemon runs and has a board called `word`, or the device `word`."""
    status = reach.status()
    if status is None:
        return False
    if word in status["ports"]:
        return True
    real = os.path.realpath(word)
    devices = [p["device"] for p in status["ports"].values() if p.get("device") and p["state"] not in ("lent", "failed")]
    return any(device in (word, f"/dev/{word}") or os.path.realpath(device) == real for device in devices)


def board_names() -> list[str]:
    """The boards of the running daemon; none when there is no daemon. Never raises, never waits long."""
    try:
        status = find_daemon().status()
    except (UsageProblem, OSError):
        return []
    return list(status["ports"]) if status is not None else []
