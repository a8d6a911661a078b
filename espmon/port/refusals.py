"""What the system said no to, in our words: an exception of pyserial, termios or the OS becomes one of our errors.

Decided by error number, never by message text: messages are localised and change.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys

from espmon.errors import PortBusy, PortDenied, PortGone, PortNotFound, PortProblem
from espmon.port import names
from espmon.port.holders import holders, lock_holder

if sys.platform == "win32":
    CONFIGURING: tuple[type[Exception], ...] = (OSError, NotImplementedError)
else:
    import termios

    CONFIGURING: tuple[type[Exception], ...] = (OSError, NotImplementedError, termios.error)
SETTING: tuple[type[Exception], ...] = (*CONFIGURING, ValueError)  # pyserial's word for a special rate that is refused
# What pyserial raises from an open port: TypeError and AttributeError when its descriptor vanishes under it.
USING: tuple[type[Exception], ...] = (*CONFIGURING, ValueError, TypeError, AttributeError)
OPENING: tuple[type[Exception], ...] = (*USING, ImportError)  # a URL handler's own imports

# What reading, writing or configuring an open port raises when the device behind it has been unplugged, hung up or
# reset: EIO and ENXIO from ttys, ENODEV from USB drivers, EBADF after a forced close, EPIPE and the E*CONN* from sockets.
_GONE = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ENXIO", "ENODEV", "ENOENT", "EBADF", "EPIPE", "ENOTTY", "EPERM", "EACCES", "EPROTO", "EREMOTEIO"),
        *("ESTALE", "ECONNRESET", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH"),
        *("EHOSTUNREACH", "EHOSTDOWN"),
    )
    if hasattr(errno, name)
)
# Windows' words for the same: ERROR_FILE_NOT_FOUND, ACCESS_DENIED, INVALID_HANDLE, BAD_COMMAND, GEN_FAILURE,
# NO_SUCH_DEVICE, OPERATION_ABORTED, DEVICE_NOT_CONNECTED (winerror.h).
_GONE_WINDOWS = frozenset({2, 5, 6, 22, 31, 433, 995, 1167})
_BUSY_WINDOWS = frozenset({5, 32, 170})  # ACCESS_DENIED, SHARING_VIOLATION, BUSY
_NOT_FOUND_WINDOWS = frozenset({2, 3, 31, 433, 1167})


def error_numbers(error: BaseException) -> tuple[int | None, int | None]:
    """(errno, Windows error) of an exception or of what it was raised from; each None where there is none."""
    number: int | None = None
    windows: int | None = None
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if isinstance(each, OSError):
            number = number if number is not None else each.errno
            windows = windows if windows is not None else getattr(each, "winerror", None)
        elif type(each).__module__ == "termios" and each.args and isinstance(each.args[0], int):
            number = number if number is not None else each.args[0]
        if windows is None and sys.platform == "win32":
            # pyserial formats the WinError into its message and drops it: the number survives in the repr
            match = re.search(r"Error\(\d+, .*, (\d+)\)", str(each))
            windows = int(match[1]) if match else None
        each = each.__cause__ or each.__context__
    return number, windows


def gone(port: str, error: BaseException) -> PortGone:
    """Any failure on an open port: it can't be used any more. The number only decides how we say it."""
    number, windows = error_numbers(error)
    if number in _GONE or windows in _GONE_WINDOWS or (number is None and windows is None):
        return PortGone(port, f"{port} is gone: unplugged, or the other side closed it", "Plug the board in again.")
    reason = os.strerror(number) if number is not None else f"Windows error {windows}"
    return PortGone(port, f"{port} failed: {reason}", "Plug the board out and in again.")


def refusal(port: str, device: str, error: BaseException) -> PortProblem:
    """Why `device` could not be opened. `port` is the name that the user gave."""
    number, windows = error_numbers(error)
    if names.is_url(device):
        return _url_refusal(port, device, number, error)
    if windows in _BUSY_WINDOWS or number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
        return busy(port, device)
    if number in (errno.EACCES, errno.EPERM):
        return denied(port, device)
    if windows in _NOT_FOUND_WINDOWS or number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR):
        return not_found(port, device)
    if number == errno.ENOTTY and os.path.isfile(device):
        return PortProblem(port, f"{port} is a file, not a serial port", f"`espmon decode {port}` reads a log file.")
    if number in (errno.ENOTTY, errno.EISDIR, errno.EINVAL):
        return PortProblem(port, f"{port} is not a serial port", "`espmon ports` lists the ports of this machine.")
    if number == errno.EIO:
        return PortGone(port, f"{port} doesn't answer: input/output error", "Plug the board out and in again.")
    reason = os.strerror(number) if number is not None else str(error)
    return PortProblem(port, f"{port} can't be opened: {_printable(reason)}", "`espmon ports` lists the ports of this machine.")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


