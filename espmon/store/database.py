"""What boards did, in SQLite: boots, resets, crashes by fingerprint, recoveries, gaps, the audit journal.

WAL mode, one writer thread with one connection; readers open their own, read-only. Log text is not in here: segments hold
it. :meth:`Database.put` never blocks: when the disk refuses, work waits in a bounded queue, ordinary events are given up
before crashes and journal lines, and how many were is told. :meth:`Database.now` waits until its work is on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import espmon.events as ev
from espmon.errors import EspmonError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

SCHEMA_VERSION = 1
_QUEUE_LIMIT = 20_000
_BATCH_S = 0.2
# Occurrences of one crash that are kept; the group counts all of them. A board that crashes every second fills no disk.
OCCURRENCES = 100
# Rows that one step of pruning deletes at most: others write in between.
_STEP = 2000
_OLDEST = 3  # occurrences of each group that outlive their age
# SQLite cuts its journal to this size when a reader that held it up has gone.
_JOURNAL_BYTES = 64 << 20
_LOOK_S = 5.0  # how often the file itself is looked at

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY, port TEXT NOT NULL, type TEXT NOT NULL, at REAL, boot INTEGER NOT NULL, json TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_port_at ON events (port, at);
CREATE INDEX IF NOT EXISTS events_at ON events (at);
CREATE TABLE IF NOT EXISTS boots (
  id INTEGER PRIMARY KEY, port TEXT NOT NULL, at REAL, boot INTEGER NOT NULL, chip TEXT, code INTEGER, meaning TEXT,
  abnormal INTEGER NOT NULL, caused_by TEXT, elf_sha256 TEXT);
CREATE INDEX IF NOT EXISTS boots_port_at ON boots (port, at);
CREATE TABLE IF NOT EXISTS resets (
  id INTEGER PRIMARY KEY, port TEXT NOT NULL, at REAL, boot INTEGER NOT NULL, source TEXT, code INTEGER, meaning TEXT,
  abnormal INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS resets_port_at ON resets (port, at);
CREATE TABLE IF NOT EXISTS crash_groups (
  fingerprint TEXT PRIMARY KEY, kind TEXT NOT NULL, title TEXT NOT NULL, first_seen REAL, last_seen REAL,
  count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS crashes (
  id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, port TEXT NOT NULL, at REAL, boot INTEGER NOT NULL,
  elf_sha256 TEXT, symbolized INTEGER NOT NULL, json TEXT NOT NULL, whole TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS crashes_fingerprint ON crashes (fingerprint);
CREATE INDEX IF NOT EXISTS crashes_open ON crashes (symbolized) WHERE symbolized = 0;
CREATE TABLE IF NOT EXISTS recoveries (
  id INTEGER PRIMARY KEY, incident TEXT NOT NULL, port TEXT NOT NULL, at REAL, step TEXT NOT NULL, outcome TEXT NOT NULL,
  reason TEXT);
CREATE INDEX IF NOT EXISTS recoveries_port ON recoveries (port, at);
CREATE TABLE IF NOT EXISTS gaps (
  id INTEGER PRIMARY KEY, port TEXT NOT NULL, at REAL, bytes INTEGER, reason TEXT);
CREATE TABLE IF NOT EXISTS recovery_state (port TEXT PRIMARY KEY, at REAL NOT NULL, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS journal (
  id INTEGER PRIMARY KEY, at REAL NOT NULL, port TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS boards (
  port TEXT PRIMARY KEY, mac TEXT, chip TEXT, flash_bytes INTEGER, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS firmware (
  id INTEGER PRIMARY KEY, port TEXT NOT NULL, at REAL NOT NULL, elf_sha256 TEXT NOT NULL, path TEXT,
  UNIQUE (port, elf_sha256));
"""


class StoreUnusable(EspmonError):
    """The database or its folder cannot be used."""

    code = "store"
    exit_status = 3


# --- events, whole: what JSON leaves out (stack words) included -------------------------------------------------------------

_CLASSES: dict[str, type] = {
    name: cls for name, cls in vars(ev).items() if isinstance(cls, type) and is_dataclass(cls) and name != "Event"
}


