"""One configured board: where it is now, what is heard of it, who has it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import espmon.events as ev
from espmon.app.boottext import BootText
from espmon.app.config import Section
from espmon.app.listener import Decodes
from espmon.app.rate import RateFollower
from espmon.app.recovery import RecoveryPolicy
from espmon.errors import PortGone, PortProblem
from espmon.port import Chunk, PortIdentity, SerialPort
from espmon.store.portlog import PortLog

if TYPE_CHECKING:
    from espmon.port.rfc2217 import Rfc2217Server

INBOX_BYTES = 4 << 20  # bytes that wait for the decoder, per port; the raw log has them all the same
ATTACH_BYTES = 1 << 20  # bytes that wait for a slow attached reader


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
        #: rates that the port was set to and that were not told yet
        self.rates: deque[int] = deque()
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

    def __init__(
        self,
        name: str,
        section: Section,
        log: PortLog,
        policy: RecoveryPolicy,
        rate: RateFollower,
        *,
        wake: Callable[[], None],
        gone: Callable[[Watch, PortGone], None],
        familiar: set[bytes] | None = None,
    ) -> None:
        self.name = name
        self.section = section
        self.log = log
        self.policy = policy
        self.rate = rate
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
        self._boot_text = BootText()
        self._decoder: Decodes | None = None
        self.hurry_until = 0.0  # monotonic: until then its bytes are read and decoded as they come
        self._wake = wake
        self._gone = gone
        self._familiar = familiar

    @property
    def decoder(self) -> Decodes:
        """Made when the first bytes are decoded: importing it takes longer than opening the port."""
        if self._decoder is None:
            from espmon.decode import Decoder

            self._decoder = Decoder(port=self.name, chip=self.section.chip, familiar=self._familiar)
        return self._decoder

    # --- the reader's thread ---

    @property
    def waited_for(self) -> bool:
        """True while somebody looks on: bytes are not gathered for long."""
        return bool(self.attached) or (self.offered is not None and self.offered.has_client)

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

    def rate_set(self, at: float, baud: int) -> None:
        """The port was set to `baud`: who follows the rate knows, and who is attached is woken to be told."""
        self.rate.rate_set(at, baud)
        for each in self.attached:
            each.rates.append(baud)
            each.ready.set()

    def expect_frames(self) -> None:
        """From now on :meth:`frames_heard` gets a loader's answers."""
        self._boot_text.forget()

    def expect_boot_text(self) -> None:
        """The board was reset: what is heard up to the first frame is its boot text."""
        self._boot_text.expect()

    def frames_heard(self, chunk: Chunk) -> None:
        """Bytes heard while the board is in its loader: all into the log; the text of boots to the decoder."""
        self.log.append(chunk.data, chunk.at, chunk.mono)
        self.bytes += len(chunk.data)
        self.last_heard = chunk.at
        for each in self.attached:
            each.offer(chunk.data)
        text = self._boot_text.of(chunk.data)
        if text:
            self.inbox_put += len(text)
            self.inbox.append((chunk.at, chunk.mono, text))
        self._wake()

    def clock_set_back(self, now: float) -> None:
        """No time of ours may lie ahead: what is waited for from then on would take as long as the clock was wrong."""
        self.noted_text = min(self.noted_text, now)
        self.opened_at = min(self.opened_at, now)
        self.reset_at = min(self.reset_at, now)
        if self.healthy_since is not None:
            self.healthy_since = min(self.healthy_since, now)

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

    @property
    def held(self) -> str:
        """Its state in words, and who has it."""
        return f"{self.name} is {self.state}" + (f", {self.holder} has it" if self.holder else "")
