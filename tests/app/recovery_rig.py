"""A recovery on a virtual board and a virtual clock: no thread waits, minutes of a board's life take milliseconds.

The recovery is the one of `espmon recover PORT`; with :meth:`Life.watch` it goes on like the daemon, within budgets. A
:class:`Bench` outlives hosts: kill the host at any moment and give the same board and folder to the next one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import espmon.app.flashing
import espmon.port.worker
import espmon.store.database
from espmon.app.bare import BareOptions, BareRecovery
from espmon.app.rate import FixedRate
from espmon.board.board import Board
from espmon.board.demo import crash_logs, demo_image
from espmon.board.image import read_image
from espmon.board.live import idf_pieces, new_flash
from espmon.board.nor import NorFlash
from espmon.board.settings import settings_from
from espmon.decode import Decoder
from espmon.errors import PortGone
from espmon.events import Event
from espmon.port import RateSet, SerialPort

EPOCH = 1_790_000_000.0
PARAMETERS = b"SETTINGS" * 512


class HostKilled(BaseException):
    """The host is gone: nothing of it runs any more, whatever `finally` says."""


class Clock:
    """Stands in for the `time` module where the recovery looks at it; sleeping lets the board live."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.wall_offset = EPOCH
        self.passing: Callable[[float], None] = lambda now: None

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return self.seconds + self.wall_offset

    def sleep(self, seconds: float) -> None:
        self.seconds += max(0.0, seconds)
        self.passing(self.seconds)


class VirtualPort(SerialPort):
    """A virtual board's port. `kill_at`, `gone_at`: the operation of the port at which the host or the link ends."""

    def __init__(self, bench: Bench) -> None:
        super().__init__("sim://virtual")
        self.bench = bench
        self._open = False
        self._gone_until = float("-inf")

    @property
    def is_open(self) -> bool:
        return self._open

    def _count(self) -> None:
        bench = self.bench
        bench.count()
        if bench.gone_at is not None and bench.operations >= bench.gone_at:
            bench.gone_at = None
            self._gone_until = bench.clock.seconds + bench.away_s
            self._drop()
        if not self._open:
            raise PortGone(self.name, f"{self.name} is gone")

    def _drop(self) -> None:
        self._open = False
        self.bench.board.set_lines(False, False)

    def open(self) -> None:
        if self.bench.dead:
            raise HostKilled
        self._open = True
        self.bench.board.set_rate(self.baud)
        self.bench.board.set_lines(False, False)

    def close(self) -> None:
        if self._open and not self.bench.dead:
            self._drop()

    dispose = close

    def find_again(self) -> bool:
        return self.bench.clock.seconds >= self._gone_until

    def remember_identity(self) -> None:
        """A virtual board has none."""

    def pause(self, seconds: float) -> None:
        self.bench.clock.sleep(seconds)

    def read(self, timeout: float | None = None) -> bytes:
        self._count()
        board, clock = self.bench.board, self.bench.clock
        limit = clock.seconds + (60.0 if timeout is None else timeout)
        while not board.host_waiting and clock.seconds < limit:
            event = board.next_event()
            clock.seconds = limit if event is None else min(limit, max(event, clock.seconds + 1e-6))
            board.advance(clock.seconds)
        if timeout:
            clock.seconds += 0.0005  # an adapter's letters come in bunches
            board.advance(clock.seconds)
        return board.host_read()

    def write(self, data: bytes, timeout: float = 5.0) -> None:
        self._count()
        self.bench.board.host_write(data)

    def flush(self) -> None:
        self._count()
        self.bench.clock.sleep(self.bench.board.sending_until - self.bench.clock.seconds)

    def set_baud(self, rate: int) -> RateSet:
        self._count()
        self.baud = rate
        self.bench.board.set_rate(rate)
        return RateSet(rate, rate)

    def set_lines(self, dtr: bool | None = None, rts: bool | None = None) -> bool:
        self._count()
        self.bench.board.set_lines(dtr, rts)
        return True

    def discard(self) -> None:
        self.bench.board.discard_received()


