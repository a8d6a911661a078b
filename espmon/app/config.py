"""The daemon's configuration: one TOML file and the drop-ins next to it, read strictly.

:data:`SETTINGS` is the only list of settings; checking, defaults, ``espmon config show`` and ``config init`` are made from
it, and a test compares it with ``docs/daemon.md``. Everything wrong is told at once, each with its file and line.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from espmon.app.folders import is_there
from espmon.chips import CHIPS
from espmon.errors import UsageProblem

RECOVER = ("off", "notify", "reset", "flash")
MATCH_KEYS = ("usb_serial", "usb_path", "mac", "device", "url", "vid", "pid")
HOOK_EVENTS = (
    "boot",
    "reset",
    "crash",
    "flash-error",
    "download-mode",
    "brownout",
    "boot-loop",
    "recovery",
    "gap",
    "port",
    "core-dump",
    "reset-caused",
)
# A name becomes a folder and a word on a command line: nothing that a shell or a file system reads differently.
PORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ConfigProblem(UsageProblem):
    """The configuration is wrong. `problems`: each ``file:line: what``."""

    code = "config"

    def __init__(self, problems: Sequence[str]) -> None:
        more = "" if len(problems) == 1 else f" (and {len(problems) - 1} more)"
        super().__init__(
            problems[0] + more,
            "\n        ".join([*problems[1:], "espmon config check FILE tells whether it is right"]),
        )
        self.problems = tuple(problems)


class _Wrong(ValueError):
    """A value that a setting can't have; the text says what it must be."""


# --- values ----------------------------------------------------------------------------------------------------------

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def size(value: Any) -> int:
    """Bytes: an integer, or text such as ``"512 MiB"``."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _Wrong('must be a size such as 1048576 or "512 MiB"')
    if isinstance(value, int):
        if value < 0:
            raise _Wrong("must not be negative")
        return value
    m = _SIZE.fullmatch(value)
    if not m or m[2].lower() not in _UNITS:
        raise _Wrong('must be a size such as 1048576 or "512 MiB"')
    return int(float(m[1]) * _UNITS[m[2].lower()])


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise _Wrong("must be a number above 0")
    return float(value)


def _count(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Wrong(f"must be a whole number from {low} to {high}")
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("must be true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise _Wrong("must be text")
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in words:
            near = difflib.get_close_matches(str(value), words, 1)
            raise _Wrong(f"must be one of {', '.join(words)}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return str(value)

    return check


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(v, str) and v and "\0" not in v for v in value):
        raise _Wrong("must be a list of texts")
    return tuple(value)


def _command(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
        raise _Wrong('must be a list: the program and its arguments, such as ["notify-send", "espmon"]')
    return tuple(value)


def _pauses(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise _Wrong("must be a list of seconds, such as [60, 600, 3600]")
    return tuple(_seconds(v) for v in value)


def _baud(value: Any) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 300 <= value <= 6_000_000:
        raise _Wrong('must be "auto" or a rate from 300 to 6000000')
    return value


def _pattern(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong("must be a regular expression")
    try:
        re.compile(value.encode())
    except (re.error, UnicodeError) as error:
        raise _Wrong(f"is no regular expression: {error}") from None
    return value


def _port_name(value: Any) -> str:
    if not isinstance(value, str) or not PORT_NAME.fullmatch(value):
        raise _Wrong("must be 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit")
    return value


def address(value: Any) -> tuple[str, int]:
    """``HOST:PORT``, ``:PORT`` or a port number; without a host it is the loopback address."""
    if isinstance(value, int) and not isinstance(value, bool):
        host, number = "127.0.0.1", value
    elif isinstance(value, str) and (m := re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]*)):(\d{1,5})", value)):
        host, number = m[1] or m[2] or "127.0.0.1", int(m[3])
    else:
        raise _Wrong('must be a port number or "HOST:PORT"')
    if not 0 <= number <= 65535:
        raise _Wrong("must have a port number up to 65535")
    return host, number


def is_loopback(host: str) -> bool:
    """True when nobody but this machine reaches `host`."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _events(value: Any) -> tuple[str, ...]:
    words = _texts(value)
    for word in words:
        _one_of(*HOOK_EVENTS)(word)
    return words


