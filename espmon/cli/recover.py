"""``espmon recover NAME|PORT``: bring a board back by hand, or tell what would be done; through the daemon when it has it."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from espmon.cli.daemon_options import names_daemon, plain
from espmon.cli.flash_options import Console, number, port_argument, stop_on_ctrl_c, told_as_json

if TYPE_CHECKING:
    from espmon.app.bare import BareRecovery


@click.command()
@port_argument
@names_daemon
@click.option("--image", "images", multiple=True, metavar="FILE[@OFFSET]", help="Known-good image of a board that no daemon has, from offset 0 unless given; repeatable.")
@click.option("--mode", type=click.Choice(["reset", "flash"]), help="How far it may go.  [default: flash with an image, else reset]")
@click.option("--dry-run", is_flag=True, help="Tell what would be done and why; do nothing.")
@click.option("--unlock", is_flag=True, help="End a lock-out or a cool-down; begins nothing.")
@click.option("--reset-only", is_flag=True, help="The same as --mode reset.")
@click.option("--listen", "listen_s", type=click.FloatRange(min=0), default=15.0, show_default=True, metavar="S", help="Without a daemon: listen so long before your word counts as proof.")
@click.option("-b", "--baud", type=click.IntRange(50, 20_000_000), metavar="RATE", help="Without a daemon: the application's rate.  [default: found out]")
@click.option("--flash-baud", type=click.IntRange(9600, 4_000_000), metavar="RATE", help="Without a daemon: link rate while in the loader.  [default: 115200]")
@click.option("--chip", metavar="NAME", help="Without a daemon: refuse any other chip (esp8266, esp32c3, ...).")
@click.option("--healthy", metavar="REGEX", help="Without a daemon: text that only working firmware prints.")
@click.option("--json", "as_json", is_flag=True, help="The recovery's events as JSON lines; with --dry-run the plan.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), default=300.0, show_default=True, metavar="S", help="Wait so long for the end.")
@told_as_json
def recover(
    port: str, config_path: str | None, state_dir: str | None, images: tuple[str, ...], mode: str | None, dry_run: bool, unlock: bool,
    reset_only: bool, as_json: bool, timeout_s: float, **wishes: Any,
) -> None:  # fmt: skip
    """Bring the board PORT back: reset, compare its flash with the known-good image, write what differs, verify.

    PORT is a board's name or a port. A daemon that has it does the work, with the image that it knows; otherwise it is done
    here, with --image. A board that talks is not touched, nothing is written after brownout text, or when chip, MAC, flash
    size, fuses or image don't fit. Interrupted, the next run compares again and goes on. Exit status 0 when it recovered, 1
    when it was given up, 25 when a guard refused, 22 after --timeout.
    """
    from espmon.errors import EXIT_TIMEOUT, UsageProblem

    if reset_only and mode == "flash":
        raise UsageProblem("--reset-only and --mode flash contradict each other.", "Give one of them.")
    mode = "reset" if reset_only else mode
    recovery: BareRecovery | _ThroughDaemon
    if _held(port, config_path, state_dir):
        if images:
            raise UsageProblem(f"A daemon has {port}, and knows its image.", f"Name another with: espmon image add {port} OFFSET FILE")
        recovery = _ThroughDaemon(port, config_path, state_dir, mode or "flash", as_json, timeout_s)
    else:
        recovery = _bare(port, state_dir, images, mode, as_json, timeout_s, **wishes)
    if unlock:
        recovery.unlock()
        click.echo(f"{recovery.name}: recoveries are allowed again")
        return
    if dry_run:
        plan = recovery.plan()
        click.echo(json.dumps({"name": recovery.name, "plan": plan}) if as_json else "\n".join(plain(line) for line in plan))
        return
    status = recovery.run()
    if status == EXIT_TIMEOUT:
        click.echo(f"espmon: the recovery of {port} has not ended within {timeout_s:g} s", err=True)
    sys.exit(status)


def _held(port: str, config_path: str | None, state_dir: str | None) -> bool:
    """True when a daemon has this board, or when only a daemon could know it."""
    from espmon.app.reach import board_held_by_daemon, find_daemon, holds

    if "://" in port:
        return False
    if config_path is None and state_dir is None:
        if board_held_by_daemon(port) is not None:
            return True
    elif holds(find_daemon(config_path, state_dir), port):
        return True
    # neither a device nor a port's name here: a board's name, and its daemon doesn't run
    from espmon.port import names

    return sys.platform != "win32" and "/" not in port and names.device_path(port) == port and not Path(port).exists()


def _bare(
    port: str, state_dir: str | None, images: tuple[str, ...], mode: str | None, as_json: bool, timeout_s: float, *,
    listen_s: float, baud: int | None, flash_baud: int | None, chip: str | None, healthy: str | None,
) -> BareRecovery:  # fmt: skip
    import re

    from espmon.app.bare import BareOptions, BareRecovery, folder_for, key_of, read_image
    from espmon.app.folders import default_state_dir
    from espmon.app.rate import follower_at
    from espmon.errors import OutputUnwritable, UsageProblem
    from espmon.port import SerialPort

    try:
        re.compile(healthy or "")
    except re.error as error:
        raise UsageProblem(f"--healthy {healthy!r}: {error}", "It is a regular expression.") from None
    pieces = read_image([_file_at(each) for each in images])
    console = Console(as_json=as_json, verbose=False)
    stop = threading.Event()

    def tell(event: Any) -> None:
        if as_json or event.type == "progress":
            console.tell(event)
        elif event.type in ("recovery", "boot-loop"):
            from espmon.cli.events import in_words
            from espmon.events import to_json_object

            console.close_bar()
            click.echo(in_words(to_json_object(event)))

    def decoder() -> Any:
        from espmon.decode import Decoder

        return Decoder(port=port, chip=chip)

    there = SerialPort(port)
    folder = folder_for(Path(state_dir) if state_dir else default_state_dir(), key_of(there))
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"{folder}: {error.strerror}") from None
    recovery = BareRecovery(
        there,
        folder,
        BareOptions(
            mode=mode or ("flash" if pieces else "reset"),
            listen_s=listen_s,
            timeout_s=timeout_s,
            chip=chip,
            flash_baud=flash_baud,
            healthy=healthy,
        ),
        pieces=pieces,
        source=", ".join(images),
        rate=follower_at(port, baud),
        make_decoder=decoder,
        tell=tell,
        stop=stop,
    )
    stop_on_ctrl_c(stop, console)
    return recovery


def _file_at(text: str) -> tuple[int, Path]:
    """``FILE@OFFSET``; without an offset 0."""
    name, sign, offset = text.rpartition("@")
    if not sign or Path(text).exists():
        return 0, Path(text)
    return number(offset), Path(name)


class _ThroughDaemon:
    """The recovery of a board that a daemon has. `name`: as the daemon calls it, once it was asked."""

    def __init__(
        self, name: str, config_path: str | None, state_dir: str | None, mode: str, as_json: bool, timeout_s: float
    ) -> None:
        from espmon.app.reach import find_daemon

        self.name = name
        self._mode = mode
        self._as_json = as_json
        self._timeout_s = timeout_s
        self._place = find_daemon(config_path, state_dir).running()

    def _ask(self, **wishes: bool) -> dict[str, Any]:
        from espmon.app.wire import ask_once

        answer = ask_once(self._place, "recover", port=self.name, begin=False, **wishes)
        self.name = answer["name"]
        return answer

    def unlock(self) -> None:
        """Ends a lock-out or a cool-down."""
        self._ask(unlock=True)

    def plan(self) -> list[str]:
        """What would be done and why, a sentence each."""
        plan: list[str] = self._ask(dry_run=True)["plan"]
        return plan

    def run(self) -> int:
        """Prints what is done until it ends; the exit status."""
        from espmon.app.ending import Ending
        from espmon.app.wire import DaemonUnreachable, ask, ask_once, frames
        from espmon.cli.events import in_words
        from espmon.errors import EXIT_TIMEOUT

        wire, _ = ask(self._place, "events", port=self.name)
        ask_once(self._place, "recover", port=self.name, mode=self._mode)
        ending = Ending()
        try:
            for _, payload in frames(wire, self._timeout_s):
                event = json.loads(payload)
                if event["type"] != "recovery":
                    continue
                click.echo(payload.decode() if self._as_json else in_words(event))
                if (status := ending.seen(event["step"], event["outcome"])) is not None:
                    return status
        except TimeoutError:
            return EXIT_TIMEOUT
        raise DaemonUnreachable(f"the daemon at {self._place} has ended; `espmon status` tells whether it runs again, and what became of the recovery")
