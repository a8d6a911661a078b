"""Who reads the open ports: one epoll thread over all descriptors on Linux, a thread per port elsewhere and for URLs.

Both have the same two methods; :meth:`remove` returns only when the port is no longer being read, so that passing a port
to somebody else (flashing, lending) is one explicit step.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from espmon.errors import PortGone
from espmon.port import SerialPort

# Small reads are gathered this long: with 64 boards at 115200 it saves six of seven system calls, and events are still
# told within 100 ms. A terminal's buffer in the kernel holds 4 KiB, so a reader that got a large piece waits less, or not at
# all. A port that somebody looks on to is read in between, one whose board changes its rate nearly at once.
PACE_S = 0.07
_MEDIUM_PACE_S = 0.01
_LOOKED_ON_S = 0.015
_HURRIED_PACE_S = 0.002
_MEDIUM = 1536
_LARGE = 2048
_READ_SIZE = 65536
_EMPTY_READS = 50  # in a row before a port that is readable without data counts as gone


class Hears(Protocol):
    """What is read for: a watched port."""

    hurry_until: float
    """Monotonic: until then it is read nearly at once."""

    @property
    def name(self) -> str: ...
    @property
    def waited_for(self) -> bool: ...
    def heard(self, data: bytes, at: float, mono: float) -> None: ...
    def gone(self, problem: PortGone) -> None: ...


class Reader(Protocol):
    """Reads ports and hands bytes on, exactly one reader per port at a time."""

    beat: float

    def add(self, watch: Hears, port: SerialPort) -> None: ...
    def remove(self, watch: Hears) -> None: ...
    def stop(self) -> None: ...


class ThreadReader:
    """One thread per port: for URLs, and where polling serial descriptors is not to be trusted (macOS, Windows)."""

    def __init__(self, after_read: Callable[[], None]) -> None:
        self._after_read = after_read
        self._running: dict[str, tuple[threading.Thread, threading.Event, SerialPort]] = {}
        self._lock = threading.Lock()

    @property
    def beat(self) -> float:
        """Monotonic time of the last sign of life: each port has its own thread, none holds up the others."""
        return time.monotonic()

    @beat.setter
    def beat(self, value: float) -> None: ...

    def add(self, watch: Hears, port: SerialPort) -> None:
        """Begins to read `port` for `watch`."""
        stop = threading.Event()
        thread = threading.Thread(target=self._read, args=(watch, port, stop), name=f"port {watch.name}", daemon=True)
        with self._lock:
            self._running[watch.name] = (thread, stop, port)
        thread.start()

    def _read(self, watch: Hears, port: SerialPort, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                data = port.read(0.5)
                if data:
                    watch.heard(data, time.time(), time.monotonic())
                    self._after_read()
                    if len(data) < _LARGE:
                        port.pause(_MEDIUM_PACE_S)
        except PortGone as gone:
            if not stop.is_set():
                watch.gone(gone)

    def remove(self, watch: Hears) -> None:
        """Ends reading; returns when the thread has let the port go."""
        with self._lock:
            running = self._running.pop(watch.name, None)
        if running is None:
            return
        thread, stop, port = running
        stop.set()
        port.wake()
        if thread is not threading.current_thread():
            thread.join(5.0)

    def stop(self) -> None:
        """Ends all."""
        with self._lock:
            running = list(self._running.values())
            self._running.clear()
        for _, stop, port in running:
            stop.set()
            port.wake()
        for thread, _, _ in running:
            thread.join(2.0)


if sys.platform == "linux":

    class PollReader:
        """One thread, one epoll over the descriptors of all ports."""

        def __init__(self, after_read: Callable[[], None]) -> None:
            self.beat = time.monotonic()
            self._after_read = after_read
            self._epoll = select.epoll()
            self._wake_r, self._wake_w = os.pipe()
            os.set_blocking(self._wake_r, False)
            os.set_blocking(self._wake_w, False)
            self._epoll.register(self._wake_r, select.EPOLLIN)
            self._woken = select.poll()
            self._woken.register(self._wake_r, select.POLLIN)
            self._by_fd: dict[int, Hears] = {}
            self._empty_reads: dict[int, int] = {}  # in a row
            self._commands: deque[tuple[Callable[[], None], threading.Event]] = deque()
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="ports", daemon=True)
            self._thread.start()

        def _command(self, command: Callable[[], None]) -> None:
            if threading.current_thread() is self._thread:
                command()
                return
            done = threading.Event()
            self._commands.append((command, done))
            with contextlib.suppress(OSError):
                os.write(self._wake_w, b"!")
            # the thread may have ended at shutdown: then nobody reads any more either
            while not done.wait(0.2) and self._thread.is_alive():
                pass

        def add(self, watch: Hears, port: SerialPort) -> None:
            """Begins to read `port`, which must have a descriptor."""
            fd = port.descriptor
            assert fd is not None

            def command() -> None:
                self._by_fd[fd] = watch
                self._epoll.register(fd, select.EPOLLIN)

            self._command(command)

        def remove(self, watch: Hears) -> None:
            """Ends reading; returns when no read is under way."""

            def command() -> None:
                for fd in [fd for fd, each in self._by_fd.items() if each is watch]:
                    self._forget(fd)

            self._command(command)

        def _forget(self, fd: int) -> None:
            self._by_fd.pop(fd, None)
            self._empty_reads.pop(fd, None)
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(fd)

        def _run(self) -> None:
            by_fd, read, poll = self._by_fd, os.read, self._epoll.poll
            while not self._stopping:
                ready = poll(1.0, 1024)
                self.beat = mono = time.monotonic()
                at = time.time()
                largest = 0
                heard = False
                for fd, what in ready:
                    if fd == self._wake_r:
                        largest = _LARGE
                        with contextlib.suppress(BlockingIOError):
                            while len(os.read(fd, 512)) == 512:
                                pass
                        continue
                    watch = by_fd.get(fd)
                    if watch is None:
                        continue
                    try:
                        data = read(fd, _READ_SIZE)
                    except BlockingIOError:
                        continue
                    except OSError as error:
                        self._lost(fd, watch, error.strerror or "gone")
                        continue
                    if data:
                        heard = True
                        watch.heard(data, at, mono)
                        if len(data) > largest:
                            largest = len(data)
                        if self._empty_reads:
                            self._empty_reads.pop(fd, None)
                    elif what & (select.EPOLLHUP | select.EPOLLERR):
                        self._lost(fd, watch, "unplugged")
                    else:
                        # Readable without data: hung up, or, rarely, under a flood, a tty that had nothing after all.
                        self._empty_reads[fd] = empty = self._empty_reads.get(fd, 0) + 1
                        if empty > _EMPTY_READS:
                            self._lost(fd, watch, "hung up")
                        else:
                            time.sleep(0.001)
                while self._commands:
                    command, done = self._commands.popleft()
                    try:
                        command()
                    finally:
                        done.set()
                if heard:
                    self._after_read()
                    if largest < _LARGE:
                        self._gather(mono, mono + (PACE_S if largest < _MEDIUM else _MEDIUM_PACE_S))

        def _gather(self, mono: float, until: float) -> None:
            """Lets bytes come together until `until`; ports that somebody waits for are read meanwhile. A command ends it."""
            hurried = [fd for fd, watch in self._by_fd.items() if watch.hurry_until > mono]
            prompt = hurried + [fd for fd, watch in self._by_fd.items() if watch.waited_for]
            pace = _HURRIED_PACE_S if hurried else _LOOKED_ON_S if prompt else PACE_S
            ready = select.poll()
            for fd in prompt:
                ready.register(fd, select.POLLIN)
            while not self._stopping:
                left = until - time.monotonic()
                if left <= 0 or self._woken.poll(max(1, int(1000 * min(left, pace)))):
                    return
                if prompt and not self._read_now(ready.poll(0)):
                    return

        def _read_now(self, ready: list[tuple[int, int]]) -> bool:
            """Reads what came; False when it is time to look at all ports: for a flood, or what is wrong with one."""
            mono, at = time.monotonic(), time.time()
            heard, calm = False, True
            for fd, what in ready:
                try:
                    data = os.read(fd, _READ_SIZE) if what & select.POLLIN else b""
                except OSError:
                    data = b""
                if data:
                    self._by_fd[fd].heard(data, at, mono)
                    heard = True
                calm = calm and 0 < len(data) < _LARGE
            if heard:
                self._after_read()
            return calm

        def _lost(self, fd: int, watch: Hears, reason: str) -> None:
            self._forget(fd)
            watch.gone(PortGone(watch.name, f"{watch.name} has gone: {reason}"))

        def stop(self) -> None:
            """Ends the thread; ports stay open."""
            self._stopping = True
            with contextlib.suppress(OSError):
                os.write(self._wake_w, b"!")
            self._thread.join(3.0)
            self._epoll.close()
            for end in (self._wake_r, self._wake_w):
                with contextlib.suppress(OSError):
                    os.close(end)


class Readers:
    """The readers of this system, and which of them reads a port. `after_read` is called when bytes were handed on."""

    def __init__(self, after_read: Callable[[], None]) -> None:
        self._thread: Reader = ThreadReader(after_read)
        self._poll: Reader | None = None
        if sys.platform == "linux":
            self._poll = PollReader(after_read)

    def of(self, port: SerialPort) -> Reader:
        """Who reads this open port."""
        return self._thread if self._poll is None or port.descriptor is None else self._poll

    @property
    def beat(self) -> float:
        """Monotonic time of the last sign of life."""
        return self._thread.beat if self._poll is None else self._poll.beat

    def stop(self) -> None:
        """Ends all reading."""
        for reader in (self._poll, self._thread):
            if reader is not None:
                reader.stop()


def raise_descriptor_limit(wanted: int = 65536) -> int | None:
    """Raises this process's limit of open files as far as the system allows; returns it, None where there is none."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= target:
        return soft
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        return target
    return soft