def _match(value: Any) -> Mapping[str, str | int]:
    if not isinstance(value, dict) or not value:
        raise _Wrong('must be a table that names the board, such as { usb_serial = "0001" }')
    out: dict[str, str | int] = {}
    for key, v in value.items():
        if key not in MATCH_KEYS:
            near = difflib.get_close_matches(key, MATCH_KEYS, 1)
            raise _Wrong(
                f"has no key {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(MATCH_KEYS)}")
            )
        if key in ("vid", "pid"):
            out[key] = _count(0, 0xFFFF)(v)
        elif key == "mac":
            mac = _text(v).lower().replace("-", ":")
            if not _MAC.fullmatch(mac):
                raise _Wrong("mac must look like 5c:cf:7f:01:02:03")
            out[key] = mac
        else:
            out[key] = _text(v)
    if set(out) <= {"vid", "pid"}:
        raise _Wrong("vid and pid alone are no identity; add usb_serial, usb_path, mac, device or url")
    return out


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A piece of a known-good image: `file`, to be at `offset` in flash."""

    file: Path
    offset: int


def _images(value: Any) -> tuple[ImageFile, ...]:
    shape = 'must be a list such as [{ file = "known-good.bin", offset = 0 }]'
    if not isinstance(value, list) or not value:
        raise _Wrong(shape)
    out = []
    for piece in value:
        if not isinstance(piece, dict) or set(piece) - {"file", "offset"} or "file" not in piece:
            raise _Wrong(shape)
        out.append(ImageFile(Path(_text(piece["file"])), _count(0, 0xFFFFFFFF)(piece.get("offset", 0))))
    return tuple(out)


def _folder(value: Any) -> Path:
    return Path(_text(value)).expanduser()


# --- the list of settings -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `section.key`, how a value is read, its default, one line of help, an example for ``config init``."""

    section: str
    key: str
    read: Callable[[Any], Any]
    default: Any
    help: str
    example: str = ""


_REQUIRED = object()

SETTINGS: tuple[Setting, ...] = (
    Setting("daemon", "state_dir", _folder, None, "database, ELF and image stores", '"/var/lib/espmon"'),
    Setting("daemon", "rescan_s", _seconds, 1.0, "how often ports are looked for, seconds"),
    Setting("daemon", "events_days", _seconds, 90.0, "how long events stay in the database, days"),
    Setting("daemon", "log_level", _one_of("debug", "info", "warning", "error"), "info", "the daemon's own log"),
    Setting("daemon", "log_json", _flag, False, "the daemon's own log as JSON lines"),
    Setting("control", "socket", _folder, None, "Unix socket of the daemon", '"/run/espmon/control.sock"'),
    Setting("control", "group", _text, None, "group that may use the socket; without it: the daemon's own", '"dialout"'),
    Setting("control", "listen", address, None, "TCP instead of the Unix socket; a token guards it", '"127.0.0.1:2200"'),
    Setting("log", "dir", _folder, None, "where the raw logs are", '"/var/log/espmon"'),
    Setting("log", "segment_bytes", size, 16 << 20, "a new segment begins at this size", '"16 MiB"'),
    Setting("log", "segment_s", _seconds, 86_400.0, "and at this age, seconds"),
    Setting("log", "keep_bytes", size, 512 << 20, "logs of one port, at most", '"512 MiB"'),
    Setting("log", "keep_days", _seconds, 90.0, "and no older than this"),
    Setting("log", "keep_bytes_total", size, None, "logs of all ports, at most", '"20 GiB"'),
    Setting("log", "low_water", size, 64 << 20, "with less free space than this raw logging pauses", '"64 MiB"'),
    Setting("log", "sync_s", _seconds, 5.0, "fsync this often, and at every crash"),
    Setting("log", "compress", _flag, True, "gzip closed segments"),
    Setting("store", "elf_bytes", size, 2 << 30, "ELF files kept, at most", '"2 GiB"'),
    Setting("store", "database_bytes", size, 1 << 30, "what the database holds, at most", '"1 GiB"'),
    Setting("store", "image_bytes", size, 1 << 30, "flash images kept, at most", '"1 GiB"'),
    Setting("recovery", "resets", _count(2, 100), 3, "so many abnormal resets ..."),
    Setting("recovery", "within_s", _seconds, 60.0, "... within this time are a boot loop"),
    Setting("recovery", "healthy_after_s", _seconds, 5.0, "text this long after a boot shows that the firmware works"),
    Setting("recovery", "alive_s", _seconds, 30.0, "and so does living this long without a reset"),
    Setting("recovery", "per_hour", _count(1, 60), 2, "recoveries of one board an hour, at most"),
    Setting("recovery", "pauses_s", _pauses, (60.0, 600.0, 3600.0), "pauses after failed recoveries; after the last: locked", "[60, 600, 3600]"),
    Setting("recovery", "brake_boards", _count(2, 10_000), 4, "when so many boards loop ..."),
    Setting("recovery", "brake_within_s", _seconds, 30.0, "... within this time it's the power: nothing is done ..."),
    Setting("recovery", "brake_s", _seconds, 600.0, "... for this long"),
    Setting("recovery", "learn_after_s", _seconds, 600.0, "a board must be healthy this long before its flash is learnt"),
    Setting("hook", "on", _events, _REQUIRED, "event types that start the command", '["crash", "boot-loop", "recovery"]'),
    Setting("hook", "command", _command, _REQUIRED, "program and arguments; gets the event as JSON on stdin", '["/usr/local/bin/tell-me"]'),
    Setting("hook", "ports", _texts, (), "only for these ports; empty: all"),
    Setting("hook", "per_minute", _count(1, 600), 6, "started at most so often"),
    Setting("hook", "timeout_s", _seconds, 30.0, "killed after this time"),
    Setting("port", "name", _port_name, _REQUIRED, "what you call the board", '"bench-3"'),
    Setting("port", "match", _match, _REQUIRED, "which board it is: usb_serial, usb_path, mac, device or url", '{ usb_serial = "0001" }'),
    Setting("port", "baud", _baud, None, 'rate, or "auto"', '"auto"'),
    Setting("port", "chip", _one_of(*CHIPS), None, "chip, when its text doesn't say it", '"esp8266"'),
    Setting("port", "elf", _texts, (), "ELF files, build folders or patterns of this firmware", '["build/firmware.elf"]'),
    Setting("port", "recover", _one_of(*RECOVER), "off", "what may be done about a boot loop: off, notify, reset, flash", '"flash"'),
    Setting("port", "image", _images, (), "known-good flash image", '[{ file = "known-good.bin", offset = 0 }]'),
    Setting("port", "healthy", _pattern, None, "text that only working firmware prints", '"MQTT connected"'),
    Setting("port", "power_cycle", _command, None, "command that switches the board off and on", '["uhubctl", "-a", "cycle", "-p", "2"]'),
    Setting("port", "erase_parameters", _flag, False, "recovery may erase RF calibration and SDK parameters"),
    Setting("port", "rfc2217", address, None, "offer the port to RFC 2217 clients; there is no login", "2217"),
    Setting("port", "flash_baud", _count(9600, 6_000_000), None, "rate for flashing; without it: 115200 for recovery", "460800"),
)  # fmt: skip

