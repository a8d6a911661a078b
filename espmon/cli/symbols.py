"""``espmon symbols add|list|gc``: the ELF files that the daemon keeps for decoding."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from espmon.cli.daemon_options import ago, amount, names_daemon, plain

if TYPE_CHECKING:
    from espmon.app.reach import Reach
    from espmon.store.elfs import ElfStore


@click.group()
@names_daemon
@click.pass_context
def symbols(ctx: click.Context, config_path: str | None, state_dir: str | None) -> None:
    """Keep ELF files by their SHA-256, so that old firmware's crashes can be decoded."""
    from espmon.app.reach import find_daemon

    ctx.obj = find_daemon(config_path, state_dir)


def _store(reach: Reach) -> ElfStore:
    from espmon.store.elfs import ElfStore

    return ElfStore(reach.state_dir / "elf", reach.config.store.elf_bytes if reach.config else None)


@symbols.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--port", "port_name", metavar="NAME", help="The board that runs it; crashes of it are decoded again.")
@click.pass_obj
def add(reach: Reach, files: tuple[Path, ...], port_name: str | None) -> None:
    """Keep FILES; crashes that were stored without symbols are decoded with them by the daemon."""
    from espmon.app.wire import ask_once
    from espmon.errors import EspmonError

    store = _store(reach)
    for file in files:
        elf = store.add(file)
        if port_name is not None:
            with contextlib.suppress(EspmonError):
                if reach.place is not None:
                    ask_once(reach.place, "symbols-changed", port=port_name, sha256=elf.sha256, path=str(file.absolute()), built=file.stat().st_mtime)
        click.echo(f"{elf.sha256[:16]}  {amount(elf.size):>10}  {plain(file)}")
    if port_name is None and reach.place is not None:
        with contextlib.suppress(EspmonError):
            ask_once(reach.place, "symbols-changed")


@symbols.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.pass_obj
def list_(reach: Reach, as_json: bool) -> None:
    """List kept ELF files, the last used first."""
    for elf in _store(reach).all():
        if as_json:
            click.echo(json.dumps({"sha256": elf.sha256, "source": elf.source, "bytes": elf.size, "path": str(elf.path)}))
        else:
            click.echo(plain(f"{elf.sha256[:16]}  {amount(elf.size):>10}  used {ago(elf.used)} ago  {elf.source}"))


@symbols.command()
@click.option("--keep", "keep", metavar="SIZE", default="2 GiB", show_default=True, help="Remove the longest unused until so much is left.")
@click.pass_obj
def gc(reach: Reach, keep: str) -> None:
    """Remove ELF files that were not used for longest."""
    from espmon.app.config import size
    from espmon.errors import UsageProblem

    try:
        limit = size(keep)
    except ValueError as error:
        raise UsageProblem(f"--keep: {keep!r} is no size", f"It {error}.") from None
    gone = _store(reach).gc(limit_bytes=limit)
    click.echo(f"{len(gone)} removed, {amount(sum(e.size for e in gone))}")
