"""All boards at once: puts the daemon's parts together, gives them the configuration, starts and ends them in order.

Threads: readers (:mod:`espmon.app.readers`), the log writer and its keeper (:mod:`espmon.store.logwriter`), one that decodes
(:mod:`espmon.app.decoding`), one for symbols (:mod:`espmon.app.symbols`), the database's writer, one that looks for boards
and some that open them (:mod:`espmon.app.ports`), and a few for recoveries (:mod:`espmon.app.incidents`). Which part knows
which is in ``docs/design/daemon.md``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import espmon
import espmon.events as ev
from espmon.app.config import Config, Section
from espmon.app.decoding import Decoding
from espmon.app.hands import Hands
from espmon.app.hooks import Hooks
from espmon.app.incidents import Incidents, Runs
from espmon.app.offers import Offers
from espmon.app.ports import Ports
from espmon.app.publisher import Publisher
from espmon.app.rate import DEFAULT_BAUD, FixedRate, RateFollower
from espmon.app.readers import Readers, raise_descriptor_limit
from espmon.app.recovery import UNREADABLE, Fleet, PolicySettings, RecoveryPolicy
from espmon.app.settings import log_limits, policy_settings
from espmon.app.status import board_status
from espmon.app.symbols import Symbols
from espmon.app.watch import Watch
from espmon.errors import EspmonError, UsageProblem
from espmon.port import SerialPort
from espmon.store.database import Database, StoreUnusable
from espmon.store.elfs import ElfStore
from espmon.store.images import ImageStore
from espmon.store.logwriter import LogWriter
from espmon.store.portlog import LogGap
from espmon.store.steadiness import Steadiness

_log = logging.getLogger(__name__)

_OPENING_S = 1.0  # at a start nothing else is begun while boards are being opened, for so long at most
_KEEP_S = 60.0  # how often the database's size is looked at
_SILENT_S = 15.0  # without a sign of life for so long a loop counts as stuck


class Supervisor:
    """The daemon without its process. `make_rate(name, configured rate)` makes a board's rate follower."""

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        log_dir: Path,
        *,
        database: Database | None = None,
        make_rate: Callable[[str, int | None], RateFollower] | None = None,
    ) -> None:
        self.config = config
        self.state_dir = state_dir
        self.log_dir = log_dir
        self.started_at = time.time()
        self.descriptor_limit = raise_descriptor_limit()
        self.watches: dict[str, Watch] = {}
        self.writer = LogWriter(log_dir, log_limits(config), on_gaps=self._gaps, on_state=self._disk_state)
        self.database = database or self._open_database(state_dir / "espmon.sqlite")
        self.elfs = ElfStore(state_dir / "elf", config.store.elf_bytes)
        self.images = ImageStore(state_dir / "image", config.store.image_bytes)
        self.symbols = Symbols(self.elfs, self.database, state_dir / "index")
        self.hooks = Hooks(config.hooks)
        r = config.recovery
        self.fleet = Fleet(r.brake_boards, r.brake_within_s, r.brake_s)
        self.publisher = Publisher(self.database, self.hooks, self.symbols.current)
        self.incidents = Incidents(self.database, self.publisher, self._catch_up)
        self._readers = Readers(self._read)
        self.decoding = Decoding(
            self.watches,
            self.publisher,
            self.symbols,
            self.incidents.judge,
            sync_soon=self.writer.sync_soon,
        )
        self.ports = Ports(config, self.watches, self._readers, self.decoding, self.publisher, self.database)
        self.hands = Hands(self.ports, self._readers, self.decoding, self.incidents, self.publisher, self.database)
        self._offers = Offers(self.decoding, self.hands, self.database)
        self._make_rate = make_rate
        self._familiar: set[bytes] = set()  # what all boards' decoders know of ordinary lines
        self._image_problems: dict[str, str] = {}
        self._states = self.database.recovery_states()
        self._changing = threading.Lock()
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep_forever, name="keeper", daemon=True)
        self._apply(config, images=False)

    def _open_database(self, path: Path) -> Database:
        limit = self.config.store.database_bytes
        try:
            return Database(path, limit)
        except StoreUnusable:
            # a disk that something else has filled: the oldest logs make room, as they would while we run
            if not self.writer.make_room():
                raise
            return Database(path, limit)

    # --- life ---

    def open_boards(self) -> None:
        """Begins to find, read and log boards; returns when those that are there are open, after a second at the latest.

        First of all at a start, because what a board says meanwhile is lost: what is heard waits for :meth:`start`.
        """
        self.writer.start()
        self.ports.start(_OPENING_S)

    def start(self) -> None:
        """Starts what is not yet running; boards are decoded and judged from now on."""
        if not self.ports.running:
            self.open_boards()
        with self._changing:
            for watch in self.watches.values():
                self._learn_image(watch)
        self.decoding.start()
        self.symbols.start()
        self._keeper.start()

    def finish_operations(self, deadline_s: float = 20.0) -> None:
        """Operations finish their block and let the board run; whoever works on a board through the daemon is told to."""
        self.incidents.stop_operations.set()
        self.hands.wait(deadline_s)

    def stop(self, deadline_s: float = 20.0) -> None:
        """Ends in order, operations first; logs and database are complete."""
        self.finish_operations(deadline_s)
        self._stopping.set()
        self.ports.stop()
        self.decoding.stop()
        self.ports.close()
        self.decoding.close()
        for watch in self.watches.values():
            for each in watch.attached:
                each.close()
            self._offers.end(watch)
        self.symbols.stop()
        self.writer.stop()
        self.hooks.stop()
        self.incidents.stop()
        self.database.close()

    @property
    def alive(self) -> bool:
        """True while the reader and the decoder show signs of life: what feeds the service's watchdog."""
        now = time.monotonic()
        return all(now - beat < _SILENT_S for beat in (self.decoding.beat, self._readers.beat))

    def _read(self) -> None:
        """A reader has handed bytes on."""
        self.decoding.wake()
        self.writer.wake()

    def _catch_up(self, watch: Watch) -> None:
        self.decoding.decode(watch, time.time())

    def _keep_forever(self) -> None:
        steadiness = Steadiness()
        next_prune = 0.0
        while not self._stopping.wait(_KEEP_S):
            self.database.keep_size()
            now, mono = time.time(), time.monotonic()
            if steadiness.steady(now, mono) and mono >= next_prune:
                next_prune = mono + 3600.0
                self.database.prune(now - self.config.daemon.events_days * 86_400)

    # --- configuration ---

    def reload(self, config: Config) -> list[str]:
        """Takes over a new configuration; ports whose settings stayed are not touched. Returns what needs a restart."""
        later = []
        for name in ("daemon", "control", "log", "store"):
            old, new = getattr(self.config, name), getattr(config, name)
            changed = sorted(k for k in old.values if old.values[k] != new.values[k])
            later += [f"[{name}] {key}" for key in changed]
        self.config = config
        self.hooks.change(config.hooks)
        self.ports.change(config)
        self._apply(config)
        return later

    def _apply(self, config: Config, *, images: bool = True) -> None:
        """`images` False: known-good images are looked at later, by :meth:`start`; they may be megabytes for each board."""
        with self._changing:
            wanted = {p.name: p for p in config.ports}
            for name in [n for n in self.watches if n not in wanted]:
                gone = self.watches.pop(name)
                self._offers.end(gone)
                self.ports.drop(gone, "no longer in the configuration", for_good=True)
                self.writer.release(name)
            for name, section in wanted.items():
                watch = self.watches.get(name)
                settings = policy_settings(config, section, self._known_good(section) if images else None)
                if watch is None:
                    watch = self.watches[name] = self._new_watch(name, section, settings)
                    self._offers.begin(watch)
                    continue
                old, watch.section = watch.section, section
                if old.values["rfc2217"] != section.values["rfc2217"]:
                    self._offers.begin(watch)
                with watch.judging:
                    watch.policy.change(settings)
                if old.values["match"] != section.values["match"] or old.values["baud"] != section.values["baud"]:
                    self.ports.drop(watch, "its settings changed")
                    watch.rate = self._rate_for(section)
            self.symbols.watch({p.name: p.elf for p in config.ports if p.elf})

    def _new_watch(self, name: str, section: Section, settings: PolicySettings) -> Watch:
        now = time.time()
        policy = RecoveryPolicy.restored(name, settings, self._states.get(name), at=now, fleet=self.fleet)
        if policy.restraint.locked == UNREADABLE:
            _log.error("%s: %s; espmon recover %s --unlock allows recoveries again", name, UNREADABLE, name)
        return Watch(
            name, section, self.writer.open(name), policy, self._rate_for(section), wake=self._read, gone=self.ports.gone,
            familiar=self._familiar,
        )  # fmt: skip

    def _rate_for(self, section: Section) -> RateFollower:
        if self._make_rate is not None:
            return self._make_rate(section.name, section.baud)
        return FixedRate(section.baud or DEFAULT_BAUD)

    def _known_good(self, section: Section) -> str | None:
        """The digest of the board's known-good image: named in the configuration, else learnt or added."""
        self._image_problems.pop(section.name, None)  # it is told anew when it is still there
        if not section.image:
            return self.images.known_good(section.name)
        pieces = []
        for piece in section.image:
            try:
                pieces.append((piece.offset, piece.file.read_bytes()))
            except OSError as error:
                self._image_problems[section.name] = f"image {piece.file}: {error.strerror}"
                _log.error("%s: image %s: %s", section.name, piece.file, error.strerror)
                return None
        try:
            return self.images.add(pieces, origin="named", port=section.name, source=str(section.image[0].file)).digest
        except EspmonError as error:
            _log.error("%s: %s", section.name, error.message)
            return None

    def image_changed(self, name: str) -> None:
        """A known-good image of this board was added or learnt."""
        watch = self.watches.get(name)
        if watch is not None:
            self._learn_image(watch)

    def _learn_image(self, watch: Watch) -> None:
        settings = policy_settings(self.config, watch.section, self._known_good(watch.section))
        with watch.judging:
            watch.policy.change(settings)

    # --- what is asked of it ---

    def watch(self, name: str) -> Watch:
        """The watch of this name, or of the port with this device. Raises :class:`UsageProblem` with near names."""
        found = self.watches.get(name)
        if found is not None:
            return found
        real = os.path.realpath(name)
        for each in list(self.watches.values()):
            if each.device is not None and (each.device == name or os.path.realpath(each.device) == real):
                return each
        import difflib

        near = difflib.get_close_matches(name, list(self.watches), 3, 0.5)
        known = ", ".join(self.watches) or "none is configured"
        raise UsageProblem(f"no board is called {name!r}", f"did you mean {' or '.join(near)}?" if near else f"boards: {known}")

    def listen(self, listener: Callable[[ev.Event], None]) -> None:
        """`listener` gets every event (ordinary text not), from several threads; it must not block."""
        self.publisher.listen(listener)

    def unlisten(self, listener: Callable[[ev.Event], None]) -> None:
        """Ends it."""
        self.publisher.unlisten(listener)

    def borrow(self, watch: Watch, who: str) -> AbstractContextManager[SerialPort]:
        """:meth:`Hands.borrow`."""
        return self.hands.borrow(watch, who)

    def lend(self, name: str, who: str) -> Watch:
        """Closes the port for `who` until :meth:`reclaim`. Raises `PortProblem`."""
        watch = self.watch(name)
        self.hands.lend(watch, who)
        return watch

    def reclaim(self, name: str, who: str) -> None:
        """Takes a lent port back. Raises `PortProblem` when it isn't lent."""
        self.hands.reclaim(self.watch(name), who)

    def reset(self, name: str, who: str) -> None:
        """Resets the board by its EN line. Raises `PortProblem`."""
        self.hands.reset(self.watch(name), who)

    def recover(self, name: str, mode: str, who: str) -> None:
        """A person asks for a recovery. Raises :class:`UsageProblem` for an unknown name."""
        self.incidents.begin(self.watch(name), mode, who)

    def unlock(self, name: str, who: str) -> None:
        """Ends a lock-out. Raises :class:`UsageProblem` for an unknown name."""
        self.incidents.unlock(self.watch(name), who)

    # --- what operations in a board's loader ask of it (:mod:`espmon.app.rungs`) ---

    @property
    def rungs(self) -> Runs | None:
        """Who carries out the rungs of a recovery; without one every rung is refused."""
        return self.incidents.rungs

    @rungs.setter
    def rungs(self, rungs: Runs) -> None:
        self.incidents.rungs = rungs

    @property
    def stop_operations(self) -> threading.Event:
        """Set when the daemon ends: operations finish their block."""
        return self.incidents.stop_operations

    def publish(self, watch: Watch, event: ev.Event) -> None:
        """:meth:`Publisher.publish`."""
        self.publisher.publish(watch, event)

    def tell(self, watch: Watch, event: ev.Event) -> None:
        """:meth:`Publisher.tell`."""
        self.publisher.tell(watch, event)

    def pulse(self, watch: Watch, port: SerialPort, who: str) -> None:
        """:meth:`Hands.pulse`."""
        self.hands.pulse(watch, port, who)

    def was_reset(self, watch: Watch, who: str, how: str) -> None:
        """:meth:`Hands.was_reset`."""
        self.hands.was_reset(watch, who, how)

    def remember_board(self, watch: Watch, mac: str | None, chip: str | None, flash_bytes: int | None) -> None:
        """:meth:`Ports.remember_board`."""
        self.ports.remember_board(watch, mac, chip, flash_bytes)

    # --- what the writer tells ---

    def _gaps(self, gaps: list[LogGap]) -> None:
        for gap in gaps:
            watch = self.watches.get(gap.port)
            if watch is not None:
                _log.error("%s: %s bytes are missing in the log: %s", gap.port, gap.bytes, gap.reason)
                self.publisher.publish(watch, ev.Gap(at=gap.at, port=gap.port, bytes=gap.bytes, reason=gap.reason))

    def _disk_state(self, low: bool, free: int) -> None:
        for watch in list(self.watches.values()):
            watch.log.mark("low on space" if low else "space again", time.time(), time.monotonic(), free=free)

    # --- status ---

    def status(self) -> dict[str, Any]:
        """Everything that `espmon status` shows of the present, as JSON values."""
        problems = {**self._image_problems, **self.ports.problems}
        return {
            "version": espmon.__version__,
            "pid": os.getpid(),
            "started": ev.iso_time(self.started_at),
            "state_dir": str(self.state_dir),
            "log_dir": str(self.log_dir),
            "config": [str(f) for f in self.config.files],
            "free_bytes": self.writer.free_bytes(),
            "low_on_space": self.writer.low_on_space,
            "descriptor_limit": self.descriptor_limit,
            "database": {"stuck": self.database.stuck, "dropped": self.database.dropped},
            "brake": self.fleet.reason() if self.fleet.braked(time.time()) else None,
            "ports": {name: board_status(watch, problems.get(name)) for name, watch in list(self.watches.items())},
        }
