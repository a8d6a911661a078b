"""`espmon recover PORT` without a daemon: the recovery of one board, in this process and in one thread.

The same policy (:mod:`espmon.app.recovery`) and the same rungs (:mod:`espmon.app.treatment`) as the daemon's. A person is
there: pauses and budgets are theirs to overrule, guards are not. What was under way is stored before it begins, so that the
next run compares again and goes on; journal and backups are in the same folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import espmon.events as ev
from espmon.app.boottext import BootText
from espmon.app.ending import Ending
from espmon.app.flashing import ChipReport
from espmon.app.listener import NEAR_OPENING_S, NEAR_RESET_S, Clock, Decodes, reset_sequence
from espmon.app.ordinary import is_ordinary
from espmon.app.rate import Heard, RateFollower, WishRate
from espmon.app.recovery import Decision, Do, PolicySettings, RecoveryPolicy, RungResult, explain
from espmon.app.treatment import Treatment
from espmon.bootloader.errors import Stopped
from espmon.bootloader.image import ImageFault, has_header, identify
from espmon.chips import CHIPS
from espmon.errors import EXIT_INTERRUPTED, EXIT_TIMEOUT, PortGone, PortProblem
from espmon.port import Chunk, SerialPort, run_steps
from espmon.store.database import Database, StoreUnusable
from espmon.store.images import ImageStore, StoredImage

_LOOK_S = 0.1  # how soon a wish to stop is seen
_RETURN_S = 0.1  # how often a board that went away is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class BareOptions:
    """What the command line asks for. `mode`: ``reset`` or ``flash``, how far it may go. `listen_s`: how long the board is
    heard before a person's word counts as proof; a loop that proves itself sooner is treated at once."""

    mode: str = "flash"
    listen_s: float = 15.0
    timeout_s: float = 300.0
    chip: str | None = None
    flash_baud: int | None = None
    power_cycle: Sequence[str] | None = None
    healthy: str | None = None


