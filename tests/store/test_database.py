"""The database: one writer, groups by fingerprint, and what it does when the disk or a killer interferes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import espmon.events as ev
from espmon.store import database as db
from espmon.store.database import Database, StoreUnusable, from_whole, open_reader, to_whole

CRASH = ev.Crash(
    kind="exception",
    port="bench",
    at=100.0,
    boot=2,
    chip="esp8266",
    exception=ev.ExceptionCause(number=28, name="LoadProhibited"),
    registers={"epc1": ev.Address(0x40201234), "excvaddr": ev.Address(0)},
    stacks=(
        ev.StackDump(
            context="cont",
            sp=ev.Address(0x3FFFFD00),
            lines=1,
            code_words=(ev.Address(0x40205678),),
            words=((0x3FFFFD00, 0x40205678), (0x3FFFFD04, 1)),
        ),
    ),
    backtraces=((ev.BacktraceEntry(pc=ev.Address(0x40201234)),),),
)


def test_an_event_comes_back_whole() -> None:
    again = from_whole(json.loads(json.dumps(to_whole(CRASH))))
    assert again == CRASH
    assert isinstance(again.registers["epc1"], ev.Address)
    assert again.stacks[0].words == CRASH.stacks[0].words
    with pytest.raises(ValueError):
        from_whole({"c": "Popen", "f": {}})


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_its_files_are_not_for_everybody(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        database = Database(tmp_path / "d.sqlite")
    finally:
        os.umask(before)
    database.now(lambda c: c.execute("INSERT OR REPLACE INTO meta VALUES ('a', 'b')").rowcount)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    database.close()
    assert modes == dict.fromkeys(("d.sqlite", "d.sqlite-wal", "d.sqlite-shm"), 0o640)


def test_crashes_are_grouped_and_counted(tmp_path: Path) -> None:
    store = Database(tmp_path / "espmon.sqlite")
    for i in range(5):
        store.event(replace(CRASH, at=100.0 + i, port=f"b{i % 2}"))
    store.event(replace(CRASH, kind="abort", exception=None))
    store.close()
    with open_reader(tmp_path / "espmon.sqlite") as c:
        groups = db.crash_groups(c)
        assert [(g["count"], g["first_seen"], g["last_seen"], g["boards"]) for g in groups] == [
            (5, 100.0, 104.0, ["b0", "b1"]),
            (1, 100.0, 100.0, ["bench"]),
        ]
        found = list(db.crash_occurrences(c, groups[0]["fingerprint"][:9]))
        assert len(found) == 5
        assert found[0][0].at == 104.0
        assert json.loads(found[0][1])["type"] == "crash"
        assert list(db.crash_occurrences(c, "%")) == [], "a pattern is no prefix"


def test_a_crash_is_decoded_when_its_elf_arrives(tmp_path: Path) -> None:
    store = Database(tmp_path / "espmon.sqlite")
    store.event(ev.Boot(port="bench", at=90.0))
    store.event(CRASH)
    store.event(replace(CRASH, at=200.0, fingerprint="other"))
    asked: list[float | None] = []

    def explain(crash: ev.Crash, port: str, booted: float | None) -> tuple[ev.Crash, str] | None:
        asked.append(booted)
        if crash.fingerprint == "other":
            return None
        frame = ev.Frame(address=ev.Address(0x40201234), function="loop", file="C:\\x\\m.cpp", line=9, module="app")
        return replace(crash, frames=(frame,), fingerprint="f00d", elf=ev.ElfRef(sha256="ab")), "ab"

    assert store.resymbolize(explain) == 1
    assert store.resymbolize(lambda *_: None) == 0
    assert asked == [90.0, 90.0]
    store.close()
    with open_reader(tmp_path / "espmon.sqlite") as c:
        assert [(g["fingerprint"], g["title"], g["count"], g["firmware"]) for g in db.crash_groups(c)] == [
            ("other", "LoadProhibited", 1, []),
            ("f00d", "LoadProhibited in loop (m.cpp:9)", 1, ["ab"]),
        ]


def test_events_can_be_read_by_port_type_and_from_a_row(tmp_path: Path) -> None:
    store = Database(tmp_path / "espmon.sqlite")
    store.event(ev.Text(port="a", raw=b"not stored"))
    store.event(ev.Boot(port="a", at=1.0, reset=ev.ResetCause(code=4, meaning="hardware watchdog reset", abnormal=True)))
    store.event(ev.Gap(port="b", at=2.0, bytes=77, reason="disk full"))
    store.event(ev.Recovery(port="a", at=3.0, step="reset", outcome="started", incident="a-1"))
    store.close()
    with open_reader(store.path) as c:
        everything = list(db.event_lines(c))
        assert [json.loads(line)["type"] for _, line in everything] == ["boot", "gap", "recovery"]
        assert [json.loads(x)["type"] for _, x in db.event_lines(c, port="a", after=everything[0][0])] == ["recovery"]
        assert [json.loads(x)["bytes"] for _, x in db.event_lines(c, types=("gap",), since=1.5)] == [77]
        summary = db.port_summary(c, "a", 10.0)
        assert summary["resets_last_hour"] == {"hardware watchdog reset": 1}
        assert summary["last_recovery"]["step"] == "reset"
        assert db.port_summary(c, "b", 10.0)["gaps"] == {"count": 1, "bytes": 77}


def test_a_damaged_recovery_state_is_told_apart_from_none(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.sqlite")
    database.save_recovery_state("good", 1.0, {"strikes": 1})
    for port, text in (("torn", '{"strikes": 1'), ("list", "[]"), ("null", "null")):
        database.now(lambda c, row=(port, text): c.execute("INSERT INTO recovery_state VALUES (?, 1, ?)", row).rowcount)
    assert database.recovery_states() == {
        "good": {"strikes": 1},
        "torn": {"unreadable": '{"strikes": 1'},
        "list": {"unreadable": "[]"},
        "null": {"unreadable": "null"},
    }
    database.close()


def test_recovery_state_is_on_the_disk_when_saved(tmp_path: Path) -> None:
    store = Database(tmp_path / "espmon.sqlite")
    store.save_recovery_state("a", 1.0, {"locked": True})
    other = sqlite3.connect(store.path)
    assert other.execute("SELECT json FROM recovery_state").fetchone() == ('{"locked": true}',)
    other.close()
    assert store.recovery_states() == {"a": {"locked": True}}
    store.close()


def test_a_refusing_disk_keeps_crashes_and_recovers_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_QUEUE_LIMIT", 50)
    store = Database(tmp_path / "espmon.sqlite")
    store.now(lambda c: c.execute("PRAGMA max_page_count=1"))  # SQLite's own "disk is full"
    for i in range(60):
        store.event(ev.Boot(port="a", at=float(i)))
        if i % 6 == 0:
            store.event(replace(CRASH, at=float(i)))
    with pytest.raises(StoreUnusable, match="full"):
        store.now(lambda c: c.execute("INSERT INTO meta VALUES ('k', ?)", ("x" * 100_000,)).rowcount, timeout=2.0)
    assert store.stuck
    assert store.dropped > 0
    with store._condition:
        store._connection.execute("PRAGMA max_page_count=100000")
    store.close()
    with open_reader(store.path) as c:
        assert c.execute("SELECT count(*) FROM crashes").fetchone()[0] == 10, "no crash was given up"


def test_a_damaged_file_is_put_aside_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "espmon.sqlite"
    path.write_bytes(b"this is no database" * 1000)
    store = Database(path)
    store.event(ev.Boot(port="a", at=1.0))
    store.close()
    assert len(list(tmp_path.glob("espmon.sqlite.damaged-*"))) == 1
    with open_reader(path) as c:
        assert len(list(db.event_lines(c))) == 1


def test_a_reader_without_a_database_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable) as caught:
        open_reader(tmp_path / "none.sqlite")
    assert caught.value.hint


def test_old_events_go_but_each_group_keeps_its_newest(tmp_path: Path) -> None:
    store = Database(tmp_path / "espmon.sqlite")
    for i in range(10):
        store.event(ev.Boot(port="a", at=float(i)))
        store.event(replace(CRASH, at=float(i)))
    store.prune(8.0)
    store.close()
    with open_reader(store.path) as c:
        assert c.execute("SELECT count(*) FROM boots").fetchone()[0] == 2
        assert c.execute("SELECT count(*) FROM crashes").fetchone()[0] == 3
        assert db.crash_groups(c)[0]["count"] == 10


def test_a_change_that_cannot_be_stored_does_not_stop_the_others(tmp_path: Path) -> None:
    """Numbers come from devices: one may be larger than SQLite's."""
    store = Database(tmp_path / "espmon.sqlite")
    store.event(ev.Boot(port="a", at=1.0))
    store.event(ev.Boot(port="a", at=2.0, boot=10**30))
    store.audit(3.0, "a", "somebody", "something", fact=object())
    store.event(ev.Boot(port="a", at=4.0, reset=ev.ResetCause(code=10**30)))
    with pytest.raises(StoreUnusable, match="not JSON serializable"):
        store.audit_now(5.0, "a", "somebody", "something", fact=object())
    store.close()
    with open_reader(store.path) as c:
        assert db.boot_times(c, "a") == [1.0, 4.0]
        assert c.execute("SELECT count(*) FROM journal").fetchone()[0] == 0


