"""``espmon recover NAME``: begin a recovery by hand, or tell what would be done."""

from __future__ import annotations

import json
import sys

import click

from espmon.cli.daemon_options import CONTEXT, names_daemon, plain


@click.command(context_settings=CONTEXT)
@click.argument("name")
@names_daemon
@click.option("--dry-run", is_flag=True, help="Tell what would be done and why; do nothing.")
@click.option("--unlock", is_flag=True, help="End a lock-out or a cool-down; begins nothing.")
@click.option("--reset-only", is_flag=True, help="Reset at most, don't flash.")
@click.option("--json", "as_json", is_flag=True, help="The recovery's events as JSON lines; with --dry-run the plan.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), default=300.0, show_default=True, metavar="S", help="Wait so long for the end.")
def recover(
    name: str, config_path: str | None, state_dir: str | None, dry_run: bool, unlock: bool, reset_only: bool, as_json: bool, timeout_s: float
) -> None:
    """Bring the board NAME back: reset, compare its flash with the known-good image, write what differs.

    Works on boards of the daemon. A board that talks is not touched. Exit status 0 when it recovered, 1 when it was given
    up, 25 when a guard refused.
    """
    from espmon.app.reach import find_daemon
    from espmon.app.wire import ask, ask_once, frames
    from espmon.cli.events import in_words
    from espmon.errors import EXIT_REFUSED, EXIT_TIMEOUT

    place = find_daemon(config_path, state_dir).running()
    if unlock or dry_run:
        answer = ask_once(place, "recover", port=name, unlock=unlock, dry_run=dry_run, begin=False)
        if dry_run and as_json:
            click.echo(json.dumps({"name": answer["name"], "plan": answer["plan"]}))
        elif dry_run:
            for line in answer["plan"]:
                click.echo(plain(line))
        else:
            click.echo(f"{answer['name']}: recoveries are allowed again")
        return
    wire, _ = ask(place, "events", port=name)
    wire.connection.settimeout(timeout_s)
    ask_once(place, "recover", port=name, mode="reset" if reset_only else "flash")
    for _, payload in frames(wire):
        event = json.loads(payload)
        if event["type"] != "recovery":
            continue
        click.echo(payload.decode() if as_json else in_words(event))
        if event["outcome"] == "recovered":
            sys.exit(0)
        if event["outcome"] == "gave-up":
            sys.exit(1)
        if event["step"] == "begin" and event["outcome"] == "refused":
            sys.exit(EXIT_REFUSED)
    click.echo(f"espmon: the recovery of {name} has not ended within {timeout_s:g} s", err=True)
    sys.exit(EXIT_TIMEOUT)