_LISTS = ("hook", "port")


def _settings_of(section: str) -> dict[str, Setting]:
    return {s.key: s for s in SETTINGS if s.section == section}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: a file and line, the environment or the built-in default."""

    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        if self.file is None:
            return "default"
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Section:
    """Checked values of one table, with their origins. Attribute access: ``config.log.keep_days``, ``port.name``."""

    section: str
    values: Mapping[str, Any]
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False)

    def __getattr__(self, key: str) -> Any:
        try:
            return self.values[key]
        except KeyError:
            raise AttributeError(key) from None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `files`: those read, in order."""

    daemon: Section
    control: Section
    log: Section
    store: Section
    recovery: Section
    hooks: tuple[Section, ...] = ()
    ports: tuple[Section, ...] = ()
    files: tuple[Path, ...] = ()

    def port(self, name: str) -> Section | None:
        """The section of port `name`."""
        return next((p for p in self.ports if p.values["name"] == name), None)


# --- reading ---------------------------------------------------------------------------------------------------------

_TABLE = re.compile(r"\s*\[\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]\s*(?:#.*)?$")
_ARRAY = re.compile(r"\s*\[\[\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]\]\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_\-]+|\"[^\"]*\"|'[^']*')\s*(?:\.\s*[A-Za-z0-9_\-]+\s*)?=")


def find_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """Line numbers (from 1) of tables and keys in TOML `text`, for messages: ``("port", 0, "baud")`` -> 12."""
    found: dict[tuple[str | int, ...], int] = {}
    where: tuple[str | int, ...] = ()
    counts: dict[str, int] = {}
    inside: str | None = None  # delimiter of a multi-line string
    for number, line in enumerate(text.splitlines(), 1):
        if inside:
            if inside in line:
                inside = None
            continue
        for quote in ('"""', "'''"):
            if line.count(quote) % 2:
                inside = quote
        if m := _ARRAY.match(line):
            name = m[1].strip("\"'")
            where = (name, counts.get(name, 0))
            counts[name] = counts.get(name, 0) + 1
            found.setdefault(where, number)
        elif m := _TABLE.match(line):
            parts = [p.strip(" \"'") for p in m[1].split(".")]
            # [port.match] continues the last [[port]]
            where = (parts[0], counts[parts[0]] - 1, *parts[1:]) if parts[0] in counts else tuple(parts)
            found.setdefault(where, number)
        elif m := _KEY.match(line):
            found.setdefault((*where, m[1].strip("\"'")), number)
    return found