def test_a_board_that_crashes_all_day_fills_no_disk(tmp_path: Path) -> None:
    store = Database(tmp_path / "espmon.sqlite")
    for i in range(db.OCCURRENCES + 30):
        store.event(replace(CRASH, at=float(i)))
    store.close()
    with open_reader(store.path) as c:
        (group,) = db.crash_groups(c)
        assert group["count"] == db.OCCURRENCES + 30
        kept = [crash.at for crash, _ in db.crash_occurrences(c, group["fingerprint"])]
    assert kept == [float(i) for i in reversed(range(30, db.OCCURRENCES + 30))], "the newest, whole"


def test_pruning_goes_in_steps_and_lets_others_write_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_STEP", 10)
    monkeypatch.setattr(db, "_BATCH_S", 0.0)
    store = Database(tmp_path / "espmon.sqlite")
    for i in range(100):
        store.event(ev.Boot(port="a", at=float(i)))
    left = store.now(lambda c: c.execute("SELECT count(*) FROM events").fetchone()[0])
    assert left == 100
    store.prune(95.0)
    seen: set[int] = set()
    limit = time.monotonic() + 20
    while (left := store.now(lambda c: c.execute("SELECT count(*) FROM events").fetchone()[0])) > 5:
        seen.add(left)
        assert time.monotonic() < limit
    store.close()
    assert left == 5
    assert all(n % 10 in (0, 5) for n in seen)


