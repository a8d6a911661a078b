"""``espmon events [NAME]``: what happened, as the daemon stored it, and what happens now."""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import datetime
from typing import Any

import click

from espmon.cli.daemon_options import local_time, moment, names_daemon, plain, require_board


@click.command()
@click.argument("name", required=False)
@names_daemon
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option("--since", metavar="TIME", help="Only from TIME on: 10m, 2h, 3d (ago) or an ISO time.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only events of this type (crash, boot ...); repeatable.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines (docs/events.md).")
def events(
    name: str | None, config_path: str | None, state_dir: str | None, follow: bool, since: str | None, types: tuple[str, ...], as_json: bool
) -> None:
    """Print events of all boards or of NAME, oldest first."""
    from espmon.app.reach import find_daemon
    from espmon.app.wire import ask, frames
    from espmon.store.database import event_lines, open_reader

    reach = find_daemon(config_path, state_dir)
    if name is not None:
        require_board(reach, name)
    start = moment(since) if since else None
    wire = None
    if follow:
        # subscribed before the past is read, so that nothing falls between; what is in both is printed once
        wire, _ = ask(reach.running(), "events", **({"port": name} if name else {}))
    try:
        recent: list[str] = []
        with open_reader(reach.database) as c:
            for _, line in event_lines(c, port=name, types=types, since=start):
                _print(line, as_json)
                recent.append(line)
                if len(recent) > 2000:
                    del recent[:1000]
        printed = set(recent)
        if wire is not None:
            with contextlib.suppress(KeyboardInterrupt):
                for _, payload in frames(wire):
                    line = payload.decode("utf-8", "replace")
                    if line in printed:
                        printed.discard(line)
                    elif not types or json.loads(line).get("type") in types:
                        _print(line, as_json)
    except BrokenPipeError:
        sys.exit(0)


def _print(line: str, as_json: bool) -> None:
    if as_json:
        from espmon.sinks.jsonl import print_json_line

        print_json_line(line)
    elif words := in_words(json.loads(line)):
        sys.stdout.write(words + "\n")
        sys.stdout.flush()


def in_words(event: dict[str, Any]) -> str:
    """One event as one line for people; empty for what the next line says as well (the rate of a boot's own text)."""
    kind = event["type"]
    if kind == "wrong-rate" and event.get("boots"):
        return ""
    what = ""
    if kind in ("boot", "reset"):
        reset = event.get("reset") or {}
        what = reset.get("meaning") or reset.get("name") or ""
        if event.get("caused_by"):
            what += f" (by {event['caused_by']})"
    elif kind == "crash":
        exception = (event.get("exception") or {}).get("name")
        what = event.get("explanation") or exception or event.get("message") or event.get("kind") or ""
        top = next((f for f in event.get("frames") or [] if f.get("function")), None)
        if top:
            what += f" in {top['function']}" + (f" ({top['file']}:{top['line']})" if top.get("file") else "")
    elif kind == "recovery":
        what = f"{event['step']}: {event['outcome']}" + (f", {event['reason']}" if event.get("reason") else "")
    elif kind == "boot-loop":
        what = f"{event['boots']} boots" + (f", {event['cause']}" if event.get("cause") else "")
    elif kind == "port":
        what = event["state"] + (f", {event['reason']}" if event.get("reason") else "")
    elif kind == "gap":
        what = f"{event['bytes']} bytes: {event['reason']}"
    elif kind == "wrong-rate":
        what = f"sent at {event.get('sent_at') or 'another'} baud, received at {event.get('received_at')}"
    elif kind == "firmware":
        what = " ".join(str(event[key]) for key in ("framework", "name", "version") if event.get(key))
    else:
        said = (event.get(key) for key in ("message", "meaning", "how", "what", "error", "operation", "format"))
        what = ": ".join(str(each) for each in said if each)
    at = datetime.fromisoformat(event["at"]).timestamp() if event.get("at") else None
    return plain(f"{local_time(at)}  {event.get('port') or '-':<12} {kind:<13} {what}".rstrip())
