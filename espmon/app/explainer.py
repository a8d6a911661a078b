"""Turns addresses into source lines beside the text: a thread of its own, so that no text waits for an ELF."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

from espmon.app.outbox import Slot
from espmon.app.source import SourceFiles, project_folder
from espmon.errors import ElfUnusable
from espmon.events import Crash, Event, Reset

BACKLOG = 64  # crashes that may wait for their lines: a board that does nothing else must not fill the memory


class Explainer(threading.Thread):
    """Fills slots one after the other. `problem` is called once for each ELF that can't be used."""

    def __init__(
        self,
        elfs: Sequence[str | Path],
        *,
        source_roots: Sequence[str | Path] = (),
        all_stack_words: bool = False,
        ready: Callable[[], None],
        problem: Callable[[ElfUnusable], None],
    ) -> None:
        super().__init__(name="symbols", daemon=True)
        self._elfs = elfs
        self._all_stack_words = all_stack_words
        self._ready = ready
        self._problem = problem
        self._told: set[str] = set()
        self._source = SourceFiles([*source_roots, *(project_folder(elf) for elf in elfs)])
        self._queue: SimpleQueue[Slot | None] = SimpleQueue()

    def explain(self, slot: Slot) -> None:
        """Fills `slot` as soon as possible; at once, as it is, when too many wait before it."""
        if self._queue.qsize() > BACKLOG:
            slot.ready.set()
        else:
            self._queue.put(slot)

    def stop(self) -> None:
        """Ends the thread after what was asked before."""
        self._queue.put(None)

    def run(self) -> None:
        from platformdirs import user_cache_path

        from espmon.symbolize import Symbolizer

        symbolizer = Symbolizer(
            self._elfs, index_dir=user_cache_path("espmon", False) / "index", all_stack_words=self._all_stack_words
        )
        self._tell_problems(symbolizer.problems)
        while (slot := self._queue.get()) is not None:
            try:
                event = slot.event
                match event:
                    case Crash():
                        slot.event = symbolizer.explain(event)
                    case Reset():
                        slot.event = symbolizer.explain(event)
                slot.source = self._source_lines(slot.event)
                self._tell_problems(symbolizer.problems)
            except Exception as error:  # noqa: BLE001 - a bug of ours: the crash is told without frames, and so is the bug
                slot.fault = f"{type(error).__name__}: {error}"
            finally:
                slot.ready.set()
                self._ready()

    def _tell_problems(self, problems: Sequence[ElfUnusable]) -> None:
        for problem in problems:
            if problem.message not in self._told:
                self._told.add(problem.message)
                self._problem(problem)

    def _source_lines(self, event: Event) -> dict[tuple[str, int], str]:
        lines: dict[tuple[str, int], str] = {}
        for frame in getattr(event, "frames", ())[:24]:
            if frame.file and frame.line and (frame.file, frame.line) not in lines:
                text = self._source.line(frame.file, frame.line)
                if text is not None and text.strip():
                    lines[frame.file, frame.line] = text
        return lines
