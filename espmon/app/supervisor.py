"""All ports at once: found by identity, read, kept, decoded, judged; lent and taken back; recovered.

Threads: readers (:mod:`espmon.app.readers`), the log writer, one that decodes, one for symbols, the database's writer, one
that looks for boards, and a few for operations. Whoever works on a port takes it out of its reader first
(:meth:`Supervisor.borrow`): one owner at a time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import espmon.events as ev
from espmon.app.config import Candidate, Config, Section, assign, is_loopback
from espmon.app.hooks import Hooks
from espmon.app.listener import NEAR_OPENING_S, NEAR_RESET_S, Decodes, reset_sequence, with_rounding
from espmon.app.ordinary import is_ordinary
from espmon.app.rate import DEFAULT_BAUD, FixedRate, RateFollower, WishRate
from espmon.app.readers import Reader, ThreadReader, raise_descriptor_limit
from espmon.app.recovery import IN_LOADER, Do, Emit, Fleet, PolicySettings, RecoveryPolicy, RungResult
from espmon.app.symbols import Symbols, has_addresses
from espmon.errors import EspmonError, PortGone, PortProblem, UsageProblem
from espmon.port import Chunk, PortIdentity, SerialPort, identify, is_url, list_ports, run_steps
from espmon.port.rfc2217 import Rfc2217Server, Shared
from espmon.store.database import Database, StoreUnusable
from espmon.store.elfs import ElfStore
from espmon.store.images import ImageStore
from espmon.store.segments import LogGap, LogLimits, LogWriter, PortLog

_log = logging.getLogger(__name__)

INBOX_BYTES = 4 << 20  # bytes that wait for the decoder, per port; the raw log has them all the same
DECODE_EVERY_S = 0.05
LOOK_EVERY_S = 0.05  # how often an absent device node is looked for: text is read within 100 ms of its return
BOOT_TEXT_BYTES = 2048  # what is heard after a reset into the loader is text up to the first frame, at most so much
ATTACH_BYTES = 1 << 20  # bytes that wait for a slow attached reader


class Runs(Protocol):
    """Carries out the rungs of a recovery (:mod:`espmon.app.rungs`)."""

    def run(self, watch: Watch, do: Do) -> RungResult: ...
    def leave(self, watch: Watch) -> None: ...


def _decoder(name: str, chip: str | None) -> Decodes:
    from espmon.decode import Decoder

    return Decoder(port=name, chip=chip)


class Attached:
    """One reader of a port's bytes (a control connection). Bytes are dropped, and counted, when it is too slow."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.ready = threading.Event()
        self._pieces: deque[bytes] = deque()
        # two counts with one writer each: a single one, changed by two threads, would drift until nothing fits any more
        self._offered = 0
        self._taken = 0
        self.dropped = 0
        self.closed = False

    def offer(self, data: bytes) -> None:
        """Called by the port's reader; never blocks."""
        if self._offered - self._taken + len(data) > ATTACH_BYTES:
            self.dropped += len(data)
            return
        self._offered += len(data)
        self._pieces.append(data)
        if not self.ready.is_set():
            self.ready.set()

    def take(self) -> bytes:
        """What came since the last call."""
        self.ready.clear()
        pieces = []
        while self._pieces:
            pieces.append(self._pieces.popleft())
        data = b"".join(pieces)
        self._taken += len(data)
        return data

    def close(self) -> None:
        """No more bytes will come."""
        self.closed = True
        self.ready.set()