def to_whole(value: Any) -> Any:
    """An event as JSON values from which :func:`from_whole` makes an equal one."""
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, ev.Address):
        return {"@": int(value)}
    if isinstance(value, int):
        return value
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, Mapping):
        return {"m": {str(k): to_whole(v) for k, v in value.items()}}
    if isinstance(value, (tuple, list)):
        return [to_whole(v) for v in value]
    return {"c": type(value).__name__, "f": {f.name: to_whole(getattr(value, f.name)) for f in fields(value)}}


def from_whole(value: Any) -> Any:
    """The inverse of :func:`to_whole`. Raises ValueError for what it never wrote."""
    if isinstance(value, list):
        return tuple(from_whole(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "@" in value:
        return ev.Address(value["@"])
    if "b" in value:
        return bytes.fromhex(value["b"])
    if "m" in value:
        return {k: from_whole(v) for k, v in value["m"].items()}
    cls = _CLASSES.get(value.get("c", ""))
    if cls is None:
        raise ValueError("not an event")
    known = {f.name for f in fields(cls)}
    try:
        return cls(**{k: from_whole(v) for k, v in value["f"].items() if k in known})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from None


# --- words for a crash ------------------------------------------------------------------------------------------------------


def crash_fingerprint(crash: ev.Crash) -> str:
    """The crash's own fingerprint; without one, a digest of what the dump says regardless of addresses on the stack."""
    if crash.fingerprint:
        return crash.fingerprint
    pc = crash.registers.get("epc1") or crash.registers.get("pc") or crash.registers.get("mepc")
    first = crash.backtraces[0][0].pc if crash.backtraces and crash.backtraces[0] else None
    said = (crash.kind, crash.chip, crash.exception and crash.exception.number, crash.message, pc or first)
    return "raw-" + hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def crash_title(crash: ev.Crash) -> str:
    """One line that names the crash: what and, when known, in which function and where."""
    what = crash.exception.name if crash.exception and crash.exception.name else crash.message or crash.kind
    top = next((f for f in crash.frames if f.function and f.module != "rom"), None)
    if top is None:
        return what
    place = f" ({top.file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{top.line})" if top.file and top.line else ""
    return f"{what} in {top.function}{place}"


# --- the database -----------------------------------------------------------------------------------------------------------


def _connect(path: Path) -> sqlite3.Connection:
    # made by us, so that nobody but the group may read it; SQLite gives its other files the same mode
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o640))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint=1000")
    connection.execute(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")
    connection.executescript(_SCHEMA)
    row = connection.execute("SELECT value FROM meta WHERE key='schema'").fetchone()
    if row is None:
        connection.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
    elif int(row[0]) > SCHEMA_VERSION:
        connection.close()
        raise StoreUnusable(
            f"{path} was written by a newer espmon", "update espmon, or name another folder with --state-dir"
        )
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection of one's own; rows come as mappings. Raises :class:`StoreUnusable`."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        connection.row_factory = sqlite3.Row
        connection.execute("SELECT 1 FROM events LIMIT 1").fetchone()
    except sqlite3.Error as error:
        raise StoreUnusable(
            f"{path}: {error}",
            "has the daemon run here yet? name its folder with --state-dir, and see docs/daemon.md, permissions",
        ) from None
    return connection


# What SQLite says of a change, not of the disk.
_OF_THE_CHANGE = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)
Work = Callable[[sqlite3.Connection], Any]