def _url_refusal(port: str, device: str, number: int | None, error: BaseException) -> PortProblem:
    if number in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT):
        return PortNotFound(
            port, f"{port}: {os.strerror(number)}", "Check that the server runs there and that a firewall lets it through."
        )
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        if device.startswith("sim://"):  # a virtual board tells wrong parameters otherwise
            return PortProblem(port, f"{port}: {_printable(str(error))}", "Choose a rate that the adapter supports.")
        return PortNotFound(
            port,
            f"{port}: {_printable(str(error))}",
            "URLs look like rfc2217://host:port, socket://host:port or sim://esp8266.",
        )
    reason = re.sub(r"^Could not open port \S*: |\[Errno -?\d+\] ", "", str(error))
    if device.startswith(("rfc2217://", "socket://")) and not re.match(r"\w+://[^/?#]+:\d", device):
        return PortNotFound(port, f"{port} names no host and port number", "URLs look like rfc2217://host:port or socket://host:port.")
    if device.startswith("rfc2217://") and number is None:
        return PortNotFound(
            port,
            f"{port}: something listens there, but does not answer as RFC 2217 asks",
            "Most servers serve one at a time: is somebody else connected? For a plain TCP server: socket://host:port.",
        )
    if device.startswith("sim://"):
        hint = "`espmon sim --list` lists what it takes."
    else:
        hint = "Check host and port number." if device.startswith(("rfc2217://", "socket://")) else "Check what stands behind the ://."
    return PortNotFound(port, f"{port} can't be opened: {_printable(reason)}", hint)


def busy(port: str, device: str) -> PortBusy:
    """The port is held by somebody: named with pid where the system tells."""
    found = holders(device)
    locked = lock_holder(device)
    only_locked = bool(locked) and not found
    if locked and not any(h.pid == locked.pid for h in found):
        found.append(locked)
    if found:
        who = ", ".join(str(h) for h in found[:3])
        if only_locked:  # may be left over, and the pid somebody else's by now
            name = "LCK.." + os.path.basename(os.path.realpath(device))
            hint = f"The lock file {name} (in /var/lock) says so. If that program does not use the port, remove the file."
            return PortBusy(port, f"{port} is in use by {who}", hint, who)
        return PortBusy(port, f"{port} is in use by {who}", "Close that program, or use another port.", who)
    if sys.platform == "linux":
        hint = f"`sudo fuser -v {device}` names it."
    elif sys.platform == "darwin":
        hint = f"`sudo lsof {device}` names it."
    else:
        hint = "Close other serial monitors, IDEs and slicers, then try again."
    return PortBusy(port, f"{port} is in use by another program", hint)


def denied(port: str, device: str) -> PortDenied:
    """No permission: names the group of the device node and what to do about it."""
    if sys.platform == "win32":
        return PortDenied(port, f"{port}: access denied", "Close other programs that may use the port.")
    import grp

    try:
        status = os.stat(device)
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return PortDenied(port, f"no permission to open {port}", "Ask who administers this machine.")
    if not status.st_mode & stat.S_IRGRP or not status.st_mode & stat.S_IWGRP or status.st_gid == 0:
        return PortDenied(
            port,
            f"no permission to open {port}: only {'root' if status.st_uid == 0 else 'its owner'} may",
            f"A udev rule can give it to a group; for now: sudo chmod a+rw {device}",
        )
    message = f"no permission to open {port}: its group is {group}"
    try:
        import pwd

        member = pwd.getpwuid(os.getuid()).pw_name in grp.getgrgid(status.st_gid).gr_mem
    except KeyError:
        member = False
    if member and status.st_gid not in os.getgroups():
        return PortDenied(port, message, f"You are in {group}, but this session began before that: log out and in again.")
    return PortDenied(port, message, f"sudo usermod -aG {group} $USER, then log out and in again.")


def not_found(port: str, device: str) -> PortNotFound:
    """No such port: names those that look alike, else those that there are."""
    listed = names.list_ports()
    if not listed:
        return PortNotFound(
            port,
            f"there is no port {port}",
            "No serial port at all was found: is the cable a data cable, and the adapter's driver installed?",
        )
    close = names.similar(device, listed)
    if close:
        return PortNotFound(port, f"there is no port {port}", f"Did you mean {' or '.join(close)}?")
    there = ", ".join(p.device for p in listed[:5])
    return PortNotFound(port, f"there is no port {port}", f"Ports here: {there}{' ...' if len(listed) > 5 else ''}")
