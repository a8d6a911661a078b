"""The shape of a format: its tokens, its state table, and the facts it states by single tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from espmon.decode.scan import Spec

if TYPE_CHECKING:
    from espmon.decode.dump import Dump
    from espmon.decode.interpreter import Interpreter
    from espmon.decode.scan import Token

IDLE = ""
"""The state in which no dump is open: a rule for it says which token begins one."""
END = "END"
"""Next state: the dump is complete with this token."""
SPLIT = "SPLIT"
"""Returned by an action: this token belongs to another dump, which it begins."""
DROP = "DROP"
"""Returned by an action: this token begins nothing after all."""

Action = Callable[["Dump", "Token"], "str | None"]
FactAction = Callable[["Interpreter", "Token"], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a token does to the open dump, and the state after it; the action may return another state."""

    action: Action | None
    to: str


@dataclass(frozen=True, slots=True)
class Format:
    """One crash format.

    `table`: (state, token kind) -> rule. `facts`: token kind -> what to do with it at any time, dump or not. `patience`:
    how many lines of other text an open dump survives. `joins`: token kinds that may be torn over two lines.
    `complete`: whether a dump that ended for `reason` (``end``, ``banner``, ``new``, ``foreign``, ``deadline``, ``eof``)
    is whole.
    """

    name: str
    tokens: tuple[Spec, ...] = ()
    table: Mapping[tuple[str, str], Rule] = field(default_factory=dict)
    facts: Mapping[str, FactAction] = field(default_factory=dict)
    patience: int = 10
    joins: frozenset[str] = frozenset()
    complete: Callable[[Dump, str], bool] | None = None


def rules(states: str, kinds: str, action: Action | None, to: str) -> dict[tuple[str, str], Rule]:
    """The same rule for several states and kinds (words separated by spaces; ``-`` is the idle state)."""
    return {
        (IDLE if state == "-" else state, kind): Rule(action, to) for state in states.split() for kind in kinds.split()
    }
