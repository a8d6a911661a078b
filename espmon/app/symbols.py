"""Which ELF belongs to which boot, and the thread that decodes crashes with it while ports are read on."""

from __future__ import annotations

import logging
import threading
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from espmon.events import Crash, Event, Reset
from espmon.store.database import Database
from espmon.store.elfs import ElfStore, StoredElf, expand

_log = logging.getLogger(__name__)

# How often build folders are looked at.
LOOK_S = 2.0
_VERSIONS = 300  # of one path that are known; the store seldom has as many
_LOADED = 8  # symbolizers that stay in memory
_WAITING = 256  # crashes that wait; beyond it they are stored without symbols and decoded later


def has_addresses(event: Event) -> bool:
    """True for events that symbols say more about."""
    return isinstance(event, Crash) or (isinstance(event, Reset) and bool(event.registers or event.backtraces))


class Symbols:
    """Keeps every ELF that build folders showed, and explains events with the one that the board was running.

    The one printed by the firmware (ESP-IDF's ``ELF file SHA256``) wins. Otherwise it is the newest that was built before
    the board's last boot: a later build cannot be what was running. `watched`: port name -> patterns.
    """

    def __init__(self, store: ElfStore, database: Database, index_dir: Path) -> None:
        self._store = store
        self._database = database
        self._index_dir = index_dir
        self._lock = threading.Lock()
        self._patterns: dict[str, tuple[str, ...]] = {}
        # port -> source path -> [(built, sha256)], oldest first
        self._versions: dict[str, dict[str, list[tuple[float, str]]]] = {}
        self._loaded: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._queue: Queue[tuple[Event, str, float | None, Callable[[Event, str | None], None]]] = Queue(_WAITING)
        self._stop = threading.Event()
        self._work_again = False
        for port, at, sha256, path in database.now(
            lambda c: c.execute("SELECT port, at, elf_sha256, path FROM firmware ORDER BY at").fetchall()
        ):
            self._is_new(port, path, sha256, at)
        self._thread = threading.Thread(target=self._run, name="symbols", daemon=True)

    def start(self) -> None:
        """Begins to look at build folders and to explain."""
        self._thread.start()

    def watch(self, patterns: dict[str, tuple[str, ...]]) -> None:
        """The configuration's ``elf`` settings, by port name."""
        with self._lock:
            self._patterns = dict(patterns)

    def add_version(self, port: str, path: str, sha256: str, built: float) -> None:
        """`port` runs the kept ELF `sha256`, which was built at `built` (Unix s)."""
        with self._lock:
            self._is_new(port, path, sha256, built)
        self._database.firmware_seen(port, built, sha256, path)

    def _is_new(self, port: str, path: str, sha256: str, built: float) -> bool:
        """Notes a version; False when it is known. Call with the lock held. The oldest of many are forgotten."""
        versions = self._versions.setdefault(port, {}).setdefault(path, [])
        if any(sha == sha256 for _, sha in versions):
            return False
        insort(versions, (built, sha256))
        del versions[:-_VERSIONS]
        return (built, sha256) in versions

    def elf_arrived(self) -> None:
        """An ELF was added by hand: crashes without symbols are tried again."""
        self._work_again = True

    def explain(self, event: Event, port: str, booted: float | None, done: Callable[[Event, str | None], None]) -> None:
        """Calls `done(event with symbols, ELF's SHA-256)` from the symbol thread; at once and as it is when too many wait."""
        try:
            self._queue.put_nowait((event, port, booted, done))
        except Full:
            done(event, None)

    def stop(self) -> None:
        """Ends after what waits now, within a few seconds."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        while True:
            try:
                event, _, _, done = self._queue.get_nowait()
            except Empty:
                return
            done(event, None)

    def current(self, port: str, at: float | None = None) -> list[str]:
        """SHA-256 of the ELFs that `port` was running when it booted at `at` (None: now), one per source file."""
        with self._lock:
            out = []
            for versions in self._versions.get(port, {}).values():
                fitting = [sha for built, sha in versions if at is None or built <= at]
                out.append(fitting[-1] if fitting else versions[0][1])
            return out

    def _run(self) -> None:
        self._work_again = True
        while not self._stop.is_set():
            try:
                self._work()
            except Exception:  # noqa: BLE001 - logged; without this thread crashes would wait for ever
                _log.exception("symbols")
                self._stop.wait(LOOK_S)

    def _work(self) -> None:
        """One crash, or one look at the build folders."""
        try:
            event, port, booted, done = self._queue.get(timeout=0.0 if self._work_again else LOOK_S)
        except Empty:
            if self.look() or self._work_again:
                self._work_again = False
                self._resymbolize()
            return
        try:
            self.look()
        finally:
            done(*self._explained(event, port, booted))

    def look(self) -> bool:
        """Looks at the build folders once; True when a new ELF was kept."""
        with self._lock:
            patterns = dict(self._patterns)
        arrived = False
        for port, each in patterns.items():
            for path in expand(each):
                found = self._store.look(path)
                if found is None:
                    continue
                elf, _ = found
                try:
                    built = path.stat().st_mtime
                except OSError:
                    continue
                with self._lock:
                    if not self._is_new(port, str(path), elf.sha256, built):
                        continue
                self._database.firmware_seen(port, built, elf.sha256, str(path))
                arrived = True
        return arrived

    def _explained(self, event: Event, port: str, booted: float | None) -> tuple[Event, str | None]:
        if not isinstance(event, (Crash, Reset)):
            return event, None
        try:
            elfs = self._choose(event, port, booted)
            if not elfs:
                return self._symbolizer(()).explain(event), None
            explained = self._symbolizer(tuple(str(e.path) for e in elfs)).explain(event)
        except Exception:  # noqa: BLE001 - a hostile ELF or a bug must not cost the crash itself
            _log.exception("symbols for %s", port)
            return event, None
        return self._named(explained, elfs)

    @staticmethod
    def _named(explained: Crash | Reset, elfs: Sequence[StoredElf]) -> tuple[Event, str | None]:
        """The path people know instead of the store's."""
        if not isinstance(explained, Crash) or explained.elf is None:
            return explained, elfs[0].sha256
        ref = explained.elf
        known = next((e for e in elfs if str(e.path) == ref.path or e.sha256 == ref.sha256), elfs[0])
        return replace(explained, elf=replace(ref, path=known.source or ref.path, sha256=known.sha256)), known.sha256

    def _choose(self, event: Crash | Reset, port: str, booted: float | None) -> list[StoredElf]:
        printed = getattr(event, "elf_sha256", None)
        if printed and (elf := self._store.get(str(printed))) is not None:
            return [elf]
        return [elf for sha in self.current(port, booted) if (elf := self._store.get(sha)) is not None]

    def _symbolizer(self, paths: tuple[str, ...]) -> Any:
        if paths in self._loaded:
            self._loaded.move_to_end(paths)
            return self._loaded[paths]
        from espmon.symbolize import Symbolizer

        made = self._loaded[paths] = Symbolizer(paths, index_dir=self._index_dir)
        while len(self._loaded) > _LOADED:
            self._loaded.popitem(last=False)
        return made

    def _resymbolize(self) -> None:
        def explain(crash: Crash, port: str, booted: float | None) -> tuple[Crash, str | None] | None:
            explained, sha256 = self._explained(crash, port, booted)
            if isinstance(explained, Crash) and sha256 and any(f.module == "app" for f in explained.frames):
                return explained, sha256
            return None

        try:
            count = self._database.resymbolize(explain)
        except Exception:  # noqa: BLE001 - logged
            _log.exception("decoding stored crashes again")
            return
        if count:
            _log.info("%d stored crashes decoded with a new ELF", count)
