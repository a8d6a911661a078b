"""``espmon lend|release|reclaim``: another program gets a port that the daemon holds, and gives it back."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from espmon.cli.daemon_options import names_daemon
from espmon.errors import EXIT_ATTENTION, UsageProblem


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@names_daemon
def lend(name: str, command: tuple[str, ...], config_path: str | None, state_dir: str | None) -> None:
    """Run COMMAND while the daemon keeps its hands off the board's port; take the port back afterwards.

    COMMAND finds the device in $ESPMON_PORT; `{port}` in its arguments is replaced by it. It runs as you, in this
    terminal; its exit status is handed on.

    Example: espmon lend bench-3 -- esptool --port {port} flash-id
    """
    from espmon.app.reach import find_daemon
    from espmon.app.wire import ask

    wire, answer = ask(find_daemon(config_path, state_dir).running(), "lend", port=name, command=" ".join(command))
    device = str(answer["device"])
    environment = {**os.environ, "ESPMON_PORT": device, "ESPMON_PORT_NAME": str(answer["name"])}
    words = [word.replace("{port}", device) for word in command]
    status = 127
    try:
        status = subprocess.run(words, env=environment, check=False).returncode
    except FileNotFoundError:
        raise UsageProblem(f"there is no program {words[0]!r}", "Check its name; the port has been given back.") from None
    except OSError as error:
        raise UsageProblem(f"{words[0]}: {error.strerror}", "Check that it may be run; the port has been given back.") from None
    except KeyboardInterrupt:
        status = 130
    finally:
        wire.send_line({"done": status})
        back = wire.read_line() or {}
        wire.close()
        if back.get("state") != "run":
            click.echo(f"espmon: {name} is {back.get('state', 'away')} after it came back", err=True)
    sys.exit(status if status >= 0 else 128 - status)


@click.command()
@click.argument("name")
@names_daemon
def release(name: str, config_path: str | None, state_dir: str | None) -> None:
    """Make the daemon let the board's port go until `espmon reclaim NAME`; prints the device."""
    from espmon.app.reach import find_daemon
    from espmon.app.wire import ask_once

    answer = ask_once(find_daemon(config_path, state_dir).running(), "lend", port=name, keep=True)
    click.echo(answer["device"] or "-")


@click.command()
@click.argument("name")
@names_daemon
def reclaim(name: str, config_path: str | None, state_dir: str | None) -> None:
    """Give a released port back to the daemon."""
    from espmon.app.reach import find_daemon
    from espmon.app.wire import ask_once

    answer = ask_once(find_daemon(config_path, state_dir).running(), "reclaim", port=name)
    click.echo(f"{name}: {answer['state']}" + (f", {answer['problem']}" if answer.get("problem") else ""))
    sys.exit(0 if answer["state"] == "run" else EXIT_ATTENTION)
