"""The daemon as a service of the system: a systemd unit, a launchd job, or a Task Scheduler entry."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import platformdirs

from espmon.errors import EspmonError, UsageProblem

NAME = "espmon"
LABEL = "io.espmon.daemon"
_USERS = "S-1-5-32-545"  # Windows' name of the local group Users in every language


class ServiceProblem(EspmonError):
    """The system's service manager refused."""

    code = "service"
    exit_status = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What would be installed: the `text` of the file at `path`, and the commands that make it run or remove it."""

    kind: str
    path: Path
    text: str
    install: tuple[tuple[str, ...], ...]
    remove: tuple[tuple[str, ...], ...]


def program() -> tuple[str, ...]:
    """How the service starts espmon: the installed program, else this Python with the package."""
    found = shutil.which("espmon")
    return (str(Path(found).absolute()),) if found else (sys.executable, "-m", "espmon")


def systemd_unit(command: Sequence[str], *, user: bool, config: Path | None) -> str:
    """A unit that is told when the daemon is ready, restarts it when its reader loops stop, and lets it reach little else."""
    words = [*command, "daemon", *(("--config", str(config)) if config else ())]
    start = " ".join(_quoted(w) for w in words)
    lines = [
        "[Unit]",
        "Description=espmon, monitor of ESP8266 and ESP32 boards",
        "After=systemd-udevd.service" if not user else "After=default.target",
        "# never given up: what stops it now (a full disk) may be gone in an hour",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        f"ExecStart={start}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "WatchdogSec=60",
        "Restart=on-failure",
        "RestartSec=500ms",
        "# a mistake in the configuration or on the command line: trying again doesn't help",
        "RestartPreventExitStatus=2",
        "TimeoutStopSec=40",
        "LimitNOFILE=65536",
    ]
    if not user:
        lines += [
            "# boards: the group that owns serial devices; state, logs and the socket in folders of its own",
            "DynamicUser=yes",
            "SupplementaryGroups=dialout",
            "StateDirectory=espmon",
            "LogsDirectory=espmon",
            "RuntimeDirectory=espmon",
            "RuntimeDirectoryMode=0755",
            "UMask=0027",
            "# little work that cannot wait: a terminal's buffer holds a third of a second at 115200 baud",
            "Nice=-5",
            "OOMScoreAdjust=-200",
            "",
            "ProtectSystem=strict",
            "ProtectHome=read-only",
            "PrivateTmp=yes",
            "NoNewPrivileges=yes",
            "ProtectKernelTunables=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelLogs=yes",
            "ProtectControlGroups=yes",
            "ProtectClock=yes",
            "ProtectHostname=yes",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "RestrictNamespaces=yes",
            "RestrictRealtime=yes",
            "RestrictSUIDSGID=yes",
            "LockPersonality=yes",
            "SystemCallArchitectures=native",
            "SystemCallFilter=@system-service",
            "CapabilityBoundingSet=",
            "DevicePolicy=closed",
            "# ttyUSB, ttyACM, ttyS, ttyAMA; add your driver's name as /proc/devices shows it",
            "DeviceAllow=char-ttyUSB rw",
            "DeviceAllow=char-ttyACM rw",
            "DeviceAllow=char-ttyS rw",
            "DeviceAllow=char-ttyAMA rw",
        ]
    lines += ["", "[Install]", f"WantedBy={'default.target' if user else 'multi-user.target'}", ""]
    return "\n".join(lines)


def _quoted(word: str) -> str:
    word = word.replace("%", "%%").replace("$", "$$")
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' if any(c in word for c in " \t\"'\\;") else word


def launchd_plist(command: Sequence[str], *, config: Path | None, log: Path) -> str:
    """A launchd job that is kept alive; its own log goes to `log`."""
    words = [*command, "daemon", *(("--config", str(config)) if config else ())]
    arguments = "\n".join(f"    <string>{escape(w)}</string>" for w in words)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>{LABEL}</string>
  <key>ProgramArguments</key>
  <array>
{arguments}
  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>SoftResourceLimits</key>
  <dict>
    <key>NumberOfFiles</key>
    <integer>8192</integer>
  </dict>
  <key>ExitTimeOut</key>
  <integer>40</integer>
  <key>StandardErrorPath</key>
  <string>{escape(str(log))}</string>
</dict>
</plist>
"""