class Watch:
    """One configured board: where it is now, what is heard of it, who has it."""

    def __init__(self, name: str, section: Section, log: PortLog, policy: RecoveryPolicy, rate: RateFollower) -> None:
        self.name = name
        self.section = section
        self.log = log
        self.policy = policy
        self.rate = rate
        self.decoder: Decodes = _decoder(name, section.chip)
        # away | opening | run | busy | lent | failed | stopped
        self.state = "away"
        self.problem: str | None = None
        self.port: SerialPort | None = None
        self.device: str | None = None
        self.identity: PortIdentity | None = None
        self.holder: str | None = None  # who has it while it is lent or busy
        self.writer: Attached | None = None
        self.attached: list[Attached] = []
        self.offered: Rfc2217Server | None = None
        self.opened_at = float("-inf")
        self.reset_at = float("-inf")
        self.since = time.time()
        self.bytes = 0
        self.last_heard: float | None = None
        self.last_boot: ev.Boot | None = None
        self.last_reset: ev.Event | None = None
        self.healthy_since: float | None = None
        self.try_again = 0.0
        self.told_problem: str | None = None
        self.inbox: deque[tuple[float, float, bytes]] = deque()
        # bytes put into the inbox by whoever reads the port, and taken from it by whoever decodes: one writer each, because
        # a count changed by two threads drifts, and after months nothing would be let in any more
        self.inbox_put = 0
        self.inbox_taken = 0
        self.skipped = 0
        self.hands = threading.Lock()  # changes of `attached`
        self.io = threading.RLock()  # writes to the port, and its changes of hands
        self.judging = threading.RLock()  # the decoder and the policy
        self.due: float | None = None
        self.noted_text = 0.0
        self.changed: str | None = None  # why the port has to be opened anew as soon as whoever has it gives it back
        self._tail = b""
        self._text_left = 0
        self._wake: Callable[[], None] = lambda: None
        self._gone: Callable[[Watch, PortGone], None] = lambda w, p: None

    # --- the reader's thread ---

    def heard(self, data: bytes, at: float, mono: float) -> None:
        """Bytes: into the log first, then to whoever is attached, then to the decoder's inbox."""
        self.log.append(data, at, mono)
        self.bytes += len(data)
        self.last_heard = at
        for each in self.attached:
            each.offer(data)
        if self.offered is not None:
            self.offered.heard(data)
        if self.inbox_put - self.inbox_taken > INBOX_BYTES:
            self.skipped += len(data)
        else:
            self.inbox_put += len(data)
            self.inbox.append((at, mono, data))

    def gone(self, problem: PortGone) -> None:
        """The reader found the port gone."""
        self._gone(self, problem)

    def chunk_heard(self, chunk: Chunk) -> None:
        """Bytes heard by an operation that has the port."""
        self.heard(chunk.data, chunk.at, chunk.mono)
        self._wake()

    def frames_heard(self, chunk: Chunk) -> None:
        """Bytes heard while the board is in its loader: all into the log; the text of boots to the decoder."""
        self.log.append(chunk.data, chunk.at, chunk.mono)
        self.bytes += len(chunk.data)
        self.last_heard = chunk.at
        for each in self.attached:
            each.offer(chunk.data)
        # a loader's answers may hold flash content, which may read like anything: only what a reset is followed by is text
        if self._text_left > 0:
            text = chunk.data[: self._text_left]
            end = min((at for at in (text.find(b"\xc0"), text.find(b"\0")) if at >= 0), default=-1)
            self._text_left = 0 if end >= 0 else self._text_left - len(text)
            if end >= 0:
                text = text[:end]
            if len(text.translate(None, _PRINTABLE)) * 10 <= len(text) > 0:
                self.inbox_put += len(text)
                self.inbox.append((chunk.at, chunk.mono, text))
        self._wake()

    # --- writing ---

    def write(self, data: bytes) -> None:
        """Sends to the board. Raises `PortProblem` when somebody else has the port or it is away."""
        with self.io:
            if self.state != "run" or self.port is None:
                raise PortProblem(self.name, f"{self.name} is {self.state}" + (f" ({self.holder})" if self.holder else ""))
            self.port.write(data)

    def lines_of(self, event: ev.Text) -> Iterator[tuple[int, bytes]]:
        """(line number, whole line) of a text span; an unfinished line waits for its rest."""
        parts = (self._tail + event.raw).split(b"\n")
        self._tail = parts.pop()[-1024:]
        number = event.line or 0
        for i, part in enumerate(parts):
            yield number + i, part


def policy_settings(config: Config, section: Section, image: str | None) -> PolicySettings:
    """The recovery settings of one board."""
    r = config.recovery
    return PolicySettings(
        mode=section.recover,
        resets=r.resets,
        within_s=r.within_s,
        healthy_after_s=r.healthy_after_s,
        alive_s=r.alive_s,
        per_hour=r.per_hour,
        pauses_s=tuple(r.pauses_s),
        power_cycle=section.power_cycle is not None,
        erase_parameters=section.erase_parameters,
        image=image,
    )


def log_limits(config: Config) -> LogLimits:
    """The raw logs' bounds."""
    s = config.log
    return LogLimits(
        segment_bytes=s.segment_bytes,
        segment_s=s.segment_s,
        keep_bytes=s.keep_bytes,
        keep_s=s.keep_days * 86_400,
        keep_bytes_total=s.keep_bytes_total,
        low_water=s.low_water,
        sync_s=s.sync_s,
        compress=s.compress,
    )


_PRINTABLE = bytes([9, 10, 13, 27, *range(0x20, 0x7F)])


