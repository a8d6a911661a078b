"""Service files: valid for their managers, with the words that operations need."""

from __future__ import annotations

import configparser
import plistlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from espmon.app.daemon import notify
from espmon.app.service import launchd_plist, service, systemd_unit, task_xml

AWKWARD = ("/opt/my tools/espmon", "-m")


def test_the_systemd_unit_is_hardened_watched_and_quoted() -> None:
    unit = systemd_unit(AWKWARD, user=False, config=Path("/etc/50% off.toml"))
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit)
    s = dict(parser["Service"])
    assert s["Type"] == "notify"
    assert s["ExecStart"] == '"/opt/my tools/espmon" -m daemon --config "/etc/50%% off.toml"'
    assert {"WatchdogSec", "ExecReload", "DynamicUser", "StateDirectory", "LogsDirectory", "ProtectSystem"} <= set(s)
    assert s["SupplementaryGroups"] == "dialout"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"
    assert (s["Restart"], s["RestartSec"], s["RestartPreventExitStatus"]) == ("on-failure", "500ms", "2")
    own = systemd_unit(AWKWARD, user=True, config=None)
    assert not {"DynamicUser=yes", "Nice=-5", "OOMScoreAdjust=-200"} & set(own.splitlines()), "a user may not"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_itself_accepts_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "espmon.service"
    path.write_text(systemd_unit((sys.executable, "-m", "espmon"), user=False, config=None))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert "espmon.service" not in done.stderr, done.stderr


def test_the_launchd_job_and_the_task_are_whole_xml() -> None:
    job = plistlib.loads(launchd_plist(("/a & b/espmon",), config=Path("/c<d>.toml"), log=Path("/l")).encode())
    assert job["ProgramArguments"] == ["/a & b/espmon", "daemon", "--config", "/c<d>.toml"]
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    task = ET.fromstring(task_xml((r"C:\Program Files\espmon.exe",), config=Path("a b.toml"), account="DESK\\a&b").encode("utf-16"))
    space = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
    assert task.findtext(f".//{space}Command") == r"C:\Program Files\espmon.exe"
    assert task.findtext(f".//{space}Arguments") == 'daemon --config "a b.toml"'
    # one's own logon and account: that needs no administrator
    assert task.findtext(f".//{space}LogonTrigger/{space}UserId") == "DESK\\a&b"
    assert task.findtext(f".//{space}Principal/{space}UserId") == "DESK\\a&b"
    assert task.findtext(f".//{space}Principal/{space}RunLevel") == "LeastPrivilege"
    everybody = ET.fromstring(task_xml(("espmon",), config=None, account=None).encode("utf-16"))
    assert everybody.find(f".//{space}UserId") is None
    assert everybody.findtext(f".//{space}Principal/{space}GroupId") == "S-1-5-32-545"


def test_on_windows_only_a_users_own_task_names_an_account() -> None:
    assert "<UserId>" in service(user=True, platform="win32").text
    assert "<UserId>" not in service(user=False, platform="win32").text


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_each_system_has_one(platform: str) -> None:
    wanted = service(user=True, platform=platform)
    assert wanted.text
    assert wanted.install
    assert wanted.remove


@pytest.mark.skipif(sys.platform == "win32", reason="sd_notify is a Unix datagram")
def test_readiness_is_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("READY=1")
        s.settimeout(5)
        assert s.recv(100) == b"READY=1"
