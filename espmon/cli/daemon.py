"""``espmon daemon``: watch all configured boards until a signal; ``espmon reload``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from espmon.cli.daemon_options import names_daemon


@click.command()
@names_daemon
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines on standard output.")
def daemon(config_path: str | None, state_dir: str | None, as_json: bool) -> None:
    """Watch all configured boards until a signal: log, decode, count crashes, recover.

    Runs in the foreground; `espmon service` makes it a service. SIGHUP reads the configuration again.
    """
    from espmon.app.daemon import run_daemon
    from espmon.app.folders import default_config_path

    path = Path(config_path) if config_path else default_config_path()
    sys.exit(
        run_daemon(
            path, config_required=config_path is not None, state_dir=Path(state_dir) if state_dir else None, as_json=as_json
        )
    )


@click.command()
@names_daemon
def reload(config_path: str | None, state_dir: str | None) -> None:
    """Make the daemon read its configuration again; ports whose settings stayed are not touched."""
    from espmon.app.reach import find_daemon
    from espmon.app.wire import ask_once

    later = ask_once(find_daemon(config_path, state_dir).running(), "reload")["needs_restart"]
    click.echo("configuration read again" + (f"; only after a restart: {', '.join(later)}" if later else ""))