def task_xml(command: Sequence[str], *, config: Path | None, account: str | None) -> str:
    """A Task Scheduler entry: starts when `account` logs on, again after a failure, never stopped for taking long.

    Without an account: whoever of the group Users logs on, as that user; only administrators may install such a task.
    """
    trigger = f"\n      <UserId>{escape(account)}</UserId>" if account else ""
    principal = (
        f"<UserId>{escape(account)}</UserId>\n      <LogonType>InteractiveToken</LogonType>"
        if account
        else f"<GroupId>{_USERS}</GroupId>"
    )
    words = ["daemon", *(("--config", str(config)) if config else ())]
    arguments = subprocess.list2cmdline([*command[1:], *words])
    return f"""<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.3" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>espmon, monitor of ESP8266 and ESP32 boards</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>{trigger}
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      {principal}
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>999</Count>
    </RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{escape(command[0])}</Command>
      <Arguments>{escape(arguments)}</Arguments>
    </Exec>
  </Actions>
</Task>
"""


def _account() -> str:
    """The present user, with the domain where there is one."""
    name, domain = getpass.getuser(), os.environ.get("USERDOMAIN")
    return f"{domain}\\{name}" if domain else name


def service(*, user: bool, config: Path | None = None, platform: str = sys.platform) -> Service:
    """The service for this system (or for `platform`, to look at). `user`: as this user, without root."""
    command = program()
    config = config.absolute() if config else None
    if platform == "win32":
        path = Path(platformdirs.user_data_dir(NAME, appauthor=False)) / "task.xml"
        return Service(
            kind="Task Scheduler",
            path=path,
            text=task_xml(command, config=config, account=_account() if user else None),
            install=(("schtasks", "/Create", "/TN", NAME, "/XML", str(path), "/F"), ("schtasks", "/Run", "/TN", NAME)),
            remove=(("schtasks", "/End", "/TN", NAME), ("schtasks", "/Delete", "/TN", NAME, "/F")),
        )
    if platform == "darwin":
        folder = Path.home() / "Library" if user else Path("/Library")
        path = folder / ("LaunchAgents" if user else "LaunchDaemons") / f"{LABEL}.plist"
        log = folder / "Logs" / "espmon.log"
        domain = "system"
        if user and sys.platform != "win32":
            domain = f"gui/{os.getuid()}"
        return Service(
            kind="launchd",
            path=path,
            text=launchd_plist(command, config=config, log=log),
            install=(("launchctl", "bootstrap", domain, str(path)),),
            remove=(("launchctl", "bootout", f"{domain}/{LABEL}"),),
        )
    control = ("systemctl", "--user") if user else ("systemctl",)
    folder = Path(os.environ.get("XDG_CONFIG_HOME", str(Path.home() / ".config"))) / "systemd/user" if user else Path("/etc/systemd/system")
    return Service(
        kind="systemd",
        path=folder / f"{NAME}.service",
        text=systemd_unit(command, user=user, config=config),
        install=((*control, "daemon-reload"), (*control, "enable", "--now", NAME)),
        remove=((*control, "disable", "--now", NAME),),
    )


def install(wanted: Service) -> None:
    """Writes the file and starts the service. Raises :class:`UsageProblem` without permission, :class:`ServiceProblem`."""
    try:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        wanted.path.write_text(wanted.text, "utf-16" if wanted.kind == "Task Scheduler" else "utf-8")
    except OSError as error:
        raise UsageProblem(f"cannot write {wanted.path}: {error.strerror}", "use sudo, or --user for a service of your own") from None
    for command in wanted.install:
        _run(command)


def remove(wanted: Service) -> None:
    """Stops the service and removes its file; the state, the logs and the configuration stay."""
    for command in wanted.remove:
        try:
            _run(command)
        except ServiceProblem:
            if not wanted.path.exists():
                raise
    try:
        wanted.path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageProblem(f"cannot remove {wanted.path}: {error.strerror}", "use sudo") from None


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceProblem(f"{command[0]}: {error}", "espmon service show prints what would be installed") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise ServiceProblem(f"{' '.join(command)}: {said}", "espmon service show prints what would be installed")