class Database:
    """The writer. Reading goes through :func:`open_reader`."""

    def __init__(self, path: Path, limit_bytes: int | None = None) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.dropped = 0  # events that were given up because the disk refused for long
        self.stuck: str | None = None  # why nothing can be written now, in the system's words
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._connection = self._open()
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable(f"{path}: {error}", "choose another folder with --state-dir") from None
        self._queue: deque[tuple[Work, bool, _Waiter | None]] = deque()
        self._condition = threading.Condition()
        self._stop = False
        self._file = self._identity()
        self._next_look = 0.0
        self._thread = threading.Thread(target=self._write_forever, name="database", daemon=True)
        self._thread.start()

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) or not self.path.exists():
                raise
            aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(OSError):
                    self.path.with_name(self.path.name + suffix).unlink()
            _log.error("%s is damaged (%s); kept as %s, a new one begins", self.path, error, aside)
            return _connect(self.path)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    # --- any thread ---

    def put(self, work: Work, *, keep: bool = False) -> None:
        """Queues `work`; never blocks. `keep`: given up last when the disk is full."""
        with self._condition:
            if len(self._queue) >= _QUEUE_LIMIT:
                self._give_up()
            self._queue.append((work, keep, None))
            self._condition.notify()

    def _give_up(self) -> None:
        for i, (_, keep, waiter) in enumerate(self._queue):
            if not keep and waiter is None:
                del self._queue[i]
                self.dropped += 1
                return
        self._queue.popleft()
        self.dropped += 1

    def now(self, work: Callable[[sqlite3.Connection], _T], *, timeout: float = 10.0) -> _T:
        """Runs `work` and returns its result when it is on the disk (fsync). Raises :class:`StoreUnusable`."""
        waiter = _Waiter()
        with self._condition:
            self._queue.append((work, True, waiter))
            self._condition.notify()
        if not waiter.done.wait(timeout):
            raise StoreUnusable(f"{self.path}: cannot be written ({self.stuck or 'no answer'})", "is the disk full?")
        if waiter.error is not None:
            raise StoreUnusable(f"{self.path}: {waiter.error}") from waiter.error
        result: _T = waiter.result
        return result

    def close(self) -> None:
        """Writes what waits and closes."""
        with self._condition:
            self._stop = True
            self._condition.notify()
        self._thread.join(10)

    # --- the writer thread ---

    def _write_forever(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._stop:
                    self._condition.wait()
                if not self._queue and self._stop:
                    break
                urgent = any(w is not None for _, _, w in self._queue) or self._stop
            if not urgent:
                time.sleep(_BATCH_S)
            with self._condition:
                batch = list(self._queue)
                self._queue.clear()
            if not self._write(batch):
                with self._condition:
                    if self._stop:
                        _log.error("%s: %d changes are lost at exit (%s)", self.path, len(batch), self.stuck)
                        break
                    self._queue.extendleft(reversed(batch))
                    while len(self._queue) > _QUEUE_LIMIT:
                        self._give_up()
                    self._condition.wait(1.0)
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _write(self, batch: list[tuple[Work, bool, _Waiter | None]]) -> bool:
        durable = any(waiter is not None for _, _, waiter in batch)
        try:
            self._look()
            if durable:
                self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("BEGIN IMMEDIATE")
            for work, _, waiter in batch:
                self._connection.execute("SAVEPOINT one")
                try:
                    result = work(self._connection)
                    if waiter:
                        waiter.result = result
                except Exception as error:
                    if isinstance(error, sqlite3.Error) and not isinstance(error, _OF_THE_CHANGE):
                        raise  # the disk's or the file's: everything is tried again
                    self._connection.execute("ROLLBACK TO one")
                    _log.error("%s: %s", self.path, error)
                    if waiter:
                        waiter.error = error
                self._connection.execute("RELEASE one")
            self._connection.execute("COMMIT")
            if durable:
                self._connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error as error:
            # full, locked by a careless reader, I/O error: everything is tried again later
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            if self.stuck is None:
                _log.error("%s: %s; trying again", self.path, error)
            self.stuck = str(error)
            return False
        self.stuck = None
        for _, _, waiter in batch:
            if waiter:
                waiter.done.set()
        return True

    def _look(self) -> None:
        """Begins anew when somebody removed or replaced the file: what is written to a removed one is lost at our end."""
        mono = time.monotonic()
        if mono < self._next_look:
            return
        self._next_look = mono + _LOOK_S
        found = self._identity()
        if found == self._file and found is not None:
            return
        _log.error("%s was removed or replaced; what was in it is gone, a new one begins", self.path)
        self._connection.close()
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from None
        self._connection = self._open()
        self._file = self._identity()

    # --- what the daemon writes ---

    def event(self, event: ev.Event, *, elf_sha256: str | None = None) -> None:
        """Stores an event, and what can be counted of it in its own table. Ordinary text is not stored."""
        if isinstance(event, (ev.Text, ev.Progress)):
            return
        self.put(
            lambda c: store_event(c, event, elf_sha256),
            keep=isinstance(event, (ev.Crash, ev.Recovery, ev.BootLoop, ev.Gap)),
        )

    def audit(self, at: float, port: str, who: str, what: str, **facts: Any) -> None:
        """One line of the journal: `who` did `what` to `port`."""
        self.put(lambda c: _audit(c, at, port, who, what, facts), keep=True)

    def audit_now(self, at: float, port: str, who: str, what: str, **facts: Any) -> None:
        """The same, on the disk when it returns. Raises :class:`StoreUnusable`: then nothing may be written to flash."""
        self.now(lambda c: _audit(c, at, port, who, what, facts))

    def remember_board(self, names: Sequence[str], at: float, mac: str | None, chip: str | None, flash_bytes: int | None) -> None:
        """What a board's chip said of itself, under each of the names that it goes by."""
        self.put(lambda c: _store_board(c, names, at, mac, chip, flash_bytes), keep=True)

    def remember_board_now(self, name: str, at: float, mac: str | None, chip: str | None, flash_bytes: int | None) -> None:
        """The same, on the disk when it returns. Raises :class:`StoreUnusable`."""
        self.now(lambda c: _store_board(c, (name,), at, mac, chip, flash_bytes))

    def board(self, name: str) -> tuple[str | None, str | None]:
        """(MAC, chip) of the board with this name as known from before. Raises :class:`StoreUnusable`."""
        row = self.now(lambda c: c.execute("SELECT mac, chip FROM boards WHERE port = ?", (name,)).fetchone())
        return (row[0], row[1]) if row else (None, None)

    def save_recovery_state(self, port: str, at: float, state: Mapping[str, Any]) -> None:
        """Stores the recovery policy's state of `port`, on the disk when it returns. Raises :class:`StoreUnusable`."""
        text = json.dumps(state)
        self.now(lambda c: _store_recovery_state(c, port, at, text))

    def put_recovery_state(self, port: str, at: float, state: Mapping[str, Any]) -> None:
        """The same, soon."""
        text = json.dumps(state)
        self.put(lambda c: _store_recovery_state(c, port, at, text), keep=True)

    def recovery_states(self) -> dict[str, dict[str, Any]]:
        """The stored states by port; what can't be read as one is ``{"unreadable": text}``."""
        rows = self.now(lambda c: c.execute("SELECT port, json FROM recovery_state").fetchall())
        states: dict[str, dict[str, Any]] = {}
        for port, text in rows:
            try:
                state = json.loads(text)
            except (TypeError, ValueError, RecursionError):
                state = None
            states[str(port)] = state if isinstance(state, dict) else {"unreadable": str(text)[:200]}
        return states

    def firmware_seen(self, port: str, at: float, sha256: str, path: str) -> None:
        """`port`'s build folder held this ELF from `at` (its modification time) on."""
        self.put(
            lambda c: c.execute(
                "INSERT INTO firmware (port, at, elf_sha256, path) VALUES (?, ?, ?, ?) ON CONFLICT (port, elf_sha256) DO NOTHING",
                (port, at, sha256, path),
            )
        )

    def prune(self, before: float) -> None:
        """Deletes events, boots, resets and gaps older than `before`; crash groups keep their newest three occurrences.

        In steps, so that nobody who writes waits for long.
        """

        def work(c: sqlite3.Connection) -> None:
            if _delete_older(c, before) >= _STEP and not self._stop:
                self.put(work)

        self.put(work)

    def keep_size(self) -> None:
        """Deletes the oldest until what is stored takes no more than `limit_bytes`, in steps; the file's room is used again."""
        limit = self.limit_bytes
        if limit is None:
            return

        def begin(c: sqlite3.Connection) -> None:
            if _used_bytes(c) > limit:
                _log.warning("%s holds more than %d MiB: the oldest goes", self.path, limit >> 20)
                step(c)

        def step(c: sqlite3.Connection) -> None:
            if _used_bytes(c) > limit * 9 // 10 and _delete_oldest(c) and not self._stop:
                self.put(step)

        self.put(begin)

    def resymbolize(self, explain: Callable[[ev.Crash, str, float | None], tuple[ev.Crash, str | None] | None]) -> int:
        """Decodes crashes that are stored without symbols: `explain(crash, port, boot time)` gives it with frames, or None.

        `explain` runs in the caller's thread. Returns how many were decoded; their groups are merged with others of the
        new fingerprint.
        """
        rows = self.now(
            lambda c: c.execute(
                "SELECT id, port, whole FROM crashes WHERE symbolized = 0 ORDER BY id DESC LIMIT 1000"
            ).fetchall()
        )
        count = 0
        for row_id, port, whole in rows:
            try:
                crash = from_whole(json.loads(whole))
            except ValueError:
                continue
            booted = self.now(
                lambda c, port=port, crash=crash: c.execute(  # type: ignore[misc]
                    "SELECT max(at) FROM boots WHERE port = ? AND at <= ?", (port, crash.at)
                ).fetchone()
            )
            found = explain(crash, port, booted[0] if booted else None)
            if found is None:
                continue
            self.now(lambda c, i=row_id, f=found: _regroup(c, i, f[0], f[1]))  # type: ignore[misc]
            count += 1
        return count


_DATED = ("events", "boots", "resets", "gaps", "recoveries", "journal")
_SPARED = (
    f"SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY fingerprint ORDER BY id DESC) AS n FROM crashes) WHERE n <= {_OLDEST}"
)


def _delete_older(c: sqlite3.Connection, before: float) -> int:
    """One step; the largest number of rows that went from a table."""
    most = 0
    for table in _DATED:
        done = c.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE at < ? LIMIT {_STEP})", (before,))
        most = max(most, done.rowcount)
    done = c.execute(
        f"DELETE FROM crashes WHERE id IN (SELECT id FROM crashes WHERE at < ? AND id NOT IN ({_SPARED}) LIMIT {_STEP})", (before,)
    )
    return max(most, done.rowcount)