@dataclass(slots=True)
class _Source:
    path: Path
    tree: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]

    def at(self, *path: str | int) -> str:
        line = self.line(*path)
        return f"{self.path}:{line}" if line else str(self.path)

    def line(self, *path: str | int) -> int | None:
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None


def read_config(path: Path, *, required: bool = True) -> Config:
    """The configuration in `path` and in the drop-in folder beside it (``espmon.d`` for ``espmon.toml``, ``*.toml`` by name).

    A later file's value replaces an earlier one's; ``[[port]]`` and ``[[hook]]`` sections add up. Raises
    :class:`ConfigProblem` with everything that is wrong. `required` False: a missing file is an empty one.
    """
    problems: list[str] = []
    sources: list[_Source] = []
    paths = [path] if required or is_there(path) else []
    drop_ins = path.with_suffix(".d")
    if os.path.isdir(drop_ins):
        paths += sorted(drop_ins.glob("*.toml"))
    for each in paths:
        try:
            text = each.read_text("utf-8")
            sources.append(_Source(each, tomllib.loads(text), find_lines(text)))
        except FileNotFoundError:
            raise ConfigProblem([f"{each}: there is no such file; espmon config init {each} writes one"]) from None
        except OSError as error:
            problems.append(f"{each}: {error.strerror}")
        except UnicodeDecodeError:
            problems.append(f"{each}: is not UTF-8")
        except tomllib.TOMLDecodeError as error:
            m = re.search(r"at line (\d+)", str(error))
            problems.append(f"{each}{':' + m[1] if m else ''}: {str(error).split(' (at')[0]}")
    return _build(sources, problems, tuple(paths))


def parse_config(text: str, path: Path = Path("espmon.toml")) -> Config:
    """The configuration in `text`, as if it stood in `path`. Raises :class:`ConfigProblem`."""
    problems: list[str] = []
    sources = []
    try:
        sources.append(_Source(path, tomllib.loads(text), find_lines(text)))
    except tomllib.TOMLDecodeError as error:
        m = re.search(r"at line (\d+)", str(error))
        problems.append(f"{path}{':' + m[1] if m else ''}: {str(error).split(' (at')[0]}")
    return _build(sources, problems, (path,))


def _build(sources: list[_Source], problems: list[str], files: tuple[Path, ...]) -> Config:
    known = list(dict.fromkeys(s.section for s in SETTINGS))
    singles: dict[str, tuple[dict[str, Any], dict[str, Origin]]] = {n: ({}, {}) for n in known if n not in _LISTS}
    listed: dict[str, list[Section]] = {n: [] for n in _LISTS}
    for source in sources:
        for name, table in source.tree.items():
            if name not in known:
                problems.append(f"{source.at(name)}: unknown section [{name}]" + _nearest(name, known))
            elif name in _LISTS:
                if not isinstance(table, list) or not all(isinstance(t, dict) for t in table):
                    problems.append(f"{source.at(name)}: write [[{name}]], with two brackets: there can be several")
                    continue
                for i, item in enumerate(table):
                    section = _read_table(source, name, item, (name, i), problems, missing=True)
                    if section:
                        listed[name].append(section)
            elif not isinstance(table, dict):
                problems.append(f"{source.at(name)}: [{name}] must be a table")
            else:
                section = _read_table(source, name, table, (name,), problems, missing=False)
                if section:
                    values, origins = singles[name]
                    values.update({k: section.values[k] for k in section.origins})
                    origins.update(section.origins)
    _check_together(listed["port"], problems)
    if problems:
        raise ConfigProblem(problems)
    made = {
        name: Section(name, {k: values.get(k, s.default) for k, s in _settings_of(name).items()}, origins)
        for name, (values, origins) in singles.items()
    }
    return Config(**made, hooks=tuple(listed["hook"]), ports=tuple(listed["port"]), files=files)


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _read_table(
    source: _Source,
    name: str,
    table: dict[str, Any],
    where: tuple[str | int, ...],
    problems: list[str],
    *,
    missing: bool,
) -> Section | None:
    settings = _settings_of(name)
    values: dict[str, Any] = {k: s.default for k, s in settings.items()}
    origins: dict[str, Origin] = {}
    right = True
    for key, value in table.items():
        setting = settings.get(key)
        at = source.at(*where, key)
        if setting is None:
            problems.append(f"{at}: unknown key {key!r} in [{name}]" + _nearest(key, list(settings)))
            right = False
            continue
        try:
            values[key] = _anchor(source.path.parent, key, setting.read(value))
        except _Wrong as error:
            problems.append(f"{at}: {key} {error}")
            right = False
            continue
        origins[key] = Origin(str(source.path), source.line(*where, key))
    if missing:
        for key, setting in settings.items():
            if setting.default is _REQUIRED and key not in table:
                problems.append(f"{source.at(*where)}: [[{name}]] needs {key!r}, such as {key} = {setting.example}")
                right = False
    return Section(name, values, origins) if right else None


