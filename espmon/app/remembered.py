"""What is remembered of boards and adapters between runs: a small JSON file, text -> facts.

Losing it only costs a moment, so no failure is told; what it says may have been written by anybody, so every fact is
checked by who asks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

_MOST_KEYS = 1000  # a gateway may have hundreds of boards
_MOST_BYTES = 1 << 20


class Remembered:
    """The facts in the file at `path`, the latest 1,000 keys; `path` None: nothing outlives this object."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._here: dict[str, dict[str, object]] = {}

    def _all(self) -> dict[str, dict[str, object]]:
        if self.path is None:
            return self._here
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                return {}
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return {str(k): v for k, v in content.items() if isinstance(v, dict)} if isinstance(content, dict) else {}

    def of(self, key: str) -> Mapping[str, object]:
        """The facts kept under `key`; none when it is new."""
        return self._all().get(key, {})

    def number(self, key: str, fact: str, first: int, last: int) -> int | None:
        """A fact that is a whole number from `first` to `last`; None when it is anything else."""
        value = self.of(key).get(fact)
        return value if isinstance(value, int) and not isinstance(value, bool) and first <= value <= last else None

    def keep(self, key: str, facts: Mapping[str, object]) -> None:
        """Replaces what is known under `key`, in the file as a whole or not at all."""
        known = self._all()
        if known.get(key) == facts:
            return
        known.pop(key, None)
        known[key] = dict(facts)
        while len(known) > _MOST_KEYS:
            known.pop(next(iter(known)))
        if self.path is None:
            return
        import tempfile  # with what it imports, 10 ms that no start should wait for

        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    json.dump(known, stream, indent=1)
                os.replace(name, self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(name)
