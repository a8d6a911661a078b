"""Frozen, slotted values whose methods cost nothing until one is made.

Level 0. The standard `dataclass` compiles `__init__`, `__setattr__`, `__eq__` and more for each class when its module is
imported: 0.5 ms each, and the classes that a monitor needs before its first line cost more than opening the port. Here the
methods are shared, and `__init__` is compiled when the first value of its class is made. `dataclasses.fields`, `replace`
and `asdict` work as with any dataclass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform

_T = TypeVar("_T", bound=type)


class Value:
    """What all values share: they never change, and are equal when they are of one class and their fields are."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **values: Any) -> None:
        made = type(self)
        made.__init__ = _init(made)  # type: ignore[method-assign]
        made.__init__(self, *args, **values)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, each.name) == getattr(other, each.name) for each in fields(self))

    def __hash__(self) -> int:
        return hash((self.__class__, *(getattr(self, each.name) for each in fields(self))))

    def __repr__(self) -> str:
        shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self))
        return f"{self.__class__.__qualname__}({shown})"

    def __getstate__(self) -> list[Any]:
        return [getattr(self, each.name) for each in fields(self)]

    def __setstate__(self, state: list[Any]) -> None:
        for each, content in zip(fields(self), state, strict=True):
            object.__setattr__(self, each.name, content)


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=False, field_specifiers=(field,))
def value(made: _T) -> _T:
    """Makes a subclass of :class:`Value` a dataclass of keyword-only fields."""
    return _slotted(made, kw_only=True)


@dataclass_transform(kw_only_default=False, frozen_default=True, eq_default=False, field_specifiers=(field,))
def positional_value(made: _T) -> _T:
    """The same for a class of few fields, which may be given by position."""
    return _slotted(made, kw_only=False)


def _slotted(made: _T, *, kw_only: bool) -> _T:
    done: Any = dataclass(init=False, repr=False, eq=False, match_args=False, slots=True, kw_only=kw_only)(made)
    done.__init__ = Value.__init__  # not the one of its base, which may be compiled already
    return cast("_T", done)


def _init(made: type[Value]) -> Callable[..., None]:
    """`__init__` of a class, as `dataclass` would write it. Names and defaults are our own source's, never input."""
    scope: dict[str, Any] = {"keep": object.__setattr__, "MISSING": MISSING}
    positional: list[str] = []
    keyword: list[str] = []
    body: list[str] = []
    for each in fields(made):
        word, content = each.name, each.name
        if each.default is not MISSING:
            scope[f"default_{each.name}"] = each.default
            word += f"=default_{each.name}"
        elif each.default_factory is not MISSING:
            scope[f"new_{each.name}"] = each.default_factory
            word += "=MISSING"
            content = f"new_{each.name}() if {each.name} is MISSING else {each.name}"
        (keyword if each.kw_only else positional).append(word)
        body.append(f" keep(self, {each.name!r}, {content})")
    words = ", ".join(["self", *positional, *(["*", *keyword] if keyword else [])])
    exec(f"def __init__({words}):\n" + "\n".join(body or [" pass"]), scope)
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{made.__qualname__}.__init__"
    return init
