"""``espmon config check|show|init``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from espmon.errors import UsageProblem

if TYPE_CHECKING:
    from espmon.app.config import Config


@click.group()
def config() -> None:
    """Check, show or begin the daemon's configuration."""


def _path(file: str | None) -> Path:
    from espmon.app.folders import default_config_path

    return Path(file) if file else default_config_path()


@config.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
def check(file: str | None) -> None:
    """Tell whether FILE and its drop-ins are right; status 2 and every problem with its line when not."""
    from espmon.app.config import ConfigProblem, read_config

    path = _path(file)
    try:
        found = read_config(path)
    except ConfigProblem as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        raise SystemExit(2) from None
    boards = f"{len(found.ports)} board{'' if len(found.ports) == 1 else 's'}"
    click.echo(f"{path}: right, {boards}" + (f", {len(found.files) - 1} drop-ins" if len(found.files) > 1 else ""))
    for note in _not_there_yet(found):
        click.echo(f"note: {note}")


def _not_there_yet(found: Config) -> Iterator[str]:
    """What the daemon can run without, but hardly as it was meant."""
    from espmon.app.wire import places
    from espmon.store.elfs import expand
    from espmon.store.images import ImageStore

    state, _ = places(found, None)
    for port in found.ports:
        pieces = port.values["image"] or ()
        for piece in pieces:
            if not os.path.isfile(piece.file):
                yield f"{port.name}: there is no image file {piece.file}"
        if port.recover == "flash" and not pieces and ImageStore(state / "image").known_good(port.name) is None:
            yield f"{port.name}: recover = \"flash\" has no known-good image to write; `espmon image add {port.name} 0 FILE` gives it one"
        if port.elf and not any(os.path.isfile(path) for path in expand(port.elf)):
            yield f"{port.name}: no ELF file is at {', '.join(port.elf)} yet"


@config.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(file: str | None, as_json: bool) -> None:
    """Show each value and where it came from."""
    from espmon.app.config import read_config, show_config

    rows = show_config(read_config(_path(file), required=file is not None))
    if as_json:
        click.echo(json.dumps([{"section": s, "key": k, "value": v, "origin": str(o)} for s, k, v, o in rows], indent=1))
        return
    section = None
    for name, key, value, origin in rows:
        if name != section or (name in ("port", "hook") and key in ("name", "on")):
            section = name
            click.echo(f"[[{name}]]" if name in ("port", "hook") else f"[{name}]")
        click.echo(f"  {f'{key} = {value}':<50} # {origin}")


@config.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(file: str | None, force: bool) -> None:
    """Write a commented file for the boards that are plugged in (`-` prints it)."""
    from espmon.app.config import sample_config
    from espmon.port import list_ports

    boards: list[tuple[str, dict[str, str | int], str]] = []
    serials = [p.serial_number for p in list_ports() if p.serial_number]
    for port in list_ports():
        if port.vid is None:
            continue
        match: dict[str, str | int]
        if port.serial_number and serials.count(port.serial_number) == 1 and port.serial_number not in ("0001", "0"):
            match = {"usb_serial": port.serial_number}
        elif port.location:
            match = {"usb_path": port.location}
        else:
            match = {"device": port.device}
        name = re.sub(r"[^a-z0-9]+", "-", f"board-{len(boards) + 1}")
        boards.append((name, match, f"{port.adapter or port.description or port.usb_id} at {port.device}"))
    text = sample_config(boards)
    if file == "-":
        click.echo(text, nl=False)
        return
    path = _path(file)
    if os.path.exists(path) and not force:
        raise UsageProblem(f"{path} exists", "Use --force to replace it, or name another file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise UsageProblem(f"cannot write {path}: {error.strerror}", "Name a file in a folder of yours.") from None
    click.echo(f"{path}: {len(boards)} board{'' if len(boards) == 1 else 's'}; edit it, then `espmon config check {path}`")
