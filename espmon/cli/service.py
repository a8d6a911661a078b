"""``espmon service show|install|remove``: the daemon as a service."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_PLATFORMS = {"systemd": "linux", "launchd": "darwin", "task-scheduler": "win32"}


@click.group()
def service() -> None:
    """Run the daemon as a service: systemd, launchd or Task Scheduler."""


_user = click.option("--user", is_flag=True, help="As a service of yours, without root.")
_config = click.option("--config", "config_path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="The configuration that it uses.")


@service.command()
@_user
@_config
@click.option("--for", "manager", type=click.Choice(list(_PLATFORMS)), help="For another system than this one.")
def show(user: bool, config_path: Path | None, manager: str | None) -> None:
    """Print the service file that would be installed."""
    from espmon.app import service as services

    wanted = services.service(user=user, config=config_path, platform=_PLATFORMS[manager] if manager else sys.platform)
    click.echo(f"# {wanted.path}", err=True)
    click.echo(wanted.text, nl=False)


@service.command()
@_user
@_config
def install(user: bool, config_path: Path | None) -> None:
    """Install the service and start it."""
    from espmon.app import service as services
    from espmon.app.config import read_config
    from espmon.app.folders import default_config_path

    read_config(config_path or default_config_path(), required=config_path is not None)
    wanted = services.service(user=user, config=config_path)
    services.install(wanted)
    click.echo(f"{wanted.path}: installed and started ({wanted.kind})")


@service.command()
@_user
def remove(user: bool) -> None:
    """Stop the service and remove it; state, logs and configuration stay."""
    from espmon.app import service as services

    wanted = services.service(user=user)
    services.remove(wanted)
    click.echo(f"{wanted.path}: removed")
