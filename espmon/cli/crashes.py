"""``espmon crashes [show|export]``: crashes grouped by fingerprint."""

from __future__ import annotations

import json
import sys
from typing import TextIO

import click

from espmon.cli.daemon_options import ago, names_daemon, plain, require_board
from espmon.errors import UsageProblem


@click.group(invoke_without_command=True)
@names_daemon
@click.option("--port", "name", metavar="NAME", help="Only crashes of this board.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object per group.")
@click.pass_context
def crashes(ctx: click.Context, config_path: str | None, state_dir: str | None, name: str | None, as_json: bool) -> None:
    """List crashes by fingerprint: how often, first and last seen, boards, firmware."""
    from espmon.app.reach import find_daemon

    ctx.obj = find_daemon(config_path, state_dir)
    if ctx.invoked_subcommand is not None:
        return
    if name is not None:
        require_board(ctx.obj, name)
    from espmon.events import iso_time
    from espmon.store.database import crash_groups, open_reader

    with open_reader(ctx.obj.database) as c:
        groups = crash_groups(c, port=name)
    for g in groups:
        if as_json:
            g["first_seen"], g["last_seen"] = iso_time(g["first_seen"]), iso_time(g["last_seen"])
            click.echo(json.dumps(g))
        else:
            firmware = f"  firmware {', '.join(f[:9] for f in g['firmware'][:3])}" if g["firmware"] else ""
            click.echo(plain(f"{g['fingerprint'][:16]}  {g['count']:>4} x  {g['title']}"))
            click.echo(plain(f"{'':<18}last {ago(g['last_seen'])} ago, first {ago(g['first_seen'])} ago, on {', '.join(g['boards'])}{firmware}"))
    if not groups and not as_json:
        click.echo("no crash is stored")


@crashes.command()
@click.argument("fingerprint")
@click.option("--json", "as_json", is_flag=True, help="As the contract's JSON.")
@click.option("--all", "everything", is_flag=True, help="Every occurrence, not only the last.")
@click.pass_context
def show(ctx: click.Context, fingerprint: str, as_json: bool, everything: bool) -> None:
    """Show the last crash whose fingerprint begins with FINGERPRINT."""
    from espmon.store.database import crash_occurrences, open_reader

    with open_reader(ctx.obj.database) as c:
        found = crash_occurrences(c, fingerprint)
        shown = 0
        for crash, line in found:
            shown += 1
            if as_json:
                from espmon.sinks.jsonl import print_json_line

                print_json_line(line)
            else:
                from espmon.sinks.console import Console
                from espmon.sinks.screen import Screen

                console = Console(Screen(colour="auto"))
                console.show(crash)
                console.close()
            if not everything:
                break
    if not shown:
        raise UsageProblem(f"no crash has a fingerprint that begins with {fingerprint!r}", "`espmon crashes` lists them.")


@crashes.command()
@click.argument("fingerprint", required=False)
@click.option("-o", "--output", metavar="FILE", type=click.File("w", encoding="utf-8", lazy=True), default="-", help="Where to; standard output without it.")
@click.pass_context
def export(ctx: click.Context, fingerprint: str | None, output: TextIO) -> None:
    """Write all stored crashes (or those of one fingerprint) as JSON lines."""
    from espmon.sinks.jsonl import print_json_line
    from espmon.store.database import crash_occurrences, open_reader

    count = 0
    with open_reader(ctx.obj.database) as c:
        for _, line in crash_occurrences(c, fingerprint or ""):
            if output.name == "-":
                print_json_line(line)
            else:
                output.write(line + "\n")
            count += 1
    if output.name != "-":
        print(f"{count} crashes", file=sys.stderr)  # noqa: T201
