"""The thread that owns one port: reads it, keeps every byte, decodes, carries out wishes, waits for the board's return."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from espmon.app.rate import RateFollower, WishRate
from espmon.errors import PortGone, PortProblem
from espmon.events import Boot, Event, Gap, PortChanged, ResetCaused
from espmon.port import Chunk, RateSet, SerialPort
from espmon.values import Value, positional_value

if TYPE_CHECKING:
    from espmon.bootloader.resets import ResetSequence

RETURN_POLL_S = 0.05  # a board that came back is read within 100 ms
PACE_S = 0.015  # small reads are gathered this long: a sixth of the work at 115200, and nobody sees it
PACED_BELOW = 2048  # bytes at once; more means a fast line or a backlog, which is read without pauses,
GATHERED = 32768  # and in pieces of up to this size
SEND_AGAIN_S = 0.005
STALLED_S = 5.0
UNSENT_BOUND = 1 << 20  # bytes of typed or piped input that may wait for the board
NEAR_OPENING_S = 2.0  # invariant 4: boots heard this soon after opening may be our doing
NEAR_RESET_S = 3.0  # the longest ROM banner comes well within this time of a reset
_QUIET_REFUSALS_S = 3.0  # a node that has just appeared: udev still sets its group, others probe it


class Decodes(Protocol):
    """What the listener needs of `espmon.decode.Decoder`."""

    def feed(self, data: bytes, at: float | None) -> list[Event]: ...
    def tick(self, at: float) -> list[Event]: ...
    def insert(self, event: Event) -> list[Event]: ...
    def close(self, at: float | None = None) -> list[Event]: ...
    @property
    def next_deadline(self) -> float | None: ...


_ESPRESSIF_USB = 0x303A  # the chip's own USB port: no transistors, and the host polls its lines


def with_rounding(reason: str | None, got: RateSet) -> str | None:
    """`reason`, and what the adapter made of the rate when that is another (0.5 %: more than a divider rounds)."""
    if abs(got.off_by) <= 0.005:
        return reason
    return f"{f'{reason}; ' if reason else ''}the adapter says {got.got}"


def reset_sequence(port: SerialPort) -> ResetSequence:
    """How a running board is restarted through this port."""
    from espmon.bootloader import resets

    return resets.HARD_USB if port.identity.vid == _ESPRESSIF_USB else resets.HARD


def download_sequence(port: SerialPort) -> ResetSequence:
    """How a board is restarted into download mode through this port."""
    from espmon.bootloader import resets

    if port.identity.vid == _ESPRESSIF_USB:
        return resets.USB_JTAG
    return resets.CLASSIC if port.is_url or sys.platform == "win32" else resets.TIGHT


@positional_value
class Send(Value):
    """Bytes for the board."""

    data: bytes


@positional_value
class Run(Value):
    """A reset of the board; `sequence` chooses it by the kind of port. `by` and `how` are told in the `ResetCaused` event."""

    sequence: Callable[[SerialPort], ResetSequence]
    by: str
    how: str | None = None


@positional_value
class Flash(Value):
    """Flash these (address, file) through the open port; the log goes on afterwards."""

    images: tuple[tuple[int, Path], ...]


Wish = Send | Run | WishRate | Flash


class Clock:
    """Unix time that doesn't jump while we listen: deadlines stay where they are when the system's clock is set."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset


