"""Facts that Steps tell while they run, inside :class:`~espmon.bootloader.actions.Note`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """What happens now, one of a fixed set of words.

    ``reset``, ``sync``, ``identify``, ``stub``, ``rate``, ``compare``, ``invalidate``, ``erase``, ``write``, ``verify``,
    ``read``, ``leave``; `detail` is for people.
    """

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Transferred:
    """`done` of `total` bytes of `operation` (``write``, ``read``, ``verify``, ``compare``, ``erase``)."""

    operation: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Heard:
    """Bytes that belong to no frame: boot text, an application, noise. `rate`: what the host listened at."""

    raw: bytes
    rate: int


@dataclass(frozen=True, slots=True)
class Retried:
    """Something was lost or damaged and is done again: `what`, for which `reason`, for the `count`-th time."""

    what: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class RateChanged:
    """The link runs at `rate` bit/s from now on; `reason` is ``asked``, ``errors``, ``clean`` or ``failed``."""

    rate: int
    reason: str


@dataclass(frozen=True, slots=True)
class LineReset:
    """espmon reset the board with the modem lines, by the sequence called `how`."""

    how: str


@dataclass(frozen=True, slots=True)
class LoaderMet:
    """The loader that does the work from here on: `kind` (``espmon``, ``stub`` or ``rom``), its `title`, the link's rate."""

    kind: str
    title: str
    rate: int