def test_what_is_stored_is_bounded_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_BATCH_S", 0.0)
    store = Database(tmp_path / "espmon.sqlite", limit_bytes=400_000)
    for i in range(3000):
        store.event(ev.PortChanged(port="a", at=4e9 - i, state="failed", reason="x" * 100))
    for i in range(40):  # each a group of its own
        store.event(replace(CRASH, at=float(i), fingerprint=f"f{i}", message="y" * 4000))
    store.now(lambda c: None)
    store.keep_size()
    limit = time.monotonic() + 20
    while (used := store.now(db._used_bytes)) > 400_000:
        assert time.monotonic() < limit
    newest = store.now(lambda c: c.execute("SELECT max(id), count(*) FROM events").fetchone())
    store.close()
    assert used > 100_000, "not more than needed"
    assert newest[0] == 3040
    with open_reader(store.path) as c:
        assert len(db.crash_groups(c)) == 40, "that there were crashes stays known"


def test_a_database_that_somebody_removes_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_LOOK_S", 0.0)
    store = Database(tmp_path / "state" / "espmon.sqlite")
    store.event(ev.Boot(port="a", at=1.0))
    store.now(lambda c: None)
    shutil.rmtree(tmp_path / "state")
    store.event(ev.Boot(port="a", at=2.0))
    store.close()
    with open_reader(store.path) as c:
        assert [json.loads(line)["at"] for _, line in db.event_lines(c)] == ["1970-01-01T00:00:02.000Z"]


KILLED = """
import sys, itertools
from pathlib import Path
import espmon.events as ev
from espmon.store.database import Database
store = Database(Path(sys.argv[1]))
for n in itertools.count():
    store.event(ev.Boot(port="a", at=float(n)))
    store.save_recovery_state("a", float(n), {"n": n})
    sys.stdout.write("%d\\n" % n); sys.stdout.flush()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_what_was_saved_survives_kill_nine(tmp_path: Path) -> None:
    path = tmp_path / "espmon.sqlite"
    for rounds in (3, 40, 111):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(rounds):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.stdout.close()
        child.wait()
        store = Database(path)
        assert store.recovery_states()["a"]["n"] >= told
        assert store.now(lambda c: c.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
        store.close()