def folder_for(state_dir: Path, key: str) -> Path:
    """Where state, journal and backups of the board with the identity `key` are; no two boards' runs share one."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip("-.")[:40] or "port"
    return state_dir / "recover" / f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def key_of(port: SerialPort) -> str:
    """The identity under which a board's state is kept: of the USB device where there is one, else the port's name."""
    return f"url:{port.device}" if port.is_url else port.identity.key


class BareRecovery:
    """One run. `tell` gets `recovery`, `boot-loop`, `reset-caused` and `progress` events in order, from this thread."""

    def __init__(
        self,
        port: SerialPort,
        folder: Path,
        options: BareOptions,
        *,
        pieces: Sequence[tuple[int, bytes]] = (),
        source: str = "",
        rate: RateFollower,
        make_decoder: Callable[[], Decodes],
        tell: Callable[[ev.Event], None],
        stop: threading.Event | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._port = port
        self._options = options
        self._rate = rate
        self._tell = tell
        self._now = now or Clock().now
        self._asked_to_stop = stop or threading.Event()
        self._database = Database(folder / "espmon.sqlite")
        self._images = ImageStore(folder / "image")
        self._decoder = make_decoder()
        name = port.name
        state = self._database.recovery_states().get("board")
        self._resuming = bool(state and state.get("incident"))
        image: str | None = None
        if pieces:
            image = self._images.add(pieces, origin="named", port=name, source=source).digest
        elif self._resuming:
            image = self._images.known_good(name)  # what the interrupted run was to write
        self._settings = PolicySettings(
            mode=options.mode, image=image, by_hand=True, power_cycle=options.power_cycle is not None
        )
        self.policy = RecoveryPolicy.restored(name, self._settings, state, at=self._now())
        self._healthy = re.compile(options.healthy.encode()) if options.healthy else None
        self._treatment = Treatment(self)
        self._wanted: list[Do] = []
        self._status: int | None = None
        self._ending = Ending()
        self._opened_at = self._reset_at = float("-inf")
        self._boot_text = BootText()
        self._tail = b""
        self._mac: str | None = None
        self._bytes = 0

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Listens, begins, ends; the exit status. Raises `PortProblem` when the port can't be opened, `StoreUnusable`."""
        limit = self._now() + self._options.timeout_s
        began = False
        try:
            self._open()
            listen_until = self._now() + self._options.listen_s
            while self._status is None:
                if self._asked_to_stop.is_set():
                    return EXIT_INTERRUPTED
                if self._now() >= limit:
                    return EXIT_TIMEOUT
                if self._wanted:
                    began = True
                    self._carry_out(self._wanted.pop(0))
                    continue
                if self.policy.incident is not None:
                    began = True
                elif not began and self._now() >= listen_until:
                    began = True
                    self._judge(self.policy.begin(self._now(), mode=self._options.mode))
                    continue
                self._attend(limit if began else min(limit, listen_until))
            return self._status
        except Stopped:
            return EXIT_INTERRUPTED
        finally:
            self._end()

    def plan(self) -> list[str]:
        """Listens for as long as asked, touches nothing, and tells what would be done and why, a sentence each."""
        self.policy.change(replace(self._settings, mode="notify"))
        try:
            self._open()
            until = self._now() + self._options.listen_s
            while self._now() < until and not self._asked_to_stop.is_set():
                self._attend(until)
            self.policy.change(self._settings)
            out = self._image_words()
            if self._resuming:
                out.append("an earlier run was interrupted: its flash would be compared again, then what differs written")
            if not self._bytes:
                out.append(f"nothing was heard of the board within {self._options.listen_s:g} s")
            return [*out, *explain(self.policy, self._now())]
        finally:
            self._end()

    def unlock(self) -> None:
        """Forgets what held recoveries back: brownout text, an interrupted run."""
        try:
            self._database.now(lambda c: c.execute("DELETE FROM recovery_state").rowcount)
            self.journal("unlock")
        finally:
            self._database.close()
            self._port.dispose()

    def _image_words(self) -> list[str]:
        image = self._images.get(self._settings.image) if self._settings.image else None
        if image is None:
            return ["no known-good image is named: nothing would be compared or written"] if self._options.mode == "flash" else []
        return image_words(image, self._options.chip)

    def _end(self) -> None:
        self._treatment.leave()
        self._port.dispose()
        if (state := self.policy.unsaved()) is not None:
            with contextlib.suppress(StoreUnusable):
                self._database.save_recovery_state("board", self._now(), state)
        self._database.close()

    def _open(self) -> None:
        port = self._port
        port.baud = self._rate.baud
        port.open()
        port.remember_identity()
        self._opened_at = self._now()
        self._rate.opened(self._opened_at, port.baud, port.damaged)

    def _attend(self, until: float) -> None:
        """Hears what comes for a moment, at most until `until`."""
        if not self._port.is_open:
            self._port.pause(_RETURN_S)
            with contextlib.suppress(PortProblem):
                if self._port.find_again():
                    self._open()
            self._tick()
            return
        deadlines = [d for d in (self._decoder.next_deadline, self._rate.next_deadline, self.policy.next_deadline) if d is not None]
        patience = max(0.0, min([until, self._now() + _LOOK_S, *deadlines]) - self._now())
        try:
            data = self._port.read(patience)
        except PortGone as gone:
            self._gone(gone)
            return
        if data:
            self._hear(Chunk(self._now(), data))
        self._tick()

    def _gone(self, gone: PortGone) -> None:
        self._port.close()
        self.journal("port gone", reason=gone.message)

    def _tick(self) -> None:
        now = self._now()
        if (due := self._rate.next_deadline) is not None and now >= due:
            self._sort(self._rate.tick(now))
        if (due := self._decoder.next_deadline) is not None and now >= due:
            self._events(self._decoder.tick(now))
        self._judge(self.policy.tick(now))

    # --- what is heard ----------------------------------------------------------------------------------------------

    def _hear(self, chunk: Chunk) -> None:
        self._bytes += len(chunk.data)
        self.policy.bytes_heard(chunk.at)
        self._sort(self._rate.hear(chunk))

    def _sort(self, heard: Sequence[Heard]) -> None:
        for each in heard:
            if isinstance(each, Chunk):
                self._events(self._decoder.feed(each.data, each.at))
            elif isinstance(each, WishRate):
                with contextlib.suppress(PortProblem):
                    self._port.set_baud(each.baud)
                    self._rate.rate_set(self._now(), each.baud)
            else:
                self._events(self._decoder.insert(each))

    def _events(self, events: Sequence[ev.Event]) -> None:
        for event in events:
            if isinstance(event, ev.Text):
                self._text(event)
                continue
            if isinstance(event, ev.BootLoop):
                continue  # the policy states loops, by the configured count
            if isinstance(event, ev.Boot):
                event = self._booted(event)
            self._judge(self.policy.observe(event))

    def _booted(self, event: ev.Boot) -> ev.Boot:
        at = event.at if event.at is not None else self._now()
        if event.caused_by is not None:
            return event
        if 0 <= at - self._reset_at <= NEAR_RESET_S or self._boot_text.expected:
            self._reset_at = float("-inf")  # one reset, one boot: the next is the board's own doing
            return replace(event, caused_by="espmon")
        return replace(event, caused_by="open") if 0 <= at - self._opened_at <= NEAR_OPENING_S else event

    def _text(self, event: ev.Text) -> None:
        at = event.at if event.at is not None else self._now()
        parts = (self._tail + event.raw).split(b"\n")
        self._tail = parts.pop()[-1024:]
        for number, line in enumerate(parts, event.line or 0):
            marked = self._healthy is not None and self._healthy.search(line) is not None
            if marked or is_ordinary(line):
                self.policy.heard(at, number, marker=marked)

    # --- what is done -----------------------------------------------------------------------------------------------

    def _judge(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Do):
                self._wanted.append(decision)
                continue
            event = decision.event
            self.publish(event)
            if isinstance(event, ev.Recovery):
                self.journal(f"{event.step} {event.outcome}", incident=event.incident, reason=event.reason)
                if (status := self._ending.seen(event.step, event.outcome)) is not None:
                    self._status = status

    def _carry_out(self, do: Do) -> None:
        try:
            # the intention is on the disk before anything is done to the board
            self._database.save_recovery_state("board", self._now(), self.policy.state())
            why = self.policy.confirm(do, self._now())
            result = RungResult(outcome="refused", reason=why) if why is not None else self._treatment.run(do)
        except StoreUnusable as error:
            result = RungResult(outcome="refused", reason=f"the journal cannot be written: {error.message}")
        if result.outcome == "lost":
            self._port.close()
        # what was heard while the rung ran belongs to it
        self._tick()
        decisions = self.policy.rung_done(do, result, self._now())
        if not any(isinstance(d, Do) for d in decisions):
            self._treatment.leave()
        self._judge(decisions)
        if (state := self.policy.unsaved()) is not None:
            self._database.save_recovery_state("board", self._now(), state)

    # --- what the rungs need (HeldBoard) ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._port.name

    @property
    def baud(self) -> int:
        return self._rate.baud

    @property
    def chip(self) -> str | None:
        return self._options.chip

    @property
    def flash_baud(self) -> int | None:
        return self._options.flash_baud

    @property
    def power_cycle(self) -> Sequence[str] | None:
        return self._options.power_cycle

    @property
    def image(self) -> str | None:
        return self._settings.image

    @property
    def images(self) -> ImageStore:
        return self._images

    @property
    def stop(self) -> threading.Event:
        return self._asked_to_stop

    def now(self) -> float:
        return self._now()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[SerialPort]:
        port = self._port
        if not port.is_open:
            raise PortGone(port.name, f"{port.name} is away")
        yield port
        if port.is_open and port.baud != self._rate.baud:
            with contextlib.suppress(PortProblem):
                port.set_baud(self._rate.baud)

    def pulse(self, port: SerialPort) -> None:
        if not port.set_lines(dtr=False, rts=False):
            raise PortProblem(port.name, f"{port.name} has no DTR and RTS lines: the board can't be reset through it")
        sequence = reset_sequence(port)
        self._sort(self._rate.before_reset(self._now()))
        self.was_reset(sequence.name)
        run_steps(port, sequence.run(), heard=self._hear)
        self._reset_at = self._now()
        self._boot_text.forget()

    def was_reset(self, how: str) -> None:
        now = self._now()
        self._reset_at = now
        self._boot_text.expect()
        self._rate.board_reset(now)
        self.journal("reset", how=how)
        event = ev.ResetCaused(at=now, port=self.name, by="espmon", how=how)
        self._judge(self.policy.observe(event))
        self._tell(event)

    def left_loader(self) -> None:
        self._reset_at = self._now()
        self._boot_text.forget()

    def heard(self, chunk: Chunk) -> None:
        """Bytes received while the board is in its loader."""
        text = self._boot_text.of(chunk.data)
        if text:
            self._hear(Chunk(chunk.at, text, chunk.mono))

    def tell(self, event: ev.Event) -> None:
        self._tell(event)

    def publish(self, event: ev.Event) -> None:
        self._database.event(event)
        self._tell(event)

    def journal(self, what: str, *, durable: bool = False, **facts: Any) -> None:
        write = self._database.audit_now if durable else self._database.audit
        write(self._now(), self.name, "recover", what, **facts)

    def recorded(self) -> tuple[str | None, str | None]:
        """Of the board that an interrupted run worked on; another time another board may be in this socket."""
        if not self._resuming:
            return None, None
        return self._database.board("board")

    def remember(self, report: ChipReport) -> None:
        self._database.remember_board_now("board", self._now(), report.mac or None, report.chip.name, report.flash_size)
        self._resuming = True


def image_words(image: StoredImage, chip: str | None) -> list[str]:
    """What can be told of an image without a board, a sentence a piece."""
    out = []
    for offset, content in image.pieces:
        where = f"image at 0x{offset:x}: {len(content)} bytes"
        if not has_header(content):
            out.append(f"{where}, no image header (data)")
            continue
        try:
            read = identify(content, CHIPS.get(chip or ""))
        except ImageFault as problem:
            out.append(f"{where}, would be refused: {problem}")
            continue
        title = CHIPS[read.chip].title if read.chip else "a chip that is not known"
        out.append(f"{where}, for {title}, " + (f"would be refused: {read.fault}" if read.fault else "checksum right"))
    return out


def read_image(pairs: Sequence[tuple[int, Path]]) -> list[tuple[int, bytes]]:
    """The files of an image. Raises :class:`~espmon.errors.InputUnreadable`."""
    from espmon.app.flashing import files_from

    return [(region.offset, region.content) for region in files_from(pairs)]


__all__ = ["BareOptions", "BareRecovery", "folder_for", "image_words", "key_of", "read_image"]
