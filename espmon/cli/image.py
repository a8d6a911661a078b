"""``espmon image add|learn|list``: known-good flash images for recovery."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from espmon.cli.daemon_options import ago, amount, names_daemon, plain, require_board
from espmon.errors import EspmonError, InputUnreadable, UsageProblem

if TYPE_CHECKING:
    from espmon.app.reach import Reach


_REBUILD = "Build it again, or take another file: recovery would refuse to write this one."


@click.group()
@names_daemon
@click.pass_context
def image(ctx: click.Context, config_path: str | None, state_dir: str | None) -> None:
    """Keep known-good flash images, which recovery compares boards with and repairs them from."""
    from espmon.app.reach import find_daemon

    ctx.obj = find_daemon(config_path, state_dir)


@image.command()
@click.argument("name")
@click.argument("files", nargs=-1, required=True, metavar="ADDR FILE [ADDR FILE]...")
@click.option("--chip", metavar="CHIP", help="The chip that it is for, when the files don't say it.")
@click.pass_obj
def add(reach: Reach, name: str, files: tuple[str, ...], chip: str | None) -> None:
    """Keep FILES as the known-good image of the board NAME.

    Example: espmon image add bench-3 0 firmware.bin
    """
    from espmon.app.wire import ask_once
    from espmon.bootloader.image import ImageFault, has_header, identify
    from espmon.cli.flash_options import pairs
    from espmon.store.images import ImageStore

    require_board(reach, name)
    pieces = []
    found_chip = chip
    for offset, file in pairs(files):
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            raise InputUnreadable(f"cannot read {file}: {error.strerror}", "Check the path.") from None
        if has_header(content):
            try:
                found = identify(content)
            except ImageFault as fault:
                raise UsageProblem(f"{file} is no good image: {fault}", _REBUILD) from None
            if found.fault:
                raise UsageProblem(f"{file} is no good image: {found.fault}", _REBUILD)
            found_chip = found_chip or found.chip
        elif content.startswith(b"\x7fELF"):
            raise UsageProblem(f"{file} is an ELF file, no flash image", "Give the .bin that the build makes of it.")
        pieces.append((offset, content))
    kept = ImageStore(reach.state_dir / "image").add(pieces, origin="added", port=name, chip=found_chip, source=str(files[1]))
    with contextlib.suppress(EspmonError):
        if reach.place is not None:
            ask_once(reach.place, "image-changed", port=name)
    click.echo(f"{kept.digest[:16]}  {amount(kept.size)}  for {name}" + (f", {found_chip}" if found_chip else ""))


@image.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also when the board was healthy for less time than the configuration asks for.")
@click.pass_obj
def learn(reach: Reach, name: str, force: bool) -> None:
    """Read the firmware back from the healthy board NAME, twice, and keep it. The board is reset.

    Parameters, calibration, NVS and file systems are not part of it.
    """
    from espmon.app.wire import ask_once

    answer = ask_once(reach.running(), "learn", port=name, force=force)
    click.echo(f"{answer['image'][:16]}  {amount(answer['bytes'])}  learnt from {name}")


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.pass_obj
def list_(reach: Reach, as_json: bool) -> None:
    """List kept images, the newest first; backups made before a write as well."""
    from espmon.store.images import ImageStore

    for found in ImageStore(reach.state_dir / "image").all():
        if as_json:
            click.echo(json.dumps(found))
        else:
            click.echo(
                plain(
                    f"{found['digest'][:16]}  {found['origin']:<7} {amount(found['size']):>10}  {found.get('port') or '-':<12} "
                    f"{found.get('chip') or '-':<8} {ago(found['added'])} ago  {found.get('source') or ''}"
                )
            )
