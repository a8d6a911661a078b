"""``espmon status``: every board of the daemon at a glance."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from espmon.cli.daemon_options import ago, amount, names_daemon, plain
from espmon.errors import EXIT_ATTENTION


@click.command()
@names_daemon
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def status(config_path: str | None, state_dir: str | None, as_json: bool) -> None:
    """Show every board: state, last reset, crashes, gaps, recovery.

    Exit status 0 when all boards run, 10 when no daemon answers, 27 when a board needs you.
    """
    from espmon.app.reach import find_daemon
    from espmon.store.database import open_reader, port_summary

    reach = find_daemon(config_path, state_dir)
    reach.running()
    found = reach.status()
    if found is None:
        from espmon.app.wire import DaemonUnreachable

        raise DaemonUnreachable("no daemon answers", "Start one with `espmon daemon`, or name it with --state-dir.")
    with open_reader(reach.database) as c:
        for name, port in found["ports"].items():
            port.update(port_summary(c, name, time.time()))
    attention = [n for n, p in found["ports"].items() if _needs_you(p)]
    found["attention"] = attention
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        _print(found)
    sys.exit(EXIT_ATTENTION if attention or found["low_on_space"] or found["database"]["stuck"] else 0)


def _needs_you(port: dict[str, Any]) -> bool:
    return (
        port["state"] in ("away", "failed")
        or port["problem"] is not None
        or port["recovery"]["locked"] is not None
        or port["recovery"]["incident"] is not None
        or port["log"]["full"]
    )


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("board", "state", "device", "up", "last reset", "resets/h", "crashes", "bytes", "gaps"):
        table.add_column(title, overflow="fold")
    for name, port in found["ports"].items():
        last = port.get("last_boot")
        # the cause alone: what else the ROM may mean by it is in the events
        reset = f"{(last['meaning'] or 'boot').partition(':')[0]}, {ago(last['at'])} ago" if last else "none seen"
        state = port["state"] + (f" ({port['holder']})" if port["holder"] else "")
        crashes = sum(g["count"] for g in port["crashes"])
        table.add_row(
            *(
                Text(plain(cell))
                for cell in (
                    name,
                    state,
                    port["device"] or "-",
                    ago(port["up_since"]) if port["up_since"] else "-",
                    reset,
                    sum(port["resets_last_hour"].values()),
                    crashes,
                    amount(port["bytes"]),
                    port["gaps"]["count"] or "-",
                )
            )
        )
    # piped, each board stays one line: for grep and awk
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 500)
    console.print(table)
    for name, port in found["ports"].items():
        recovery = port["recovery"]
        if port["problem"]:
            console.print(Text(f"{name}: {plain(port['problem'])}"))
        if recovery["incident"]:
            console.print(Text(f"{name}: recovery under way ({recovery['running'] or 'waiting for the board'})"))
        if recovery["locked"]:
            console.print(Text(f"{name}: {plain(recovery['locked'])}; espmon recover {name} --unlock allows it again"))
        for group in port["crashes"][:3]:
            console.print(Text(f"{name}: {group['count']} x {plain(group['title'])}  [{group['fingerprint'][:12]}]"))
    if found["brake"]:
        console.print(Text(plain(found["brake"])))
    free = f"{amount(found['free_bytes'])} free"
    console.print(Text(f"logs in {found['log_dir']}, {free}" + (": raw logging pauses" if found["low_on_space"] else "")))
