"""Runs Steps on whatever stands in for a port."""

from __future__ import annotations

from typing import Any, TypeVar

from espmon.bootloader.actions import Action, Steps

T = TypeVar("T")


class Interpreter:
    """Runs Steps; what an action does is the subclass's."""

    def perform(self, action: Action) -> Any:
        """Interpret one action; its result."""
        raise NotImplementedError

    def run(self, steps: Steps[T]) -> T:
        """Run Steps to their end."""
        try:
            action = steps.send(None)
            while True:
                action = steps.send(self.perform(action))
        except StopIteration as end:
            value: T = end.value
            return value