class Supervisor:
    """The daemon's heart. `make_rate` makes a follower for ``baud = "auto"``; `rungs` carries out recoveries."""

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
        self.database = database or Database(state_dir / "espmon.sqlite")
        self.elfs = ElfStore(state_dir / "elf", config.store.elf_bytes)
        self.images = ImageStore(state_dir / "image", config.store.image_bytes)
        self.symbols = Symbols(self.elfs, self.database, state_dir / "index")
        self.hooks = Hooks(config.hooks)
        self.writer = LogWriter(log_dir, log_limits(config), on_gaps=self._gaps, on_state=self._disk_state)
        r = config.recovery
        self.fleet = Fleet(r.brake_boards, r.brake_within_s, r.brake_s)
        self.rungs: Runs | None = None
        self.watches: dict[str, Watch] = {}
        self.problems: dict[str, str] = {}
        self._make_rate = make_rate
        self._listeners: list[Callable[[ev.Event], None]] = []
        self._states = self.database.recovery_states()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._stop_operations = threading.Event()
        self._operations = ThreadPoolExecutor(16, "operation")
        self._busy = 0
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self.thread_reader: Reader = ThreadReader(self._read)
        self.poll_reader: Reader | None = _poll_reader(self._read)
        self.beat = time.monotonic()
        self._hurry_until = 0.0
        self._apply(config)

    # --- life ---

    def start(self) -> None:
        """Starts all threads; boards are opened as they are found."""
        self.writer.start()
        self.symbols.start()
        for name, target in (("decode", self._decode_forever), ("boards", self._look_forever)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, deadline_s: float = 20.0) -> None:
        """Ends in order: operations finish their block and let the board run, logs and database are complete."""
        limit = time.monotonic() + deadline_s
        self._stop_operations.set()
        while self._busy and time.monotonic() < limit:
            time.sleep(0.05)
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(3.0)
        for watch in list(self.watches.values()):
            self._reader_of(watch).remove(watch)
            with watch.io:
                if watch.port is not None:
                    watch.port.dispose()
                    watch.port = None
        for reader in (self.poll_reader, self.thread_reader):
            if reader is not None:
                reader.stop()
        self._decode_round(time.time(), time.monotonic(), closing=True)
        for watch in self.watches.values():
            for each in watch.attached:
                each.close()
            if watch.offered is not None:
                watch.offered.stop()
        self.symbols.stop()
        self.writer.stop()
        self.hooks.stop()
        self._operations.shutdown(wait=False, cancel_futures=True)
        self.database.close()

    def listen(self, listener: Callable[[ev.Event], None]) -> None:
        """`listener` gets every event (ordinary text not), from several threads; it must not block."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[ev.Event], None]) -> None:
        """Ends it."""
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    @property
    def alive(self) -> bool:
        """True while the reader and the decoder show signs of life: what feeds the service's watchdog."""
        now = time.monotonic()
        beats = [self.beat] + ([self.poll_reader.beat] if self.poll_reader else [])
        return all(now - beat < 15.0 for beat in beats)

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
        self._apply(config)
        return later

    def _apply(self, config: Config) -> None:
        with self._lock:
            wanted = {p.name: p for p in config.ports}
            for name in [n for n in self.watches if n not in wanted]:
                gone = self.watches.pop(name)
                if gone.offered is not None:
                    gone.offered.stop()
                self._drop(gone, "no longer in the configuration", for_good=True)
                self.writer.release(name)
            for name, section in wanted.items():
                watch = self.watches.get(name)
                image = self._known_good(section)
                settings = policy_settings(config, section, image)
                if watch is None:
                    watch = self.watches[name] = self._new_watch(name, section, settings)
                    self._offer(watch)
                    continue
                old, watch.section = watch.section, section
                if old.values["rfc2217"] != section.values["rfc2217"]:
                    self._offer(watch)
                with watch.judging:
                    watch.policy.change(settings)
                if old.values["match"] != section.values["match"] or old.values["baud"] != section.values["baud"]:
                    self._drop(watch, "its settings changed")
                    watch.rate = self._rate_for(section)
            self.symbols.watch({p.name: p.elf for p in config.ports if p.elf})

    def _new_watch(self, name: str, section: Section, settings: PolicySettings) -> Watch:
        now = time.time()
        try:
            policy = RecoveryPolicy(name, settings, self._states.get(name), at=now, fleet=self.fleet)
        except (TypeError, ValueError, AttributeError) as error:
            # another version wrote it, or the disk damaged it: what was done to this board is not known any more
            _log.error("%s: the stored state of its recovery cannot be read (%s)", name, error)
            policy = RecoveryPolicy(name, settings, {"locked": "the stored state of its recovery cannot be read"}, at=now, fleet=self.fleet)
        watch = Watch(name, section, self.writer.open(name), policy, self._rate_for(section))
        watch._wake = self._read
        watch._gone = self._port_gone
        return watch

    def _offer(self, watch: Watch) -> None:
        """Begins, changes or ends the offer to RFC 2217 clients, as configured."""
        if watch.offered is not None:
            watch.offered.stop()
            watch.offered = None
        if watch.section.rfc2217 is None:
            return
        host, number = watch.section.rfc2217
        if not is_loopback(host):
            _log.warning("%s: RFC 2217 at %s:%d has no login; everybody who reaches it can write to the board", watch.name, host, number)
        pulled = False

        def set_lines(dtr: bool | None, rts: bool | None) -> bool:
            nonlocal pulled
            with watch.io:
                if watch.state != "run" or watch.port is None:
                    return False
                done = watch.port.set_lines(dtr, rts)
            if rts is False and pulled:
                self.was_reset(watch, "RFC 2217", "DTR and RTS")
            pulled = rts is True or (pulled and rts is None)
            return done

        def set_baud(rate: int) -> None:
            self._set_rate(watch, WishRate(rate, "RFC 2217"))

        def baud() -> int:
            return watch.port.baud if watch.port is not None else watch.rate.baud

        def told(text: str) -> None:
            _log.info("%s: %s", watch.name, text)
            self.database.audit(time.time(), watch.name, "RFC 2217", text)

        try:
            watch.offered = Rfc2217Server(Shared(watch.write, set_lines, set_baud, baud), watch.name, host, number, told)
        except OSError as error:
            _log.error("%s: cannot offer RFC 2217 at %s:%d: %s", watch.name, host, number, error.strerror)
            return
        _log.info("%s: RFC 2217 at %s:%d", watch.name, *watch.offered.address)

    def _rate_for(self, section: Section) -> RateFollower:
        if self._make_rate is not None:
            return self._make_rate(section.name, section.baud)
        return FixedRate(section.baud or DEFAULT_BAUD)

    def _known_good(self, section: Section) -> str | None:
        """The digest of the board's known-good image: named in the configuration, else learnt or added."""
        self.problems.pop(section.name, None)  # it is told anew when it is still there
        if not section.image:
            return self.images.known_good(section.name)
        pieces = []
        for piece in section.image:
            try:
                pieces.append((piece.offset, piece.file.read_bytes()))
            except OSError as error:
                self.problems[section.name] = f"image {piece.file}: {error.strerror}"
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
            with watch.judging:
                watch.policy.change(policy_settings(self.config, watch.section, self._known_good(watch.section)))

    # --- finding and opening boards ---

    def _look_forever(self) -> None:
        next_full = 0.0
        next_prune = time.monotonic() + 60.0
        stamp: object = None
        while not self._stopping.is_set():
            now = time.monotonic()
            fresh = _dev_stamp()
            if now >= next_full or fresh != stamp:
                stamp = fresh
                next_full = now + float(self.config.daemon.rescan_s)
                try:
                    self.look()
                except Exception:  # noqa: BLE001 - logged; one board's fault must not end the others
                    _log.exception("looking for boards")
            else:
                self._look_for_returned(now)
            if now >= next_prune:
                next_prune = now + 3600.0
                self.database.prune(time.time() - self.config.daemon.events_days * 86_400)
            self._stopping.wait(LOOK_EVERY_S)

    def candidates(self) -> list[Candidate]:
        """The serial ports that are there now, and device names that the configuration itself gives."""
        out = []
        for p in list_ports():
            out.append(
                Candidate(
                    device=p.device,
                    usb_serial=p.serial_number,
                    usb_path=p.location,
                    vid=p.vid,
                    pid=p.pid,
                    mac=p.mac or self._cached_mac(p.device),
                )
            )
        known = {c.device for c in out} | {os.path.realpath(c.device) for c in out}
        for section in self.config.ports:
            device = section.match.get("device")
            # ptys and other nodes that no list shows
            if isinstance(device, str) and device not in known and os.path.realpath(device) not in known and os.path.exists(device):
                out.append(Candidate(device=device))
        return out

    def _cached_mac(self, device: str) -> str | None:
        if not any("mac" in p.match for p in self.config.ports):
            return None
        key = identify(device).key
        row = self.database.now(lambda c: c.execute("SELECT mac FROM boards WHERE port = ?", (f"id:{key}",)).fetchone())
        return row[0] if row else None

    def remember_board(self, watch: Watch, mac: str | None, chip: str | None, flash_bytes: int | None) -> None:
        """What a chip said of itself while it was in its loader."""
        rows = [watch.name]
        if watch.identity is not None:
            rows.append(f"id:{watch.identity.key}")
        facts = json.dumps({"at": time.time()})

        def work(c: Any) -> None:
            for row in rows:
                c.execute("INSERT OR REPLACE INTO boards VALUES (?, ?, ?, ?, ?)", (row, mac, chip, flash_bytes, facts))

        self.database.put(work, keep=True)

    def look(self) -> None:
        """Finds boards and opens those that came. Nothing to do while every board is open or lent."""
        if not self.problems and all(w.state not in ("away", "failed") for w in list(self.watches.values())):
            return
        found, problems = assign(self.config.ports, self.candidates())
        for name, text in problems.items():
            if self.problems.get(name) != text:
                _log.error("%s: %s", name, text)
        self.problems = {**{k: v for k, v in self.problems.items() if v.startswith("image ")}, **problems}
        now = time.monotonic()
        for name, device in found.items():
            watch = self.watches.get(name)
            if watch is None or watch.state not in ("away", "failed"):
                continue
            if now >= watch.try_again:
                watch.device = device
                self._open_soon(watch)

    def _look_for_returned(self, now: float) -> None:
        """Between full looks: a device node that was known comes back under its old name."""
        for watch in list(self.watches.values()):
            if (
                watch.state == "away"
                and watch.identity is not None
                and watch.identity.vid is None
                and watch.device is not None
                and not is_url(watch.device)
                and now >= watch.try_again
                and os.path.exists(watch.device)
            ):
                self._open_soon(watch)

    def _open_soon(self, watch: Watch) -> None:
        with watch.io:
            if watch.state not in ("away", "failed"):
                return
            watch.state = "opening"
        self._operations.submit(self._open, watch)

    def _open(self, watch: Watch) -> None:
        if self._stopping.is_set() or watch.device is None:
            return
        port = SerialPort(watch.device, watch.rate.baud)
        try:
            port.open()
            port.remember_identity()
        except PortProblem as problem:
            port.dispose()
            with watch.io:
                watch.state = "failed"
                watch.problem = problem.message
                watch.try_again = time.monotonic() + (1.0 if watch.opened_at > 0 else 2.0)
            if watch.told_problem != problem.message:
                watch.told_problem = problem.message
                _log.warning("%s: %s", watch.name, problem.message)
                self._port_state(watch, "failed", problem.message)
            return
        except Exception:  # noqa: BLE001 - logged; one board's fault must not end the others
            _log.exception("%s: opening %s", watch.name, watch.device)
            port.dispose()
            watch.state, watch.try_again = "failed", time.monotonic() + 10.0
            return
        now = time.time()
        with watch.io:
            if watch.state != "opening" or self._stopping.is_set():
                port.dispose()
                return
            returned = watch.opened_at > 0
            watch.port, watch.identity = port, port.identity
            watch.opened_at, watch.since = now, now
            watch.problem = watch.told_problem = None
            watch.state = "run"
            watch.rate.opened(now, port.baud)
            self._reader_of(watch).add(watch, port)
        _log.info("%s: %s at %d baud", watch.name, watch.device, port.baud)
        watch.log.mark("opened", now, time.monotonic(), device=watch.device, baud=port.baud)
        reason = with_rounding(f"now {watch.device}" if returned else None, port.rate)
        self._port_state(watch, "returned" if returned else "opened", reason, port.baud)

    def _reader_of(self, watch: Watch) -> Reader:
        if self.poll_reader is not None and watch.port is not None and watch.port.descriptor is not None:
            return self.poll_reader
        return self.thread_reader

    def _port_gone(self, watch: Watch, problem: PortGone) -> None:
        """In the reader's thread."""
        self._operations.submit(self._lost, watch, problem.message)

    def _lost(self, watch: Watch, reason: str) -> None:
        with watch.io:
            if watch.state not in ("run", "busy"):
                return
            self._reader_of(watch).remove(watch)
            if watch.port is not None:
                watch.port.dispose()
            watch.port = None
            watch.state = "away"
            watch.since = time.time()
            watch.try_again = 0.0
        with watch.judging:
            self._sort(watch, watch.rate.close(watch.since))
        _log.warning("%s: %s", watch.name, reason)
        watch.log.mark("gone", watch.since, time.monotonic(), reason=reason)
        self._port_state(watch, "gone", reason)

    def _drop(self, watch: Watch, reason: str, *, for_good: bool = False) -> None:
        """Closes a port because of the configuration; one that is lent or worked on when it is given back."""
        with watch.io:
            if watch.state == "lent" and not for_good:
                return  # whoever has it keeps it: it is opened with the new settings when it comes back
            watch.changed = reason if watch.state == "busy" else None
            if watch.changed is not None:
                return
            self._reader_of(watch).remove(watch)
            if watch.port is not None:
                watch.port.dispose()
                watch.port = None
                watch.log.mark("closed", time.time(), time.monotonic(), reason=reason)
            watch.state = "away"
            watch.try_again = 0.0
        self._port_state(watch, "closed", reason)

    def _port_state(self, watch: Watch, state: str, reason: str | None = None, baud: int | None = None) -> None:
        self.publish(watch, ev.PortChanged(at=time.time(), port=watch.name, state=state, reason=reason, baud=baud))

    # --- changing hands ---

    def watch(self, name: str) -> Watch:
        """The watch of this name, or of the port with this device. Raises :class:`UsageProblem` with near names."""
        found = self.watches.get(name)
        if found is None:
            real = os.path.realpath(name)
            for each in self.watches.values():
                if each.device is not None and (each.device == name or os.path.realpath(each.device) == real):
                    return each
            import difflib

            near = difflib.get_close_matches(name, list(self.watches), 3, 0.5)
            known = ", ".join(self.watches) or "none is configured"
            raise UsageProblem(f"no board is called {name!r}", f"did you mean {' or '.join(near)}?" if near else f"boards: {known}")
        return found

    @contextlib.contextmanager
    def borrow(self, watch: Watch, who: str) -> Iterator[SerialPort]:
        """Takes the open port out of its reader for an operation of `who`, and gives it back afterwards.

        Raises `PortProblem` when the board is away or somebody else has it.
        """
        with watch.io:
            if watch.state != "run" or watch.port is None:
                raise PortProblem(watch.name, _why_not(watch), "espmon status tells who has it")
            reader = self._reader_of(watch)
            reader.remove(watch)
            watch.state, watch.holder = "busy", who
            watch._text_left = 0
            port = watch.port
        with self._lock:
            self._busy += 1
        lost: str | None = None
        try:
            yield port
        except PortGone as gone:
            lost = gone.message
            raise
        finally:
            with self._lock:
                self._busy -= 1
            gone_for: str | None = None
            with watch.io:
                watch.holder = None
                if watch.state == "busy":
                    watch.state = "run"
                    if lost is None and port.is_open:
                        with contextlib.suppress(PortProblem):
                            if port.baud != watch.rate.baud:
                                port.set_baud(watch.rate.baud)
                        reader.add(watch, port)
                    else:
                        gone_for = lost or "it was closed"
            # not with `io` held: it takes `judging`, and who holds that takes `io` (a change of rate)
            if gone_for is not None:
                self._lost(watch, gone_for)
            elif watch.changed is not None:
                self._drop(watch, watch.changed)

    def lend(self, name: str, who: str) -> Watch:
        """Closes the port for `who` until :meth:`reclaim`. Raises `PortProblem`."""
        watch = self.watch(name)
        with watch.io:
            if watch.state not in ("run", "failed"):
                raise PortProblem(watch.name, _why_not(watch), "espmon status tells who has it")
            self._reader_of(watch).remove(watch)
            if watch.port is not None:
                watch.port.dispose()
                watch.port = None
            watch.state, watch.holder, watch.since = "lent", who, time.time()
        watch.log.mark("lent", watch.since, time.monotonic(), to=who)
        self.database.audit(watch.since, watch.name, who, "lend")
        self._port_state(watch, "closed", f"lent to {who}")
        return watch

    def reclaim(self, name: str, who: str) -> None:
        """Takes a lent port back; it is opened as soon as whoever had it lets go. Raises `PortProblem` when it isn't lent."""
        watch = self.watch(name)
        with watch.io:
            if watch.state != "lent":
                raise PortProblem(watch.name, f"{watch.name} is not lent, it is {watch.state}")
            watch.state, watch.holder, watch.try_again = "away", None, 0.0
        now = time.time()
        watch.log.mark("returned", now, time.monotonic(), by=who)
        self.database.audit(now, watch.name, who, "reclaim")
        self.look()

    def reset(self, name: str, who: str) -> None:
        """Resets the board by its EN line. Raises `PortProblem`."""
        watch = self.watch(name)
        with self.borrow(watch, who) as port:
            self.pulse(watch, port, who)

    def pulse(self, watch: Watch, port: SerialPort, who: str) -> None:
        """Pulls EN low for a moment on a port that is borrowed, and says so. Raises `PortProblem` when there are no lines."""
        if not port.set_lines(dtr=False, rts=False):
            raise PortProblem(watch.name, f"{watch.name} has no DTR and RTS lines: the board can't be reset through it")
        sequence = reset_sequence(port)
        with watch.judging:
            for each in watch.rate.before_reset(time.time()):
                if isinstance(each, WishRate):  # the port is borrowed: ours to set
                    port.set_baud(each.baud)
                    watch.rate.rate_set(time.time(), each.baud)
                else:
                    self._sort(watch, [each])
        run_steps(port, sequence.run(), heard=watch.chunk_heard)
        self.was_reset(watch, who, sequence.name)

    def was_reset(self, watch: Watch, who: str, how: str) -> None:
        """espmon has reset the board: boots heard now are its doing, and everybody is told."""
        now = time.time()
        watch.reset_at = now
        watch._text_left = BOOT_TEXT_BYTES
        self._hurry()
        watch.rate.board_reset(now)
        watch.log.mark("reset-caused", now, time.monotonic(), by=who, how=how)
        self.database.audit(now, watch.name, who, "reset", how=how)
        event = ev.ResetCaused(at=now, port=watch.name, by=who, how=how)
        with watch.judging:
            self._judge(watch, watch.policy.observe(event))
        self.publish(watch, event)

    @property
    def stop_operations(self) -> threading.Event:
        """Set when the daemon ends: operations finish their block."""
        return self._stop_operations

    # --- decoding ---

    def _read(self) -> None:
        if not self._wake.is_set():
            self._wake.set()
        self.writer.wake()

    def _hurry(self) -> None:
        """A board is about to change its rate: for two seconds bytes are read and looked at as they come."""
        self._hurry_until = time.monotonic() + 2.0
        if self.poll_reader is not None:
            self.poll_reader.hurry_until = self._hurry_until

    def _decode_forever(self) -> None:
        offset = time.time() - time.monotonic()
        while not self._stopping.is_set():
            self._wake.wait(0.25)
            self._wake.clear()
            self.beat = mono = time.monotonic()
            now = time.time()
            jumped_back = (now - mono) - offset < -1.0
            offset = now - mono
            try:
                self._decode_round(now, mono, jumped=jumped_back)
            except Exception:  # noqa: BLE001 - logged; one board's fault must not end the others
                _log.exception("decoding")
            time.sleep(DECODE_EVERY_S if mono > self._hurry_until else 0.002)

    def _decode_round(self, now: float, mono: float, *, jumped: bool = False, closing: bool = False) -> None:
        for watch in list(self.watches.values()):
            due = watch.due
            if not watch.inbox and not closing and not jumped and (due is None or due > now):
                continue
            with watch.judging:
                try:
                    self._decode(watch, now, jumped=jumped, closing=closing)
                except PortProblem as problem:
                    _log.warning("%s: %s", watch.name, problem.message)

    def _decode(self, watch: Watch, now: float, *, jumped: bool, closing: bool) -> None:
        rate, decoder = watch.rate, watch.decoder
        if watch.inbox:
            pieces = []
            at, mono = now, 0.0
            while watch.inbox:
                at, mono, data = watch.inbox.popleft()
                pieces.append(data)
            block = b"".join(pieces)
            watch.inbox_taken += len(block)
            watch.policy.bytes_heard(at)
            if watch.skipped:
                skipped, watch.skipped = watch.skipped, 0
                self.publish(watch, ev.Gap(at=now, port=watch.name, bytes=skipped, reason="decoder too slow; the raw log has them"))
            self._sort(watch, rate.hear(Chunk(at, block, mono)))
        deadline = rate.next_deadline
        if deadline is not None and (now >= deadline or jumped):
            self._sort(watch, rate.tick(max(now, deadline)))
        deadline = decoder.next_deadline
        if deadline is not None and (now >= deadline or jumped):
            self._events(watch, decoder.tick(max(now, deadline)))
        if closing:
            self._sort(watch, rate.close(now))
            self._events(watch, decoder.close(now))
        self._judge(watch, watch.policy.tick(now))
        deadlines = [d for d in (rate.next_deadline, decoder.next_deadline, watch.policy.next_deadline) if d is not None]
        watch.due = min(deadlines, default=None)

    def _sort(self, watch: Watch, heard: Any) -> None:
        for each in heard:
            if isinstance(each, Chunk):
                self._events(watch, watch.decoder.feed(each.data, each.at))
            elif isinstance(each, WishRate):
                self._set_rate(watch, each)
            else:
                self._events(watch, watch.decoder.insert(each))

    def _set_rate(self, watch: Watch, wish: WishRate) -> None:
        with watch.io:
            if watch.state != "run" or watch.port is None:
                return
            try:
                got = watch.port.set_baud(wish.baud)
            except PortProblem as problem:
                _log.warning("%s: %s", watch.name, problem.message)
                return
        now = time.time()
        self._hurry()
        watch.rate.rate_set(now, wish.baud)
        watch.log.mark("rate", now, time.monotonic(), baud=wish.baud)
        self._port_state(watch, "rate", with_rounding(wish.reason, got), wish.baud)

    def _events(self, watch: Watch, events: list[ev.Event]) -> None:
        policy = watch.policy
        for event in events:
            if isinstance(event, ev.Text):
                if policy.listening or watch.section.healthy is not None:
                    self._text(watch, event)
                elif event.at is not None and event.at - watch.noted_text >= 1.0:
                    # once a second is enough to know that it talks
                    line = event.raw.rstrip().rpartition(b"\n")[2]
                    if is_ordinary(line):
                        watch.noted_text = event.at
                        policy.heard(event.at, event.end_line or 0)
                continue
            if isinstance(event, ev.BootLoop):
                continue  # the policy states loops, by the configured count
            if isinstance(event, ev.Boot):
                event = self._booted(watch, event)
            elif isinstance(event, ev.Crash):
                self.writer.sync_soon(watch.name)
                watch.healthy_since = None
            decisions = policy.observe(event)
            if has_addresses(event):
                booted = watch.last_boot.at if watch.last_boot else None
                self.symbols.explain(event, watch.name, booted, lambda e, sha, w=watch: self.publish(w, e, sha))  # type: ignore[misc]
            else:
                self.publish(watch, event)
            self._judge(watch, decisions)

    def _booted(self, watch: Watch, event: ev.Boot) -> ev.Boot:
        at = event.at if event.at is not None else time.time()
        if event.caused_by is None:
            if 0 <= at - watch.reset_at <= NEAR_RESET_S or watch.state == "busy":
                event = replace(event, caused_by="espmon")
                watch.reset_at = float("-inf")  # one reset, one boot: the next is the board's own doing
            elif 0 <= at - watch.opened_at <= NEAR_OPENING_S:
                event = replace(event, caused_by="open")
        watch.last_boot = event
        watch.healthy_since = at
        if watch.section.baud is None:
            self._hurry()
        return event

    def _text(self, watch: Watch, event: ev.Text) -> None:
        marker = watch.section.healthy.encode() if watch.section.healthy else None
        at = event.at if event.at is not None else time.time()
        for number, line in watch.lines_of(event):
            marked = marker is not None and _search(marker, line)
            if marked or (watch.policy.listening and is_ordinary(line)):
                watch.policy.heard(at, number, marker=marked)

    # --- what events lead to ---

    def publish(self, watch: Watch, event: ev.Event, elf_sha256: str | None = None) -> None:
        """To the database, the hooks and whoever listens."""
        if event.port is None:
            event = replace(event, port=watch.name)
        if isinstance(event, ev.Boot) and elf_sha256 is None:
            elf_sha256 = next(iter(self.symbols.current(watch.name, event.at)), None)
        if isinstance(event, (ev.Boot, ev.Reset)):
            watch.last_reset = event
        self.database.event(event, elf_sha256=elf_sha256)
        self.tell(watch, event)
        self.hooks.offer(event)

    def tell(self, watch: Watch, event: ev.Event) -> None:
        """Something of the moment (progress): to whoever listens, not to the database."""
        if event.port != watch.name:
            event = replace(event, port=watch.name)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - logged; one listener's fault must not end the others
                _log.exception("a listener failed")

    def _judge(self, watch: Watch, decisions: list[Emit | Do]) -> None:
        """Carries out what the policy decided. Call with `watch.judging` held."""
        for decision in decisions:
            if isinstance(decision, Emit):
                event = decision.event
                self.publish(watch, event)
                if isinstance(event, ev.Recovery):
                    _log.warning("%s: recovery %s %s%s", watch.name, event.step, event.outcome, f": {event.reason}" if event.reason else "")
                    self.database.audit(
                        event.at or time.time(),
                        watch.name,
                        "recovery",
                        f"{event.step} {event.outcome}",
                        incident=event.incident,
                        reason=event.reason,
                    )
                else:
                    _log.warning("%s: boot loop (%s)", watch.name, getattr(event, "cause", None) or "cause unknown")
            else:
                self._operations.submit(self._run_rung, watch, decision)
        state = watch.policy.unsaved()
        if state is not None and not any(isinstance(d, Do) for d in decisions):
            text, name, now = json.dumps(state), watch.name, time.time()
            self.database.put(
                lambda c: c.execute("INSERT OR REPLACE INTO recovery_state VALUES (?, ?, ?)", (name, now, text)), keep=True
            )
        watch.due = 0.0

    def _run_rung(self, watch: Watch, do: Do) -> None:
        try:
            with watch.judging:
                state = watch.policy.state()
            # the budget and the intention are on the disk before anything is done to the board
            self.database.save_recovery_state(watch.name, time.time(), state)
            with watch.judging:
                why = watch.policy.confirm(do, time.time())
            if why is not None:
                result = RungResult(outcome="refused", reason=why)
            elif self.rungs is None:
                result = RungResult(outcome="refused", reason="this espmon cannot carry it out")
            else:
                result = self.rungs.run(watch, do)
        except StoreUnusable as error:
            result = RungResult(outcome="refused", reason=f"the journal cannot be written: {error.message}")
        except EspmonError as error:
            result = RungResult(outcome="failed", reason=error.message)
        except Exception as error:  # noqa: BLE001 - told as a failed rung, with its traceback in our log
            _log.exception("%s: %s", watch.name, do.rung)
            result = RungResult(outcome="failed", reason=f"a fault in espmon: {error}")
        if self._stop_operations.is_set() and result.outcome != "done":
            return  # the daemon ends: the stored state says what was under way
        with watch.judging:
            # what was heard while the rung ran belongs to it
            self._decode(watch, time.time(), jumped=False, closing=False)
            decisions = watch.policy.rung_done(do, result, time.time())
        if self.rungs is not None and not any(isinstance(d, Do) and d.rung in IN_LOADER for d in decisions):
            self.rungs.leave(watch)
        with watch.judging:
            self._judge(watch, decisions)
        self._read()

    def recover(self, name: str, mode: str, who: str) -> None:
        """A person asks for a recovery. Raises :class:`UsageProblem` for an unknown name."""
        watch = self.watch(name)
        self.database.audit(time.time(), watch.name, who, "recover", mode=mode)
        with watch.judging:
            self._judge(watch, watch.policy.begin(time.time(), mode=mode))

    def unlock(self, name: str, who: str) -> None:
        """Ends a lock-out. Raises :class:`UsageProblem` for an unknown name."""
        watch = self.watch(name)
        self.database.audit(time.time(), watch.name, who, "unlock")
        with watch.judging:
            watch.policy.unlock()
            self._judge(watch, [])

    def _gaps(self, gaps: list[LogGap]) -> None:
        for gap in gaps:
            watch = self.watches.get(gap.port)
            if watch is not None:
                _log.error("%s: %s bytes are missing in the log: %s", gap.port, gap.bytes, gap.reason)
                self.publish(watch, ev.Gap(at=gap.at, port=gap.port, bytes=gap.bytes, reason=gap.reason))

    def _disk_state(self, low: bool, free: int) -> None:
        for watch in self.watches.values():
            watch.log.mark("low on space" if low else "space again", time.time(), time.monotonic(), free=free)

    # --- status ---

    def status(self) -> dict[str, Any]:
        """Everything that `espmon status` shows of the present, as JSON values."""
        return {
            "version": _version(),
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
            "ports": {name: self._port_status(watch) for name, watch in self.watches.items()},
        }

    def _port_status(self, watch: Watch) -> dict[str, Any]:
        policy, log = watch.policy, watch.log
        last = watch.last_reset
        incident = policy.incident
        return {
            "state": watch.state,
            "device": watch.device,
            "since": ev.iso_time(watch.since),
            "baud": watch.port.baud if watch.port else watch.rate.baud,
            "holder": watch.holder,
            "writer": watch.writer.who if watch.writer else None,
            "attached": [a.who for a in watch.attached],
            "problem": self.problems.get(watch.name) or watch.problem,
            "bytes": watch.bytes,
            "last_heard": ev.iso_time(watch.last_heard),
            "last_reset": ev.to_json_object(last) if last else None,
            "up_since": ev.iso_time(watch.healthy_since),
            "log": {
                "segment": str(log.segment.raw_path) if log.segment else None,
                "stored": log.bytes_stored,
                "waiting": log.waiting,
                "lost": log.bytes_lost,
                "full": log.full,
            },
            "recovery": {
                "mode": policy.settings.mode,
                "image": policy.settings.image,
                "incident": incident.id if incident else None,
                "running": incident.running if incident else None,
                "locked": policy.locked,
                "quiet_until": ev.iso_time(policy.quiet_until) if policy.quiet_until > time.time() else None,
            },
        }


def _why_not(watch: Watch) -> str:
    held = f", {watch.holder} has it" if watch.holder else ""
    return f"{watch.name} is {watch.state}{held}"


def _version() -> str:
    import espmon

    return espmon.__version__


def _search(pattern: bytes, line: bytes) -> bool:
    import re

    return re.search(pattern, line) is not None


def _dev_stamp() -> object:
    """Changes when a device node comes or goes, where the system shows that cheaply."""
    try:
        return os.stat("/dev").st_mtime_ns
    except OSError:
        return None


def _poll_reader(after_read: Callable[[], None]) -> Reader | None:
    import sys

    if sys.platform == "linux":
        from espmon.app.readers import PollReader

        return PollReader(after_read)
    return None