def _anchor(folder: Path, key: str, value: Any) -> Any:
    """Relative paths in a file are meant from the file's folder."""
    if isinstance(value, Path):
        return folder / value
    if key == "elf":
        return tuple(str(folder / Path(v).expanduser()) for v in value)
    if key == "image":
        return tuple(ImageFile(folder / piece.file.expanduser(), piece.offset) for piece in value)
    return value


def _check_together(ports: list[Section], problems: list[str]) -> None:
    seen: dict[str, Section] = {}
    for port in ports:
        name, at = port.values["name"], port.origins["name"]
        # file systems of two systems ignore case, and a name is a folder
        other = seen.setdefault(name.lower(), port)
        if other is not port:
            problems.append(f"{at}: the name {name!r} is taken by {other.origins['name']}")
        for earlier in ports:
            if earlier is port:
                break
            if earlier.values["match"] == port.values["match"]:
                problems.append(f"{port.origins['match']}: matches the same board as {earlier.origins['match']}")
                break


# --- showing and writing ---------------------------------------------------------------------------------------------


def toml_value(value: Any) -> str:
    """A value as TOML text."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, ImageFile):
        return f"{{ file = {toml_value(str(value.file))}, offset = {value.offset} }}"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'


def _shown(key: str, value: Any) -> str:
    if key in ("listen", "rfc2217") and value is not None:
        host, number = value
        return f'"[{host}]:{number}"' if ":" in host else f'"{host}:{number}"'
    if key == "baud" and value is None:
        return '"auto"'
    return toml_value(value)


def show_config(config: Config) -> list[tuple[str, str, str, Origin]]:
    """Every setting as (section, key, TOML value, origin). Unset optional ones are left out."""
    rows: list[tuple[str, str, str, Origin]] = []
    single = [getattr(config, f.name) for f in fields(config) if f.name not in ("hooks", "ports", "files")]
    for section in [*single, *config.hooks, *config.ports]:
        for key, value in section.values.items():
            if value is None and key != "baud":
                continue
            rows.append((section.section, key, _shown(key, value), section.origins.get(key, Origin())))
    return rows


def sample_config(boards: Sequence[tuple[str, Mapping[str, str | int], str]]) -> str:
    """A commented configuration for `boards`: (name, match, comment)."""
    out = ["# espmon's daemon. `espmon config check` tells whether this file is right.", ""]
    for section in dict.fromkeys(s.section for s in SETTINGS):
        if section in _LISTS:
            continue
        out.append(f"[{section}]")
        for s in _settings_of(section).values():
            out.append(f"# {s.key} = {s.example or _shown(s.key, s.default):<28} # {s.help}")
        out.append("")
    out.append("# [[hook]]")
    for s in _settings_of("hook").values():
        out.append(f"# {s.key} = {s.example or toml_value(s.default):<28} # {s.help}")
    out.append("")
    if not boards:
        out.append("# No board is plugged in now; a section for one looks like this:")
    for name, match, comment in boards or [("bench-1", {"usb_serial": "0001"}, "")]:
        off = "" if boards else "# "
        if comment:
            out.append(f"# {comment}")
        out.append(f"{off}[[port]]")
        out.append(f"{off}name = {toml_value(name)}")
        out.append(f"{off}match = {toml_value(match)}")
        for s in _settings_of("port").values():
            if s.key not in ("name", "match"):
                out.append(f"# {s.key} = {s.example or _shown(s.key, s.default):<28} # {s.help}")
        out.append("")
    return "\n".join(out)
