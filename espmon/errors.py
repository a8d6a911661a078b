"""The error tree: fields first, the message made from them; a stable code, a hint, an exit status.

Level 0. What a person did wrong or what the world refused is an :class:`EspmonError` and is told in two lines (what
happened, what to do). Everything else is a bug and shows its traceback. Exit statuses are listed in ``docs/exit-codes.md``.
"""

from __future__ import annotations

from typing import ClassVar


class EspmonError(Exception):
    """Base of all errors that are told, not traced. Subclasses set `code`, `exit_status` and build message and hint."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageProblem(EspmonError):
    """The command line or the configuration asks for something that cannot be."""

    code = "usage"
    exit_status = 2


class InputUnreadable(EspmonError):
    """An input file cannot be read."""

    code = "input-unreadable"
    exit_status = 3


class OutputUnwritable(EspmonError):
    """Standard output takes nothing more, for another reason than that its reader has gone: a full disk, mostly."""

    code = "output-unwritable"
    exit_status = 3

    def __init__(self, reason: str) -> None:
        super().__init__(f"the output can't be written: {reason}", "Make room on the disk, or write it elsewhere.")


class ElfUnusable(EspmonError):
    """An ELF file is missing, foreign, stripped, truncated or malformed: `path` and the `reason` in plain words."""

    code = "elf-unusable"
    exit_status = 4

    def __init__(self, path: str, reason: str, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason


class PortProblem(EspmonError):
    """Something about the serial port `port`."""

    code = "port"
    exit_status = 5

    def __init__(self, port: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.port = port


class PortNotFound(PortProblem):
    """No such port."""

    code = "port-not-found"
    exit_status = 5


class PortBusy(PortProblem):
    """Another program holds the port; `holder` names it where the system tells."""

    code = "port-busy"
    exit_status = 6

    def __init__(self, port: str, message: str, hint: str | None = None, holder: str | None = None) -> None:
        super().__init__(port, message, hint)
        self.holder = holder


class PortDenied(PortProblem):
    """No permission to open the port."""

    code = "port-denied"
    exit_status = 7


class PortGone(PortProblem):
    """The port vanished while it was in use."""

    code = "port-gone"
    exit_status = 8


class PortStalled(PortProblem):
    """The port is there, but takes no data."""

    code = "port-stalled"
    exit_status = 8


# Outcomes of a monitored run that are no errors of espmon's, each with its own status (docs/exit-codes.md).
EXIT_OK = 0
EXIT_CRASH_SEEN = 20  # --fail-on crash
EXIT_BOOT_LOOP_SEEN = 21  # --fail-on boot-loop
EXIT_TIMEOUT = 22  # --timeout ran out before --until matched
EXIT_WRITTEN_NOT_VERIFIED = 23  # flash: written, but this chip and loader cannot read it back
EXIT_VERIFY_FAILED = 24  # verify: flash differs from the image
EXIT_REFUSED = 25  # a guard refused to write
EXIT_NOT_MEASURED = 26  # doctor could not measure
EXIT_ATTENTION = 27  # status, reclaim: a board or the daemon needs a person
EXIT_INTERRUPTED = 130  # Ctrl-C, as shells count it