def _delete_oldest(c: sqlite3.Connection) -> int:
    """One step of making room: a twentieth of each table goes; how many rows. Rows are in the order they came, whatever the
    clock said then; of crashes those go first whose group has newer ones."""
    gone = 0
    for table, order in (*((t, "id") for t in _DATED), ("crashes", f"id IN ({_SPARED}), id")):
        some = f"SELECT id FROM {table} ORDER BY {order} LIMIT (SELECT (count(*) + 19) / 20 FROM {table})"
        gone += c.execute(f"DELETE FROM {table} WHERE id IN ({some})").rowcount
    return gone


def _used_bytes(c: sqlite3.Connection) -> int:
    pages, free, size = (int(c.execute(f"PRAGMA {what}").fetchone()[0]) for what in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size


class _Waiter:
    __slots__ = ("done", "error", "result")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: Any = None
        self.error: Exception | None = None


def _audit(c: sqlite3.Connection, at: float, port: str, who: str, what: str, facts: Mapping[str, Any]) -> None:
    c.execute(
        "INSERT INTO journal (at, port, who, what, json) VALUES (?, ?, ?, ?, ?)",
        (at, port, who, what, json.dumps(facts)),
    )


def _store_board(
    c: sqlite3.Connection, names: Sequence[str], at: float, mac: str | None, chip: str | None, flash_bytes: int | None
) -> None:
    facts = json.dumps({"at": at})
    for name in names:
        c.execute("INSERT OR REPLACE INTO boards VALUES (?, ?, ?, ?, ?)", (name, mac, chip, flash_bytes, facts))


def _store_recovery_state(c: sqlite3.Connection, port: str, at: float, text: str) -> None:
    c.execute("INSERT OR REPLACE INTO recovery_state VALUES (?, ?, ?)", (port, at, text))


def store_event(c: sqlite3.Connection, event: ev.Event, elf_sha256: str | None) -> None:
    """Writes one event into its tables, in the caller's transaction."""
    port = event.port or ""
    cause = getattr(event, "reset", None)
    code, meaning, abnormal = (cause.code, cause.meaning, cause.abnormal) if cause else (None, None, False)
    if code is not None and not -(1 << 63) <= code < 1 << 63:
        code = None  # a device printed it; the whole number is in the event's JSON
    c.execute(
        "INSERT INTO events (port, type, at, boot, json) VALUES (?, ?, ?, ?, ?)",
        (port, event.type, event.at, event.boot, ev.to_json_line(event)),
    )
    if isinstance(event, ev.Boot):
        c.execute(
            "INSERT INTO boots (port, at, boot, chip, code, meaning, abnormal, caused_by, elf_sha256) VALUES (?,?,?,?,?,?,?,?,?)",
            (port, event.at, event.boot, event.chip, code, meaning, abnormal, event.caused_by, elf_sha256),
        )
    elif isinstance(event, ev.Reset):
        c.execute(
            "INSERT INTO resets (port, at, boot, source, code, meaning, abnormal) VALUES (?,?,?,?,?,?,?)",
            (port, event.at, event.boot, event.source, code, meaning, abnormal),
        )
    elif isinstance(event, ev.Recovery):
        c.execute(
            "INSERT INTO recoveries (incident, port, at, step, outcome, reason) VALUES (?,?,?,?,?,?)",
            (event.incident or "", port, event.at, event.step, event.outcome, event.reason),
        )
    elif isinstance(event, ev.Gap):
        c.execute(
            "INSERT INTO gaps (port, at, bytes, reason) VALUES (?,?,?,?)", (port, event.at, event.bytes, event.reason)
        )
    elif isinstance(event, ev.Crash):
        fingerprint = crash_fingerprint(event)
        c.execute(
            "INSERT INTO crashes (fingerprint, port, at, boot, elf_sha256, symbolized, json, whole) VALUES (?,?,?,?,?,?,?,?)",
            (
                fingerprint,
                port,
                event.at,
                event.boot,
                elf_sha256 or (event.elf.sha256 if event.elf else None) or event.elf_sha256,
                _symbolized(event),
                ev.to_json_line(event),
                json.dumps(to_whole(event)),
            ),
        )
        _count_group(c, fingerprint, event, 1)
        c.execute(
            "DELETE FROM crashes WHERE id IN (SELECT id FROM crashes WHERE fingerprint = ? ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (fingerprint, OCCURRENCES),
        )


def _symbolized(crash: ev.Crash) -> bool:
    return crash.elf is not None and crash.elf.match != "mismatch" and any(f.module == "app" for f in crash.frames)


def _count_group(c: sqlite3.Connection, fingerprint: str, crash: ev.Crash, by: int) -> None:
    c.execute(
        "INSERT INTO crash_groups VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (fingerprint) DO UPDATE SET "
        "first_seen = min(coalesce(first_seen, excluded.first_seen), coalesce(excluded.first_seen, first_seen)), "
        "last_seen = max(coalesce(last_seen, excluded.last_seen), coalesce(excluded.last_seen, last_seen)), count = count + ?",
        (fingerprint, crash.kind, crash_title(crash), crash.at, crash.at, by, by),
    )


def _regroup(c: sqlite3.Connection, row_id: int, crash: ev.Crash, elf_sha256: str | None) -> None:
    row = c.execute("SELECT fingerprint FROM crashes WHERE id = ?", (row_id,)).fetchone()
    if row is None:
        return
    fingerprint = crash_fingerprint(crash)
    c.execute(
        "UPDATE crashes SET fingerprint=?, elf_sha256=coalesce(?, elf_sha256), symbolized=1, json=?, whole=? WHERE id=?",
        (fingerprint, elf_sha256, ev.to_json_line(crash), json.dumps(to_whole(crash)), row_id),
    )
    if fingerprint != row[0]:
        c.execute("UPDATE crash_groups SET count = count - 1 WHERE fingerprint = ?", (row[0],))
        c.execute("DELETE FROM crash_groups WHERE fingerprint = ? AND count <= 0", (row[0],))
        _count_group(c, fingerprint, crash, 1)
    else:
        c.execute("UPDATE crash_groups SET title = ? WHERE fingerprint = ?", (crash_title(crash), fingerprint))


# --- what commands read -------------------------------------------------------------------------------------------------------


def crash_groups(c: sqlite3.Connection, *, port: str | None = None) -> list[dict[str, Any]]:
    """Groups, newest first: fingerprint, kind, title, first_seen, last_seen (Unix s), count, boards, firmware."""
    out = []
    for g in c.execute("SELECT * FROM crash_groups ORDER BY last_seen DESC"):
        boards = [
            r[0]
            for r in c.execute(
                "SELECT DISTINCT port FROM crashes WHERE fingerprint=? ORDER BY port", (g["fingerprint"],)
            )
        ]
        if port is not None and port not in boards:
            continue
        firmware = [
            r[0]
            for r in c.execute(
                "SELECT DISTINCT elf_sha256 FROM crashes WHERE fingerprint=? AND elf_sha256 IS NOT NULL",
                (g["fingerprint"],),
            )
        ]
        out.append({**dict(g), "boards": boards, "firmware": firmware})
    return out


def crash_occurrences(c: sqlite3.Connection, fingerprint: str) -> Iterator[tuple[ev.Crash, str]]:
    """(crash, its contract JSON) of the group whose fingerprint begins so, newest first."""
    pattern = fingerprint.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    for row in c.execute(
        "SELECT json, whole FROM crashes WHERE fingerprint LIKE ? ESCAPE '\\' ORDER BY id DESC", (pattern,)
    ):
        with contextlib.suppress(ValueError):
            crash = from_whole(json.loads(row["whole"]))
            if isinstance(crash, ev.Crash):
                yield crash, row["json"]


def event_lines(
    c: sqlite3.Connection,
    *,
    port: str | None = None,
    types: tuple[str, ...] = (),
    since: float | None = None,
    after: int = 0,
) -> Iterator[tuple[int, str]]:
    """(row id, the contract's JSON) in order."""
    where, args = ["id > ?"], [after]  # type: tuple[list[str], list[Any]]
    if port is not None:
        where.append("port = ?")
        args.append(port)
    if types:
        where.append(f"type IN ({','.join('?' * len(types))})")
        args += types
    if since is not None:
        where.append("at >= ?")
        args.append(since)
    for row in c.execute(f"SELECT id, json FROM events WHERE {' AND '.join(where)} ORDER BY id", args):
        yield row[0], row[1]


def boot_times(c: sqlite3.Connection, port: str) -> list[float]:
    """Times of the boots of `port`, oldest first."""
    return [r[0] for r in c.execute("SELECT at FROM boots WHERE port = ? AND at IS NOT NULL ORDER BY id", (port,))]


def port_summary(c: sqlite3.Connection, port: str, now: float) -> dict[str, Any]:
    """What `espmon status` says of a port from the past: last boot, resets of the last hour by cause, crashes, gaps."""
    last = c.execute("SELECT * FROM boots WHERE port=? ORDER BY id DESC LIMIT 1", (port,)).fetchone()
    reset_counts = {
        (r[0] or "unknown"): r[1]
        for r in c.execute(
            "SELECT meaning, count(*) FROM boots WHERE port=? AND at >= ? GROUP BY meaning", (port, now - 3600)
        )
    }
    groups = [
        {"fingerprint": r[0], "title": r[1], "count": r[2]}
        for r in c.execute(
            "SELECT g.fingerprint, g.title, count(*) FROM crashes k JOIN crash_groups g USING (fingerprint) WHERE k.port=? "
            "GROUP BY g.fingerprint ORDER BY max(k.id) DESC LIMIT 10",
            (port,),
        )
    ]
    gaps = c.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM gaps WHERE port=?", (port,)).fetchone()
    recovery = c.execute("SELECT * FROM recoveries WHERE port=? ORDER BY id DESC LIMIT 1", (port,)).fetchone()
    return {
        "last_boot": {k: last[k] for k in ("at", "chip", "meaning", "caused_by")} if last else None,
        "resets_last_hour": reset_counts,
        "crashes": groups,
        "gaps": {"count": gaps[0], "bytes": gaps[1]},
        "last_recovery": {k: recovery[k] for k in ("at", "step", "outcome", "reason", "incident")}
        if recovery
        else None,
    }