class Listener(threading.Thread):
    """Owns `port`. The decoder is made once the port is open and said to be: importing it takes longer than opening.

    Events go to `tell`, in order; every byte goes to `keep` before anything else sees it;
    what `keep` says it couldn't store is told as a `Gap` once storing works again, or at the end.

    The first failure to open ends the thread with `failure` set; later the board is waited for, unless `reconnect` is
    False. `finished` is called when the thread ends.
    """

    def __init__(
        self,
        port: SerialPort,
        make_decoder: Callable[[], Decodes],
        rate: RateFollower,
        *,
        tell: Callable[[Sequence[Event]], None],
        keep: Callable[[bytes], int] | None = None,
        reconnect: bool = True,
        reset_first: bool = False,
        finished: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name=f"port {port.name}", daemon=True)
        self.port = port
        self.failure: PortProblem | None = None
        self.fault: BaseException | None = None
        """A bug of ours that ended the thread."""
        self._make_decoder = make_decoder
        self._decoder: Decodes | None = None
        self._rate = rate
        self._tell = tell
        self._keep = keep
        self._reconnect = reconnect
        self._reset_first = reset_first
        self._finished = finished
        self._clock = Clock()
        self._wishes: deque[Wish] = deque()
        self._stopping = threading.Event()
        self._opened_at = float("-inf")
        self._told_rate = 0  # what the rate follower believes the port to be at
        self._reset_at = float("-inf")
        self._new: list[Event] = []
        self._unkept = 0
        self._unsent = bytearray()
        self._sent_at = 0.0  # when the port last took something, 0 while nothing waits

    # --- from other threads -----------------------------------------------------------------------------------------

    def ask(self, wish: Wish) -> None:
        self._wishes.append(wish)
        self.port.wake()

    @property
    def backlog(self) -> int:
        """Bytes for the board that wait to be sent, roughly."""
        return len(self._unsent) + 4096 * len(self._wishes)

    def stop(self) -> None:
        self._stopping.set()
        self.port.wake()

    # --- the thread -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            self._listen()
        except PortProblem as problem:
            self.failure = problem
        except BaseException as error:  # noqa: BLE001 - told by the main thread, with its traceback
            self.fault = error
        finally:
            self.port.dispose()
            try:
                if self._decoder is not None:
                    self._sort(self._rate.close(self._clock.now()))
                    self._take(self._decoder.close(self._clock.now()))
                self._tell_gap()
                self._pass_on()
            finally:
                if self._finished is not None:
                    self._finished()

    def _listen(self) -> None:
        self.port.baud = self._rate.baud
        self.port.open()
        self._has_opened("opened")
        self._decoder = self._make_decoder()
        self.port.remember_identity()
        if self._reset_first:
            self._perform(Run(reset_sequence, "command line"))
        while not self._stopping.is_set():
            try:
                self._attend()
            except PortGone as gone:
                self._lost(gone)
                if not self._reconnect:
                    raise
                self._wait_for_return()

    def _attend(self) -> None:
        port, clock = self.port, self._clock
        while not self._stopping.is_set():
            while self._wishes:
                self._perform(self._wishes.popleft())
            data = port.read(self._send_on() if self._unsent else self._patience())
            for notice in port.take_notices():
                self._state("failed", notice)
            if port.baud != self._told_rate:  # the daemon that holds it has followed its board
                self._rate_is(port.baud, "the daemon has set it")
            if data:
                size = len(data)
                if size >= PACED_BELOW:
                    data = self._gather(data)
                self._heard(Chunk(clock.now(), data, time.monotonic()))
                self._pass_on()
                if size < PACED_BELOW:
                    port.pause(PACE_S)
            else:
                self._tick()

    def _send_on(self) -> float:
        """Sends what the port takes now, so that a long paste doesn't keep us from reading; how long to read then."""
        sent = self.port.write_some(bytes(self._unsent[:4096]))
        now = time.monotonic()
        if sent:
            del self._unsent[:sent]
            self._sent_at = now
        elif now - self._sent_at > STALLED_S:
            if self._sent_at:
                self._state("failed", f"it has taken no data for {STALLED_S:g} s; {len(self._unsent)} bytes were not sent")
                self._unsent.clear()
            else:
                self._sent_at = now
        if not self._unsent:
            self._sent_at = 0.0
            return 0.0
        return min(SEND_AGAIN_S, patience) if (patience := self._patience()) is not None else SEND_AGAIN_S

    def _gather(self, first: bytes) -> bytes:
        pieces = [first]
        size = len(first)
        while size < GATHERED and (more := self.port.read(0)):
            pieces.append(more)
            size += len(more)
        return b"".join(pieces)

    def _patience(self) -> float | None:
        """Seconds until something has to be closed by its deadline."""
        assert self._decoder is not None
        deadlines = [each for each in (self._decoder.next_deadline, self._rate.next_deadline) if each is not None]
        return max(0.0, min(deadlines) - self._clock.now()) if deadlines else None

    def _heard(self, chunk: Chunk) -> None:
        if self._keep is not None:
            unkept = self._keep(chunk.data)
            self._unkept += unkept
            if self._unkept and not unkept:
                self._tell_gap()
        self._sort(self._rate.hear(chunk))

    def _tell_gap(self) -> None:
        if self._unkept:
            missing, self._unkept = self._unkept, 0
            reason = "the raw log could not be written"
            self._take([Gap(bytes=missing, reason=reason, port=self.port.name, at=self._clock.now())])

    def _sort(self, heard: Sequence[Chunk | Event | WishRate]) -> None:
        assert self._decoder is not None
        for each in heard:
            if isinstance(each, Chunk):
                self._take(self._decoder.feed(each.data, each.at))
            elif isinstance(each, WishRate):
                self._perform(each)
            else:
                self._take(self._decoder.insert(each))

    def _tick(self) -> None:
        assert self._decoder is not None
        now = self._clock.now()
        deadline = self._rate.next_deadline
        if deadline is not None and now >= deadline:
            self._sort(self._rate.tick(now))
        deadline = self._decoder.next_deadline
        if deadline is not None and now >= deadline:
            self._take(self._decoder.tick(now))
        self._pass_on()

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Boot) and event.caused_by is None:
                at = event.at if event.at is not None else self._clock.now()
                if 0 <= at - self._reset_at <= NEAR_RESET_S:
                    event = replace(event, caused_by="espmon")
                elif 0 <= at - self._opened_at <= NEAR_OPENING_S:
                    event = replace(event, caused_by="open")
            self._new.append(event)

    def _pass_on(self) -> None:
        if self._new:
            new, self._new = self._new, []
            self._tell(new)

    def _state(self, state: str, reason: str | None = None, baud: int | None = None) -> None:
        self._take([PortChanged(state=state, reason=reason, baud=baud, port=self.port.name, at=self._clock.now())])
        self._pass_on()

    def _has_opened(self, state: str) -> None:
        now = self._clock.now()
        self._opened_at = now
        self._told_rate = self.port.baud
        self._rate.opened(now, self.port.baud, self.port.damaged)
        other = self.port.device if self.port.device != self.port.name and not self.port.is_url else None
        reason = f"now {other}" if other and state == "returned" else None
        self._state(state, with_rounding(reason, self.port.rate), self.port.baud)

    def _rate_is(self, baud: int, reason: str | None) -> None:
        self._told_rate = baud
        self._rate.rate_set(self._clock.now(), baud)
        self._state("rate", reason, baud)

    # --- wishes -----------------------------------------------------------------------------------------------------

    def _perform(self, wish: Wish) -> None:
        match wish:
            case Send(data=data):
                if len(self._unsent) < UNSENT_BOUND:
                    self._unsent += data
            case WishRate(baud=baud, reason=reason):
                try:
                    got = self.port.set_baud(baud)
                except PortGone:
                    raise
                except PortProblem as problem:
                    self._state("failed", problem.message)
                    return
                self._rate_is(baud, with_rounding(reason, got))
            case Flash(images=images):
                self._flash(images)
            case Run(sequence=choose, by=by, how=how):
                if not self.port.set_lines(dtr=False, rts=False):
                    self._state("failed", "this port has no DTR and RTS lines: the board can't be reset through it")
                    return
                from espmon.port import run_steps

                sequence = choose(self.port)
                self._sort(self._rate.before_reset(self._clock.now()))
                self._reset_at = self._clock.now()
                self._rate.board_reset(self._reset_at)
                self._take([ResetCaused(by=by, how=how or sequence.name, port=self.port.name, at=self._reset_at)])
                self._pass_on()
                run_steps(self.port, sequence.run(), heard=self._heard)
                self._reset_at = self._clock.now()

    def _flash(self, images: Sequence[tuple[int, Path]]) -> None:
        """The port's bytes are the loader's for a while: all are kept, text outside its frames is decoded."""
        from espmon.app.flashing import flash_while_watching

        def kept(chunk: Chunk) -> None:
            if self._keep is not None:
                self._unkept += self._keep(chunk.data)

        def text(raw: bytes) -> None:
            assert self._decoder is not None
            self._take(self._decoder.feed(raw, self._clock.now()))
            self._pass_on()

        def told(event: Event) -> None:
            if isinstance(event, ResetCaused):
                self._reset_at = self._clock.now()
            self._take([event])
            self._pass_on()

        try:
            flash_while_watching(self.port, images, tell=told, heard=kept, text=text, stop=self._stopping)
        finally:
            self._reset_at = self._clock.now()
            self._rate.board_reset(self._reset_at)

    # --- gone and back ----------------------------------------------------------------------------------------------

    def _lost(self, gone: PortGone) -> None:
        self.port.close()
        self._unsent.clear()
        said = gone.message
        self._state("gone", None if said.startswith(f"{self.port.name} is gone") else said)

    def _wait_for_return(self) -> None:
        since: float | None = None  # when the device was first seen again
        told: str | None = None
        told_typing = False
        while not self._stopping.wait(RETURN_POLL_S):
            self._tick()
            while self._wishes:
                wish = self._wishes.popleft()
                if isinstance(wish, WishRate):
                    self.port.baud = wish.baud
                elif isinstance(wish, Run):
                    self._state("failed", "the board is away: nothing to reset")
                elif isinstance(wish, Send) and not told_typing:
                    told_typing = True
                    self._state("failed", "the board is away: what is typed meanwhile is not sent")
                elif isinstance(wish, Flash):
                    self._state("failed", "the board is away: nothing to flash")
            if not self.port.find_again():
                since = None
                continue
            since = time.monotonic() if since is None else since
            try:
                self.port.open()
            except PortProblem as problem:
                if time.monotonic() - since > _QUIET_REFUSALS_S and told != problem.message:
                    told = problem.message
                    self._state("failed", problem.message)
                continue
            self._has_opened("returned")
            self.port.remember_identity()
            return