class Life(BareRecovery):
    """One host's life beside a board."""

    def __init__(self, bench: Bench, *, options: BareOptions, by_hand: bool, events: list[Event]) -> None:
        super().__init__(
            VirtualPort(bench), bench.folder, options,
            pieces=bench.pieces, source="good", rate=FixedRate(bench.baud),
            make_decoder=lambda: Decoder(port="sim://virtual"), tell=events.append, now=bench.clock.time,
        )  # fmt: skip
        self.bench = bench
        settings = replace(self._settings, by_hand=by_hand, healthy_after_s=bench.healthy_after_s, alive_s=bench.alive_s)
        self._settings = settings
        self.policy.change(settings)

    def _end(self) -> None:
        if not self.bench.dead:
            super()._end()

    def publish(self, event: Event) -> None:
        self.bench.count()
        super().publish(event)

    def journal(self, what: str, *, durable: bool = False, **facts: Any) -> None:
        self.bench.count()
        super().journal(what, durable=durable, **facts)

    def watch(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Like the daemon: begins by itself, within budgets, goes on after an end, for `seconds` or until `done`."""
        try:
            self._open()
            end = self.now() + seconds
            while self.now() < end and not done():
                if self._wanted:
                    self._carry_out(self._wanted.pop(0))
                    continue
                self._attend(end)
                if (state := self.policy.unsaved()) is not None:
                    self._database.save_recovery_state("board", self.now(), state)
        finally:
            self._end()


class Bench:
    """A board that outlives hosts. `settings`: of the virtual board; `cells`: its flash; `pieces`: its known-good image."""

    def __init__(
        self,
        folder: Path,
        settings: str = "",
        *,
        cells: bytearray | None = None,
        pieces: Sequence[tuple[int, bytes]] | None = None,
        healthy_after_s: float = 3.0,
        alive_s: float = 12.0,
    ) -> None:
        pairs = [(n, v) for n, _, v in (p.partition("=") for p in settings.split("&") if p)]
        self.settings = settings_from(pairs, settings_from([("flash_size", "1m"), ("image", "idf")]))
        if self.settings.chip == "esp8266" and "baud" not in dict(pairs):
            self.settings = replace(self.settings, baud=74880)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.pieces = list(good_pieces(self.settings.chip) if pieces is None else pieces)
        self.cells = flash_of(self.settings.chip) if cells is None else cells
        self.before = bytes(self.cells)
        self.clock = Clock()
        self.board = Board(self.settings, self.cells, logs=crash_logs())
        self.clock.passing = self.board.advance
        self.baud = self.settings.baud
        self.healthy_after_s, self.alive_s = healthy_after_s, alive_s
        self.operations = 0
        self.kill_at: int | None = None
        self.gone_at: int | None = None
        self.away_s = 5.0
        self.dead = False
        self.events: list[Event] = []
        self.lives: list[Life] = []

    def count(self) -> None:
        """A moment at which the host may die."""
        if self.dead:
            raise HostKilled
        self.operations += 1
        if self.kill_at is not None and self.operations >= self.kill_at:
            self.die()
            raise HostKilled

    def die(self) -> None:
        self.dead = True
        self.kill_at = None
        self.board.set_lines(False, False)  # the system drops the lines of a dead process

    @contextlib.contextmanager
    def clocked(self) -> Iterator[None]:
        """The board's clock is the recovery's."""
        modules: list[Any] = [espmon.port.worker, espmon.app.flashing]
        kept = [m.time for m in modules]
        batch, espmon.store.database._BATCH_S = espmon.store.database._BATCH_S, 0.0
        for m in modules:
            m.time = self.clock
        try:
            yield
        finally:
            for m, time in zip(modules, kept, strict=True):
                m.time = time
            espmon.store.database._BATCH_S = batch

    def _live(self, work: Callable[[Life], Any], options: BareOptions, *, by_hand: bool) -> Any:
        self.dead = False
        life = Life(self, options=options, by_hand=by_hand, events=self.events)
        self.lives.append(life)
        with self.clocked():
            try:
                return work(life)
            except HostKilled:
                return None
            finally:
                if self.dead:  # what it held open must not act from its grave, when the garbage is collected
                    with contextlib.suppress(HostKilled):
                        life._treatment.leave()
                life._database.close()

    def recover(self, **options: Any) -> int | None:
        """`espmon recover PORT --image ...`: the exit status, None when the host was killed."""
        status: int | None = self._live(lambda life: life.run(), BareOptions(**options), by_hand=True)
        return status

    def watch(self, seconds: float, *, until_ended: bool = False, **options: Any) -> None:
        """Like the daemon, for so many seconds of the board."""
        seen = len(self.ends())
        done: Callable[[], bool] = (lambda: len(self.ends()) > seen) if until_ended else (lambda: False)
        self._live(lambda life: life.watch(seconds, done), BareOptions(**options), by_hand=False)

    # --- what came of it ---

    @property
    def healthy(self) -> bool:
        """True when the board, left alone, prints what its application prints."""
        self.board.power(True)
        self.board.set_rate(self.baud)
        self.board.discard_received()
        self.clock.sleep(40.0)
        return b"report " in self.board.host_read()

    def steps(self) -> list[str]:
        return [f"{e.step} {e.outcome}" for e in self.events if e.type == "recovery"]  # type: ignore[attr-defined]

    def ends(self) -> list[str]:
        return [e.outcome for e in self.events if e.type == "recovery" and e.outcome in ("recovered", "gave-up")]  # type: ignore[attr-defined]

    def reasons(self) -> str:
        return "; ".join(str(e.reason) for e in self.events if e.type == "recovery" and e.reason)  # type: ignore[attr-defined]

    @property
    def untouched(self) -> bool:
        """True when not one cell was erased or programmed, whatever the content is."""
        return self.board.flash.erased_sectors == 0 and self.board.flash.programmed_bytes == 0

    @property
    def repaired(self) -> bool:
        """True when flash holds the image."""
        return all(self.cells[o : o + len(c)] == c for o, c in self.pieces)

    def worse(self) -> str | None:
        """What is worse than before, None when nothing is: foreign sectors changed, or half an image would boot."""
        of_image = {s for o, c in self.pieces for s in range(o // 0x1000, -(-(o + len(c)) // 0x1000))}
        for sector in range(len(self.cells) // 0x1000):
            span = slice(sector * 0x1000, (sector + 1) * 0x1000)
            if sector not in of_image and self.cells[span] != self.before[span]:
                return f"sector 0x{span.start:x} is not of the image and changed"
        boot = self.board.silicon.chip.boot_offset
        first = slice(boot, boot + 0x1000)
        wanted = next((c for o, c in self.pieces if o == boot), b"")
        part = next(((o, c) for o, c in self.pieces if o == boot), None)
        if part is not None and not self.repaired and bytes(self.cells) != self.before:
            whole = self.cells[boot : boot + len(wanted)] == wanted
            # as the ROM sees it: header, checksum, digest
            starts = read_image(NorFlash(bytearray(self.cells)), self.board.silicon).fault is None
            if starts and not whole and self.cells[first] != self.before[first]:
                return "half a boot image would start"
        return None


def good_pieces(chip: str) -> list[tuple[int, bytes]]:
    return [(0, demo_image())] if chip == "esp8266" else idf_pieces(chip)


def flash_of(chip: str, damage: str = "") -> bytearray:
    """A flash with the chip's known-good firmware and a person's settings, `damage`d in a way that boards are found with."""
    cells = new_flash(settings_from([("chip", chip), ("flash_size", "1m"), ("image", "idf")]))
    if chip == "esp8266":
        cells[-0x1000:] = PARAMETERS
    else:
        cells[0x9000:0xA000] = PARAMETERS
    boot = 0 if chip == "esp8266" else good_pieces(chip)[0][0]
    match damage:
        case "segment":  # a segment that never ends: the ROM's watchdog bites again and again
            at = boot + (12 if chip == "esp8266" else 28)
            cells[at : at + 4] = b"\xff\xff\xff\x7f"
        case "checksum":
            cells[boot + 0x40] ^= 0x20
        case "blank":
            cells[boot : boot + 0x1000] = b"\xff" * 0x1000
        case "header":
            cells[boot] = 0
        case "table":
            cells[0x8000:0x9000] = b"\xff" * 0x1000
        case "table bit":
            cells[0x8023] ^= 1
        case "app":
            cells[0x10000:0x11000] = b"\xff" * 0x1000
        case "app bit":
            cells[0x12345] ^= 0x10
        case "all":
            for offset, content in good_pieces(chip):
                cells[offset : offset + len(content)] = b"\xff" * len(content)
        case "" | None:
            pass
        case _:
            sys.exit(f"no damage {damage!r}")
    return cells


def other_firmware(chip: str) -> bytearray:
    """A flash whose firmware is whole, but not the known-good one: an update came over the air."""
    from espmon.board.live import small_image

    cells = flash_of(chip)
    offset = 0 if chip == "esp8266" else 0x10000
    image = small_image(chip, b"another firmware" * 600, digest=True)
    cells[offset : offset + 0x8000] = image.ljust(0x8000, b"\xff")[:0x8000]
    return cells
